"""Guarded functions as a type checker sees them; test_typing.py runs the checkers. Every expected error is marked.

Thread rule: never run.
Refuses to know: what happens at run time.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from datetime import timedelta
from typing import Any, Literal

from typing_extensions import assert_type

from stillwarm import Cache, CircuitBreaker, Retry, transient
from stillwarm.breaker import Figures, breakers
from stillwarm.errors import CircuitOpen

cache = Cache(ttl="5m")
prices = CircuitBreaker(
    name="prices", consecutive=3, share=0.2, window=5, open_for="1s", open_most=timedelta(minutes=1)
)
named = CircuitBreaker((ConnectionError, transient, lambda exc: "busy" in str(exc)))
CircuitBreaker(consecutive="5")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
CircuitBreaker(7)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
CircuitBreaker(transient, "prices")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


@prices
def price(asin: str, /, domain: int = 1, *, deep: bool = False) -> float:
    return 1.0


@prices
async def aprice(asin: str, domain: int = 1) -> list[float]:
    return [1.0]


@cache.cached(ttl="1m", retry=Retry(on=transient))
@prices
def kept(asin: str) -> bytes:
    return b""


class Shop:
    @prices
    def stock(self, asin: str) -> int:
        return 1

    @prices
    async def astock(self, asin: str) -> int:
        return 1

    @classmethod
    @prices
    def of(cls, asin: str) -> str:
        return asin


# calls
assert_type(price("a", 2, deep=True), float)
assert_type(kept("a"), bytes)
assert_type(Shop().stock("a"), int)
assert_type(Shop.of("a"), str)
price(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
price(asin="a")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
Shop().stock(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
assert_type(prices.call(price, "a", deep=True), float)
prices.call(price, 1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
takes: Callable[[str], float] = price
atakes: Callable[[str], Coroutine[Any, Any, list[float]]] = aprice


async def calls() -> None:
    assert_type(await aprice("a", domain=2), list[float])
    assert_type(await Shop().astock("a"), int)
    assert_type(await prices.acall(aprice, "a"), list[float])
    await aprice(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await prices.acall(price, "a")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    async with prices as entered:
        assert_type(entered, CircuitBreaker)


# blocks do not swallow errors: what follows a return in one is not reached, and nothing is missing
def block() -> int:
    with prices as entered:
        assert_type(entered, CircuitBreaker)
        return 1


async def ablock() -> int:
    async with prices:
        return 1


# what it says of itself
assert_type(prices.state, Literal["closed", "open", "half-open"])
assert_type(prices.retry_in, float)
assert_type(prices.name, str | None)
assert_type(prices.figures(), Figures)
assert_type(prices.figures().in_a_row, int)
assert_type(breakers(), dict[str, CircuitBreaker])
assert_type(CircuitOpen("text").retry_after, float)
prices.name = "other"  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
prices.state = "open"  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
