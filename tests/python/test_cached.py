"""What a decorated function is and carries: functions, methods, coroutine functions, figures, mistakes.

Thread rule: one thread, or one loop.
Refuses to know: keys (test_keys) and freshness (test_freshness).
"""

from __future__ import annotations

import asyncio
import copy
import functools
import gc
import inspect
import pickle
import sys
import weakref
from collections.abc import AsyncIterator, Coroutine, Iterator
from typing import Any

import pytest

import stillwarm
from stillwarm import Cache, ConfigError, NotFound
from stillwarm.errors import RecursiveLoadError


@stillwarm.cached(ttl="5m")
def at_module_level(x: int, y: int = 2) -> int:
    """Adds."""
    return x + y


def test_cached_keeps_name_doc_signature_and_pickles_by_name() -> None:
    assert at_module_level.__name__ == "at_module_level"
    assert at_module_level.__doc__ == "Adds."
    assert str(inspect.signature(at_module_level)) == "(x: 'int', y: 'int' = 2) -> 'int'"
    assert at_module_level.__wrapped__(1, 1) == 2
    assert pickle.loads(pickle.dumps(at_module_level)) is at_module_level
    assert copy.copy(at_module_level) is copy.deepcopy(at_module_level) is at_module_level
    assert "at_module_level" in repr(at_module_level)
    assert not inspect.iscoroutinefunction(at_module_level)


def test_cached_info_unpacks_like_lru_cache(warm_cache: Cache) -> None:
    @warm_cache.cached(ttl=60)
    def f(x: int) -> int:
        return x

    f(1), f(1), f(2)
    hits, misses, maxsize, currsize = f.cache_info()
    assert (hits, misses, maxsize, currsize) == (1, 2, None, 2)
    assert f.cache_info() == (1, 2, None, 2)
    assert f.cache_info().loads == 2
    assert str(f.cache_info()) == "CacheInfo(hits=1, misses=2, maxsize=None, currsize=2)"
    f.cache_clear()
    assert f.cache_info() == (0, 0, None, 0)
    assert f.cache_parameters()["ttl"] == 60
    assert f.cache_parameters()["maxsize"] is None


def test_cached_methods_class_and_static_methods_in_either_order(warm_cache: Cache) -> None:
    class Shop:
        def __init__(self, name: str) -> None:
            self.name = name

        @warm_cache.cached(ttl=60)
        def method(self, x: int) -> tuple[str, int, object]:
            return self.name, x, object()

        @classmethod
        @warm_cache.cached(ttl=60)
        def inner_class(cls, x: int) -> tuple[str, int, object]:
            return cls.__name__, x, object()

        @warm_cache.cached(ttl=60)
        @classmethod
        def outer_class(cls, x: int) -> tuple[str, int, object]:
            return cls.__name__, x, object()

        @staticmethod
        @warm_cache.cached(ttl=60)
        def inner_static(x: int) -> object:
            return object()

        @warm_cache.cached(ttl=60)
        @staticmethod
        def outer_static(x: int) -> object:
            return object()

    class Other(Shop):
        pass

    a, b = Shop("a"), Shop("b")
    assert a.method(1) is a.method(x=1)
    assert b.method(1)[0] == "b"
    assert Shop.method(a, 1) is a.method(1)
    for name in ("inner_class", "outer_class"):
        assert getattr(Shop, name)(1) is getattr(a, name)(1)
        assert getattr(Other, name)(1)[0] == "Other"
    for name in ("inner_static", "outer_static"):
        assert getattr(Shop, name)(1) is getattr(b, name)(1)
    assert Shop.method.cache_info().currsize == 2


def test_cached_a_method_does_not_keep_a_dead_cache_alive() -> None:
    cache = Cache()

    class Node:
        @cache.cached(ttl=60)
        def me(self) -> object:
            return self

    node = Node()
    node.me()
    gone = weakref.ref(node), weakref.ref(cache)
    del node, cache, Node
    gc.collect()
    assert [g() for g in gone] == [None, None]


