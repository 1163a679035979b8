"""The tables of the discovery reference system, as its app declares them, and its older layout.

Thread rule: none.
Refuses to know: what is tested with them.
"""

from __future__ import annotations

from stillwarm._tables import TypedTable, typed_table
from stillwarm.tables import rekeyed

KEY = "discovery:{domain}:{category or 0}:{bsr_min}-{bsr_max}:{price_min}-{price_max}"


def discovery() -> TypedTable:
    return typed_table(
        "discovery",
        table="product_discovery_cache",
        columns={
            "domain": "int not null",
            "category": "int",
            "bsr_min": "int",
            "bsr_max": "int",
            "price_min": "float",
            "price_max": "float",
            "asins": "json not null",
            "count": "int not null",
        },
        indexes={"idx_discovery_expires_at": "expires_at", "idx_discovery_created_at": "created_at"},
        value="asins",
        project=lambda asins, **_: {"count": len(asins)},
        history=[rekeyed("filters_applied", KEY, defaults={"domain": 1}, fill={"count": "json_array_length(asins)"})],
    )


def scoring() -> TypedTable:
    return typed_table(
        "scoring",
        table="product_scoring_cache",
        columns={
            "asin": "varchar(20) not null",
            "roi_percent": "float not null",
            "velocity_score": "float not null",
            "recommendation": "varchar(50) not null",
            "title": "varchar(500)",
            "price": "float",
            "bsr": "int",
        },
        indexes={
            "idx_scoring_expires_at": "expires_at",
            "idx_scoring_asin": "asin",
            "idx_scoring_roi": "roi_percent",
            "idx_scoring_velocity": "velocity_score",
        },
        value=dict,
    )


HISTORY = {
    "user_id": "varchar(36)",
    "search_type": "varchar(50) not null",
    "filters": "json not null",
    "results_count": "int not null",
    "source": "varchar(50)",
}
HISTORY_INDEXES = {
    "idx_history_created_at": "created_at",
    "idx_history_user_id": "user_id",
    "idx_history_search_type": "search_type",
}

OLDER = """
CREATE TABLE product_discovery_cache (
  cache_key varchar(255) PRIMARY KEY, filters_applied json NOT NULL, asins json NOT NULL, count int NOT NULL,
  created_at timestamp DEFAULT now(), expires_at timestamp NOT NULL, hit_count int DEFAULT 0)
"""
