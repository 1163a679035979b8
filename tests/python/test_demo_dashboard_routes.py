"""The dashboard's routes as its reference system has them: decorator, users, conditions, invalidation on write.

Thread rule: one client; where two requests have to meet, the search server holds its answers back.
Refuses to know: configuration, statistics, states and alerts (test_demo_dashboard).
"""

from __future__ import annotations

from typing import Any

import pytest

from one_dashboard import PATHS, Site, move, site
from stillwarm.demo.dashboard.patterns import ORDER, PAGE
from stillwarm.flask import CacheType

__all__ = ["move", "site"]


# ------------------------------------------------------------------------------------------ decorator, hit and miss


@pytest.mark.parametrize("path", [*PATHS.values(), "/api/orders/recent"])
def test_dashboard_decorator_first_misses_then_hits_with_the_same_bytes(site: Site, path: str) -> None:
    first, second = site.get(path), site.get(path)
    assert (first.status, first.label, second.status, second.label) == (200, "MISS", 200, "HIT")
    assert first.body == second.body


def test_dashboard_decorator_leaves_the_view_as_it_was(site: Site) -> None:
    view = site.app.view_functions["api.dashboard"]
    assert view.__name__ == "dashboard"
    with site.app.test_request_context(PAGE):
        assert set(view.__wrapped__().get_json()["figures"]) == set(site.get(PAGE).body["figures"])


def test_dashboard_performance_is_one_load_for_any_number_of_requests(site: Site) -> None:
    for _ in range(100):
        site.get(PAGE)
    assert site.search.queries == 7  # 700 without


# ------------------------------------------------------------------------------------------------ users, conditions


def test_dashboard_users_never_see_each_others_page(site: Site) -> None:
    for _ in range(2):
        for name in ("customer-1", "customer-2"):
            assert site.get("/api/account", name).body["account"]["customer"] == name
        assert site.get("/api/account").status == 401
    assert site.search.queries == 2
    assert site.label("/api/account", "customer-1") == "HIT"


@pytest.mark.parametrize("path", ["/api/products/99999", "/api/search", "/api/analytics?orders=0"])
def test_dashboard_errors_of_the_client_are_not_kept(site: Site, path: str) -> None:
    answers = [site.get(path) for _ in range(3)]
    assert all(400 <= answer.status < 500 and answer.label not in ("HIT", "STALE") for answer in answers)
    assert site.stats()["entries"] == 0


def test_dashboard_errors_of_the_server_are_not_kept(site: Site) -> None:
    site.search.kill()
    assert [site.get(PAGE).status for _ in range(2)] == [503, 503]
    site.search.start()
    assert [(answer.status, answer.label) for answer in (site.get(PAGE), site.get(PAGE))] == [
        (200, "MISS"),
        (200, "HIT"),
    ]


def test_dashboard_product_that_is_gone_is_a_404_and_not_its_stale_page(site: Site, move: Any) -> None:
    assert site.label("/api/products/7") == "MISS"
    del site.search.documents.products[7:]
    move(CacheType.PRODUCT.ttl + 1)
    assert site.get("/api/products/7").status == 404


def test_dashboard_condition_an_answer_without_results_is_not_kept(site: Site) -> None:
    answers = [site.get("/api/search?q=lamp+99") for _ in range(3)]
    assert [(answer.status, answer.body["results"]) for answer in answers] == [(200, [])] * 3
    assert all(answer.label == "BYPASS" for answer in answers)
    assert site.search.queries == 3


# -------------------------------------------------------------------------------------------- invalidation on write


def test_dashboard_write_makes_what_it_touches_new_and_nothing_else(site: Site) -> None:
    paths = [PAGE, "/api/orders/recent", PATHS["analytics"], PATHS["search"], PATHS["product"]]
    for path in paths:
        site.get(path)
    for name in (ORDER["customer"], "customer-1"):
        site.get("/api/account", name)
    assert site.client.post("/api/orders", ORDER).status == 201
    assert [site.label(path) for path in paths] == ["MISS", "MISS", "MISS", "HIT", "HIT"]
    assert site.get("/api/account", ORDER["customer"]).body["account"]["orders"] == 1
    assert site.label("/api/account", "customer-1") == "HIT"


def test_dashboard_new_price_is_in_the_product_and_in_every_search_that_shows_it(site: Site) -> None:
    shown, other = "/api/search?q=red+kettle+0", "/api/search?q=blue+mug+1"
    for path in ("/api/products/0", "/api/products/1", shown, other):
        site.get(path)
    assert site.client.ask("PUT", "/api/products/0/price", '{"price": 3.5}').status == 200
    assert site.get("/api/products/0").body["product"]["price"] == 3.5
    assert site.get(shown).body["results"][0]["price"] == 3.5
    assert (site.label("/api/products/1"), site.label(other)) == ("HIT", "HIT")


@pytest.mark.parametrize("body", ["{}", '{"price": -1}', "[]", "nonsense"])
def test_dashboard_write_that_is_refused_invalidates_nothing(site: Site, body: str) -> None:
    site.get("/api/products/0")
    assert site.client.ask("PUT", "/api/products/0/price", body).status == 400
    assert site.client.ask("PUT", "/api/products/99999/price", '{"price": 1}').status == 404
    assert site.label("/api/products/0") == "HIT"
