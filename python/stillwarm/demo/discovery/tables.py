"""The two caches as types: their ttl, their readable keys, and the tables that they have in a database.

Without a database the same definitions hold, and the tables are nowhere.

Keys are text for people and for SQL, and must read the same for ever: a filter that is not set reads `None`, a price
reads as Python writes a float (`10.0`), and no category is category 0. The reference system's older table left the
price out of the key and had the filters in one JSON column; the migration gives its rows these columns and keys.

Thread rule: constants and pure functions.
Refuses to know: what fills the caches.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from stillwarm._durations import duration
from stillwarm.demo.discovery.scoring import Score
from stillwarm.tables import rekeyed

if TYPE_CHECKING:
    from stillwarm import Cache
    from stillwarm._types import Duration

DISCOVERY_TTL: Final = "24h"
SCORING_TTL: Final = "6h"
DISCOVERY_KEY: Final = "discovery:{domain}:{category or 0}:{bsr_min}-{bsr_max}:{price_min}-{price_max}"
SCORING_KEY: Final = "scoring:{asin}:{domain}"


def discovery_key(
    domain: int,
    category: int | None = None,
    bsr_min: int | None = None,
    bsr_max: int | None = None,
    price_min: float | None = None,
    price_max: float | None = None,
) -> str:
    """`discovery:1:283155:1-50000:10.0-49.9`: one text per set of filters; DISCOVERY_KEY, as a function."""
    prices = f"{_price(price_min)}-{_price(price_max)}"
    return f"discovery:{domain}:{category or 0}:{bsr_min}-{bsr_max}:{prices}"


def _price(value: float | None) -> float | None:
    return None if value is None else float(value)


def _discovery_row(asins: list[str], **filters: Any) -> dict[str, Any]:
    return {"asins": asins, "count": len(asins), **filters}


def _score_of_row(row: dict[str, Any]) -> Score:
    return Score(**{name: row[name] for name in Score.__dataclass_fields__})


DISCOVERY: Final[dict[str, Any]] = {
    "table": "product_discovery_cache",
    "key_column": "cache_key",
    "columns": {
        "domain": "int not null",
        "category": "int",
        "bsr_min": "int",
        "bsr_max": "int",
        "price_min": "float",
        "price_max": "float",
        "asins": "json not null",
        "count": "int not null",
    },
    "indexes": {"idx_discovery_expires_at": "expires_at", "idx_discovery_created_at": "created_at"},
    "value": "asins",
    "project": _discovery_row,
    "history": [
        rekeyed("filters_applied", DISCOVERY_KEY, defaults={"domain": 1}, fill={"count": "json_array_length(asins)"})
    ],
}

SCORING: Final[dict[str, Any]] = {
    "table": "product_scoring_cache",
    "key_column": "cache_key",
    "columns": {
        "asin": "varchar(20) not null",
        "roi_percent": "float not null",
        "velocity_score": "float not null",
        "recommendation": "varchar(50) not null",
        "title": "varchar(500)",
        "price": "float",
        "bsr": "int",
    },
    "indexes": {
        "idx_scoring_expires_at": "expires_at",
        "idx_scoring_asin": "asin",
        "idx_scoring_roi": "roi_percent",
        "idx_scoring_velocity": "velocity_score",
    },
    "value": _score_of_row,
}

# Of stillwarm.journal.Journal, whose tables have the columns id and created_at by themselves.
HISTORY: Final[dict[str, Any]] = {
    "table": "search_history",
    "columns": {
        "user_id": "varchar(36)",
        "search_type": "varchar(50) not null",
        "filters": "json not null",
        "results_count": "int not null",
        "source": "varchar(50)",
    },
    "indexes": {
        "idx_history_created_at": "created_at",
        "idx_history_user_id": "user_id",
        "idx_history_search_type": "search_type",
    },
}


def define_types(cache: Cache, *, empty_ttl: Duration) -> None:
    """Defines both types; their ttl is exact (no jitter), for `expires_at` is read by people.

    Args:
        empty_ttl: how long a search that found nothing is kept; 0: not at all.

    Raises:
        ConfigError: empty_ttl is no duration, or the cache has these types already.
    """
    duration(empty_ttl, "empty_ttl", allow_zero=True)
    ttl: Callable[[Any], Any] = lambda asins: DISCOVERY_TTL if asins else empty_ttl  # noqa: E731
    cache.define("discovery", ttl=ttl, jitter=0.0, **DISCOVERY)
    cache.define("scoring", ttl=SCORING_TTL, jitter=0.0, unless=_is_none, **SCORING)


def _is_none(score: Score | None) -> bool:
    return score is None


__all__ = [
    "DISCOVERY",
    "DISCOVERY_KEY",
    "DISCOVERY_TTL",
    "HISTORY",
    "SCORING",
    "SCORING_KEY",
    "SCORING_TTL",
    "define_types",
]
__all__ += ["discovery_key"]
