"""Joined functions, gathered calls and schedules as a type checker sees them. Every expected error is marked.

Thread rule: never run.
Refuses to know: what happens at run time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from typing_extensions import assert_type

from stillwarm import Cache, JoinedInfo, Prefetch, Prefetched, agather, gather

cache = Cache()


@cache.joined
def bare(x: int) -> str:
    return str(x)


@cache.joined(key="report:{year}", ignore=("session",), name="report")
def report(year: int, *, session: object = None) -> float:
    return 1.0


@cache.joined()
async def areport(year: int) -> list[float]:
    return [1.0]


class Shop:
    @cache.joined
    def price(self, name: str) -> float:
        return 1.0

    @cache.joined
    async def stock(self, name: str) -> int:
        return 1

    @classmethod
    @cache.joined
    def count(cls, of: int) -> int:
        return of

    @staticmethod
    @cache.joined
    def tax(country: str) -> float:
        return 1.0


cache.joined(tags=["a"])  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
assert_type(bare(1), str)
assert_type(report(2024, session=None), float)
assert_type(bare.joined_info(), JoinedInfo)
assert_type(bare.joined_info().runs, int)
plain: Callable[[int], str] = bare.__wrapped__
bare("a")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
report()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
bare.cache_clear()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]

assert_type(Shop().price("a"), float)
assert_type(Shop().tax("FR"), float)
assert_type(Shop.count(1), int)
Shop().price(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def name() -> str:
    return ""


async def number() -> int:
    return 1


assert_type(gather(name, lambda: 1, deadline="2s"), tuple[str, int])
assert_type(gather(name, partial(report, 2024), name, threads=2), tuple[str, float, str])
assert_type(gather(*[name] * 9), tuple[str, ...])
gather(name())  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
gather(name, timeout=2)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]


async def gathered() -> None:
    assert_type(await agather(number(), asyncio.sleep(0, ""), deadline=2), tuple[int, str])
    assert_type(await agather(number, asyncio.ensure_future(number()), number()), tuple[int, int, int])
    assert_type(await agather(*[number()] * 9), tuple[int, ...])
    await agather(number(), name, partial(report, 2024))  # with plain callables of any type
    await agather(areport(2024), Shop().stock("a"))
    await agather(1)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]


@cache.cached(ttl=60)
def kept(x: int) -> int:
    return x


async def prefetched() -> None:
    assert_type(cache.prefetch([(kept, 1), kept], every="1m", early="2m"), Prefetch)
    assert_type(await cache.aprefetch(lambda: [(kept, 1)], every=60), Prefetch)
    with cache.prefetch([kept], every=60, at_once=2) as schedule:
        assert_type(schedule.figures(), Prefetched)
    cache.prefetch([(kept, 1)])  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    cache.prefetch([kept], every=None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def calls() -> None:
    assert_type(await areport(2024), list[float])
    assert_type(await Shop().stock("a"), int)
    coroutine: Coroutine[Any, Any, list[float]] = areport(2024)
    await coroutine
