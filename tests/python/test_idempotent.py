"""Idempotency keys on write routes: every rule of the draft, in memory and in PostgreSQL, in Flask and FastAPI.

Thread rule: one thread; records are made older by the test.
Refuses to know: failures and leases (test_idempotent_failures), concurrency (test_idempotent_concurrent), and whose a
key is (test_idempotent_users).
"""

from __future__ import annotations

import logging
from typing import Any

import flask
import psycopg
import pytest
from starlette.responses import Response as StarletteResponse

from keeping import older, shared
from stillwarm import Cache, ConfigError, _core
from stillwarm._idempotency import hashed
from stillwarm._idempotency_memory import MemoryStore, store_of
from stillwarm.errors import IdempotencyConflict, IdempotencyError, IdempotencyMismatch
from tiers import Ground
from writing import KEY, Writes, code, each_front, replayed

__all__ = ["shared"]


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


@each_front
def test_idempotent_refusal_is_told_in_the_apps_own_words_where_it_has_some(front: str, shared: Ground) -> None:
    heard: list[Any] = []

    def own_words(*given: Any) -> Any:  # Flask gives the error, Starlette the request before it
        heard.append(given[-1])
        made = flask.Response if front == "flask" else StarletteResponse
        return made("our own words", 418)

    for kind, status in (
        (Exception, 422),
        (IdempotencyConflict, 422),
        (IdempotencyMismatch, 418),
        (IdempotencyError, 418),
    ):
        writes = Writes(front, shared.cache())
        handle = writes.app.register_error_handler if front == "flask" else writes.app.add_exception_handler
        handle(kind, own_words)
        key = kind.__name__
        assert writes.ask(key, path="/orders/1").status == 201
        answer = writes.ask(key, path="/orders/2")
        assert answer.status == status, kind
        if status == 422:  # a handler of something else, or of all exceptions, is not meant
            assert code(answer) == "key-reused"
        else:
            assert answer.body == b"our own words"
        assert writes.executed == 1
    assert [(type(error), error.code) for error in heard] == [(IdempotencyMismatch, "idempotency-key-reused")] * 2


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
