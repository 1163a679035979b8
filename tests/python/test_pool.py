"""The load pool: how many threads it has, what it refuses, what a `__del__` in the middle of it may do.

Thread rule: threads of each test's own, which it joins.
Refuses to know: stale values and timeouts (test_freshness.py), schedules (test_prefetch.py).
"""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from stillwarm import Cache, _load, _pool
from stillwarm._pool import LoadPool
from stillwarm.errors import RecursiveLoadError
from tiers import PATIENCE, eventually


@pytest.fixture
def pool() -> Iterator[LoadPool]:
    pool = LoadPool(3)
    yield pool
    pool.close(PATIENCE)


class Gate:
    """A job that waits until it is opened."""

    def __init__(self) -> None:
        self.begun, self.open, self.dropped = threading.Semaphore(0), threading.Event(), 0

    def run(self) -> None:
        self.begun.release()
        assert self.open.wait(PATIENCE)

    def drop(self) -> None:
        self.dropped += 1

    def wait(self, times: int) -> None:
        for _ in range(times):
            assert self.begun.acquire(timeout=PATIENCE)


def test_pool_starts_a_thread_when_none_is_idle_and_no_more_than_it_may(pool: LoadPool) -> None:
    gate = Gate()
    for n in (1, 2, 3, 3, 3):
        assert pool.submit(gate.run, gate.drop)
        assert len(pool._threads) == n
    gate.wait(3)
    assert not gate.begun.acquire(blocking=False)
    gate.open.set()
    gate.wait(2)
    eventually(lambda: pool._idle.qsize() == 3)
    for _ in range(100):  # one after the other needs one thread, and all stay counted
        done = threading.Event()
        assert pool.submit(done.set, gate.drop)
        assert done.wait(PATIENCE)
    eventually(lambda: pool._idle.qsize() == 3)
    assert gate.dropped == 0


def test_pool_of_idle_threads_starts_no_more() -> None:
    pool = LoadPool(8)
    for _ in range(100):
        done = threading.Event()
        assert pool.submit(done.set, lambda: None)
        assert done.wait(PATIENCE)
        eventually(lambda: pool._idle.qsize() == 1)
    assert len(pool._threads) == 1
    pool.close(PATIENCE)
    assert not pool._threads[0].is_alive()


def test_pool_that_is_closed_drops_what_waits_and_ends_its_threads(pool: LoadPool) -> None:
    gate = Gate()
    for _ in range(7):
        assert pool.submit(gate.run, gate.drop)
    gate.wait(3)
    pool.close(0)
    assert gate.dropped == 4
    gate.open.set()
    for thread in pool._threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()
    assert not pool.submit(gate.run, gate.drop)
    assert gate.dropped == 4


