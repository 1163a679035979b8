"""What tests of `cache.joined` share: caches that ask no server, and calls that begin together.

Thread rule: a cache belongs to its test.
Refuses to know: what is tested.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from stillwarm import Cache, _load

CLOSED = "postgresql://u@127.0.0.1:1/db"  # nobody listens there


@pytest.fixture(params=[None, CLOSED], ids=["memory", "no_server"])
def cache(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cache]:
    """With a URL no other test could pass that asked its server: each run would fail `asked_nobody`."""
    monkeypatch.setattr(_load, "FOLLOWER_LIMIT", 20.0)  # a hang shows as LoadTimeout
    with Cache(request.param) as made:
        yield made
        assert made.stats().flights == 0
        assert made.stats().entries == 0
        assert asked_nobody(made)


def asked_nobody(cache: Cache) -> bool:
    if cache._tier is None:
        return True
    health = cache._tier.core.health()
    return cache._tier.errors == 0 and health["served"] == 0 and health["last_error"] is None


class Value:
    """What a run returns: an object that is known again, and that can be seen to go."""


def until(condition: Callable[[], bool]) -> None:
    """Waits for another thread; a test that would hang fails."""
    pause = threading.Event()
    for _ in range(20_000):
        if condition():
            return
        pause.wait(0.001)
    raise AssertionError("it never came to that")


async def auntil(condition: Callable[[], bool]) -> None:
    for _ in range(20_000):
        if condition():
            return
        await asyncio.sleep(0.001)
    raise AssertionError("it never came to that")


def at_once(count: int, call: Callable[[int], Any]) -> list[Any]:
    """What `count` threads got that called together, results and errors."""
    start, results = threading.Barrier(count), []

    def run(number: int) -> None:
        start.wait(20)
        try:
            results.append(call(number))
        except Exception as error:
            results.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(results) == count
    return results
