"""What `cache.joined` decorates, and what it refuses.

Thread rule: a run waits until the others have joined it, or for an event of the test; nothing is measured.
Refuses to know: runs that are shared (test_joined.py).
"""

from __future__ import annotations

import asyncio
import inspect
import pickle
from collections.abc import Iterator
from typing import Any

import pytest

from joining import CLOSED, asked_nobody, at_once, cache, until
from stillwarm import Cache, ConfigError, JoinedInfo, KeyTypeError

__all__ = ["cache"]


class Shop:
    """Its objects are compared by identity, and no other process knows them."""

    cache = Cache(CLOSED)

    @cache.joined
    def price(self, item: str) -> tuple[object, str]:
        until(lambda: self.price.joined_info().calls == 4)
        return self, item

    @classmethod
    @cache.joined
    def name(cls) -> str:
        return cls.__name__

    @cache.joined
    @classmethod
    def name2(cls) -> str:
        return cls.__name__

    @staticmethod
    @cache.joined
    def tax(country: str) -> str:
        return country

    @cache.joined
    async def stock(self, item: str) -> tuple[object, str]:
        return self, item


def test_joined_methods() -> None:
    one, other = Shop(), Shop()
    results = at_once(4, lambda n: (one, other)[n % 2].price("B07"))
    assert sorted(results, key=lambda r: r[0] is one) == [(other, "B07")] * 2 + [(one, "B07")] * 2
    assert Shop.price.joined_info()[:3] == (4, 2, 2)
    assert Shop.name() == one.name() == Shop.name2() == "Shop"
    assert one.tax("FR") == "FR"
    assert asyncio.run(one.stock("B07")) == (one, "B07")
    assert asked_nobody(Shop.cache)


def test_joined_an_object_that_cannot_be_hashed_is_named(cache: Cache) -> None:
    @cache.joined
    def report(options: object) -> None: ...

    class Unhashable:
        __hash__ = None  # type: ignore[assignment]

    with pytest.raises(KeyTypeError, match="options"):
        report(Unhashable())


def test_joined_functions_look_like_what_they_were(cache: Cache) -> None:
    @cache.joined
    def plain(a: int, b: str = "x") -> int:
        """Doc."""
        return a

    @cache.joined
    async def coroutine(a: int) -> int:
        return a

    assert str(inspect.signature(plain)) == "(a: 'int', b: 'str' = 'x') -> 'int'"
    assert (plain.__name__, plain.__doc__, plain.__wrapped__(3)) == ("plain", "Doc.", 3)
    assert inspect.iscoroutinefunction(coroutine)
    assert not inspect.iscoroutinefunction(plain)
    assert not hasattr(plain, "cache_clear")
    assert isinstance(plain.joined_info(), JoinedInfo)
    assert pickle.loads(pickle.dumps(Shop.price)) is Shop.price


def test_joined_refuses_what_it_cannot_share(cache: Cache) -> None:
    joined: Any = cache.joined

    def numbers() -> Iterator[int]:
        yield 1

    async def anumbers() -> Any:
        yield 1

    for generator in (numbers, anumbers):
        with pytest.raises(ConfigError, match="generator function"):
            joined(generator)

    class Asking:
        async def __call__(self) -> None: ...

    class Listing:
        def __call__(self) -> Iterator[int]:
            yield 1

    for once in (Asking(), Listing()):  # what they return is for one caller
        with pytest.raises(ConfigError, match=r"(Asking|Listing): its __call__ is a coroutine function or a generator"):
            joined(once)
        with pytest.raises(ConfigError, match="its __call__ is"):
            cache.cached(ttl=5)(once)
    for wrong in (5, "report", int):
        with pytest.raises(ConfigError, match="joined"):
            joined(wrong)
    with pytest.raises(ConfigError, match="cached already"):
        joined(cache.cached(ttl=5, name="f")(lambda: None))
    for option in ({"tags": ["a"]}, {"ttl": 5}, {"keys": "a"}):
        with pytest.raises(ConfigError, match="@joined has no option"):
            joined(**option)
    with pytest.raises(ConfigError, match="no argument 'other'"):
        joined(key="{other}")(lambda item: item)
    with pytest.raises(ConfigError, match="that is what joined functions have"):
        cache.define("joined", ttl=5)


def test_joined_wants_the_arguments_of_the_function(cache: Cache) -> None:
    report: Any = cache.joined(lambda year: year)
    with pytest.raises(TypeError, match="year"):
        report()
    assert report.joined_info().runs == 0
