"""stillwarm: what is measured against the others. Counters are always on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rivals import OURS
from stillwarm import Cache, _core, retry

NAME, PACKAGE, TTL = OURS, "stillwarm", True


def decorated(function: Callable[..., Any], maxsize: int, ttl: float) -> Any:
    return Cache(max_bytes=None, max_entries=maxsize).cached(ttl=ttl)(function)


async_decorated = decorated


def make_store(maxsize: int, ttl: float) -> Cache:
    return Cache(max_bytes=None, max_entries=maxsize, ttl=ttl)


def put(store: Cache, key: str, value: object) -> None:
    store.set(key, value)


def expiring(maxsize: int) -> tuple[Cache, Callable[[], None]]:
    """The clock that all caches of the process share is moved by hand; `_core.clock_set(0)` gives it back."""
    start = _core.clock_now() + 10**9
    _core.clock_set(start)
    return make_store(maxsize, 60), lambda: _core.clock_set(start + 61 * 10**9)


def retried(function: Callable[..., Any]) -> Any:
    return retry(on=OSError)(function)


def async_retried(function: Callable[..., Any]) -> Any:
    return retry(on=OSError)(function)
