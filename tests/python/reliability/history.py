"""The history check: many readers and writers on few keys, and no read is older than the last invalidation before it.

Thread rule: `run` starts its own threads and loops and ends them.
Refuses to know: what a cache does inside. It sees calls and values.

Each key has a version, which its writer raises before it invalidates; when invalidate() has returned, `floor` follows.
A reader takes the floor first and reads afterwards: a value below that floor is impossible in a right cache. The source
gives way to other threads between reading the version and returning it, so that loads and invalidations cross often.
"""

from __future__ import annotations

import asyncio
import random
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from reliability.naive import FillAfterInvalidate
from stillwarm import Cache

BATCH = 100  # reads between two pauses in which other threads run
PAUSE_EVERY = 7  # each so many loads of a key, the source gives way in the middle


@dataclass
class Subject:
    """What is checked: how to read (sync, async or both) and how to invalidate the keys that a writer owns."""

    read: Callable[[int], int] | None = None
    aread: Callable[[int], Awaitable[int]] | None = None
    ways: dict[str, Callable[[int], object]] = field(default_factory=dict)
    lost_fills: Callable[[], int] = lambda: 0


@dataclass
class Outcome:
    reads: int = 0
    invalidations: int = 0
    impossible: list[tuple[int, int, int]] = field(default_factory=list)  # key, floor, what was read
    loads: int = 0
    lost_fills: int = 0

    def __str__(self) -> str:
        return (
            f"{self.reads + self.invalidations:,} operations: {self.invalidations:,} invalidations, "
            f"{self.loads:,} loads, "
            f"{self.lost_fills:,} lost fills, {len(self.impossible)} impossible reads"
        )


class Source:
    def __init__(self, keys: int) -> None:
        self.version = [0] * keys
        self.floor = [0] * keys
        self.loads = 0

    def load(self, key: int) -> int:
        version = self.version[key]
        self.loads += 1
        if self.loads % PAUSE_EVERY == 0:
            time.sleep(0)
        return version

    async def aload(self, key: int) -> int:
        version = self.version[key]
        self.loads += 1
        if self.loads % PAUSE_EVERY == 0:
            await asyncio.sleep(0)
            time.sleep(0)
        return version


def cached_function(source: Source) -> Subject:
    """A plain function, by every way of invalidation that concerns it."""
    cache = Cache(ttl=None)
    cache.define("numbers")

    @cache.cached("numbers", tags=lambda key: [f"tag:{key}"], name="number")
    def number(key: int) -> int:
        return source.load(key)

    @cache.cached("numbers", name="plain")
    def plain(key: int) -> int:  # the short way through the core, which has no tags
        return source.load(key)

    def both(key: int) -> int:
        return min(number(key), plain(key))

    forgotten = [0]

    def by_cache_clear(key: int) -> None:
        for function in (number, plain):
            forgotten[0] += function.cache_info().lost_fills  # cache_clear() resets the counts
            function.cache_clear()

    def by_key(key: int) -> None:
        number.cache_invalidate(key)
        plain.cache_invalidate(key)

    def by_tag(key: int) -> None:
        cache.invalidate(tag=f"tag:{key}")
        plain.cache_invalidate(key)

    return Subject(
        read=both,
        ways={
            "key": by_key,
            "text": lambda key: [cache.invalidate(key=f.cache_key(key)) for f in (number, plain)],
            "tag": by_tag,
            "type": lambda key: cache.invalidate(type="numbers"),
            "pattern": lambda key: cache.invalidate(pattern=f"*:{key}"),
            "all": lambda key: cache.invalidate(all=True),
            "clear": lambda key: cache.clear(),
            "cache_clear": by_cache_clear,
        },
        lost_fills=lambda: forgotten[0] + cache.stats().lost_fills,
    )


def direct_keys(source: Source) -> Subject:
    """`get_or_set` for threads and `aget_or_set` for tasks, on the same keys."""
    cache = Cache(ttl=None)
    names = [f"key{i}" for i in range(len(source.version))]
    return Subject(
        read=lambda key: cache.get_or_set(names[key], lambda: source.load(key)),
        aread=lambda key: cache.aget_or_set(names[key], lambda: source.aload(key)),
        ways={
            "delete": lambda key: cache.delete(names[key]),
            "set": lambda key: cache.set(names[key], source.version[key]),
            "key": lambda key: cache.invalidate(key=names[key]),
            "pattern": lambda key: cache.invalidate(pattern="key*"),
            "all": lambda key: cache.invalidate(all=True),
        },
        lost_fills=lambda: cache.stats().lost_fills,
    )


