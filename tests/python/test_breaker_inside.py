"""A circuit breaker among others: inside itself, under a cache, beside a Retry, in generators.

Thread rule: threads and tasks where a call is inside of another one; the clock is moved by hand.
Refuses to know: when the circuit opens (test_breaker), which errors are failures (test_breaker_calls).
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from flaky import ending
from guarding import Down, Source, fail, opened
from stillwarm import Cache, CircuitBreaker, Retry, _core, _inside, define_budget, transient
from stillwarm.errors import CircuitOpen
from stillwarm.testing import without_waiting

pytestmark = pytest.mark.usefixtures("warm_clock")


def counted(breaker: CircuitBreaker) -> tuple[int, int]:
    return breaker.figures().calls, breaker.figures().failures


# ------------------------------------------------------------------------------------------------------- inside itself


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_breaker_inside_itself_counts_one_failure_once(depth: int) -> None:
    breaker = CircuitBreaker()

    @breaker
    def walk(level: int) -> None:
        if level == 1:
            raise Down
        with breaker:
            walk(level - 1)

    with pytest.raises(Down):
        walk(depth)
    assert counted(breaker) == (1, 1)


def test_breaker_inside_itself_is_one_probe(warm_clock: Any) -> None:
    breaker = opened()
    warm_clock.move("2s")
    with breaker:
        assert breaker.call(Source().ask) == "ok"
        assert breaker.state == "closed", "the innermost has spoken"
    assert counted(breaker) == (0, 0), "and the outer one has nothing to add"


def test_breaker_inside_itself_a_failed_probe_opens_it_once(warm_clock: Any) -> None:
    breaker = opened()
    warm_clock.move("2s")
    with pytest.raises(Down), breaker, breaker:
        raise Down
    assert (breaker.state, breaker.retry_in) == ("open", 4)


def test_breaker_inside_itself_with_another_one_between(warm_clock: Any) -> None:
    breaker, other = opened(), CircuitBreaker()
    warm_clock.move("2s")
    with breaker:
        with other:
            pass
        with other, breaker:  # the probe's permission reaches through
            pass
        assert breaker.state == "closed"
    assert (counted(breaker), counted(other)) == ((0, 0), (2, 0))
    assert _inside._inside.get() is None, "nothing is left behind"


def test_breaker_further_calls_inside_ask_for_themselves() -> None:
    """A loop in a block is not one call that goes on through an open circuit."""
    breaker, source = CircuitBreaker(), Source(Down)
    with breaker:
        for expected in [Down] * 5 + [CircuitOpen] * 15:
            with pytest.raises(expected):
                breaker.call(source.ask)
    assert source.calls == 5
    assert counted(breaker) == (5, 5)


def test_breaker_the_outer_call_reports_what_no_inner_one_has() -> None:
    breaker = CircuitBreaker()
    with pytest.raises(Down), breaker:
        raise Down
    with breaker, pytest.raises(KeyboardInterrupt):
        breaker.call(Source(KeyboardInterrupt).ask)  # its permission is gone, and said nothing
    assert counted(breaker) == (1, 1)


async def test_breaker_a_time_out_around_an_inner_call_counts_for_the_outer_one() -> None:
    breaker = CircuitBreaker(consecutive=3)
    for _ in range(3):
        with pytest.raises((TimeoutError, asyncio.TimeoutError)):
            async with breaker:
                await asyncio.wait_for(breaker.acall(asyncio.Event().wait), 0.01)  # which only cancels it
    assert counted(breaker) == (3, 3)
    assert breaker.state == "open"


def test_breaker_an_abandoned_inner_probe_is_under_way_until_the_outer_one_ends(warm_clock: Any) -> None:
    breaker = opened()
    warm_clock.move("2s")
    with breaker:
        with pytest.raises(KeyboardInterrupt):
            breaker.call(Source(KeyboardInterrupt()).ask)
        with pytest.raises(CircuitOpen):
            contextvars.Context().run(breaker.call, Source().ask)
    assert breaker.state == "half-open", "that the block went on says nothing of what it wanted to know"
    assert breaker.call(Source().ask) == "ok"
    assert breaker.state == "closed"


async def test_breaker_tasks_that_each_begin_the_next_keep_nothing_of_those_before() -> None:
    breaker = CircuitBreaker()
    depths: list[int] = []
    tasks: list[asyncio.Task[None]] = []

    async def one(number: int) -> None:
        async with breaker:
            link: Any = _inside._inside.get()
            depths.append(0)
            while link is not None:
                depths[-1], link = depths[-1] + 1, link[1]
            if number:
                begun = asyncio.Event()
                tasks.append(asyncio.create_task(begin(begun, number - 1)))
                await begun.wait()

    async def begin(begun: asyncio.Event, number: int) -> None:
        running = asyncio.ensure_future(one(number))
        await asyncio.sleep(0)
        begun.set()
        await running

    await one(30)
    while not all(task.done() for task in tasks):  # each begins another one
        await asyncio.gather(*tasks)
    assert len(depths) == 31
    assert max(depths) <= 3


async def test_breaker_tasks_inside_a_probe_share_it(warm_clock: Any) -> None:
    breaker = opened()
    warm_clock.move("2s")
    async with breaker:
        one, other = await asyncio.gather(
            breaker.acall(Source().aask), breaker.acall(Source().aask), return_exceptions=True
        )
    assert one == "ok"
    assert isinstance(other, CircuitOpen), "one call at a time"
    assert breaker.state == "closed"


async def test_breaker_a_task_that_outlives_the_block_is_not_inside_it() -> None:
    breaker, go = CircuitBreaker(), asyncio.Event()

    async def later() -> str:
        await go.wait()
        return await breaker.acall(Source().aask)

    async with breaker:
        task = asyncio.ensure_future(later())
        await asyncio.sleep(0)
    fail(breaker, 5)
    go.set()
    with pytest.raises(CircuitOpen):
        await task


async def test_breaker_inside_reaches_into_to_thread() -> None:
    breaker = CircuitBreaker()
    async with breaker:
        assert await asyncio.to_thread(breaker.call, Source().ask) == "ok"
    assert counted(breaker) == (1, 0)


def test_breaker_another_ones_circuit_open_says_nothing(warm_clock: Any) -> None:
    outer, inner = CircuitBreaker(consecutive=1), opened(open_most="1h", open_for="1h")
    for _ in range(3):
        with pytest.raises(CircuitOpen):
            outer.call(inner.call, Source().ask)
    assert counted(outer) == (0, 0)
    named = CircuitBreaker((transient, CircuitOpen), consecutive=1)
    with pytest.raises(CircuitOpen):
        named.call(inner.call, Source().ask)
    assert named.state == "open", "unless it is named"


# ---------------------------------------------------------------------------------------------------------- generators


def test_breaker_a_block_that_is_left_in_another_context_is_reported() -> None:
    """As frameworks run the two halves of a generator: each on whatever thread, in a copy of the context."""
    breaker = CircuitBreaker()

    @contextmanager
    def guarded() -> Iterator[None]:
        with breaker:
            yield

    for _ in range(5):
        block = guarded()
        contextvars.copy_context().run(block.__enter__)
        assert counted(breaker)[0] < 5
        error = Down()
        assert not contextvars.copy_context().run(block.__exit__, Down, error, None)
    assert counted(breaker) == (5, 5)
    assert breaker.state == "open"
    assert not breaker._blocks


def test_breaker_a_call_that_was_interrupted_before_it_could_end_frees_the_probe(warm_clock: Any) -> None:
    breaker = opened()
    warm_clock.move("2s")
    context = contextvars.Context()
    begun = context.run(breaker._begin)  # and here comes Ctrl-C
    with pytest.raises(CircuitOpen):
        breaker.call(Source().ask)
    del begun
    assert breaker.call(Source().ask) == "ok", "though the context is still there"
    assert context.run(breaker.call, Source().ask) == "ok"


def test_breaker_blocks_that_overlap_in_one_context_report_each() -> None:
    breaker, other = CircuitBreaker(), CircuitBreaker()

    @contextmanager
    def guarded(by: CircuitBreaker) -> Iterator[None]:
        with by:
            yield

    one, two = guarded(breaker), guarded(other)
    with one:
        two.__enter__()
    two.__exit__(None, None, None)  # entered last, left last
    assert (counted(breaker), counted(other)) == ((1, 0), (1, 0))
    breaker.call(Source().ask)
    assert counted(breaker) == (2, 0)
    breaker.__exit__(None, None, None)  # without having been entered
    assert counted(breaker) == (2, 0)


# -------------------------------------------------------------------------------------------------------- under a cache


@pytest.mark.parametrize("guarded", [True, False], ids=["guarded", "naive"])
def test_breaker_under_a_cache_serves_stale_and_lets_nothing_through(
    warm_cache: Cache, warm_clock: Any, guarded: bool
) -> None:
    source, breaker = Source(), CircuitBreaker(name="prices", open_for="1m", open_most="1m")
    ask = breaker(source.ask) if guarded else source.ask

    @warm_cache.cached(ttl="10s", stale_if_error="1h")
    def price(asin: str) -> str:
        return ask()

    names = [str(n) for n in range(30)]
    for asin in names:
        price(asin)
    source.error, source.calls = Down("away"), 0
    warm_clock.move("11s")
    assert [price(asin) for asin in names] == ["ok"] * 30, "every caller has an answer"
    assert source.calls == (5 if guarded else 30), "what is down is asked by each caller, if nobody keeps them away"
    if guarded:
        assert breaker.state == "open"
        with pytest.raises(CircuitOpen, match="circuit 'prices' is open"):
            price("never loaded")
        source.error = None
        warm_clock.move("1m")
        assert [price(asin) for asin in names] == ["ok"] * 30
        assert breaker.state == "closed"
        assert source.calls == 5 + 30


async def test_breaker_under_a_cache_of_coroutines(warm_cache: Cache, warm_clock: Any) -> None:
    source, breaker = Source(), CircuitBreaker()

    @warm_cache.cached(ttl="10s", stale_if_error="1h")
    @breaker
    async def price(asin: int) -> str:
        return await source.aask()

    for asin in range(20):
        await price(asin)
    source.error, source.calls = Down("away"), 0
    warm_clock.move("11s")
    assert [await price(asin) for asin in range(20)] == ["ok"] * 20
    assert (source.calls, breaker.figures().refused) == (5, 15)


# ------------------------------------------------------------------------------------------------------- beside a Retry


def test_breaker_in_a_retry_stops_it_and_costs_it_nothing() -> None:
    define_budget("test-breaker", tokens=10)
    policy = Retry(on=transient, retries=20, budget="test-breaker", jitter=0)
    breaker, source = CircuitBreaker(name="prices"), Source(Down)
    with without_waiting() as waits:
        with pytest.raises(CircuitOpen) as caught:
            policy.call(breaker.call, source.ask)
        assert (source.calls, len(waits)) == (5, 5)
        assert ending(caught.value) == "6 attempts; stopped: circuit open"
        for _ in range(100):
            with pytest.raises(CircuitOpen) as caught:
                policy.call(breaker.call, source.ask)
        assert (source.calls, len(waits)) == (5, 5)
        assert _core.budgets()["test-breaker"][0] == 5_000
    assert ending(caught.value) == "1 attempt; stopped: circuit open"


def test_breaker_in_a_retry_that_names_circuit_open_is_waited_for(warm_clock: Any) -> None:
    policy = Retry(on=(transient, CircuitOpen), retries=3, jitter=0, budget=None)
    breaker = opened(open_for="7s")
    with without_waiting(sleep=warm_clock.move) as waits:
        assert policy.call(breaker.call, Source().ask) == "ok"
    assert waits == [7.0], "as long as the circuit asks for"


def test_breaker_around_a_retry_sees_one_call() -> None:
    breaker, source = CircuitBreaker(), Source(Down)
    with without_waiting(), pytest.raises(Down):
        breaker.call(Retry(on=transient, retries=3).call, source.ask)
    assert source.calls == 4
    assert counted(breaker) == (1, 1)


def test_breaker_stops_only_say_circuit_open_for_the_last_error() -> None:
    attempts = Retry(on=transient, retries=0).start()
    assert attempts.failed(CircuitOpen()) is None
    assert attempts.stopped == "circuit open"
    assert attempts.failed(Down()) is None
    assert attempts.stopped == "retries exhausted"


# ------------------------------------------------------------------------------------------------------------- plugin


def test_breaker_is_closed_between_tests() -> None:
    from stillwarm import testing

    breaker = opened()
    testing.reset()
    assert breaker.state == "closed"
