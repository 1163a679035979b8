"""What every tier keeps, plain and async: the verbs, functions, freshness, invalidation. Run by test_tier_contract.py.

Thread rule: one thread with a loop; background refreshes run on the load pool.
Refuses to know: which tier it is. `ground` makes caches; `way` calls the plain methods or their `a` twins.
"""

from __future__ import annotations

import inspect
import math
from typing import Any

import pytest

from steered import Down, settled
from stillwarm import Cache, NotFound, current_load
from tiers import Counted, Ground, eventually


class Way:
    """Calls verbs and functions in one of the two ways."""

    def __init__(self, is_async: bool) -> None:
        self.is_async = is_async

    async def __call__(self, cache: Any, verb: str, *args: Any, **kwargs: Any) -> Any:
        if not self.is_async:
            return getattr(cache, verb)(*args, **kwargs)
        return await getattr(cache, f"a{verb}")(*args, **kwargs)

    async def of(self, f: Any, *args: Any) -> Any:
        value = f(*args)
        assert inspect.isawaitable(value) == self.is_async
        return await value if self.is_async else value

    def function(self, cache: Cache, source: Any, name: str = "f", **options: Any) -> Any:
        options.setdefault("ttl", 100)
        if not self.is_async:

            @cache.cached(name=name, **options)
            def f(key: Any = "k") -> Any:
                return source(key)

            return f

        @cache.cached(name=name, **options)
        async def af(key: Any = "k") -> Any:
            return source(key)

        return af

    async def refreshed(self, cache: Cache) -> None:
        """Until no load is in the air."""
        if not self.is_async:
            return settled(cache)
        import asyncio

        for _ in range(3000):
            if cache.stats().flights == 0:
                return
            await asyncio.sleep(0.005)
        raise AssertionError("a flight never landed")


# ----------------------------------------------------------------------------------------------------------- the verbs


async def test_contract_set_get_and_their_kin(ground: Ground, way: Way) -> None:
    cache = ground.cache()
    other = ground.other(cache)
    assert await way(cache, "get", "k") is None
    assert await way(cache, "get", "k", 5) == 5
    assert await way(cache, "set", "k", {"a": [1, 2.5, None]}, ttl=10) is True
    for c in (cache, other):
        assert await way(c, "get", "k") == {"a": [1, 2.5, None]}
        assert await way(c, "contains", "k") is True
        assert await way(c, "ttl_left", "k") == pytest.approx(10, abs=5)
    assert await way(cache, "set", "none", None, ttl=10)
    assert await way(other, "get", "none", 5) is None
    assert await way(other, "contains", "none")
    assert await way(cache, "set", "ever", 1, ttl=None)
    assert await way(other, "ttl_left", "ever") == math.inf
    assert await way(cache, "ttl_left", "nothing") is None
    assert await way(cache, "set", "k", 2, ttl=0) is False
    assert await way(cache, "get", "k") is None


async def test_contract_add_stores_once(ground: Ground, way: Way) -> None:
    cache = ground.cache()
    other = ground.other(cache)
    assert await way(cache, "add", "k", 1, ttl=10) is True
    assert await way(other, "add", "k", 2, ttl=10) is False
    assert await way(cache, "add", "k", 3, ttl=10) is False
    assert await way(cache, "get", "k") == 1
    assert await way(other, "get", "k") == 1
    await way(cache, "delete", "k")
    assert await way(other, "add", "k", 4, ttl=10) is True
    ground.pass_time(11)
    assert await way(cache, "add", "k", 5, ttl=10) is True


async def test_contract_many(ground: Ground, way: Way) -> None:
    cache = ground.cache()
    other = ground.other(cache)
    assert await way(cache, "set_many", {"a": 1, "b": 2, "c": None}, ttl=10) == []
    assert await way(other, "get_many", ["a", "c", "x", "b", "a"]) == {"a": 1, "c": None, "b": 2}
    assert await way(cache, "delete_many", ["a", "x", "b"]) == 2
    assert await way(cache, "get_many", ["a", "b", "c"]) == {"c": None}
    assert await way(cache, "delete", "c") is True
    assert await way(cache, "delete", "c") is False


async def test_contract_get_or_set_loads_once(ground: Ground, way: Way) -> None:
    cache = ground.cache()
    other = ground.other(cache)
    source = Counted()
    assert await way(cache, "get_or_set", "k", source, 10) == "k#1"
    assert await way(cache, "get_or_set", "k", source, 10) == "k#1"
    ground.written()
    assert await way(other, "get_or_set", "k", source, 10) == "k#1"
    assert await way(other, "get", "k") == "k#1"
    assert source.total == 1


