"""A cache on a cluster as its owner looks at it: top, figures, purge, the commands, the doctor. As on one server.

Thread rule: one thread; other caches stand for other processes, commands run in processes of their own.
Refuses to know: one server (test_redis_admin, test_redis_doctor), and how entries are judged.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from stillwarm import Cache, _admin_redis
from stillwarm._apps import App
from stillwarm._cli_redis import RedisSite
from stillwarm._doctor import Finding
from stillwarm._redis_clusters import RedisCluster
from stillwarm._redis_server import RedisServer
from stillwarm.errors import TierError, TierUnavailable
from stillwarm.web import alerts
from test_cli_remote import SECRET, run
from tiers import ClusterGround, Counted, eventually, function

pytestmark = pytest.mark.servers
HEALTHY = {"maxmemory": "1gb", "maxmemory-policy": "allkeys-lru"}


@pytest.fixture
def ground(shared_cluster: RedisCluster) -> Iterator[ClusterGround]:
    ground = ClusterGround(shared_cluster)
    try:
        yield ground
    finally:
        ground.close()


@pytest.fixture(scope="module")
def own() -> Iterator[RedisCluster]:
    """One to be hurt."""
    with RedisCluster(settings=HEALTHY) as cluster:
        yield cluster


def entries(ground: ClusterGround) -> list[str]:
    """TYPE:KEY of what the masters have of the namespace."""
    names = [name for names in ground.redis("KEYS", ground.entries) for name in names]
    return sorted(name.partition("}:e:")[2] for name in names)


# ------------------------------------------------------------------------------------------------------------- top


def test_redis_cluster_admin_top_is_of_all_processes_and_of_what_is_there(ground: ClusterGround) -> None:
    a = ground.cache(ttl=100)
    b = ground.other(a, ttl=100)
    a.define("odd:%type", ttl=100)
    odd = function(a, Counted(), type="odd:%type", ttl=None)
    names = {f"x:{n}": n for n in range(1, 30)}
    for name, times in {**names, "gone": 40}.items():
        a.set(name, 1)
        for cache in (a, b):
            for _ in range(times):
                cache.get(name)
    ground.written()
    for _ in range(6):
        odd("z")
    ground.written()
    assert b.top(2) != []
    a.delete("gone")
    for cache in (a, b):
        cache._flush_hits()
    told = [(hot.type, hot.key, hot.hits) for hot in b.top(40)]
    assert told[:2] == [("direct", "x:29", 58), ("direct", "x:28", 56)]
    assert ("odd:%type", "f:'z'", 5) in told
    assert len(told) == 30
    assert [hits for _, _, hits in told] == sorted((hits for _, _, hits in told), reverse=True)
    assert [hot.key for hot in b.top(1)] == ["x:29"]


def test_redis_cluster_admin_top_reads_on_where_entries_are_gone(
    ground: ClusterGround, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_admin_redis, "_SEVERAL", 2)
    cache = ground.cache(ttl=100)
    for n in range(20):
        cache.set(f"k{n}", n)
        for _ in range(n + 1):
            cache.get(f"k{n}")
    cache._flush_hits()
    for n in range(10, 20):
        cache.delete(f"k{n}")
    assert [(hot.key, hot.hits) for hot in cache.top(2)] == [("k9", 10), ("k8", 9)]


# --------------------------------------------------------------------------------------------------------- figures


def test_redis_cluster_admin_figures_count_entries_hits_and_bytes_by_type(ground: ClusterGround) -> None:
    cache = ground.cache(ttl=100, compress_above=0)
    cache.define("report", ttl=None)
    cache.define("unused", ttl=1)
    f = function(cache, lambda key: "x" * 500, type="report", ttl=None)
    for n in range(40):
        cache.set(f"k{n}", 1)
    for _ in range(3):
        f(1), f(2), cache.get("k1")
    ground.written()
    figures = cache.shared_stats()
    report, direct = figures.types["report"], figures.types["direct"]
    assert (report.entries, report.hits, report.expired, report.table) == (2, 4, 0, None)
    assert 1000 < report.bytes < 1600
    assert (direct.entries, direct.hits) == (40, 3)
    assert set(figures.types) == {"report", "direct", "unused"}
    assert figures.shared_table_bytes == report.bytes + direct.bytes
    cache.invalidate(type="report")
    assert cache.shared_stats().types["report"].expired == 2


def test_redis_cluster_admin_figures_walk_every_master_in_steps(
    ground: ClusterGround, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_admin_redis, "STEP", 10)
    cache = ground.cache(ttl=100)
    cache.set_many({f"k{i}": i for i in range(700)})
    ground.written()
    asked: list[str] = []
    query = _admin_redis._asked
    monkeypatch.setattr(
        _admin_redis, "_asked", lambda tier, text, words: asked.append(words[1]) or query(tier, text, words)
        if text == "survey"
        else query(tier, text, words),
    )  # fmt: skip
    assert cache.shared_stats().entries == 700
    assert len(asked) > 20
    assert {cursor.split()[2] for cursor in asked[1:]} == {str(master.port) for master in ground.cluster.masters}


def test_redis_cluster_admin_figures_end_where_a_slot_moves_meanwhile(
    own: RedisCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Entries may have passed the walk by; the control is a walk in which nothing moves."""
    monkeypatch.setattr(_admin_redis, "STEP", 10)
    with Cache(own.url, namespace="moves", purge_every=None, timeout="20s") as cache:
        assert cache.set_many({f"k{i}": i for i in range(300)}, ttl=100) == []
        assert cache.shared_stats().entries == 300
        query, steps = _admin_redis._asked, 0

        def asked(tier: Any, text: str, words: Any) -> Any:
            nonlocal steps
            steps += text == "survey"
            if steps == 3:
                steps += 1
                slot = own.slot_of("stillwarm:{moves.0}:m")
                source = own.owner(slot)
                own.move(slot, next(master for master in own.masters if master is not source))
                cache.invalidate(all=True)  # which finds out
            return query(tier, text, words)

        monkeypatch.setattr(_admin_redis, "_asked", asked)
        with pytest.raises(TierUnavailable, match="moved meanwhile"):
            cache.shared_stats()
        assert cache.shared_stats().types["direct"].entries > 0


