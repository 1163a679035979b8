"""The promises of one process, held by random schedules against a model, and by a history of many threads.

Thread rule: the schedules run in one thread with a moved clock; the history starts threads and loops of its own.
Refuses to know: how the cache keeps them. Each check has a control with a known mistake, which it must catch.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from reliability import history
from reliability.schedules import schedules
from reliability.subjects import SECOND, LoadsTwice, NaiveSubject, OffersInvalidated, Ours, ServesTooOld
from stillwarm import Cache, NotFound, _core


@pytest.fixture(name="clock")
def moved_clock() -> Iterator[int]:
    _core.clock_set(1_000 * SECOND)
    yield 1_000 * SECOND
    _core.clock_set(0)


def test_promises_hold_in_random_schedules() -> None:
    schedules(Ours, examples=100, seed=20261120)


@pytest.mark.parametrize("control", [NaiveSubject, LoadsTwice, ServesTooOld, OffersInvalidated])
def test_promises_are_seen_broken_in_a_control(control: type[Ours]) -> None:
    with pytest.raises(AssertionError):
        schedules(control, examples=200, seed=20261120)


def rounds(
    make: Callable[[history.Source], history.Subject], enough: Callable[[history.Outcome], object]
) -> Iterator[history.Outcome]:
    """Runs with new seeds until one was `enough`: how often threads cross is the machine's affair."""
    for seed in range(1, 31):
        outcome = history.run(make, 100_000, seed=seed)
        yield outcome
        if enough(outcome):
            return


@pytest.mark.parametrize("name", history.SUBJECTS)
def test_promises_no_read_is_older_than_the_invalidation_before_it(name: str) -> None:
    for outcome in rounds(history.SUBJECTS[name], lambda seen: seen.lost_fills and seen.invalidations > 100):
        assert outcome.impossible == []
    assert outcome.invalidations > 100
    assert outcome.lost_fills > 0, "no load met an invalidation: the check has checked nothing"


def test_promises_an_impossible_read_is_seen_in_a_control() -> None:
    assert any(outcome.impossible for outcome in rounds(history.naive, lambda seen: seen.impossible))


def test_promises_a_stale_hit_of_a_plain_function_counts_once(clock: int) -> None:
    cache = Cache(ttl=10, jitter=0.0, stale_while_revalidate=60)
    go_on = threading.Event()
    loads: list[int] = []

    @cache.cached
    def number(key: int) -> int:
        loads.append(key)
        if len(loads) > 1:
            assert go_on.wait(10)
        return key

    number(1)
    _core.clock_set(clock + 15 * SECOND)
    for served in range(1, 4):  # the first of them starts the refresh
        assert number(1) == 1
        assert cache.stats().stale_hits == served
    go_on.set()
    assert cache.stats().misses == 1


def test_promises_a_remembered_absence_counts_once() -> None:
    cache = Cache(ttl=10)

    @cache.cached(negative_ttl=10)
    def nothing(key: int) -> int:
        raise NotFound("nothing")

    for _ in range(3):
        with pytest.raises(NotFound):
            nothing(1)
    assert tuple(nothing.cache_info())[:2] == (2, 1)


def test_promises_a_caller_with_a_stale_value_waits_for_the_soft_timeout_only(clock: int) -> None:
    cache = Cache(ttl=10, jitter=0.0)
    go_on, loading = threading.Event(), threading.Event()
    loads: list[int] = []

    @cache.cached(soft_timeout="20ms")
    def number(key: int) -> str:
        loads.append(key)
        if len(loads) > 1:
            loading.set()
            assert go_on.wait(10)
            return "new"
        return "old"

    number(1)
    _core.clock_set(clock + 15 * SECOND)
    assert number(1) == "old", "FAILSAFE: the load goes on, the caller does not wait for it"
    assert loading.wait(10)
    assert number(1) == "old", "a follower does not wait either"
    go_on.set()


def test_promises_every_background_error_counts(clock: int) -> None:
    cache = Cache(ttl=10, jitter=0.0, stale_while_revalidate=10_000)
    failed = threading.Semaphore(0)
    loads: list[int] = []

    @cache.cached
    def number(key: int) -> int:
        loads.append(key)
        if len(loads) > 1:
            raise ConnectionError("away")
        return key

    number(1)
    cache.subscribe(lambda event: failed.release() if type(event).__name__ == "LoadFailed" else None)
    for attempt in range(1, 6):  # a failed refresh is tried again, after its pause
        _core.clock_set(clock + attempt * 100 * SECOND)
        assert number(1) == 1
        assert failed.acquire(timeout=10)
        assert cache.stats().load_errors == attempt
    assert cache.stats().last_error == "ConnectionError: away"