async def test_contract_touch_and_incr(ground: Ground, way: Way) -> None:
    cache = ground.cache()
    other = ground.other(cache)
    assert await way(cache, "touch", "k", 10) is False
    with pytest.raises(KeyError):
        await way(cache, "incr", "k")
    await way(cache, "set", "k", 5, ttl=10)
    assert await way(other, "incr", "k") == 6
    assert await way(other, "incr", "k", -10) == -4
    assert await way(cache, "ttl_left", "k") <= 10
    assert await way(cache, "touch", "k", 1000) is True
    assert await way(cache, "ttl_left", "k") > 900
    ground.pass_time(500)
    assert await way(cache, "get", "k") == -4
    await way(cache, "set", "text", "x", ttl=10)
    with pytest.raises(TypeError, match="incr"):
        await way(cache, "incr", "text")


async def test_contract_clear_takes_everything(ground: Ground, way: Way) -> None:
    cache = ground.cache()
    other = ground.other(cache)
    source = Counted()
    f = way.function(cache, source)
    await way.of(f, 1)
    await way(cache, "set", "k", 1, ttl=10)
    await way(cache, "clear")
    assert await way(cache, "get", "k") is None
    eventually(lambda: other.get("k") is None)
    assert await way.of(f, 1) == "1#2"


async def test_contract_a_long_key_and_strange_ones(ground: Ground, way: Way) -> None:
    cache = ground.cache()
    other = ground.other(cache)
    for key in ("x" * 1000, "nul\0", "\ud800", "q\"'{}\\,", "ünï", " ", "a~" + "0" * 32):
        await way(cache, "set", key, key == "nul\0", ttl=10)
        assert await way(other, "get", key) is (key == "nul\0")
        assert await way(cache, "delete", key) is True
        eventually(lambda key=key: other.get(key) is None, f"{key[:10]!r} is still there in another process")


# ------------------------------------------------------------------------------------------------------------ functions


async def test_contract_a_function_loads_once_per_key(ground: Ground, way: Way) -> None:
    cache = ground.cache()
    other = ground.other(cache)
    source = Counted()
    keys = (1, "1", 1.0, True, None, (1, "a"), 1)
    expected = [f"{key!r}#1" for key in keys]
    f = way.function(cache, lambda key: source(repr(key)))
    g = f if other is cache else way.function(other, lambda key: source(repr(key)))
    assert [await way.of(f, key) for key in keys] == expected
    ground.written()
    assert [await way.of(g, key) for key in keys] == expected


async def test_contract_none_is_a_value_and_not_found_may_be_remembered(ground: Ground, way: Way) -> None:
    cache = ground.cache()
    other = ground.other(cache)
    calls: list[Any] = []

    def source(key: Any) -> None:
        calls.append(key)
        if key == "gone":
            raise NotFound("no such thing")

    f = way.function(cache, source, negative_ttl=50)
    g = f if other is cache else way.function(other, source, negative_ttl=50)
    assert await way.of(f, "there") is None
    with pytest.raises(NotFound, match="no such thing"):
        await way.of(f, "gone")
    ground.written()
    assert await way.of(g, "there") is None
    with pytest.raises(NotFound, match="no such thing"):
        await way.of(g, "gone")
    assert calls == ["there", "gone"]
    ground.pass_time(51)
    with pytest.raises(NotFound):
        await way.of(f, "gone")
    assert calls == ["there", "gone", "gone"]


async def test_contract_fresh_stale_failsafe_gone(ground: Ground, way: Way) -> None:
    cache = ground.cache()
    source = Counted()
    down: list[bool] = []

    def load(key: Any) -> Any:
        value = source(key)
        if down:
            raise Down("away")
        return value

    f = way.function(cache, load, ttl=100, stale_while_revalidate=50, stale_if_error=200)
    assert await way.of(f) == "k#1"
    ground.pass_time(99)
    assert await way.of(f) == "k#1"
    assert source.total == 1
    ground.pass_time(2)  # STALE: at once, one refresh behind
    assert await way.of(f) == "k#1"
    await way.refreshed(cache)
    assert await way.of(f) == "k#2"
    ground.pass_time(160)  # FAILSAFE
    down.append(True)
    assert await way.of(f) == "k#2"
    assert source.total == 3
    down.clear()
    ground.pass_time(61)  # past the pause after the failure
    assert await way.of(f) == "k#4"
    ground.pass_time(301)  # GONE
    down.append(True)
    with pytest.raises(Down):
        await way.of(f)