def test_cached_partials_lambdas_and_callable_objects(warm_cache: Cache) -> None:
    class Adder:
        def __call__(self, x: int, y: int = 1) -> int:
            return x + y

    partial = warm_cache.cached(ttl=60)(functools.partial(Adder(), y=5))
    assert partial(1) == 6
    assert warm_cache.cached(ttl=60)(lambda x: x * 2)(4) == 8
    assert warm_cache.cached(ttl=60)(Adder())(1) == 2
    assert warm_cache.cached(ttl=60)(max)(1, 5, 3) == 5


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({}, "has no ttl, and there is no unbounded default"),
        ({"ttl": -1}, "ttl=-1: negative"),
        ({"ttl": "soon"}, "ttl='soon'"),
        ({"ttl": 0.001}, "ttl=0.001: too short"),
        ({"ttl": True}, "ttl=True"),
        ({"ttl": float("nan")}, "ttl=nan: not a number"),
        ({"ttl": 1, "jitter": 1.5}, "jitter=1.5: accepted: a fraction"),
        ({"ttl": 1, "early_refresh": 0}, "early_refresh=0"),
        ({"ttl": 1, "stale_if_error": "x"}, "stale_if_error='x'"),
        ({"ttl": 1, "negative_ttl": -5}, "negative_ttl=-5"),
        ({"ttl": 1, "soft_timeout": 0}, "soft_timeout=0"),
        ({"ttl": 1, "retry": 3}, "retry=3: accepted: a stillwarm.Retry"),
        ({"ttl": 1, "scope": "fleet"}, "scope='fleet' needs a remote tier"),
        ({"ttl": 1, "scope": "galaxy"}, "scope='galaxy': accepted: 'process'"),
        ({"ttl": 1, "copy": "shallow"}, "copy='shallow': accepted: 'none' or 'deep'"),
        ({"ttl": 1, "tags": "one"}, "tags='one': accepted: a list of str"),
        ({"ttl": 1, "tags": [1]}, "tags=1"),
        ({"ttl": 1, "unless": 5}, "unless=5: accepted: a callable"),
        ({"ttl": 1, "classify": "x"}, "classify='x'"),
        ({"ttl": 1, "stale_on": "x"}, "stale_on='x'"),
        ({"ttl": 1, "type": "nope"}, "type='nope': accepted"),
        ({"ttl": 1, "tll": 5}, "no option 'tll'; did you mean 'ttl'"),
        ({"ttl": 1, "loader_many": 1}, "loader_many=1"),
    ],
)
def test_cached_mistakes_show_when_decorating(warm_cache: Cache, options: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        warm_cache.cached(**options)


def test_cached_refuses_what_is_no_function(warm_cache: Cache) -> None:
    def generator() -> Iterator[int]:
        yield 1

    async def agenerator() -> AsyncIterator[int]:
        yield 1

    for thing in (generator, agenerator):
        with pytest.raises(ConfigError, match="generator function"):
            warm_cache.cached(ttl=60)(thing)
    with pytest.raises(ConfigError, match="@cached got 5"):
        warm_cache.cached(ttl=60)(5)
    with pytest.raises(ConfigError, match="accepted: the name of a type"):
        warm_cache.cached(5)
    with pytest.raises(ConfigError, match="cached already"):
        warm_cache.cached(ttl=60)(warm_cache.cached(ttl=60)(max))


def test_cached_types_share_settings_and_the_nearest_wins(warm_clock: Any) -> None:
    with Cache(ttl="1h", jitter=0) as cache:
        cache.define("short", ttl=10, stale_if_error=0)
        bare = cache.cached(lambda: 1)
        short = cache.cached("short")(lambda: 1)
        own = cache.cached("short", ttl=20)(lambda: 1)
        assert [f.cache_parameters()["ttl"] for f in (bare, short, own)] == [3600, 10, 20]
        assert own.cache_parameters()["stale_if_error"] == 0
        cache.define("short", ttl=10, stale_if_error=0)
        with pytest.raises(ConfigError, match="defined already"):
            cache.define("short", ttl=11)
        with pytest.raises(ConfigError, match="no option 'tags_'"):
            cache.define("x", tags_=[])  # type: ignore[call-arg]


def test_cached_disabled_calls_straight_through() -> None:
    calls: list[int] = []
    cache = Cache(enabled=False)

    @cache.cached(ttl=60)
    def f(x: int) -> int:
        calls.append(x)
        return len(calls)

    assert [f(1), f(1), f.refresh(1)] == [1, 2, 3]
    assert f.get_many([1, 1]) == [4, 5]
    cache.set("k", 1, ttl=60)
    assert cache.get("k") is None
    assert cache.get_or_set("k", lambda: f(1), ttl=60) == 6
    assert f.cache_info().currsize == 0


def test_cached_deep_copies_belong_to_their_callers(warm_cache: Cache) -> None:
    @warm_cache.cached(ttl=60, copy="deep")
    def f() -> list[list[int]]:
        return [[1]]

    f()[0].append(2)
    one, two = f(), f()
    one[0].append(3)
    assert two == [[1]]


def test_cached_refresh_loads_now_and_stores(warm_cache: Cache) -> None:
    calls: list[int] = []

    @warm_cache.cached(ttl=60)
    def f(x: int) -> int:
        calls.append(x)
        return len(calls)

    assert (f(1), f.refresh(1), f(1)) == (1, 2, 2)


def test_cached_get_many_loads_what_is_missing_in_one_call(warm_cache: Cache) -> None:
    batches: list[list[Any]] = []

    def many(items: list[Any]) -> dict[Any, str]:
        batches.append(items)
        return {item: f"v{item}" for item in items if item != 99}

    @warm_cache.cached(ttl=60, loader_many=many)
    def f(x: int) -> str:
        return f"single{x}"

    assert f(1) == "single1"
    assert f.get_many([1, 2, 3, 2]) == ["single1", "v2", "v3", "v2"]
    assert batches == [[2, 3]]
    assert f(3) == "v3"
    with pytest.raises(NotFound, match="nothing for 99"):
        f.get_many([3, 99])

    @warm_cache.cached(ttl=60, loader_many=lambda items: [f.cache_key(1)])
    def wrong(x: int) -> str:
        return "x"

    with pytest.raises(ValueError, match="returned 1 values for 2 items"):
        wrong.get_many([1, 2])
    assert warm_cache.stats().flights == 0

    @warm_cache.cached(ttl=60, loader_many=lambda items: [again(items[-1]) for _ in items])
    def again(x: int) -> Any:
        return x

    with pytest.raises(RecursiveLoadError):
        again.get_many([1, 2])


async def test_cached_async_get_many_and_refresh(warm_cache: Cache) -> None:
    batches: list[list[int]] = []

    async def many(items: list[int]) -> list[int]:
        batches.append(items)
        await asyncio.sleep(0)
        return [i * 10 for i in items]

    @warm_cache.cached(ttl=60, loader_many=many)
    async def f(x: int) -> int:
        return -x

    assert await f.get_many([1, 2]) == [10, 20]
    assert await f.refresh(1) == -1
    assert await f.get_many([1, 2, 3]) == [-1, 20, 30]
    assert batches == [[1, 2], [3]]


async def test_cached_coroutine_functions_look_and_behave_like_one(warm_cache: Cache) -> None:
    @warm_cache.cached(ttl=60)
    async def f(x: int = 1) -> int:
        """Doc."""
        return x

    assert inspect.iscoroutinefunction(f)
    assert inspect.iscoroutinefunction(f.__call__)
    if sys.version_info < (3, 14):  # deprecated there
        assert asyncio.iscoroutinefunction(f)
    assert f.__code__ is f.__wrapped__.__code__
    assert f.__defaults__ == (1,)
    assert f.__kwdefaults__ is None
    assert f.__annotations__ == {"x": "int", "return": "int"}

    class C:
        @warm_cache.cached(ttl=60)
        async def method(self) -> int:
            return 5

    assert inspect.iscoroutinefunction(C().method)
    assert await C().method() == 5

    assert await f(1) == 1
    hit = f(1)
    assert isinstance(hit, Coroutine)
    assert await hit == 1
    with pytest.raises(RuntimeError, match="already awaited"):
        await hit
    assert await asyncio.create_task(f(1)) == 1
    assert await asyncio.gather(f(1), f(2), f(1)) == [1, 2, 1]
    assert await asyncio.wait_for(f(1), 1) == 1
    assert await asyncio.shield(f(1)) == 1
    with pytest.raises(StopIteration) as stop:
        f(1).send(None)
    assert stop.value.value == 1
    thrown = f(1)
    with pytest.raises(KeyError):
        thrown.throw(KeyError("x"))
    closed = f(1)
    closed.close()
    with pytest.raises(RuntimeError):
        await closed
    assert list(f(1).__await__()) == []


def test_cached_a_hit_can_be_run_by_asyncio_run(warm_cache: Cache) -> None:
    @warm_cache.cached(ttl=60)
    async def f(x: int) -> int:
        return x

    assert asyncio.run(f(3)) == 3
    assert asyncio.run(f(3)) == 3
    assert f.cache_info().hits == 1


def test_cached_a_redecorated_function_frees_its_entries(warm_cache: Cache) -> None:
    for _ in range(300):
        f = warm_cache.cached(ttl=60)(lambda x: x)
        f(1)
    del f
    gc.collect()
    assert warm_cache.stats().entries == 0


def test_cached_fleet_with_a_cache_that_is_off_goes_straight_through() -> None:
    with Cache("postgresql://nobody@localhost/none", enabled=False) as off:
        assert off.cached(ttl=60, scope="fleet", name="doubled")(lambda x: 2 * x)(2) == 4


def test_cached_a_function_may_come_with_its_options(warm_cache: Cache) -> None:
    calls: list[int] = []
    f = warm_cache.cached(calls.append, ttl=60, unless=lambda _: True)
    f(1)
    f(1)
    assert calls == [1, 1]  # not stored
    with pytest.raises(ConfigError, match="ttl_s"):
        warm_cache.cached(calls.append, ttl_s=60)  # type: ignore[call-overload]
