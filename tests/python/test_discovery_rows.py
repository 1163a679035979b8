"""The discovery demo's tables: rows that SQL reads and writes, the layout, and rows of the older layout.

Thread rule: one client.
Refuses to know: the endpoints (`test_discovery_postgres`).
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from discovering import BOOKS, Site, made
from discovering_shared import KEY, NAMESPACE, Shop, settled, shop, site
from fronts import until
from reference_tables import OLDER

__all__ = ["shop", "site"]


# ------------------------------------------------------------------------------------------------------- rows and SQL


def test_discovery_rows_are_readable_with_plain_sql(shop: Shop, site: Site) -> None:
    found = site.discover(**BOOKS, price_max=30)
    product = site.score(found.body["asins"][:1]).body["products"][0]
    settled(site)
    names = "domain, category, bsr_min, bsr_max, price_min, price_max, asins, count, expires_at - created_at, hit_count"
    (row,) = shop.sql(f"SELECT cache_key, {names} FROM product_discovery_cache")
    asins = found.body["asins"]
    assert (*row[:9], row[10]) == (
        "discovery:1:283155:None-20000:None-30.0", 1, 283155, None, 20_000, None, 30.0, asins, len(asins), 0,
    )  # fmt: skip
    assert abs(row[9] - timedelta(hours=24)) < timedelta(seconds=30)  # of the clock, not of the transaction's start
    names = "asin, title, price, bsr, roi_percent, velocity_score, recommendation, expires_at - created_at, created_at"
    ((*score, left, created),) = shop.sql(
        f"SELECT {names} FROM product_scoring_cache WHERE roi_percent >= -100 ORDER BY roi_percent DESC"
    )
    assert dict(zip(product, score, strict=True)) == product
    assert abs(left - timedelta(hours=6)) < timedelta(seconds=30)
    assert abs(datetime.now(timezone.utc) - created.replace(tzinfo=timezone.utc)) < timedelta(minutes=1)


@pytest.mark.parametrize("zone", ["UTC", "Asia/Tokyo", "America/Lima"])
def test_discovery_row_inserted_by_hand_is_served(shop: Shop, zone: str) -> None:
    shop.sql(f"ALTER DATABASE {shop.url.rpartition('/')[2]} SET timezone TO '{zone}'")
    site = shop.site()
    shop.sql(
        "INSERT INTO product_discovery_cache (cache_key, domain, category, bsr_max, asins, count, created_at, "
        "expires_at) VALUES (%s, 1, 283155, 20000, '[\"B000000007\"]', 1, now() AT TIME ZONE 'UTC', "
        "(now() AT TIME ZONE 'UTC') + interval '30 min')", KEY,
    )  # fmt: skip
    answer = site.discover()
    assert (answer.label, answer.body["asins"]) == ("HIT", ["B000000007"])
    assert site.api.calls == 0
    settled(site)
    assert shop.counts("product_discovery_cache") == {KEY: 1}
    site.cache.invalidate(key=KEY)
    assert site.discover().label == "MISS"


def test_discovery_row_whose_expires_at_is_past_by_hand_is_not_served_as_fresh(shop: Shop, site: Site) -> None:
    site.discover()
    settled(site)
    shop.sql("UPDATE product_discovery_cache SET expires_at = (now() AT TIME ZONE 'UTC') - interval '1 s'")
    other = shop.site()
    assert made(other.discover()) == (200, "MISS", False, "upstream")
    settled(other)
    assert shop.sql("SELECT expires_at > now() AT TIME ZONE 'UTC' FROM product_discovery_cache") == [(True,)]
    assert shop.site().discover().label == "HIT"


def test_discovery_row_whose_expires_at_is_past_stands_in_for_an_api_that_does_not_answer(
    shop: Shop, site: Site
) -> None:
    known = site.discover().body["asins"]
    settled(site)
    shop.age("25 hours")
    other = shop.site()
    other.api.kill()
    answer = other.discover()
    assert (answer.status, answer.label, answer.body["asins"]) == (200, "STALE", known)
    shop.age("24 hours")  # past that time too
    third = shop.site()
    third.api.kill()
    assert third.discover().status == 503


# ----------------------------------------------------------------------------------------------------------- the tables

COLUMNS = {
    "product_discovery_cache": [
        ("cache_key", "character varying(255)", "NO"), ("domain", "integer", "NO"), ("category", "integer", "YES"),
        ("bsr_min", "integer", "YES"), ("bsr_max", "integer", "YES"), ("price_min", "double precision", "YES"),
        ("price_max", "double precision", "YES"), ("asins", "json", "NO"), ("count", "integer", "NO"),
        ("created_at", "timestamp without time zone", "YES"), ("expires_at", "timestamp without time zone", "NO"),
        ("hit_count", "integer", "YES"),
    ],
    "product_scoring_cache": [
        ("cache_key", "character varying(255)", "NO"), ("asin", "character varying(20)", "NO"),
        ("roi_percent", "double precision", "NO"), ("velocity_score", "double precision", "NO"),
        ("recommendation", "character varying(50)", "NO"), ("title", "character varying(500)", "YES"),
        ("price", "double precision", "YES"), ("bsr", "integer", "YES"),
        ("created_at", "timestamp without time zone", "YES"), ("expires_at", "timestamp without time zone", "NO"),
        ("hit_count", "integer", "YES"),
    ],
    "search_history": [
        ("id", "character varying(36)", "NO"), ("user_id", "character varying(36)", "YES"),
        ("search_type", "character varying(50)", "NO"), ("filters", "json", "NO"), ("results_count", "integer", "NO"),
        ("source", "character varying(50)", "YES"), ("created_at", "timestamp without time zone", "YES"),
    ],
}  # fmt: skip
INDEXES = {
    "product_discovery_cache": {"idx_discovery_expires_at", "idx_discovery_created_at"},
    "product_scoring_cache": {"idx_scoring_expires_at", "idx_scoring_asin", "idx_scoring_roi", "idx_scoring_velocity"},
    "search_history": {"idx_history_created_at", "idx_history_user_id", "idx_history_search_type"},
}


def test_discovery_tables_are_exactly_the_references(shop: Shop, site: Site) -> None:
    report = site.cache.verify([site.app.state.history])
    assert (report.differences, report.warnings) == ((), ())
    for table, columns in COLUMNS.items():
        found = shop.sql(
            "SELECT attname, format_type(atttypid, atttypmod), CASE WHEN attnotnull THEN 'NO' ELSE 'YES' END "
            "FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
            table,
        )  # fmt: skip
        assert found == columns
        names = {row[0] for row in shop.sql("SELECT indexname FROM pg_indexes WHERE tablename = %s", table)}
        assert names == INDEXES[table] | {f"{table}_pkey"}


def test_discovery_rows_of_the_older_layout_are_brought_forward_and_served(shop: Shop) -> None:
    shop.sql(OLDER)
    rows = [
        ("discovery:1:283155:1-20000", '{"category": 283155, "bsr_max": 20000}', '["B000000001", "B000000002"]', 7),
        ("discovery:a", '{"domain": 3, "category": 0, "price_min": 10, "price_max": 49.9}', '["B000000003"]', 8),
        ("discovery:b", '{"domain": 3, "category": null, "price_min": 5.5}', "[]", 9),
    ]
    for key, filters, asins, hits in rows:
        shop.sql(
            "INSERT INTO product_discovery_cache VALUES (%s, %s, %s, json_array_length(%s), now() AT TIME ZONE 'UTC', "
            "(now() AT TIME ZONE 'UTC') + interval '1 h', %s)", key, filters, asins, asins, hits,
        )  # fmt: skip
    site = shop.site()
    assert shop.sql("SELECT cache_key, count, hit_count FROM product_discovery_cache ORDER BY hit_count") == [
        ("discovery:1:283155:None-20000:None-None", 2, 7),
        ("discovery:3:0:None-None:10.0-49.9", 1, 8),
        ("discovery:3:0:None-None:5.5-None", 0, 9),
    ]
    assert site.cache.verify([site.app.state.history]).ok
    answers = [
        site.discover(),
        site.discover(domain=3, price_min=10, price_max=49.9),
        site.discover(domain=3, price_min=5.5),
    ]
    assert [(one.label, one.body["asins"]) for one in answers] == [
        ("HIT", ["B000000001", "B000000002"]),
        ("HIT", ["B000000003"]),
        ("HIT", []),
    ]
    assert site.api.calls == 0
    settled(site)
    assert sorted(shop.counts("product_discovery_cache").values()) == [8, 9, 10]


def test_discovery_namespace_and_search_survive_a_restart_of_the_app(shop: Shop, site: Site) -> None:
    site.discover()
    settled(site)
    shop.sites.remove(site)
    site.close()
    again = shop.site()
    assert again.cache.namespace == NAMESPACE
    assert made(again.discover()) == (200, "HIT", True, "cache")
    until(lambda: again.stats()["history"]["total"] == 2, "the searches of both are on record")
