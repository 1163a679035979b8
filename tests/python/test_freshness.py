"""One entry's life on a moved clock: fresh, early, stale, failsafe, gone; timeouts, and what a loader may say.

Thread rule: one thread; background refreshes run on the load pool and are awaited by events.
Refuses to know: how the core keeps its deadlines (tests/cpp does); failing loaders (test_failing_loads.py).
"""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from steered import Down, Source, cached, settled
from stillwarm import Cache, ConfigError, LoadTimeout, _core, _load, current_load
from stillwarm._verbs import KeyTarget


def test_freshness_a_value_is_fresh_until_its_ttl_is_over(warm_cache: Cache, warm_clock: Any) -> None:
    source = Source()
    f = cached(warm_cache, source, ttl=10, stale_if_error=0)
    assert f() == 1
    warm_clock.move(9.99)
    assert f() == 1
    warm_clock.move(0.01)
    assert f() == 2


def test_freshness_jitter_only_subtracts(warm_cache: Cache, warm_clock: Any) -> None:
    source = Source()
    f = cached(warm_cache, source, ttl=100, jitter=0.5, stale_if_error=0)
    for i in range(200):
        f(str(i))
    warm_clock.move(49)
    assert all(f.cache_contains(str(i)) for i in range(200))
    warm_clock.move(26)
    left = sum(f.cache_contains(str(i)) for i in range(200))
    assert 50 < left < 150
    warm_clock.move(25)
    assert not any(f.cache_contains(str(i)) for i in range(200))


def test_freshness_ttl_none_keeps_for_ever_and_ttl_0_does_not_store(warm_cache: Cache, warm_clock: Any) -> None:
    kept, dropped = Source(), Source()
    f, g = cached(warm_cache, kept, ttl=None), cached(warm_cache, dropped, ttl=0)
    assert (f(), g(), g()) == (1, 1, 2)
    warm_clock.move("3650d")
    assert f() == 1
    assert g.cache_info().currsize == 0


def test_freshness_ttl_may_depend_on_the_value(warm_cache: Cache, warm_clock: Any) -> None:
    source = Source()
    f = cached(warm_cache, source, ttl=lambda value: 10 * value, stale_if_error=0)
    f("a")
    f("b")
    warm_clock.move(15)
    assert not f.cache_contains("a")
    assert f.cache_contains("b")


def test_freshness_a_stale_value_is_returned_while_one_refresh_runs(warm_cache: Cache, warm_clock: Any) -> None:
    source = Source()
    f = cached(warm_cache, source, ttl=10, stale_while_revalidate=60, stale_if_error=0)
    assert f() == 1
    source.called.acquire()
    warm_clock.move(11)
    assert f() == 1
    assert source.called.acquire(timeout=5)
    settled(warm_cache)
    assert f() == 2
    assert source.calls == 2
    assert f.cache_info().stale_hits == 1


def test_freshness_an_early_hit_refreshes_in_the_background(warm_cache: Cache, warm_clock: Any) -> None:
    source = Source()
    f = cached(warm_cache, source, ttl=100, early_refresh=0.8, stale_if_error=0)
    assert f() == 1
    source.called.acquire()
    warm_clock.move(79)
    assert f() == 1
    assert source.calls == 1
    warm_clock.move(2)
    assert f() == 1
    assert source.called.acquire(timeout=5)
    settled(warm_cache)
    assert f() == 2
    assert f.cache_info().stale_hits == 0


def test_freshness_an_early_refresh_may_follow_the_time_of_the_load(warm_cache: Cache, warm_clock: Any) -> None:
    took = [2.0]
    called = threading.Semaphore(0)

    @warm_cache.cached(ttl=1000, early_refresh="auto", jitter=0, stale_if_error=0)
    def slow(key: str) -> int:
        warm_clock.move(took[0])
        called.release()
        return 1

    slow("a")
    called.acquire()
    warm_clock.move(499)
    assert slow("a") == 1
    assert warm_cache.stats().flights == 0, "half of the life at least it is only fresh"
    warm_clock.move(1000 - 499 - 3.9)
    assert slow("a") == 1, "the refresh has two times as long as the load took"
    assert called.acquire(timeout=5)
    settled(warm_cache)
    assert slow.cache_info().loads == 2
    assert slow.cache_info().misses == 1
    assert slow.cache_parameters()["early_refresh"] == "auto"


def test_freshness_an_early_refresh_by_time_spreads_and_leaves_out_what_was_not_loaded(warm_clock: Any) -> None:
    cache = Cache(ttl=1000, early_refresh="auto", jitter=0, stale_if_error=0)
    cache.set("set", 1)
    settings = cache._direct_settings(1000)
    loads = []
    for n in range(300):
        target = KeyTarget(cache, str(n), lambda: 1, settings)
        loads.append((target, target.begin(True)[2]))
    warm_clock.move(10)
    for target, flight in loads:
        _load.run_load(target, flight)

    def early() -> int:
        lives = [_core.life(cache, 0, str(n)) for n in range(300)]
        return sum(life is not None and life[0] == 1 for life in lives)

    warm_clock.move(1000 - 30)  # 2 * 10 s, and 10 s more for 1 in e
    assert 60 < early() < 160
    warm_clock.move(9.9)
    assert early() > 280
    warm_clock.move(0.1)
    assert early() == 300, "the refresh has two times as long as the load took"
    fresh = _core.life(cache, 0, "set")
    assert fresh is None or fresh[0] != 1, "what was set is fresh to its end"


