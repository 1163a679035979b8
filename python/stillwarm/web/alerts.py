"""Figures of a cache that somebody should look at: six alerts, each raised once when its figure crosses a threshold.

Thread rule: any thread. There is no thread of its own: figures are looked at when somebody asks, at most every second.
Refuses to know: HTTP. Who asks: the management endpoints, the metrics, or the application with `alerts_of(cache)`.

| name      | raised when                                                          | default          |
|-----------|----------------------------------------------------------------------|------------------|
| hit_rate  | share of hits in the window is below, of at least `min_requests`     | 0.5              |
| errors    | failed loads and failures of the remote tier in the window are above | 10               |
| tier_down | the cache's state is DOWN                                            | True             |
| entries   | entries are above                                                    | 10_000           |
| reuse     | hits of an entry, on average, are below, of at least `min_entries`   | 2                |
| expired   | share of entries that are over and still there is above, as `reuse`  | 0.2              |

A raised alert writes one WARNING line and an AlertRaised event; when the figure is back on the good side it writes
one INFO line and an AlertCleared, and may be raised again. A figure that cannot be told, as the hit rate of three
calls, changes nothing. With a database, entries, reuse and expired are those of its tables, of all processes. reuse
and expired read every entry: not for `/stats`, not above 100,000 entries, and only as often as costs at most a
hundredth of the time.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from stillwarm import _core, hooks
from stillwarm._durations import duration, shown
from stillwarm.errors import ConfigError, TierError

if TYPE_CHECKING:
    from stillwarm._cache import Cache
    from stillwarm._stats import Stats

_SECOND: Final = 1_000_000_000
_MOST_READ: Final = 100_000
_BELOW: Final = frozenset({"hit_rate", "reuse"})
_FRACTIONS: Final = frozenset({"hit_rate", "expired"})
_DEFAULTS: Final[dict[str, float]] = {
    "hit_rate": 0.5,
    "errors": 10,
    "tier_down": True,
    "entries": 10_000,
    "reuse": 2,
    "expired": 0.2,
}
_WINDOW: Final[dict[str, Any]] = {"window": "5m", "min_requests": 100, "min_entries": 100}

_MEANING: Final = {
    "hit_rate": "hit rate",
    "errors": "errors in the window",
    "entries": "entries",
    "reuse": "hits of an entry on average",
    "expired": "share of expired entries",
}

_log = logging.getLogger("stillwarm")


@dataclass(frozen=True)
class Alert:
    """One alert as it stands.

    Attributes:
        name: as in the table above.
        active: whether it is raised.
        crossings: how often it was raised.
        value: the figure when it was last known; None: never.
        threshold: what raises it.
    """

    name: str
    active: bool
    crossings: int
    value: float | None
    threshold: float

    @property
    def below(self) -> bool:
        """Whether it is raised by a figure that is too low."""
        return self.name in _BELOW

    @property
    def message(self) -> str:
        """What is measured, the figure and the threshold, for people."""
        if self.name == "tier_down":
            return "the cache is DOWN" if self.active else "the cache is not down"
        value, threshold = _written(self.name, self.value), _written(self.name, self.threshold)
        return f"{_MEANING[self.name]}: {value}; raised {'below' if self.below else 'above'} {threshold}"


class _Sample(NamedTuple):
    at: int
    served: int
    misses: int
    errors: int


class Alerts:
    """The alerts of one cache. Made by `watch`.

    Args:
        thresholds: by name, see the table above; None or False switches one off; beside them window (1 s to 1 h),
            min_requests and min_entries.

    Raises:
        ConfigError: an unknown name or a value that is not accepted.
    """

    def __init__(self, cache: Cache, thresholds: Mapping[str, Any] | None = None) -> None:
        given, self._window, self._min_requests, self._min_entries = checked(thresholds)
        self._alerts = {name: Alert(name, False, 0, None, threshold) for name, threshold in given.items()}
        self._busy = threading.Lock()
        self._looked_at: int | None = None
        self._read_after = 0
        self._samples = deque([_sample(cache.stats())])

    def all(self) -> tuple[Alert, ...]:
        """How they stand, without looking again."""
        return tuple(self._alerts.values())

    def look(self, cache: Cache, *, read_entries: bool = True) -> tuple[Alert, ...]:
        """Looks at the figures, unless that was less than a second ago, tells what changed, and says how they stand."""
        # Whoever comes while another one looks gets what was known before: nobody waits for a hook.
        if not self._busy.acquire(blocking=False):
            return self.all()
        try:
            now = _core.clock_now()
            recent = self._looked_at is not None and 0 <= now - self._looked_at < _SECOND
            if recent and not (read_entries and now >= self._read_after):
                return self.all()
            figures = self._figures(cache, now)
            if read_entries and not 0 <= now < self._read_after:
                figures.update(self._entry_figures(cache, now))
            self._looked_at = now
            events = [event for name, value in figures.items() for event in self._judge(name, value)]
        finally:
            self._busy.release()
        for event in events:
            _tell(cache, event)
        return self.all()

    def _figures(self, cache: Cache, now: int) -> dict[str, float | None]:
        stats = cache.stats()
        sample = _sample(stats)
        samples = self._samples
        if any(new < old for new, old in zip(sample, samples[-1], strict=True)):  # counts were reset, or the clock
            samples.clear()
            samples.append(_Sample(now, 0, 0, 0))
        samples.append(sample)
        while len(samples) > 2 and samples[1].at <= now - self._window:
            samples.popleft()
        first = samples[0]
        served = sample.served - first.served
        requests = served + sample.misses - first.misses
        return {
            "hit_rate": served / requests if requests and requests >= self._min_requests else None,
            "errors": sample.errors - first.errors,
            "tier_down": float(stats.state.value == "DOWN"),
            "entries": stats.entries if cache._tier is None else None,  # the database tells
        }

    def _entry_figures(self, cache: Cache, now: int) -> dict[str, float | None]:
        self._read_after = now + _SECOND
        if cache._tier is not None:
            return self._shared_figures(cache, now)
        held = _core.totals(cache)["entries"]
        if held < self._min_entries:
            return {"expired": 0.0}  # not worth a purge
        if held > _MOST_READ or not self._alerts.keys() & {"reuse", "expired"}:
            return {}
        began = time.perf_counter_ns()
        rows = _core.snapshot(cache, -1)  # without those that are over
        hits = sum(row[2] for row in rows)
        self._read_after = now + max(_SECOND, 100 * (time.perf_counter_ns() - began))
        reuse = hits / len(rows) if len(rows) >= self._min_entries else None
        return {"reuse": reuse, "expired": max(0, held - len(rows)) / held}

    def _shared_figures(self, cache: Cache, now: int) -> dict[str, float | None]:
        began = time.perf_counter_ns()
        tier = cache._tier
        try:
            assert tier is not None
            if tier.run(_core.poll([])) is not None:  # nobody waits longer for a database that does not answer
                return {}
            shared = cache.shared_stats()
        except (ConfigError, TierError):  # a tier that keeps no such figures, or is away: the other alerts are told
            return {}
        self._read_after = now + max(_SECOND, 100 * (time.perf_counter_ns() - began))
        if shared.entries < self._min_entries:
            return {"entries": shared.entries, "reuse": None, "expired": 0.0}
        hits = sum(one.hits for one in shared.types.values())
        share = {"reuse": hits / shared.entries, "expired": shared.expired / shared.entries}
        return {"entries": shared.entries, **share}

    def _judge(self, name: str, value: float | None) -> list[hooks.AlertRaised | hooks.AlertCleared]:
        was = self._alerts.get(name)
        if was is None or value is None:
            return []
        threshold = was.threshold
        active = value < threshold if name in _BELOW else value >= 1 if name == "tier_down" else value > threshold
        self._alerts[name] = Alert(name, active, was.crossings + (active and not was.active), value, threshold)
        if active == was.active:
            return []
        return [(hooks.AlertRaised if active else hooks.AlertCleared)("alert", name, value, threshold)]


def checked(thresholds: Mapping[str, Any] | None) -> tuple[dict[str, float], int, int, int]:
    """(thresholds that are on, window in ns, min_requests, min_entries).

    Raises:
        ConfigError: an unknown name or a value that is not accepted.
    """
    if thresholds is not None and not isinstance(thresholds, Mapping):
        raise ConfigError(f"alerts={shown(thresholds)}: accepted: a dict of thresholds by name, or None")
    settings = {**_DEFAULTS, **_WINDOW, **(thresholds or {})}
    for name in settings:
        if name not in _DEFAULTS and name not in _WINDOW:
            raise ConfigError(f"alerts has no {shown(name)}; accepted: {', '.join([*_DEFAULTS, *_WINDOW])}")
    limits = {name: _threshold(name, settings[name]) for name in _DEFAULTS}
    window = duration(settings["window"], "alerts window")
    if not _SECOND <= window <= 3600 * _SECOND:
        raise ConfigError(f"alerts window={shown(settings['window'])}: accepted: 1 s to 1 h")
    least = []
    for name in ("min_requests", "min_entries"):
        value = settings[name]
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ConfigError(f"alerts {name}={shown(value)}: accepted: an int, at least 1")
        least.append(value)
    return {name: limit for name, limit in limits.items() if limit is not None}, window, least[0], least[1]


def _threshold(name: str, value: object) -> float | None:
    if value is None or value is False:
        return None
    if name == "tier_down":
        if value is not True:
            raise ConfigError(f"alerts tier_down={shown(value)}: accepted: True or False")
        return 1.0
    fraction = name in _FRACTIONS
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not 0 <= value <= (1 if fraction else 2**63):  # type: ignore[operator]
        accepted = "a fraction from 0 to 1, as 0.5 for 50 %" if fraction else "a number, not negative"
        raise ConfigError(f"alerts {name}={shown(value)}: accepted: {accepted}, or None")
    return float(value)  # type: ignore[arg-type]


def _sample(stats: Stats) -> _Sample:
    errors = stats.load_errors + stats.remote_errors
    return _Sample(_core.clock_now(), stats.hits + stats.stale_hits, stats.misses, errors)


def _written(name: str, value: float | None) -> str:
    return "unknown" if value is None else f"{100 * value:.4g} %" if name in _FRACTIONS else f"{value:,.6g}"


def _tell(cache: Cache, event: hooks.AlertRaised | hooks.AlertCleared) -> None:
    name, value, threshold = cache.namespace, _written(event.key, event.value), _written(event.key, event.threshold)
    if isinstance(event, hooks.AlertRaised):
        _log.warning("alert %s of cache %r: %s, threshold %s", event.key, name, value, threshold)
    else:
        _log.info("alert %s of cache %r is over: %s, threshold %s", event.key, name, value, threshold)
    cache._emit(event)


# --------------------------------------------------------------------------------------------------- the caches' alerts

_watched: weakref.WeakKeyDictionary[Cache, Alerts] = weakref.WeakKeyDictionary()


def watch(cache: Cache, thresholds: Mapping[str, Any] | None = None) -> Alerts:
    """Gives a cache alerts: with other thresholds anew, without any it keeps those that it has.

    Raises:
        ConfigError: an unknown name or a value that is not accepted.
    """
    if thresholds is None:
        return _watched.get(cache) or _watched.setdefault(cache, Alerts(cache))
    alerts = _watched[cache] = Alerts(cache, thresholds)
    return alerts


def alerts_of(cache: Cache) -> tuple[Alert, ...]:
    """The alerts of a cache, looked at now; none where nobody watches it."""
    alerts = _watched.get(cache)
    return () if alerts is None else alerts.look(cache)


def _after_fork_in_child() -> None:
    for alerts in list(_watched.values()):
        alerts._busy = threading.Lock()  # its holder may not be here


os.register_at_fork(after_in_child=_after_fork_in_child)

__all__ = ["Alert", "Alerts", "alerts_of", "watch"]
