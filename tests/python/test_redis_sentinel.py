"""A tier behind sentinels: whom it asks for the master, what it believes, and what callers see of a failover.

Thread rule: one thread with a Load's.
Refuses to know: what every tier keeps (test_tier_contract runs it on a service with sentinels).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from typing import Any

import pytest

from failovers import load, naive
from outages import eventually
from redis_stub import RedisStub
from stillwarm import Cache, State
from stillwarm._redis_clusters import RedisSentinel
from stillwarm._redis_server import RedisServer

pytestmark = pytest.mark.servers


def sentinel_of(server: RedisServer, service: str = "main") -> Any:
    """Says that this server is the master of that service, and knows nothing else."""
    return lambda words: ["127.0.0.1", str(server.port)] if words[2] == service else None


def cache_of(*places: int, service: str = "main", **options: Any) -> Cache:
    hosts = ",".join(f"127.0.0.1:{port}" for port in places)
    options = {"namespace": "s", "purge_every": None, "connect_timeout": "1s", "timeout": "1s", **options}
    return Cache(f"redis+sentinel://{hosts}/{service}", **options)


def last_error(cache: Cache) -> str:
    return str(cache.stats().tier["last_error"])


# --------------------------------------------------------------------------------------------------- whom it believes


def test_redis_sentinel_that_is_silent_or_away_is_passed_over_once(warm_redis: RedisServer) -> None:
    with RedisStub(sentinel_of(warm_redis)) as knows, RedisStub(lambda words: "silence") as silent:
        with RedisStub(lambda words: None) as gone:
            pass  # nobody listens there any more
        with cache_of(gone.port, silent.port, knows.port, connections=1) as cache:
            eventually(lambda: cache.set("k", 1, ttl=10) and cache.get("k") == 1 and cache.confirm())
            eventually(lambda: cache._tier.core.health()["linked"])  # type: ignore[union-attr]
            assert warm_redis.command("EXISTS", "stillwarm:{s}:m") == 1
        asked = len(silent.asked)
        assert asked == 1, "the one that answered is asked first the next time"
        assert len(knows.asked) >= 2


def test_redis_sentinels_that_know_no_such_service(warm_redis: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    with RedisStub(sentinel_of(warm_redis)) as knows, cache_of(knows.port, service="other") as cache:
        with caplog.at_level(logging.WARNING, "stillwarm"):
            for n in range(5):
                assert cache.get(f"k{n}") is None
        eventually(lambda: cache.state is State.DOWN)
        assert last_error(cache) == "the sentinels know no service of the name 'other'"
        said = [record.getMessage() for record in caplog.records if "no service" in record.getMessage()]
        assert len(said) == 1
        calls = []
        assert cache.get_or_set("k", lambda: calls.append(1) or 7, 10) == 7
        assert cache.get("k") == 7


def test_redis_sentinel_that_names_a_replica_is_contradicted() -> None:
    """It may be late: the server says itself what it is, and the next sentinel is asked."""
    with RedisServer() as master, RedisServer(settings={"replicaof": f"127.0.0.1 {master.port}"}) as replica:
        with RedisStub(sentinel_of(replica)) as late, RedisStub(sentinel_of(master)) as knows:
            assert naive(lambda: replica.command("SET", "k", 1)).startswith("READONLY")
            with cache_of(late.port, connections=1) as cache:
                assert cache.get("k") is None
                eventually(lambda: "no master" in last_error(cache))
            with cache_of(late.port, knows.port, connections=1) as cache:
                eventually(lambda: cache.set("k", 1, ttl=10) and master.command("EXISTS", "stillwarm:{s}:m"))


def test_redis_sentinel_gets_the_password_only_if_it_asks(warm_redis: RedisServer) -> None:
    known: list[str] = []

    def strict(words: list[str]) -> Any:
        if words[0] == "AUTH":
            known.append(words[-1])
            return "OK"
        return sentinel_of(server)(words) if known else Exception("NOAUTH Authentication required.")

    with RedisServer(settings={"requirepass": "hush-7"}) as server:
        for answer, told in ((sentinel_of(server), []), (strict, ["hush-7"])):
            known.clear()
            with RedisStub(answer) as stub:
                url = f"redis+sentinel://:hush-7@127.0.0.1:{stub.port}/main"
                with Cache(url, namespace="s", purge_every=None, timeout="5s") as cache:
                    assert cache.set("k", 1, ttl=10)
                    assert last_error(cache) == "None"
                assert sorted({words[-1] for words in stub.asked if words[0] == "AUTH"}) == told


def test_redis_sentinel_that_names_another_moves_every_connection() -> None:
    """The old master answers as before: no error tells that it is none any more."""
    with RedisServer() as old, RedisServer() as new, RedisStub(sentinel_of(old)) as sentinel:
        with cache_of(sentinel.port, namespace="s") as cache:
            assert cache.set("k", 1, ttl=100)
            eventually(lambda: cache._tier.core.health()["linked"])  # type: ignore[union-attr]
            sentinel.answer = sentinel_of(new)
            assert old.command("PING") == "PONG"  # the control: nothing is wrong with it

            def moved() -> bool:
                cache.set("k", 2, ttl=100)
                return bool(new.command("KEYS", "stillwarm:{s}:e:*"))

            eventually(moved)
            before = old.command("HGET", "stillwarm:{s}:m", "n")
            for n in range(50):
                assert cache.set("k", n, ttl=100)
            assert old.command("HGET", "stillwarm:{s}:m", "n") == before, "somebody still talks to the old one"


# --------------------------------------------------------------------------------------------------------- failovers


@pytest.fixture
def service() -> Iterator[RedisSentinel]:
    with RedisSentinel() as one:
        yield one


@pytest.mark.parametrize("way", ["kill", "freeze", "ordered"])
def test_redis_sentinel_failover_under_load(service: RedisSentinel, way: str, record_property: Any) -> None:
    old = service.master
    with load(service.url, way) as callers:
        callers.start()
        eventually(callers.healthy)
        begun = time.monotonic()
        if way == "ordered":
            service.sentinels[0].command("SENTINEL", "FAILOVER", service.service)
        else:
            getattr(old, way)()
            assert "Redis at" in naive(lambda: old.command("PING", timeout=0.2))
        new = service.failed_over(old)
        agreed = time.monotonic() - begun
        took = agreed + callers.until_healthy()
        if way == "freeze":
            old.thaw()  # and goes on where it stopped
        eventually(callers.healthy)
        writes = callers.writes
        eventually(lambda: callers.writes > writes + 100)
        callers.settle()
        record_property("seconds", took)
        print(f"{way}: {agreed:.2f} s to another master, {took:.2f} s to healthy, {callers}")
        assert new.command("EXISTS", f"stillwarm:{{{way}}}:m") == 1
        assert callers.errors == []
        assert callers.wrong == []
        assert callers.outdated() == []
