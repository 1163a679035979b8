"""Faults of tasks and loops: cancelled leaders and waiters, closed loops, several loops, cancellation at every await.

Thread rule: each test has a loop of its own; some start threads with another.
Refuses to know: figures.
"""

from __future__ import annotations

import asyncio
import threading

import pytest

from reliability import naive
from stillwarm import Cache, _load


@pytest.fixture(name="cache")
def fresh_cache(monkeypatch: pytest.MonkeyPatch) -> Cache:
    monkeypatch.setattr(_load, "FOLLOWER_LIMIT", 8.0)  # a hang shows as LoadTimeout
    return Cache(ttl=60)


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_faults_a_cancelled_leader_cancels_nobody_else(cache: Cache) -> None:
    go_on = asyncio.Event()
    loads: list[int] = []

    async def load(key: int) -> int:
        loads.append(key)
        await go_on.wait()
        return key

    function = cache.cached(load)
    leader, *others = [asyncio.ensure_future(function(1)) for _ in range(4)]
    await settle()
    leader.cancel()
    others[0].cancel()
    await settle()
    go_on.set()
    assert await asyncio.gather(*others[1:]) == [1, 1]
    assert leader.cancelled()
    assert others[0].cancelled()
    assert loads == [1]

    control = naive.SharedTask(load)
    go_on.clear()
    leader, other = [asyncio.ensure_future(control(2)) for _ in range(2)]
    await settle()
    leader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await other


async def test_faults_all_callers_cancelled_and_the_value_is_stored(cache: Cache) -> None:
    go_on = asyncio.Event()

    @cache.cached
    async def load(key: int) -> int:
        await go_on.wait()
        return key

    callers = [asyncio.ensure_future(load(1)) for _ in range(3)]
    await settle()
    for caller in callers:
        caller.cancel()
    await settle()
    go_on.set()
    await settle()
    assert load.cache_contains(1), "the load belongs to the flight, not to its callers"
    assert cache.stats().flights == 0


async def test_faults_cancelled_at_each_await(cache: Cache) -> None:
    """Leader and follower, after each number of turns of the loop: the key is never stuck, others get the value."""
    for who in range(2):
        for turns in range(12):

            @cache.cached(name=f"load{who}{turns}")
            async def load(key: int) -> int:
                for _ in range(4):
                    await asyncio.sleep(0)
                return key

            callers = [asyncio.ensure_future(load(1)) for _ in range(3)]
            for _ in range(turns):
                await asyncio.sleep(0)
            callers[who].cancel()
            results = await asyncio.wait_for(asyncio.gather(*callers, return_exceptions=True), 5)
            assert [r for i, r in enumerate(results) if i != who] == [1, 1]
            assert await asyncio.wait_for(load(1), 5) == 1
            assert cache.stats().flights == 0


async def test_faults_the_load_itself_cancelled_and_a_waiter_leads(cache: Cache) -> None:
    loads: list[asyncio.Task[object] | None] = []
    begun = asyncio.Event()

    @cache.cached
    async def load(key: int) -> int:
        loads.append(asyncio.current_task())
        if len(loads) == 1:
            begun.set()
            await asyncio.Event().wait()
        return key

    callers = [asyncio.ensure_future(load(1)) for _ in range(3)]
    await begun.wait()
    assert loads[0] is not None
    loads[0].cancel()
    assert await asyncio.wait_for(asyncio.gather(*callers), 5) == [1, 1, 1]
    assert len(loads) == 2


def test_faults_the_loop_of_a_load_is_closed_and_others_lead(cache: Cache) -> None:
    loads: list[int] = []
    begun = threading.Event()

    @cache.cached
    async def load(key: int) -> int:
        loads.append(key)
        if len(loads) == 1:
            begun.set()
            await asyncio.Event().wait()
        return key

    first = asyncio.new_event_loop()
    abandoned = first.create_task(load(1))
    first.run_until_complete(asyncio.sleep(0))
    while not begun.is_set():
        first.run_until_complete(asyncio.sleep(0))
    results: list[int] = []
    others = [threading.Thread(target=lambda: results.append(asyncio.run(load(1)))) for _ in range(2)]
    for thread in others:
        thread.start()
    while cache.stats().joined < 2:
        threading.Event().wait(0.001)
    for task in asyncio.all_tasks(first):
        task._log_destroy_pending = False  # type: ignore[attr-defined]  # that is what is tested
    del abandoned
    first.close()
    for thread in others:
        thread.join(20)
    assert results == [1, 1]
    assert asyncio.run(load(1)) == 1
    assert cache.stats().flights == 0


@pytest.mark.parametrize("fails", [False, True])
def test_faults_two_loops_and_threads_share_one_load(cache: Cache, fails: bool) -> None:
    calls: list[int] = []
    results: list[object] = []

    async def load() -> int:
        calls.append(1)
        while cache.stats().joined < 5:
            await asyncio.sleep(0.001)
        if fails:
            raise ValueError("once")
        return 7

    async def ask() -> None:
        results.extend(
            await asyncio.gather(*(cache.aget_or_set("key", load) for _ in range(2)), return_exceptions=True)
        )

    def ask_in_thread() -> None:
        while not calls:
            threading.Event().wait(0.001)
        try:
            results.append(cache.get_or_set("key", lambda: pytest.fail("a second load")))
        except ValueError as error:
            results.append(error)

    threads = [threading.Thread(target=lambda: asyncio.run(ask())) for _ in range(2)]
    threads += [threading.Thread(target=ask_in_thread) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(results) == 6
    assert calls == [1]
    assert all(isinstance(r, ValueError) for r in results) if fails else results == [7] * 6
    assert cache.stats().flights == 0
