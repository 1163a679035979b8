"""The pytest plugin: clean tests, the moved clock, counted loads, and a user's suite with its caches on and off.

Thread rule: one thread; the suites of users run in processes of their own.
Refuses to know: how a cache works inside.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
from datetime import timedelta
from typing import Any

import pytest

import stillwarm
from stillwarm import Cache, ConfigError, _core
from stillwarm.testing import AssertLoads, Clock, reset

INSTALLED = bool(importlib.metadata.entry_points(group="pytest11", name="stillwarm"))
PLUGIN = () if INSTALLED else ("-p", "stillwarm.testing")

APP = """
    import asyncio
    import stillwarm

    cache = stillwarm.Cache(ttl="5m")
    source = {"price": 10}
    queries = []

    @cache.cached(tags=["prices"])
    def price(name):
        queries.append(name)
        return source[name]

    @cache.cached(stale_while_revalidate="1m", tags=["prices"])
    async def slow_price(name):
        queries.append(name)
        stillwarm.current_load().ttl = 60
        await asyncio.sleep(0)
        return source[name]

    @stillwarm.cached(ttl=None, loader_many=lambda names: [source[n] for n in names])
    def many(name):
        return source[name]

    def total(names):
        return cache.get_or_set("total:" + ",".join(names), lambda: sum(map(price, names)))

    def write(name, value):
        source[name] = value
        cache.invalidate(tag="prices")
        cache.delete("total:price")
        many.cache_clear()
"""

SUITE = """
    import app, pytest, stillwarm

    def test_a_value_is_the_source_s(assert_loads):
        with assert_loads(1, of=app.price):
            assert app.price("price") == app.price(name="price") == 10
        assert app.price.cache_info().currsize <= 1

    def test_a_write_is_seen():
        app.price("price"), app.total(["price"]), app.many("price")
        app.write("price", 11)
        try:
            assert app.price("price") == app.total(["price"]) == app.many("price") == 11
            assert app.price.refresh("price") == 11
            assert app.many.get_many(["price", "price"]) == [11, 11]
        finally:
            app.write("price", 10)

    async def test_a_coroutine_function_is_awaited(assert_loads):
        with assert_loads(1):
            assert await app.slow_price("price") == 10
            assert await app.slow_price("price") == 10
        assert await app.slow_price.refresh("price") == 10
        assert await app.cache.aget_or_set("k", app_value) == 5

    async def app_value():
        return 5

    @pytest.mark.parametrize("turn", range(4))
    def test_each_test_starts_clean(turn, assert_loads):
        assert app.price.cache_info()[:2] == (0, 0)
        assert "total:price" not in app.cache
        with assert_loads(1, of=app.price):
            assert app.total(["price"]) == 10

    @pytest.mark.parametrize("turn", range(2))
    def test_time_moves(turn, warm_clock, assert_loads):
        with assert_loads(2, of=app.price):
            app.price("price"), app.price("price")
            warm_clock.move("1d")
            app.price("price"), app.price("price")

    def test_its_own_cache(warm_cache):
        warm_cache.set("k", 1, ttl=60)
        assert warm_cache.get("k", 1) == 1
