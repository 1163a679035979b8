"""The discovery demo with a database that goes away and comes back, or is not there yet: slower, not broken.

Thread rule: one client. Servers are stopped and started by the test, which waits for what follows from it.
Refuses to know: what the endpoints answer otherwise (`test_discovery_postgres`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from discovering import BOOKS, HEALTH, HOUR, STATS, Site, made, move
from discovering_shared import Shop, settled
from fronts import until
from stillwarm._servers import PostgresServer

__all__ = ["move"]


@pytest.fixture
def shop(private_postgres: PostgresServer) -> Iterator[Shop]:
    shop = Shop(private_postgres.new_database())
    yield shop
    private_postgres.start()  # so that closing has somebody to tell
    shop.close()


def health(site: Site) -> tuple[str, str]:
    answer = site.client.get(HEALTH)
    assert answer.status == 200
    return answer.body["status"], answer.body["database"]


def rows(shop: Shop, table: str) -> int:
    return shop.sql(f"SELECT count(*) FROM {table}")[0][0]  # type: ignore[no-any-return]


@pytest.mark.parametrize("how", ["stopped", "killed"])
def test_discovery_database_that_goes_away_breaks_nothing(
    shop: Shop, private_postgres: PostgresServer, how: str
) -> None:
    site = shop.site()
    known, scored = site.discover().body["asins"], site.scored().body["products"]
    settled(site)
    (private_postgres.stop if how == "stopped" else private_postgres.kill)()
    for _ in range(20):  # from memory; the API may be asked whether that is still right
        assert site.discover().body["asins"] == known
        assert site.scored().body["products"] == scored
    tools = {"category": 228013, "bsr_max": 20_000}
    new = site.discover(**tools)
    assert made(new) == (200, "MISS", False, "upstream")
    assert made(site.discover(**tools)) == (200, "HIT", True, "cache")  # in memory meanwhile
    assert site.score(site.ids(3)).status == 200
    assert health(site) == ("degraded", "down")
    stats = site.client.get(STATS)
    assert (stats.status, stats.body["database"], stats.body["history"]) == (200, "down", None)
    assert stats.body["discovery"]["entries"] == 2  # of memory
    private_postgres.start()
    until(lambda: health(site)[1] == "up", "the database is found again")
    until(lambda: rows(shop, "search_history") == 2 + 40 + 3, "no search is lost")
    other = shop.site()
    assert other.discover().body["asins"] == known
    assert made(other.scored()) == (200, "HIT", True, "cache")
    assert other.api.calls == 0
    # What was loaded without the database's moment of the load is in that process's memory alone.
    assert made(other.discover(**tools)) == (200, "MISS", False, "upstream")
    settled(other)
    assert rows(shop, "product_discovery_cache") == 2


def test_discovery_database_and_api_are_away_gives_stale_answers(
    shop: Shop, private_postgres: PostgresServer, move: Any
) -> None:
    site = shop.site()
    known = site.discover().body["asins"]
    settled(site)
    private_postgres.stop()
    site.api.kill()
    move(25 * HOUR)
    answer = site.discover()
    assert (answer.status, answer.label, answer.body["asins"]) == (200, "STALE", known)
    assert site.discover(category=228013).status == 503
    site.api.start()
    move(HOUR)
    assert made(site.discover()) == (200, "MISS", False, "upstream")


def test_discovery_invalidation_while_the_database_is_away_holds_when_it_is_back(
    shop: Shop, private_postgres: PostgresServer
) -> None:
    site = shop.site()
    site.discover()
    settled(site)
    private_postgres.stop()
    site.cache.invalidate(type="discovery")
    assert made(site.discover()) == (200, "MISS", False, "upstream")
    site.cache.invalidate(type="discovery")
    private_postgres.start()
    until(lambda: health(site)[1] == "up", "the database is found again")
    tier = site.cache._tier
    assert tier is not None
    until(lambda: tier.core.health()["owed_invalidations"] == 0, "it has heard of the invalidation")
    assert made(shop.site().discover()) == (200, "MISS", False, "upstream")


def test_discovery_starts_without_its_database_and_uses_it_when_it_is_there(
    shop: Shop, private_postgres: PostgresServer, caplog: pytest.LogCaptureFixture
) -> None:
    private_postgres.stop()
    site = shop.site()
    assert "the database does not answer, and its tables are made when it does" in caplog.text
    assert made(site.discover()) == (200, "MISS", False, "upstream")
    assert made(site.discover()) == (200, "HIT", True, "cache")
    assert health(site) == ("degraded", "down")
    private_postgres.start()
    until(lambda: health(site)[1] == "up", "the database is found")
    until(lambda: site.stats()["history"] is not None and site.stats()["history"]["total"] == 2, "its tables are made")
    assert site.cache.verify([site.app.state.history]).ok
    other = shop.site()
    assert other.discover(**BOOKS).label == "MISS"
    settled(other)
    assert shop.site().discover(**BOOKS).label == "HIT"
