"""`cache.joined` when it goes wrong: the run fails, its leader goes away, it asks for itself, it is invalidated.

Thread rule: a run waits until the others have joined it, or for an event of the test; nothing is measured.
Refuses to know: how flights work; their own faults are in test_faults.py and test_faults_async.py.
"""

from __future__ import annotations

import asyncio
import threading

import pytest

from joining import at_once, auntil, cache, until
from stillwarm import Cache, NotFound, RecursiveLoadError

__all__ = ["cache"]


def test_joined_a_failure_reaches_all_and_is_one_run(cache: Cache) -> None:
    runs: list[int] = []

    @cache.joined
    def report(year: int) -> int:
        runs.append(year)
        until(lambda: report.joined_info().joined == 15)
        raise ConnectionError("refused")

    results = at_once(16, lambda _: report(2024))
    assert [str(error) for error in results] == ["refused"] * 16
    assert len({id(error) for error in results}) == 1
    assert len(runs) == 1
    assert report.joined_info()[:4] == (16, 1, 15, 1)


@pytest.mark.parametrize("error", [NotFound("no such"), KeyError("k"), TimeoutError("late"), ValueError("wrong")])
async def test_joined_an_error_passes_as_it_is(cache: Cache, error: Exception) -> None:
    @cache.joined
    def plain() -> None:
        raise error

    @cache.joined
    async def coroutine() -> None:
        raise error

    for _ in range(2):
        with pytest.raises(type(error)) as plainly:
            plain()
        with pytest.raises(type(error)) as awaited:
            await coroutine()
        assert plainly.value is awaited.value is error
    assert plain.joined_info().runs == coroutine.joined_info().runs == 2


async def test_joined_a_leader_that_is_cancelled_leaves_the_run_to_the_others(cache: Cache) -> None:
    go, runs = asyncio.Event(), []

    @cache.joined
    async def report(year: int) -> int:
        runs.append(year)
        await go.wait()
        return year

    leader, *others = [asyncio.ensure_future(report(2024)) for _ in range(4)]
    await auntil(lambda: report.joined_info().joined == 3)
    leader.cancel()
    others[0].cancel()
    await asyncio.wait([leader, others[0]])
    go.set()
    assert await asyncio.gather(*others[1:]) == [2024] * 2
    assert leader.cancelled()
    assert runs == [2024]


def test_joined_ctrl_c_of_the_leader_lets_a_follower_lead(cache: Cache) -> None:
    runs: list[int] = []

    @cache.joined
    def report(year: int) -> int:
        runs.append(year)
        if len(runs) == 1:
            until(lambda: report.joined_info().joined == 7)
            raise KeyboardInterrupt
        return year

    def call(_: int) -> object:
        try:
            return report(2024)
        except KeyboardInterrupt:
            return "interrupted"

    results = at_once(8, call)
    assert results.count("interrupted") == 1
    assert results.count(2024) == 7
    assert len(runs) >= 2


def test_joined_a_loop_that_closes_lets_a_follower_lead(cache: Cache) -> None:
    runs: list[int] = []

    @cache.joined
    async def report(year: int) -> int:
        runs.append(year)
        if len(runs) == 1:
            await asyncio.Event().wait()
        return year

    first = asyncio.new_event_loop()
    abandoned = first.create_task(report(2024))
    while not runs:
        first.run_until_complete(asyncio.sleep(0))
    results: list[int] = []
    other = threading.Thread(target=lambda: results.append(asyncio.run(report(2024))))
    other.start()
    until(lambda: report.joined_info().joined == 1)
    for task in asyncio.all_tasks(first):
        task._log_destroy_pending = False  # type: ignore[attr-defined]  # that is what is tested
    del abandoned
    first.close()
    other.join(20)
    assert results == [2024]
    assert len(runs) == 2


def test_joined_recursion_is_an_error(cache: Cache) -> None:
    @cache.joined
    def even(n: int) -> bool:
        return odd(n)

    @cache.joined
    def odd(n: int) -> bool:
        return even(n)

    @cache.joined
    async def itself(n: int) -> int:
        return await asyncio.create_task(itself(n))

    with pytest.raises(RecursiveLoadError):
        even(1)
    with pytest.raises(RecursiveLoadError):
        asyncio.run(itself(1))


def test_joined_calls_after_an_invalidation_join_no_run_from_before() -> None:
    cache = Cache()
    began, go = threading.Semaphore(0), threading.Event()

    @cache.joined
    def report(year: int) -> int:
        began.release()
        assert go.wait(20)
        return year

    threads = [threading.Thread(target=report, args=(2024,)) for _ in range(2)]
    threads[0].start()
    assert began.acquire(timeout=20)
    cache.invalidate(all=True)
    threads[1].start()
    assert began.acquire(timeout=20), "a run of its own"
    go.set()
    for thread in threads:
        thread.join(20)
    assert report.joined_info()[:3] == (2, 2, 0)
