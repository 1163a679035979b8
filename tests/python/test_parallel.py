"""`gather` and `agather`: everything at the same time, results in their order, and what is refused.

Thread rule: calls meet at barriers and wait for events of the test; that they run together is shown by that.
Refuses to know: errors and deadlines (test_parallel_errors.py), where threads come from (test_parallel_threads.py).
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import gc
import threading
from typing import Any

import pytest

from gathering import LONG, threads_end
from stillwarm import Cache, ConfigError, agather, gather

__all__ = ["threads_end"]


# ------------------------------------------------------------------------------------------------------------- together


def test_gather_makes_three_calls_at_the_same_time() -> None:
    together = threading.Barrier(3)

    def call(name: str) -> str:
        together.wait(LONG)  # passes only if three are here at once
        return name

    results = gather(*(functools.partial(call, name) for name in "abc"))
    assert results == ("a", "b", "c")


def test_gather_control_one_after_the_other_they_never_meet() -> None:
    together = threading.Barrier(3)
    with pytest.raises(threading.BrokenBarrierError):
        [call() for call in [lambda: together.wait(0.05)] * 3]


async def test_agather_awaits_three_at_the_same_time() -> None:
    here = 0
    all_here = asyncio.Event()

    async def call(name: str) -> str:
        nonlocal here
        here += 1
        if here == 3:
            all_here.set()
        await all_here.wait()
        return name

    async def last() -> str:
        return await call("c")

    results = await agather(call("a"), asyncio.ensure_future(call("b")), last, deadline=LONG)
    assert results == ("a", "b", "c")


async def test_agather_takes_plain_callables_to_threads() -> None:
    together, thread = threading.Barrier(2), threading.current_thread()

    def plain(name: str) -> str:
        together.wait(LONG)
        assert threading.current_thread() is not thread
        return name

    async def coroutine(name: str) -> str:
        return name

    results = await agather(lambda: plain("a"), lambda: plain("b"), lambda: coroutine("c"))
    assert results == ("a", "b", "c")


def test_gather_results_are_in_the_order_given_whichever_ends_first() -> None:
    done = [threading.Event() for _ in range(4)]

    def call(number: int) -> int:
        if number < 3:
            assert done[number + 1].wait(LONG)  # the last one ends first
        done[number].set()
        return number

    assert gather(*(functools.partial(call, number) for number in range(4))) == (0, 1, 2, 3)


async def test_gather_of_nothing() -> None:
    assert gather() == ()
    assert await agather() == ()


def test_gather_more_calls_than_threads() -> None:
    running, most, lock = 0, 0, threading.Lock()
    together = threading.Barrier(3)

    def call(number: int) -> int:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        together.wait(LONG)
        with lock:
            running -= 1
        together.wait(LONG)
        return number

    results = gather(*(functools.partial(call, number) for number in range(9)), threads=3)
    assert results == tuple(range(9))
    assert most == 3


async def test_gather_gives_each_call_the_callers_context() -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")
    variable.set("caller's")

    def call() -> str:
        seen = variable.get()
        variable.set("its own")
        return seen

    assert gather(call, call) == ("caller's",) * 2
    assert await agather(call, call) == ("caller's",) * 2
    assert variable.get() == "caller's"


def test_gather_loads_of_cached_functions_share_a_load_and_leave_the_load_pool_alone() -> None:
    with Cache(ttl=60, load_threads=1) as cache:
        loads: list[str] = []

        @cache.cached
        def score(asin: str) -> str:
            loads.append(asin)
            return asin

        assert gather(*[lambda: score("a"), lambda: score("b")] * 4) == ("a", "b") * 4
        assert sorted(loads) == ["a", "b"]
        assert cache._pool._threads == []


# ------------------------------------------------------------------------------------------------------------ arguments


async def test_agather_drops_what_fails_at_the_same_moment() -> None:
    """Only the first error is anybody's: asyncio does not report the others as never retrieved."""
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    go = asyncio.Event()

    async def fail(number: int) -> None:
        await go.wait()
        raise ValueError(number)

    asyncio.get_running_loop().call_soon(go.set)
    with pytest.raises(ValueError, match="0"):
        await agather(*(fail(number) for number in range(3)))
    gc.collect()
    assert complaints == []


async def test_gather_refuses_what_it_cannot_call() -> None:
    async def coroutine() -> None: ...

    called: list[int] = []
    wrong: Any
    for wrong in (5, "f", None):
        with pytest.raises(ConfigError, match="accepted: callables without arguments"):
            gather(lambda: called.append(1), wrong)
        with pytest.raises(ConfigError, match="accepted: awaitables, and callables"):
            await agather(coroutine(), wrong)
    with pytest.raises(ConfigError, match="await agather"):
        gather(coroutine)
    with pytest.raises(ConfigError, match=r"accepted: callables without arguments; use `await agather"):
        gather(lambda: called.append(1), coroutine())  # type: ignore[arg-type]  # and nobody warns of it
    for bad in (0, -1, "soon", "1ms"):
        with pytest.raises(ConfigError, match="deadline="):
            gather(lambda: called.append(1), deadline=bad)
        with pytest.raises(ConfigError, match="deadline="):
            await agather(coroutine(), deadline=bad)
    with pytest.raises(ConfigError, match="threads=0"):
        gather(lambda: called.append(1), threads=0)
    assert called == []
