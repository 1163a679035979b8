"""What a miss costs beyond its loader when the cache is full, so that each one stores and evicts.

Thread rule: one thread. Refuses to know: how the others are configured.
"""

from __future__ import annotations

import timeit
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

from python.hits import TTL, best_with_ttl, one
from python.measure import Candidate, Plan, Section, attempt, compared, interleaved, versus
from rivals import OURS, Rivals
from stillwarm import Cache

ENTRIES = 10_000
WEIGHED = f"{OURS}, byte budget"
_numbers = count()


def sections(plan: Plan, rivals: Rivals) -> Iterator[Section]:
    yield miss(plan, rivals)
    yield stored(plan, rivals)


def fresh(number: int) -> list[str]:
    """Keys that no cache has seen, hashed already, as those of a request that was looked at before would be."""
    keys = [f"product:{next(_numbers):012}" for _ in range(number)]
    for key in keys:
        hash(key)
    return keys


def over_fresh_keys(call: Callable[[str], Any], seconds: float) -> Candidate:
    """Nanoseconds per call of `call(key)`, each with a key of its own."""

    def once(number: int) -> float:
        timer = timeit.Timer(
            "for k in keys: f(k)", "f = _f; keys = _keys", globals={"_f": call, "_keys": fresh(number)}
        )
        return timer.timeit(1)

    number = 64
    while (took := once(number)) < seconds / 4 and number < 200_000:
        number *= 2
    number = max(64, int(number * seconds / took))
    return lambda: once(number) / number * 1e9


def filled(section: Section, name: str, call: Callable[[str], Any], seconds: float) -> Candidate | None:
    def make() -> Candidate:
        for key in fresh(ENTRIES * 5 // 4):
            call(key)
        return over_fresh_keys(call, seconds)

    candidate: Candidate | None = attempt(section, name, make)
    return candidate


def bytes_each() -> int:
    """What one entry weighs in a byte budget."""
    cache = Cache()
    for key in fresh(100):
        cache.set(key, one(key), TTL)
    return cache.stats().bytes // 100


def miss(plan: Plan, rivals: Rivals) -> Section:
    title = "miss + store + evict, beyond the loader"
    section = Section(title, "ns")
    calls = {name: adapter.decorated(one, ENTRIES, TTL) for name, adapter in rivals.with_("decorated").items()}
    weighed = Cache(max_bytes=ENTRIES * bytes_each())
    calls[WEIGHED] = weighed.cached(ttl=TTL)(one)
    candidates = {name: filled(section, name, call, plan.slice) for name, call in calls.items()}
    samples = interleaved(
        {name: candidate for name, candidate in candidates.items() if candidate is not None},
        plan.rounds,
        over_fresh_keys(one, plan.slice),
    )
    compared(section, samples, OURS)
    versus(section, title, samples, OURS, "lru_cache", 2.0)
    versus(section, f"{title}, values weighed", samples, WEIGHED, "lru_cache", None)
    best_with_ttl(section, title, samples, rivals, 1.0)
    section.notes.append(f"{ENTRIES:,} entries at most; dogpile.cache has no bound and evicts nothing")
    section.notes.append(f"{WEIGHED}: {weighed.stats().entries:,} entries fit")
    return section


def stored(plan: Plan, rivals: Rivals) -> Section:
    title = "cache.set of a new key, full cache"
    section = Section(title, "ns")
    candidates: dict[str, Candidate] = {}
    for name, adapter in rivals.with_("make_store").items():
        store, put = adapter.make_store(ENTRIES, TTL), adapter.put
        candidate = filled(section, name, lambda key, store=store, put=put: put(store, key, "value"), plan.slice)
        if candidate is not None:
            candidates[name] = candidate
    samples = interleaved(candidates, plan.rounds, over_fresh_keys(lambda key: one(key), plan.slice))
    compared(section, samples, OURS)
    best_with_ttl(section, title, samples, rivals, None)
    section.notes.append("each is called through two Python functions, whose cost is subtracted")
    return section
