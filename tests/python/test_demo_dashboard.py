"""The dashboard as its reference system has it: configuration, manager, statistics, states, alerts and traffic.

Compression and a cache that is down belong to Redis (`test_demo_dashboard_redis`, `test_demo_dashboard_down`).

Thread rule: one client; where two requests have to meet, the search server holds its answers back.
Refuses to know: routes (`test_demo_dashboard_routes`), and the story (`test_demo`). Speed is told by counts of search
queries, never by clocks.
"""

from __future__ import annotations

import logging
import threading
from typing import Any

import pytest

from one_dashboard import PATHS, TOKEN, Site, move, site
from stillwarm import Cache, State, _core, hooks
from stillwarm.demo.dashboard import create_app
from stillwarm.demo.dashboard.app import WARM_UP, warm_up
from stillwarm.demo.dashboard.patterns import PAGE, REFERENCE
from stillwarm.demo.dashboard.replay import THEIRS, replay, traffic
from stillwarm.demo.dashboard.routes import warm
from stillwarm.demo.dashboard.search import Search
from stillwarm.demo.upstream import SearchServer
from stillwarm.errors import ConfigError
from stillwarm.flask import CacheType

__all__ = ["move", "site"]


# ------------------------------------------------------------------------------------------------------ configuration


def test_dashboard_configuration_five_types_with_their_ttl() -> None:
    ttls = {kind.value: kind.ttl for kind in CacheType}
    assert ttls == {"dashboard": 300, "search": 3600, "user": 1800, "product": 7200, "analytics": 600}


@pytest.mark.parametrize("kind", PATHS)
def test_dashboard_configuration_a_types_ttl_is_its_routes(site: Site, move: Any, kind: str) -> None:
    assert site.label(PATHS[kind]) == "MISS"
    move(CacheType(kind).ttl - 1)
    assert site.label(PATHS[kind]) == "HIT"
    move(2)
    assert site.label(PATHS[kind]) == "MISS"


def test_dashboard_configuration_a_route_may_have_its_own_ttl(site: Site, move: Any) -> None:
    assert site.label("/api/orders/recent") == "MISS"
    move(29)
    assert site.label("/api/orders/recent") == "HIT"
    move(100)
    assert site.label("/api/orders/recent") == "MISS"


def test_dashboard_configuration_a_types_ttl_may_be_another(move: Any) -> None:
    with Cache() as cache:
        cache.define("search", ttl=7, stale_if_error=0)
        search = SearchServer(scale=0).start()
        asked = create_app(Search(search.url), cache, TOKEN).test_client()
        labels = []
        for seconds in (0, 6, 2):
            move(seconds)
            labels.append(asked.get(PATHS["search"]).headers["X-Cache"])
        search.kill()
    assert labels == ["MISS", "HIT", "MISS"]


def test_dashboard_configuration_keys_begin_with_their_types_prefix(site: Site) -> None:
    for path in PATHS.values():
        site.get(path)
    site.get("/api/account", "customer-1")
    keys = {row["key"]: row["type"] for row in site.manage("/hot-keys?n=50")["hot_keys"]}
    assert len(keys) == 5
    assert all(key.startswith(f"cache:{kind}:") for key, kind in keys.items())
    assert set(keys.values()) == {kind.value for kind in CacheType}
    assert "customer-1" not in "".join(keys)  # who it belongs to is nobody's business


def test_dashboard_configuration_own_key_leaves_the_query_out(site: Site) -> None:
    assert site.label("/api/products/7?utm_source=mail") == "MISS"
    assert site.label("/api/products/7?utm_source=shop") == "HIT"
    assert site.label("/api/products/8") == "MISS"
    assert site.search.queries == 2


# ------------------------------------------------------------------------------------------------------------ manager


def test_dashboard_manager_get_set_and_delete_of_a_key(site: Site) -> None:
    site.cache.set("mine", {"a": 1}, ttl=60)
    assert site.cache.get("mine") == {"a": 1}
    assert site.manage("/invalidate-key", {"key": "mine"})["count"] == 1
    assert site.cache.get("mine") is None
    assert site.manage("/invalidate-key", {"key": "mine"})["count"] == 0


@pytest.mark.parametrize("kind", PATHS)
def test_dashboard_manager_invalidates_one_type_and_no_other(site: Site, kind: str) -> None:
    for path in PATHS.values():
        site.get(path)
    site.manage(f"/invalidate/{kind}", {})
    assert {name: site.label(path) for name, path in PATHS.items()} == {
        name: "MISS" if name == kind else "HIT" for name in PATHS
    }


