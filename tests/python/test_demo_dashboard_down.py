"""The dashboard while Redis is down, as its reference system has it: no error for the client, told, back by itself.

Thread rule: one client.
Refuses to know: what holds while Redis is there (`test_demo_dashboard_redis`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import flask
import pytest

from dashboards import PATHS, Site
from stillwarm import _core
from stillwarm._ask_redis import ask_redis
from stillwarm.demo.dashboard.patterns import ORDER, PAGE
from stillwarm.flask import CacheType
from stillwarm.testing import RedisServer
from tiers import Ground, eventually

FAULTS: dict[str, Callable[[RedisServer], Any]] = {
    "killed": lambda server: server.kill(),
    "frozen": lambda server: server.freeze(),
    "full": lambda server: server.command("CONFIG", "SET", "maxmemory", "1"),
    "a password": lambda server: server.command("CONFIG", "SET", "requirepass", "unknown"),
}


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture
def frail(server: RedisServer) -> Iterator[Site]:
    """A site on a Redis that the test may hurt; the caches' time limits are the usual ones."""
    ground = Ground(server.url, timeout="250ms", connect_timeout="1s")
    site = Site(ground)
    yield site
    site.close()
    server.thaw()
    ground.close()


@pytest.mark.servers
@pytest.mark.parametrize("fault", FAULTS)
def test_dashboard_redis_down_is_never_an_error_for_the_client(
    frail: Site, server: RedisServer, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    one = frail.worker()
    for path in PATHS.values():
        one.get(path)
    frail.ground.written()
    FAULTS[fault](server)
    if fault == "a password":  # who is in stays in
        _drop_clients(server)
    with caplog.at_level(logging.WARNING, "stillwarm"):
        two = frail.worker()  # it starts without Redis
        for worker in (one, two):
            for path in [*PATHS.values(), "/api/analytics?orders=77"]:
                answers = [worker.get(path) for _ in range(3)]
                assert [answer.status for answer in answers] == [200] * 3
                assert answers[-1].label == "HIT"
            assert worker.get("/api/account", "customer-1").body["account"]["customer"] == "customer-1"
            before = worker.get(PAGE).body["figures"]["orders"]
            assert worker.client.post("/api/orders", ORDER).status == 201
            assert worker.get(PAGE).body["figures"]["orders"] == before + 1
    for worker in (one, two):
        stats, tier = worker.stats(), worker.cache.stats().tier
        assert stats["errors"] == stats["remote_errors"]  # no load failed
        # What was to be written behind is counted where it was refused.
        assert stats["remote_errors"] if fault != "full" else tier["rejected"] and "OOM" in tier["last_rejection"]
        assert stats["state"] == ("DEGRADED" if fault == "full" else "DOWN")
    assert fault == "full" or any("Redis" in record.getMessage() for record in caplog.records)


def _drop_clients(server: RedisServer) -> None:
    commands = [("AUTH", "unknown"), ("CLIENT", "KILL", "SKIPME", "yes", "TYPE", "normal")]
    ask_redis((server.host, server.port), commands, 5.0)


@pytest.mark.servers
def test_dashboard_redis_down_a_naive_route_fails(server: RedisServer) -> None:
    """The control: what the fault does to an app that asks Redis by itself."""
    app = flask.Flask("naive")

    @app.get("/page")
    def page() -> Any:
        return {"cached": ask_redis((server.host, server.port), [("GET", "page")], 0.5)[-1]}

    assert app.test_client().get("/page").status_code == 200
    server.kill()
    assert app.test_client().get("/page").status_code == 500


@pytest.mark.servers
def test_dashboard_redis_down_and_the_search_server_too_gives_stale_answers(frail: Site, server: RedisServer) -> None:
    one = frail.worker()
    good = one.get(PAGE)
    server.kill()
    frail.search.kill()
    frail.ground.caches[-1].get("any")  # it notices
    later(CacheType.DASHBOARD.ttl + 1)
    stale = [one.get(PAGE) for _ in range(5)]
    assert [(answer.status, answer.label) for answer in stale] == [(200, "STALE")] * 5
    assert all(answer.body == good.body for answer in stale)


def later(seconds: float) -> None:
    """Only the caches' clock: the server has none now."""
    _core.clock_set(_core.clock_now() + int(seconds * 1e9))


@pytest.mark.servers
@pytest.mark.parametrize("fault", ["killed", "frozen"])
def test_dashboard_redis_down_is_told_and_comes_back_by_itself(frail: Site, server: RedisServer, fault: str) -> None:
    one, two = frail.worker(), frail.worker()
    one.get(PAGE)
    frail.ground.written()
    assert two.label(PAGE) == "HIT"
    FAULTS[fault](server)

    def is_down() -> bool:
        for number in range(3):
            assert one.get(f"/api/analytics?orders={number + 1}").status == 200
        return not one.stats()["is_available"]

    eventually(is_down, "nothing says that Redis is down")
    health = one.manage("/health", status=503)
    (alert,) = [alert for alert in health["alerts"] if alert["name"] == "tier_down"]
    assert (health["state"], alert["active"], alert["crossings"]) == ("DOWN", True, 1)

    server.start() if fault == "killed" else server.thaw()
    # Nobody asks for anything meanwhile.
    eventually(lambda: all(w.cache.state.value != "DOWN" for w in (one, two)), "it does not come back by itself")
    numbers = iter(range(100, 100_000))

    def shares() -> bool:
        path = f"/api/analytics?orders={next(numbers)}"
        assert one.get(path).status == 200
        frail.ground.written()
        return two.label(path) == "HIT"

    eventually(shares, "the workers do not share again")


@pytest.mark.servers
def test_dashboard_redis_down_from_the_start_and_there_later(server: RedisServer) -> None:
    server.kill()
    ground = Ground(server.url, timeout="250ms", connect_timeout="1s")
    site = Site(ground)
    try:
        one, two = site.worker(), site.worker()
        assert [one.label(PAGE) for _ in range(2)] == ["MISS", "HIT"]
        server.start()

        def shares() -> bool:
            one.manage("/clear-all", {})
            made = one.get(PAGE)
            ground.written()
            found = two.get(PAGE)
            return made.label == "MISS" and found.label == "HIT" and found.body == made.body

        eventually(shares, "Redis is never used")
    finally:
        site.close()
        ground.close()
