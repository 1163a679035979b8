"""`gather` and `agather` when a call fails, is late or cancelled: what is raised, and what becomes of the others.

Thread rule: calls meet at barriers and wait for events of the test; that they run together is shown by that.
Refuses to know: what is gathered.
"""

from __future__ import annotations

import asyncio
import gc
import threading
from typing import Any

import pytest

from gathering import LONG, gate, notes, threads_end
from stillwarm import LoadTimeout, StillwarmError, _parallel, agather, gather

__all__ = ["gate", "threads_end"]


# ---------------------------------------------------------------------------------------------------------- first error


def test_gather_first_error_is_raised_at_once_with_its_call(gate: threading.Event) -> None:
    begun, finished, never = threading.Event(), threading.Event(), []

    def slow() -> None:
        begun.set()
        assert gate.wait(LONG)
        finished.set()

    def load_stock() -> None:
        assert begun.wait(LONG)
        raise ConnectionError("refused")

    with pytest.raises(ConnectionError, match=r"^refused\b") as raised:
        gather(slow, load_stock, lambda: never.append(1), threads=2)
    assert not finished.is_set(), "nobody waited for the slow one"
    (note,) = notes(raised.value)
    assert note.startswith("gather: call 2 of 3, ")
    assert note.endswith("load_stock")
    gate.set()
    assert finished.wait(LONG), "it went on"
    assert never == [], "what had not begun was not begun"


def test_gather_later_results_and_errors_are_dropped(gate: threading.Event) -> None:
    def late() -> None:
        assert gate.wait(LONG)
        raise ValueError("late")

    def fails() -> None:
        raise ConnectionError("refused")

    with pytest.raises(ConnectionError) as raised:
        gather(late, lambda: gate.wait(LONG), fails)
    gate.set()
    assert len(notes(raised.value)) == 1


def test_gather_one_error_through_two_gathers_names_both_calls() -> None:
    error = ConnectionError("refused")

    def fails() -> None:
        raise error

    def inner() -> object:
        return gather(lambda: 1, fails)

    for _ in range(2):
        with pytest.raises(ConnectionError):
            gather(inner)
    assert [note.partition(",")[0] for note in notes(error)] == ["gather: call 2 of 2", "gather: call 1 of 1"]


async def test_agather_first_error_cancels_the_others_and_waits_for_them() -> None:
    ended: list[str] = []

    async def slow(name: str) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append(name)

    async def load_stock() -> None:
        await asyncio.sleep(0)
        raise ConnectionError("refused")

    with pytest.raises(ConnectionError, match=r"^refused\b") as raised:
        await agather(slow("a"), load_stock(), slow("b"))
    assert sorted(ended) == ["a", "b"]
    (note,) = notes(raised.value)
    assert note.startswith("agather: call 2 of 3, ")
    assert note.endswith("load_stock")


async def test_agather_control_of_asyncio_leaves_the_others_running() -> None:
    ended: list[str] = []

    async def slow() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("slow")

    async def fails() -> None:
        raise ConnectionError("refused")

    left = asyncio.ensure_future(slow())
    with pytest.raises(ConnectionError):
        await asyncio.gather(left, fails())
    assert ended == []
    left.cancel()
    await asyncio.wait([left])


@pytest.mark.parametrize("turns", range(1, 4))
async def test_agather_that_is_cancelled_cancels_everything(turns: int) -> None:
    running: set[int] = set()

    async def slow(number: int) -> None:
        running.add(number)
        try:
            await asyncio.Event().wait()
        finally:
            running.discard(number)

    caller = asyncio.ensure_future(agather(*(slow(number) for number in range(3))))
    for _ in range(turns):
        await asyncio.sleep(0)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert running == set()


@pytest.mark.parametrize("when", ["before it came", "as it came"])
async def test_agather_that_is_cancelled_drops_a_coroutine_that_a_thread_returns(
    when: str, gate: threading.Event
) -> None:
    """Without a warning that it was never awaited, which is an error in tests."""

    async def coroutine() -> None: ...

    def plain() -> Any:
        gate.wait(LONG)
        return coroutine()

    task = asyncio.ensure_future(_parallel._in_thread(plain))
    await asyncio.sleep(0)
    (thread,) = (thread for thread in threading.enumerate() if thread.name == "stillwarm-gather")
    if when == "before it came":
        task.cancel()
        await asyncio.sleep(0)
    gate.set()
    thread.join(LONG)  # its result is the loop's next step
    asyncio.get_running_loop().call_soon(task.cancel)
    with pytest.raises(asyncio.CancelledError):
        await task
    del task
    gc.collect()


async def test_agather_an_error_in_a_thread_and_one_that_is_no_exception() -> None:
    def stops() -> None:
        raise StopIteration

    def fails() -> None:
        raise ConnectionError("refused")

    with pytest.raises(ConnectionError) as raised:
        await agather(fails, asyncio.sleep(LONG))
    assert notes(raised.value)[0].startswith("agather: call 1 of 2")
    with pytest.raises(RuntimeError, match="StopIteration"):
        await agather(stops)
    with pytest.raises(StopIteration):
        gather(stops)


# ------------------------------------------------------------------------------------------------------------- deadline


def test_gather_deadline_names_what_was_not_finished(gate: threading.Event) -> None:
    def load_orders() -> None:
        assert gate.wait(LONG)

    with pytest.raises(LoadTimeout, match=r"gather: 1 of 2 calls .*deadline='20ms': .*load_orders \(call 2\)") as late:
        gather(lambda: 1, load_orders, deadline="20ms")
    assert isinstance(late.value, TimeoutError)
    assert isinstance(late.value, StillwarmError)


async def test_agather_deadline_cancels_and_names_what_was_not_finished(gate: threading.Event) -> None:
    cancelled: list[str] = []

    async def load_orders() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.append("orders")

    def load_stock() -> None:
        assert gate.wait(LONG)

    async def quick() -> int:
        return 1

    with pytest.raises(LoadTimeout, match=r"agather: 2 of 3 .*load_orders \(call 1\).*load_stock \(call 3\)"):
        await agather(load_orders(), quick, load_stock, deadline=0.02)
    assert cancelled == ["orders"]


async def test_gather_within_its_deadline_returns() -> None:
    assert gather(lambda: 1, deadline="20s") == (1,)
    assert await agather(lambda: 1, deadline="20s") == (1,)
