"""Idempotency keys on write routes: executions that failed, records that could not be written, leases, and their ends.

Thread rule: one thread; records are made older by the test.
Refuses to know: concurrency and real crashes (test_idempotent_concurrent), and operators (test_idempotent_operators).
"""

from __future__ import annotations

from typing import Any

import pytest

from keeping import database, older, records, shared
from stillwarm._idempotency_memory import store_of
from stillwarm._idempotency_postgres import PostgresStore
from stillwarm._servers import PostgresServer
from stillwarm.errors import TierUnavailable
from tiers import Ground
from writing import KEY, Writes, code, each_front, replayed

__all__ = ["database", "shared"]


# ------------------------------------------------------------------------------------------------------------- failures


def boom(n: int) -> Any:
    raise ZeroDivisionError(f"the {n}th time")


def attempt(writes: Writes) -> int:
    """The status; 500 for an exception that no handler of the app took."""
    try:
        return writes.ask().status
    except ZeroDivisionError:
        return 500


@each_front
def test_idempotent_failure_is_not_executed_again(front: str, shared: Ground) -> None:
    writes = Writes(front, shared.cache(), boom)
    assert attempt(writes) == 500
    answer = writes.ask()
    assert (answer.status, code(answer), replayed(answer), writes.executed) == (500, "failed", True, 1)


@each_front
def test_idempotent_failure_is_executed_again_by_choice(front: str, shared: Ground) -> None:
    writes = Writes(front, shared.cache(), boom, on_crash="rerun")
    assert [attempt(writes) for _ in range(2)] == [500, 500]
    writes.handler = lambda n: (503, [], b"")
    assert [writes.ask().status for _ in range(2)] == [503, 503]
    writes.handler = lambda n: (200, [], b"%d" % n)
    assert [writes.ask().body for _ in range(2)] == [b"5", b"5"]


@each_front
@pytest.mark.parametrize(("status", "executed"), [(404, 1), (409, 1), (500, 1), (503, 1), (408, 2), (425, 2), (429, 2)])
def test_idempotent_errors_are_answers_unless_they_say_not_now(
    front: str, shared: Ground, status: int, executed: int
) -> None:
    writes = Writes(front, shared.cache(), lambda n: (status, [], b"no"))
    assert [writes.ask().status for _ in range(2)] == [status, status]
    assert writes.executed == executed


@each_front
def test_idempotent_nothing_is_executed_while_the_database_is_away(
    front: str, private_postgres: PostgresServer
) -> None:
    ground = Ground(private_postgres.url, timeout="250ms", connect_timeout="2s")
    with ground.cache() as cache:
        writes = Writes(front, cache)
        assert writes.ask("before").status == 201
        private_postgres.stop()
        for key in ("before", "new"):
            answer = writes.ask(key)
            assert (answer.status, code(answer), answer["retry-after"]) == (503, "unavailable", "1")
        assert writes.executed == 1
        control = Writes(front, cache, decorated=False)
        assert control.ask("new").status == 201, "without the decorator it is executed"