def test_freshness_an_early_refresh_is_a_fraction_or_auto(warm_cache: Cache) -> None:
    for early in ("soon", 1.5, 0, True):
        with pytest.raises(ConfigError, match=r"early_refresh=.*accepted: a fraction above 0 and below 1"):
            warm_cache.cached(ttl=1, early_refresh=early)  # type: ignore[call-overload]


def test_freshness_none_is_a_value(warm_cache: Cache) -> None:
    calls = []

    @warm_cache.cached(ttl=10)
    def nothing(x: int) -> None:
        calls.append(x)

    assert nothing(1) is None
    assert nothing(1) is None
    assert calls == [1]


def test_freshness_soft_timeout_gives_the_stale_value_and_the_load_goes_on(warm_cache: Cache, warm_clock: Any) -> None:
    gate, calls = threading.Event(), []

    @warm_cache.cached(ttl=10, stale_if_error=100, soft_timeout=0.02, jitter=0)
    def slow() -> int:
        calls.append(1)
        if len(calls) > 1:
            gate.wait(10)
        return len(calls)

    assert slow() == 1
    warm_clock.move(11)
    assert slow() == 1  # after 20 ms of waiting
    assert slow.cache_info().stale_hits == 1
    gate.set()
    settled(warm_cache)
    assert slow() == 2


def test_freshness_hard_timeout_raises_and_the_load_is_stored_later(warm_cache: Cache) -> None:
    gate = threading.Event()

    @warm_cache.cached(ttl=10, hard_timeout=0.02)
    def slow() -> str:
        gate.wait(10)
        return "late"

    with pytest.raises(LoadTimeout, match=r"hard_timeout=0\.02 s"):
        slow()
    gate.set()
    settled(warm_cache)
    assert slow.cache_contains()
    assert slow() == "late"
    assert slow.cache_info().loads == 1


def test_freshness_loads_with_a_timeout_inside_each_other_do_not_starve() -> None:
    with Cache(ttl=60, load_threads=1, hard_timeout=20) as cache:
        inner = cache.cached(lambda: "inner")
        outer = cache.cached(lambda: "outer " + inner())
        assert outer() == "outer inner"


async def test_freshness_async_timeouts_and_stale_answers(warm_cache: Cache, warm_clock: Any) -> None:
    gate, calls = asyncio.Event(), []

    @warm_cache.cached(ttl=10, stale_if_error=100, soft_timeout=0.02, hard_timeout=0.05, jitter=0)
    async def slow(key: str) -> int:
        calls.append(key)
        if len(calls) > 1:
            await gate.wait()
        return len(calls)

    assert await slow("a") == 1
    warm_clock.move(11)
    assert await slow("a") == 1
    with pytest.raises(LoadTimeout):
        await slow("b")
    gate.set()
    for _ in range(100):
        await asyncio.sleep(0)
    assert await slow("a") == 3
    assert slow.cache_contains("b")


async def test_freshness_async_refresh_runs_in_the_background(warm_cache: Cache, warm_clock: Any) -> None:
    calls = []

    @warm_cache.cached(ttl=10, stale_while_revalidate=60, jitter=0)
    async def f() -> int:
        calls.append(1)
        await asyncio.sleep(0)
        return len(calls)

    assert await f() == 1
    warm_clock.move(11)
    assert [await f(), await f()] == [1, 1]
    for _ in range(20):
        await asyncio.sleep(0)
    assert await f() == 2
    assert len(calls) == 2


def test_freshness_unless_leaves_what_is_stored(warm_cache: Cache, warm_clock: Any) -> None:
    source = Source()
    f = cached(warm_cache, source, ttl=10, unless=lambda value: value == 2)
    assert f() == 1
    warm_clock.move(11)
    assert f() == 2
    source.error = Down()
    assert f() == 1  # stale, and still warm


def test_freshness_a_loader_may_change_ttl_and_tags_or_skip_the_store(warm_cache: Cache, warm_clock: Any) -> None:
    @warm_cache.cached(ttl="1h", jitter=0, stale_if_error=0)
    def load(kind: str) -> str:
        if kind == "short":
            current_load().ttl = 5
        elif kind == "tagged":
            current_load().tags.append("t")
        elif kind == "skipped":
            current_load().skip_store()
        assert current_load().key == load.cache_key(kind)
        return kind

    for kind in ("short", "tagged", "skipped"):
        assert load(kind) == kind
    assert not load.cache_contains("skipped")
    warm_cache.invalidate(tag="t")
    assert not load.cache_contains("tagged")
    warm_clock.move(5.1)
    assert not load.cache_contains("short")
    with pytest.raises(RuntimeError, match="no load is running"):
        current_load()
