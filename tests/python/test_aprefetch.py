"""`aprefetch`: a schedule that is a task, for coroutine functions on the loop and plain ones in the load pool.

Thread rule: a schedule waits between rounds until the test lets it go; loads wait for events of the test.
Refuses to know: what it has in common with `prefetch` (test_prefetch.py).
"""

from __future__ import annotations

import asyncio
import threading

from prefetching import LONG, Rounds, cache, figures, rounds
from steered import Down, Source
from stillwarm import (
    Cache,
    Prefetch,
    Prefetched,
    _aprefetch,
)
from stillwarm.testing import Clock

__all__ = ["cache", "rounds"]


async def test_aprefetch_refreshes_coroutine_functions_on_the_loop_and_plain_ones_in_the_pool(
    cache: Cache, rounds: Rounds, warm_clock: Clock
) -> None:
    where: list[tuple[str, str]] = []
    main = threading.current_thread().name

    @cache.cached
    async def score(asin: str) -> str:
        await asyncio.sleep(0)
        where.append((asin, threading.current_thread().name))
        return asin

    @cache.cached
    def plain(asin: str) -> str:
        where.append((asin, threading.current_thread().name))
        return asin

    with await cache.aprefetch([(score, "a"), (plain, "b"), (score, "c")], every=10) as schedule:
        await rounds.aone()
        assert where == [("a", main), ("b", "stillwarm-load-1"), ("c", main)]
        await rounds.aone()
        assert figures(schedule) == (2, 3, 0, 0)
        warm_clock.move(50)
        await rounds.aone()
        assert figures(schedule) == (3, 6, 0, 0)
        assert (await score("a"), plain("b")) == ("a", "b")
        assert (score.cache_info().misses, plain.cache_info().misses) == (0, 0)
    assert not schedule.running


async def test_aprefetch_failure_is_counted_and_keeps_the_value(
    cache: Cache, rounds: Rounds, warm_clock: Clock
) -> None:
    source = Source()

    @cache.cached
    async def load() -> int:
        return source()

    schedule = await cache.aprefetch([load], every=10)
    await rounds.aone()
    warm_clock.move(50)
    source.error = Down("no answer")
    await rounds.aone()
    assert schedule.figures() == Prefetched(2, 1, 1, 0, "Down: no answer")
    assert await load() == 1
    schedule.stop()


def test_aprefetch_ends_with_its_loop(cache: Cache, rounds: Rounds) -> None:
    ended: list[int] = []

    @cache.cached
    async def load() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(1)

    async def main() -> Prefetch:
        schedule = await cache.aprefetch([load], every=10)
        await asyncio.to_thread(rounds.begin)
        while cache.stats().flights == 0:
            await asyncio.sleep(0)
        assert schedule.running
        return schedule

    schedule = asyncio.run(main())
    assert ended == [1]
    assert not schedule.running
    assert cache._schedules == set()
    assert cache.stats().flights == 0
    schedule.stop()  # nothing


async def test_aprefetch_is_stopped_from_another_thread(cache: Cache) -> None:
    schedule = await cache.aprefetch([], every="1h")
    await asyncio.to_thread(cache.close)
    assert isinstance(schedule, _aprefetch.OnLoop)
    assert schedule._task is not None
    await asyncio.wait_for(schedule._task, LONG)
    assert not schedule.running


async def test_aprefetch_really_waits(cache: Cache) -> None:
    schedule = await cache.aprefetch([], every="10ms")
    while schedule.figures().runs < 3:
        await asyncio.sleep(0.001)
    schedule.stop()


async def test_aprefetch_that_is_started_anew_at_once_still_ends_with_the_cache(cache: Cache) -> None:
    @cache.cached
    async def one() -> int:
        return 1

    schedule = await cache.aprefetch([one], every=20)
    await asyncio.sleep(0)
    first = schedule._task  # type: ignore[attr-defined]
    schedule.stop()
    schedule.start()
    await asyncio.wait_for(first, LONG)
    await asyncio.sleep(0)  # its callbacks
    assert schedule.running
    cache.close()
    assert not schedule.running


async def test_aprefetch_a_load_that_cancels_itself_is_a_failure_and_ends_no_schedule(
    cache: Cache, rounds: Rounds
) -> None:
    """As one does that awaits a task which somebody else cancels."""

    @cache.cached
    async def cancelled() -> int:
        raise asyncio.CancelledError

    @cache.cached
    async def other() -> int:
        return 2

    schedule = await cache.aprefetch([cancelled, other], every=20)
    await rounds.aone()
    assert schedule.running
    assert other.cache_contains()
    assert figures(schedule) == (1, 1, 1, 0)
    assert schedule.figures().last_error == "CancelledError: raised by the function"
    schedule.stop()


def test_aprefetch_of_a_loop_that_was_closed_with_it_does_not_run_and_starts_on_another(
    cache: Cache, rounds: Rounds
) -> None:
    @cache.cached
    async def one() -> int:
        return 1

    loop = asyncio.new_event_loop()
    schedule = loop.run_until_complete(cache.aprefetch([one], every=20))
    first = schedule._task  # type: ignore[attr-defined]
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    assert not schedule.running

    async def again() -> bool:
        schedule.start()
        return schedule.running

    assert asyncio.run(again())
    first.get_coro().close()
