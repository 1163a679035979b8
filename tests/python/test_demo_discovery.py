"""The discovery demo over real HTTP: the reference system's tests by name, truthful answers, trouble upstream.

Thread rule: one client; where two requests have to meet, the product API holds its answers back.
Refuses to know: the story and the parts (`test_demo_discovery_parts`). Speed is told by counts, never by clocks.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from http.client import HTTPConnection
from typing import Any

import pytest

from discovering import (
    BOOKS,
    DISCOVER,
    HEALTH,
    HOUR,
    SCORE,
    SCORED,
    STATS,
    Site,
    in_thread,
    made,
    make_site,
    move,
    site,
)
from stillwarm import Cache

__all__ = ["make_site", "move", "site"]
Make = Callable[..., Site]
Move = Callable[[float], None]

FILTERS = {"domain": int, "category": int, "bsr_min": int, "bsr_max": int, "price_min": float, "price_max": float}


# ----------------------------------------------------------------------------------------- the reference system's tests


def test_discovery_health(site: Site) -> None:
    health = site.client.get(HEALTH)
    assert health.status == 200
    assert health.body == {
        "status": "healthy",
        "upstream_key_configured": True,
        "database": "none",
        "cache_enabled": True,
        "cache_state": "HEALTHY",
        "alerts": [],
    }


def test_discovery_discover(site: Site) -> None:
    found = site.discover()
    assert made(found) == (200, "MISS", False, "upstream")
    assert found.body["count"] == len(found.body["asins"]) > 20
    products = site.source.products(1, found.body["asins"])
    assert all(product.bsr is not None and product.bsr <= 20_000 for product in products.values())


def test_discovery_discover_hit(site: Site) -> None:
    first = site.discover()
    calls = site.api.calls
    again = site.discover()
    assert made(again) == (200, "HIT", True, "cache")
    assert again.body["asins"] == first.body["asins"]
    assert site.api.calls == calls == 3  # /bestsellers, and /product for two batches of 20


def test_discovery_with_scoring(site: Site) -> None:
    answer = site.scored()
    assert made(answer) == (200, "MISS", False, "upstream")
    products = answer.body["products"]
    assert answer.body["total_count"] == len(products) == 20
    assert {product["recommendation"] for product in products} <= {"STRONG_BUY", "BUY", "CONSIDER", "SKIP"}
    assert site.api.counts == {"bestsellers": 1, "product": 3}
    assert site.api.spent == 50 + 40 + 20
    assert made(site.scored()) == (200, "HIT", True, "cache")
    assert site.api.spent == 110


def test_discovery_empty_result(site: Site) -> None:
    empty = {"category": BOOKS["category"], "price_min": 1e6}
    for path, counted in ((DISCOVER, "count"), (SCORED, "total_count")):
        answer = site.client.post(path, empty)
        assert (answer.status, answer.body[counted]) == (200, 0)
    assert answer.label == "HIT"
    assert site.client.post(SCORED, {"category": 999}).body["products"] == []


@pytest.mark.parametrize("category", [999, 2**31 - 1])
def test_discovery_invalid_category_unknown_gives_an_empty_result(site: Site, category: int) -> None:
    for path, counted in ((DISCOVER, "count"), (SCORED, "total_count")):
        answer = site.client.post(path, {"category": category})
        assert (answer.status, answer.body[counted]) == (200, 0)


@pytest.mark.parametrize("category", [-1, 2**31, 1e300, "books", [1], {"a": 1}, 1.5, "\ud83d"])
def test_discovery_invalid_category_nonsense_is_refused(site: Site, category: Any) -> None:
    for path in (DISCOVER, SCORED):
        answer = site.client.post(path, {"category": category})
        assert answer.status == 422
        assert answer.body["detail"][0]["loc"] == ["body", "category"]
    assert site.api.calls == 0


NONSENSE = [
    b"",
    b"{",
    b"\xff\xfe",
    b"[]",
    b"null",
    b'"x"',
    b'{"\\ud83d": 1}',
    b'{"prize_max": 1}',
    b'{"bsr_min": 9, "bsr_max": 1}',
    b'{"price_min": NaN}',
    b'{"price_max": 1e999}',
    b'{"domain": 12}',
    b'{"asins": []}',
    b'{"asins": ["x"]}',
    b'{"asins": ["B00000000\\n"]}',
    b"[" * 50_000,
]


@pytest.mark.parametrize("body", NONSENSE, ids=range(len(NONSENSE)))
def test_discovery_nonsense_is_refused_and_never_a_500(site: Site, body: bytes) -> None:
    for path in (DISCOVER, SCORED, SCORE):
        connection = HTTPConnection("127.0.0.1", site.server.server_port, timeout=30)
        connection.request("POST", path, body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        assert answer.status in (400, 422)
        assert json.loads(answer.read())["detail"]
        connection.close()
    assert site.api.calls == 0


def test_discovery_response_contract(site: Site) -> None:
    discovered, scored, scores = site.discover(), site.scored(), site.score(site.ids(1))
    assert {name: type(value) for name, value in discovered.body.items()} == {
        "asins": list,
        "count": int,
        "cache_hit": bool,
        "metadata": dict,
    }
    contract = {"products": list, "total_count": int, "cache_hit": bool, "metadata": dict}
    assert {name: type(value) for name, value in scored.body.items()} == contract
    assert {name: type(value) for name, value in scores.body.items()} == {**contract, "not_found": list}
    for answer in (discovered, scored):
        metadata = answer.body["metadata"]
        assert set(metadata) == {"filters_applied", "timestamp", "source"}
        assert metadata["source"] in ("cache", "mixed", "upstream")
        assert metadata["timestamp"].endswith("Z")
        assert list(metadata["filters_applied"]) == list(FILTERS)
        assert metadata["filters_applied"] == {**dict.fromkeys(FILTERS), "domain": 1, **BOOKS}
    assert scores.body["metadata"]["filters_applied"] == {"asins": site.ids(1), "domain": 1}
    product = {
        "asin": str,
        "title": str,
        "price": float,
        "bsr": int,
        "roi_percent": float,
        "velocity_score": float,
        "recommendation": str,
    }
    for one in scored.body["products"]:
        types = {name: type(value) for name, value in one.items()}
        optional = {name: type(None) for name in ("price", "bsr") if one[name] is None}
        assert types == {**product, **optional}


def test_discovery_cache_at_least_10x(site: Site) -> None:
    site.scored()
    miss = site.api.seconds  # that the real API would have taken
    assert miss == 3 + 2 * 2 + 2
    for _ in range(10):
        assert site.scored().label == "HIT"
    assert site.api.seconds == miss  # 11 requests for the time of one; the story tells it by the clock


def test_discovery_top_3_products(site: Site) -> None:
    products = site.scored().body["products"]
    top = products[:3]
    assert [one["roi_percent"] for one in top] == sorted((one["roi_percent"] for one in products), reverse=True)[:3]
    assert top[0]["recommendation"] == "STRONG_BUY"
    assert len({one["asin"] for one in products}) == len(products)


def test_discovery_ttl_expiry(site: Site, move: Move) -> None:
    site.scored()
    move(6 * HOUR - 1)
    assert made(site.scored()) == (200, "HIT", True, "cache")
    move(2)
    assert made(site.scored()) == (200, "MISS", False, "mixed")  # the ids are good for 24 h
    move(18 * HOUR - 2)
    assert site.discover().label == "HIT"
    move(2)
    assert made(site.discover()) == (200, "MISS", False, "upstream")


def test_discovery_expired_entries_are_counted(site: Site, move: Move) -> None:
    site.scored()
    move(2 * 24 * HOUR + 1)  # past the time for which they stand in for an API that does not answer
    stats = site.stats()
    assert [(stats[name]["entries"], stats[name]["expired"]) for name in ("discovery", "scoring")] in (
        [(1, 1), (20, 20)],
        [(0, 0), (0, 0)],  # purged already
    )


# ---------------------------------------------------------------------------------------------------- truthful answers


def test_discovery_source_is_mixed_when_some_scores_are_cached(site: Site) -> None:
    site.score(site.ids(10))
    spent = site.api.spent
    answer = site.score(site.ids(20))
    assert made(answer) == (200, "MISS", False, "mixed")
    assert [one["asin"] for one in answer.body["products"]] == site.ids(20)
    assert site.api.spent == spent + 10  # the others were reused
    assert site.api.counts["product"] == 2


def test_discovery_missing_scores_load_in_batches_of_20(site: Site) -> None:
    asins = [*site.ids(40, 283155), *site.ids(40, 228013)]
    site.score(asins[:75])
    assert site.api.counts["product"] == 4
    site.score(asins)
    assert (site.api.counts["product"], site.api.spent) == (5, 80)


def test_discovery_search_that_shares_a_load_is_no_cache_hit(site: Site) -> None:
    site.api.hold()
    answers = [in_thread(site, DISCOVER, BOOKS)]
    assert site.api.wait_for_calls(1)  # the load runs before the others come
    answers += [in_thread(site, DISCOVER, BOOKS) for _ in range(4)]
    site.wait_for_missed(5)
    site.api.release()
    assert {made(answer()) for answer in answers} == {(200, "MISS", False, "upstream")}
    assert site.api.counts["bestsellers"] == 1
    assert made(site.discover())[2] is True


def test_discovery_scores_that_share_a_load_are_no_cache_hit(site: Site) -> None:
    known, shared = site.ids(1), site.ids(2)
    site.score(known)
    site.api.hold()
    first = in_thread(site, SCORE, {"asins": shared})
    assert site.api.wait_for_calls(2)
    second = in_thread(site, SCORE, {"asins": shared})
    third = site.client.post(SCORE, {"asins": known})  # another id is being loaded: that is none of its business
    site.api.release()
    assert made(third) == (200, "HIT", True, "cache")
    assert made(first()) == (200, "MISS", False, "mixed")
    assert second().status == 200
    assert site.api.spent == 2


def test_discovery_plain_and_coroutine_callers_share_the_entries(site: Site) -> None:
    from stillwarm.demo.discovery.service import Search

    search = Search(1, 283155, None, 20_000)
    plain = site.service.discover_now(search)
    assert (plain.cache_hit, plain.origin) == (False, "upstream")
    assert made(site.discover()) == (200, "HIT", True, "cache")
    site.score(site.ids(3))
    scores = site.service.score_now(site.ids(4), 1)
    assert (scores.cache_hit, scores.origin, len(scores.scores)) == (False, "mixed", 4)
    assert site.score(site.ids(4)).label == "HIT"


def test_discovery_searches_that_differ_only_in_price_do_not_share_an_entry(site: Site) -> None:
    cheap, dear = site.discover(**BOOKS, price_max=20), site.discover(**BOOKS, price_min=20.0)
    assert dear.label == "MISS"
    assert not set(cheap.body["asins"]) & set(dear.body["asins"])
    assert site.discover(**BOOKS, price_max=20.0).label == "HIT"
    assert {hot["key"] for hot in site.stats()["hot_keys"]} == {
        "discovery:1:283155:None-20000:None-20.0",
        "discovery:1:283155:None-20000:20.0-None",
    }


def test_discovery_category_0_is_no_category(site: Site) -> None:
    assert site.discover(category=0).label == "MISS"
    assert site.discover(domain=1).label == "HIT"
    assert site.discover(category=None).label == "HIT"


@pytest.mark.parametrize(("empty_ttl", "label"), [("10m", "HIT"), (0, "MISS")])
def test_discovery_empty_results_are_kept_as_configured(make_site: Make, empty_ttl: Any, label: str) -> None:
    site = make_site(empty_ttl=empty_ttl)
    assert [site.discover(category=999).label for _ in range(2)] == ["MISS", label]
    assert [site.discover().label for _ in range(2)] == ["MISS", "HIT"]


def test_discovery_empty_results_have_their_own_ttl(site: Site, move: Move) -> None:
    site.discover(category=999)
    move(599)
    assert site.discover(category=999).label == "HIT"
    move(2)
    assert site.discover(category=999).label == "MISS"


def test_discovery_unknown_ids_are_named_and_not_kept(site: Site) -> None:
    asked = ["B000000000", *site.ids(2)]
    for calls in (1, 2):
        answer = site.score([*asked, *asked])
        assert (answer.body["total_count"], answer.body["not_found"]) == (2, ["B000000000"])
        assert site.api.counts["product"] == calls
    assert site.api.spent == 3 + 1
    assert site.stats()["scoring"]["entries"] == 2


# ----------------------------------------------------------------------------------------------------- upstream trouble


def test_discovery_no_tokens_is_a_503_with_retry_after(site: Site) -> None:
    known = site.discover().body["asins"]
    site.api.drain()
    status, headers, body = site.ask("POST", DISCOVER, {"category": 228013})
    assert (status, headers["retry-after"]) == (503, "3")  # 50 tokens at 1,000 a minute
    assert b'"retry_after":3' in body
    assert b"no tokens left" in body
    assert site.discover().body["asins"] == known
    assert site.scored().status == 503  # the ids are cached, the scores are not
    site.api.refill()
    assert site.discover(category=228013).status == 200


@pytest.mark.parametrize("trouble", ["killed", "broken", "drained"])
def test_discovery_outage_with_a_warm_cache_gives_stale_answers(site: Site, move: Move, trouble: str) -> None:
    ids, products = site.discover().body["asins"], site.scored().body["products"]
    move(6 * HOUR + 1)  # the scores are over
    {"killed": site.api.kill, "broken": lambda: setattr(site.api, "broken", True), "drained": site.api.drain}[trouble]()
    stale = site.scored()
    assert made(stale) == (200, "STALE", False, "cache")  # it did ask, in vain
    assert stale.body["products"] == products
    assert site.discover().label == "HIT"
    move(18 * HOUR)
    assert site.discover().body["asins"] == ids
    site.api.start()
    site.api.broken = False
    site.api.refill()
    move(HOUR)  # longer than any pause after a failed load
    assert made(site.discover()) == (200, "MISS", False, "upstream")


@pytest.mark.parametrize("path", [DISCOVER, SCORED])
def test_discovery_outage_with_a_cold_cache_is_a_clear_503(site: Site, path: str) -> None:
    site.api.kill()
    answer = site.client.post(path, BOOKS)
    assert answer.status == 503
    assert answer.body == {"detail": "the product API does not answer (ConnectionRefusedError)", "retry_after": None}
    assert site.score(site.ids(2)).status == 503
    assert site.client.get(STATS).body["history"]["total"] == 0
    site.api.start()
    assert site.client.post(path, BOOKS).status == 200


def test_discovery_without_a_key_says_so(make_site: Make) -> None:
    site = make_site(key="")
    assert site.discover().body["detail"] == "no key of the product API is configured"
    health = site.client.get(HEALTH).body
    assert (health["status"], health["upstream_key_configured"]) == ("degraded", False)
    assert site.api.calls == 0


def test_discovery_works_with_the_cache_off(make_site: Make, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "stillwarm.demo.discovery"):
        site = make_site(cache=Cache(enabled=False))
    assert [(r.levelname, r.getMessage()) for r in caplog.records] == [
        ("DEBUG", "cache disabled: every request asks the product API")
    ]
    for calls in (4, 8):
        assert made(site.scored()) == (200, "MISS", False, "upstream")
        assert site.api.calls == calls
    assert site.client.get(HEALTH).body["cache_enabled"] is False
