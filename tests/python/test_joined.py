"""`cache.joined`: calls that overlap share one run, nothing is kept, no server is asked.

Thread rule: a run waits until the others have joined it, or for an event of the test; nothing is measured.
Refuses to know: how flights work; what goes wrong (test_joined_faults.py); decoration (test_joined_decorated.py).
"""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from typing import Any

from joining import CLOSED, Value, asked_nobody, at_once, auntil, cache, until
from stillwarm import Cache, current_load

__all__ = ["cache"]


# ------------------------------------------------------------------------------------------------------ one run of many


def test_joined_64_threads_make_one_run_and_have_one_object(cache: Cache) -> None:
    runs: list[Value] = []

    @cache.joined
    def report(year: int) -> Value:
        until(lambda: report.joined_info().joined == 63)
        runs.append(Value())
        return runs[-1]

    results = at_once(64, lambda _: report(2024))
    assert len(runs) == 1
    assert {id(result) for result in results} == {id(runs[0])}
    assert report.joined_info()[:4] == (64, 1, 63, 0)


def test_joined_control_a_plain_function_makes_64_runs() -> None:
    together, runs = threading.Barrier(64), []

    def report(year: int) -> int:
        together.wait(20)  # all of them are inside at the same time
        runs.append(year)
        return year

    at_once(64, lambda _: report(2024))
    assert len(runs) == 64


async def test_joined_100_tasks_make_one_run(cache: Cache) -> None:
    runs: list[Value] = []

    @cache.joined
    async def report(year: int) -> Value:
        await auntil(lambda: report.joined_info().joined == 99)
        runs.append(Value())
        return runs[-1]

    results = await asyncio.gather(*(report(2024) for _ in range(100)))
    assert len(runs) == 1
    assert {id(result) for result in results} == {id(runs[0])}
    assert report.joined_info()[:4] == (100, 1, 99, 0)


def test_joined_tasks_of_several_threads_make_one_run(cache: Cache) -> None:
    runs: list[int] = []

    @cache.joined()
    async def report(year: int) -> int:
        runs.append(threading.get_ident())
        await auntil(lambda: report.joined_info().joined == 8 * 4 - 1)
        return year

    async def ask() -> list[int]:
        return await asyncio.gather(*(report(2024) for _ in range(4)))

    assert at_once(8, lambda _: asyncio.run(ask())) == [[2024] * 4] * 8
    assert len(runs) == 1


def test_joined_a_later_call_runs_again_and_nothing_is_kept(cache: Cache) -> None:
    @cache.joined
    def report(year: int) -> Value:
        return Value()

    first = report(2024)
    gone = weakref.ref(first)
    assert report(2024) is not first
    del first
    gc.collect()
    assert gone() is None
    assert report.joined_info()[:4] == (2, 2, 0, 0)


def test_joined_different_arguments_run_apart(cache: Cache) -> None:
    together = threading.Barrier(3)

    @cache.joined
    def report(year: object, month: int = 1) -> object:
        together.wait(20)  # three runs at the same time
        return year

    calls: list[Any] = [lambda: report(1), lambda: report("1"), lambda: report(1, month=2)]
    assert sorted(at_once(3, lambda n: calls[n]()), key=repr) == ["1", 1, 1]
    assert report.joined_info()[:3] == (3, 3, 0)


def test_joined_calls_are_identical_by_the_signature(cache: Cache) -> None:
    @cache.joined
    def report(year: int, month: int = 1) -> int:
        until(lambda: report.joined_info().joined == 2)
        return year

    calls = [lambda: report(2024), lambda: report(2024, 1), lambda: report(month=1, year=2024)]
    assert at_once(3, lambda n: calls[n]()) == [2024] * 3
    assert report.joined_info().runs == 1


def test_joined_key_and_ignore_say_what_is_identical(cache: Cache) -> None:
    @cache.joined(key="report:{year}")
    def by_key(year: int, session: object) -> int:
        until(lambda: by_key.joined_info().joined == 1)
        return year

    @cache.joined(ignore=("session",), name="report")
    def by_ignore(year: int, session: object) -> int:
        until(lambda: by_ignore.joined_info().joined == 1)
        assert current_load().key == "report:2024"
        return year

    for function in (by_key, by_ignore):
        assert at_once(2, lambda n, function=function: function(2024, [n])) == [2024] * 2
        assert function.joined_info().runs == 1


def test_joined_functions_with_the_same_key_do_not_share(cache: Cache) -> None:
    together = threading.Barrier(2)

    @cache.joined(key="{item}")
    def price(item: str) -> str:
        together.wait(20)
        return "price"

    @cache.joined(key="{item}")
    def stock(item: str) -> str:
        together.wait(20)
        return "stock"

    assert sorted(at_once(2, lambda n: (price, stock)[n]("B07"))) == ["price", "stock"]


def test_joined_and_cached_functions_with_the_same_key_do_not_share() -> None:
    cache = Cache(ttl=60)
    cached = cache.cached(key="{item}")(lambda item: "cached")
    joined = cache.joined(key="{item}")(lambda item: "joined")
    assert [cached("B07"), joined("B07"), cached("B07"), joined("B07")] == ["cached", "joined"] * 2


# -------------------------------------------------------------------------------------------------- beside other things


def test_joined_no_server_is_asked_where_a_cached_function_asks() -> None:
    with Cache(CLOSED, ttl=60) as cache:
        joined = cache.joined(name="joined")(lambda: 1)
        cached = cache.cached(name="cached")(lambda: 1)
        assert joined() == 1
        assert asked_nobody(cache)
        assert cached() == 1
        assert not asked_nobody(cache), "this is what the other tests would see"


def test_joined_is_in_no_figures_of_the_cache_but_its_hooks_hear_of_it() -> None:
    cache, events = Cache(ttl=60), []
    cache.subscribe(lambda event: events.append((type(event).__name__, event.type)))
    report = cache.joined(lambda: 1)
    report()
    assert events == [("Missed", "joined"), ("Loaded", "joined")]
    assert cache.stats().misses == 0
    assert "joined" not in cache.stats().types
    assert report.joined_info().seconds >= 0


def test_joined_with_the_cache_off_every_call_runs() -> None:
    cache = Cache(enabled=False)
    together = threading.Barrier(4)

    @cache.joined
    def report(year: int) -> int:
        together.wait(20)  # four runs at the same time
        return year

    @cache.joined
    async def areport(year: int) -> int:
        return year

    assert at_once(4, lambda _: report(2024)) == [2024] * 4
    assert asyncio.run(areport(2024)) == 2024


def test_joined_settings_of_the_cache_are_not_its_own() -> None:
    cache = Cache(ttl=60, hard_timeout=5, copy="deep", unless=lambda _: True, tags=["a"])
    caller = threading.get_ident()
    value = Value()

    @cache.joined
    def report() -> Value:
        assert threading.get_ident() == caller
        return value

    assert report() is value
