"""Marks of the Redis tier under eviction: does a value that was invalidated ever come back?

A source of versions, some caches that load from it, invalidations by every intent, and keys of the marks that go
missing at random or under real pressure. `Naive` has its marks in keys of their own and knows no incarnation.

Thread rule: one thread; a load that is overtaken by an invalidation is one that makes it itself.
Refuses to know: limits (trust.py), pytest.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol

from outages import forget, patient
from served import RawRedis
from stillwarm._redis_server import RedisServer

KEYS, TAGS = 12, 4
MARKS = ("m", "l", "t1", "t2")
POLICIES = ("allkeys-lru", "allkeys-random")
Line = tuple[bool, str, str]


class Outcome(NamedTuple):
    """What was seen."""

    reads: int
    hits: int  # answered by the tier: no load
    invalidations: int
    evicted: int  # of the keys that hold marks
    wrong: int  # an older version than the last one that was invalidated before the read began

    def __str__(self) -> str:
        return (
            f"{self.reads:,} reads, {self.hits:,} of them hits, {self.invalidations:,} invalidations,"
            f" {self.evicted:,} marks evicted, {self.wrong} resurrections"
        )


class Subject(Protocol):
    """One process's way to the cached versions."""

    def get(self, key: int, load: Callable[[], int]) -> int: ...
    def invalidate(self, intent: str, key: int) -> None: ...


class Ours:
    """A cache whose memory forgets before each read."""

    def __init__(self, url: str) -> None:
        self._context = patient(url, namespace="evicted")
        self.cache = self._context.__enter__().cache
        self._load: Callable[[], int] = lambda: 0
        self.get_version = self.cache.cached(name="v", tags=lambda key: [f"t{key % TAGS}"])(self._loaded)

    def _loaded(self, key: int) -> int:
        return self._load()

    def get(self, key: int, load: Callable[[], int]) -> int:
        forget(self.cache)
        self._load = load
        value: int = self.get_version(key)
        assert self.cache._tier is not None
        self.cache._tier.core.drain(10_000_000_000)
        return value

    def invalidate(self, intent: str, key: int) -> None:
        what: Any = {"key": f"v:{key}", "tag": f"t{key % TAGS}", "type": "default", "all": True}[intent]
        self.cache.invalidate(**{intent: what})

    def close(self) -> None:
        self._context.__exit__(None, None, None)


class Naive:
    """Marks in keys of their own: one that is missing says that nothing was invalidated."""

    def __init__(self, url: str) -> None:
        self.raw = RawRedis(url)

    def _marks(self, key: int) -> list[str]:
        return ["naive:all", "naive:type", f"naive:t{key % TAGS}", f"naive:k{key}"]

    def get(self, key: int, load: Callable[[], int]) -> int:
        entry, *marks = self.raw("MGET", f"naive:e{key}", *self._marks(key))
        born = int(self.raw("GET", "naive:n") or 0)
        if entry is not None:
            made, _, value = entry.partition(" ")
            if all(int(mark or 0) <= int(made) for mark in marks):
                return int(value)
        version = load()
        self.raw("SET", f"naive:e{key}", f"{born} {version}")
        return version

    def invalidate(self, intent: str, key: int) -> None:
        mark = {"all": 0, "type": 1, "tag": 2, "key": 3}[intent]
        self.raw("SET", self._marks(key)[mark], self.raw("INCR", "naive:n"))

    def close(self) -> None:
        self.raw.__exit__()


def run(make: Callable[[str], Any], count: int, seed: int, policy: str | None = None) -> Outcome:
    """`count` operations. Without a policy, marks are deleted at random; with one, the server is full and evicts."""
    rng = random.Random(seed)
    with RedisServer() as server, RawRedis(server.url) as raw:
        subjects = [make(server.url) for _ in range(2)]
        newest, floor = [1] * KEYS, [1] * KEYS  # of the source; what a read that begins now must have at least
        reads = hits = invalidations = evicted = wrong = 0
        loads: list[int] = []
        if policy:
            used = int(raw("INFO", "memory").split("used_memory:")[1].split()[0])
            raw("CONFIG", "SET", "maxmemory-policy", policy)
            raw("CONFIG", "SET", "maxmemory", used + 2_000_000)

        def change(subject: Subject) -> None:
            nonlocal invalidations
            intent, key = rng.choice(("key", "tag", "type", "all")), rng.randrange(KEYS)
            concerned = {"key": [key], "tag": range(key % TAGS, KEYS, TAGS)}.get(intent, range(KEYS))
            for one in concerned:
                newest[one] += 1
            subject.invalidate(intent, key)
            invalidations += 1
            for one in concerned:
                floor[one] = newest[one]

        def load_of(key: int) -> Callable[[], int]:
            def load() -> int:
                loads.append(newest[key])
                value = newest[key]
                if rng.random() < 0.1:
                    change(rng.choice(subjects))
                return value

            return load

        for _ in range(count):
            if rng.random() < 0.15:
                change(rng.choice(subjects))
            key = rng.randrange(KEYS)
            least, before = floor[key], len(loads)
            value = rng.choice(subjects).get(key, load_of(key))
            reads += 1
            hits += len(loads) == before
            wrong += value < least
            if policy:
                raw("SET", f"filler:{rng.randrange(1_000)}", os.urandom(4_000))
                evicted += not raw("EXISTS", "stillwarm:{evicted}:m")
            elif rng.random() < 0.1:
                names = raw("KEYS", "naive:[akt]*") or [f"stillwarm:{{evicted}}:{mark}" for mark in MARKS]
                evicted += raw("DEL", rng.choice(names))
        for subject in subjects:
            subject.close()
    return Outcome(reads, hits, invalidations, evicted, wrong)


def lines(seed: int, count: int = 30_000) -> Iterator[Line]:
    """The report: (ok, what, figures)."""
    naive = run(Naive, 2_000, seed)
    yield naive.wrong > 0, "redis: control with marks of their own is caught", str(naive)
    for policy in (None, *POLICIES):
        seen = run(Ours, count, seed, policy)
        ok = seen.wrong == 0 and seen.hits > 0 and (seen.evicted > 0 or policy == "allkeys-lru")
        yield ok, f"redis: marks evicted, {policy or 'at random'}", str(seen)
