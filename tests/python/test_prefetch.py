"""`prefetch`: values are there before they expire, on the load pool, whatever fails, and nothing is held up by it.

Thread rule: a schedule waits between rounds until the test lets it go; loads wait for events of the test.
Refuses to know: how a refresh runs; test_freshness.py and test_failing_loads.py are about that.
"""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from steered import Down, Source, cached
from stillwarm import (
    Cache,
    ConfigError,
    Prefetch,
    Prefetched,
    Retry,
    _aprefetch,
    _pool,
    _prefetch,
    _waiting,
    current_load,
)
from stillwarm.testing import Clock, PostgresServer

LONG = 20  # s; what a test that hangs waits


class Rounds:
    """Lets one round after the other go; `waits` are the times in seconds that a schedule would have waited."""

    def __init__(self) -> None:
        self.waits: list[float] = []
        self._go = threading.Semaphore(0)
        self._waiting = threading.Semaphore(0)

    def pause(self, stop: threading.Event, seconds: float) -> bool:
        self.waits.append(seconds)
        self._waiting.release()
        while not self._go.acquire(timeout=0.005):
            if stop.is_set():
                return True
        return stop.is_set()

    async def apause(self, stop: asyncio.Event, seconds: float) -> bool:
        self.waits.append(seconds)
        self._waiting.release()
        while not self._go.acquire(blocking=False):
            if stop.is_set():
                return True
            await asyncio.sleep(0.001)
        return stop.is_set()

    def begin(self) -> None:
        assert self._waiting.acquire(timeout=LONG)
        self._go.release()

    def ended(self) -> None:
        assert self._waiting.acquire(timeout=LONG)
        self._waiting.release()

    def one(self) -> None:
        self.begin()
        self.ended()

    async def aone(self) -> None:
        await asyncio.to_thread(self.one)


@pytest.fixture(name="rounds")
def _rounds(monkeypatch: pytest.MonkeyPatch) -> Rounds:
    rounds = Rounds()
    monkeypatch.setattr(_prefetch, "pause", rounds.pause)
    monkeypatch.setattr(_aprefetch, "apause", rounds.apause)
    return rounds


@pytest.fixture(name="cache")
def _cache(warm_clock: Clock) -> Iterator[Cache]:
    with Cache(ttl=60, jitter=0) as cache:
        yield cache
    until(lambda: not [thread for thread in threading.enumerate() if thread.name == "stillwarm-prefetch"])


def until(condition: Callable[[], bool]) -> None:
    for _ in range(4000):
        if condition():
            return
        threading.Event().wait(0.005)
    raise AssertionError("it never came to that")


def figures(schedule: Prefetch) -> tuple[int, int, int, int]:
    done = schedule.figures()
    return done.runs, done.refreshed, done.failed, done.skipped


# ----------------------------------------------------------------------------------------------- before values expire


def test_prefetch_refreshes_before_the_value_expires(cache: Cache, rounds: Rounds, warm_clock: Clock) -> None:
    source = Source()
    load = cached(cache, source)
    schedule = cache.prefetch([(load, "a")], every=10)
    rounds.one()
    assert (source.calls, figures(schedule)) == (1, (1, 1, 0, 0)), "what is missing is loaded"
    warm_clock.move(40)
    rounds.one()
    assert (source.calls, figures(schedule)) == (1, (2, 1, 0, 0)), "20 s to go: more than one and a half rounds"
    warm_clock.move(10)
    rounds.one()
    assert (source.calls, figures(schedule)) == (2, (3, 2, 0, 0))
    warm_clock.move(55)
    assert load("a") == 2
    assert load.cache_info().misses == 0, "nobody ever waited"
    assert load.cache_info().hits == 1


def test_prefetch_control_without_it_the_caller_waits(cache: Cache, warm_clock: Clock) -> None:
    source = Source()
    load = cached(cache, source, stale_if_error=0)
    load("a")
    warm_clock.move(61)
    assert load("a") == 2
    assert load.cache_info().misses == 2