def test_idempotent_claim_whose_answer_was_lost_is_won_by_its_owner(
    database: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = database.cache()
    cache.migrate()
    tier: Any = cache._tier
    query, lost = tier.query, []

    def losing(text: str, *args: Any) -> Any:
        rows = query(text, *args)
        if "INSERT INTO" in text and not lost:
            lost.append(rows)
            raise TierUnavailable("the answer was lost")
        return rows

    monkeypatch.setattr(tier, "query", losing)
    writes = Writes("flask", cache)
    assert [writes.ask().body for _ in range(2)] == [b"order 1", b"order 1"]
    assert lost


def test_idempotent_record_that_cannot_be_finished_is_finished_later(
    database: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = database.cache()
    cache.migrate()
    tier: Any = cache._tier
    store = store_of(cache)
    assert isinstance(store, PostgresStore)
    monkeypatch.setattr(store, "_start", lambda: None)  # the test itself is the thread
    query = tier.query

    def losing(text: str, *args: Any) -> Any:
        if text == store.sql["finish"]:
            raise TierUnavailable("away")
        return query(text, *args)

    monkeypatch.setattr(tier, "query", losing)
    writes = Writes("flask", cache)
    assert writes.ask().status == 201, "it happened, and its client is told so"
    assert code(writes.ask()) == "running"
    assert store.tick(), "it is still owed"
    monkeypatch.undo()
    assert not store.tick()
    assert writes.ask().body == b"order 1"
    assert writes.executed == 1


# ----------------------------------------------------------------------------------------------- leases and operators


def crashed(ground: Ground, writes: Writes) -> None:
    """As the record is left by a process that ended in mid-execution."""
    assert writes.ask().status == 201
    ground.sql("UPDATE stillwarm.idempotency SET state = 'claimed', status = NULL, headers = NULL, body = NULL")
    assert code(writes.ask()) == "running"
    older(ground, 31)


@each_front
def test_idempotent_outcome_is_unknown_after_a_crash_until_somebody_looks(front: str, database: Ground) -> None:
    writes = Writes(front, database.cache(), per_user=lambda *_: "ann")
    crashed(database, writes)
    answer = writes.ask()
    assert (answer.status, code(answer), answer["retry-after"]) == (409, "outcome-unknown", None)
    route = "POST /orders/<int:number>" if front == "flask" else "POST /orders/{number}"
    assert not writes.warm.release_idempotent(route, KEY, user="bob")
    assert writes.warm.release_idempotent(route, KEY, user="ann")
    assert not writes.warm.release_idempotent(route, KEY, user="ann")
    assert writes.ask().body == b"order 2"
    assert not writes.warm.release_idempotent(route, KEY, user="ann"), "it is done"


def test_idempotent_unknown_expires(database: Ground) -> None:
    writes = Writes("flask", database.cache(), ttl="1h")
    crashed(database, writes)
    assert code(writes.ask()) == "outcome-unknown"
    older(database, 3600)
    assert writes.ask().body == b"order 2"


def test_idempotent_crash_is_executed_again_by_choice(database: Ground) -> None:
    writes = Writes("flask", database.cache(), on_crash="rerun")
    crashed(database, writes)
    assert code(writes.ask(body=b"[]")) == "key-reused"
    assert [writes.ask().body for _ in range(2)] == [b"order 2", b"order 2"]


def test_idempotent_lease_is_renewed_while_it_runs(database: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = database.cache()
    store = store_of(cache)
    assert isinstance(store, PostgresStore)
    monkeypatch.setattr(store, "_start", lambda: None)
    told = []

    def slow(n: int) -> Any:
        older(database, 29)
        store._live = {owner: (claim, 0.0) for owner, (claim, _) in store._live.items()}  # it is time
        assert store.tick()
        older(database, 10)
        told.append(code(other.ask()))
        return 201, [], b"done"

    writes = Writes("flask", cache, slow)
    other = Writes("flask", database.cache())
    assert writes.ask().body == b"done"
    assert told == ["running"]
    assert other.ask().body == b"done"
    assert not store.tick()


def test_idempotent_purge_takes_what_expired(database: Ground) -> None:
    cache = database.cache()
    writes = Writes("flask", cache, ttl="1h")
    for number in range(5):
        writes.ask(f"k{number}")
    older(database, 3600)
    writes.ask("new")
    cache.purge(batch=2)
    assert records(database) == ["done"]


def test_idempotent_stores_neither_caller_nor_key(database: Ground) -> None:
    writes = Writes("flask", database.cache())
    writes.ask("a-key-of-mine", headers={"authorization": "Bearer hush-hush-7"})
    row = str(database.sql("SELECT t::text FROM stillwarm.idempotency t"))
    assert "POST /orders/<int:number>" in row
    assert "hush" not in row
    assert "a-key-of-mine" not in row