def coroutine_function(source: Source) -> Subject:
    """A coroutine function, awaited on several loops."""
    cache = Cache(ttl=None)
    cache.define("numbers")

    @cache.cached("numbers", tags=lambda key: [f"tag:{key}"])
    async def number(key: int) -> int:
        return await source.aload(key)

    return Subject(
        aread=number,
        ways={
            "key": lambda key: number.cache_invalidate(key),
            "tag": lambda key: cache.invalidate(tag=f"tag:{key}"),
            "type": lambda key: cache.invalidate(type="numbers"),
            "pattern": lambda key: cache.invalidate(pattern=f"*:{key}"),
            "all": lambda key: cache.invalidate(all=True),
        },
        lost_fills=lambda: cache.stats().lost_fills,
    )


def naive(source: Source) -> Subject:
    """The control: it stores what was loaded while it was invalidated. Its loads take a moment, so that some are."""

    def load(key: int) -> int:
        version = source.load(key)
        time.sleep(0.0001)
        return version

    cache = FillAfterInvalidate(load)
    return Subject(read=cache, ways={"key": cache.invalidate})


SUBJECTS: dict[str, Callable[[Source], Subject]] = {
    "threads": cached_function,
    "tasks": coroutine_function,
    "mixed": direct_keys,
}


def run(
    make: Callable[[Source], Subject], operations: int, *, seed: int, keys: int = 4, readers: int = 6, writers: int = 2
) -> Outcome:
    """Reads `operations` times in all while the writers invalidate, and says what was impossible."""
    source = Source(keys)
    subject = make(source)
    total = Outcome()
    lock = threading.Lock()
    failures: list[BaseException] = []
    stop = threading.Event()
    per_reader = -(-operations // readers)

    def read(number: int) -> None:
        rng = random.Random(seed * 1000 + number)
        floor, get = source.floor, subject.read
        assert get is not None
        bad = []
        for _ in range(per_reader // BATCH):
            for key in rng.choices(range(keys), k=BATCH):
                least = floor[key]
                value = get(key)
                if value < least:
                    bad.append((key, least, value))
            time.sleep(0)
        with lock:
            total.reads += per_reader // BATCH * BATCH
            total.impossible += bad

    async def aread(number: int) -> None:
        rng = random.Random(seed * 1000 + number)
        floor, get = source.floor, subject.aread
        assert get is not None
        bad = []

        async def batch() -> None:
            for key in rng.choices(range(keys), k=BATCH):
                least = floor[key]
                value = await get(key)
                if value < least:
                    bad.append((key, least, value))

        for _ in range(per_reader // BATCH // 2):
            await asyncio.gather(batch(), batch())
            time.sleep(0)
        with lock:
            total.reads += per_reader // BATCH // 2 * 2 * BATCH
            total.impossible += bad

    def write(number: int) -> None:
        rng = random.Random(-seed * 1000 - number - 1)
        ways = list(subject.ways.values())
        own = range(number, keys, writers)
        count = 0
        while not stop.is_set():
            key, way = rng.choice(own), rng.choice(ways)
            source.version[key] += 1
            version = source.version[key]
            way(key)
            source.floor[key] = version
            count += 1
            time.sleep(0)
        with lock:
            total.invalidations += count

    def guarded(target: Callable[[int], Any], number: int) -> None:
        try:
            target(number)
        except BaseException as error:
            failures.append(error)

    def on_loop(number: int) -> None:
        asyncio.run(aread(number))

    both = subject.read is not None and subject.aread is not None
    reading = [
        threading.Thread(
            target=guarded, args=(on_loop if subject.read is None or (both and i % 2) else read, i), daemon=True
        )
        for i in range(readers)
    ]
    writing = [threading.Thread(target=guarded, args=(write, i), daemon=True) for i in range(writers)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for thread in reading + writing:
            thread.start()
        for thread in reading:
            thread.join()
        stop.set()
        for thread in writing:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    if failures:
        raise failures[0]
    total.loads = source.loads
    total.lost_fills = subject.lost_fills()
    return total
