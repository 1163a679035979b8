"""How much memory stays behind per operation, by the allocators' own books: C++ heap (mallinfo2) and Python's blocks.

Thread rule: one thread, and what the workload starts; run it in a process of its own (isolated/leaks.py).
Refuses to know: pytest.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import sys
import threading
from collections.abc import Callable
from typing import Any

from stillwarm import Cache, NotFound, Retry, current_load

BLOCK = 64  # bytes; what Python's small blocks are on average, and then some


class _Mallinfo2(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "keep",
        )
    ]


_mallinfo2 = ctypes.CDLL(None).mallinfo2
_mallinfo2.restype = _Mallinfo2


def in_use() -> int:
    """Bytes that the program holds; free lists and fragments do not count."""
    gc.collect()
    heap = _mallinfo2()
    return heap.uordblks + heap.hblkhd + sys.getallocatedblocks() * BLOCK


def hits(cache: Cache) -> Callable[[int], object]:
    one = cache.cached(lambda key: key, name="hits")
    return lambda n: (one(n % 10), one(key=n % 10), cache.get("nothing"))


def misses(cache: Cache) -> Callable[[int], object]:
    one = cache.cached(lambda key: [key], name="misses")
    two = cache.cached(lambda key, other: (key, other), name="misses2", tags=["a"], ttl=lambda value: 60)
    return lambda n: (one(n), two(n, "other"), cache.set(f"key{n}", n), cache.get_or_set(f"more{n}", list))


def errors(cache: Cache) -> Callable[[int], object]:
    def fail(key: int) -> int:
        local = [key] * 10  # kept alive by a traceback that leaks  # noqa: F841
        raise ValueError(key)

    def absent(key: int) -> int:
        raise NotFound(str(key))

    failing = [
        cache.cached(fail, name="plain"),
        cache.cached(fail, name="retried", retry=Retry(on=OSError, retries=1)),
        cache.cached(absent, name="absent", negative_ttl=5),
    ]

    def operation(n: int) -> None:
        for function in failing:
            with contextlib.suppress(ValueError, NotFound):
                function(n)

    return operation


def invalidations(cache: Cache) -> Callable[[int], object]:
    def load(key: int) -> int:
        current_load().tags.append(f"tag{key}")
        return key

    one = cache.cached(load, name="invalidated", tags=lambda key: [f"t{key % 100}"])
    ways = [
        lambda n: one.cache_invalidate(n % 50),
        lambda n: one.cache_invalidate(n % 50, stale=True),
        lambda n: cache.invalidate(tag=f"t{n % 100}"),
        lambda n: cache.invalidate(type="default"),
        lambda n: cache.invalidate(all=True, stale=True),
        lambda n: cache.invalidate(key=f"invalidated:{n % 50}"),
        lambda n: cache.clear(),
        lambda n: cache.delete(f"key{n}"),
    ]
    return lambda n: (one(n % 50), one.refresh(n % 50), ways[n % len(ways)](n))


def stampedes(cache: Cache) -> Callable[[int], object]:
    """Two threads meet at one key, which then fails or succeeds."""
    ask, answer, go_on = threading.Semaphore(0), threading.Semaphore(0), threading.Semaphore(0)
    wanted = [0]

    def load(key: int) -> int:
        go_on.acquire()
        if key % 2:
            raise ValueError(key)
        return key

    one = cache.cached(load, name="stampede")

    def call(key: int) -> None:
        with contextlib.suppress(ValueError):
            one(key)

    def other() -> None:
        while True:
            ask.acquire()
            call(wanted[0])
            answer.release()

    for _ in range(2):
        threading.Thread(target=other, daemon=True).start()

    def operation(n: int) -> None:
        wanted[0] = n
        ask.release(2)
        go_on.release(2)  # the follower may come too late, and then it leads a load of its own if the first one failed
        answer.acquire()
        answer.acquire()
        while go_on.acquire(blocking=False):
            pass

    return operation


def tasks(cache: Cache) -> Callable[[int], object]:
    loop = asyncio.new_event_loop()

    async def load(key: int) -> int:
        await asyncio.sleep(0)
        if key % 3 == 0:
            raise ValueError(key)
        return key

    one = cache.cached(load, name="tasks")

    async def some(n: int) -> None:
        calls = [asyncio.ensure_future(one(n)) for _ in range(3)]
        await asyncio.sleep(0)
        if n % 5 == 0:
            calls[0].cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        await asyncio.gather(one(n), one(n + 1), return_exceptions=True)

    return lambda n: loop.run_until_complete(some(n))


def functions(cache: Cache) -> Callable[[int], object]:
    """Decorated functions and caches that come and go, with a reference to themselves."""

    def operation(n: int) -> None:
        own = Cache(ttl=60) if n % 2 else cache

        @own.cached
        def recursive(key: int) -> Any:
            return recursive if key == 0 else recursive(key - 1)

        recursive(2)

    return operation


WORKLOADS: dict[str, tuple[Callable[[Cache], Callable[[int], object]], float]] = {
    "hits": (hits, 1.0),  # and the share of the operations that it does: some are slow
    "misses": (misses, 0.5),
    "errors": (errors, 0.3),
    "invalidations": (invalidations, 0.3),
    "stampedes": (stampedes, 0.05),
    "tasks": (tasks, 0.05),
    "functions": (functions, 0.08),  # fewer would measure when the collector last ran
}


def slope(name: str, operations: int) -> float:
    """Bytes per operation that stay behind, after as many operations to warm up."""
    make, share = WORKLOADS[name]
    cache = Cache(ttl=60, max_entries=500)
    operation = make(cache)
    count = max(1_000, int(operations * share))
    for n in range(count):
        operation(n)
    before = in_use()
    for n in range(count, 2 * count):
        operation(n)
    return (in_use() - before) / count
