"""What a cache tells: events, counts per type, hot keys, budgets.

Thread rule: one thread.
Refuses to know: how the figures are counted.
"""

from __future__ import annotations

from typing import Any

import pytest

from stillwarm import Cache, hooks


def test_figures_hooks_see_what_happens(warm_cache: Cache, warm_clock: Any) -> None:
    events: list[hooks.Event] = []
    down: list[bool] = []

    @warm_cache.cached(ttl=10, jitter=0, name="f")
    def f(x: int) -> int:
        if down:
            raise ConnectionError("away")
        return x

    f(0)
    unsubscribe = warm_cache.subscribe(events.append, hits=True)
    f(1), f(1)
    down.append(True)
    warm_clock.move(11)
    f(1), f(1)
    with pytest.raises(ConnectionError):
        f(2)
    f.cache_invalidate(1)
    unsubscribe()
    f.cache_clear()
    names = [type(event).__name__ for event in events]
    expected = ["Missed", "Loaded", "Hit", "Missed", "LoadFailed", "StaleServed", "StaleServed"]
    assert names == [*expected, "Missed", "LoadFailed", "Invalidated"]
    assert events[0] == hooks.Missed("default", "f:1", joined=False)
    assert events[2] == hooks.Hit("default", "f:1")
    assert isinstance(events[1], hooks.Loaded)
    assert events[1].stored == "stored"


def test_figures_every_call_is_counted_once_also_in_an_outage(warm_cache: Cache, warm_clock: Any) -> None:
    down: list[bool] = []

    @warm_cache.cached(ttl=10, jitter=0)
    def plain() -> int:
        if down:
            raise ConnectionError("away")
        return 1

    @warm_cache.cached(ttl=10, jitter=0, unless=lambda value: False)
    def not_plain() -> int:
        return plain.__wrapped__()  # type: ignore[no-any-return]

    for f in (plain, not_plain):
        down.clear()
        f(), f()
        down.append(True)
        warm_clock.move(11)
        f(), f(), f()
        info = f.cache_info()
        assert (info.hits, info.misses, info.stale_hits, info.loads) == (4, 1, 3, 2)


def test_figures_a_failing_hook_is_logged_and_harmless(warm_cache: Cache, caplog: pytest.LogCaptureFixture) -> None:
    def broken(event: hooks.Event) -> None:
        raise RuntimeError("hook")

    warm_cache.subscribe(broken)
    assert warm_cache.cached(ttl=60)(lambda: 5)() == 5
    assert "a hook failed" in caplog.text


def test_figures_counts_per_type_and_hot_keys(warm_cache: Cache) -> None:
    warm_cache.define("a", ttl=60)
    f = warm_cache.cached("a", name="f")(lambda x: x)
    g = warm_cache.cached(ttl=60, name="g")(lambda x: x)
    f(1), f(1), f(1), g(1)
    stats = warm_cache.stats()
    assert (stats["a"].hits, stats["a"].misses, stats["a"].hit_rate) == (2, 1, 2 / 3)
    assert (stats.hits, stats.misses, stats.entries) == (2, 2, 2)
    assert stats.bytes == stats["a"].bytes + stats["default"].bytes > 0
    assert [(h.key, h.type, h.hits) for h in warm_cache.top(1)] == [("f:1", "a", 2)]
    assert warm_cache.state == "HEALTHY"


def test_figures_too_large_values_are_returned_and_not_kept() -> None:
    with Cache(max_bytes="64KB", ttl=60) as cache:
        f = cache.cached(ttl=60)(lambda n: "x" * n)
        assert len(f(20_000)) == 20_000
        assert not f.cache_contains(20_000)
        assert cache.stats().evictions["too_large"] == 1
        cache.set("k", "small")
        assert not cache.set("k", "x" * 20_000)
        assert cache.get("k") is None


def test_figures_a_weight_may_be_absurd() -> None:
    class Heavy:
        def __sizeof__(self) -> int:
            return 2**62

    with Cache(ttl=60) as cache:
        assert not cache.set("k", [Heavy()] * 64)
        f = cache.cached(weigh=lambda value: 2**70)(lambda: 1)
        assert f() == 1
        assert cache.stats().entries == 0


def test_figures_weigh_and_the_byte_budget() -> None:
    with Cache(max_bytes="1MB", ttl=60, weigh=lambda value: 10_000) as cache:
        f = cache.cached(ttl=60)(lambda n: n)
        for n in range(500):
            f(n)
            assert cache.stats().bytes <= 1024 * 1024
        assert 50 < cache.stats().entries <= 104
        assert cache.stats().evictions["size"] >= 390
