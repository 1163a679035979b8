"""The threads of `gather` and `agather`: Ctrl-C, exit, fork, and where none is free.

Thread rule: calls meet at barriers and wait for events of the test; that they run together is shown by that.
Refuses to know: what is gathered.
"""

from __future__ import annotations

import asyncio
import functools
import os
import signal
import subprocess
import sys
import threading

import pytest

from gathering import LONG, gate, threads_end
from stillwarm import LoadTimeout, _parallel, agather, gather

__all__ = ["gate", "threads_end"]


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


@pytest.mark.parametrize("error", [MemoryError, KeyboardInterrupt])
@pytest.mark.parametrize("begun", [False, True])
def test_gather_interrupted_while_it_starts_a_thread_keeps_no_place(
    monkeypatch: pytest.MonkeyPatch, error: type[BaseException], begun: bool
) -> None:
    """`threads_end` sees that all places are free: none was lost, and none given back twice."""
    start = threading.Thread.start
    called = threading.Event()

    def interrupted(thread: threading.Thread) -> None:
        if begun:
            start(thread)
            assert called.wait(LONG)
        raise error

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    for _ in range(3):
        called.clear()
        with pytest.raises(error):
            gather(called.set)
    assert called.is_set() == begun


def test_gather_a_thread_that_comes_after_all_calls_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C came when the system had it already: its place is free again, and perhaps another's."""
    late: list[threading.Thread] = []

    def interrupted(thread: threading.Thread) -> None:
        late.append(thread)
        raise KeyboardInterrupt

    called: list[int] = []
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", interrupted)
        with pytest.raises(KeyboardInterrupt):
            gather(lambda: called.append(1))
    late[0].start()
    late[0].join(LONG)
    assert called == []


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