# ----------------------------------------------------------------------------------------------------------- purge


def test_redis_cluster_admin_purge_unlinks_what_marks_made_invalid(ground: ClusterGround) -> None:
    cache = ground.cache(ttl=None)
    cache.define("report", ttl=None)
    f = function(cache, lambda key: key, type="report", ttl=None)
    for n in range(20):
        f(n)
        cache.set(f"old{n}", n, tags=["old"])
        cache.get(f"old{n}")
    ground.written()
    cache.invalidate(type="report")
    cache.invalidate(tag="old")
    for n in range(20):
        cache.set(f"stays{n}", n, tags=["young"])
        cache.get(f"stays{n}")
    cache._flush_hits()
    assert len(entries(ground)) == 60  # the control: nothing else removes them
    steps: list[tuple[int, int]] = []
    assert cache.purge(lambda done, of: steps.append((done, of))) == {"report": 20, "direct": 20}
    assert entries(ground) == sorted(f"direct:stays{n}" for n in range(20))
    assert steps[-1][0] == steps[-1][1] >= 20
    assert steps == sorted(steps)
    hits = [
        name
        for master in ground.cluster.masters
        for of_bucket in master.command("KEYS", f"stillwarm:{{{ground.namespace}.*}}:h")
        for name in master.command("ZRANGE", of_bucket, 0, -1)
    ]
    assert sorted(hits) == sorted(f"direct:stays{n}" for n in range(20)), "those of what is gone are forgotten"
    other = ground.other(cache, ttl=None)
    assert other.get_many([f"stays{n}" for n in range(20)]) == {f"stays{n}": n for n in range(20)}
    assert cache.purge() == {"report": 0}


