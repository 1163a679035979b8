"""The reference system's tests by name on a real database: the whole app over HTTP, and what is in its tables.

The tests of the endpoints are those of `test_demo_discovery`, which here get a site with a database.

Thread rule: one client; where many ask at once, they begin at a barrier.
Refuses to know: databases that go away (`test_discovery_outage`).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from datetime import datetime, timedelta, timezone

import pytest

from discovering import BOOKS, HEALTH, SCORE, Site, made
from discovering_shared import KEY, Shop, make_site, settled, shop, site
from fronts import until
from stillwarm.demo.discovery.service import Search
from stillwarm.demo.discovery.tables import discovery_key
from test_demo_discovery import (
    test_discovery_cache_at_least_10x,
    test_discovery_discover,
    test_discovery_discover_hit,
    test_discovery_empty_result,
    test_discovery_empty_results_are_kept_as_configured,
    test_discovery_invalid_category_nonsense_is_refused,
    test_discovery_invalid_category_unknown_gives_an_empty_result,
    test_discovery_plain_and_coroutine_callers_share_the_entries,
    test_discovery_response_contract,
    test_discovery_source_is_mixed_when_some_scores_are_cached,
    test_discovery_top_3_products,
    test_discovery_unknown_ids_are_named_and_not_kept,
    test_discovery_with_scoring,
)

__all__ = ["make_site", "shop", "site"]
__all__ += [
    "test_discovery_cache_at_least_10x",
    "test_discovery_discover",
    "test_discovery_discover_hit",
    "test_discovery_empty_result",
    "test_discovery_empty_results_are_kept_as_configured",
    "test_discovery_invalid_category_nonsense_is_refused",
    "test_discovery_invalid_category_unknown_gives_an_empty_result",
    "test_discovery_plain_and_coroutine_callers_share_the_entries",
    "test_discovery_response_contract",
    "test_discovery_source_is_mixed_when_some_scores_are_cached",
    "test_discovery_top_3_products",
    "test_discovery_unknown_ids_are_named_and_not_kept",
    "test_discovery_with_scoring",
]

LOGGER = "stillwarm"


def at_once(n: int, work: Callable[[int], object]) -> None:
    """Runs work(0) to work(n - 1), all begun at the same time."""
    barrier, errors = threading.Barrier(n), list[BaseException]()

    def run(number: int) -> None:
        try:
            barrier.wait(30)
            work(number)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(n)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not errors, errors
    assert not any(thread.is_alive() for thread in threads)


def deadlocks(shop: Shop) -> int:
    shop.sql("SELECT pg_stat_force_next_flush()")
    return shop.sql("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")[0][0]  # type: ignore[no-any-return]


# ---------------------------------------------------------------------------------------------------------- robustness


def test_discovery_ttl_expiry_and_purge(shop: Shop, site: Site, caplog: pytest.LogCaptureFixture) -> None:
    site.scored()
    site.discover(category=228013)
    settled(site)
    shop.sql("CREATE TABLE bystander AS SELECT 1 AS x")
    shop.age("3 days", KEY)
    shop.age("3 days", "scoring:%")
    shop.sql(  # and one that the app did not write
        "INSERT INTO product_scoring_cache (cache_key, asin, roi_percent, velocity_score, recommendation, expires_at) "
        "VALUES ('scoring:B000000000:1', 'B000000000', 1, 1, 'SKIP', (now() AT TIME ZONE 'UTC') - interval '1 s')"
    )
    with caplog.at_level(logging.INFO, LOGGER):
        assert site.cache.purge() == {"discovery": 1, "scoring": 21}
    assert "purged {'discovery': 1, 'scoring': 21}" in caplog.text
    assert [row[0] for row in shop.sql("SELECT cache_key FROM product_discovery_cache")] == [
        "discovery:1:228013:None-None:None-None"
    ]
    assert shop.sql("SELECT count(*) FROM product_scoring_cache") == [(0,)]
    assert shop.sql("SELECT count(*) FROM stillwarm.entries") == [(1,)]
    assert shop.sql("SELECT count(*) FROM search_history") == [(2,)]
    assert shop.sql("SELECT x FROM bystander") == [(1,)]
    assert site.cache.purge() == {"discovery": 0, "scoring": 0}


def test_discovery_expired_rows_are_counted_and_not_served(shop: Shop, site: Site) -> None:
    site.scored()
    settled(site)
    shop.age("6 hours 1 second", "scoring:%")
    other = shop.site()
    assert made(other.scored()) == (200, "MISS", False, "mixed")  # the ids are good for 24 h
    settled(other)
    shop.age("3 days")
    stats = other.stats()
    assert [(stats[name]["entries"], stats[name]["expired"]) for name in ("discovery", "scoring")] == [(1, 1), (20, 20)]
    assert made(shop.site().discover()) == (200, "MISS", False, "upstream")


def test_discovery_hit_count_1_to_5(shop: Shop, site: Site) -> None:
    site.discover()
    settled(site)
    counts = [shop.counts("product_discovery_cache")[KEY]]
    for _ in range(5):
        assert site.discover().label == "HIT"
        settled(site)
        counts.append(shop.counts("product_discovery_cache")[KEY])
    assert counts == [0, 1, 2, 3, 4, 5]
    stats = site.stats()
    assert (stats["discovery"]["total_hits"], stats["discovery"]["average_reuse"]) == (5, 5)
    assert stats["hot_keys"] == [{"key": KEY, "type": "discovery", "hits": 5}]


def test_discovery_hits_right_after_the_load_are_counted(shop: Shop, site: Site) -> None:
    # The row is written behind the caller: a count must not get there first.
    for n in range(50):
        search = Search(1, 283155, None, 20_000, None, float(n + 1))
        site.service.discover_now(search)
        assert site.service.discover_now(search).cache_hit
        assert site.cache._upkeep.flush()
    settled(site)
    assert sorted(shop.counts("product_discovery_cache").values()) == [1] * 50


def test_discovery_hits_are_written_by_themselves(shop: Shop, site: Site) -> None:
    search = Search(1, 283155, None, 20_000)
    site.service.discover_now(search)
    assert site.service.discover_now(search).cache_hit
    until(lambda: shop.counts("product_discovery_cache") == {KEY: 1}, "the hit is written")


def test_discovery_hits_of_many_keys_are_counted_in_time(shop: Shop, site: Site) -> None:
    shop.sql(ENTRIES.format(n=5_000, expired=0, hits=0))
    for first in range(1, 5_000, 500):
        asked = [f"B{n}" for n in range(first, first + 500)]
        assert site.service.score_now(asked, 1).cache_hit
    settled(site)  # with the timeout of an operation, also on a busy machine
    counts = shop.counts("product_scoring_cache")
    assert (len(counts), set(counts.values())) == (5_000, {1})


def test_discovery_concurrent_access_10_threads(shop: Shop, site: Site) -> None:
    searches = [Search(1, 283155, None, 20_000, None, float(number + 1)) for number in range(10)]
    right = []

    def work(number: int) -> None:
        inserted = site.service.discover_now(searches[number])
        read = site.service.discover_now(searches[number])
        again = site.service.discover_now(searches[number])
        right.append(
            (inserted.cache_hit, read.cache_hit) == (False, True) and inserted.asins == read.asins == again.asins
        )

    at_once(10, work)
    settled(site)
    assert right == [True] * 10
    assert shop.counts("product_discovery_cache") == {discovery_key(*search): 2 for search in searches}
    assert deadlocks(shop) == 0


@pytest.mark.parametrize("keys", [1, 16], ids=["same", "overlapping"])
def test_discovery_concurrent_access_64_threads(shop: Shop, site: Site, keys: int) -> None:
    sites = [site, shop.site()]
    searches = [Search(1, 283155, None, 20_000, None, float(number + 1)) for number in range(keys)]
    reads = 32
    loads = []

    def work(number: int) -> None:
        one = sites[number % 2]
        for step in range(reads):
            one.service.discover_now(searches[(number * 7 + step) % keys])

    at_once(64, work)
    settled(*sites)
    for one in sites:
        counters = one.cache.stats().types["discovery"]
        loads.append(counters.loads)
        assert counters.hits + counters.misses == 32 * reads
    counts = shop.counts("product_discovery_cache")
    assert set(counts) == {discovery_key(*search) for search in searches}
    assert keys <= sum(loads) <= 2 * keys  # no site loads a key twice
    assert sum(counts.values()) == sum(one.cache.stats().types["discovery"].hits for one in sites)
    # Now that everything is warm, each look-up is a hit of its key.
    at_once(64, work)
    settled(*sites)
    after = shop.counts("product_discovery_cache")
    asked = [(number * 7 + step) % keys for number in range(64) for step in range(reads)]
    more = {discovery_key(*search): asked.count(number) for number, search in enumerate(searches)}
    assert {key: after[key] - counts[key] for key in after} == more
    assert deadlocks(shop) == 0


# ---------------------------------------------------------------------------------------------------------- end to end


def test_discovery_health_with_a_database(site: Site) -> None:
    health = site.client.get(HEALTH)
    assert (health.status, health.body["status"], health.body["database"]) == (200, "healthy", "up")


def test_discovery_processes_share_what_one_of_them_paid_for(shop: Shop, site: Site) -> None:
    first, scored = site.discover(), site.scored()
    settled(site)
    other = shop.site()
    assert made(other.discover()) == (200, "HIT", True, "cache")
    again = other.scored()
    assert made(again) == (200, "HIT", True, "cache")
    assert again.body["products"] == scored.body["products"]
    assert other.discover().body["asins"] == first.body["asins"]
    assert other.api.calls == 0
    half = [*site.ids(3, 228013), *first.body["asins"][:3]]
    assert made(other.score(half)) == (200, "MISS", False, "mixed")
    assert other.api.spent == 3
    settled(site, other)
    assert site.stats()["scoring"]["entries"] == 23
    assert site.stats()["scoring"]["total_hits"] == sum(shop.counts("product_scoring_cache").values()) == 20 + 3


def test_discovery_sync_and_async_callers_share_the_rows(shop: Shop, site: Site) -> None:
    search = Search(1, 283155, None, 20_000)
    assert site.service.discover_now(search).origin == "upstream"
    scores = site.service.score_now(site.ids(3), 1)
    settled(site)
    other = shop.site()
    assert made(other.discover()) == (200, "HIT", True, "cache")
    assert made(other.client.post(SCORE, {"asins": site.ids(3)})) == (200, "HIT", True, "cache")
    third = shop.site()
    assert third.service.discover_now(search).cache_hit
    assert third.service.score_now(site.ids(3), 1).scores == scores.scores
    assert other.api.calls == third.api.calls == 0


def test_discovery_clearing_both_caches_leaves_the_history(shop: Shop, site: Site) -> None:
    site.scored()
    site.score(site.ids(2))
    before = site.stats()["history"]
    assert before == {
        "total": 2,
        "by_search_type": {"discovery": 1, "scoring": 1},
        "frequent_filters": before["frequent_filters"],
    }
    assert {"asins": site.ids(2), "domain": 1} in [one["filters"] for one in before["frequent_filters"]]
    site.cache.invalidate(type="discovery")
    site.cache.invalidate(type="scoring")
    other = shop.site()
    assert other.discover().label == "MISS"
    site.cache.clear()
    site.cache.purge()
    stats = site.stats()
    assert stats["discovery"]["entries"] == stats["scoring"]["entries"] == 0
    assert stats["history"]["total"] == 2
    settled(other)
    assert shop.sql("SELECT count(*) FROM search_history") == [(3,)]


def test_discovery_history_is_a_table(shop: Shop, site: Site) -> None:
    assert site.ask("POST", "/api/v1/products/discover", BOOKS, X_Search_Source="manual", X_User_Id="user-7")[0] == 200
    settled(site)
    names = "user_id, search_type, filters ->> 'bsr_max', results_count, source, created_at"
    (row,) = shop.sql(f"SELECT {names} FROM search_history")
    assert row[:5] == ("user-7", "discovery", "20000", 23, "manual")
    assert abs(datetime.now(timezone.utc) - row[5].replace(tzinfo=timezone.utc)) < timedelta(minutes=1)


ENTRIES = (
    "INSERT INTO product_scoring_cache (cache_key, asin, roi_percent, velocity_score, recommendation, created_at, "
    "expires_at, hit_count) SELECT 'scoring:B' || n || ':1', 'B' || n, 1, 1, 'SKIP', now() AT TIME ZONE 'UTC', "
    "(now() AT TIME ZONE 'UTC') + CASE WHEN n <= {expired} THEN interval '-1 s' ELSE interval '1 h' END, {hits} "
    "FROM generate_series(1, {n}) n"
)


@pytest.mark.parametrize(
    ("rows", "name"),
    [
        ({"n": 10_000, "expired": 0, "hits": 2}, None),
        ({"n": 10_001, "expired": 0, "hits": 2}, "entries"),
        ({"n": 200, "expired": 0, "hits": 1}, "reuse"),
        ({"n": 200, "expired": 40, "hits": 2}, None),
        ({"n": 200, "expired": 41, "hits": 2}, "expired"),
    ],
)
def test_discovery_alerts_are_of_the_tables(shop: Shop, site: Site, rows: dict[str, int], name: str | None) -> None:
    shop.sql(ENTRIES.format(**rows))
    active = [one["name"] for one in site.client.get(HEALTH).body["alerts"]]
    assert active == ([] if name is None else [name])
