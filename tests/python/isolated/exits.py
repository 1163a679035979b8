"""Ends while something is still running: `exits.py HOW`. The last line tells when the end began.

Thread rule: a process of its own.
Refuses to know: pytest.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from stillwarm import Cache, _core

SECOND = 1_000_000_000
begun = threading.Semaphore(0)


def slow(key: Any) -> Any:
    begun.release()
    time.sleep(60)
    return key


def in_thread(target: Callable[..., Any], *args: Any) -> None:
    threading.Thread(target=target, args=args, daemon=True).start()


def loads() -> None:
    cache = Cache(ttl=60)
    plain, other = cache.cached(slow), cache.cached(tags=["a"])(slow)
    for key in range(4):
        in_thread(plain, key)
        in_thread(other, key)
    for _ in range(8):
        begun.acquire()


def followers() -> None:
    cache = Cache(ttl=60)
    cached = cache.cached(slow)
    for _ in range(8):
        in_thread(cached, 1)
    begun.acquire()
    while cache.stats().joined < 7:
        time.sleep(0.001)


def refreshes(caches: int = 1) -> None:
    """Background refreshes: all threads of the load pools of some caches are busy."""
    _core.clock_set(1_000 * SECOND)
    functions = []
    for _ in range(caches):
        cache = Cache(ttl=10, jitter=0.0, stale_while_revalidate=1_000)
        functions += [cache.cached(lambda key: slow(key) if started.is_set() else key) for _ in range(4)]
    for function in functions:
        function(1)
    started.set()
    _core.clock_set(1_020 * SECOND)
    for function in functions:
        assert function(1) == 1
    for _ in functions:
        begun.acquire()
    kept.extend(functions)


started = threading.Event()
kept: list[Any] = []


def tasks() -> None:
    """A loop in a daemon thread, with a load that waits and one that blocks, and a thread that follows the first."""
    cache = Cache(ttl=60)

    @cache.cached
    async def waits(key: int) -> None:
        begun.release()
        await asyncio.sleep(60)

    @cache.cached
    async def blocks(key: int) -> None:
        await asyncio.sleep(0)
        slow(key)

    async def main() -> None:
        await asyncio.gather(waits(1), waits(1), blocks(1))

    in_thread(asyncio.run, main())
    begun.acquire()
    begun.acquire()


def comparisons() -> None:
    """A thread inside a key's __eq__ and one inside a value's __del__, called by the core."""
    cache = Cache(ttl=60)

    class Key:
        def __hash__(self) -> int:
            return 7

        def __eq__(self, other: object) -> bool:
            slow(0)
            return True

    class Value:
        def __del__(self) -> None:
            if threading.current_thread() is not threading.main_thread():
                slow(0)

    cached = cache.cached(lambda key: key)
    cached(Key())
    in_thread(cached, Key())
    in_thread(lambda: cached.cache_invalidate(Key()))
    cache.set("a", Value())
    in_thread(cache.delete, "a")
    cache.set("b", Value())
    in_thread(cache.set, "b", 1)
    for _ in range(4):
        begun.acquire()


def finalizers() -> None:
    """Daemon threads that are ended inside a `__del__` which the cache runs: nothing on their stacks may object."""
    cache = Cache(ttl=60)

    class Value:
        def __del__(self) -> None:
            begun.release()
            time.sleep(0.01)

    def store(number: int) -> None:
        while True:
            cache.set(f"{number}", Value(), 60, ["tag"])  # the long way, which keeps a list of what it releases

    def invalidate() -> None:
        while True:
            cache.invalidate(tag="tag")

    for number in range(4):
        in_thread(store, number)
    in_thread(invalidate)
    for _ in range(8):
        begun.acquire()


HOW: dict[str, Callable[[], None]] = {
    "loads": loads,
    "followers": followers,
    "refreshes": refreshes,
    "many-caches": lambda: refreshes(10),
    "tasks": tasks,
    "comparisons": comparisons,
    "finalizers": finalizers,
}
HOW[sys.argv[1]]()
print("end", time.monotonic(), flush=True)
