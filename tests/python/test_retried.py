"""Functions under @retry: what they are, how they bind, what is refused.

Thread rule: one thread, and loops of its own.
Refuses to know: how often and how long (test_retry.py), the awaitable of a coroutine (test_retried_coroutines.py),
nested retries and figures (test_retried_nested.py).
"""

from __future__ import annotations

import asyncio
import copy
import inspect
import pickle
import re
import weakref
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

import stillwarm
from flaky import Source
from stillwarm import Retry, retry, transient
from stillwarm.errors import ConfigError
from stillwarm.testing import without_waiting


@pytest.fixture(autouse=True)
def waits() -> Iterator[list[float]]:
    with without_waiting(random=lambda: 0.5) as seen:
        yield seen


@retry(on=transient)
def module_level(x: int, *, y: int = 2) -> int:
    """Adds."""
    return x + y


@retry(on=transient)
async def amodule_level(x: int) -> int:
    return x


# --------------------------------------------------------------------------------------------------- what it is, binds


def test_retried_function_keeps_what_it_was() -> None:
    assert module_level(1) == 3
    assert (module_level.__name__, module_level.__doc__) == ("module_level", "Adds.")
    assert module_level.__wrapped__(1) == 3  # type: ignore[attr-defined]
    assert str(inspect.signature(module_level)) == "(x: 'int', *, y: 'int' = 2) -> 'int'"
    assert pickle.loads(pickle.dumps(module_level)) is module_level
    assert copy.deepcopy(module_level) is module_level
    assert not inspect.iscoroutinefunction(module_level)
    assert inspect.iscoroutinefunction(amodule_level)
    assert "module_level" in repr(module_level)
    assert module_level.policy.name == f"{__name__}.module_level"  # type: ignore[attr-defined]
    assert weakref.ref(module_level)() is module_level


@pytest.mark.parametrize("failures", [0, 2])
def test_retried_arguments_come_again_as_they_were(failures: int, waits: list[float]) -> None:
    for call in (Source(failures), Source(failures).later):
        f = retry(on=transient)(call)
        result = f(1, "b", c=[3], d=None)
        if inspect.isawaitable(result):
            result = asyncio.run(result)  # type: ignore[arg-type]
        assert result == ((1, "b"), {"c": [3], "d": None})


def test_retried_methods_have_their_self() -> None:
    class Shop:
        calls = 0

        @retry(on=transient)
        def price(self, asin: str) -> tuple[Shop, str]:
            self.calls += 1
            if self.calls == 1:
                raise ConnectionError
            return self, asin

        @classmethod
        @retry(on=transient)
        def named(cls) -> type:
            return cls

        @staticmethod
        @retry(on=transient)
        def free(x: int) -> int:
            return x

        @retry(on=transient)
        async def later(self) -> Shop:
            return self

    shop = Shop()
    assert shop.price("a") == (shop, "a")
    assert Shop.price(shop, "b") == (shop, "b")
    assert (shop.calls, Shop.named(), shop.free(1), asyncio.run(shop.later())) == (3, Shop, 1, shop)
    bound = shop.price
    assert bound("c") == (shop, "c")


def test_retried_over_a_cached_function_and_under_one() -> None:
    cache = stillwarm.Cache()
    source = Source(2)

    @cache.cached(ttl=60)
    @retry(on=transient)
    def inner(x: int) -> Any:
        return source(x)

    assert inner(1) == inner(1) == ((1,), {})
    assert source.calls == 3
    again = Source(1)

    @retry(on=transient)
    @cache.cached(ttl=60, key="outer:{x}")
    async def outer(x: int) -> Any:
        return await again.later(x)

    async def run() -> None:
        assert await outer(1) == await outer(1) == ((1,), {})

    asyncio.run(run())
    assert again.calls == 2


def test_retried_by_a_policy_of_ones_own() -> None:
    class Always(Retry):
        def retryable(self, exc: BaseException) -> bool:
            return True

    policy = Always(on=transient, retries=2)
    f = policy(Source(2, ValueError))
    assert f() == ((), {})
    assert type(f.policy) is Always
    assert copy.deepcopy(policy) is policy


def test_retried_call_does_not_keep_what_failed_through_its_wait() -> None:
    class Thing:
        pass

    things: list[weakref.ref[Thing]] = []

    @retry(on=transient)
    def f() -> bool:
        if not things:
            thing = Thing()
            things.append(weakref.ref(thing))
            raise ConnectionError
        return things[0]() is None

    assert f()


# ------------------------------------------------------------------------------------------------------------ bad input


def generator() -> Iterator[int]:
    yield 1


async def agenerator() -> AsyncIterator[int]:
    yield 1


@pytest.mark.parametrize("function", [generator, agenerator, int, 3, staticmethod(generator), classmethod(generator)])
def test_retried_must_be_a_function(function: Any) -> None:
    with pytest.raises(ConfigError, match=re.compile("accepted|above it")):
        retry(on=transient)(function)


def test_retried_without_on_says_what_to_write() -> None:
    with pytest.raises(ConfigError, match=r"on= has no default.*@retry\(on=transient\)"):
        retry(generator)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="on= has no default"):
        retry()


def test_retried_plain_function_that_returns_a_coroutine_is_refused() -> None:
    source = Source()
    f = retry(on=transient)(lambda: source.later())
    with pytest.raises(TypeError, match="put @retry on the coroutine function itself"):
        f()


def test_retried_plain_function_that_returns_an_awaitable_of_ours_is_refused() -> None:
    cache = stillwarm.Cache()
    hit = cache.cached(ttl=60, key="hit")(amodule_level)
    asyncio.run(hit(1))
    for function in (lambda: amodule_level(1), lambda: hit(1)):
        with pytest.raises(TypeError, match="put @retry on the coroutine function itself"):
            retry(on=transient)(function)()
        with pytest.raises(ConfigError, match=r"await Retry\.acall"):
            Retry(on=transient).call(function)


def test_retried_plain_function_takes_no_attempt_timeout() -> None:
    with pytest.raises(ConfigError, match="nothing can interrupt it"):
        retry(on=transient, attempt_timeout=1)(Source())
    with pytest.raises(ConfigError, match="nothing can interrupt it"):
        Retry(on=transient, attempt_timeout=1).call(Source())
    with pytest.raises(ConfigError, match="attempt_timeout= and a block"):
        iter(Retry(on=transient, attempt_timeout=1))


def test_retry_block_in_a_coroutine_must_be_async() -> None:
    async def wrong() -> None:
        for attempt in Retry(on=transient):
            with attempt:
                return

    with pytest.raises(ConfigError, match="async for attempt"):
        asyncio.run(wrong())


def test_retry_block_body_must_stand_under_the_attempt() -> None:
    with pytest.raises(ConfigError, match="under `with attempt:`"):
        for _ in Retry(on=transient):
            pass
    first = next(iter(Retry(on=transient)))
    with first, pytest.raises(ConfigError, match="entered once"):
        first.__enter__()


def test_retry_block_counts_its_attempts() -> None:
    source, numbers = Source(2), []
    for attempt in Retry(on=transient):
        with attempt:
            numbers.append(attempt.number)
            source()
    assert numbers == [1, 2, 3]
