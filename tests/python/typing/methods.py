"""Cached methods, class methods and static methods as a type checker sees them, with the decorators in either order.

Thread rule: never run.
Refuses to know: what happens at run time.
"""

from __future__ import annotations

from typing_extensions import assert_type

from stillwarm import Cache, CacheInfo

cache = Cache(ttl="5m")


class Shop:
    @cache.cached()
    def price(self, name: str) -> float:
        return 1.0

    @cache.cached()
    async def aprice(self, name: str, *, gross: bool = False) -> float:
        return 1.0

    @classmethod
    @cache.cached()
    def count(cls, of: int) -> int:
        return of

    @cache.cached()
    @classmethod
    def count2(cls, of: int) -> int:
        return of

    @classmethod
    @cache.cached()
    async def acount(cls, of: int) -> int:
        return of

    @staticmethod
    @cache.cached()
    def tax(country: str) -> float:
        return 1.0

    @cache.cached()
    @staticmethod
    def tax2(country: str) -> float:
        return 1.0


class Branch(Shop):
    pass


shop, branch = Shop(), Branch()

# through an instance there is no self any more
assert_type(shop.price("a"), float)
assert_type(branch.price(name="a"), float)
assert_type(Shop.price(shop, "a"), float)
shop.price(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
shop.price(shop, "a")  # type: ignore[call-arg, arg-type]  # pyright: ignore[reportCallIssue]
Shop.price("a")  # type: ignore[call-arg, arg-type]  # pyright: ignore[reportCallIssue]

# but what it carries asks for all arguments
assert_type(shop.price.cache_info(), CacheInfo)
assert_type(shop.price.cache_key(shop, "a"), str)
assert_type(Shop.price.cache_key(shop, "a"), str)
assert_type(Shop.price.cache_invalidate(shop, "a"), bool)
assert_type(shop.price.refresh(shop, "a"), float)
shop.price.cache_key("a")  # type: ignore[call-arg, arg-type]  # pyright: ignore[reportCallIssue]


async def coroutines() -> None:
    assert_type(await shop.aprice("a", gross=True), float)
    assert_type(await branch.aprice("a"), float)
    assert_type(await Shop.acount(1), int)
    assert_type(await Shop.aprice.refresh(shop, "a"), float)
    await shop.aprice(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


# class methods
assert_type(Shop.count(1), int)
assert_type(Shop.count2(of=1), int)
assert_type(shop.count(1), int)
assert_type(Branch.count(1), int)
assert_type(Shop.count.cache_info(), CacheInfo)
Shop.count("a")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

# static methods
assert_type(Shop.tax("a"), float)
assert_type(Shop.tax2("a"), float)
assert_type(shop.tax(country="a"), float)
assert_type(Shop.tax.cache_key("a"), str)
Shop.tax(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
