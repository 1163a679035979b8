"""One master of a cluster is away and nobody takes its place: the keys of the others go on as if nothing had happened.

Thread rule: one thread with a Load's; each test has a cluster of its own.
Refuses to know: failovers (test_redis_cluster); all of a tier away (test_redis_degraded).
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from failovers import naive
from outages import eventually, forget
from stillwarm import Cache, State
from stillwarm._ask_redis import ask_redis
from stillwarm._redis_clusters import RedisCluster
from stillwarm._redis_server import RedisServer

pytestmark = pytest.mark.servers
KEYS = [f"k{n}" for n in range(60)]
OPTIONS: dict[str, Any] = {"ttl": 600, "jitter": 0.0, "purge_every": None, "max_lag": "500ms"}
_numbers = itertools.count()


@pytest.fixture
def cluster() -> Iterator[RedisCluster]:
    """Three masters and no replica: what is gone is gone. The others serve what they have."""
    with RedisCluster(replicas=0, settings={"cluster-require-full-coverage": "no"}) as one:
        yield one


class App:
    """A cache whose loader counts and makes values that carry their key."""

    def __init__(self, url: str, **options: Any) -> None:
        self.cache = Cache(url, namespace="app", **{**OPTIONS, **options})
        self.loads: dict[str, int] = {}
        self.f: Any = self.cache.cached(name="f")(self._load)

    def _load(self, key: str) -> str:
        self.loads[key] = self.loads.get(key, 0) + 1
        return f"{key}#{next(_numbers)}"

    @property
    def health(self) -> dict[str, Any]:
        assert self.cache._tier is not None
        return dict(self.cache._tier.core.health())

    def drained(self) -> None:
        assert self.cache._tier is not None
        assert self.cache._tier.core.drain(30_000_000_000)

    def __enter__(self) -> App:
        return self

    def __exit__(self, *_: object) -> None:
        self.cache.close()


def parted(cluster: RedisCluster, gone: RedisServer) -> tuple[list[str], list[str]]:
    """Keys of f on other masters, and on this one."""
    mine = {name.rpartition(":'")[2].rstrip("'") for name in gone.command("KEYS", "stillwarm:{app.*}:e:*")}
    return [key for key in KEYS if key not in mine], [key for key in KEYS if key in mine]


def hurt(node: RedisServer, way: str) -> None:
    getattr(node, way)()
    assert "Redis at" in naive(lambda: ask_redis(("127.0.0.1", node.port), [("PING",)], timeout=0.2))


def warm(cluster: RedisCluster, *apps: App) -> None:
    for app in apps:
        for key in KEYS:
            app.f(key)
        app.drained()
        eventually(lambda app=app: app.health["linked"] and app.health["polls"] > 0 and app.cache.confirm())  # type: ignore[misc]


@pytest.mark.parametrize("way", ["kill", "freeze"])
def test_redis_cluster_degraded_keys_of_the_other_masters_hit(cluster: RedisCluster, way: str) -> None:
    with App(cluster.url) as app:
        warm(cluster, app)
        gone = cluster.masters[1]
        others, mine = parted(cluster, gone)
        assert len(mine) > 5
        assert len(others) > 20
        before = {key: app.f(key) for key in KEYS}

        def before_of(keys: list[str]) -> dict[str, str]:
            return {key: before[key] for key in keys}

        loads = dict(app.loads)
        assert app.cache.state is State.HEALTHY
        hurt(gone, way)
        begun = time.monotonic()
        eventually(lambda: [app.f(key) for key in KEYS] and app.health["parts_away"] == 1)
        noticed = time.monotonic() - begun
        assert app.cache.state is State.DEGRADED
        assert app.health["circuit"] == "closed"
        meanwhile = {key: app.loads[key] - loads[key] for key in others}
        loads = dict(app.loads)
        polls = app.health["polls"]  # max_lag is two of them
        eventually(lambda: {key: app.f(key) for key in others} == before_of(others) and app.health["polls"] > polls + 5)
        assert {key: app.loads[key] - loads[key] for key in others} == dict.fromkeys(others, 0), "memory"
        forget(app.cache)
        assert {key: app.f(key) for key in others} == before_of(others)
        assert {key: app.loads[key] - loads[key] for key in others} == dict.fromkeys(others, 0), "the tier"
        assert all(app.f(key).startswith(f"{key}#") for key in mine), "loaded, and no exception"
        print(
            f"{way}: noticed within {noticed:.2f} s; loads of other masters' keys meanwhile: {sum(meanwhile.values())}"
        )
        assert sum(meanwhile.values()) == 0
        gone.thaw()
        gone.start()
        eventually(lambda: app.f("k1") and app.health["parts_away"] == 0)
        app.drained()
        eventually(lambda: app.f("k1") and app.cache.confirm() and app.health["linked"])
        eventually(lambda: app.health["owed_writes"] == 0)
        forget(app.cache)
        loads = dict(app.loads)
        for key in KEYS:
            app.f(key)
        app.drained()
        forget(app.cache)
        loads = dict(app.loads)
        for key in KEYS:
            app.f(key)
        assert app.loads == loads, "all masters have their keys again"


def test_redis_cluster_degraded_naive_control_has_errors(cluster: RedisCluster) -> None:
    """A client that asks the masters and does not expect one to be away: every third key is an exception, or a wait."""
    gone = cluster.masters[1]
    owner = {key: cluster.owner(cluster.slot_of(key)) for key in KEYS}
    for key, master in owner.items():
        master.command("SET", key, key)
    gone.kill()
    failed = 0
    for key, master in owner.items():
        try:
            assert ask_redis(("127.0.0.1", master.port), [("GET", key)], timeout=0.2) == [key]
        except Exception:  # noqa: PERF203
            failed += 1
    assert failed == sum(master is gone for master in owner.values()) > 5


def test_redis_cluster_degraded_changes_on_the_other_masters_are_heard(cluster: RedisCluster) -> None:
    """Trust has parts: what another process invalidates is never served after max_lag, whichever master is away."""
    with App(cluster.url) as app, App(cluster.url) as other:
        warm(cluster, app, other)
        gone = cluster.masters[2]
        others, _ = parted(cluster, gone)
        hurt(gone, "freeze")
        try:
            eventually(lambda: [app.f(key) for key in KEYS] and app.health["parts_away"] == 1)
            eventually(lambda: [other.f(key) for key in KEYS] and other.health["parts_away"] == 1)
            for key in others[:10]:
                before = app.f(key)
                other.f.cache_invalidate(key)
                assert other.f(key) != before, "exact where it was called"
                eventually(lambda key=key, before=before: app.f(key) != before)  # type: ignore[misc]
            slots = {key: cluster.slot_of(name) for master in cluster.masters if master is not gone
                     for name in master.command("KEYS", "stillwarm:{app.*}:e:*")
                     for key in [name.rpartition(":'")[2].rstrip("'")]}  # fmt: skip
            key = others[20]
            before = app.f(key)
            (entry,) = [name for master in cluster.masters if master is not gone
                        for name in master.command("KEYS", f"stillwarm:{{app.*}}:e:default:f:'{key}'")]  # fmt: skip
            assert slots[key] == cluster.slot_of(entry)
            cluster.owner(cluster.slot_of(entry)).command("DEL", entry)
            eventually(lambda: app.f(key) != before, what="a foreign writer's")
        finally:
            gone.thaw()


@pytest.mark.parametrize("way", ["kill", "freeze"])
def test_redis_cluster_degraded_under_load(cluster: RedisCluster, way: str) -> None:
    """Callers on threads: no exception, no wrong value, no caller waits for longer than a time-out or two."""
    with App(cluster.url) as app:
        truth = dict.fromkeys(KEYS, 1)
        told = dict(truth)
        read: Any = app.cache.cached(name="truth")(lambda key: truth[key])
        errors: list[str] = []
        wrong = calls = 0
        longest = 0.0
        stop = threading.Event()
        lock = threading.Lock()

        def reads(first: int) -> None:
            nonlocal wrong, calls, longest
            n = first
            while not stop.wait(0.001):
                n += 1
                key = KEYS[n % len(KEYS)]
                least = told[key]
                begun = time.monotonic()
                try:
                    value = read(key)
                except Exception as error:
                    errors.append(repr(error))
                    continue
                with lock:
                    wrong += value < least
                    calls += 1
                    longest = max(longest, time.monotonic() - begun)

        def writes() -> None:
            n = 0
            while not stop.wait(0.005):
                n += 1
                key = KEYS[n * 7 % len(KEYS)]
                truth[key] = value = truth[key] + 1
                try:
                    read.cache_invalidate(key)
                except Exception as error:
                    errors.append(repr(error))
                told[key] = value

        threads = [threading.Thread(target=reads, args=(7 * i,)) for i in range(3)]
        threads.append(threading.Thread(target=writes))
        for thread in threads:
            thread.start()
        try:
            eventually(lambda: calls > 200)
            gone = cluster.masters[0]
            hurt(gone, way)
            eventually(lambda: app.health["parts_away"] == 1)
            seen = calls
            eventually(lambda: calls > seen + 500)
            assert app.cache.state is State.DEGRADED
            gone.thaw()
            gone.start()
            eventually(lambda: app.health["parts_away"] == 0)
        finally:
            stop.set()
            for thread in threads:
                thread.join(30)
        assert not any(thread.is_alive() for thread in threads)
        print(f"{way}: {calls} calls, {wrong} wrong, {len(errors)} exceptions, longest {longest:.2f} s")
        assert (wrong, errors) == (0, [])
        app.drained()
        forget(app.cache)
        assert {key: read(key) for key in KEYS} == truth


def test_redis_cluster_degraded_is_down_when_all_are_away(cluster: RedisCluster) -> None:
    with App(cluster.url) as app:
        warm(cluster, app)
        masters = cluster.masters
        masters[0].kill()
        eventually(lambda: [app.f(key) for key in KEYS] and app.cache.state is State.DEGRADED)
        for master in masters[1:]:
            master.kill()
        eventually(lambda: [app.f(key) for key in KEYS] and app.cache.state is State.DOWN)
        assert app.health["circuit"] != "closed" or app.health["parts_away"] == 3
        for master in masters:
            master.start()
        eventually(lambda: [app.f(key) for key in KEYS] and app.health["parts_away"] == 0)
        app.drained()
        eventually(lambda: [app.f(key) for key in KEYS] and app.health["circuit"] == "closed" and app.cache.confirm())
