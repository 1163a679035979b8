"""Schedules of `prefetch` that go on when a test lets them, and the cache that they refresh.

Thread rule: a Rounds belongs to its test; schedules wait in it on their own threads and loops.
Refuses to know: what is tested.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator

import pytest

from stillwarm import Cache, Prefetch, _aprefetch, _prefetch
from stillwarm.testing import Clock

LONG = 20  # s; what a test that hangs waits


class Rounds:
    """Lets one round after the other go; `waits` are the times in seconds that a schedule would have waited."""

    def __init__(self) -> None:
        self.waits: list[float] = []
        self._go = threading.Semaphore(0)
        self._waiting = threading.Semaphore(0)

    def pause(self, stop: threading.Event, seconds: float) -> bool:
        self.waits.append(seconds)
        self._waiting.release()
        while not self._go.acquire(timeout=0.005):
            if stop.is_set():
                return True
        return stop.is_set()

    async def apause(self, stop: asyncio.Event, seconds: float) -> bool:
        self.waits.append(seconds)
        self._waiting.release()
        while not self._go.acquire(blocking=False):
            if stop.is_set():
                return True
            await asyncio.sleep(0.001)
        return stop.is_set()

    def begin(self) -> None:
        assert self._waiting.acquire(timeout=LONG)
        self._go.release()

    def ended(self) -> None:
        assert self._waiting.acquire(timeout=LONG)
        self._waiting.release()

    def one(self) -> None:
        self.begin()
        self.ended()

    async def aone(self) -> None:
        await asyncio.to_thread(self.one)


@pytest.fixture
def rounds(monkeypatch: pytest.MonkeyPatch) -> Rounds:
    steps = Rounds()
    monkeypatch.setattr(_prefetch, "pause", steps.pause)
    monkeypatch.setattr(_aprefetch, "apause", steps.apause)
    return steps


@pytest.fixture
def cache(warm_clock: Clock) -> Iterator[Cache]:
    with Cache(ttl=60, jitter=0) as made:
        yield made
    until(lambda: not [thread for thread in threading.enumerate() if thread.name == "stillwarm-prefetch"])


def until(condition: Callable[[], bool]) -> None:
    for _ in range(4000):
        if condition():
            return
        threading.Event().wait(0.005)
    raise AssertionError("it never came to that")


def figures(schedule: Prefetch) -> tuple[int, int, int, int]:
    done = schedule.figures()
    return done.runs, done.refreshed, done.failed, done.skipped
