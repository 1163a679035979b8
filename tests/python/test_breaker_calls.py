"""What a guarded call may be, and how it ends: as a failure, an answer, or nothing at all.

Thread rule: one thread.
Refuses to know: when the circuit opens (test_breaker).
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import functools
import inspect
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
import requests

from guarding import Down, Source, Way, every_way, fail, opened
from stillwarm import CircuitBreaker, ConfigError, NotFound, transient
from stillwarm.breaker import Figures
from stillwarm.errors import CircuitOpen, LoadTimeout

pytestmark = pytest.mark.usefixtures("warm_clock")

# ---------------------------------------------------------------------------------------------- what counts as what


class NoAnswer(Exception):
    pass


class Older(Exception):
    """As those of asyncio and concurrent.futures were before Python 3.11."""


Older.__name__ = "TimeoutError"


@pytest.mark.parametrize(
    "error",
    [
        TimeoutError(),
        LoadTimeout(),
        asyncio.TimeoutError(),
        concurrent.futures.TimeoutError(),
        Older(),
        httpx.ReadTimeout("slow"),
        requests.ConnectTimeout(),
    ],
)
@pytest.mark.parametrize("on", [transient, NoAnswer, lambda exc: False], ids=["transient", "class", "never"])
def test_breaker_time_outs_count_whatever_on_says(on: Any, error: Exception) -> None:
    breaker = CircuitBreaker(on)
    for _ in range(5):
        with pytest.raises(type(error)):
            breaker.call(Source(error).ask)
    assert breaker.state == "open"


async def test_breaker_a_time_out_inside_counts_and_one_around_it_does_not() -> None:
    inside, around = CircuitBreaker(), CircuitBreaker()

    async def forever() -> None:
        await asyncio.Event().wait()

    for _ in range(5):
        with pytest.raises(asyncio.TimeoutError):
            async with inside:
                await asyncio.wait_for(forever(), 0)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(around.acall(forever), 0.001)
    assert inside.state == "open"
    assert around.figures() == Figures("closed", opened=0, refused=0, calls=0, failures=0, in_a_row=0)


@every_way
async def test_breaker_other_errors_are_answers(way: Way) -> None:
    breaker = CircuitBreaker()
    for error in (ValueError("no such product"), NotFound("gone"), KeyError("x"), PermissionError()):
        fail(breaker, 4)
        with pytest.raises(type(error)):
            await way(breaker, Source(error))
        assert breaker.figures().in_a_row == 0


def test_breaker_on_takes_classes_and_predicates() -> None:
    breaker = CircuitBreaker((NoAnswer, lambda exc: "busy" in str(exc)), consecutive=2)
    for error in (NoAnswer(), ValueError("busy")):
        with pytest.raises(type(error)):
            breaker.call(Source(error).ask)
    assert breaker.state == "open"
    assert repr(breaker).startswith("<CircuitBreaker (no name): open, on=(NoAnswer, ")


def test_breaker_a_predicate_that_raises_hides_no_error(caplog: pytest.LogCaptureFixture) -> None:
    def broken(exc: Exception) -> bool:
        raise RuntimeError("predicate")

    breaker = CircuitBreaker(broken, consecutive=1)
    with pytest.raises(Down):
        breaker.call(Source(Down).ask)
    assert breaker.state == "closed"
    assert "broken in CircuitBreaker(on=) raised; not counted" in caplog.text


@every_way
@pytest.mark.parametrize(
    "error",
    [asyncio.CancelledError, GeneratorExit, concurrent.futures.CancelledError, "KeyboardInterrupt", "SystemExit"],
)
async def test_breaker_what_is_no_error_says_nothing(way: Way, error: Any, warm_clock: Any) -> None:
    if isinstance(error, str):  # asyncio would end the run for the real ones
        error = type(error, (BaseException,), {})
    breaker = CircuitBreaker(consecutive=1, least_calls=0)
    with pytest.raises(error):
        await way(breaker, Source(error))
    assert breaker.figures().calls == 0
    fail(breaker)
    warm_clock.move("2s")
    with pytest.raises(error):
        await way(breaker, Source(error))  # as the probe
    assert breaker.state == "half-open"
    assert await way(breaker, Source()) == "ok", "the next one is the probe"
    assert breaker.state == "closed"


async def test_breaker_cancellation_frees_the_probe(warm_clock: Any) -> None:
    breaker = opened()
    warm_clock.move("2s")
    running = asyncio.Event()

    async def forever() -> None:
        running.set()
        await asyncio.Event().wait()

    task = asyncio.ensure_future(breaker.acall(forever))
    await running.wait()
    with pytest.raises(CircuitOpen):
        await breaker.acall(Source().aask)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await breaker.acall(Source().aask) == "ok"
    assert breaker.state == "closed"


def test_breaker_a_coroutine_that_is_dropped_frees_the_probe(warm_clock: Any) -> None:
    breaker = opened()
    warm_clock.move("2s")

    class Forever:
        def __await__(self) -> Iterator[None]:
            yield

    async def forever() -> None:
        await Forever()

    coroutine = breaker.acall(forever)
    contextvars.Context().run(coroutine.send, None)  # as a task does; here it would be inside of nothing
    with pytest.raises(CircuitOpen):
        breaker.call(Source().ask)
    coroutine.close()
    assert breaker.call(Source().ask) == "ok"


def test_breaker_results_of_before_the_opening_do_not_speak_for_the_probe(warm_clock: Any) -> None:
    """A slow call times out while the probe is under way: neither a success nor a failure of the probe's."""
    for slow_fails in (True, False):
        breaker = CircuitBreaker()
        slow = breaker._core.allow()
        assert slow is not None
        fail(breaker, 5)
        warm_clock.move("2s")
        with breaker:
            _ = slow.failed() if slow_fails else slow.succeeded()
            assert breaker.state == "half-open"
        assert breaker.state == "closed"


