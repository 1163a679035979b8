"""The figures of a cache, as frozen records.

Thread rule: immutable.
Refuses to know: how they are counted (cpp/core/base/scope.hpp).
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any


class State(str, enum.Enum):
    """How well a cache is. Without a remote tier it is HEALTHY.

    Attributes:
        HEALTHY: the remote tier answers, or there is none.
        WARMING: a warm-up runs.
        DEGRADED: the tier is owed something, its messages do not arrive, or more than 5 % of the requests to it failed
            in the last 10 s.
        DOWN: it does not answer, or does not let this process in.
    """

    HEALTHY = "HEALTHY"
    WARMING = "WARMING"
    DEGRADED = "DEGRADED"
    DOWN = "DOWN"


@dataclass(frozen=True)
class Counters:
    """Counts of one type, or of all.

    Attributes:
        hits: answered with a fresh value.
        stale_hits: answered with a stale one, while it is refreshed or in place of an error.
        misses: calls that had to wait for a load, `joined` ones included.
        loads: runs of a loader, retries included.
        load_errors: of these, those that raised.
        load_seconds: the time of all of them.
        joined: misses that shared another caller's load.
        lost_fills: values that were loaded and not stored, because of an invalidation meanwhile.
        evictions: entries that left before their time, by cause: size, too_large, invalidated, not_found.
        expired: entries that left because their time was over.
        entries: how many are in memory now.
        bytes: what they take, with their keys.
        skipped_refreshes: background refreshes that found the load pool full.
        remote_hits: hits that came from the remote tier; in `hits` and `stale_hits`, too.
        remote_errors: requests to the remote tier that failed; of the cache in all.
        last_error: repr of the last error of a load.
    """

    hits: int = 0
    stale_hits: int = 0
    misses: int = 0
    loads: int = 0
    load_errors: int = 0
    load_seconds: float = 0.0
    joined: int = 0
    lost_fills: int = 0
    evictions: Mapping[str, int] = field(default_factory=dict)
    expired: int = 0
    entries: int = 0
    bytes: int = 0
    skipped_refreshes: int = 0
    remote_hits: int = 0
    remote_errors: int = 0
    last_error: str | None = None

    @property
    def hit_rate(self) -> float:
        """Share of the calls that did not wait, 0 to 1; 0 before the first call."""
        served = self.hits + self.stale_hits
        total = served + self.misses
        return served / total if total else 0.0


@dataclass(frozen=True)
class Stats(Counters):
    """The figures of a cache in all, and per type: `stats["scoring"]`.

    Attributes:
        types: the counters of each type, by name.
        state: as `Cache.state`.
        max_entries: the budget in entries, or None.
        max_bytes: the budget in bytes, or None.
        flights: loads that run now.
        tier: of the remote tier's connections and queues; `tier["compression"]` is what compression and dictionaries
            did with the values, by type in its `types`. Empty without a tier.
    """

    types: Mapping[str, Counters] = field(default_factory=dict)
    state: State = State.HEALTHY
    max_entries: int | None = None
    max_bytes: int | None = None
    flights: int = 0
    tier: Mapping[str, Any] = field(default_factory=dict)

    def __getitem__(self, type: str) -> Counters:
        return self.types[type]


@dataclass(frozen=True)
class HotKey:
    """One of the most used entries: `Cache.top()`.

    Attributes:
        key: the readable key.
        type: the type of its function.
        hits: how often it was used; in the remote tier by all processes.
        bytes: what it takes in memory; 0 of one in the remote tier.
    """

    key: str
    type: str
    hits: int
    bytes: int


_SUMMED = ("hits", "stale_hits", "misses", "loads", "load_errors", "load_seconds", "joined", "lost_fills", "entries")


def summed(rows: Iterable[dict[str, Any]], last_error: str | None) -> dict[str, Any]:
    """The fields of Counters from the core's counts of several scopes."""
    total: dict[str, Any] = dict.fromkeys((*_SUMMED, "bytes", "skipped_refreshes", "remote_hits"), 0)
    removed: dict[str, int] = {"size": 0, "expired": 0, "invalidated": 0, "too_large": 0, "not_found": 0}
    for row in rows:
        for name in total:
            total[name] += row[name]
        for cause, count in row["removed"].items():
            removed[cause] += count
    expired = removed.pop("expired")
    return {**total, "evictions": removed, "expired": expired, "last_error": last_error}