def test_pool_drops_a_job_that_comes_while_it_is_closed(pool: LoadPool, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate()
    gate.open.set()
    assert pool.submit(gate.run, gate.drop)
    gate.wait(1)
    copy_context = contextvars.copy_context

    def closes() -> contextvars.Context:
        pool.close(PATIENCE)
        return copy_context()

    monkeypatch.setattr(_pool.contextvars, "copy_context", closes)
    assert pool.submit(gate.run, gate.drop)
    assert gate.dropped == 1


def test_pool_that_can_start_no_thread_refuses(pool: LoadPool, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    gate = Gate()
    gate.open.set()
    with monkeypatch.context() as full:
        full.setattr(threading.Thread, "start", fails)
        assert not pool.submit(gate.run, gate.drop)
        assert pool._threads == []
    assert pool.submit(gate.run, gate.drop)
    gate.wait(1)
    with monkeypatch.context() as full:
        full.setattr(threading.Thread, "start", fails)
        for _ in range(5):  # the one that there is serves all
            assert pool.submit(gate.run, gate.drop)
        gate.wait(5)


def test_pool_whose_first_thread_does_not_start_keeps_no_job_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    pool, gate = LoadPool(1), Gate()

    def fails(thread: threading.Thread) -> None:
        assert pool.submit(gate.run, gate.drop), "it counts on the thread that is about to be there"
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", fails)
    assert not pool.submit(gate.run, gate.drop)
    assert gate.dropped == 1


def test_pool_that_is_interrupted_while_it_starts_a_thread_starts_it_next_time(
    pool: LoadPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(thread: threading.Thread) -> None:
        raise KeyboardInterrupt

    gate = Gate()
    gate.open.set()
    with monkeypatch.context() as full:
        full.setattr(threading.Thread, "start", interrupted)
        for _ in range(5):
            with pytest.raises(KeyboardInterrupt):
                pool.submit(gate.run, gate.drop)
    assert pool.submit(gate.run, gate.drop)
    gate.wait(1)


def test_pool_ends_its_threads_although_a_drop_raises(pool: LoadPool) -> None:
    gate = Gate()

    def fails() -> None:
        raise MemoryError

    for _ in range(4):
        assert pool.submit(gate.run, fails)
    gate.wait(3)
    with pytest.raises(MemoryError):
        pool.close(0)
    gate.open.set()
    for thread in pool._threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()


def in_the_middle_of_submit(monkeypatch: pytest.MonkeyPatch, act: Callable[[], Any]) -> list[Any]:
    """What `act` gave or raised, run once where the collector may run: while a job is given to the pool."""
    told: list[Any] = []
    copy_context = contextvars.copy_context

    def collects() -> contextvars.Context:
        if not told:
            told.append(None)
            try:
                told[0] = act()
            except Exception as error:
                told[0] = error
        return copy_context()

    monkeypatch.setattr(_pool.contextvars, "copy_context", collects)
    return told


def test_pool_a_del_that_asks_for_the_key_on_its_way_to_the_pool_does_not_wait_for_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with Cache(ttl=60) as cache:
        square = cache.cached(hard_timeout=PATIENCE)(lambda n: n * n)
        told = in_the_middle_of_submit(monkeypatch, lambda: square(3))
        assert square(3) == 9
        assert isinstance(told[0], RecursiveLoadError)


def test_pool_a_del_that_waits_for_another_load_of_the_pool_holds_nothing_up(monkeypatch: pytest.MonkeyPatch) -> None:
    with Cache(ttl=60, load_threads=1) as cache:
        square = cache.cached(hard_timeout=PATIENCE)(lambda n: n * n)
        told = in_the_middle_of_submit(monkeypatch, lambda: square(4))
        assert square(3) == 9
        assert told == [16]


@pytest.mark.parametrize("anew", [False, True])
def test_pool_a_load_that_waits_for_a_thread_is_begun_by_the_thread_that_needs_it(anew: bool) -> None:
    """Else all threads of the pool could wait for what waits for one of them."""
    loads: list[str] = []
    with Cache(ttl=60, load_threads=1) as cache:

        @cache.cached(hard_timeout=PATIENCE)
        def part(name: str) -> str:
            loads.append(threading.current_thread().name)
            return name.upper()

        got: list[str] = []
        other = threading.Thread(target=lambda: got.append(part.refresh("a") if anew else part("a")))

        @cache.cached(hard_timeout=PATIENCE)
        def whole() -> str:
            other.start()
            eventually(lambda: cache._pool._jobs.qsize() == 1)
            return part("a") + "!"

        assert whole() == "A!"
        other.join(PATIENCE)
        assert got == ["A"]
        assert loads == ["stillwarm-load-1"], "it is loaded once, although its job came to a thread later"


def test_pool_a_load_that_was_taken_over_is_not_dropped_with_its_job() -> None:
    loads, other = [], threading.Thread(target=lambda: part())
    with Cache(ttl=60, load_threads=1) as cache:

        @cache.cached(hard_timeout=PATIENCE)
        def part() -> int:
            cache._pool.close(0)
            loads.append(1)
            return len(loads)

        @cache.cached(hard_timeout=PATIENCE)
        def whole() -> int:
            other.start()
            eventually(lambda: cache._pool._jobs.qsize() == 1)
            return part()

        assert whole() == 1
        other.join(PATIENCE)
        assert loads == [1]


def test_pool_a_load_that_was_taken_over_where_the_stack_ends_is_left_to_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run_detached = _load.run_detached

    def ends(*_: Any) -> None:
        monkeypatch.setattr(_load, "run_detached", run_detached)
        raise RecursionError

    with Cache(ttl=60, load_threads=1) as cache:
        part = cache.cached(hard_timeout=PATIENCE)(lambda: "part")
        got: list[str] = []
        other = threading.Thread(target=lambda: got.append(part()))

        @cache.cached(hard_timeout=PATIENCE)
        def whole() -> str:
            other.start()
            eventually(lambda: cache._pool._jobs.qsize() == 1)
            monkeypatch.setattr(_load, "run_detached", ends)
            with pytest.raises(RecursionError):
                part()
            return "whole"

        assert whole() == "whole"
        other.join(PATIENCE)
        assert got == ["part"]


def test_pool_a_load_that_is_refused_and_was_taken_over_runs_once(monkeypatch: pytest.MonkeyPatch) -> None:
    loads: list[int] = []
    with Cache(ttl=60, load_threads=1) as cache:

        @cache.cached(hard_timeout=PATIENCE)
        def part() -> int:
            loads.append(1)
            return len(loads)

        offered, taken = threading.Event(), threading.Event()
        submit = cache._pool.submit

        def refuses(run: Any, drop: Any) -> bool:
            if threading.current_thread() is not other:
                return submit(run, drop)
            offered.set()
            assert taken.wait(PATIENCE)
            return False

        monkeypatch.setattr(cache._pool, "submit", refuses)
        got: list[int] = []
        other = threading.Thread(target=lambda: got.append(part()))

        @cache.cached(hard_timeout=PATIENCE)
        def whole() -> int:
            other.start()
            assert offered.wait(PATIENCE)
            value = part()
            taken.set()
            return value

        assert whole() == 1
        other.join(PATIENCE)
        assert (got, loads) == ([1], [1])


def test_pool_loads_that_need_each_other_are_seen_also_where_one_was_taken_over() -> None:
    with Cache(ttl=60, load_threads=1) as cache:

        @cache.cached(hard_timeout=PATIENCE)
        def one() -> str:
            other.start()
            eventually(lambda: cache._pool._jobs.qsize() == 1)
            return two()

        @cache.cached(hard_timeout=PATIENCE)
        def two() -> str:
            return one()

        told: list[BaseException] = []

        def ask() -> None:
            try:
                two()
            except RecursiveLoadError as error:
                told.append(error)

        other = threading.Thread(target=ask)
        with pytest.raises(RecursiveLoadError):
            one()
        other.join(PATIENCE)
        assert len(told) == 1