def test_redis_cluster_admin_purge_goes_by_steps_and_one_at_a_time(ground: ClusterGround) -> None:
    cache = ground.cache(ttl=None)
    cache.set_many({f"k{i}": i for i in range(300)})
    ground.written()
    cache.invalidate(all=True)
    other = ground.other(cache)
    steps: list[int] = []
    left: list[int] = []

    def progress(done: int, _: int) -> None:
        steps.append(done)
        if len(steps) == 1:
            assert other.purge() == {}  # somebody is at it
        if len(steps) % 8 == 0:  # a step looks at other namespaces' keys, too
            left.append(len(entries(ground)))

    assert cache.purge(progress, batch=10) == {"direct": 300}
    assert len(steps) > 5
    assert any(0 < some < 300 for some in left)
    assert entries(ground) == []


def test_redis_cluster_admin_upkeep_purges_and_says_nothing(
    ground: ClusterGround, caplog: pytest.LogCaptureFixture
) -> None:
    cache = ground.cache(ttl=None, purge_every="1s")
    cache.set_many({f"k{i}": i for i in range(30)})
    ground.written()
    cache.invalidate(all=True)
    assert len(entries(ground)) == 30
    eventually(lambda: entries(ground) == [], "nobody purges")
    assert [one.getMessage() for one in caplog.records if one.levelno >= logging.WARNING] == []


async def test_redis_cluster_admin_asks_in_coroutines_and_for_alerts(ground: ClusterGround) -> None:
    cache = ground.cache(ttl=None)
    watched = alerts.watch(cache, {"entries": 3, "reuse": None, "min_entries": 2})
    await cache.aset_many({f"k{i}": i for i in range(4)})
    await cache.aget("k1")
    ground.written()
    assert [hot.key for hot in await cache.atop()] == ["k1"]
    assert (await cache.ashared_stats()).entries == 4
    assert {one.name: one.value for one in watched.look(cache)}["entries"] == 4
    await cache.ainvalidate(all=True)
    assert await cache.apurge() == {"direct": 4}
    await cache.acheck()


# -------------------------------------------------------------------------------------------------------- commands


def test_redis_cluster_admin_commands(own: RedisCluster) -> None:
    at = ("--url", own.url, "--namespace", "commands")
    with Cache(own.url, namespace="commands", ttl=None, timeout="20s", purge_every=None) as cache:
        cache.define("report", ttl=None)
        report = cache.cached("report", name="report")(lambda day: day)
        report("monday")
        cache.set("k1", 1)
        cache.set("k2", 2, tags=["even"])
        for _ in range(3):
            cache.get("k1"), report("monday")
    figures = {row["type"]: row for row in json.loads(run("stats", *at, "--json").stdout)["types"]}
    assert (figures["direct"]["entries"], figures["direct"]["hits"], figures["direct"]["table"]) == (2, 3, None)
    assert [row["key"] for row in json.loads(run("top", *at, "--json").stdout)] == ["k1", "report:'monday'"]
    assert run("invalidate", "--tag", "even", *at).stdout == "invalidated\n"
    assert json.loads(run("purge", *at, "--json").stdout) == {"direct": 1}
    done = run("doctor", *at)
    assert (done.returncode, done.stdout, done.stderr) == (0, "nothing found\n", "")
    typo = ("--url", own.url, "--namespace", "typo")
    assert json.loads(run("stats", *typo, "--json").stdout)["types"] == []
    assert json.loads(run("top", *typo, "--json").stdout) == []
    assert "there are: commands" in run("doctor", *typo).stdout
    assert [name for names in own.everywhere("KEYS", "stillwarm:{typo*") for name in names] == []


def test_redis_cluster_admin_commands_without_a_cluster_are_one_line() -> None:
    url = f"redis+cluster://:{SECRET}@127.0.0.1:1,127.0.0.1:2"
    for command in ("stats", "top", "doctor"):
        done = run(command, "--url", url)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
        assert "refused" in done.stderr
        assert SECRET not in done.stderr


# ---------------------------------------------------------------------------------------------------------- doctor


def examine(url: str, namespace: str = "shop", cache: Any = None) -> list[Finding]:
    at = RedisSite(url, namespace, App(cache))
    try:
        found = at.examine(App(cache))
    finally:
        at.close()
    assert all(one.what and one.advice and SECRET not in one.what + one.advice for one in found)
    return found


