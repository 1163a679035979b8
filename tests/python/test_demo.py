"""The dashboard demo over real HTTP: the app, its stand-in search server, and the story that the command shows."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from stillwarm import Cache, _core, hooks
from stillwarm.demo.client import Answer, Client
from stillwarm.demo.dashboard import Dashboard, create_app
from stillwarm.demo.dashboard.patterns import ORDER, PAGE
from stillwarm.demo.dashboard.search import QUERIES, Search
from stillwarm.demo.documents import LATENCY_MS
from stillwarm.demo.serving import AppServer
from stillwarm.demo.upstream import SearchServer

SECOND = 1_000_000_000
TOKEN = "a-token-of-the-tests"


class Site:
    """The app on a loopback port, its search server without latencies, a client, and what the cache reported."""

    def __init__(self) -> None:
        self.search = SearchServer(scale=0).start()
        self.cache = Cache()
        self.missed = 0
        self._changed = threading.Condition()
        self.cache.subscribe(self._count)
        self.cache.define("dashboard", ttl=60)
        self.server = AppServer(create_app(Search(self.search.url), self.cache, TOKEN))
        self.client = Client(self.server.url)

    def _count(self, event: hooks.Event) -> None:
        if isinstance(event, hooks.Missed):
            with self._changed:
                self.missed += 1
                self._changed.notify_all()

    def wait_for_missed(self, count: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: self.missed >= count, 30)

    def get(self) -> Answer:
        return self.client.get(PAGE)

    def close(self) -> None:
        self.client.close()
        self.search.release()
        self.server.stop()
        self.search.kill()
        self.cache.close()


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()
    yield site
    site.close()


@pytest.fixture
def move() -> Iterator[Any]:
    """Moves the clock of the cache by seconds."""
    now = _core.clock_now()

    def move(seconds: float) -> None:
        nonlocal now
        now += int(seconds * SECOND)
        _core.clock_set(now)

    move(0)
    yield move
    _core.clock_set(0)


def in_thread(work: Any) -> tuple[threading.Thread, list[Any]]:
    result: list[Any] = []
    thread = threading.Thread(target=lambda: result.append(work()))
    thread.start()
    return thread, result


def test_demo_latencies_are_610_ms_for_seven_queries() -> None:
    assert len(LATENCY_MS) == 7
    assert sum(LATENCY_MS.values()) == 610
    assert set(LATENCY_MS) == set(QUERIES)


def test_demo_first_request_misses_and_the_next_hits(site: Site) -> None:
    miss, hit = site.get(), site.get()
    assert (miss.status, miss.label, hit.status, hit.label) == (200, "MISS", 200, "HIT")
    assert set(miss.body["figures"]) == set(QUERIES)
    assert hit.body["figures"] == miss.body["figures"]
    assert site.search.queries == 7


def test_demo_concurrent_requests_share_one_load(site: Site) -> None:
    site.search.hold()
    callers, result = in_thread(lambda: site.client.get_at_once(PAGE, 50, first="/"))
    site.wait_for_missed(50)  # every one of them waits by now, and nothing can be cached yet
    site.search.release()
    callers.join()
    (answers,) = result
    assert [answer.status for answer in answers] == [200] * 50
    assert all(answer.body["figures"] == answers[0].body["figures"] for answer in answers)
    assert {answer.label for answer in answers} == {"MISS"}
    assert site.search.queries == 7
    assert site.cache.stats().loads == 1
    assert site.cache.stats().joined == 49


def test_demo_write_invalidates_the_page(site: Site) -> None:
    before = site.get().body["figures"]
    assert site.client.post("/api/orders", ORDER).status == 201
    after = site.get()
    assert after.label == "MISS"
    assert after.body["figures"]["orders"] == before["orders"] + 1
    assert after.body["figures"]["revenue"] == pytest.approx(before["revenue"] + 42)


def test_demo_load_that_began_before_a_write_is_not_stored(site: Site) -> None:
    site.search.hold()
    load, result = in_thread(site.get)
    assert site.search.wait_for_queries(1)
    writer = Client(site.server.url)
    assert writer.post("/api/orders", ORDER).status == 201
    writer.close()
    site.search.release()
    load.join()
    early, after = result[0], site.get()
    assert early.body["figures"]["orders"] == 500
    assert (after.label, after.body["figures"]["orders"]) == ("MISS", 501)
    assert site.cache.stats().lost_fills == 1


def test_demo_stale_figures_stand_in_while_the_search_server_is_dead(site: Site, move: Any) -> None:
    good = site.get()
    move(30)
    assert site.get().label == "HIT"
    site.search.kill()
    move(31)
    stale = [site.get() for _ in range(3)]
    assert [answer.status for answer in stale] == [200] * 3
    assert [answer.label for answer in stale] == ["STALE"] * 3
    assert {answer.age for answer in stale} <= {60, 61}  # whole seconds; the clock stood between two of them
    assert all(answer.body["figures"] == good.body["figures"] for answer in stale)
    assert site.cache.stats().load_errors == 1  # the later ones did not even try


def test_demo_fresh_figures_come_back_with_the_search_server(site: Site, move: Any) -> None:
    site.get()
    site.search.kill()
    move(61)
    assert site.get().label == "STALE"
    site.search.start()
    site.search.add(ORDER)
    move(61)  # longer than any pause after a failed load
    fresh = site.get()
    assert (fresh.status, fresh.label, fresh.age) == (200, "MISS", 0)
    assert fresh.body["figures"]["orders"] == 501
    move(1)
    assert site.get().label == "HIT"


def test_demo_invalidated_figures_do_not_come_back_in_an_outage(site: Site) -> None:
    site.get()
    assert site.client.post("/api/orders", ORDER).status == 201
    site.search.kill()
    assert site.get().status == 503  # the figures from before the write are not an answer any more


def test_demo_without_stale_figures_the_outage_is_a_503(site: Site) -> None:
    site.search.kill()
    answer = site.get()
    assert answer.status == 503
    assert answer.body == {"status": "error", "message": "the search server does not answer"}
    assert site.client.post("/api/orders", ORDER).status == 503


def test_demo_kill_breaks_off_an_answer_that_is_being_made(site: Site) -> None:
    site.search.hold()
    load, result = in_thread(site.get)
    assert site.search.wait_for_queries(1)
    site.search.kill()
    load.join(30)
    assert [answer.status for answer in result] == [503]


@pytest.mark.parametrize(
    ("order", "named"),
    [
        (None, "JSON object"),
        ([], "JSON object"),
        ({**ORDER, "customer": ""}, "customer=''"),
        ({**ORDER, "product": 7}, "product=7"),
        ({**ORDER, "amount": -1}, "amount=-1"),
        ({**ORDER, "amount": True}, "amount=True"),
        ({**ORDER, "amount": float("inf")}, "amount=inf"),
        ({name: ORDER[name] for name in ("customer", "product", "country")}, "amount=None"),
    ],
)
def test_demo_bad_order_is_refused_and_invalidates_nothing(site: Site, order: Any, named: str) -> None:
    site.get()
    refused = site.client.post("/api/orders", order)
    assert refused.status == 400
    assert named in refused.body["message"]
    assert "accepted: " in refused.body["message"]
    assert site.get().label == "HIT"
    assert len(site.search.orders) == 500


def test_demo_stats_count_what_happened(site: Site) -> None:
    for _ in range(4):
        site.get()
    stats = site.client.get("/api/cache/stats", TOKEN).body
    assert stats["status"] == "success"
    counts = {name: stats["cache_stats"][name] for name in ("hits", "misses", "loads", "entries", "hit_rate", "state")}
    assert counts == {"hits": 3, "misses": 1, "loads": 1, "entries": 1, "hit_rate": 75.0, "state": "HEALTHY"}


def test_demo_page_for_a_browser(site: Site) -> None:
    page = site.client.get("/")
    assert page.status == 200
    assert "<!doctype html>" in page.body
    assert "/api/dashboard" in page.body


def test_demo_server_answers_head_and_unknown_paths(site: Site) -> None:
    assert site.client.ask("HEAD", "/").status == 200
    assert site.client.get("/nowhere").status == 404
    assert site.client.get("/api/cache/stats", TOKEN).status == 200  # on the same connection


def test_demo_story_keeps_every_promise(site: Site) -> None:
    with Dashboard(fast=True) as demo:
        steps = list(demo.story())
    assert [(step.title, step.facts) for step in steps if not step.ok] == []
    assert len(steps) == 13
    assert all(step.facts and step.seen and step.figures for step in steps)


def test_demo_story_notices_that_nothing_is_cached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STILLWARM_DISABLED", "1")
    with Dashboard(fast=True) as demo:
        demo.callers = 3
        story = demo.story()
        first, again, many = (next(story) for _ in range(3))
        story.close()
    assert first.facts["answered with the figures"]
    assert not again.facts["every one is a hit"]
    assert not again.facts["no search query"]
    assert not many.facts["exactly one load"]
    assert many.figures["queries"] == 21


def test_demo_port_that_is_taken_is_an_error_and_leaves_nothing_open(site: Site) -> None:
    before = set(threading.enumerate())
    with pytest.raises(OSError, match="in use"):
        Dashboard(port=site.server.server_port)
    for thread in set(threading.enumerate()) - before:
        thread.join(10)
        assert not thread.is_alive(), thread
