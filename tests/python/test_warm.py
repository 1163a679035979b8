"""Warming up: everything is called, a few at a time, the cache says WARMING meanwhile, and failures keep nobody back.

Thread rule: calls wait for events that the test sets.
Refuses to know: what a warm-up is good for.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import Any

import pytest

from stillwarm import Cache, ConfigError, State, Warmed


@pytest.fixture
def cache() -> Any:
    with Cache(ttl=60) as cache:
        yield cache


def test_warm_calls_everything_once_and_its_values_are_there(cache: Cache) -> None:
    calls: list[Any] = []

    @cache.cached
    def score(asin: str, domain: int = 1) -> str:
        calls.append((asin, domain))
        return asin

    warmed = cache.warm([(score, "a"), (score, "b", 2), lambda: calls.append("plain")])
    assert warmed[:2] == (3, 0)
    assert isinstance(warmed, Warmed)
    assert sorted(calls, key=str) == [("a", 1), ("b", 2), "plain"]
    assert (score("a"), score("b", 2)) == ("a", "b")
    assert score.cache_info().hits == 2
    assert len(calls) == 3


def test_warm_is_warming_until_it_ends_and_healthy_before_and_after(cache: Cache) -> None:
    inside, go, seen = threading.Event(), threading.Event(), []

    def slow() -> None:
        seen.append(cache.stats().state)
        inside.set()
        assert go.wait(30)

    assert cache.state is State.HEALTHY
    warming = threading.Thread(target=cache.warm, args=([slow],))
    warming.start()
    assert inside.wait(30)
    assert cache.state is State.WARMING
    cache.warm([lambda: None])  # one that ends does not end the other
    assert cache.state is State.WARMING
    go.set()
    warming.join(30)
    assert cache.state is State.HEALTHY
    assert seen == [State.WARMING]


def test_warm_runs_as_many_at_once_as_it_was_told(cache: Cache) -> None:
    together, most = threading.Barrier(3), []
    running, lock = 0, threading.Lock()

    def call() -> None:
        nonlocal running
        with lock:
            running += 1
            most.append(running)
        together.wait(30)  # passes only if three are here at once
        with lock:
            running -= 1
        together.wait(30)

    assert cache.warm([call] * 9, at_once=3)[:2] == (9, 0)
    assert max(most) == 3


def test_warm_tells_its_progress_on_the_callers_thread(cache: Cache) -> None:
    told: list[Any] = []
    cache.warm([lambda: None] * 5, progress=lambda *so_far: told.append((*so_far, threading.current_thread())))
    assert told == [(done, 5, threading.current_thread()) for done in range(1, 6)]


def test_warm_failure_is_logged_and_counted_and_the_rest_goes_on(
    cache: Cache, caplog: pytest.LogCaptureFixture
) -> None:
    done: list[int] = []

    def call(n: int) -> None:
        if n % 2:
            raise ConnectionError("refused")
        done.append(n)

    with caplog.at_level(logging.WARNING, "stillwarm"):
        assert cache.warm([(call, n) for n in range(5)])[:2] == (3, 2)
    assert sorted(done) == [0, 2, 4]
    assert len(caplog.records) == 2
    assert all("ConnectionError('refused')" in record.getMessage() for record in caplog.records)
    assert cache.state is State.HEALTHY


def test_warm_that_its_progress_breaks_off_starts_no_more(cache: Cache) -> None:
    started: list[int] = []
    threads: set[threading.Thread] = set()

    def call(n: int) -> None:
        threads.add(threading.current_thread())
        started.append(n)

    def progress(done: int, of: int) -> None:
        raise KeyboardInterrupt

    gate = threading.Event()
    with pytest.raises(KeyboardInterrupt):
        cache.warm([(call, 0), gate.wait, (call, 1), (call, 2)], at_once=1, progress=progress)
    gate.set()
    for thread in threads:
        thread.join(30)
    assert started == [0]
    assert cache.state is State.HEALTHY


@pytest.mark.parametrize("work", [7, "text", [7], [()], [("f", 1)], None])
def test_warm_refuses_what_cannot_be_called_before_it_calls_anything(cache: Cache, work: Any) -> None:
    called: list[int] = []
    if isinstance(work, list):
        work = [lambda: called.append(1), *work]
    with pytest.raises(ConfigError, match="accepted: a"):
        cache.warm(work)
    with pytest.raises(ConfigError, match="at_once=0"):
        cache.warm([print], at_once=0)
    assert called == []


def test_warm_of_nothing_is_done_at_once(cache: Cache) -> None:
    assert cache.warm([])[:2] == (0, 0)
    assert asyncio.run(cache.awarm([]))[:2] == (0, 0)


def test_warm_names_the_way_for_coroutine_functions(cache: Cache) -> None:
    @cache.cached
    async def score(asin: str) -> str:
        return asin

    with pytest.raises(ConfigError, match=r"await cache\.awarm"):
        cache.warm([(score, "a")])


def test_warm_with_the_cache_off_calls_nothing() -> None:
    with Cache(ttl=60, enabled=False) as cache:
        called: list[int] = []
        assert cache.warm([lambda: called.append(1)])[:2] == (0, 0)
        assert called == []


async def test_warm_async_takes_coroutine_functions_and_plain_ones(cache: Cache) -> None:
    states: list[State] = []
    loop_thread = threading.current_thread()

    @cache.cached
    async def score(asin: str) -> str:
        states.append(cache.state)
        assert threading.current_thread() is loop_thread
        return asin

    @cache.cached
    def plain(n: int) -> int:
        assert threading.current_thread() is not loop_thread
        return n

    async def fails() -> None:
        raise ConnectionError("refused")

    told: list[tuple[int, int]] = []
    work = [(score, "a"), (score, "b"), (plain, 1), fails]
    assert (await cache.awarm(work, progress=lambda *so_far: told.append(so_far)))[:2] == (3, 1)
    assert sorted(told) == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert states == [State.WARMING] * 2
    assert cache.state is State.HEALTHY
    assert (await score("a"), plain(1)) == ("a", 1)
    assert (score.cache_info().hits, plain.cache_info().hits) == (1, 1)


async def test_warm_async_that_is_cancelled_cancels_what_runs(cache: Cache) -> None:
    began, ended = asyncio.Event(), []

    async def endless() -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    warming = asyncio.ensure_future(cache.awarm([endless, endless, endless], at_once=2))
    await began.wait()
    assert cache.state is State.WARMING
    warming.cancel()
    with pytest.raises(asyncio.CancelledError):
        await warming
    assert cache.state is State.HEALTHY
    assert ended == [True] * len(ended)
    assert len(ended) in (1, 2)  # the third never began