def test_dashboard_manager_invalidates_by_pattern(site: Site) -> None:
    searches = ["/api/search?q=teapot", "/api/search?q=mug", "/api/search?q=lamp"]
    for path in [*searches, PATHS["product"]]:
        site.get(path)
    assert site.manage("/invalidate-pattern", {"pattern": "cache:search:*"})["count"] == 3
    assert [site.label(path) for path in searches] == ["MISS"] * 3
    assert site.label(PATHS["product"]) == "HIT"


def test_dashboard_manager_clears_everything(site: Site) -> None:
    for path in PATHS.values():
        site.get(path)
    site.manage("/clear-all", {})
    assert [site.label(path) for path in PATHS.values()] == ["MISS"] * 4


def test_dashboard_manager_does_nothing_without_the_token(site: Site) -> None:
    site.get(PAGE)
    for path in ("/invalidate/dashboard", "/invalidate-pattern", "/clear-all"):
        assert site.client.post(f"/api/cache{path}", {"pattern": "*"}).status == 401
    assert site.client.get("/api/cache/stats").status == 401
    assert site.label(PAGE) == "HIT"


# ---------------------------------------------------------------------------------------------------------- statistics


def test_dashboard_statistics_have_the_body_of_the_reference(site: Site) -> None:
    for _ in range(3):
        site.get(PAGE)
    body = site.manage("/stats")
    assert body["status"] == "success"
    figures = {name: body["cache_stats"][name] for name in REFERENCE}
    assert figures == {
        "hits": 2,
        "misses": 1,
        "errors": 0,
        "total_requests": 3,
        "hit_rate": 66.67,
        "is_available": True,
    }


def test_dashboard_statistics_count_failed_loads_and_no_refused_requests(site: Site) -> None:
    for _ in range(3):
        assert site.get("/api/products/99999").status == 404
        assert site.get("/api/search").status == 400
    assert site.stats()["errors"] == 0
    site.search.kill()
    assert site.get(PAGE).status == 503
    assert site.stats()["errors"] == 1


def test_dashboard_statistics_are_told_per_type(site: Site) -> None:
    for path in (PAGE, PAGE, PATHS["search"]):
        site.get(path)
    types = site.stats()["types"]
    assert (types["dashboard"]["hits"], types["dashboard"]["misses"]) == (1, 1)
    assert (types["search"]["hits"], types["search"]["misses"]) == (0, 1)


# --------------------------------------------------------------------------------- states, warm-up, outage, alerts


def test_dashboard_state_is_warming_until_the_warm_up_ends(site: Site) -> None:
    assert site.manage("/health")["state"] == "HEALTHY"
    site.search.hold()
    warming = threading.Thread(target=warm_up, args=(site.app, site.server.url))
    warming.start()
    assert site.search.wait_for_queries(1)
    assert site.manage("/health")["state"] == "WARMING"
    assert site.stats()["state"] == "WARMING"
    site.search.release()
    warming.join(30)
    assert site.manage("/health")["state"] == "HEALTHY"


def test_dashboard_warm_up_leaves_nothing_to_wait_for(site: Site) -> None:
    told: list[tuple[int, int]] = []
    warmed = warm_up(site.app, site.server.url, lambda *so_far: told.append(so_far))
    assert (warmed.done, warmed.failed) == (len(WARM_UP), 0)
    assert told == [(done, len(WARM_UP)) for done in range(1, len(WARM_UP) + 1)]
    before = site.search.queries
    assert {site.label(path) for path in WARM_UP} == {"HIT"}
    assert site.search.queries == before


