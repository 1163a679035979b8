"""Caches as they are often written, with the mistakes that the checks must see: the controls.

Thread rule: any thread, as far as a dict and a plain lock allow.
Refuses to know: stillwarm.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Hashable
from typing import Any


class FillAfterInvalidate:
    """Looks, loads, stores: a load that ran during an invalidation is stored afterwards. A lock for each key."""

    def __init__(self, load: Callable[[Hashable], Any]) -> None:
        self.load = load
        self.kept: dict[Hashable, Any] = {}
        self.locks: dict[Hashable, threading.Lock] = {}

    def __call__(self, key: Hashable) -> Any:
        if key in self.kept:
            return self.kept.get(key)
        with self.locks.setdefault(key, threading.Lock()):
            value = self.kept.get(key)
            if value is None:
                value = self.kept[key] = self.load(key)
        return value

    def invalidate(self, key: Hashable) -> None:
        self.kept.pop(key, None)

    def clear(self) -> None:
        self.kept.clear()


class SharedTask:
    """Coalesces coroutines by sharing the leader's own task: whoever cancels the leader cancels everybody."""

    def __init__(self, load: Callable[[Hashable], Any]) -> None:
        self.load = load
        self.running: dict[Hashable, asyncio.Task[Any]] = {}

    async def __call__(self, key: Hashable) -> Any:
        task = self.running.get(key)
        if task is not None:
            return await asyncio.shield(task)
        task = self.running[key] = asyncio.current_task()  # type: ignore[assignment]
        try:
            return await self.load(key)
        finally:
            del self.running[key]


class LocksForEver:
    """One lock per key, which an error leaves taken: the mistake "after one exception the key is locked"."""

    def __init__(self, load: Callable[[Hashable], Any]) -> None:
        self.load = load
        self.locks: dict[Hashable, threading.Lock] = {}

    def __call__(self, key: Hashable, patience: float = -1) -> Any:
        lock = self.locks.setdefault(key, threading.Lock())
        if not lock.acquire(timeout=patience):
            raise TimeoutError(f"{key!r} is locked")
        value = self.load(key)
        lock.release()
        return value