"""


@pytest.fixture
def suite(pytester: pytest.Pytester) -> pytest.Pytester:
    pytester.makeini("[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\n")
    pytester.makepyfile(app=APP, test_suite=SUITE)
    return pytester


# ------------------------------------------------------------------------------------------------- a user's whole suite


@pytest.mark.parametrize("off", [(), ("--stillwarm-off",)], ids=["on", "off"])
@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["one_process", "xdist"])
def test_testing_plugin_lets_a_suite_pass_with_the_cache_on_and_off(
    suite: pytest.Pytester, off: tuple[str, ...], workers: tuple[str, ...]
) -> None:
    suite.makepyfile(
        test_off=f"""
        import app
        def test_the_cache_is_as_asked():
            app.price("price"), app.price("price")
            assert len(app.queries) - before == {2 if off else 1}
        before = len(app.queries)
        def setup_function():
            global before
            before = len(app.queries)
        """
    )
    result = suite.runpytest_subprocess(*PLUGIN, *off, *workers)
    result.assert_outcomes(passed=11)
    assert ("stillwarm: off" in result.outlines) == bool(off)


def test_testing_plugin_switches_off_a_cache_that_was_there_before_it(suite: pytest.Pytester) -> None:
    suite.makepyfile(
        test_suite="""
        import app, asyncio
        def test_off():
            app.price("price"), app.price("price")
            assert len(app.queries) == 2
            asyncio.run(twice())
            assert len(app.queries) == 4
            assert app.price.cache_info() == (0, 0, None, 0)
        async def twice():
            assert await app.slow_price("price") == await app.slow_price("price") == 10
        """
    )
    suite.runpytest_subprocess("-p", "app", *PLUGIN, "--stillwarm-off").assert_outcomes(passed=1)


def test_testing_plugin_gives_the_environment_back(suite: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STILLWARM_DISABLED", "0")
    suite.makepyfile(test_suite="def test(): import os; assert os.environ['STILLWARM_DISABLED'] == '1'")
    suite.makepyfile(
        run=f"""
        import os, pytest, sys
        code = pytest.main(["test_suite.py", "--stillwarm-off", *{PLUGIN!r}])
        sys.exit(int(code) or os.environ["STILLWARM_DISABLED"] != "0")
        """
    )
    assert suite.runpython("run.py").ret == 0


def test_testing_plugin_is_silent_where_nobody_uses_it(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import sys, threading
        from stillwarm._cache import _caches
        def test_quiet(request):
            assert not list(_caches)
            assert threading.active_count() == 1
            assert request.fixturenames == ["request"]
        """
    )
    result = pytester.runpytest_subprocess(*PLUGIN, "-p", "no:asyncio")
    result.assert_outcomes(passed=1)
    result.stdout.no_fnmatch_line("*stillwarm*:*")


# ---------------------------------------------------------------------------------------------------------- clean tests


def test_testing_plugin_resets_every_cache_of_the_process() -> None:
    own = Cache(ttl=60)
    own.set("k", 1)
    stillwarm.default_cache().set("k", 1, ttl=60)
    own.get("k")

    @own.cached()
    def fails() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        fails()
    reset()
    assert own.get("k", "gone") == stillwarm.default_cache().get("k", "gone") == "gone"
    stats = own.stats()
    assert (stats.hits, stats.misses, stats.loads, stats.load_errors, stats.entries) == (0, 1, 0, 0, 0)
    assert stats.last_error is None


def test_testing_plugin_reset_leaves_a_running_load_alone() -> None:
    own = Cache(ttl=60)

    @own.cached()
    def f(again: bool) -> str:
        reset()
        return "loaded before the reset"

    assert f(False) == "loaded before the reset"
    assert not f.cache_contains(False)


def test_testing_plugin_forgets_a_load_whose_loop_is_gone() -> None:
    own = Cache(ttl=60)
    turn = 0

    @own.cached()
    async def f() -> int:
        if turn == 0:
            await asyncio.Event().wait()
        return turn

    async def leave_it() -> None:
        asyncio.ensure_future(f())  # noqa: RUF006
        await asyncio.sleep(0)

    asyncio.run(leave_it())
    reset()
    turn = 1
    assert asyncio.run(f()) == 1


def test_testing_plugin_cache_is_this_test_s_alone(warm_cache: Cache) -> None:
    assert warm_cache is not stillwarm.default_cache()
    assert warm_cache.stats().entries == 0
    warm_cache.set("k", 1, ttl=60)
    assert stillwarm.default_cache().get("k") is None


# ------------------------------------------------------------------------------------------------------------ the clock


