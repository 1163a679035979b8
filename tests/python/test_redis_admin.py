"""A cache on Redis as its owner looks at it: top, figures, purge, check, alerts.

Thread rule: one thread; servers are private, other caches stand for other processes.
Refuses to know: how entries and marks are kept (cpp/core/remote/redis_scripts.hpp).
"""

from __future__ import annotations

import logging
from typing import Any

import pytest

from stillwarm import Cache, ConfigError, _admin_redis
from stillwarm._redis_server import RedisServer
from stillwarm._servers import PostgresServer
from stillwarm._upkeep import ENOUGH
from stillwarm.errors import TierError
from stillwarm.web import alerts
from tiers import Counted, Ground, eventually, function


def entries(ground: Ground) -> list[str]:
    """The entries that Redis has of the namespace."""
    beginning = f"stillwarm:{{{ground.namespace}}}:e:"
    return sorted(name.removeprefix(beginning) for name in ground.redis("KEYS", "*") if name.startswith(beginning))


def key(ground: Ground, name: str) -> str:
    return f"stillwarm:{{{ground.namespace}}}:{name}"


# ------------------------------------------------------------------------------------------------------------- top


def test_redis_admin_top_is_of_all_processes_and_of_what_is_there(redis_ground: Ground) -> None:
    a = redis_ground.cache(ttl=100)
    b = redis_ground.other(a, ttl=100)
    a.define("odd:%type", ttl=100)
    odd = function(a, Counted(), type="odd:%type", ttl=None)
    for name, times in (("x:1", 1), ("y", 3), ("gone", 4)):
        a.set(name, 1)
        for cache in (a, b):
            for _ in range(times):
                cache.get(name)
    redis_ground.written()
    for _ in range(6):
        odd("z")
    redis_ground.written()
    assert b.top(2) != []
    a.delete("gone")
    for cache in (a, b):
        cache._flush_hits()
    assert [(hot.type, hot.key, hot.hits) for hot in b.top(10)] == [
        ("direct", "y", 6),
        ("odd:%type", "f:'z'", 5),
        ("direct", "x:1", 2),
    ]
    assert [hot.key for hot in b.top(1)] == ["y"]
    assert redis_ground.redis("ZSCORE", key(redis_ground, "h"), "direct:gone") is not None  # what top left out


def test_redis_admin_top_reads_on_where_entries_are_gone(redis_ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_admin_redis, "_SEVERAL", 2)
    cache = redis_ground.cache(ttl=100)
    cache.set("there", 1)
    redis_ground.written()
    hits = [word for i in range(7) for word in (100 + i, f"direct:gone{i}")]
    redis_ground.redis("ZADD", key(redis_ground, "h"), *hits, 3, "direct:there")
    assert [(hot.key, hot.hits) for hot in cache.top(1)] == [("there", 3)]


def test_redis_admin_top_is_memory_s_while_redis_is_away() -> None:
    with RedisServer() as server, Cache(server.url, ttl=100, purge_every=None) as cache:
        cache.set("k", 1)
        cache.get("k")
        server.kill()
        assert [hot.key for hot in cache.top(3)] == ["k"]
        assert cache.top(3)[0].bytes > 0  # which the tier does not tell


# --------------------------------------------------------------------------------------------------------- figures


def test_redis_admin_figures_count_entries_hits_and_bytes_by_type(redis_ground: Ground) -> None:
    cache = redis_ground.cache(ttl=100, compress_above=0)
    cache.define("report", ttl=None)
    cache.define("unused", ttl=1)
    f = function(cache, lambda key: "x" * 500, type="report", ttl=None)
    cache.set("k", 1)
    for _ in range(3):
        f(1), f(2), cache.get("k")
    redis_ground.written()
    redis_ground.redis("SET", key(redis_ground, "e:report:foreign"), "written by another program")
    redis_ground.redis("SET", "stillwarm:{another}:e:report:k", "of another namespace")
    redis_ground.redis("SET", key(redis_ground, "e:#dictionary:report"), "no app's value")
    figures = cache.shared_stats()
    report, direct = figures.types["report"], figures.types["direct"]
    assert (report.entries, report.hits, report.expired, report.table) == (3, 4, 0, None)
    assert report.average_hits == pytest.approx(4 / 3)
    assert 1000 < report.bytes < 1600
    assert (direct.entries, direct.hits) == (1, 3)
    assert figures.types["unused"].entries == 0
    assert set(figures.types) == {"report", "direct", "unused"}
    assert figures.entries == 4
    assert figures.shared_table_bytes == report.bytes + direct.bytes
    cache.invalidate(type="report")
    assert cache.shared_stats().types["report"].expired == 2  # of the foreign one nobody knows


