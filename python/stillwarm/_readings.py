"""What the figures of caches, breakers and retries are called where they leave the process, their meaning and reading.

Thread rule: any thread. Nothing is counted here: figures are read from their source when somebody asks.
Refuses to know: who asks; metrics (Prometheus) and otel (OpenTelemetry) do, and import their libraries themselves.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias
from weakref import WeakKeyDictionary

from stillwarm import _core
from stillwarm._breakers import breakers
from stillwarm._retried import retry_stats
from stillwarm._stats import State, Stats
from stillwarm.breaker import CircuitBreaker

if TYPE_CHECKING:
    from stillwarm._cache import Cache

PREFIX: Final = "stillwarm_"

# A figure's name and the values of its labels.
Key: TypeAlias = tuple[str, tuple[str, ...]]


class Retries:
    """What stands for all retries and budgets of this process: the core counts them by name."""


RETRIES: Final = Retries()

# What figures are read from. A breaker and the retries are the process's, whatever caches there are.
Source: TypeAlias = "Cache | CircuitBreaker | Retries"


class Figure(NamedTuple):
    """A figure. `counter`: it only grows. `worst`: of several caches or processes the largest counts, not the sum."""

    help: str
    unit: str
    counter: bool
    labels: tuple[str, ...]
    worst: bool = False


_TYPE: Final = ("namespace", "type")
_CACHE: Final = ("namespace",)
_BREAKER: Final = ("breaker",)
_POLICY: Final = ("policy",)
_BUDGET: Final = ("budget",)
_CIRCUITS: Final = {"closed": 0.0, "half-open": 1.0, "open": 2.0}

FIGURES: Final[dict[str, Figure]] = {
    "hits": Figure("Calls answered with a fresh value.", "{call}", True, _TYPE),
    "stale_hits": Figure(
        "Calls answered with a stale value, during a refresh or in place of an error.", "{call}", True, _TYPE
    ),
    "misses": Figure("Calls that waited for a load, joined ones included.", "{call}", True, _TYPE),
    "loads": Figure("Runs of a loader, retries included.", "{load}", True, _TYPE),
    "load_errors": Figure("Runs of a loader that raised.", "{load}", True, _TYPE),
    "load_seconds": Figure("Time spent in loaders.", "s", True, _TYPE),
    "joined": Figure("Misses that shared the load of another caller.", "{call}", True, _TYPE),
    "lost_fills": Figure(
        "Loaded values that were not stored, because of an invalidation meanwhile.", "{value}", True, _TYPE
    ),
    "evictions": Figure(
        "Entries that left before their time, by cause: size, too_large, invalidated, not_found.",
        "{entry}",
        True,
        (*_TYPE, "cause"),
    ),
    "expired": Figure("Entries that left because their time was over.", "{entry}", True, _TYPE),
    "skipped_refreshes": Figure("Background refreshes that found the load pool full.", "{refresh}", True, _TYPE),
    "remote_hits": Figure(
        "Calls answered with a value of the remote tier; in hits or stale_hits, too.", "{call}", True, _TYPE
    ),
    "remote_errors": Figure("Requests to the remote tier that failed.", "{error}", True, _CACHE),
    "remote_up": Figure("1 while the remote tier answers; absent without one.", "", False, _CACHE),
    "remote_connections": Figure("Open connections to the remote tier, the listening one aside.", "", False, _CACHE),
    "remote_waiting": Figure("Requests that wait for a connection to the remote tier.", "{request}", False, _CACHE),
    "remote_owed": Figure(
        "What the remote tier did not take and gets when it is back, by kind: invalidations, writes.",
        "{request}",
        False,
        (*_CACHE, "kind"),
    ),
    "remote_round_trips": Figure("Statements that the remote tier was sent.", "{statement}", True, _CACHE),
    "remote_refused": Figure(
        "Values that the remote tier did not store, because of an invalidation meanwhile.", "{value}", True, _CACHE
    ),
    "remote_dropped": Figure(
        "What the remote tier did not take and there was no room to keep for it.", "{request}", True, _CACHE
    ),
    "remote_payload_bytes": Figure("Bytes of the values that were written to the remote tier.", "By", True, _CACHE),
    "remote_stored_bytes": Figure("Bytes that they took there, headers aside.", "By", True, _CACHE),
    "remote_compress_seconds": Figure("Time spent compressing values for the remote tier.", "s", True, _CACHE),
    "remote_decompress_seconds": Figure("Time spent decompressing values of the remote tier.", "s", True, _CACHE),
    "remote_dictionaries": Figure(
        "Compression dictionaries that this process knows; they are kept in the remote tier.",
        "{dictionary}",
        False,
        _CACHE,
    ),
    "undecodable": Figure(
        "Values of the remote tier that could not be read, or were too large for it, by reason.",
        "{value}",
        True,
        (*_CACHE, "reason"),
    ),
    "seconds_saved": Figure(
        "Estimate of the time that callers did not wait: calls answered from the cache times the mean time of a load.",
        "s",
        True,
        _TYPE,
    ),
    "entries": Figure("Entries in memory.", "{entry}", False, _TYPE),
    "bytes": Figure("Bytes of the entries in memory, keys included.", "By", False, _TYPE),
    "max_bytes": Figure("Budget of the memory tier in bytes; absent without one.", "By", False, _CACHE),
    "max_entries": Figure("Budget of the memory tier in entries; absent without one.", "{entry}", False, _CACHE),
    "flights": Figure("Loads that run now.", "{load}", False, _CACHE),
    "state": Figure(
        "1 for the state that the cache is in: HEALTHY, WARMING, DEGRADED or DOWN.", "", False, (*_CACHE, "state"), True
    ),
    "http_responses": Figure(
        "HTTP responses by what the cache did with them, and why.", "{response}", True, (*_CACHE, "outcome", "reason")
    ),
    "alert_crossings": Figure("How often an alert began.", "{alert}", True, (*_CACHE, "alert")),
    "alert_active": Figure("1 while the alert holds.", "", False, (*_CACHE, "alert"), True),
    "breaker_state": Figure("Circuit of a named breaker: 0 closed, 1 half-open, 2 open.", "", False, _BREAKER, True),
    "breaker_opened": Figure("How often the circuit opened.", "{opening}", True, _BREAKER),
    "breaker_refused": Figure("Calls that were not made, because the circuit was open.", "{call}", True, _BREAKER),
    "retry_calls": Figure("Calls that began under a retry policy.", "{call}", True, _POLICY),
    "retry_succeeded": Figure("Of these, calls that succeeded, at whichever attempt.", "{call}", True, _POLICY),
    "retry_recovered": Figure("Of these, calls that succeeded after a failure.", "{call}", True, _POLICY),
    "retry_failures": Figure("Attempts that failed.", "{attempt}", True, _POLICY),
    "retry_attempts": Figure("Attempts that were granted after a failed one.", "{attempt}", True, _POLICY),
    "retry_wait_seconds": Figure("Time between attempts, as it was granted.", "s", True, _POLICY),
    "retry_given_up": Figure("Calls that ended with their error, by reason.", "{call}", True, (*_POLICY, "reason")),
    "retry_budget_tokens": Figure("Retries that the shared budget still grants.", "{token}", False, _BUDGET),
    "retry_budget_max_tokens": Figure("Retries that the shared budget holds at most.", "{token}", False, _BUDGET),
}

_OF_TYPE: Final = tuple(name for name, figure in FIGURES.items() if figure.labels == _TYPE and name != "seconds_saved")

_lock = threading.Lock()


class _Seen:
    """What was read from one cache before: raw counts, and the counters as they were given."""

    __slots__ = ("given", "raw", "saved")

    def __init__(self) -> None:
        self.raw: dict[Key, float] = {}
        self.given: dict[Key, float] = {}
        self.saved: dict[str, tuple[float, float]] = {}  # by type: calls answered, seconds


_seen: WeakKeyDictionary[Cache, _Seen] = WeakKeyDictionary()


def process_wide() -> list[Source]:
    """What goes along with the figures of any cache."""
    return [*breakers().values(), RETRIES]


def read(cache: Source, web: bool = True) -> dict[Key, float]:
    """Every figure of a cache. Counters never fall: what `cache_clear()` takes from the counts stays in them.

    Or those of a breaker, if it has a name; or of all retries.
    """
    if isinstance(cache, CircuitBreaker):
        return _breaker(cache)
    if isinstance(cache, Retries):
        return _retries()
    now = _raw(cache)
    if web:
        now.update(_web(cache))
    with _lock:
        seen = _seen.setdefault(cache, _Seen())
        for key, value in now.items():
            if FIGURES[key[0]].counter:
                grown = max(0.0, value - seen.raw.get(key, 0))
                seen.raw[key] = value
                seen.given[key] = now[key] = seen.given.get(key, 0) + grown
        _estimate(seen, now)
    return now


def _raw(cache: Cache) -> dict[Key, float]:
    space = cache.namespace
    stats = cache.stats()
    now: dict[Key, float] = {}
    for type_name, counters in stats.types.items():
        labels = (space, type_name)
        for name in _OF_TYPE:
            now[name, labels] = getattr(counters, name)
        for cause, count in counters.evictions.items():
            now["evictions", (space, type_name, cause)] = count
    for name, budget in (("max_bytes", stats.max_bytes), ("max_entries", stats.max_entries)):
        if budget is not None:
            now[name, (space,)] = budget
    now["flights", (space,)] = stats.flights
    now["remote_errors", (space,)] = stats.remote_errors
    now.update(_tier(space, stats))
    for state in State:
        now["state", (space, state.value)] = float(stats.state is state)
    return now


def _tier(space: str, stats: Stats) -> dict[Key, float]:
    """The remote tier, if there is one."""
    tier = stats.tier
    if not tier:
        return {}
    now: dict[Key, float] = {
        ("remote_up", (space,)): float(stats.state is not State.DOWN),
        ("remote_connections", (space,)): tier["connections"],
        ("remote_waiting", (space,)): tier["waiting"],
        ("remote_owed", (space, "invalidations")): tier["owed_invalidations"],
        ("remote_owed", (space, "writes")): tier["owed_writes"],
        ("remote_round_trips", (space,)): tier["round_trips"],
        ("remote_refused", (space,)): tier["refused"],
        ("remote_dropped", (space,)): tier["dropped"],
    }
    compression = tier["compression"]
    for name in ("payload_bytes", "stored_bytes", "compress_seconds", "decompress_seconds", "dictionaries"):
        now[f"remote_{name}", (space,)] = compression[name]
    for reason, count in tier["undecodable"].items():
        now["undecodable", (space, reason)] = count
    return now


def _web(cache: Cache) -> dict[Key, float]:
    """What the web layer tells of itself, if the app has one."""
    space = cache.namespace
    now: dict[Key, float] = {}
    counts = sys.modules.get("stillwarm.web._counts")
    if counts is not None:
        for (outcome, reason), count in counts.counts(cache).items():
            now["http_responses", (space, str(outcome), str(reason))] = count
    alerts = sys.modules.get("stillwarm.web.alerts")
    if alerts is not None:
        for alert in alerts.alerts_of(cache):
            now["alert_crossings", (space, alert.name)] = alert.crossings
            now["alert_active", (space, alert.name)] = float(alert.active)
    return now


def _breaker(breaker: CircuitBreaker) -> dict[Key, float]:
    if breaker.name is None:
        return {}
    figures, labels = breaker.figures(), (breaker.name,)
    return {
        ("breaker_state", labels): _CIRCUITS[figures.state],
        ("breaker_opened", labels): figures.opened,
        ("breaker_refused", labels): figures.refused,
    }


def _retries() -> dict[Key, float]:
    now: dict[Key, float] = {}
    for name, stats in retry_stats().items():
        labels = (name,)
        now["retry_calls", labels] = stats.calls
        now["retry_succeeded", labels] = stats.succeeded
        now["retry_recovered", labels] = stats.recovered
        now["retry_failures", labels] = stats.failures
        now["retry_attempts", labels] = stats.retries
        now["retry_wait_seconds", labels] = stats.waited
        for reason, count in stats.given_up.items():
            now["retry_given_up", (name, reason)] = count
    for name, (left, most) in _core.budgets().items():
        now["retry_budget_tokens", (name,)] = left / 1_000
        now["retry_budget_max_tokens", (name,)] = most / 1_000
    return now


def _estimate(seen: _Seen, now: dict[Key, float]) -> None:
    """Adds seconds_saved. Each call counts with the mean at the reading after it, so that the sum never falls."""
    for name, labels in [key for key in now if key[0] == "hits"]:
        answered = now[name, labels] + now["stale_hits", labels]
        loads = now["loads", labels]
        mean = now["load_seconds", labels] / loads if loads else 0.0
        before, seconds = seen.saved.get(labels[1], (0.0, 0.0))
        seconds += (answered - before) * mean
        seen.saved[labels[1]] = answered, seconds
        now["seconds_saved", labels] = seconds


def read_all(caches: Iterable[Cache]) -> dict[Key, float]:
    """The figures of several caches, those of one namespace together, and of what is process-wide; none without one."""
    total: dict[Key, float] = {}
    sources: list[Source] = list(caches)
    for cache in [*sources, *process_wide()] if sources else []:
        for key, value in read(cache).items():
            if key not in total:
                total[key] = value
            elif FIGURES[key[0]].worst:
                total[key] = max(total[key], value)
            else:
                total[key] += value
    return total


def grafana_dashboard() -> str:
    """The Grafana dashboard of these figures, as JSON to import."""
    return Path(__file__).with_name("grafana.json").read_text(encoding="utf-8")


def _after_fork_in_child() -> None:
    global _lock
    _lock = threading.Lock()  # another thread of the parent may have held it


os.register_at_fork(after_in_child=_after_fork_in_child)

__all__ = ["FIGURES", "Figure", "Key", "Source", "grafana_dashboard", "process_wide", "read", "read_all"]
