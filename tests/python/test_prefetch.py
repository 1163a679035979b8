"""`prefetch`: values are there before they expire, on the load pool, and what fails is counted and reaches nobody.

Thread rule: a schedule waits between rounds until the test lets it go; loads wait for events of the test.
Refuses to know: how a refresh runs; test_freshness.py and test_failing_loads.py are about that. Start and end
(test_prefetch_life.py), loops (test_aprefetch.py).
"""

from __future__ import annotations

import logging
import threading
from typing import Any

import pytest

from prefetching import LONG, Rounds, cache, figures, rounds, until
from steered import Down, Source, cached
from stillwarm import (
    Cache,
    ConfigError,
    Prefetched,
    Retry,
    _pool,
    _prefetch,
    _waiting,
    current_load,
)
from stillwarm.testing import Clock

__all__ = ["cache", "rounds"]


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


class Unequal:
    """Its key can be looked for, and not be compared."""

    def __hash__(self) -> int:
        return 1

    def __eq__(self, other: object) -> bool:
        raise ZeroDivisionError("compared")


def test_prefetch_a_key_that_cannot_be_compared_holds_up_no_other(cache: Cache, rounds: Rounds) -> None:
    @cache.cached
    def of(key: Unequal) -> int:
        return 1

    @cache.cached
    def other() -> int:
        return 2

    of(Unequal())
    with cache.prefetch([(of, Unequal()), other], every=20) as schedule:
        rounds.one()
        assert other.cache_contains()
        assert figures(schedule) == (1, 1, 1, 0)
        assert schedule.figures().last_error == "ZeroDivisionError: compared"


class Untold(Exception):
    def __str__(self) -> str:
        raise Untold


def test_prefetch_an_error_whose_text_raises_is_a_failure_like_others(cache: Cache, rounds: Rounds) -> None:
    @cache.cached
    def fails() -> int:
        raise Untold

    @cache.cached
    def other() -> int:
        return 2

    given: list[Any] = []

    def calls() -> list[Any]:
        if not given:
            raise Untold
        return given

    with cache.prefetch(calls, every=20) as schedule:
        rounds.one()
        assert figures(schedule) == (1, 0, 1, 0)
        assert schedule.figures().last_error == "Untold: its text cannot be had"
        given[:] = [fails, other]
        rounds.one()
        assert figures(schedule) == (2, 1, 2, 0)


def test_prefetch_a_list_that_ends_its_thread_ends_the_schedule_and_says_so(cache: Cache, rounds: Rounds) -> None:
    over = True

    def calls() -> list[Any]:
        if over:
            raise SystemExit(3)
        return []

    schedule = cache.prefetch(calls, every=20)
    rounds.begin()
    until(lambda: not schedule.running)
    assert schedule.figures().last_error == "SystemExit: 3"
    assert schedule not in cache._schedules
    over = False
    schedule.start()
    rounds.one()
    assert figures(schedule) == (2, 0, 1, 0)
    schedule.stop()


def test_prefetch_a_list_that_fails_is_a_failure(cache: Cache, rounds: Rounds) -> None:
    def wanted() -> Any:
        raise LookupError("no list")

    schedule = cache.prefetch(wanted, every=10)
    rounds.one()
    assert schedule.figures() == Prefetched(1, 0, 1, 0, "LookupError: no list")
    other = cache.prefetch(lambda: [print], every=10)
    rounds.begin()
    until(lambda: other.figures().failed + schedule.figures().failed >= 2)


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
