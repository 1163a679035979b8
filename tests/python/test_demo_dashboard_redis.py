"""The dashboard on Redis as its reference system has it: real Redis, Redis down, compression both ways, performance.

Thread rule: one client. Two apps with caches of their own stand for two workers; they know each other through Redis.
Refuses to know: the story (`test_demo_redis`), and what holds without Redis, too (`test_demo_dashboard`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import flask
import pytest

from stillwarm import Cache, _core
from stillwarm._ask_redis import ask_redis
from stillwarm.demo.client import Answer, Client
from stillwarm.demo.dashboard import create_app
from stillwarm.demo.dashboard.app import WARM_UP, warm_up
from stillwarm.demo.dashboard.patterns import ORDER, PAGE
from stillwarm.demo.dashboard.search import Search
from stillwarm.demo.serving import AppServer
from stillwarm.demo.upstream import SearchServer
from stillwarm.flask import CacheType
from stillwarm.testing import RedisServer
from tiers import Ground, eventually

TOKEN = "a-token-of-the-tests"
NAME = "shop.example"
ZSTD = b"\x28\xb5\x2f\xfd"  # how each of its frames begins
TEAPOT = "/api/search?q=teapot"
PATHS = {"dashboard": PAGE, "search": TEAPOT, "product": "/api/products/7", "analytics": "/api/analytics?orders=10"}


class Worker:
    """The app over one cache."""

    def __init__(self, cache: Cache, search: SearchServer) -> None:
        self.cache = cache
        self.app = create_app(Search(search.url), cache, TOKEN)
        self.server = AppServer(self.app)
        self.client = Client(self.server.url, host=NAME)

    def get(self, path: str, user: str = "") -> Answer:
        return self.client.get(path, user)

    def label(self, path: str, user: str = "") -> str:
        return self.get(path, user).label

    def manage(self, path: str, document: Any = None, status: int = 200) -> Any:
        path = f"/api/cache{path}"
        answer = self.client.get(path, TOKEN) if document is None else self.client.post(path, document, TOKEN)
        assert answer.status == status, answer
        return answer.body

    def stats(self) -> dict[str, Any]:
        return self.manage("/stats")["cache_stats"]  # type: ignore[no-any-return]

    def close(self) -> None:
        self.client.close()
        self.server.stop()


class Site:
    """Workers over one Redis, and a search server without latencies."""

    def __init__(self, ground: Ground) -> None:
        self.ground = ground
        self.search = SearchServer(scale=0).start()
        self.workers: list[Worker] = []

    def worker(self, **options: Any) -> Worker:
        self.workers.append(Worker(self.ground.cache(**options), self.search))
        return self.workers[-1]

    def stored(self) -> dict[str, bytes]:
        """What Redis has of entries, by key."""
        self.ground.written()
        start = f"stillwarm:{{{self.ground.namespace}}}:e:"
        keys = self.ground.redis("KEYS", f"{start}*")
        return {key.removeprefix(start): self.ground.redis("GET", key).encode("latin-1") for key in keys}

    def close(self) -> None:
        for worker in self.workers:
            worker.close()
        self.search.kill()


@pytest.fixture
def site(redis_ground: Ground) -> Iterator[Site]:
    site = Site(redis_ground)
    yield site
    site.close()


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


# ---------------------------------------------------------------------------------------------------------- real Redis


@pytest.mark.parametrize("path", [*PATHS.values(), "/api/orders/recent"])
def test_dashboard_real_redis_second_worker_hits_what_the_first_has_made(site: Site, path: str) -> None:
    one, two = site.worker(), site.worker()
    made = one.get(path)
    site.ground.written()
    asked = site.search.queries
    found = two.get(path)
    assert (made.label, found.label, found.body) == ("MISS", "HIT", made.body)
    assert two.label(path) == "HIT"
    assert two.stats()["remote_hits"] == 1  # the other one came from its memory
    assert site.search.queries == asked


def test_dashboard_real_redis_keys_begin_with_their_types_prefix_and_name_no_user(site: Site) -> None:
    one = site.worker()
    for path in PATHS.values():
        one.get(path)
    one.get("/api/account", "customer-1")
    keys = [*site.stored()]
    assert sorted(key.split(":")[0] for key in keys) == sorted(CacheType)
    assert all(key.startswith(f"{key.split(':')[0]}:cache:{key.split(':')[0]}:") for key in keys)
    assert "customer-1" not in "".join(keys)


@pytest.mark.parametrize("kind", PATHS)
def test_dashboard_real_redis_a_types_ttl_holds_in_every_worker(site: Site, kind: str) -> None:
    one = site.worker()
    assert one.label(PATHS[kind]) == "MISS"
    site.ground.pass_time(CacheType(kind).ttl - 10)
    assert site.worker().label(PATHS[kind]) == "HIT"
    site.ground.pass_time(20)
    assert site.worker().label(PATHS[kind]) == "MISS"


def test_dashboard_real_redis_manager_get_set_and_delete_of_a_key(site: Site) -> None:
    one, two = site.worker(), site.worker()
    one.cache.set("mine", {"a": 1}, ttl=60)
    assert two.cache.get("mine") == {"a": 1}
    assert two.manage("/invalidate-key", {"key": "mine"})["count"] >= 1
    assert one.cache.confirm()  # what the next poll does
    assert one.cache.get("mine") is None


@pytest.mark.parametrize(
    ("path", "document", "gone"),
    [
        ("/invalidate/search", {}, {"search"}),
        ("/invalidate-pattern", {"pattern": "cache:search:*teapot*"}, {"search"}),
        ("/invalidate-pattern", {"pattern": "cache:*"}, {*PATHS}),
        ("/invalidate-key", {"key": "cache:product:product:7"}, {"product"}),
        ("/clear-all", {}, {*PATHS}),
    ],
)
def test_dashboard_real_redis_invalidation_in_one_worker_reaches_the_other(
    site: Site, path: str, document: Any, gone: set[str]
) -> None:
    one, two = site.worker(), site.worker()
    for asked in PATHS.values():
        one.get(asked)
        site.ground.written()
        assert two.label(asked) == "HIT"
    one.manage(path, document)
    assert {kind for kind, asked in PATHS.items() if one.label(asked) == "MISS"} == gone
    made = {kind: one.get(asked).body["made_at"] for kind, asked in PATHS.items()}
    assert two.cache.confirm()
    site.ground.written()
    assert {kind: two.get(asked).body["made_at"] for kind, asked in PATHS.items()} == made


def test_dashboard_real_redis_write_in_one_worker_is_heard_by_the_other(site: Site) -> None:
    one, two = site.worker(), site.worker()
    assert one.get(PAGE).body["figures"]["orders"] == two.get(PAGE).body["figures"]["orders"] == 500
    assert one.client.post("/api/orders", ORDER).status == 201
    assert one.get(PAGE).body["figures"]["orders"] == 501
    eventually(lambda: two.get(PAGE).body["figures"]["orders"] == 501, "the other worker does not hear of it")


def test_dashboard_real_redis_users_never_see_each_others_page(site: Site) -> None:
    one, two = site.worker(), site.worker()
    for worker in (one, two):
        for name in ("customer-1", "customer-2"):
            assert worker.get("/api/account", name).body["account"]["customer"] == name
            site.ground.written()
        assert worker.get("/api/account").status == 401
    assert site.search.queries == 2
    assert two.stats()["remote_hits"] == 2


def test_dashboard_real_redis_keeps_no_errors_and_no_empty_results(site: Site) -> None:
    one = site.worker()
    for path in ("/api/products/99999", "/api/search", "/api/analytics?orders=0", "/api/search?q=lamp+99"):
        one.get(path)
    site.search.kill()
    assert one.get(PAGE).status == 503
    assert site.stored() == {}


def test_dashboard_real_redis_warm_up_by_one_worker_is_for_all(site: Site) -> None:
    one, two = site.worker(), site.worker()
    assert warm_up(one.app, f"http://{NAME}").failed == 0
    site.ground.written()
    asked = site.search.queries
    assert {two.label(path) for path in WARM_UP} == {"HIT"}
    assert site.search.queries == asked


# --------------------------------------------------------------------------------------------- compression, both ways


TEXT = "A vessel that keeps what is in it warm for a while, "


@pytest.fixture
def long(site: Site) -> Site:
    """Products have descriptions: ten of them are more than 1 KB."""
    for product in site.search.documents.products:
        product["description"] = f"{TEXT}number {product['id']}"
    return site


def entry(site: Site, kind: str) -> bytes:
    (value,) = [value for key, value in site.stored().items() if key.startswith(f"{kind}:")]
    return value


def test_dashboard_compression_above_1_kb_in_redis_and_the_same_bytes_back(long: Site) -> None:
    one = long.worker()
    made = one.get(TEAPOT)
    packed = entry(long, "search")
    assert ZSTD in packed
    assert packed.count(TEXT.encode()) <= 1  # once, at most: it says it again by pointing there
    found = long.worker().get(TEAPOT)
    assert (found.label, found.body) == ("HIT", made.body)


def test_dashboard_compression_leaves_small_answers_as_they_are(long: Site) -> None:
    one = long.worker()
    made = one.get("/api/products/7")
    plain = entry(long, "product")
    assert len(plain) < 1024
    assert ZSTD not in plain
    assert TEXT.encode() in plain
    found = long.worker().get("/api/products/7")
    assert (found.label, found.body) == ("HIT", made.body)


def test_dashboard_compression_can_be_switched_off_and_is_smaller(long: Site) -> None:
    """The control, too: the same answer is there in plain text."""
    one = long.worker(compress_above=0)
    one.get(TEAPOT)
    plain = entry(long, "search")
    assert len(plain) > 1024
    assert ZSTD not in plain
    assert plain.count(TEXT.encode()) == 10
    made = one.get(TEAPOT)
    two = long.worker()  # reads what is not compressed
    assert (two.label(TEAPOT), two.get(TEAPOT).body) == ("HIT", made.body)
    two.manage("/clear-all", {})
    two.get(TEAPOT)
    packed = entry(long, "search")
    assert ZSTD in packed
    assert len(packed) < 0.7 * len(plain)


def test_dashboard_compression_that_was_damaged_is_a_counted_miss(long: Site) -> None:
    one = long.worker()
    one.get(TEAPOT)
    long.ground.written()
    (key,) = long.ground.redis("KEYS", f"stillwarm:{{{long.ground.namespace}}}:e:search:*")
    at = entry(long, "search").index(ZSTD) + 20
    long.ground.redis("SETRANGE", key, at, "damaged")
    two = long.worker()
    assert (two.get(TEAPOT).status, two.stats()["remote_hits"]) == (200, 0)
    assert sum(two.cache.stats().tier["undecodable"].values()) == 1


# --------------------------------------------------------------------------------------------------------- performance


def test_dashboard_performance_is_one_load_for_all_workers_and_one_look_each(site: Site) -> None:
    workers = [site.worker() for _ in range(3)]
    for worker in workers:
        for _ in range(50):
            worker.get(PAGE)
        site.ground.written()
    assert site.search.queries == 7  # 1,050 without; 21 without Redis
    assert [worker.stats()["remote_hits"] for worker in workers] == [0, 1, 1]


def test_dashboard_performance_without_redis_is_a_load_for_each_worker(site: Site) -> None:
    """The control."""
    for _ in range(3):
        worker = Worker(Cache(), site.search)
        site.workers.append(worker)
        for _ in range(50):
            worker.get(PAGE)
        worker.cache.close()
    assert site.search.queries == 21


# ---------------------------------------------------------------------------------------------------------- Redis down

FAULTS: dict[str, Callable[[RedisServer], Any]] = {
    "killed": lambda server: server.kill(),
    "frozen": lambda server: server.freeze(),
    "full": lambda server: server.command("CONFIG", "SET", "maxmemory", "1"),
    "a password": lambda server: server.command("CONFIG", "SET", "requirepass", "unknown"),
}


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
