"""Reads of the tier that need no Python: when they are allowed, that they end like the others, and what ends the calm.

Thread rule: a read waits on a thread of its own for a server that is frozen.
Refuses to know: how fast they are (benchmarks/remote), and what else a look-up may say (test_tier_contract).
"""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import types
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from chaos import ChaosProxy
from outages import in_child
from stillwarm import Cache, _core, _tier_health, _tier_transactions
from stillwarm._upkeep import Upkeep
from tiers import Counted, Ground, eventually, function, with_port


@pytest.fixture(params=["postgres", "redis"])
def either(request: pytest.FixtureRequest) -> Ground:
    return request.getfixturevalue("ground" if request.param == "postgres" else "redis_ground")  # type: ignore[no-any-return]


def calm(cache: Cache) -> Cache:
    """The cache, whose tier was used and had no trouble."""
    assert cache._tier is not None
    cache.get("nothing is here")
    cache.get("nothing is here either")
    assert cache._tier.reader.calm
    return cache


def reader_of(cache: Cache) -> _core.Reader:
    assert cache._tier is not None
    return cache._tier.reader


@pytest.fixture
def by_python(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The keys of reads that Python was asked about."""
    asked: list[str] = []
    slowly = _core.look_up

    def seen(slot: int, keys: list[str], types: list[str], whole: bool = False) -> Any:
        asked.extend(keys)
        return slowly(slot, keys, types, whole)

    monkeypatch.setattr(_core, "look_up", seen)
    return asked


READS: dict[str, Callable[[Cache, str], Any]] = {
    "get": lambda cache, key: cache.get(key, "none"),
    "aget": lambda cache, key: asyncio.run(cache.aget(key, "none")),
    "get_many": lambda cache, key: cache.get_many([key]).get(key, "none"),
}


@pytest.mark.parametrize("way", READS)
def test_calm_reads_find_what_another_process_stored(either: Ground, way: str) -> None:
    writer, cache = either.cache(ttl=3600), calm(either.cache(ttl=3600))
    for key, value in (("a", {"n": [1, 2.5, None]}), ("b", "text"), ("c", None)):
        writer.set(key, value, tags=["t"])
        assert READS[way](cache, key) == value
        assert cache.get(key, "none") == value  # memory has it
    assert READS[way](cache, "missing") == "none"
    stats = cache.stats()
    assert (stats.hits, stats.misses) == (6, 3)
    assert stats.remote_hits >= 3  # what the writer says may make memory ask again
    cache.invalidate(tag="t")
    assert READS[way](cache, "a") == "none"


@pytest.mark.parametrize("way", ["get", "get_many"])
def test_calm_reads_do_not_ask_python(either: Ground, way: str, by_python: list[str]) -> None:
    writer, cache = either.cache(ttl=3600), calm(either.cache(ttl=3600))
    writer.set("k", 1)
    by_python.clear()
    assert READS[way](cache, "k") == 1
    assert READS[way](cache, "missing") == "none"
    assert by_python == []
    reader_of(cache).end_calm()
    assert READS[way](cache, "other") == "none"
    assert by_python == ["other"]


def test_calm_calls_find_what_another_process_loaded(either: Ground, by_python: list[str]) -> None:
    source = Counted()
    f = function(either.cache(ttl=3600), source)
    cache = calm(either.cache(ttl=3600))
    g = function(cache, source)
    assert f("k") == "k#1"
    either.written()
    by_python.clear()
    assert g("k") == "k#1"
    assert source.calls["k"] == 1
    assert by_python == []
    assert (cache.stats().remote_hits, cache.stats().misses) == (1, 2)


def test_calm_many_keys_come_from_memory_and_from_the_tier_in_one_look(either: Ground) -> None:
    writer, cache = either.cache(ttl=3600), calm(either.cache(ttl=3600))
    long = "x" * 300  # is stored under a digest
    values = {f"k{i}": i for i in range(50)} | {"nul\0": "n", long: "long", "\udc80": "surrogate"}
    writer.set_many(values)
    assert cache.get("k7") == 7
    asked = [*values, "absent", "k3", "k3"]
    assert cache.get_many(asked) == values
    assert cache.get_many([f"k{i}" for i in range(50)] + ["absent"]) == {f"k{i}": i for i in range(50)}
    few = cache.get_many(f"k{i}" for i in range(3))
    assert few == {"k0": 0, "k1": 1, "k2": 2}


def test_calm_hits_of_what_memory_cannot_keep_are_counted(ground: Ground) -> None:
    writer, cache = ground.cache(ttl=3600), calm(ground.cache(ttl=3600, max_bytes=4_096))
    writer.set("k", "x" * 9_000)
    for _ in range(3):
        assert cache.get("k") == "x" * 9_000
    assert cache._upkeep is not None
    assert cache._upkeep.flush()
    assert cache.top(1)[0].hits == 3


def test_calm_ends_with_a_failure_and_is_back_after_the_window(
    redis_ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert redis_ground.url is not None
    port = int(redis_ground.url.split(":")[2].split("/")[0])
    with ChaosProxy(port) as proxy:
        ground = Ground(with_port(redis_ground.url, proxy.port), timeout="2s")
        cache = calm(ground.cache(ttl=3600))
        for _ in range(100):
            cache.get("nothing")
        with proxy.behaving(refuse=True):
            proxy.end_all("reset")
            eventually(lambda: (cache.get("k"), not reader_of(cache).calm)[1])
            tier = cache._tier
            assert tier is not None
            assert 0 < tier.error_share() < 0.5  # what was read in calm counts
        eventually(lambda: (cache.get("k"), not tier._away_until)[1])
        assert not tier.reader.calm
        monkeypatch.setattr(_tier_health, "WINDOW", 0.0)
        eventually(lambda: (cache.get("k"), tier.reader.calm)[1])
        ground.close()


def test_calm_that_ends_while_a_read_waits_is_heeded(warm_redis: Any, redis_ground: Ground) -> None:
    writer, cache = redis_ground.cache(ttl=3600), calm(redis_ground.cache(ttl=3600))
    writer.set("k", 1)
    got: list[Any] = []
    warm_redis.freeze()
    try:
        waiting = threading.Thread(target=lambda: got.append(cache.get("k")))
        waiting.start()
        assert cache._tier is not None
        core = cache._tier.core
        eventually(lambda: _core.begin_key(cache, 0, "k", False)[0] == 3)  # FOLLOW: it has begun
        held = object.__new__(type("Held", (), {"names": frozenset({"key:k"}), "xid": None}))
        cache._tier.pending.append(held)  # as an open transaction does
        cache._tier.reader.end_calm()
    finally:
        warm_redis.thaw()
    waiting.join(30)
    assert got == [1]  # it began before
    assert _core.peek(cache, 0, "k") is _core.MISSING  # and nobody after it gets it
    cache._tier.pending.remove(held)
    assert core.health()["failures"] == 0


def test_calm_is_not_begun_where_it_ended_while_somebody_looked(
    either: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = calm(either.cache(ttl=3600))
    tier = cache._tier
    assert tier is not None
    tier.reader.end_calm()
    held: list[Any] = []

    def begins_a_transaction() -> None:
        with _tier_transactions._holding(tier, ["key:k"]) as one:
            held.append(one)

    def runs(upkeep: Upkeep) -> bool:
        """The last thing that is looked at: another thread gets its turn here."""
        if not held:
            other = threading.Thread(target=begins_a_transaction)
            other.start()
            other.join()
        return True

    either.cache(ttl=3600).set("k", 1)
    monkeypatch.setattr(Upkeep, "runs", property(runs))
    assert cache.get("nothing") is None  # all is calm, but for what begins meanwhile
    assert tier.pending == held != []
    assert not tier.reader.calm
    assert cache.get("k") == 1
    assert _core.peek(cache, 0, "k") is _core.MISSING
    tier.pending.clear()
    assert cache.get("nothing") is None
    assert tier.reader.calm


@pytest.mark.parametrize("is_calm", [True, False])
@pytest.mark.parametrize("way", READS)
def test_calm_reads_that_join_another_are_counted_once(either: Ground, way: str, is_calm: bool) -> None:
    either.cache(ttl=3600).set("k", 1)
    cache = calm(either.cache(ttl=3600))
    if not is_calm:
        reader_of(cache).end_calm()
    before = cache.stats()
    step, _, flight = _core.begin_key(cache, 0, "k", False)
    assert step == 2  # LEAD
    assert READS[way](cache, "k") == 1
    after = cache.stats()
    assert (after.hits - before.hits, after.misses - before.misses) == (0, 1)
    del flight


@pytest.mark.parametrize("is_calm", [True, False])
def test_calm_calls_that_the_pool_performs_are_counted_once(either: Ground, is_calm: bool) -> None:
    source = Counted()
    f = function(either.cache(ttl=3600), source)
    assert f("k") == "k#1"
    either.written()
    cache = calm(either.cache(ttl=3600, hard_timeout=60))
    if not is_calm:
        reader_of(cache).end_calm()
    before = cache.stats()
    assert function(cache, source)("k") == "k#1"
    after = cache.stats()
    assert (after.hits, after.remote_hits, after.misses) == (before.hits + 1, before.remote_hits + 1, before.misses)
    assert [one.hits for one in cache.top(1)] == [1]


@pytest.mark.parametrize("way", READS)
def test_calm_reads_of_a_stale_value_are_counted_once(either: Ground, way: str) -> None:
    cache = calm(either.cache(ttl=60, stale_while_revalidate=600))
    cache.get_or_set("k", lambda: 1)
    either.written()
    cache.invalidate(key="k", stale=True)
    before = cache.stats()
    assert READS[way](cache, "k") == 1
    after = cache.stats()
    assert after.hits + after.stale_hits - before.hits - before.stale_hits == 1
    assert after.misses == before.misses


def test_calm_reads_of_long_ago_say_nothing_of_now(redis_ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = calm(redis_ground.cache(ttl=3600))
    tier = cache._tier
    assert tier is not None
    for _ in range(600):  # one each second
        cache.get("nothing")
    now = time.monotonic() + 600
    monkeypatch.setattr(_tier_health, "time", types.SimpleNamespace(monotonic=lambda: now))
    tier.noted((_tier_health.TIMEOUT, "", "late"), _core.look_up(0, ["k"], ["direct"]))
    assert 1 / 15 < tier.error_share() < 1 / 10


def test_calm_is_not_inherited_by_a_child(either: Ground) -> None:
    writer, cache = either.cache(ttl=3600), calm(either.cache(ttl=3600))
    writer.set("k", 1)

    def serve() -> bool:
        assert not reader_of(cache).calm
        assert cache.get("k") == 1
        return cache._upkeep is not None and cache._upkeep.runs

    assert in_child(serve)


def test_calm_has_no_cache_to_begin_for_once_that_is_gone(either: Ground) -> None:
    cache = Cache(either.url, namespace=either.namespace, timeout="20s", connect_timeout="20s", ttl=60)
    tier, gone = cache._tier, weakref.ref(cache)
    assert tier is not None
    del cache
    gc.collect()
    assert gone() is None
    try:  # as the study of a dictionary does, which keeps no cache alive
        assert tier.run(_core.look_up(0, ["k"], ["direct"])) is None
        assert not tier.reader.calm
    finally:
        tier.close(20.0)


def test_calm_values_that_cannot_be_read_are_counted_misses(either: Ground) -> None:
    from stillwarm import codecs

    writer = either.cache(ttl=3600, codec=codecs.codec_for("json"))
    cache = calm(either.cache(ttl=3600))
    writer.set("k", 1)
    assert cache.get("k", "none") == "none"
    assert cache.get_many(["k"]) == {}
    assert asyncio.run(cache.aget("k", "none")) == "none"
    assert cache._tier is not None
    assert cache._tier.undecodable == {"codec": 3}


def test_calm_is_not_for_a_closed_cache(either: Ground) -> None:
    cache = calm(either.cache(ttl=3600))
    reader = reader_of(cache)
    cache.close()
    assert not reader.calm
    assert cache.get("k", "none") == "none"
    assert not reader.calm
