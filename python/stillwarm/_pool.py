"""The load pool: a few daemon threads for background refreshes and for loads with a timeout.

Thread rule: `submit`, `close`, `reset` from any thread. Jobs run on the pool's threads, in a copy of the submitter's
context.
Refuses to know: caches and flights. A job must not raise.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import logging
import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Final, NamedTuple

MAX_WAITING: Final = 1_000

_log = logging.getLogger("stillwarm")


class _Job(NamedTuple):
    context: contextvars.Context
    run: Callable[[], None]
    drop: Callable[[], None]
    awaited: bool  # a thread that was idle, or was started for it, is counted as busy


class Single:
    """A job that runs on a pool, one at a time; asked for while it runs, it runs once more."""

    def __init__(self) -> None:
        self.busy = threading.Lock()
        self._again = False

    def start(self, pool: LoadPool, run: Callable[[], None]) -> bool:
        """Begins it. False: the pool takes no more, or it runs already."""
        self._again = True
        if not self.busy.acquire(blocking=False):
            return False
        if pool.submit(functools.partial(self._run, run), self.busy.release):
            return True
        self.busy.release()
        return False

    def _run(self, run: Callable[[], None]) -> None:
        try:
            while self._again:
                self._again = False
                run()
        finally:
            self.busy.release()


class LoadPool:
    """Starts a thread when a job finds none idle, up to `threads`; a job that finds 1,000 waiting is refused.

    No lock is held over a line of Python: the collector may run there, and with it a `__del__` that waits for a load of
    this very pool. What is shared are queues written in C, which may be come back to.
    """

    def __init__(self, threads: int) -> None:
        self._most = threads
        self.reset()

    def reset(self) -> None:
        """Forgets threads and jobs: in a child after fork they do not exist."""
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()  # None: the pool is closed; whoever gets it puts it back
        self._idle: SimpleQueue[None] = SimpleQueue()  # one for each thread that waits and that no job counts on
        self._places: SimpleQueue[None] = SimpleQueue()  # one for each thread that may still be started
        for _ in range(self._most):
            self._places.put(None)
        self._threads: list[threading.Thread] = []
        self._closed = False

    def submit(self, run: Callable[[], None], drop: Callable[[], None]) -> bool:
        """Calls `run` soon, or `drop` if the pool is closed first. False: full, closed, or no thread can be started."""
        if self._takes_nothing():
            return False
        awaited = _take(self._idle) or self._start()
        if not self._threads:
            return False
        self._jobs.put(_Job(contextvars.copy_context(), run, drop, awaited))
        if self._closed:  # meanwhile: nobody may come for it any more
            self._end()
        return True

    def _takes_nothing(self) -> bool:
        return self._closed or self._jobs.qsize() >= MAX_WAITING

    def _start(self) -> bool:
        if not _take(self._places):
            return False
        number = self._most - self._places.qsize()
        thread = threading.Thread(target=self._run, name=f"stillwarm-load-{number}", daemon=True)
        self._threads.append(thread)
        try:
            thread.start()
        except BaseException as error:  # no more threads, the interpreter is going down, Ctrl-C
            if thread.ident is None:
                self._threads.remove(thread)
                self._places.put(None)
                if not self._threads:  # others counted on it
                    self._drop_waiting()
            if not isinstance(error, RuntimeError):
                raise
            return False
        return True

    def runs_here(self) -> bool:
        """Whether this thread is one of the pool's."""
        return threading.current_thread() in self._threads

    def close(self, wait: float) -> None:
        """Takes no more jobs, drops the waiting ones, and waits at most `wait` seconds for the running ones."""
        self._closed = True
        self._end()
        deadline = time.monotonic() + wait
        for thread in list(self._threads):
            if thread is not threading.current_thread() and thread.ident is not None:
                thread.join(max(0.0, deadline - time.monotonic()))

    def _end(self) -> None:
        try:
            self._drop_waiting()
        finally:
            self._jobs.put(None)

    def _drop_waiting(self) -> None:
        with contextlib.suppress(Empty):
            while True:
                job = self._jobs.get_nowait()
                if job is not None:
                    job.drop()

    def _run(self) -> None:
        while True:
            job = self._jobs.get()
            if job is None:
                self._jobs.put(None)
                return
            if not job.awaited:  # it came to a busy pool: a thread that has become idle since does not wait for another
                _take(self._idle)
            try:
                job.context.run(job.run)
            except BaseException:
                _log.exception("a job of the load pool failed")
            del job  # an idle thread keeps nothing alive
            self._idle.put(None)


def _take(tokens: SimpleQueue[None]) -> bool:
    try:
        tokens.get_nowait()
    except Empty:
        return False
    return True
