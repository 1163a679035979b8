"""Writes that ended in mid-execution, so that nobody knows what they did; for the tests of what operators see of it.

Thread rule: one thread; records are made older by the test.
Refuses to know: who looks.
"""

from __future__ import annotations

from typing import Any

import pytest

from keeping import older
from stillwarm._idempotency import key_of
from tiers import Ground
from writing import KEY, Writes, code

ROUTE = "POST /orders/<int:number>"
SECRET = b"the answer is private"


def record_of(key: str = KEY, user: str | None = "ann") -> str:
    return key_of(None if user is None else f"user {user}", ROUTE, key)


def broken(ground: Ground, cache: Any, *keys: str, **options: Any) -> Writes:
    """A route whose execution under these keys ended in the middle, 31 s ago: what came later would succeed."""
    ending: list[bool] = []

    def handler(n: int) -> Any:
        if ending:
            raise SystemExit  # as much as a test can be killed
        return 201, [("X-Order", str(n))], SECRET

    writes = Writes("flask", cache, handler, per_user=lambda: "ann", **options)
    ending.append(True)
    for key in keys or (KEY,):
        with pytest.raises(SystemExit):
            writes.ask(key)
    ending.clear()
    older(ground, 31)
    assert code(writes.ask(keys[0] if keys else KEY)) == "outcome-unknown"
    return writes
