"""What tests of the circuit breaker guard, and every way to call it through one.

Thread rule: a Source may be asked by any thread.
Refuses to know: what a test wants to see.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from stillwarm import CircuitBreaker


class Down(ConnectionError):
    pass


class Source:
    """What is guarded: answers, or raises what it is told to."""

    def __init__(self, error: BaseException | type[BaseException] | None = None) -> None:
        self.error = error
        self.calls = 0

    def ask(self, answer: str = "ok") -> str:
        self.calls += 1
        if self.error is not None:
            raise self.error
        return answer

    async def aask(self, answer: str = "ok") -> str:
        await asyncio.sleep(0)
        return self.ask(answer)


# Every way to call `source` through a breaker, as one coroutine function.


async def by_call(breaker: CircuitBreaker, source: Source) -> str:
    return breaker.call(source.ask)


async def by_acall(breaker: CircuitBreaker, source: Source) -> str:
    return await breaker.acall(source.aask)


async def by_decorator(breaker: CircuitBreaker, source: Source) -> str:
    return breaker(source.ask)()


async def by_async_decorator(breaker: CircuitBreaker, source: Source) -> str:
    return await breaker(source.aask)()


async def by_block(breaker: CircuitBreaker, source: Source) -> str:
    with breaker:
        return source.ask()


async def by_async_block(breaker: CircuitBreaker, source: Source) -> str:
    async with breaker:
        return await source.aask()


Way = Callable[[CircuitBreaker, Source], Awaitable[str]]
every_way = pytest.mark.parametrize(
    "way", [by_call, by_acall, by_decorator, by_async_decorator, by_block, by_async_block], ids=lambda way: way.__name__
)


def fail(breaker: CircuitBreaker, times: int = 1) -> None:
    for _ in range(times):
        with pytest.raises(Down):
            breaker.call(Source(Down).ask)


def opened(**more: Any) -> CircuitBreaker:
    breaker = CircuitBreaker(**more)
    fail(breaker, 5)
    assert breaker.state == "open"
    return breaker
