"""The doctor on Redis: each finding on a server that has what it finds, and none where all is well.

Thread rule: one thread; one server for all, whose settings are put back, and some of a test's own.
Refuses to know: how a terminal shows findings (test_cli_redis).
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from stillwarm import Cache, _doctor_redis
from stillwarm._apps import App
from stillwarm._cli_redis import RedisSite
from stillwarm._doctor import Finding
from stillwarm._redis_server import RedisServer
from stillwarm._servers import ServerError
from stillwarm.errors import TierUnavailable
from tiers import eventually

SECRET = "secretword"
HEALTHY = {"maxmemory": "1gb", "maxmemory-policy": "allkeys-lru"}


@pytest.fixture(scope="module")
def _server() -> Iterator[RedisServer]:
    with RedisServer(settings=HEALTHY) as server:
        yield server


@pytest.fixture
def server(_server: RedisServer) -> Iterator[RedisServer]:
    """As its settings say, and empty."""
    _server.command("FLUSHALL")
    yield _server
    for name, value in {**HEALTHY, "save": ""}.items():
        _server.command("CONFIG", "SET", name, value)
    _server.command("CONFIG", "RESETSTAT")


def examine(url: str, namespace: str = "shop", cache: Any = None) -> list[Finding]:
    at = RedisSite(url, namespace, App(cache))
    try:
        found = at.examine(App(cache))
    finally:
        at.close()
    assert all(one.what and one.advice and SECRET not in one.what + one.advice for one in found)
    return found


def one(found: list[Finding], what: str) -> Finding:
    """The only finding with this text."""
    (only,) = [finding for finding in found if what in finding.what]
    return only


def used(url: str, namespace: str = "shop") -> None:
    """A cache has been there, and its entry stays."""
    with Cache(url, namespace=namespace, ttl=None, timeout="20s", purge_every=None) as cache:
        cache.set("k", 1)
        cache.get("k")


def test_redis_doctor_finds_nothing_where_all_is_well(server: RedisServer) -> None:
    used(server.url)
    assert examine(server.url) == []
    assert examine(f"unix://{server.socket}") == []


def test_redis_doctor_makes_no_namespace(server: RedisServer) -> None:
    (only,) = examine(server.url, "typo")
    assert (only.level, only.what) == ("note", "nothing of the namespace 'typo' is in this database")
    assert server.command("KEYS", "*:m") == []
    used(server.url, "typed")
    assert "there are: typed" in one(examine(server.url, "typo"), "nothing of the namespace").what


# ---------------------------------------------------------------------------------------------------------- memory


@pytest.mark.parametrize(
    ("settings", "level", "what", "advice"),
    [
        ({"maxmemory": "0"}, "note", "no maxmemory is set", "CONFIG SET maxmemory 1gb"),
        ({"maxmemory-policy": "noeviction"}, "note", " % of 1.00G in use: marks are safe", "allkeys-lru"),
        ({"maxmemory-policy": "noeviction", "maxmemory": "1mb"}, "wrong", "marks are safe", "allkeys-lru"),
        ({"maxmemory-policy": "volatile-lru"}, "note", "entries with ttl=None, are never evicted", "a ttl for every"),
        ({"maxmemory-policy": "volatile-ttl"}, "note", "entries with ttl=None, are never evicted", "a ttl for every"),
        ({"maxmemory-policy": "allkeys-random"}, "note", "the marks go as likely as any key", "allkeys-lru"),
    ],
)
def test_redis_doctor_says_what_a_memory_policy_means(
    server: RedisServer, settings: dict[str, str], level: str, what: str, advice: str
) -> None:
    used(server.url)
    for name, value in settings.items():
        server.command("CONFIG", "SET", name, value)
    found = one(examine(server.url), what)
    assert found.level == level
    assert advice in found.advice


def test_redis_doctor_names_a_full_server(server: RedisServer) -> None:
    used(server.url)
    server.command("CONFIG", "SET", "maxmemory-policy", "noeviction")
    server.command("CONFIG", "SET", "maxmemory", "1")
    found = one(examine(server.url), "takes no writes: OOM")
    assert (found.level, "larger maxmemory" in found.advice) == ("wrong", True)


def test_redis_doctor_names_snapshots_and_failed_ones(server: RedisServer) -> None:
    used(server.url)
    server.command("CONFIG", "SET", "save", "3600 1")
    found = one(examine(server.url), "snapshots and no log")
    assert (found.level, "save ''" in found.advice) == ("note", True)
    server.command("CONFIG", "SET", "appendonly", "yes")
    try:
        assert examine(server.url) == []
    finally:
        server.command("CONFIG", "SET", "appendonly", "no")


def test_redis_doctor_names_a_disk_that_failed() -> None:
    with RedisServer(settings={**HEALTHY, "save": "3600 1"}) as server:
        used(server.url)
        (server.folder / "dump.rdb").mkdir()  # a snapshot cannot take a folder's place
        server.command("BGSAVE")
        eventually(lambda: "rdb_last_bgsave_status:err" in server.command("INFO", "persistence"), "it did not fail")
        found = examine(server.url)
        assert one(found, "write to the server's disk failed").level == "wrong"
        assert "MISCONF" in one(found, "takes no writes").what


# ---------------------------------------------------------------------------------------------------- who may what


def user(server: RedisServer, name: str, *rules: str) -> str:
    """A URL of a new user, who is removed with the server."""
    server.command("ACL", "SETUSER", name, "reset", "on", f">{SECRET}", *rules)
    return server.url.replace("redis://", f"redis://{name}:{SECRET}@")


EVERYTHING = ("~*", "&*", "+@all")


@pytest.mark.parametrize(
    ("rules", "level", "what", "advice"),
    [
        (("-info",), "note", "may not run INFO", "+info"),
        (("-client|tracking",), "note", "client tracking is not allowed", "+client|tracking"),
        (("-evalsha",), "wrong", "scripts are not allowed", "+evalsha"),
        (("-script|load",), "wrong", "scripts are not allowed", "+script|load"),
        (("-unlink", "-hincrby"), "wrong", "may not run HINCRBY, UNLINK on", "ACL SETUSER guest on ~stillwarm:*"),
        (("resetkeys", "~shop:*"), "wrong", "takes no writes: NOPERM", "ACL SETUSER guest on ~stillwarm:*"),
        (("resetchannels",), "wrong", "may not run PUBLISH, SUBSCRIBE", "&stillwarm:* &__redis__:invalidate"),
        (("resetchannels", "&stillwarm:*"), "wrong", "may not run SUBSCRIBE __redis__:invalidate", "&__redis__"),
    ],
)
def test_redis_doctor_names_a_right_that_is_missing(
    server: RedisServer, rules: tuple[str, ...], level: str, what: str, advice: str
) -> None:
    used(server.url)
    url = user(server, "guest", *EVERYTHING, *rules)
    found = one(examine(url), what)
    assert found.level == level
    assert advice in found.advice
    assert examine(user(server, "guest", *EVERYTHING)) == []  # the control


def test_redis_doctor_goes_on_for_a_user_who_may_ask_little(server: RedisServer) -> None:
    used(server.url)
    server.command("CONFIG", "SET", "maxmemory", "0")
    url = user(server, "guest", *EVERYTHING, "-info", "-config", "-acl", "-client", "-@dangerous")
    assert {finding.what.partition(":")[0] for finding in examine(url)} == {
        "the user may not run INFO",
        "client tracking is not allowed",
    }
    with Cache(url, namespace="shop", ttl=60, timeout="20s", purge_every=None) as cache:
        cache.check()  # and the tier does without them
        assert cache.get("k") == 1


def test_redis_doctor_s_grant_is_enough(server: RedisServer) -> None:
    used(server.url)
    url = user(server, "guest", "+@all", "-@all")
    rules = one(examine(url), "scripts are not allowed").advice.rpartition("ACL SETUSER guest ")[2].split()
    url = user(server, "guest", *rules)
    assert examine(url) == []
    with Cache(url, namespace="shop", ttl=None, timeout="20s", purge_every=None) as cache:
        cache.check()
        cache.set("k", 2, tags=["t"])
        cache.get("k")
        cache.invalidate(pattern="k*")
        cache.invalidate(all=True)
        cache.purge()
        cache.top()
        assert cache.shared_stats().entries == 0
        tier = cache._tier
        assert tier is not None
        eventually(lambda: tier.core.health()["linked"], "it does not listen")
        assert cache.stats().remote_errors == 0


@pytest.mark.parametrize(
    ("url", "what", "advice"),
    [
        ("redis://:wrong@127.0.0.1:{port}", "WRONGPASS", "ACL LIST"),
        ("redis://127.0.0.1:{port}", "wants a password: NOAUTH", "redis://:password@host"),
        (f"redis://:{SECRET}@127.0.0.1:{{port}}/16", "out of range", "CONFIG GET databases"),
    ],
)
def test_redis_doctor_names_what_the_server_refuses(url: str, what: str, advice: str) -> None:
    with RedisServer(settings={"requirepass": SECRET, "databases": "16"}) as server:
        (found,) = examine(url.format(port=server.port))
        assert found.level == "wrong"
        assert what in found.what
        assert advice in found.advice


def test_redis_doctor_names_a_password_that_nobody_wants(server: RedisServer) -> None:
    (found,) = examine(server.url.replace("redis://", f"redis://:{SECRET}@"))
    assert "has no password, and the URL gives one" in found.what


def test_redis_doctor_says_that_nobody_answers() -> None:
    with RedisServer() as server:
        url = server.url
    with pytest.raises(TierUnavailable, match=r"Redis at 127.0.0.1:\d+: "):
        examine(url)


# ------------------------------------------------------------------------------------------------- what it is


def test_redis_doctor_names_a_replica_with_its_master(server: RedisServer) -> None:
    with RedisServer(settings=HEALTHY) as replica:
        used(replica.url)
        replica.command("REPLICAOF", "127.0.0.1", server.port)
        found = examine(replica.url)
        assert f"its master, 127.0.0.1:{server.port}" in one(found, "is a replica").advice
        assert one(found, "takes no writes: READONLY").level == "wrong"


def test_redis_doctor_names_a_cluster_s_node_that_serves_nothing() -> None:
    with RedisServer(settings={**HEALTHY, "cluster-enabled": "yes"}) as node:
        found = examine(node.url)
        assert [f for f in found if "CLUSTERDOWN" in f.what and f.level == "wrong"], "Valkey refuses another command"
        (number,) = examine(node.url_of(3))
        assert "a cluster, which has database 0 alone" in number.what


@pytest.mark.parametrize(
    ("said", "level", "what"),
    [
        ({"redis_version": "4.0.9"}, "wrong", "the server is Redis 4.0.9"),
        ({"redis_version": "5.0.14"}, "note", "does not track keys"),
        ({"redis_version": "4.0.9", "valkey_version": "9"}, "wrong", "the server is Valkey 9"),
        ({"redis_mode": "sentinel"}, "wrong", "this is a sentinel"),
    ],
)
def test_redis_doctor_reads_what_the_server_is(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch, said: dict[str, str], level: str, what: str
) -> None:
    used(server.url)
    info = _doctor_redis.Asks._info
    own = ("redis_version", "valkey_version")  # says either

    def altered(asks: _doctor_redis.Asks) -> dict[str, str]:
        told = info(asks)
        return {**{name: told[name] for name in told if name not in own or "redis_mode" in said}, **said}

    monkeypatch.setattr(_doctor_redis.Asks, "_info", altered)
    assert one(examine(server.url), what).level == level


def test_redis_doctor_names_another_host_without_tls(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    used(server.url)
    monkeypatch.setattr(_doctor_redis, "unsafe", lambda url: "host cache.example.com is reached without TLS")
    found = one(examine(server.url), "cache.example.com is reached without TLS")
    assert (found.level, "tunnel" in found.advice) == ("wrong", True)


# -------------------------------------------------------------------------------------------------------- the way


def test_redis_doctor_names_a_long_way_and_another_clock(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    used(server.url)
    monkeypatch.setattr(_doctor_redis, "_SLOW", 0.0)
    found = one(examine(server.url), "a round trip takes")
    assert (found.level, "max_bytes" in found.advice) == ("note", True)
    monkeypatch.undo()
    for ahead, word in ((-60, "ahead of"), (60, "behind")):
        clock = SimpleNamespace(time=lambda by=ahead: time.time() + by, perf_counter=time.perf_counter)
        monkeypatch.setattr(_doctor_redis, "time", clock)
        found = one(examine(server.url), f"{word} this machine's")
        assert "clock is 60.0 s" in found.what or "clock is 59.9 s" in found.what
        assert "NTP" in found.advice


# -------------------------------------------------------------------------------------------------------- the keys


def test_redis_doctor_names_a_shared_database_without_a_namespace(server: RedisServer) -> None:
    used(server.url, "default")
    assert examine(server.url, "default") == []
    used(server.url, "other")
    found = one(examine(server.url, "default"), "in a database that others share: other")
    assert (found.level, "STILLWARM_NAMESPACE" in found.advice) == ("wrong", True)
    assert examine(server.url, "other") == []
    server.command("FLUSHALL")
    used(server.url, "default")
    server.command("SET", "session:1", "somebody else's")
    assert 'keys such as "session:1"' in one(examine(server.url, "default"), "that others share").what


def test_redis_doctor_names_entries_and_keys_of_other_layouts(server: RedisServer) -> None:
    used(server.url)
    server.command("SET", "stillwarm:{shop}:e:direct:foreign", "of another program")
    server.command("RPUSH", "stillwarm:{shop}:e:direct:list", "a list")
    found = examine(server.url)
    assert "2 of 3 entries of the namespace are not of this version's layout" in one(found, "layout").what
    server.command("SET", "stillwarm:shop:k", "of an older version")
    assert '"stillwarm:shop:k"' in one(examine(server.url), "keys of another layout").what


def test_redis_doctor_names_what_the_purge_has_left_and_what_nobody_reuses(server: RedisServer) -> None:
    with Cache(server.url, namespace="shop", ttl=None, timeout="20s", purge_every=None) as cache:
        cache.set_many({f"k{i}": i for i in range(120)})
    found = examine(server.url)
    assert "reused 0.0 times" in one(found, "type direct").what
    with Cache(server.url, namespace="shop", ttl=None, timeout="20s", purge_every=None) as cache:
        cache.invalidate(all=True)
    assert one(examine(server.url), "100 % of the entries are invalid by a mark").advice.startswith("stillwarm purge")


def test_redis_doctor_knows_what_only_the_app_knows(server: RedisServer) -> None:
    used(server.url)
    with Cache(ttl=60) as app:
        app.define("quick", ttl=5)
        assert one(examine(server.url, cache=app), "type quick: values are fresh for 5 s").level == "note"


def test_redis_doctor_ends_where_the_connection_does(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    used(server.url)

    def gone(asks: Any) -> list[Finding]:
        raise ServerError("Redis at 127.0.0.1:1: the connection was closed")

    monkeypatch.setattr(_doctor_redis, "_memory", gone)
    found = examine(server.url)
    assert "the connection was closed" in found[0].what
