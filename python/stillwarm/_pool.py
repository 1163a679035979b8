"""The load pool: a few daemon threads for background refreshes and for loads with a timeout.

Thread rule: `submit`, `close`, `reset` from any thread. Jobs run on the pool's threads, in a copy of the submitter's
context.
Refuses to know: caches and flights. A job must not raise.
"""

from __future__ import annotations

import contextvars
import functools
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple

MAX_WAITING: Final = 1_000

_log = logging.getLogger("stillwarm")


class _Job(NamedTuple):
    context: contextvars.Context
    run: Callable[[], None]
    drop: Callable[[], None]


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
    """Starts a thread when a job finds none idle, up to `threads`; a job that finds 1,000 waiting is refused."""

    def __init__(self, threads: int) -> None:
        self._most = threads
        self.reset()

    def reset(self) -> None:
        """Forgets threads and jobs: in a child after fork they do not exist."""
        self._jobs: deque[_Job] = deque()
        self._wanted = threading.Condition(threading.RLock())  # a __del__ that runs in here may come back
        self._threads: list[threading.Thread] = []
        self._idle = 0
        self._closed = False

    def submit(self, run: Callable[[], None], drop: Callable[[], None]) -> bool:
        """Calls `run` soon, or `drop` if the pool is closed first. False: full, closed, or no thread can be started."""
        job = _Job(contextvars.copy_context(), run, drop)
        with self._wanted:
            if self._closed or len(self._jobs) >= MAX_WAITING:
                return False
            self._jobs.append(job)
            if self._idle >= len(self._jobs) or len(self._threads) >= self._most:
                self._wanted.notify()
                return True
            thread = threading.Thread(target=self._run, name=f"stillwarm-load-{len(self._threads) + 1}", daemon=True)
            self._threads.append(thread)
        try:
            thread.start()
        except RuntimeError:  # no more threads, or the interpreter is going down
            with self._wanted:
                self._threads.remove(thread)
                if not self._threads and job in self._jobs:
                    self._jobs.remove(job)
                    return False
        return True

    def runs_here(self) -> bool:
        """Whether this thread is one of the pool's."""
        return threading.current_thread() in self._threads

    def close(self, wait: float) -> None:
        """Takes no more jobs, drops the waiting ones, and waits at most `wait` seconds for the running ones."""
        with self._wanted:
            self._closed = True
            dropped = list(self._jobs)
            self._jobs.clear()
            self._wanted.notify_all()
            threads = list(self._threads)
        for job in dropped:
            job.drop()
        deadline = time.monotonic() + wait
        for thread in threads:
            if thread is not threading.current_thread() and thread.ident is not None:
                thread.join(max(0.0, deadline - time.monotonic()))

    def _run(self) -> None:
        while True:
            with self._wanted:
                while not self._jobs:
                    if self._closed:
                        return
                    self._idle += 1
                    try:
                        self._wanted.wait()
                    finally:
                        self._idle -= 1
                job = self._jobs.popleft()
            try:
                job.context.run(job.run)
            except BaseException:
                _log.exception("a job of the load pool failed")
            del job  # an idle thread keeps nothing alive