def test_redis_admin_figures_walk_further_than_one_step(redis_ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_admin_redis, "STEP", 10)
    cache = redis_ground.cache(ttl=100)
    cache.set_many({f"k{i}": i for i in range(700)})
    redis_ground.written()
    asked: list[str] = []
    query = _admin_redis._asked
    monkeypatch.setattr(
        _admin_redis, "_asked", lambda tier, text, words: asked.append(text) or query(tier, text, words)
    )
    assert cache.shared_stats().entries == 700
    assert asked.count("survey") > 20


async def test_redis_admin_asks_in_coroutines(redis_ground: Ground) -> None:
    cache = redis_ground.cache(ttl=100)
    await cache.aset("k", 1)
    await cache.aget("k")
    redis_ground.written()
    assert [hot.key for hot in await cache.atop()] == ["k"]
    assert (await cache.ashared_stats()).entries == 1
    await cache.ainvalidate(all=True)
    assert await cache.apurge() == {"direct": 1}
    await cache.acheck()


# ----------------------------------------------------------------------------------------------------------- purge


def fill(ground: Ground) -> Cache:
    """One entry for each way to become invalid, and one that stays."""
    cache = ground.cache(ttl=None)
    cache.define("report", ttl=None)
    f = function(cache, lambda key: key, type="report", ttl=None, tags=["t"])
    f("dead by type")
    cache.set("tagged", 1, tags=["old"])
    ground.written()
    cache.invalidate(type="report")
    f("stays by type")
    cache.set("tagged and stays", 1, tags=["young"])
    cache.set("stays", 1)
    cache.set("stale", 1, tags=["soft"])
    ground.written()
    cache.invalidate(tag="old")
    cache.invalidate(tag="soft", stale=True)
    ground.redis(
        "SET", key(ground, "e:direct:foreign"), "1 is what another program wrote here, and it is long enough for a head"
    )
    ground.redis("RPUSH", key(ground, "e:direct:list"), "not even a text")
    return cache


def test_redis_admin_purge_unlinks_what_marks_made_invalid(redis_ground: Ground) -> None:
    cache = fill(redis_ground)
    before = entries(redis_ground)
    assert {"report:f:'dead by type'", "direct:tagged"} < set(before)  # the control: nothing else removes them
    steps: list[tuple[int, int]] = []
    assert cache.purge(lambda done, of: steps.append((done, of))) == {"report": 1, "direct": 1}
    assert set(before) - set(entries(redis_ground)) == {"report:f:'dead by type'", "direct:tagged"}
    other = redis_ground.cache(ttl=None)
    assert other.get_many(["stays", "tagged and stays"]) == {"stays": 1, "tagged and stays": 1}
    size = redis_ground.redis("DBSIZE")
    assert steps[-1][0] == steps[-1][1] >= size
    assert steps == sorted(steps)
    assert cache.purge() == {"report": 0}
    assert redis_ground.redis("EXISTS", key(redis_ground, "u")) == 0


def test_redis_admin_purge_drops_what_is_of_a_lost_incarnation(redis_ground: Ground) -> None:
    cache = redis_ground.cache(ttl=None)
    cache.set("k", 1)
    redis_ground.written()
    redis_ground.redis("DEL", key(redis_ground, "m"))  # evicted
    cache.set("young", 1)
    redis_ground.written()
    assert cache.purge() == {"direct": 1}
    assert entries(redis_ground) == ["direct:young"]


def test_redis_admin_purge_forgets_the_hits_of_what_is_gone(redis_ground: Ground) -> None:
    cache = redis_ground.cache(ttl=100)
    for name in ("a", "b"):
        cache.set(name, 1)
        cache.get(name)
    redis_ground.written()
    cache._flush_hits()
    cache.delete("a")
    assert redis_ground.redis("ZCARD", key(redis_ground, "h")) == 2
    cache.purge()
    assert redis_ground.redis("ZRANGE", key(redis_ground, "h"), 0, -1) == ["direct:b"]


