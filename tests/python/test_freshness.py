"""One entry's life on a moved clock: fresh, early, stale, failsafe, gone, and what a failing loader changes.

Thread rule: one thread; background refreshes run on the load pool and are awaited by events.
Refuses to know: how the core keeps its deadlines (tests/cpp does).
"""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

import stillwarm
from stillwarm import Cache, LoadTimeout, NotFound, current_load


class Down(ConnectionError):
    """The source is away: an error that classify() calls transient."""


class Source:
    """A loader whose answers and failures the test steers; `called` tells when a background refresh has come."""

    def __init__(self) -> None:
        self.calls = 0
        self.error: Exception | None = None
        self.called = threading.Semaphore(0)

    def __call__(self, key: str = "k") -> int:
        self.calls += 1
        try:
            if self.error is not None:
                raise self.error
            return self.calls
        finally:
            self.called.release()


def settled(cache: Cache) -> None:
    """Waits until no load is in the air."""
    done = threading.Event()
    for _ in range(2000):
        if cache.stats().flights == 0:
            return
        done.wait(0.005)
    raise AssertionError("a flight never landed")


def cached(cache: Cache, source: Source, **options: Any) -> Any:
    options.setdefault("jitter", 0)

    @cache.cached(**options)
    def load(key: str = "k") -> int:
        return source(key)

    return load


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


def test_freshness_a_failed_early_refresh_is_tried_again(warm_cache: Cache, warm_clock: Any) -> None:
    source = Source()
    f = cached(warm_cache, source, ttl=100, early_refresh=0.5, stale_if_error=0)
    assert f() == 1
    source.called.acquire()
    source.error = Down("away")
    warm_clock.move(60)
    assert f() == 1
    assert source.called.acquire(timeout=5)
    settled(warm_cache)
    assert f() == 1  # it pauses: no second attempt yet
    assert source.calls == 2
    assert f.cache_info().load_errors == 1
    assert "away" in (warm_cache.stats().last_error or "")
    source.error = None
    warm_clock.move(6)
    assert f() == 1
    assert source.called.acquire(timeout=5)
    settled(warm_cache)
    assert f() == 3
    source.error = Down("away")
    warm_clock.move(100)  # never lengthened by failures
    with pytest.raises(Down):
        f()


def test_freshness_a_transient_error_serves_the_stale_value_by_default(warm_cache: Cache, warm_clock: Any) -> None:
    source = Source()
    f = cached(warm_cache, source, ttl=10)
    assert f() == 1
    source.error = Down("away")
    warm_clock.move(15)
    assert f() == 1
    warm_clock.move(4.9)
    assert f() == 1
    warm_clock.move(0.2)  # as long again as it was fresh, and no longer
    with pytest.raises(Down):
        f()


def test_freshness_attempts_pause_longer_after_each_failure(warm_cache: Cache, warm_clock: Any) -> None:
    source = Source()
    f = cached(warm_cache, source, ttl="1h")
    f()
    source.error = Down("away")
    warm_clock.move("61m")
    attempts = []
    for _ in range(400):
        f()
        attempts.append(source.calls)
        warm_clock.move(1)
    # In 400 s: 5, 10, 20, 40, 60, 60 ... each shortened by up to a quarter.
    assert 8 <= attempts[-1] - 1 <= 14
    source.error = None
    warm_clock.move(60)
    assert f() == attempts[-1] + 1


def test_freshness_a_fatal_error_is_raised_although_a_stale_value_is_there(warm_cache: Cache, warm_clock: Any) -> None:
    source = Source()
    f = cached(warm_cache, source, ttl=10)
    f()
    source.error = ValueError("bad data")
    warm_clock.move(11)
    with pytest.raises(ValueError, match="bad data"):
        f()
    source.error = None
    assert f() == 3


def test_freshness_stale_if_error_0_switches_it_off(warm_cache: Cache, warm_clock: Any) -> None:
    source = Source()
    f = cached(warm_cache, source, ttl=10, stale_if_error=0)
    f()
    source.error = Down("away")
    warm_clock.move(11)
    with pytest.raises(Down):
        f()


def test_freshness_stale_on_and_classify_decide(warm_cache: Cache, warm_clock: Any) -> None:
    a, b = Source(), Source()
    f = cached(warm_cache, a, ttl=10, stale_on=KeyError)
    g = cached(warm_cache, b, ttl=10, classify=lambda e: "transient" if isinstance(e, ValueError) else "fatal")
    assert (f(), g()) == (1, 1)
    warm_clock.move(11)
    a.error, b.error = KeyError("x"), ValueError("x")
    assert (f(), g()) == (1, 1)
    warm_clock.move(8)
    a.error, b.error = Down(), Down()
    with pytest.raises(Down):
        f()
    with pytest.raises(Down):
        g()


def test_freshness_an_error_is_never_stored(warm_cache: Cache, warm_clock: Any) -> None:
    source = Source()
    f = cached(warm_cache, source, ttl=10)
    source.error = Down("away")
    for n in range(3):
        with pytest.raises(Down):
            f()
        assert source.calls == n + 1
    assert f.cache_info().currsize == 0


def test_freshness_not_found_drops_the_entry_and_is_remembered_only_with_negative_ttl(
    warm_cache: Cache, warm_clock: Any
) -> None:
    source, remembered = Source(), Source()
    f = cached(warm_cache, source, ttl=10)
    g = cached(warm_cache, remembered, ttl=10, negative_ttl=5)
    assert (f(), g()) == (1, 1)
    warm_clock.move(11)
    source.error = remembered.error = NotFound("no such product")
    for _ in range(3):
        with pytest.raises(NotFound, match="no such product"):
            f()
        with pytest.raises(NotFound, match="no such product"):
            g()
    assert source.calls == 4
    assert remembered.calls == 2
    assert f.cache_info().currsize == 0
    warm_clock.move(5.1)
    remembered.error = None
    assert g() == 3


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


def test_freshness_retry_happens_inside_the_load(warm_cache: Cache) -> None:
    source = Source()
    source.error = Down("away")

    def heal(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 2:
            source.error = None

    waits: list[float] = []
    f = cached(warm_cache, source, ttl=10, retry=stillwarm.Retry(on=stillwarm.transient, budget=None, jitter=0))
    from stillwarm.retry import without_waiting

    with without_waiting(sleep=heal):
        assert f() == 3
    assert waits == [0.2, 0.4]
    assert f.cache_info().loads == 3
    assert f.cache_info().load_errors == 2