def test_prefetch_early_says_how_long_before(cache: Cache, rounds: Rounds, warm_clock: Clock) -> None:
    source = Source()
    cache.prefetch([cached(cache, source)], every="10s", early="30s")
    rounds.one()
    warm_clock.move(29)
    rounds.one()
    assert source.calls == 1
    warm_clock.move(1)
    rounds.one()
    assert source.calls == 2


def test_prefetch_first_round_comes_after_a_random_part(
    cache: Cache, rounds: Rounds, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_waiting, "_draw", lambda: 0.25)
    cache.prefetch([], every="100s")
    rounds.one()
    assert rounds.waits[0] == 25
    assert 90 < rounds.waits[1] <= 100


def test_prefetch_really_waits_and_stops(cache: Cache) -> None:
    source = Source()
    with cache.prefetch([cached(cache, source)], every="10ms") as schedule:
        assert source.called.acquire(timeout=LONG)
        until(lambda: schedule.figures().runs >= 3)
    assert source.calls == 1
    stop = threading.Event()
    stop.set()
    assert _prefetch.pause(stop, LONG)


def test_prefetch_methods_and_a_list_that_is_asked_anew(cache: Cache, rounds: Rounds) -> None:
    class Shop:
        @cache.cached
        def price(self, item: str, gross: bool = False) -> str:
            return item

    shop, items = Shop(), ["a"]
    schedule = cache.prefetch(lambda: [(shop.price, item) for item in items], every=10)
    rounds.one()
    items.append("b")
    rounds.one()
    assert figures(schedule) == (2, 2, 0, 0)
    assert shop.price("b") == "b"
    assert Shop.price.cache_info().hits == 1


# ----------------------------------------------------------------------------------------------------- on the load pool


def test_prefetch_runs_on_the_load_pool_one_at_a_time(cache: Cache, rounds: Rounds) -> None:
    running, most, names = 0, 0, set()

    @cache.cached
    def load(key: int) -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        names.add(threading.current_thread().name)
        threading.Event().wait(0.001)
        running -= 1
        return key

    cache.prefetch([(load, number) for number in range(8)], every=10)
    rounds.one()
    assert most == 1
    assert {name.rpartition("-")[0] for name in names} == {"stillwarm-load"}


def test_prefetch_loads_are_in_the_background_and_no_misses(cache: Cache, rounds: Rounds, warm_clock: Clock) -> None:
    seen: list[tuple[str, bool]] = []
    cache.subscribe(lambda event: seen.append((type(event).__name__, getattr(event, "background", False))))

    @cache.cached
    def load() -> bool:
        return current_load().background

    cache.prefetch([load], every=10)
    rounds.one()
    warm_clock.move(50)
    rounds.one()
    assert load() is True
    assert seen == [("Loaded", True)] * 2
    assert (load.cache_info().misses, load.cache_info().loads) == (0, 2)


def test_prefetch_as_many_at_a_time_as_it_was_told(cache: Cache, rounds: Rounds) -> None:
    together = threading.Barrier(2)

    @cache.cached
    def load(key: int) -> int:
        together.wait(LONG)  # passes only if two are here at once
        return key

    schedule = cache.prefetch([(load, number) for number in range(4)], every=10, at_once=2)
    rounds.one()
    assert figures(schedule) == (1, 4, 0, 0)


