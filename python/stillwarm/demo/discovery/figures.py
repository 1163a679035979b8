"""The figures of the caches and of the history, for /stats and /health: of the database by SQL, else of memory.

Thread rule: any thread; both read every entry or ask the database, so not on an event loop.
Refuses to know: HTTP.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from stillwarm._durations import duration
from stillwarm._observed import Observed
from stillwarm.demo.discovery import models
from stillwarm.demo.discovery.tables import DISCOVERY_TTL, SCORING_TTL
from stillwarm.errors import TierError
from stillwarm.web.alerts import Alert, Alerts, alerts_of, watch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stillwarm import Cache
    from stillwarm._admin import TypeStats
    from stillwarm.demo.discovery.history import History
    from stillwarm.demo.discovery.service import Service

_MOST: Final = 10_000_000
_SHOWN: Final = 10
_TTL: Final = {"discovery": DISCOVERY_TTL, "scoring": SCORING_TTL}
# The others stay as stillwarm.web.alerts has them: 10,000 entries, 2 hits of an entry on average, 20 % expired.
_ALERTS: Final[dict[str, Any]] = {"hit_rate": None, "errors": None}


class Figures:
    """Made once for an app: the alerts remember what they have told.

    Args:
        thresholds: of the alerts, see stillwarm.web.alerts.
    """

    def __init__(self, service: Service, history: History, thresholds: Mapping[str, Any] | None = None) -> None:
        self._service, self._history = service, history
        self._watched: Alerts = watch(service.cache, {**_ALERTS, **(thresholds or {})})

    def health(self, key_configured: bool) -> models.HealthBody:
        """Whether the service can do its work."""
        cache = self._service.cache
        database: models.Database = "none"
        if cache._tier is not None:
            try:
                cache.check()
                database = "up"
            except TierError:
                database = "down"
        state: Any = cache.state.value
        active = [alert for alert in self._alerts() if alert.active]
        return models.HealthBody(
            status="healthy" if key_configured and database != "down" and not active else "degraded",
            upstream_key_configured=key_configured,
            database=database,
            cache_enabled=self._service.enabled,
            cache_state=state,
            alerts=active,
        )

    def stats(self) -> models.StatsBody:
        """Figures of both caches and of the history. Where the database does not answer, those of memory."""
        cache = self._service.cache
        shared: Mapping[str, TypeStats] | None = None
        history: models.HistoryFigures | None = None
        database: models.Database = "none" if cache._tier is None else "up"
        try:
            shared = None if cache._tier is None else cache.shared_stats().types
            history = self._searches()
        except TierError:
            database = "down"
        by_type = {name: figures_of(cache, name, None if shared is None else shared[name]) for name in _TTL}
        hits = sum(one.hits for one in by_type.values())
        asked = hits + sum(one.misses for one in by_type.values())
        return models.StatsBody(
            database=database,
            discovery=by_type["discovery"],
            scoring=by_type["scoring"],
            hit_ratio=hits / asked if asked else 0.0,
            upstream_calls=self._service.source.calls,
            hot_keys=[models.HotKey(key=hot.key, type=hot.type, hits=hot.hits) for hot in cache.top(_SHOWN)],
            history=history,
            alerts=self._alerts(),
        )

    def _searches(self) -> models.HistoryFigures:
        self._history.flush()
        searches = self._history.count_by("search_type")
        frequent = self._history.frequent("filters", _SHOWN)
        return models.HistoryFigures(
            total=sum(searches.values()),
            by_search_type=searches,
            frequent_filters=[models.FrequentFilters(filters=value, count=count) for value, count in frequent],
        )

    def _alerts(self) -> list[models.AlertBody]:
        return [_alert(one) for one in alerts_of(self._service.cache)]


def figures_of(cache: Cache, name: str, shared: TypeStats | None = None) -> models.CacheFigures:
    """The figures of one type: look-ups in this process; entries of the database if it told them, else of memory."""
    counts = cache.stats().types[name]
    if shared is None:
        there = [hot for hot in Observed.top(cache, _MOST) if hot.type == name]
        entries, used, size = counts.entries, sum(hot.hits for hot in there), counts.bytes
        reuse, expired = used / len(there) if there else 0.0, max(0, entries - len(there))
    else:
        entries, used, size, expired = shared.entries, shared.hits, shared.bytes, shared.expired
        reuse = shared.average_hits
    return models.CacheFigures(
        entries=entries,
        total_hits=used,
        average_reuse=round(reuse, 2),
        expired=expired,
        table_size_bytes=size,
        hits=counts.hits + counts.stale_hits,
        stale_hits=counts.stale_hits,
        misses=counts.misses,
        hit_ratio=counts.hit_rate,
        ttl_seconds=round(duration(_TTL[name], "ttl") / 1e9),
    )


def _alert(alert: Alert) -> models.AlertBody:
    fields = {name: getattr(alert, name) for name in ("name", "active", "crossings", "value", "threshold", "message")}
    return models.AlertBody(**fields)


__all__ = ["Figures", "figures_of"]