def test_dashboard_warm_up_with_the_search_server_down_starts_all_the_same(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    site.search.kill()
    with caplog.at_level(logging.WARNING, "stillwarm"):
        warmed = warm_up(site.app, site.server.url)
    assert (warmed.done, warmed.failed) == (0, len(WARM_UP))
    assert site.cache.state is State.HEALTHY
    assert sum("answered 503" in record.getMessage() for record in caplog.records) == len(WARM_UP)


@pytest.mark.parametrize("url", ["/api/dashboard", "shop.example/api", "ftp://shop.example/", "//shop.example/x", 7])
def test_dashboard_warm_up_refuses_a_url_without_its_host(site: Site, url: Any) -> None:
    with pytest.raises(ConfigError, match=r"urls: .*accepted: a URL as clients ask for it"):
        warm.warm_up(site.app, [url])
    with pytest.raises(ConfigError, match=r"urls=.*accepted: a list"):
        warm.warm_up(site.app, "http://shop.example/")


def test_dashboard_warm_up_takes_paths_where_the_app_knows_its_name(site: Site) -> None:
    site.app.config.update(SERVER_NAME="shop.example", PREFERRED_URL_SCHEME="https")
    assert warm.warm_up(site.app, [PATHS["search"]]).failed == 0
    (hot,) = site.cache.top(5)
    assert hot.key == "cache:search:GET:https://shop.example/api/search?q=teapot"


def test_dashboard_warm_up_asks_with_the_headers_it_was_given(site: Site) -> None:
    headers = {"Authorization": "Bearer customer-1"}
    assert warm.warm_up(site.app, [f"{site.server.url}/api/account"], headers=headers).failed == 0
    assert site.label("/api/account", "customer-1") == "HIT"
    assert site.label("/api/account", "customer-2") == "MISS"


def test_dashboard_search_server_down_gives_the_stale_page_and_never_an_error(site: Site, move: Any) -> None:
    good = site.get(PAGE)
    site.search.kill()
    move(CacheType.DASHBOARD.ttl + 1)
    stale = [site.get(PAGE) for _ in range(5)]
    assert [(answer.status, answer.label) for answer in stale] == [(200, "STALE")] * 5
    assert all(answer.body == good.body for answer in stale)
    stats = site.stats()
    assert (stats["errors"], stats["is_available"]) == (1, True)
    assert "ConnectionRefusedError" in stats["last_error"]


def test_dashboard_alert_is_raised_once_per_crossing(site: Site, move: Any, caplog: pytest.LogCaptureFixture) -> None:
    events: list[hooks.Event] = []
    site.cache.subscribe(events.append)

    def fail(times: int) -> None:
        for number in range(times):
            assert site.get(f"/api/analytics?orders={number + 1}").status == 503

    site.search.kill()
    with caplog.at_level(logging.INFO, "stillwarm"):
        fail(10)
        assert not site.alert("errors")["active"]  # 10 are not above 10
        move(2)
        fail(1)
        for _ in range(3):
            move(2)
            assert (site.alert("errors")["active"], site.alert("errors")["crossings"]) == (True, 1)
        health = site.manage("/health")
        assert health["state"] == "DEGRADED"
        move(400)  # beyond the window
        site.alert("errors")
        move(2)
        assert not site.alert("errors")["active"]
        fail(11)
        move(2)
        assert site.alert("errors")["crossings"] == 2
    raised = [event for event in events if isinstance(event, hooks.AlertRaised) and event.key == "errors"]
    assert len(raised) == 2
    lines = [record for record in caplog.records if record.getMessage().startswith("alert errors")]
    assert [record.levelname for record in lines] == ["WARNING", "INFO", "WARNING"]


def test_dashboard_monitoring_page_and_metrics_are_there(site: Site) -> None:
    assert "<!doctype html>" in site.get("/api/cache/").body.lower()
    site.get(PAGE)
    metrics = site.client.get("/api/cache/metrics", TOKEN)
    assert metrics.status == 200
    assert 'type="dashboard"' in metrics.body


# ------------------------------------------------------------------------------------------------------------ traffic


def test_dashboard_traffic_is_the_same_for_the_same_seed() -> None:
    assert list(traffic(500)) == list(traffic(500))
    assert list(traffic(500)) != list(traffic(500, seed=1))


def test_dashboard_replay_counts_what_the_cache_counts_and_saves_most_queries() -> None:
    seen = replay(2_000)
    assert seen.failed == 0
    assert set(seen.requests) == set(THEIRS)
    assert sum(seen.requests.values()) == 1_994  # of 2,000, 4 orders and 2 prices are writes
    assert seen.hits["dashboard"] > 0.9 * seen.requests["dashboard"]
    assert seen.queries_without == sum(seen.requests.values()) + 6 * seen.requests["dashboard"]
    misses = {name: seen.requests[name] - seen.hits[name] for name in THEIRS}
    assert seen.queries == sum(misses.values()) + 6 * misses["dashboard"]
    assert seen.saved > 85


def test_dashboard_replay_gives_the_clock_back() -> None:
    before = _core.clock_now()
    replay(50)
    assert 0 <= _core.clock_now() - before < 3600 * 1e9