async def test_contract_early_refresh_loads_before_the_end(ground: Ground, way: Way) -> None:
    cache = ground.cache()
    source = Counted()
    f = way.function(cache, source, ttl=100, early_refresh=0.5)
    assert await way.of(f) == "k#1"
    ground.pass_time(60)
    assert await way.of(f) == "k#1"
    await way.refreshed(cache)
    assert source.total == 2
    assert await way.of(f) == "k#2"
    ground.pass_time(90)
    assert await way.of(f) == "k#2"  # the deadline is the new value's


async def test_contract_what_the_loader_says_counts(ground: Ground, way: Way) -> None:
    cache = ground.cache()
    other = ground.other(cache)
    source = Counted()

    def load(key: Any) -> Any:
        value = source(key)
        if key == "brief":
            current_load().ttl = 5
        elif key == "skip":
            current_load().skip_store()
        current_load().tags.append(f"tag-{key}")
        return value

    f = way.function(cache, load)
    for key in ("brief", "skip", "skip", "plain"):
        await way.of(f, key)
    assert source.calls["skip"] == 2
    ground.written()
    ground.pass_time(6)
    await way.of(f, "brief")
    assert source.calls["brief"] == 2
    await way(other, "invalidate", tag="tag-plain")
    if other is not cache:
        assert await way(cache, "confirm")
    await way.of(f, "plain")
    await way.of(f, "brief")
    assert (source.calls["plain"], source.calls["brief"]) == (2, 2)


async def test_contract_not_modified_revives_what_was_kept(ground: Ground, way: Way) -> None:
    cache = ground.cache()
    offered: list[Any] = []

    def load(key: Any) -> Any:
        here = current_load()
        offered.append(here.kept)
        return here.not_modified() if here.has_kept else {"etag": 1}

    f = way.function(cache, load, ttl=10, stale_if_error=0, keep=100)
    assert await way.of(f) == {"etag": 1}
    ground.pass_time(50)
    assert await way.of(f) == {"etag": 1}
    assert await way.of(f) == {"etag": 1}
    assert offered == [None, {"etag": 1}]
    ground.pass_time(9)
    assert await way.of(f) == {"etag": 1}
    assert len(offered) == 2


async def test_contract_unless_and_ttl_by_value(ground: Ground, way: Way) -> None:
    cache = ground.cache()
    source = Counted()
    source.value = lambda key: key
    f = way.function(cache, source, ttl=lambda value: value, unless=lambda value: value == 7, stale_if_error=0)
    for key in (7, 7, 20, 50):
        await way.of(f, key)
    assert source.calls[7] == 2
    ground.pass_time(21)
    await way.of(f, 20)
    await way.of(f, 50)
    assert source.calls == {7: 2, 20: 2, 50: 1}


async def test_contract_deep_copies_are_each_callers_own(ground: Ground, way: Way) -> None:
    cache = ground.cache()
    f = way.function(cache, lambda key: [[key]], copy="deep")
    for _ in range(3):
        value = await way.of(f)
        assert value == [["k"]]
        value[0].append("mine")


async def test_contract_refresh_loads_now(ground: Ground, way: Way) -> None:
    cache = ground.cache()
    other = ground.other(cache)
    source = Counted()
    f = way.function(cache, source)
    g = f if other is cache else way.function(other, source)
    assert await way.of(f) == "k#1"
    ground.written()
    assert await way.of(f.refresh) == "k#2"
    assert await way.of(f) == "k#2"
    ground.written()
    assert await way.of(g) == "k#2"


@pytest.mark.parametrize("as_dict", [False, True])
async def test_contract_get_many_loads_what_is_missing_at_once(ground: Ground, way: Way, as_dict: bool) -> None:
    cache = ground.cache()
    other = ground.other(cache)
    asked: list[list[int]] = []

    def loader_many(keys: list[int]) -> Any:
        asked.append(list(keys))
        return {key: key * 10 for key in keys} if as_dict else [key * 10 for key in keys]

    f = way.function(cache, lambda key: key * 10, loader_many=loader_many)
    g = f if other is cache else way.function(other, lambda key: key * 10, loader_many=loader_many)
    assert await way.of(f.get_many, [1, 2]) == [10, 20]
    ground.written()
    assert await way.of(g.get_many, [3, 1, 2]) == [30, 10, 20]
    assert asked == [[1, 2], [3]]
    assert await way.of(f, 1) == 10