def test_testing_plugin_clock_moves_by_hand_alone(warm_cache: Cache, warm_clock: Clock) -> None:
    warm_cache.set("k", 1, ttl="5m")
    assert warm_clock.now == 0
    assert warm_clock.move("4m") == 240
    assert warm_cache.ttl_left("k") == 60
    warm_clock.move(timedelta(seconds=58.5))
    assert warm_cache.ttl_left("k") == 1.5
    assert warm_clock.move(1.5) == warm_clock.now == 300
    assert warm_cache.get("k") is None
    assert _core.clock_now() == _core.clock_now()


@pytest.mark.parametrize("by", [-1, "soon", None, True])
def test_testing_plugin_clock_refuses_what_is_no_duration(warm_clock: Clock, by: Any) -> None:
    with pytest.raises(ConfigError, match=r"by=.*accepted"):
        warm_clock.move(by)
    assert warm_clock.now == 0


def test_testing_plugin_clock_leaves_caches_as_they_should_be(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import stillwarm
        from stillwarm import _core
        cache = stillwarm.Cache(ttl="5m", stale_while_revalidate="5m")
        loads = []

        @cache.cached()
        def f(x):
            loads.append(x)
            return x

        def test_1_future(warm_clock):
            f(0)
            warm_clock.move("10d")
            for x in range(200):
                f(x)

        def test_2_now():
            assert _core.clock_now() != 0
            loads.clear()
            for _ in range(3):
                for x in range(200):
                    f(x)
            assert loads == list(range(200))
            assert f.cache_info().removed["expired"] == 0
            assert cache._check_invariants()
        """
    )
    pytester.runpytest_subprocess(*PLUGIN).assert_outcomes(passed=2)


# -------------------------------------------------------------------------------------------------------- counted loads


def test_testing_plugin_counts_loads(warm_cache: Cache, assert_loads: AssertLoads) -> None:
    @warm_cache.cached(ttl=60)
    def f(x: int) -> int:
        return x

    @warm_cache.cached(ttl=60)
    async def g(x: int) -> int:
        return x

    class A:
        @warm_cache.cached(ttl=60)
        def m(self) -> int:
            return 1

    f(1)
    with assert_loads(3), assert_loads(3, of=warm_cache), assert_loads(2, of=f), assert_loads(1, of=g):
        f(1), f(2), f(3)
        asyncio.run(g(1))
    a = A()
    with assert_loads(1, of=a.m), assert_loads(0, of=f):
        a.m(), a.m()
    with assert_loads(1, of=warm_cache), assert_loads(0, of=Cache()):
        warm_cache.get_or_set("k", lambda: 1, ttl=60)


def test_testing_plugin_says_who_loaded(warm_cache: Cache, assert_loads: AssertLoads) -> None:
    @warm_cache.cached(ttl=60, name="app.price")
    def price(x: int) -> int:
        return x

    with pytest.raises(pytest.fail.Exception) as caught:
        with assert_loads(1):
            price(1), price(2), warm_cache.get_or_set("k", lambda: 1, ttl=60)
    assert str(caught.value) == "expected 1 load, saw 3:\n  2 x app.price\n  1 x get_or_set"
    with pytest.raises(pytest.fail.Exception, match=r"^expected 2 loads, saw 0$"):
        with assert_loads(2, of=price):
            price(1)


def test_testing_plugin_counts_failed_loads_and_lets_errors_pass(warm_cache: Cache, assert_loads: AssertLoads) -> None:
    @warm_cache.cached(ttl=60)
    def f() -> int:
        raise OSError("away")

    with assert_loads(2, of=f):
        for _ in range(2):
            with pytest.raises(OSError, match="away"):
                f()
    with pytest.raises(KeyError), assert_loads(5):  # the test's own error, not that of the count
        raise KeyError


@pytest.mark.parametrize(("n", "of"), [(1, print), (1, 3), (-1, None), (True, None), ("1", None)])
def test_testing_plugin_refuses_to_count_what_it_cannot(assert_loads: AssertLoads, n: Any, of: Any) -> None:
    with pytest.raises(ConfigError, match="accepted"):
        with assert_loads(n, of=of):
            pass
