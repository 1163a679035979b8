"""One load for a whole fleet on a cluster: the lease is where its entry is, and travels with the look-up and the store.

Thread rule: threads are held by gates and awaited; other caches stand for other processes.
Refuses to know: what a lease is for (test_tier_fleet).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from stillwarm import Cache, _core
from stillwarm._redis_clusters import RedisCluster
from stillwarm._tier import LEASE_AGE
from tiers import PATIENCE, ClusterGround, Counted, eventually, function

pytestmark = pytest.mark.servers


@pytest.fixture
def ground(shared_cluster: RedisCluster) -> Iterator[ClusterGround]:
    ground = ClusterGround(shared_cluster, connections=1, max_lag="1h")
    try:
        yield ground
    finally:
        ground.close()


def round_trips(cache: Cache) -> int:
    assert cache._tier is not None
    return int(cache._tier.core.health()["round_trips"])


def leases(ground: ClusterGround) -> list[str]:
    pattern = f"stillwarm:{{{ground.namespace}.*}}:x:*"
    return [name for names in ground.redis("KEYS", pattern) for name in names]


def entries(ground: ClusterGround) -> list[str]:
    return [name for names in ground.redis("KEYS", ground.entries) for name in names]


def fleet(cache: Cache, source: Any, **options: Any) -> Any:
    return function(cache, source, scope="fleet", **options)


@pytest.mark.parametrize("along", [True, False])
def test_redis_cluster_fleet_load_is_two_round_trips(ground: ClusterGround, along: bool) -> None:
    """The look-up takes the lease and the store gives it back. The control asks for each by itself."""
    cache = ground.cache()
    f = fleet(cache, lambda key: key)
    assert cache.confirm()
    assert cache._tier is not None
    cache._tier.leases_along = along
    took = []
    for key in range(20):
        before = round_trips(cache)
        assert f(key) == key
        took.append(round_trips(cache) - before)
    assert set(took) == ({2} if along else {5}), took
    assert leases(ground) == []
    assert len(entries(ground)) == 20


def test_redis_cluster_fleet_lease_is_in_the_slot_of_its_entry(ground: ClusterGround) -> None:
    source = Counted()
    source.gate.clear()
    f = fleet(ground.cache(), source)
    with ThreadPoolExecutor(8) as pool:
        futures = [pool.submit(f, key) for key in range(8)]
        for _ in range(8):
            assert source.begun.acquire(timeout=PATIENCE)
        held = leases(ground)
        source.gate.set()
        assert [future.result(PATIENCE) for future in futures] == [f"{key}#1" for key in range(8)]
    slots = {name.rpartition("\n")[2]: ground.cluster.slot_of(name) for name in held}
    assert len(slots) == 8
    assert slots == {name.rpartition(":e:default:")[2]: ground.cluster.slot_of(name) for name in entries(ground)}
    assert len(set(slots.values())) > 1


def test_redis_cluster_fleet_several_processes_load_each_key_once(ground: ClusterGround) -> None:
    source = Counted()
    functions = [fleet(ground.cache(), source) for _ in range(3)]
    start = threading.Barrier(24)

    def work(i: int) -> list[Any]:
        start.wait(PATIENCE)
        return [functions[i % 3](key) for key in range(12)]

    with ThreadPoolExecutor(24) as pool:
        results = [future.result(PATIENCE) for future in [pool.submit(work, i) for i in range(24)]]
    assert results == [[f"{key}#1" for key in range(12)]] * 24
    assert source.calls == dict.fromkeys(range(12), 1)
    eventually(lambda: not leases(ground), "a lease was not given back")


def test_redis_cluster_fleet_lease_that_ends_lets_the_next_one_in(ground: ClusterGround) -> None:
    """Its owner is gone: taken by the protocol, and never renewed."""
    a, b = ground.cache(), ground.cache()
    source = Counted()
    f = fleet(b, source)
    assert a._tier is not None
    assert a._tier.run(taken := _core.lease(True, "default\nf:'k'", "somebody", LEASE_AGE)) is None
    assert taken.taken
    (name,) = leases(ground)
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(f)
        assert not future.done()
        assert source.total == 0
        ground.cluster.owner(ground.cluster.slot_of(name)).command("PEXPIRE", name, 1)
        assert future.result(PATIENCE) == "k#1"
    eventually(lambda: not leases(ground))


def test_redis_cluster_fleet_lease_is_renewed_while_its_owner_loads(ground: ClusterGround) -> None:
    source = Counted()
    source.gate.clear()
    f = fleet(ground.cache(), source)
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(f)
        assert source.begun.acquire(timeout=PATIENCE)
        (name,) = leases(ground)
        owner = ground.cluster.owner(ground.cluster.slot_of(name))
        assert owner.command("PEXPIRE", name, 3000) == 1
        eventually(lambda: owner.command("PTTL", name) > 3500, "nobody renews it")
        source.gate.set()
        assert future.result(PATIENCE) == "k#1"


def test_redis_cluster_fleet_type_with_a_line_break_has_its_lease_elsewhere(ground: ClusterGround) -> None:
    """Then it is taken by itself, as where the look-up cannot."""
    cache = ground.cache()
    cache.define("odd\ntype", ttl=100)
    f = fleet(cache, lambda key: key, type="odd\ntype")
    assert [f(key) for key in range(10)] == list(range(10))
    ground.written()
    assert len(entries(ground)) == 10
