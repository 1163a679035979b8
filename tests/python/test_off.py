"""A cache that is switched off: calls go straight through, and an app that was written for a cache still runs.

Thread rule: one thread.
Refuses to know: who switched it off.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import stillwarm
from stillwarm import Cache, current_load


def test_off_calls_straight_through() -> None:
    off, calls = Cache(ttl=60, enabled=False), []

    @off.cached(tags=["t"])
    def f(x: Any) -> int:
        calls.append(x)
        assert x != 1 or current_load().key.endswith(":1")
        current_load().ttl = 5
        current_load().tags.append("t")
        return len(calls)

    @off.cached(retry=None, copy="deep")
    async def g(x: Any) -> int:
        calls.append(x)
        await asyncio.sleep(0)
        current_load().skip_store()
        return len(calls)

    assert [f(1), f(1), f(x=1), f.refresh(1)] == [1, 2, 3, 4]
    assert f.get_many([1, 1]) == [5, 6]
    assert f(open) == 7  # whatever cannot be part of a key
    unhashable: Any = object.__new__(type("Odd", (), {"__hash__": None}))
    assert f(unhashable) == 8

    async def use() -> list[int]:
        return [await g(1), await g(1), await g.refresh(1), *await g.get_many([1])]

    assert asyncio.run(use()) == [9, 10, 11, 12]
    assert f.cache_info() == g.cache_info() == (0, 0, None, 0)
    assert off.stats().entries == off.stats().loads == 0
    with pytest.raises(TypeError, match="argument"):
        f()
    with pytest.raises(RuntimeError, match="no load is running"):
        current_load()


def test_off_asks_loader_many_each_time() -> None:
    off, asked = Cache(ttl=60, enabled=False), []

    def load(items: list[int]) -> dict[int, str]:
        asked.append(items)
        return {i: str(i) for i in items if i}

    async def aload(items: list[int]) -> list[str]:
        asked.append(items)
        return [str(i) for i in items]

    @off.cached(loader_many=load)
    def f(x: int) -> str:
        raise AssertionError

    @off.cached(loader_many=aload)
    async def g(x: int) -> str:
        raise AssertionError

    assert f.get_many([1, 2]) == f.get_many([1, 2]) == asyncio.run(g.get_many([1, 2])) == ["1", "2"]
    assert f.get_many([]) == asyncio.run(g.get_many([])) == []
    assert asked == [[1, 2]] * 3
    with pytest.raises(stillwarm.NotFound, match="nothing for 0"):
        f.get_many([1, 0])


def test_off_get_or_set_loads_each_time() -> None:
    off, numbers = Cache(ttl=60, enabled=False), iter(range(10))

    async def aload() -> int:
        return next(numbers)

    assert [off.get_or_set("k", lambda: next(numbers)) for _ in range(2)] == [0, 1]
    assert asyncio.run(off.aget_or_set("k", aload)) == 2
    assert asyncio.run(off.aget_or_set("k", lambda: next(numbers))) == 3
    assert not off.set("k", 1)
    assert off.get("k") is None


def test_off_is_inside_what_is_on(warm_cache: Cache) -> None:
    off = Cache(ttl=60, enabled=False)
    seen = []

    @off.cached()
    def inner(x: int) -> int:
        seen.append(current_load().key)
        return x

    @warm_cache.cached(ttl=60, name="outer")
    def outer(x: int) -> int:
        inner(x)
        seen.append(current_load().key)
        return x

    @off.cached(name="above")
    def above(x: int) -> int:
        outer(x)
        seen.append(current_load().key)
        return x

    above(1)
    assert [key.rpartition(".")[2] for key in seen] == ["inner:1", "outer:1", "above:1"]


def test_off_reaches_functions_that_are_decorated() -> None:
    cache, calls = Cache(ttl=60), []

    @cache.cached()
    def f(x: int) -> int:
        calls.append(x)
        return x

    f(1), f(1)
    cache._switch_off()
    unsubscribe = cache.subscribe(lambda _: None)
    unsubscribe()
    f(1), f(1)
    assert calls == [1, 1, 1]
    assert cache.stats().entries == 0