def test_prefetch_skips_what_a_full_pool_does_not_take(
    cache: Cache, rounds: Rounds, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Source()
    schedule = cache.prefetch([(cached(cache, source), "a")], every=10)
    with monkeypatch.context() as full:
        full.setattr(_pool, "MAX_WAITING", 0)
        rounds.one()
    assert (source.calls, figures(schedule)) == (0, (1, 0, 0, 1))
    rounds.one()
    assert (source.calls, figures(schedule)) == (1, (2, 1, 0, 1))


def test_prefetch_leaves_a_load_alone_that_runs(cache: Cache, rounds: Rounds) -> None:
    begun, go, loads = threading.Event(), threading.Event(), []

    @cache.cached
    def load(key: str) -> int:
        loads.append(key)
        begun.set()
        assert go.wait(LONG)
        return len(loads)

    caller = threading.Thread(target=load, args=("a",))
    caller.start()
    assert begun.wait(LONG)
    schedule = cache.prefetch([(load, "a")], every=10)
    rounds.one()
    assert figures(schedule) == (1, 0, 0, 0)
    go.set()
    caller.join(LONG)
    assert load.cache_contains("a"), "the caller's load was stored"
    assert loads == ["a"]


def test_prefetch_what_is_invalidated_meanwhile_is_not_stored(cache: Cache, rounds: Rounds) -> None:
    begun, go = threading.Event(), threading.Event()

    @cache.cached
    def load(key: str) -> str:
        begun.set()
        assert go.wait(LONG)
        return key

    cache.prefetch([(load, "a")], every=10)
    rounds.begin()
    assert begun.wait(LONG)
    cache.invalidate(all=True)
    go.set()
    rounds.ended()
    assert not load.cache_contains("a")


# ------------------------------------------------------------------------------------------------------ when loads fail


def test_prefetch_failure_is_counted_logged_once_and_keeps_the_value(
    cache: Cache, rounds: Rounds, warm_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    source = Source()
    load = cached(cache, source)
    schedule = cache.prefetch([(load, "a")], every=10)
    rounds.one()
    warm_clock.move(50)
    with caplog.at_level(logging.WARNING, "stillwarm"):
        for error in (Down("no answer"), Down("still none"), ValueError("wrong")):
            source.error = error
            rounds.one()
    assert figures(schedule) == (4, 1, 3, 0)
    assert schedule.figures().last_error == "ValueError: wrong"
    assert [record.getMessage().split(" failed: ")[1][:9] for record in caplog.records] == ["Down: no ", "ValueErro"]
    assert cache.stats().load_errors == 3
    assert load("a") == 1, "the good value is there as long as it may"
    source.error = None
    rounds.one()
    assert load("a") == 5


def test_prefetch_failed_refresh_of_a_stale_value_pauses(cache: Cache, rounds: Rounds, warm_clock: Clock) -> None:
    source = Source()
    load = cached(cache, source, stale_while_revalidate=600)
    cache.prefetch([(load, "a")], every=1)
    rounds.one()
    warm_clock.move(61)
    source.error = Down()
    rounds.one()
    assert source.calls == 2
    warm_clock.move(1)
    rounds.one()
    assert source.calls == 2, "not before 5 s are over"
    warm_clock.move(10)
    rounds.one()
    assert source.calls == 3


def test_prefetch_retries_as_the_function_says(cache: Cache, rounds: Rounds) -> None:
    source = Source()
    source.error = Down("no answer")
    load = cached(cache, source, retry=Retry(on=Down, retries=2))
    schedule = cache.prefetch([load], every=10)
    with _waiting.without_waiting() as waits:
        rounds.one()
    assert (source.calls, len(waits), figures(schedule)) == (3, 2, (1, 0, 1, 0))


def test_prefetch_a_list_that_fails_is_a_failure(cache: Cache, rounds: Rounds) -> None:
    def wanted() -> Any:
        raise LookupError("no list")

    schedule = cache.prefetch(wanted, every=10)
    rounds.one()
    assert schedule.figures() == Prefetched(1, 0, 1, 0, "LookupError: no list")
    other = cache.prefetch(lambda: [print], every=10)
    rounds.begin()
    until(lambda: other.figures().failed + schedule.figures().failed >= 2)


# ------------------------------------------------------------------------------------------------------- start and end


def test_prefetch_stops_and_goes_on(cache: Cache, rounds: Rounds) -> None:
    source = Source()
    schedule = cache.prefetch([(cached(cache, source), "a")], every=10)
    assert schedule.running
    schedule.start()  # it runs already
    rounds.ended()
    schedule.stop()
    assert not schedule.running
    assert "stopped" in repr(schedule)
    until(lambda: "stillwarm-prefetch" not in [thread.name for thread in threading.enumerate()])
    assert source.calls == 0
    schedule.start()
    rounds.begin()  # where the first thread was
    rounds.one()
    assert source.calls == 1


def test_prefetch_ends_with_close_while_it_loads(rounds: Rounds) -> None:
    begun, go, ended = threading.Event(), threading.Event(), threading.Event()
    cache = Cache(ttl=60)

    @cache.cached
    def load(key: int) -> int:
        begun.set()
        assert go.wait(LONG)
        ended.set()
        return key

    schedule = cache.prefetch([(load, 1), (load, 2)], every=10)
    rounds.begin()
    assert begun.wait(LONG)
    cache.close()
    assert not schedule.running
    assert not ended.is_set(), "nobody waited for the load"
    go.set()
    until(lambda: "stillwarm-prefetch" not in [thread.name for thread in threading.enumerate()])
    assert load.cache_info().loads == 1, "the second did not begin"


def test_prefetch_holds_up_no_exit() -> None:
    program = (
        "import threading, stillwarm\n"
        "cache, begun = stillwarm.Cache(ttl=60), threading.Event()\n"
        "load = cache.cached(lambda: (begun.set(), threading.Event().wait()))\n"
        "cache.prefetch([load], every='10ms')\n"
        "assert begun.wait(20)\n"
        "print('done')\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=LONG, check=True)
    assert (ended.stdout, ended.stderr) == ("done\n", "")


@pytest.mark.forks
def test_prefetch_in_the_child_of_a_fork_runs_when_it_is_started(cache: Cache, rounds: Rounds) -> None:
    source = Source()
    schedule = cache.prefetch([(cached(cache, source), "a")], every=10)
    rounds.ended()
    child = os.fork()
    if child == 0:
        ok = not schedule.running
        schedule.start()
        rounds.begin()
        rounds.one()
        os._exit(0 if ok and schedule.running and source.calls == 1 else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert schedule.running
    assert source.calls == 0


def test_prefetch_with_the_cache_off_does_nothing() -> None:
    cache = Cache(ttl=60, enabled=False)
    schedule = cache.prefetch([cache.cached(lambda: 1)], every=10)
    assert not schedule.running


@pytest.mark.servers
def test_prefetch_takes_over_what_another_process_has(rounds: Rounds, warm_postgres: PostgresServer) -> None:
    url, loads = warm_postgres.new_database(), []
    with Cache(url, ttl=60) as one, Cache(url, ttl=60) as other:  # stands for another process
        schedules = []
        for cache in (one, other):
            load = cache.cached(name="load", ignore=("of",))(lambda key, of=cache: loads.append(of) or key)
            with cache.prefetch([(load, "a")], every=10) as schedule:
                rounds.one()
            assert cache._tier is not None
            cache._tier.core.drain(10**10)
            schedules.append(schedule)
            rounds.begin()  # where the first thread was
        assert loads == [one]
        assert [schedule.figures().refreshed for schedule in schedules] == [1, 1]


# ------------------------------------------------------------------------------------------------------- on a loop


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


# ----------------------------------------------------------------------------------------------------------- arguments


async def test_prefetch_refuses_what_it_cannot_refresh(cache: Cache) -> None:
    prefetch: Any = cache.prefetch

    @cache.cached
    async def coroutine() -> None: ...

    @cache.cached
    def plain(key: str) -> None: ...

    other = Cache(ttl=5).cached(lambda: None)
    for wrong in (print, other, (other,), cache.joined(lambda: 1), 7):
        with pytest.raises(ConfigError, match="functions that this cache caches"):
            prefetch([wrong], every=10)
        with pytest.raises(ConfigError, match="functions that this cache caches"):
            await cache.aprefetch([wrong], every=10)
    with pytest.raises(ConfigError, match="a list of cached functions"):
        prefetch("plain", every=10)
    with pytest.raises(ConfigError, match=r"await cache\.aprefetch"):
        prefetch([coroutine], every=10)
    with pytest.raises(TypeError, match="key"):
        prefetch([plain], every=10)
    for options in ({"every": 0}, {"every": None}, {"every": 10, "early": "5s"}, {"every": 10, "at_once": 0}):
        with pytest.raises(ConfigError, match="accepted"):
            prefetch([(plain, "a")], **options)
    assert cache._schedules == set()
