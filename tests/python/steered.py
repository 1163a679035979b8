"""A loader whose answers and failures a test steers, behind a cached function.

Thread rule: `Source` may be called from any thread; the test waits for it by its semaphore.
Refuses to know: what is tested.
"""

from __future__ import annotations

import threading
from typing import Any

from stillwarm import Cache


class Down(ConnectionError):
    """The source is away: an error that classify() calls transient."""


class Source:
    """A loader whose answers and failures the test steers; `called` tells when a background refresh has come."""

    def __init__(self) -> None:
        self.calls = 0
        self.error: Exception | None = None
        self.called = threading.Semaphore(0)

    def __call__(self, key: str = "k") -> int:
        self.calls += 1
        try:
            if self.error is not None:
                raise self.error
            return self.calls
        finally:
            self.called.release()


def settled(cache: Cache) -> None:
    """Waits until no load is in the air."""
    done = threading.Event()
    for _ in range(2000):
        if cache.stats().flights == 0:
            return
        done.wait(0.005)
    raise AssertionError("a flight never landed")


def cached(cache: Cache, source: Source, **options: Any) -> Any:
    options.setdefault("jitter", 0)

    @cache.cached(**options)
    def load(key: str = "k") -> int:
        return source(key)

    return load
