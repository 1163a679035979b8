"""A tier on a cluster: what is no cluster, slots that move, masters that are replaced, and what callers see of it.

Thread rule: one thread with a Load's.
Refuses to know: what every tier keeps (test_tier_contract runs it on a cluster).
"""

from __future__ import annotations

import itertools
import logging
import os
import time
from collections.abc import Iterator
from typing import Any

import pytest

from failovers import load, naive
from outages import eventually, forget
from redis_stub import RedisStub
from stillwarm import Cache, State
from stillwarm._redis_clusters import RedisCluster
from stillwarm._redis_server import RedisServer
from stillwarm.errors import TierError

pytestmark = pytest.mark.servers
_names = (f"c{n}" for n in itertools.count())


def cache_of(url: str, **options: Any) -> Cache:
    options = {"namespace": next(_names), "purge_every": None, "timeout": "5s", "connect_timeout": "5s", **options}
    return Cache(url, **options)


def last_error(cache: Cache) -> str:
    return str(cache.stats().tier["last_error"])


def linked(cache: Cache) -> None:
    def is_linked() -> bool:
        assert cache._tier is not None
        return bool(cache.confirm() and cache._tier.core.health()["linked"])

    eventually(is_linked)


# ------------------------------------------------------------------------------------------------ what is no cluster


