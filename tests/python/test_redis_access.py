"""Redis wants a password, refuses a right, or is a node of a cluster: said once, state DOWN, raised by check().

Thread rule: each test has a server of its own.
Refuses to know: faults that pass by themselves (test_redis_errors).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from typing import Any

import pytest

from outages import SECRET, Shared, answers, eventually, is_of, patient, shared, silent_about_secrets
from served import RawRedis
from stillwarm import State
from stillwarm._redis_server import RedisServer
from stillwarm._servers import ServerError
from stillwarm.errors import TierError

pytestmark = pytest.mark.servers


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


def said(caplog: Any, part: str) -> int:
    return sum(part in record.getMessage() for record in caplog.records)


def down(one: Shared, error: str) -> None:
    for n in range(20):
        assert is_of(one.get(f"down{n}"), f"down{n}")
    assert one.cache.set("d", 1)
    assert one.cache.get("d") == 1
    eventually(lambda: one.cache.state is State.DOWN)
    with pytest.raises(TierError, match=error) as caught:
        one.cache.check()
    assert SECRET not in str(caught.value)


def up(one: Shared) -> None:
    eventually(lambda: answers(one) and one.health["circuit"] == "closed", what=str(one.health))
    one.written()
    one.cache.check()
    assert one.cache.set("again", 1)
    assert one.cache._tier is not None
    one.cache._tier._recent.clear()
    eventually(lambda: one.cache.confirm() and one.cache.state is State.HEALTHY, what=str(one.health))


def signs_in(redis: RedisServer, as_admin: RawRedis) -> int:
    """How often anybody tried to sign in."""
    lines = [line for line in as_admin("INFO", "commandstats").splitlines() if line.startswith("cmdstat_auth:")]
    return int(lines[0].split("calls=")[1].split(",")[0]) if lines else 0


# --------------------------------------------------------------------------------------------------- NOAUTH, WRONGPASS


def test_redis_access_noauth_a_password_is_asked_for_and_no_more(redis: RedisServer, caplog: Any) -> None:
    caplog.set_level(logging.WARNING, "stillwarm")
    with RawRedis(redis.url) as admin, shared(redis.url) as one:
        one.get("k")
        one.written()
        admin("CONFIG", "SET", "requirepass", SECRET)
        admin("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        admin("CLIENT", "KILL", "TYPE", "pubsub")
        with pytest.raises(ServerError, match="NOAUTH"):
            RawRedis(redis.url)
        down(one, "NOAUTH")
        assert said(caplog, "NOAUTH") == 1
        admin("CONFIG", "SET", "requirepass", "")
        up(one)
    silent_about_secrets(caplog)


def test_redis_access_wrongpass_is_no_storm(redis: RedisServer, caplog: Any) -> None:
    caplog.set_level(logging.WARNING, "stillwarm")
    with RawRedis(redis.url) as admin:
        admin("ACL", "SETUSER", "app", "on", ">another", "~*", "&*", "+@all")
        before = signs_in(redis, admin)
        begun = time.monotonic()
        with shared(redis.url.replace("redis://", f"redis://app:{SECRET}@")) as one:
            down(one, "WRONGPASS")
            calls = 0
            while time.monotonic() - begun < 1.5:
                assert is_of(one.get(f"c{calls}"), f"c{calls}")
                calls += 1
            attempts = signs_in(redis, admin) - before
            elapsed = time.monotonic() - begun
            assert calls > 20 * attempts, "callers do not sign in, each for itself"
            assert attempts <= 8 + 5 * elapsed, f"{attempts} in {elapsed:.1f} s"
            assert SECRET not in repr(one.cache) + str(one.cache.stats())
            assert said(caplog, "WRONGPASS") == 1
            admin("ACL", "SETUSER", "app", f">{SECRET}")
            up(one)
    silent_about_secrets(caplog)


def test_redis_access_a_naive_client_signs_in_for_every_call(redis: RedisServer) -> None:
    with RawRedis(redis.url) as admin:
        before = signs_in(redis, admin)
        for _ in range(20):
            with RawRedis(redis.url) as naive, pytest.raises(ServerError, match="WRONGPASS"):
                naive("AUTH", "app", "wrong")
        assert signs_in(redis, admin) - before == 20


# ------------------------------------------------------------------------------------------------------------- NOPERM


LACKS = {
    "to write": ("-@write", "NOPERM"),
    "to run scripts": ("-evalsha", "NOPERM"),
    "to load scripts": ("-script", "NOPERM"),
    "to read": ("-get", "NOPERM"),
    "to set": ("-set", "NOPERM"),
}


@pytest.mark.parametrize("right", LACKS)
def test_redis_access_noperm(redis: RedisServer, caplog: Any, right: str) -> None:
    caplog.set_level(logging.WARNING, "stillwarm")
    rule, error = LACKS[right]
    redis.command("ACL", "SETUSER", "app", "on", f">{SECRET}", "~*", "&*", "+@all", rule)
    with patient(redis.url.replace("redis://", f"redis://app:{SECRET}@")) as one:
        down(one, error)
        assert said(caplog, "NOPERM") in (1, 2)
        redis.command("ACL", "SETUSER", "app", "+@all")
        up(one)
    silent_about_secrets(caplog)


def test_redis_access_noperm_to_the_keys_of_the_namespace(redis: RedisServer) -> None:
    redis.command("ACL", "SETUSER", "app", "on", f">{SECRET}", "~elsewhere:*", "&*", "+@all")
    with patient(redis.url.replace("redis://", f"redis://app:{SECRET}@")) as one:
        down(one, "NOPERM")
        redis.command("ACL", "SETUSER", "app", "~stillwarm:{default}:*")
        up(one)


@pytest.mark.parametrize("rule", ["-info", "-client", "-publish", "-subscribe", "-client|tracking"])
def test_redis_access_what_it_can_do_without(redis: RedisServer, rule: str) -> None:
    redis.command("ACL", "SETUSER", "app", "on", f">{SECRET}", "~*", "&*", "+@all", rule)
    url = redis.url.replace("redis://", f"redis://app:{SECRET}@")
    with patient(url) as one, patient(url) as other:
        first = one.get("k")
        one.written()
        assert other.get("k") == first
        one.cache.check()
        one.cache.invalidate(key="get:'k'")
        eventually(lambda: other.get("k") != first)
        assert one.cache.stats().remote_errors == 0


# ---------------------------------------------------------------------------------------------------- cluster mode


def test_redis_access_a_node_of_a_cluster(caplog: Any) -> None:
    caplog.set_level(logging.WARNING, "stillwarm")
    with RedisServer(settings={"cluster-enabled": "yes", "databases": "1"}) as node:
        with RawRedis(node.url) as naive, pytest.raises(ServerError, match="CLUSTERDOWN"):
            naive("GET", "k")
        with shared(node.url) as one:
            down(one, r"accepted: redis\+cluster://")
            assert said(caplog, "accepted: redis+cluster://") == 1
        with shared(f"redis+cluster://127.0.0.1:{node.port}") as one:
            down(one, "CLUSTERDOWN")
            node.command("CLUSTER", "ADDSLOTSRANGE", "0", "16383")
            eventually(lambda: "cluster_state:ok" in node.command("CLUSTER", "INFO"))
            up(one)  # a cluster of one
