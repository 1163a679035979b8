"""What Redis answers with when it cannot: each error of the fault list, by a real server or a stub before one.

Thread rule: each test has a server of its own.
Refuses to know: broken connections (test_tier_faults_cut), a server that is away (test_tier_faults_away).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from outages import Shared, answers, eventually, forget, is_of, patient, shared
from resp_stub import RespStub
from served import RawRedis
from stillwarm import State
from stillwarm._redis_server import RedisServer
from stillwarm._servers import ServerError
from stillwarm.errors import TierError
from tiers import with_port

pytestmark = pytest.mark.servers


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


def goes_on(one: Shared, *keys: str) -> None:
    for key in keys:
        assert is_of(one.get(key), key)


def healthy_again(one: Shared) -> None:
    eventually(lambda: answers(one) and one.health["circuit"] == "closed", what=str(one.health))
    one.written()
    assert one.cache.set("again", 1)
    assert one.cache._tier is not None
    one.cache._tier._recent.clear()  # the failures of the last 10 s, as if those were over
    eventually(lambda: one.cache.confirm() and one.cache.state is State.HEALTHY, what=str(one.health))


def end_clients(redis: RedisServer) -> None:
    redis.command("CLIENT", "KILL", "TYPE", "normal")
    redis.command("CLIENT", "KILL", "TYPE", "pubsub")


# ---------------------------------------------------------------------------------------------------------------- OOM


def fill(redis: RedisServer) -> None:
    redis.command("CONFIG", "SET", "maxmemory-policy", "noeviction")
    redis.command("CONFIG", "SET", "maxmemory", "1")
    with RawRedis(redis.url) as naive, pytest.raises(ServerError, match="OOM"):
        naive("SET", "k", "v")


def test_redis_errors_oom_reads_go_on_and_stores_are_skipped(redis: RedisServer) -> None:
    with patient(redis.url) as one, patient(redis.url) as other:
        first = one.get("k")
        one.written()
        fill(redis)
        assert one.fresh("k") == other.get("k") == first, "read from the tier"
        rejected = one.health["rejected"]
        goes_on(one, *(f"new{n}" for n in range(20)))
        assert one.cache.set("d", 1)
        assert one.cache.get("d") == 1, "memory has it"
        one.written()
        assert one.health["rejected"] == rejected + 20, "skipped, and counted"
        assert one.health["owed_writes"] == 0, "and not kept for later"
        assert one.health["circuit"] == "closed", "a tier that answers is not down"
        assert one.cache.state is State.DEGRADED
        redis.command("CONFIG", "SET", "maxmemory", "0")
        healthy_again(one)


@pytest.mark.parametrize("intent", ["key", "tag", "type", "pattern", "all"])
def test_redis_errors_oom_an_invalidation_still_takes_effect(redis: RedisServer, intent: str) -> None:
    with patient(redis.url, tags=["t"]) as one, patient(redis.url, tags=["t"]) as other:
        first = one.get("k")
        one.written()
        assert other.get("k") == first
        fill(redis)
        what: Any = {"key": "get:'k'", "tag": "t", "type": "default", "pattern": "get:*", "all": True}[intent]
        one.cache.invalidate(**{intent: what})
        assert one.health["owed_invalidations"] == 0, "it was taken"
        assert one.get("k") != first
        eventually(lambda: other.get("k") != first)
        assert other.fresh("k") != first
        assert one.fresh("k") != first


def test_redis_errors_oom_before_anything_is_there(redis: RedisServer) -> None:
    fill(redis)
    with patient(redis.url) as one:
        goes_on(one, "a", "b")
        assert one.health["connections"] > 0
        one.cache.invalidate(tag="t")
        assert one.health["owed_invalidations"] == 0
        redis.command("CONFIG", "SET", "maxmemory", "0")
        healthy_again(one)


# ------------------------------------------------------------------------ READONLY, NOREPLICAS, MASTERDOWN, LOADING


def test_redis_errors_readonly_what_is_owed_lands_when_it_is_the_master_again(redis: RedisServer) -> None:
    settings = {"repl-diskless-sync-delay": "0"}
    with RedisServer(settings=settings) as master, patient(redis.url) as one:
        old = one.get("k")
        one.cache.set("d", 1)
        one.written()
        redis.command("REPLICAOF", master.host, master.port)
        with RawRedis(redis.url) as naive, pytest.raises(ServerError, match="READONLY"):
            naive("SET", "k", "v")
        assert one.cache.set("d", 2)
        one.cache.invalidate(key="get:'k'")
        assert one.get("k") != old
        assert one.health["owed_invalidations"] == 1
        assert one.health["owed_writes"] == 1
        before = redis.command("INFO", "stats").split("total_connections_received:")[1].split()[0]
        goes_on(one, *(f"n{n}" for n in range(50)))
        after = redis.command("INFO", "stats").split("total_connections_received:")[1].split()[0]
        assert int(after) - int(before) < 50, "no storm of connections"
        assert one.cache.state is not State.HEALTHY
        redis.command("REPLICAOF", "NO", "ONE")
        eventually(lambda: one.health["owed_invalidations"] == one.health["owed_writes"] == 0)
        with patient(redis.url) as other:
            assert other.cache.get("d") == 2
            assert other.get("k") != old
        healthy_again(one)


def test_redis_errors_readonly_is_asked_again_on_a_new_connection(redis: RedisServer) -> None:
    """The old master's connection is not the new one's: the name leads elsewhere by now."""
    with RespStub(redis.port) as stub, patient(with_port(redis.url, stub.port), connections=1) as one:
        one.cache.set("d", 1)
        one.written()
        first = stub.seen[b"CLIENT"]

        def once() -> None:
            eventually(lambda: stub.said > 0)
            stub.says(b"")

        stub.says(b"-READONLY You can't write against a read only replica.\r\n", b"EVALSHA")
        helper = threading.Thread(target=once)
        helper.start()
        one.cache.invalidate(key="d")
        helper.join()
        eventually(lambda: one.health["owed_invalidations"] == 0)
        assert stub.seen[b"CLIENT"] > first, "a new connection"
        with patient(redis.url) as other:
            assert other.cache.get("d") is None
        healthy_again(one)


def test_redis_errors_noreplicas_reads_go_on(redis: RedisServer) -> None:
    """As with MISCONF, when a snapshot failed: a server that takes no writes and answers reads."""
    with patient(redis.url) as one, patient(redis.url) as other:
        first = one.get("k")
        one.written()
        redis.command("CONFIG", "SET", "min-replicas-to-write", 1)
        with RawRedis(redis.url) as naive, pytest.raises(ServerError, match="NOREPLICAS"):
            naive("SET", "k", "v")
        assert one.fresh("k") == first
        assert one.cache.set("d", 2)
        one.cache.invalidate(key="get:'k'")
        assert one.get("k") != first
        redis.command("CONFIG", "SET", "min-replicas-to-write", 0)
        eventually(lambda: one.health["owed_writes"] == one.health["owed_invalidations"] == 0)
        eventually(lambda: other.get("k") != first)
        forget(other.cache)
        assert other.cache.get("d") == 2
        healthy_again(one)


def test_redis_errors_masterdown(redis: RedisServer) -> None:
    with shared(redis.url) as one:
        first = one.get("k")
        one.written()
        redis.command("CONFIG", "SET", "replica-serve-stale-data", "no")
        redis.command("REPLICAOF", "127.0.0.1", "1")
        with RawRedis(redis.url) as naive, pytest.raises(ServerError, match="MASTERDOWN"):
            naive("GET", "k")
        goes_on(one, "k", *(f"n{n}" for n in range(20)))
        eventually(lambda: one.cache.state is State.DOWN)
        redis.command("REPLICAOF", "NO", "ONE")
        healthy_again(one)
        assert is_of(first, "k")


ERRORS = {
    "LOADING": b"-LOADING Redis is loading the dataset in memory\r\n",
    "MASTERDOWN": b"-MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.\r\n",
    "CLUSTERDOWN": b"-CLUSTERDOWN The cluster is down\r\n",
    "MOVED": b"-MOVED 3999 127.0.0.1:6381\r\n",
    "ASK": b"-ASK 3999 127.0.0.1:6381\r\n",
    "TRYAGAIN": b"-TRYAGAIN Multiple keys request during rehashing of slot\r\n",
    "BUSY": b"-BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.\r\n",
    "NOPERM": b"-NOPERM this user has no permissions to run the 'evalsha' command\r\n",
    "ERR": b"-ERR max number of clients reached\r\n",
}


@pytest.mark.parametrize("error", ERRORS)
def test_redis_errors_to_every_command(redis: RedisServer, caplog: Any, error: str) -> None:
    """From the first connection on, and again while it is in use: values, one line in the log, and back by itself."""
    caplog.set_level(logging.WARNING, "stillwarm")
    with RespStub(redis.port) as stub:
        stub.says(ERRORS[error])
        with pytest.raises(ServerError, match=error):
            RawRedis(with_port(redis.url, stub.port))
        with shared(with_port(redis.url, stub.port)) as one:
            for round_ in range(2):
                goes_on(one, *(f"{round_}-{n}" for n in range(20)))
                assert one.cache.set("d", round_)
                assert one.cache.get("d") == round_
                one.cache.invalidate(tag=f"t{round_}")
                eventually(lambda: one.cache.state is State.DOWN)
                with pytest.raises(TierError, match=error if error != "ERR" else "max number"):
                    one.cache.check()
                stub.says(b"")
                healthy_again(one)
                one.cache.check()
                assert one.fresh("d0") is not None
                eventually(lambda: one.health["owed_writes"] == one.health["owed_invalidations"] == 0)
                stub.says(ERRORS[error])
            stub.says(b"")
    said = [record.getMessage() for record in caplog.records if error in record.getMessage()]
    assert len(said) == len(set(said)) <= 2, "once, however often it happens"


def test_redis_errors_a_script_that_runs_for_ever(redis: RedisServer) -> None:
    redis.command("CONFIG", "SET", "busy-reply-threshold", 50)
    with shared(redis.url) as one:
        one.get("warm")
        one.written()
        endless = threading.Thread(target=_endless, args=(redis,))
        endless.start()
        eventually(lambda: _is_busy(redis))
        goes_on(one, "warm", *(f"n{n}" for n in range(12)))
        eventually(lambda: one.cache.state is State.DOWN)
        redis.command("SCRIPT", "KILL")
        endless.join()
        healthy_again(one)


def _endless(redis: RedisServer) -> None:
    with pytest.raises(ServerError, match="killed"):
        redis.command("EVAL", "while true do end", 0, timeout=60.0)


def _is_busy(redis: RedisServer) -> bool:
    try:
        redis.command("PING")
    except ServerError as error:
        return str(error).startswith("BUSY")
    return False