# ------------------------------------------------------------------------------------------------------------ decorator


def test_breaker_decorator_keeps_the_function() -> None:
    breaker = CircuitBreaker()

    class Shop:
        @breaker
        def price(self, asin: str, *, domain: int = 1) -> str:
            """The price."""
            return f"{asin}@{domain}"

        @breaker
        async def aprice(self, asin: str) -> str:
            return asin

        @classmethod
        @breaker
        def of(cls, asin: str) -> str:
            return cls.__name__ + asin

        @staticmethod
        @breaker
        def plain(asin: str) -> str:
            return asin

    assert Shop().price("B07", domain=2) == "B07@2"
    assert asyncio.run(Shop().aprice("B07")) == "B07"
    assert (Shop.of("B07"), Shop.plain("B07")) == ("ShopB07", "B07")
    assert (Shop.price.__doc__, Shop.price.__name__) == ("The price.", "price")
    assert list(inspect.signature(Shop.price).parameters) == ["self", "asin", "domain"]
    assert inspect.iscoroutinefunction(Shop.aprice)
    assert not inspect.iscoroutinefunction(Shop.price)
    assert breaker.figures().calls == 4
    assert breaker(lambda *a, **k: (a, k))(1, fn=2, self=3) == ((1,), {"fn": 2, "self": 3})
    assert breaker.call(lambda *a, **k: (a, k), 1, fn=2, self=3) == ((1,), {"fn": 2, "self": 3})


def test_breaker_decorator_takes_callable_objects() -> None:
    class Plain:
        def __call__(self) -> str:
            return "plain"

    class Async:
        async def __call__(self) -> str:
            return "async"

    breaker = CircuitBreaker()
    assert breaker(Plain())() == "plain"
    assert asyncio.run(breaker(Async())()) == "async"
    assert breaker(functools.partial(Source().ask, "part"))() == "part"
    assert asyncio.run(breaker(functools.partial(Source().aask, "part"))()) == "part"
    assert breaker.figures().calls == 4


def generator() -> Iterator[int]:
    yield 1


async def agenerator() -> AsyncIterator[int]:
    yield 1


class Generating:
    def __call__(self) -> Iterator[int]:
        yield 1


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (Generating(), "is a generator function"),
        (generator, "generator is a generator function: it runs after its call has returned"),
        (agenerator, "agenerator is a generator function"),
        (functools.partial(generator), "is a generator function"),
        (Source, "cannot be guarded; accepted: a function, coroutine function or method"),
        (7, "function=7: cannot be guarded"),
        (classmethod(lambda cls: 1), "a classmethod; accepted: .*; put the breaker below it"),
        (staticmethod(lambda: 1), "a staticmethod; accepted"),
    ],
    ids=lambda value: "" if isinstance(value, str) else None,
)
def test_breaker_decorator_refuses(function: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        CircuitBreaker()(function)


@pytest.mark.filterwarnings("error")
async def test_breaker_the_wrong_call_is_refused_and_frees_the_probe(warm_clock: Any) -> None:
    breaker = opened()
    warm_clock.move("2s")
    with pytest.raises(ConfigError, match=r"a coroutine function; accepted: .*acall"):
        breaker.call(Source().aask)
    with pytest.raises(ConfigError, match=r"accepted: a coroutine function; CircuitBreaker.call\(\)"):
        await breaker.acall(Source().ask)  # type: ignore[arg-type]
    assert breaker.state == "half-open"
    assert breaker.call(Source().ask) == "ok"


@pytest.mark.parametrize("function", [generator, agenerator, Generating(), functools.partial(generator)])
def test_breaker_call_refuses_generator_functions_and_frees_the_probe(function: Any, warm_clock: Any) -> None:
    breaker = opened()
    warm_clock.move("2s")
    with pytest.raises(ConfigError, match="it runs after its call has returned"):
        breaker.call(function)
    assert list(breaker.call(lambda: generator())) == [1], "a function may return what it did not make"
    assert breaker.state == "closed"


def test_breaker_ctrl_c_in_a_predicate_frees_the_probe(warm_clock: Any) -> None:
    def says(error: Exception) -> bool:
        if breaker.state == "half-open":
            raise KeyboardInterrupt
        return True

    breaker = CircuitBreaker(on=says)
    fail(breaker, 5)
    warm_clock.move("2s")
    with pytest.raises(KeyboardInterrupt) as caught:
        breaker.call(Source(Down).ask)
    assert breaker.call(Source().ask) == "ok"
    assert breaker.state == "closed"
    assert isinstance(caught.value.__context__, Down), "it is kept, with all the frames that it went through"
