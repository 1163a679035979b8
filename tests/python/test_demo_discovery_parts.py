"""The discovery demo's parts: keys and tables, the formula, the stand-in API, the ASGI server, a day, and the story.

Thread rule: one client.
Refuses to know: what the endpoints answer (`test_demo_discovery`) and what is shown (`test_demo_discovery_shown`).
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from discovering import HOUR, Site, site
from stillwarm import Cache, _core, transient
from stillwarm.demo.aserving import AsgiServer
from stillwarm.demo.client import Client
from stillwarm.demo.discovery import Discovery
from stillwarm.demo.discovery.day import AROUND, WORKING, requests, run_day
from stillwarm.demo.discovery.scoring import Product, Score, roi_of, score_of, velocity_of
from stillwarm.demo.discovery.source import SourceError
from stillwarm.demo.discovery.story import TIMED
from stillwarm.demo.discovery.tables import DISCOVERY, SCORING, define_types, discovery_key
from stillwarm.demo.product_api import KEY, NoTokensError, ProductApi
from stillwarm.errors import ConfigError

__all__ = ["site"]


# ------------------------------------------------------------------------------------------------------ keys and tables


def test_discovery_key_reads_the_same_for_ever() -> None:
    assert discovery_key(1, 283155, 1, 50_000, 10.0, 49.9) == "discovery:1:283155:1-50000:10.0-49.9"
    assert discovery_key(3) == discovery_key(3, 0) == "discovery:3:0:None-None:None-None"
    assert discovery_key(1, None, None, None, 10**9, 1e9) == "discovery:1:0:None-None:1000000000.0-1000000000.0"


def test_discovery_types_have_tables_that_matter_only_with_a_database() -> None:
    with Cache() as cache:
        define_types(cache, empty_ttl=0)
        assert {name: table.table for name, table in cache.tables.items()} == {
            "discovery": "product_discovery_cache",
            "scoring": "product_scoring_cache",
        }
        with pytest.raises(ConfigError, match="this needs the PostgreSQL tier"):
            cache.migrate()


def test_discovery_rows_hold_the_filters_and_scores_come_back_from_theirs() -> None:
    filters = dict(zip(list(DISCOVERY["columns"])[:6], (1, 283155, None, 20_000, None, 9.5), strict=True))
    row = DISCOVERY["project"](["B000000001", "B000000002"], **filters)
    assert row.keys() == DISCOVERY["columns"].keys()
    assert (row["count"], row["price_max"], row[DISCOVERY["value"]]) == (2, 9.5, ["B000000001", "B000000002"])
    score = Score("B000000001", 31.5, 55.0, "BUY", "A title", None, 7)
    row = {**{name: getattr(score, name) for name in SCORING["columns"]}, "hit_count": 5}
    assert SCORING["value"](row) == score


# --------------------------------------------------------------------------------------------------------- the formula


@pytest.mark.parametrize(
    ("price", "average", "bsr", "history", "roi", "velocity", "recommendation"),
    [
        (10.0, 40.0, 1, (100, 90, 80, 70), 210.0, 100.0, "STRONG_BUY"),
        (20.0, 40.0, 1000, (100,) * 4, 55.0, 30.0, "BUY"),
        (24.0, 40.0, 10_000, (100,) * 4, 29.17, 20.0, "CONSIDER"),
        (30.0, 40.0, 1, (), 3.33, 60.0, "SKIP"),
        (10.0, 40.0, None, (), 210.0, 0.0, "SKIP"),
        (None, 40.0, 1, (), 0.0, 60.0, "SKIP"),
        (0.0, 40.0, 1, (), 0.0, 60.0, "SKIP"),
        (10.0, None, 10**9, (), 0.0, 0.0, "SKIP"),
    ],
)
def test_discovery_score_follows_the_formula(
    price: Any, average: Any, bsr: Any, history: Any, roi: float, velocity: float, recommendation: str
) -> None:
    assert (roi_of(price, average), velocity_of(bsr, history)) == (roi, velocity)
    score = score_of(Product("B000000001", "t" * 600, price, bsr, average, history))
    assert (score.roi_percent, score.velocity_score, score.recommendation) == (roi, velocity, recommendation)
    assert len(score.title or "") == 500


# --------------------------------------------------------------------------------------------------- the stand-in, HTTP


def test_product_api_charges_and_fills_up_by_the_minute() -> None:
    now = 0.0
    api = ProductApi(scale=0, quota=60, per_minute=30, clock=lambda: now)
    api.bestsellers(1, 283155)
    with pytest.raises(NoTokensError) as refused:
        api.bestsellers(1, 283155)
    assert refused.value.wait == 80  # 40 tokens are missing
    now = 79.9
    with pytest.raises(NoTokensError):
        api.bestsellers(1, 283155)
    now = 80
    assert api.bestsellers(1, 283155)["tokensLeft"] == 0
    now = 10_000
    assert api.account()["tokensLeft"] == 60
    api.product(1, ["B000000001"] * 41)
    assert (api.spent, api.seconds) == (141, 3 + 3 + 2 * 3)


def test_product_api_refuses_what_it_does_not_know(site: Site) -> None:
    client = Client(site.api.url)
    try:
        assert client.get("/product?asin=B000000001&domain=1").status == 401
        statuses = [
            client.get(f"{path}&key={KEY}").status
            for path in ("/bestsellers?domain=1&category=7", "/nowhere?", "/product?domain=1", "/bestsellers?domain=x")
        ]
        assert statuses == [404, 404, 400, 400]
        assert site.api.spent == 0
    finally:
        client.close()


def test_product_api_has_the_same_products_each_time() -> None:
    one, two = ProductApi().catalogue, ProductApi().catalogue
    for domain in (1, 11):
        asins = one.bestsellers(domain, 0)
        assert one.products(domain, asins) == two.products(domain, asins)
    assert one.bestsellers(1, 283155) != one.bestsellers(3, 283155)


def test_product_source_names_what_went_wrong() -> None:
    error = SourceError("x", {"Retry-After": "7"})
    assert (error.retry_after, SourceError("x").retry_after) == (7, None)
    assert transient(error)


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 200),
        (b"HEAD /page.css HTTP/1.1\r\n\r\n", 405),
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n", 413),
        (b"GET / HTTP/1.1\r\nA: " + b"x" * 70_000 + b"\r\n\r\n", 431),
    ],
)
def test_asgi_server_answers_whatever_comes(site: Site, sent: bytes, status: int) -> None:
    with socket.create_connection(("127.0.0.1", site.server.server_port), timeout=30) as connection:
        connection.sendall(sent)
        assert connection.recv(12) == f"HTTP/1.1 {status}".encode()
    assert site.client.get("/").status == 200


def test_asgi_server_keeps_connections_and_survives_an_app_that_raises() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/bad":
            raise ValueError
        body = (await receive())["body"]
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body + scope["path"].encode()})

    server = AsgiServer(app)
    client = Client(server.url)
    assert [client.ask("POST", "/a", "1").body, client.ask("POST", "/b", "2").body] == ["1/a", "2/b"]
    assert client.get("/bad").status == 500
    assert client.get("/%C3%BC").body == "/\u00fc"
    client.close()
    server.stop()
    server.stop()
    assert not any(thread.name == "demo-app" and thread.is_alive() for thread in threading.enumerate())


# --------------------------------------------------------------------------------------------------- the day, the story


def test_discovery_day_is_the_same_for_the_same_seed() -> None:
    day = list(requests(WORKING))
    assert day == list(requests(WORKING)) != list(requests(WORKING, seed=1))
    assert (len(day), sum(request.path.endswith("/score") for request in day)) == (600, 500)
    assert {len(request.body["asins"]) for request in day if request.path.endswith("/score")} == {1}
    assert [request.at for request in day] == sorted(request.at for request in day)
    assert 8 * HOUR <= day[0].at < day[-1].at < 20 * HOUR


@pytest.mark.parametrize(("hours", "at_least"), [(WORKING, 80), (AROUND, 70)])
def test_discovery_day_saves_tokens_and_its_control_does_not(hours: Any, at_least: int) -> None:
    before = _core.clock_now()
    day = run_day(hours)
    assert (day.cached.failed, day.control.failed) == (0, 0)
    assert (day.control.discoveries, day.control.scored_ids) == (100, 500)
    assert day.control.charged == 100 * (50 + 40) + 500
    assert day.cached.charged == day.cached.discoveries * (50 + 40) + day.cached.scored_ids
    assert min(day.saved_at(5), day.saved_at(50), day.saved) >= at_least
    assert 0 <= _core.clock_now() - before < HOUR * 1e9


@pytest.fixture
def demo() -> Iterator[Discovery]:
    with Discovery(fast=True) as demo:
        demo.api.scale = 0.002
        yield demo


def test_discovery_story_keeps_every_promise(demo: Discovery) -> None:
    steps = list(demo.story())
    broken = {(step.title, fact) for step in steps for fact, held in step.facts.items() if not held}
    assert {fact for _, fact in broken} <= TIMED, broken  # a busy machine may break those
    assert len(steps) == 11
    assert all(step.facts and step.seen and step.figures for step in steps)
    assert any(demo.server.url in line for line in demo.invitation())


def test_discovery_story_notices_that_nothing_is_cached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STILLWARM_DISABLED", "1")
    with Discovery(fast=True) as demo:
        demo.api.scale, demo.callers = 0, 3
        story = demo.story()
        first, again, _, _, some, many = (next(story) for _ in range(6))
        story.close()
    assert first.facts["says that it comes from upstream"]
    assert not again.facts["every one is a hit and says so"]
    assert not again.facts["no call of the product API"]
    assert not some.facts["says mixed, and no cache hit"]
    assert not many.facts["exactly one load"]


def test_discovery_port_that_is_taken_is_an_error_and_leaves_nothing_open(site: Site) -> None:
    before = set(threading.enumerate())
    with pytest.raises(OSError, match="in use"):
        Discovery(port=site.server.server_port)
    for thread in set(threading.enumerate()) - before:
        thread.join(10)
        assert not thread.is_alive(), thread


def test_discovery_wrong_settings_are_refused() -> None:
    with Cache() as cache, pytest.raises(ConfigError, match="empty_ttl"):
        define_types(cache, empty_ttl="soon")
    with pytest.raises(ConfigError, match="url="):
        Discovery(url="postgresql//nobody")
