"""Whose an idempotency key is: with A's key, B never sees A's answer.

Thread rule: one thread.
Refuses to know: what else a key does (test_idempotent).
"""

from __future__ import annotations

from typing import Any

import flask
import pytest

from stillwarm import Cache, ConfigError
from stillwarm._idempotency import key_of
from stillwarm.web.idempotent import caller_of
from writing import Writes, code, each_front, replayed


def by_header(front: str) -> Any:
    if front == "flask":
        return lambda: flask.request.headers.get("x-user")

    async def user(request: Any) -> Any:
        return request.headers.get("x-user")

    return user


@each_front
def test_idempotent_users_have_keys_of_their_own(front: str) -> None:
    writes = Writes(front, Cache(), per_user=by_header(front))
    users = ["ann", "bob", "ann", "bob"]
    answers = [writes.ask(headers={"x-user": user}) for user in users]
    assert [answer.body for answer in answers] == [b"order 1", b"order 2", b"order 1", b"order 2"]
    assert [replayed(answer) for answer in answers] == [False, False, True, True]


@each_front
def test_idempotent_users_are_known_by_credentials_unless_told_otherwise(front: str) -> None:
    writes = Writes(front, Cache())
    headers = [{"authorization": "Bearer a"}, {"authorization": "Bearer b"}, {}]
    assert [writes.ask(headers=h).body for h in [*headers, *headers]] == [b"order 1", b"order 2", b"order 3"] * 2


@each_front
def test_idempotent_users_with_cookies_alone_get_no_answer_of_another_session(front: str) -> None:
    writes = Writes(front, Cache())
    assert writes.ask(headers={"cookie": "session=ann"}).body == b"order 1"
    for headers in ({"cookie": "session=bob"}, {}):
        answer = writes.ask(headers=headers)
        assert (answer.status, code(answer)) == (409, "answer-not-yours")
        assert b"order" not in answer.body
    assert replayed(writes.ask(headers={"cookie": "session=ann"}))
    assert writes.executed == 1, "and nothing is executed twice because a cookie changed"


@each_front
def test_idempotent_users_with_a_name_may_have_other_cookies(front: str) -> None:
    writes = Writes(front, Cache(), per_user=by_header(front))
    assert writes.ask(headers={"x-user": "ann", "cookie": "a=1"}).status == 201
    assert replayed(writes.ask(headers={"x-user": "ann", "cookie": "a=2"}))


@each_front
def test_idempotent_users_of_the_app_have_to_be_told_from_others(front: str) -> None:
    writes = Writes(front, Cache(), per_user=lambda *_: object())
    assert writes.ask().status == 500
    assert writes.executed == 0
    with pytest.raises(ConfigError, match="per_user"):
        caller_of(object(), "")


def test_idempotent_users_names_cannot_be_mixed_up() -> None:
    names = {
        key_of(*of)
        for of in [("a", "bc", "d"), ("ab", "c", "d"), ("a", "b", "cd"), (None, "a", "bcd"), ("", "a", "bcd")]
    }
    assert len(names) == 5