@pytest.mark.parametrize("kind", ["cluster url, single server", "plain url, cluster node"])
def test_redis_cluster_and_single_server_are_not_taken_for_each_other(
    kind: str, shared_cluster: RedisCluster, warm_redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    if kind.startswith("cluster"):
        url, said = f"redis+cluster://127.0.0.1:{warm_redis.port}", "redis://host:port"
    else:
        url, said = shared_cluster.nodes[0].url, "redis+cluster://host1:port"
    with caplog.at_level(logging.WARNING, "stillwarm"), cache_of(url) as cache:
        for n in range(5):
            assert cache.get(f"k{n}") is None
            assert cache.get_or_set(f"k{n}", lambda: 7, 10) == 7
        eventually(lambda: cache.state is State.DOWN)
        assert said in last_error(cache)
        with pytest.raises(TierError, match=r"redis(\+cluster)?://host"):
            cache.check()
    assert len([r for r in caplog.records if "accepted: redis" in r.getMessage()]) == 1


def test_redis_cluster_is_found_by_any_node_that_answers(shared_cluster: RedisCluster) -> None:
    with RedisStub(lambda words: None) as gone:
        pass
    for node in (shared_cluster.nodes[0], shared_cluster.nodes[-1]):  # a master and a replica
        with cache_of(f"redis+cluster://127.0.0.1:{gone.port},127.0.0.1:{node.port}") as cache:
            assert cache.set_many({f"k{n}": n for n in range(100)}, ttl=100) == []
            forget(cache)
            assert cache.get_many([f"k{n}" for n in range(100)]) == {f"k{n}": n for n in range(100)}
            names = {name for keys in shared_cluster.everywhere("KEYS", f"stillwarm:{{{cache.namespace}.*}}:m")
                     for name in keys}  # fmt: skip
            assert len(names) > 30, "the namespace is in many buckets"
            assert all(shared_cluster.everywhere("KEYS", f"stillwarm:{{{cache.namespace}.*}}:e:*")), "on every master"


def test_redis_cluster_whose_nodes_send_each_other_on_is_left_after_five_redirects() -> None:
    def answer(words: list[str]) -> Any:
        if words[:2] == ["CLUSTER", "SLOTS"]:
            return [[0, 16383, ["127.0.0.1", stubs[0].port, "a"]]]
        if words[0] == "INFO":
            return "redis_version:7.0.15\r\nredis_mode:cluster\r\n"
        if words[:2] == ["SCRIPT", "LOAD"]:
            return str(len(words[2]))
        if words[0] in ("EVALSHA", "HMGET"):
            asked.append(words[0])
            return Exception(f"MOVED 1 127.0.0.1:{stubs[len(asked) % 2].port}")
        return "OK"

    asked: list[str] = []
    with RedisStub(lambda words: answer(words)) as one, RedisStub(lambda words: answer(words)) as two:
        stubs = [one, two]
        with cache_of(f"redis+cluster://127.0.0.1:{one.port}", connections=1, max_lag="1h") as cache:
            assert cache._tier is not None
            asked.clear()
            assert cache.get("k") is None
            assert "MOVED" in last_error(cache)
    assert 5 < len(asked) < 20


# ------------------------------------------------------------------------------------------------------ slots move


def test_redis_cluster_slot_that_is_moving(shared_cluster: RedisCluster) -> None:
    """What has moved is asked for where it went; what is written meanwhile is owed and written afterwards."""
    cluster = shared_cluster
    one: dict[str, Any] = {"connections": 1, "namespace": next(_names)}
    with cache_of(cluster.url, **one) as cache, cache_of(cluster.url, **one) as other:
        values = {f"k{n}": n for n in range(1000)}
        assert cache.set_many(values, ttl=600) == []
        assert other.get_many(list(values)) == values
        forget(other)
        slot = cluster.slot_of(f"stillwarm:{{{cache.namespace}.0}}:m")
        source = cluster.owner(slot)
        names = source.command("KEYS", f"stillwarm:{{{cache.namespace}.0}}:e:*")
        keys = [name.rpartition(":")[2] for name in names]
        assert len(keys) > 2
        target = next(node for node in cluster.masters if node is not source)
        cluster.begin_move(slot, target)
        while cluster.move_keys(slot, source, target):
            pass
        try:
            assert naive(lambda: source.command("GET", names[0])).startswith("ASK ")
            forget(cache)
            assert cache.get_many(keys) == {key: int(key[1:]) for key in keys}
            assert other.get(keys[0]) == int(keys[0][1:])
            cache.delete(keys[0])
            assert cache.get(keys[0]) is None
            cache.invalidate(pattern=keys[1])
            assert cache.get(keys[1]) is None
            assert cache._tier is not None
            assert cache._tier.core.health()["owed_invalidations"] > 0
        finally:
            cluster.end_move(slot, target)
        assert cache._tier.core.drain(30_000_000_000)
        linked(cache)
        linked(other)
        for either in (cache, other):
            forget(either)
            assert [either.get(key) for key in keys[:2]] == [None, None]
        assert cluster.owner(slot) is target
        cache.set("again", 1, ttl=100)
        assert other.get("again") == 1


def test_redis_cluster_is_resharded_under_load(shared_cluster: RedisCluster) -> None:
    cluster = shared_cluster
    with load(cluster.url, "reshard") as callers:
        callers.start()
        eventually(callers.healthy)
        for bucket in range(0, 64, 8):
            slot = cluster.slot_of(f"stillwarm:{{reshard.{bucket}}}:m")
            source = cluster.owner(slot)
            cluster.move(slot, next(node for node in cluster.masters if node is not source))
        took = callers.until_healthy()
        callers.settle()
        print(f"8 slots moved: healthy {took:.2f} s after the last, {callers}")
        assert callers.errors == []
        assert callers.wrong == []
        assert callers.outdated() == []


# --------------------------------------------------------------------------------------------------------- failovers


@pytest.fixture
def cluster() -> Iterator[RedisCluster]:
    with RedisCluster() as one:
        yield one


@pytest.mark.parametrize("way", ["kill", "freeze", "ordered"])
def test_redis_cluster_failover_under_load(cluster: RedisCluster, way: str, record_property: Any) -> None:
    old = cluster.masters[0]
    replica = cluster.replica_of(old)
    with load(cluster.url, way) as callers:
        callers.start()
        eventually(callers.healthy)
        begun = time.monotonic()
        if way == "ordered":
            cluster.fail_over(old)
        else:
            getattr(old, way)()
            assert "Redis at" in naive(lambda: old.command("PING", timeout=0.2))
            cluster.failed_over(replica)
        replaced = time.monotonic() - begun
        took = replaced + callers.until_healthy()
        if way == "freeze":
            old.thaw()  # and goes on where it stopped, until it hears
        eventually(callers.healthy)
        writes = callers.writes
        eventually(lambda: callers.writes > writes + 100)
        callers.settle()
        record_property("seconds", took)
        print(f"{way}: {replaced:.2f} s to another master, {took:.2f} s to healthy, {callers}")
        assert replica.command("KEYS", f"stillwarm:{{{way}.*}}:m")
        assert callers.errors == []
        assert callers.wrong == []
        assert callers.outdated() == []


def test_redis_cluster_in_the_child_of_a_fork(shared_cluster: RedisCluster) -> None:
    with cache_of(shared_cluster.url) as cache:
        cache.set("k", 1, ttl=100)
        linked(cache)
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                if cache.get("k") == 1 and cache.set("child", 2, ttl=100) and cache.confirm():
                    code = 0
            finally:
                os._exit(code)
        assert os.waitpid(pid, 0)[1] == 0
        assert cache.get("child") == 2
        assert cache.get("k") == 1
        assert cache.confirm()
