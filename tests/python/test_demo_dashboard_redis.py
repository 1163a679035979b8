"""The dashboard on Redis as its reference system has it: real Redis, compression both ways, performance.

Thread rule: one client.
Refuses to know: the story (`test_demo_redis`), Redis that is down (`test_demo_dashboard_down`), and what holds without
Redis, too (`test_demo_dashboard`).
"""

from __future__ import annotations

from typing import Any

import pytest

from dashboards import NAME, PATHS, TEAPOT, Site, Worker, site
from stillwarm import Cache
from stillwarm.demo.dashboard.app import WARM_UP, warm_up
from stillwarm.demo.dashboard.patterns import ORDER, PAGE
from stillwarm.flask import CacheType
from tiers import eventually

__all__ = ["site"]
ZSTD = b"\x28\xb5\x2f\xfd"  # how each of its frames begins


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
