"""Cached functions as a type checker sees them; test_typing.py runs the checkers. Every expected error is marked.

Thread rule: never run.
Refuses to know: what happens at run time.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from datetime import timedelta
from typing import Any

from typing_extensions import assert_type

import stillwarm
from stillwarm import Cache, CacheInfo, Retry, transient

cache = Cache(ttl="5m", jitter=0.0)
cache.define("scoring", ttl=timedelta(hours=6), stale_while_revalidate="1h")


@cache.cached(ttl="5m", tags=lambda asin, domain=1: [f"asin:{asin}"])
def score(asin: str, /, domain: int = 1, *, deep: bool = False) -> float:
    return 1.0


@cache.cached("scoring", retry=Retry(on=transient), copy="deep", early_refresh=0.2)
async def ascore(asin: str, domain: int = 1) -> list[float]:
    return [1.0]


@cache.cached
def bare(x: int) -> str:
    return str(x)


@stillwarm.cached(ttl=None, key="bare:{x}", ignore=("y",), version=2)
async def shared(x: int, *rest: int, y: str = "", **more: bytes) -> bytes:
    return b""


# calls
assert_type(score("a"), float)
assert_type(score("a", 2, deep=True), float)
assert_type(bare(1), str)
score(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
score()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
score(asin="a")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
score("a", depth=1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
score("a").upper()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]


async def calls() -> None:
    assert_type(await ascore("a", domain=2), list[float])
    assert_type(await shared(1, 2, y="", z=b""), bytes)
    coroutine: Coroutine[Any, Any, list[float]] = ascore("a")
    assert_type(await coroutine, list[float])
    assert_type(await ascore.acache_invalidate("a"), bool)
    assert_type(await score.acache_invalidate("a", stale=True), bool)
    await score.acache_clear()
    await ascore.acache_invalidate(1)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    await ascore(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await score("a")  # type: ignore[misc]  # pyright: ignore[reportGeneralTypeIssues]
    await shared(1, z="")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


# a cached function goes where the function went
takes: Callable[[str], float] = score
atakes: Callable[[str], Coroutine[Any, Any, list[float]]] = ascore
wrong: Callable[[int], float] = score  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]

# what it carries
assert_type(score.cache_info(), CacheInfo)
assert_type(score.cache_info().hits, int)
assert_type(score.cache_info().maxsize, int | None)
hits, misses, maxsize, currsize = score.cache_info()
assert_type(currsize, int)
assert_type(score.cache_key("a", deep=True), str)
assert_type(score.cache_contains("a"), bool)
assert_type(score.cache_invalidate("a"), bool)
assert_type(score.cache_invalidate("a", stale=True), bool)
assert_type(score.cache_parameters(), dict[str, Any])
assert_type(score.refresh("a"), float)
assert_type(score.get_many(["a", ("b", 2)]), list[float])
assert_type(score.__wrapped__("a"), float)
assert_type(score.__name__, str)
score.cache_key(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
score.cache_contains("a", "b")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
score.refresh()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
score.cache_inof()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]


async def carried() -> None:
    assert_type(await ascore.refresh("a"), list[float])
    assert_type(await ascore.get_many(["a"]), list[list[float]])
    assert_type(await ascore.__wrapped__("a"), list[float])
    await ascore.refresh(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


# options
cache.cached(tll="5m")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
cache.cached(ttl=["5m"])  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
cache.cached(ttl="5m", copy="shallow")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
stillwarm.cached(ttl=5, jiter=0)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
cache.define("t", key="k")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
Cache(max_size=3)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
Cache(ttl="5m", negative_ttl=b"")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
