"""The verbs of a Cache as a type checker sees them.

Thread rule: never run.
Refuses to know: what happens at run time.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from typing_extensions import assert_type

from stillwarm import Cache, State, Stats, Upserted, default_cache, hooks


class Shop(Cache):
    """A cache of a user's own class."""


def load() -> list[int]:
    return [1]


async def aload() -> list[int]:
    return [1]


cache = Shop.from_env(ttl=5)
assert_type(cache, Shop)
assert_type(default_cache(), Cache)
with Shop() as entered:
    assert_type(entered, Shop)

assert_type(cache.get_or_set("k", load), list[int])
assert_type(cache.get_or_set("k", load, ttl=lambda value: "5m"), list[int])
assert_type(cache.set("k", 1, timedelta(minutes=5), tags=["t"]), bool)
assert_type(cache.add("k", 1, ttl=None), bool)
assert_type(cache.get_many(["k"]), dict[str, Any])
assert_type(cache.set_many({"k": 1}, "5m"), list[str])
assert_type(cache.delete("k"), bool)
assert_type(cache.incr("k", 2), int)
assert_type(cache.ttl_left("k"), float | None)
assert_type(cache.invalidate(tag="t", stale=True), int | None)
assert_type(cache.stats(), Stats)
assert_type(cache.stats()["default"].hits, int)
assert_type(cache.stats().evictions["size"], int)
assert_type(cache.state, State)
assert_type(cache.top(3)[0].key, str)
count: int = cache.get("count", 0)

cache.get(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
cache.set("k")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
cache.set("k", 1, ttl=b"5m")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
cache.get_or_set("k", 1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
cache.invalidate(tga="t")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
cache.invalidate("k")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


async def verbs() -> None:
    assert_type(await cache.aget_or_set("k", aload), list[int])
    assert_type(await cache.aget_or_set("k", load), list[int])
    assert_type(await cache.aset("k", 1, 5), bool)
    assert_type(await cache.aget_many(["k"]), dict[str, Any])
    async with Shop() as mine:
        assert_type(mine, Shop)


def watch(event: hooks.Event) -> None:
    if isinstance(event, hooks.Loaded):
        assert_type(event.seconds, float)


unsubscribe = cache.subscribe(watch, hits=True)
unsubscribe()
cache.subscribe(load)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


row: dict[str, Any] = {"k": 1}
assert_type(cache.upsert("t", row, unique="k"), Upserted)
assert_type(cache.upsert("t", [row], unique=("k",), update=(), returning=["k"], timeout="1s"), list[Upserted])
assert_type(cache.upsert("t", row, unique="k", invalidates=[{"tag": "t"}]).outcome == "written", bool)
cache.upsert("t", row)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]


async def upserts() -> None:
    assert_type(await cache.aupsert("t", row, unique="k"), Upserted)
    assert_type(await cache.aupsert("t", (row for _ in range(2)), unique="k"), list[Upserted])
