"""What the discovery demo shows: its OpenAPI schema, its page in a browser, log lines, alerts, figures and history.

Thread rule: one client; the browser's pages on the browser's loop.
Refuses to know: what the endpoints answer (`test_demo_discovery`).
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable
from typing import Any

import pytest
from playwright.async_api import expect

from browsing import HOSTILE, Chromium, chromium
from discovering import BOOKS, DISCOVER, HEALTH, SCORE, Site, make_site, move, site
from stillwarm.demo.discovery.history import MemoryHistory
from stillwarm.demo.discovery.service import short
from stillwarm.demo.discovery.tables import HISTORY, discovery_key

__all__ = ["chromium", "make_site", "move", "site"]
Make = Callable[..., Site]
LOGGER = "stillwarm.demo.discovery"


# ------------------------------------------------------------------------------------------------------------- OpenAPI


def schema_of(site: Site) -> Any:
    status, _, body = site.ask("GET", "/openapi.json")
    assert status == 200
    return json.loads(body)


def test_discovery_openapi_has_exactly_the_endpoints(site: Site) -> None:
    paths = {path: set(methods) for path, methods in schema_of(site)["paths"].items()}
    assert paths == {
        "/api/v1/health": {"get"},
        "/api/v1/products/discover": {"post"},
        "/api/v1/products/discover-with-scoring": {"post"},
        "/api/v1/products/score": {"post"},
        "/api/v1/cache/stats": {"get"},
    }


def test_discovery_openapi_is_complete(site: Site) -> None:
    document = schema_of(site)
    schemas = document["components"]["schemas"]
    assert len(schemas) > 15
    for name, schema in schemas.items():
        assert schema["description"], name
        for field, what in schema["properties"].items():
            where = f"{name}.{field}"
            assert what.get("description"), where
            assert {"type", "$ref", "anyOf", "enum", "const"} & set(what), where
    for path, methods in document["paths"].items():
        for operation in methods.values():
            assert all(operation[name] for name in ("summary", "description", "tags", "operationId")), path
            for parameter in operation.get("parameters", []):
                assert parameter["description"], path
            statuses = set(operation["responses"])
            assert statuses == ({"200", "422", "503"} if "/products/" in path else {"200"}), path
            for status, response in operation["responses"].items():
                assert response["description"], (path, status)
                assert response["content"]["application/json"]["schema"]["$ref"], (path, status)
    for path in (DISCOVER, SCORE):
        responses = document["paths"][path]["post"]["responses"]
        assert "Retry-After" in responses["503"]["headers"]
        assert responses["200"]["headers"]["X-Cache"]["schema"]["enum"] == ["HIT", "STALE", "MISS"]


# ------------------------------------------------------------------------------------------------------------ the page


def test_discovery_page_is_served_with_a_strict_policy(site: Site) -> None:
    for path, kind in (("/", "text/html"), ("/page.css", "text/css"), ("/page.js", "text/javascript")):
        status, headers, body = site.ask("GET", path)
        assert (status, headers["content-type"].partition(";")[0]) == (200, kind)
        assert "default-src 'none'; script-src 'self'; style-src 'self'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        text = body.decode()
        assert "http://" not in text
        assert "https://" not in text
        assert not re.search(r"innerHTML|insertAdjacent|document\.write|eval\(", text)
    assert "<script>" not in text
    assert b"style=" not in site.ask("GET", "/")[2]


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_discovery_page_shows_hit_and_miss_and_escapes_what_it_shows(
    site: Site, chromium: Chromium, scheme: Any
) -> None:
    hostile = {"asin": "B000000001", "title": HOSTILE, "price": 10.0, "bsr": 1, "stats": {"avg90": 99.0}}
    site.api.catalogue.add(1, 283155, hostile)
    complaints: list[str] = []

    async def look() -> None:
        context = await chromium.browser.new_context(color_scheme=scheme, viewport={"width": 900, "height": 900})
        page = await context.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        await page.goto(site.server.url)
        await page.get_by_label("Rank to").focus()
        await page.keyboard.press("Enter")  # no mouse is needed
        badge, rows = page.locator("#badge"), page.locator("#rows tr")
        await expect(badge).to_have_text("MISS")
        miss = await badge.evaluate("(one) => getComputedStyle(one).backgroundColor")
        await expect(rows.first).to_contain_text(HOSTILE)
        assert await rows.count() == 20
        assert await page.evaluate("window.hacked") is None
        assert await page.locator("#rows img").count() == 0
        await page.get_by_role("button", name="Search").press("Enter")
        await expect(badge).to_have_text("HIT")
        hit = await badge.evaluate("(one) => getComputedStyle(one).backgroundColor")
        red, green = ([int(n) for n in re.findall(r"\d+", colour)][:3] for colour in (miss, hit))
        assert red[0] > 2 * red[1]
        assert green[1] > 2 * green[0]
        await expect(page.locator("#note")).to_contain_text(re.compile(r"^\d+\.\d ms, 20 products, source: cache$"))
        assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        site.api.kill()
        await page.get_by_label("Category").select_option("228013")
        await page.get_by_role("button", name="Search").press("Enter")
        await expect(badge).to_have_text("ERROR")
        await expect(page.locator("#note")).to_contain_text("the product API does not answer")
        await context.close()

    chromium.loop.run(look())
    assert all("503" in complaint for complaint in complaints), complaints
    assert site.app.state.history.rows()[0]["source"] == "frontend"


# ----------------------------------------------------------------------------------------------- log lines and alerts


def test_discovery_log_lines(make_site: Make, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, LOGGER):
        site = make_site()
        site.discover()
        site.discover()
        (asin,) = site.ids(1)
        site.score([asin])
        site.score(site.ids(2))
    lines = [(r.levelname, r.getMessage()) for r in caplog.records if r.name == LOGGER]
    key = "discovery:1:283155:None-20000:None-None"
    other = f"scoring:{site.ids(2)[1]}:1"
    assert lines == [
        ("INFO", "cache enabled: memory; discovery 24h, scoring 6h"),
        ("DEBUG", f"discovery miss: {key}"),
        ("DEBUG", f"discovery stored: {key}"),
        ("INFO", f"discovery hit: 23 ids: {key}"),
        ("DEBUG", f"scoring miss: scoring:{asin}:1"),
        ("DEBUG", f"scoring stored: scoring:{asin}:1"),
        ("INFO", "scoring: 0 of 1 from the cache (0.0 %)"),
        ("DEBUG", f"scoring miss: {other}"),
        ("DEBUG", f"scoring stored: {other}"),
        ("INFO", "scoring: 1 of 2 from the cache (50.0 %)"),
    ]


def test_discovery_log_lines_shorten_long_keys() -> None:
    key = discovery_key(11, 2**31 - 1, 2**31 - 1, 2**31 - 1, 0.1 + 0.2, 1e9)
    assert len(key) == 78
    assert short(key) == key[:45] + "..."
    assert short("scoring:B000000000:1") == "scoring:B000000000:1"


def test_discovery_alerts_warn_once_per_crossing(make_site: Make, move: Any, caplog: pytest.LogCaptureFixture) -> None:
    site = make_site(alerts={"entries": 5, "min_entries": 2})

    def active() -> set[str]:
        move(2)
        return {alert["name"] for alert in site.client.get(HEALTH).body["alerts"]}

    with caplog.at_level(logging.WARNING, "stillwarm"):
        assert active() == set()
        site.score(site.ids(6))
        for _ in range(3):
            assert active() == {"entries", "reuse"}
        assert site.client.get(HEALTH).body["status"] == "degraded"
        assert {a["name"]: a["crossings"] for a in site.stats()["alerts"]}["entries"] == 1
        site.score(site.ids(6))
        site.score(site.ids(6))
        assert active() == {"entries"}  # each was used twice
        site.cache.clear()
        assert active() == set()
        site.score(site.ids(6))
        assert "entries" in active()
    warned = [r.getMessage().split()[1] for r in caplog.records if r.getMessage().startswith("alert")]
    assert warned == ["entries", "reuse", "entries", "reuse"]


def test_discovery_alerts_have_the_reference_systems_thresholds(site: Site) -> None:
    assert {alert["name"]: alert["threshold"] for alert in site.stats()["alerts"]} == {
        "entries": 10_000,
        "reuse": 2,
        "expired": 0.2,
        "tier_down": 1,
    }


# ------------------------------------------------------------------------------------------------ statistics, history


def test_discovery_stats_count_what_happened(site: Site) -> None:
    site.discover()
    for _ in range(3):
        site.discover()
    site.score(site.ids(4))
    site.score(site.ids(2))
    stats = site.stats()
    expected = {"entries": 1, "total_hits": 3, "average_reuse": 3.0, "expired": 0, "hits": 3, "misses": 1}
    assert {name: stats["discovery"][name] for name in expected} == expected
    expected = {"entries": 4, "total_hits": 2, "average_reuse": 0.5, "expired": 0, "hits": 2, "misses": 4}
    assert {name: stats["scoring"][name] for name in expected} == expected
    assert stats["discovery"]["hit_ratio"] == 0.75
    assert stats["hit_ratio"] == 0.5
    assert stats["scoring"]["table_size_bytes"] > 0
    assert (stats["discovery"]["ttl_seconds"], stats["scoring"]["ttl_seconds"]) == (86_400, 21_600)
    assert stats["upstream_calls"] == site.api.calls == 4
    assert stats["hot_keys"][0] == {"key": discovery_key(1, 283155, None, 20_000), "type": "discovery", "hits": 3}


def test_discovery_history_survives_the_clearing_of_both_caches(site: Site) -> None:
    for _ in range(3):
        site.discover()
    site.scored()
    site.score(site.ids(2))
    before = site.stats()["history"]
    assert (before["total"], before["by_search_type"]) == (5, {"discovery": 4, "scoring": 1})
    first = before["frequent_filters"][0]
    assert (first["count"], first["filters"]["bsr_max"]) == (4, 20_000)
    site.cache.invalidate(type="discovery")
    site.cache.invalidate(type="scoring")
    after = site.stats()
    assert after["history"] == before
    assert after["discovery"]["entries"] == after["scoring"]["entries"] == 0


def test_discovery_history_has_who_and_from_where(site: Site) -> None:
    status, _, _ = site.ask("POST", DISCOVER, BOOKS, X_Search_Source="manual", X_User_Id="user-7")
    assert status == 200
    assert site.ask("POST", DISCOVER, BOOKS, X_Search_Source="nowhere")[0] == 422
    assert site.ask("POST", DISCOVER, BOOKS, X_User_Id="x" * 37)[0] == 422
    (row,) = site.app.state.history.rows()
    assert set(row) == {"id", "created_at", *HISTORY["columns"]}
    assert (row["source"], row["user_id"], row["results_count"]) == ("manual", "user-7", 23)


def test_discovery_history_counts_any_column() -> None:
    history = MemoryHistory()
    for kind, filters in (("discovery", {"a": 1, "b": 2}), ("scoring", {}), ("discovery", {"b": 2, "a": 1})):
        history.record(search_type=kind, filters=filters)
    assert history.count_by("search_type") == {"discovery": 2, "scoring": 1}
    assert history.frequent("filters", 1) == [({"a": 1, "b": 2}, 2)]


def test_discovery_operators_page_wants_its_token(make_site: Make) -> None:
    site = make_site(token="a-token-of-the-tests")
    assert site.client.get("/api/cache/stats").status == 401
    assert site.client.get("/api/cache/stats", "a-token-of-the-tests").status == 200
    assert site.client.get("/api/cache/").status == 200
