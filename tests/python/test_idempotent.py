"""Idempotency keys on write routes: every rule of the draft, in memory and in PostgreSQL, in Flask and FastAPI.

Thread rule: one thread; records are made older by the test.
Refuses to know: concurrency and crashes (test_idempotent_concurrent), and whose a key is (test_idempotent_users).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from stillwarm import Cache, ConfigError, _core
from stillwarm._idempotency import hashed
from stillwarm._idempotency_memory import MemoryStore, store_of
from stillwarm._idempotency_postgres import PostgresStore
from stillwarm._servers import PostgresServer
from stillwarm.errors import TierUnavailable
from tiers import Ground
from writing import KEY, Writes, code, each_front, replayed


@pytest.fixture(params=["memory", "postgres"])
def shared(request: pytest.FixtureRequest) -> Iterator[Ground]:
    """Where the records are."""
    if request.param == "memory":
        ground = Ground(None)
    else:
        ground = Ground(request.getfixturevalue("warm_postgres").new_database())
    yield ground
    for cache in ground.caches:
        cache.close()


@pytest.fixture
def database(warm_postgres: PostgresServer) -> Iterator[Ground]:
    ground = Ground(warm_postgres.new_database())
    yield ground
    for cache in ground.caches:
        cache.close()


def older(ground: Ground, seconds: float) -> None:
    """All records become older."""
    if ground.url is None:
        _core.clock_set(_core.clock_now() + int(seconds * 1e9))
    else:
        ground.sql(
            "UPDATE stillwarm.idempotency SET lease_until = lease_until - %(s)s * interval '1 s', created_at = "
            "created_at - %(s)s * interval '1 s', expires_at = expires_at - %(s)s * interval '1 s'".replace(
                "%(s)s", str(seconds)
            )
        )


def records(ground: Ground, columns: str = "state") -> list[Any]:
    return [row[0] for row in ground.sql(f"SELECT {columns} FROM stillwarm.idempotency ORDER BY key")]


# ------------------------------------------------------------------------------------------------------- the first time


@each_front
def test_idempotent_control_every_request_executes_without_it(front: str, shared: Ground) -> None:
    writes = Writes(front, shared.cache(), decorated=False)
    assert [writes.ask().body for _ in range(3)] == [b"order 1", b"order 2", b"order 3"]


@each_front
def test_idempotent_repetition_gets_the_same_answer(front: str, shared: Ground) -> None:
    writes = Writes(front, shared.cache())
    first, second, third = writes.ask(), writes.ask(), writes.ask(f'"{KEY}"')
    assert writes.executed == 1
    for answer in (second, third):
        assert (answer.status, answer.body, answer["x-order"]) == (201, b"order 1", "1")
        assert answer["content-length"] == "7"
        assert replayed(answer)
    assert (first.status, first.body, first["idempotency-replayed"]) == (201, b"order 1", None)
    assert writes.ask("another").body == b"order 2"


@each_front
@pytest.mark.parametrize("key", ["", '""', '"open', "a b", "a,b", "k" * 256, '"' + "k" * 256 + '"', "a;b"])
def test_idempotent_refuses_what_is_no_key(front: str, key: str) -> None:
    writes = Writes(front, Cache())
    answer = writes.ask(key)
    assert (answer.status, code(answer)) == (400, "key-malformed")
    assert writes.executed == 0


@each_front
def test_idempotent_refuses_a_missing_key_unless_it_may_be_missing(front: str) -> None:
    writes = Writes(front, Cache())
    answer = writes.ask(None)
    assert (answer.status, code(answer), writes.executed) == (400, "key-missing", 0)
    free = Writes(front, Cache(), required=False)
    assert [free.ask(None).body for _ in range(2)] == [b"order 1", b"order 2"]
    assert [free.ask().body for _ in range(2)] == [b"order 3", b"order 3"]


@each_front
def test_idempotent_leaves_safe_methods_alone(front: str) -> None:
    writes = Writes(front, Cache())
    assert [writes.ask(None, method="GET").body for _ in range(2)] == [b"order 1", b"order 2"]


@each_front
@pytest.mark.parametrize("change", [{"path": "/orders/2"}, {"path": "/orders/1?a=1"}, {"body": b"[]"}], ids=str)
def test_idempotent_key_of_another_request_is_refused(front: str, shared: Ground, change: dict[str, Any]) -> None:
    writes = Writes(front, shared.cache())
    assert writes.ask().status == 201
    answer = writes.ask(**change)
    assert (answer.status, code(answer), writes.executed) == (422, "key-reused", 1)
    assert replayed(writes.ask())


def test_idempotent_fingerprint_tells_where_fields_end() -> None:
    prints = {hashed("a", "bc"), hashed("ab", "c"), hashed("abc"), hashed("a", "b", "c"), hashed("", "abc")}
    assert len(prints) == 5


# -------------------------------------------------------------------------------------------------- what is kept of it


@each_front
def test_idempotent_never_replays_cookies_and_what_each_answer_has_of_its_own(front: str, shared: Ground) -> None:
    headers = [("Set-Cookie", "session=secret"), ("Date", "Thu, 01 Jan 1970 00:00:00 GMT"), ("Connection", "x-hop")]
    writes = Writes(
        front, shared.cache(), lambda n: (200, [*headers, ("Server", "s"), ("X-Hop", "1"), ("X-Kept", "1")], b"")
    )
    assert writes.ask()["set-cookie"] == "session=secret"
    answer = writes.ask()
    assert replayed(answer)
    assert {name for name, _ in answer.headers} <= {"x-kept", "content-length", "content-type", "idempotency-replayed"}
    assert answer["x-kept"] == "1"


@each_front
def test_idempotent_answer_that_is_too_large_is_given_once_and_never_executed_again(front: str, shared: Ground) -> None:
    writes = Writes(front, shared.cache(), lambda n: (200, [], b"x" * 1025), max_response="1KB", on_crash="rerun")
    assert len(writes.ask().body) == 1025
    for _ in range(2):
        answer = writes.ask()
        assert (answer.status, code(answer), answer["retry-after"]) == (409, "answer-not-kept", None)
    assert writes.executed == 1


@each_front
def test_idempotent_body_has_a_limit(front: str) -> None:
    writes = Writes(front, Cache(), max_body=10)
    answer = writes.ask(body=b"x" * 11)
    assert (answer.status, code(answer), writes.executed) == (413, "body-too-large", 0)
    assert writes.ask(body=b"x" * 10).status == 201


@each_front
def test_idempotent_answers_expire(front: str, shared: Ground) -> None:
    writes = Writes(front, shared.cache(), ttl="1h")
    assert writes.ask().body == b"order 1"
    older(shared, 3590)
    assert writes.ask().body == b"order 1"
    older(shared, 20)
    assert [writes.ask().body for _ in range(2)] == [b"order 2", b"order 2"]


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


# --------------------------------------------------------------------------------------------------------------- memory


def test_idempotent_memory_is_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    cache = Cache()
    with caplog.at_level(logging.WARNING, "stillwarm"):
        Writes("flask", cache)
        Writes("fastapi", cache)
    assert [record.getMessage()[:29] for record in caplog.records] == ["idempotent: without a databas"]


def test_idempotent_memory_refuses_what_it_has_no_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    cache = Cache()
    writes = Writes("flask", cache, ttl="1h")
    store = store_of(cache)
    assert isinstance(store, MemoryStore)
    store._most_keys, store._most_bytes = 2, 600
    assert [writes.ask(key).status for key in ("a", "b")] == [201, 201]
    answer = writes.ask("c")
    assert (answer.status, code(answer), answer["retry-after"]) == (503, "unavailable", "1")
    assert writes.executed == 2
    assert replayed(writes.ask("a")), "none is forgotten for a new one"
    _core.clock_set(_core.clock_now() + 3_600_000_000_000)
    assert writes.ask("c").status == 201
    store._most_bytes = 1
    assert writes.ask("d").status == 201
    assert code(writes.ask("d")) == "answer-not-kept"
    assert writes.executed == 4


def test_idempotent_works_while_the_cache_is_switched_off() -> None:
    writes = Writes("flask", Cache(enabled=False))
    assert [writes.ask().body for _ in range(2)] == [b"order 1", b"order 1"]


@each_front
@pytest.mark.parametrize(
    "option",
    [
        {"ttl": 0}, {"ttl": None}, {"lease": 1}, {"per_user": True}, {"max_body": 0}, {"max_response": "x"},
        {"header": "a b"}, {"transaction": 1}, {"on_crash": "again"}, {"required": 1},
    ],
    ids=str,
)  # fmt: skip
def test_idempotent_options_are_checked(front: str, option: dict[str, Any]) -> None:
    (name,) = option
    with pytest.raises(ConfigError, match=name):
        Writes(front, Cache(), **option)


@each_front
def test_idempotent_transaction_needs_a_database(front: str) -> None:
    with pytest.raises(ConfigError, match="transaction"):
        Writes(front, Cache(), transaction=lambda *_: psycopg.connect())
