"""The figures of the caches and of the history, for /stats and /health.

Thread rule: any thread; both read every entry, so not on an event loop.
Refuses to know: HTTP.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal

from stillwarm._durations import duration
from stillwarm.demo.discovery import models
from stillwarm.demo.discovery.tables import DISCOVERY_TTL, SCORING_TTL
from stillwarm.web.alerts import Alert, Alerts, alerts_of, watch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stillwarm import Cache
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
        database: whether the cache has a database.
    """

    def __init__(
        self, service: Service, history: History, database: bool, thresholds: Mapping[str, Any] | None = None
    ) -> None:
        self._service, self._history, self._database = service, history, database
        self._watched: Alerts = watch(service.cache, {**_ALERTS, **(thresholds or {})})

    def health(self, key_configured: bool) -> models.HealthBody:
        """Whether the service can do its work."""
        cache = self._service.cache
        state: Any = cache.state.value
        active = [alert for alert in self._alerts() if alert.active]
        database: Literal["none", "up", "down"] = "none" if not self._database else "down" if state == "DOWN" else "up"
        return models.HealthBody(
            status="healthy" if key_configured and database != "down" and not active else "degraded",
            upstream_key_configured=key_configured,
            database=database,
            cache_enabled=self._service.enabled,
            cache_state=state,
            alerts=active,
        )

    def stats(self) -> models.StatsBody:
        """Figures of both caches and of the history."""
        cache = self._service.cache
        by_type = {name: figures_of(cache, name) for name in _TTL}
        hits = sum(one.hits for one in by_type.values())
        asked = hits + sum(one.misses for one in by_type.values())
        searches = self._history.count_by("search_type")
        frequent = self._history.frequent("filters", _SHOWN)
        return models.StatsBody(
            discovery=by_type["discovery"],
            scoring=by_type["scoring"],
            hit_ratio=hits / asked if asked else 0.0,
            upstream_calls=self._service.source.calls,
            hot_keys=[models.HotKey(key=hot.key, type=hot.type, hits=hot.hits) for hot in cache.top(_SHOWN)],
            history=models.HistoryFigures(
                total=sum(searches.values()),
                by_search_type=searches,
                frequent_filters=[models.FrequentFilters(filters=value, count=count) for value, count in frequent],
            ),
            alerts=self._alerts(),
        )

    def _alerts(self) -> list[models.AlertBody]:
        return [_alert(one) for one in alerts_of(self._service.cache)]


def figures_of(cache: Cache, name: str) -> models.CacheFigures:
    """The figures of one type."""
    counts = cache.stats().types[name]
    there = [hot for hot in cache.top(_MOST) if hot.type == name]
    total = sum(hot.hits for hot in there)
    return models.CacheFigures(
        entries=counts.entries,
        total_hits=total,
        average_reuse=round(total / len(there), 2) if there else 0.0,
        expired=max(0, counts.entries - len(there)),
        table_size_bytes=counts.bytes,
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