def one(found: list[Finding], what: str) -> Finding:
    (only,) = [finding for finding in found if what in finding.what]
    return only


def used(url: str, namespace: str = "shop") -> None:
    with Cache(url, namespace=namespace, ttl=None, timeout="20s", purge_every=None) as cache:
        cache.set_many({f"k{n}": n for n in range(50)})
        cache.get("k1")


def test_redis_cluster_doctor_finds_nothing_where_all_is_well(own: RedisCluster) -> None:
    used(own.url)
    assert examine(own.url) == []
    (only,) = examine(own.url, "nobody")
    assert (only.level, "nothing of the namespace 'nobody'" in only.what) == ("note", True)
    with Cache(own.url, namespace="shop", ttl=None, timeout="20s", purge_every=None) as cache:
        cache.invalidate(all=True)
    assert "100 % of the entries are invalid" in one(examine(own.url), "invalid by a mark").what


def test_redis_cluster_doctor_names_the_master_that_is_not_as_the_others(own: RedisCluster) -> None:
    used(own.url)
    odd = own.masters[1]
    odd.command("CONFIG", "SET", "maxmemory", "0")
    try:
        assert one(examine(own.url), "no maxmemory is set").what.endswith(f"(on 127.0.0.1:{odd.port})")
        own.everywhere("CONFIG", "SET", "maxmemory", "0")
        assert "(on" not in one(examine(own.url), "no maxmemory is set").what
    finally:
        own.everywhere("CONFIG", "SET", "maxmemory", "1gb")
    for node in own.nodes:
        node.command("ACL", "SETUSER", "guest", "reset", "on", f">{SECRET}", "~*", "&*", "+@all", "-client|tracking")
    url = own.url.replace("redis+cluster://", f"redis+cluster://guest:{SECRET}@")
    assert one(examine(url), "client tracking is not allowed").level == "note"
    odd.command("ACL", "SETUSER", "guest", "-evalsha")
    assert one(examine(url), "scripts are not allowed").what.endswith(f"(on 127.0.0.1:{odd.port})")
    for node in own.nodes:
        node.command("ACL", "SETUSER", "guest", "-cluster|slots")
    assert "+cluster|slots" in one(examine(url), "may not ask for the slots").advice


def test_redis_cluster_doctor_names_what_is_no_cluster_and_who_is_silent(
    own: RedisCluster, warm_redis: RedisServer
) -> None:
    found = examine(f"redis+cluster://127.0.0.1:{warm_redis.port}")
    assert one(found, "no node of a cluster").level == "wrong"
    used(own.url)
    (only,) = examine(f"redis+cluster://127.0.0.1:1,127.0.0.1:{own.nodes[0].port}")
    assert (only.level, "127.0.0.1:1 of the URL does not answer" in only.what) == ("note", True)
    with pytest.raises(TierUnavailable):
        examine("redis+cluster://127.0.0.1:1")


def test_redis_cluster_doctor_names_masters_that_are_gone() -> None:
    with RedisCluster(replicas=0, settings={**HEALTHY, "cluster-require-full-coverage": "no"}) as cluster:
        used(cluster.url)
        assert one(examine(cluster.url), "no replica stands by").level == "note"
        gone = cluster.masters[2]
        gone.kill()
        port = str(gone.port)
        eventually(lambda: any(f"master 127.0.0.1:{port} is gone" in f.what for f in examine(cluster.url)))
        found = examine(cluster.url)
        assert one(found, f"master 127.0.0.1:{port} is gone").level == "wrong"
        assert one(found, "a master does not answer").what.endswith(f"(on 127.0.0.1:{port})")
        with Cache(cluster.url, namespace="shop", timeout="5s", purge_every=None) as cache:
            with pytest.raises(TierError):
                cache.shared_stats()
            cache.set("k", 1, ttl=100)
            cache.get("k")
            assert [hot.key for hot in cache.top(1)] == ["k"], "memory's"
