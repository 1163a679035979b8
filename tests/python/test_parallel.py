"""`gather` and `agather`: everything at the same time, one deadline, the first error, and what becomes of the others.

Thread rule: calls meet at barriers and wait for events of the test; that they run together is shown by that.
Refuses to know: what is gathered.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import gc
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from stillwarm import Cache, ConfigError, LoadTimeout, StillwarmError, _parallel, agather, gather

LONG = 20  # s; what a test that hangs waits


@pytest.fixture(name="gate")
def _gate() -> Iterator[threading.Event]:
    """Opened at the end at the latest, so that no thread stays."""
    gate = threading.Event()
    yield gate
    gate.set()


@pytest.fixture(autouse=True)
def _threads_end() -> Iterator[None]:
    """After each test all threads are given back."""
    yield
    for _ in range(2000):
        if not [thread for thread in threading.enumerate() if thread.name == "stillwarm-gather"]:
            break
        threading.Event().wait(0.005)
    else:
        raise AssertionError("a thread of a gather never ended")
    assert _parallel._free._value == _parallel.MOST  # type: ignore[attr-defined]


def notes(error: BaseException) -> list[str]:
    return list(getattr(error, "__notes__", []))


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


# ------------------------------------------------------------------------------------------------ Ctrl-C, exit, threads


def test_gather_ctrl_c_ends_the_wait_at_once(gate: threading.Event) -> None:
    main = threading.main_thread().ident
    assert main == threading.get_ident()

    def interrupts() -> None:
        signal.pthread_kill(main, signal.SIGINT)
        assert gate.wait(LONG)  # opened only when the caller has gone

    never: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        gather(interrupts, lambda: gate.wait(LONG), lambda: never.append(1), threads=2)
    gate.set()
    assert never == []


def test_gather_holds_up_no_exit() -> None:
    program = (
        "import threading, stillwarm\n"
        "try: stillwarm.gather(threading.Event().wait, deadline=0.05)\n"
        "except TimeoutError: print('late')\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ}, capture_output=True, text=True, timeout=LONG, check=True
    )
    assert ended.stdout == "late\n"


@pytest.mark.parametrize("most", [1, 2, 3])
def test_gather_inside_gather_never_waits_for_a_thread(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    monkeypatch.setattr(_parallel, "_free", threading.BoundedSemaphore(most))

    def tree(depth: int, deadline: float | None = None) -> int:
        if depth == 0:
            return 1
        return sum(gather(*[functools.partial(tree, depth - 1, deadline)] * 3, deadline=deadline))

    async def atree(depth: int) -> int:
        return 1 if depth == 0 else sum(await agather(*[functools.partial(in_thread, depth - 1)] * 3))

    def in_thread(depth: int) -> int:
        return asyncio.run(atree(depth))

    assert tree(4) == tree(4, LONG) == 81
    assert in_thread(2) == 9
    monkeypatch.undo()


def test_gather_without_a_free_thread_calls_on_the_callers(monkeypatch: pytest.MonkeyPatch) -> None:
    none = threading.BoundedSemaphore(1)
    none.acquire()
    monkeypatch.setattr(_parallel, "_free", none)
    assert gather(*[threading.get_ident] * 3) == (threading.get_ident(),) * 3
    monkeypatch.undo()


def test_gather_with_a_deadline_keeps_it_where_no_thread_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    none = threading.BoundedSemaphore(1)
    none.acquire()
    monkeypatch.setattr(_parallel, "_free", none)
    called: list[int] = []

    def hangs() -> None:
        called.append(1)
        threading.Event().wait()

    with pytest.raises(LoadTimeout, match="2 of 2 calls"):
        gather(hangs, hangs, deadline="20ms")
    assert called == [], "a call on the caller's thread could not be left"

    freed = threading.Timer(0.01, none.release)
    freed.start()
    threads = gather(*[threading.get_ident] * 2, deadline=LONG)
    assert threading.get_ident() not in threads
    freed.join()
    until_free = none.acquire(timeout=LONG)
    assert until_free, "it was given back"
    none.release()
    monkeypatch.undo()


def test_gather_where_the_system_gives_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert gather(*[threading.get_ident] * 3) == (threading.get_ident(),) * 3
    assert gather(*[threading.get_ident] * 3, deadline=LONG) == (threading.get_ident(),) * 3


async def test_agather_waits_for_a_free_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    none = threading.BoundedSemaphore(1)
    none.acquire()
    monkeypatch.setattr(_parallel, "_free", none)
    with pytest.raises(LoadTimeout):
        await agather(lambda: 1, deadline=0.05)
    waiting = asyncio.ensure_future(agather(lambda: 1))
    await asyncio.sleep(0)
    none.release()
    assert await waiting == (1,)
    monkeypatch.undo()


@pytest.mark.forks
def test_gather_works_in_the_child_of_a_fork(gate: threading.Event) -> None:
    with pytest.raises(LoadTimeout):
        gather(*[lambda: gate.wait(LONG)] * 3, deadline=0.02)  # these threads are not in the child
    child = os.fork()
    if child == 0:
        ok = gather(lambda: 1, lambda: 2) == (1, 2) and _parallel._free._value >= _parallel.MOST - 2  # type: ignore[attr-defined]
        os._exit(0 if ok else 1)
    assert os.waitpid(child, 0)[1] == 0


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
    for bad in (0, -1, "soon", "1ms"):
        with pytest.raises(ConfigError, match="deadline="):
            gather(lambda: called.append(1), deadline=bad)
        with pytest.raises(ConfigError, match="deadline="):
            await agather(coroutine(), deadline=bad)
    with pytest.raises(ConfigError, match="threads=0"):
        gather(lambda: called.append(1), threads=0)
    assert called == []