def test_redis_admin_purge_goes_by_steps_and_one_at_a_time(redis_ground: Ground) -> None:
    cache = redis_ground.cache(ttl=None)
    cache.set_many({f"k{i}": i for i in range(300)})
    redis_ground.written()
    cache.invalidate(all=True)
    other = redis_ground.other(cache)
    steps: list[int] = []

    def progress(done: int, _: int) -> None:
        steps.append(done)
        if len(steps) == 1:
            assert other.purge() == {}  # somebody is at it
            assert 0 < len(entries(redis_ground)) < 300

    assert cache.purge(progress, batch=10) == {"direct": 300}
    assert len(steps) > 5
    assert entries(redis_ground) == []


def test_redis_admin_purge_that_broke_off_lets_the_next_one_in(redis_ground: Ground) -> None:
    cache = redis_ground.cache(ttl=None)
    cache.set_many({f"k{i}": i for i in range(50)})
    redis_ground.written()
    cache.invalidate(all=True)

    def breaks(*_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache.purge(breaks, batch=10)
    left = len(entries(redis_ground))
    assert 0 < left < 50
    assert cache.purge() == {"direct": left}
    assert entries(redis_ground) == []


@pytest.mark.parametrize("batch", [0, -1, 100_001, True, "1"])
def test_redis_admin_purge_refuses_a_batch(redis_ground: Ground, batch: Any) -> None:
    with pytest.raises(ConfigError, match=r"batch=.*accepted: 1 to 100000"):
        redis_ground.cache().purge(batch=batch)


def test_redis_admin_upkeep_purges_and_says_nothing(redis_ground: Ground, caplog: pytest.LogCaptureFixture) -> None:
    cache = redis_ground.cache(ttl=None, purge_every="1s")
    for i in range(ENOUGH + 1):  # a tier that has served so many is described to PostgreSQL's planner
        cache.set("k", i)
    redis_ground.written()
    cache.invalidate(all=True)
    assert entries(redis_ground) == ["direct:k"]
    eventually(lambda: entries(redis_ground) == [], "nobody purges")
    assert cache._upkeep is not None
    cache._upkeep.tick()
    assert [one.getMessage() for one in caplog.records if one.levelno >= logging.WARNING] == []


# ----------------------------------------------------------------------------------------------------------- check


def test_redis_admin_check_names_what_is_wrong() -> None:
    with RedisServer() as server, Cache(server.url, ttl=60, timeout="20s", purge_every=None) as cache:
        cache.check()
        assert server.command("KEYS", "*:x:check:*") == []
        server.command("CONFIG", "SET", "maxmemory", "1")
        with pytest.raises(TierError, match="OOM"):
            cache.check()
        server.command("CONFIG", "SET", "maxmemory", "0")
        cache.check()
        server.command("ACL", "SETUSER", "default", "-evalsha")
        with pytest.raises(TierError, match=r"NOPERM.*evalsha"):
            cache.check()
        server.command("ACL", "SETUSER", "default", "+evalsha")
        server.command("REPLICAOF", "127.0.0.1", "1")
        with pytest.raises(TierError, match="READONLY"):
            cache.check()
        server.command("REPLICAOF", "NO", "ONE")
        eventually(lambda: passes(cache), "it does not get well")
        server.kill()
        for _ in range(12):  # until the circuit is open, which is not what is wrong
            with pytest.raises(TierError) as caught:
                cache.check()
        assert "circuit" not in str(caught.value)


def passes(cache: Cache) -> bool:
    try:
        cache.check()
    except TierError:
        return False
    return True


# ------------------------------------------------------------------------------------------------ what operators see


def test_redis_admin_alerts_read_the_figures_of_redis(redis_ground: Ground) -> None:
    cache = redis_ground.cache(ttl=None)
    watched = alerts.watch(cache, {"entries": 3, "reuse": None, "min_entries": 2})
    cache.set_many({f"k{i}": i for i in range(4)})
    redis_ground.written()
    assert {one.name: one.value for one in watched.look(cache)}["entries"] == 4
    assert [one.name for one in watched.all() if one.active] == ["entries"]


def test_redis_admin_figures_name_the_tier(redis_ground: Ground, warm_postgres: PostgresServer) -> None:
    assert redis_ground.cache().stats().tier["name"] == "Redis"
    with Cache(warm_postgres.url) as cache:
        assert cache.stats().tier["name"] == "PostgreSQL"
    with Cache() as cache:
        assert not cache.stats().tier
