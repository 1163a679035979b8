"""Warming up: calls a list of functions a few at a time, so that their values are there before the first caller.

The cache says WARMING until they have all been called. One that fails is logged and counted: a warm-up never keeps an
app from starting.

Thread rule: `warm` from any thread, which it keeps until it is done; `awarm` from any loop.
Refuses to know: what is called. A cached function stores its value itself; a request through an app does so too.
"""

from __future__ import annotations

import contextvars
import inspect
import logging
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

from stillwarm._durations import shown
from stillwarm._invalidating import Invalidating
from stillwarm._observed import count
from stillwarm._stats import State
from stillwarm.errors import ConfigError

Work = Iterable["Callable[[], Any] | tuple[Any, ...]"]
Progress = Callable[[int, int], object]

_MOST: Final = 256
_log = logging.getLogger("stillwarm")


class Warmed(NamedTuple):
    """What came of a warm-up.

    Attributes:
        done: calls that returned.
        failed: calls that raised.
        seconds: how long it took.
    """

    done: int
    failed: int
    seconds: float


class _Job(NamedTuple):
    function: Callable[..., Any]
    arguments: tuple[Any, ...]

    def failed(self, error: BaseException) -> None:
        name = getattr(self.function, "__qualname__", repr(self.function))
        _log.warning("warm-up: %s%.200r failed: %r", name, self.arguments, error)


class Warming(Invalidating):
    """The part of a Cache that is warmed up."""

    __slots__ = ()

    _warming: set[object]  # the warm-ups that are going on; adding and discarding need no lock

    @property
    def state(self) -> State:
        """WARMING until `warm` and `awarm` have ended, else as the remote tier is: HEALTHY, DEGRADED, DOWN."""
        return State.WARMING if self._warming else super().state

    def warm(self, work: Work, *, at_once: int = 4, progress: Progress | None = None) -> Warmed:
        """Calls everything in `work`, on threads of its own, and returns when that is done.

        A cache that is switched off has nothing to warm up: then nothing is called.

        Args:
            work: callables, or tuples of a callable and its arguments: `[(score, "B01"), (score, "B02"), totals]`.
            at_once: how many are called at a time.
            progress: called with how many are done, and of how many, after each; on the caller's thread.

        Raises:
            ConfigError: an item cannot be called, or is a coroutine function, which `awarm` takes.
        """
        jobs = _jobs(work) if self._enabled else []
        for job in jobs:
            if inspect.iscoroutinefunction(job.function):
                raise ConfigError(f"work: {shown(job.function)} is a coroutine function: use `await cache.awarm(...)`")
        threads = min(count(at_once, "at_once", _MOST), len(jobs))
        started, failures, waiting = time.monotonic(), 0, iter(jobs)
        ended: queue.SimpleQueue[bool] = queue.SimpleQueue()
        stop, next_job = threading.Event(), threading.Lock()

        def run() -> None:
            while not stop.is_set():
                with next_job:
                    job = next(waiting, None)
                if job is None:
                    return
                try:
                    job.function(*job.arguments)
                except BaseException as error:
                    job.failed(error)
                    ended.put(False)
                else:
                    ended.put(True)

        with self._warms_up():
            try:
                for number in range(threads):
                    context = contextvars.copy_context()
                    name = f"stillwarm-warm-{number + 1}"
                    try:
                        threading.Thread(target=context.run, args=(run,), name=name, daemon=True).start()
                    except RuntimeError:  # no more threads: those that there are will do
                        if number == 0:
                            raise
                        break
                for done in range(1, len(jobs) + 1):
                    failures += not ended.get()
                    if progress is not None:
                        progress(done, len(jobs))
            finally:
                stop.set()
        return Warmed(len(jobs) - failures, failures, time.monotonic() - started)

    async def awarm(self, work: Work, *, at_once: int = 4, progress: Progress | None = None) -> Warmed:
        """`warm` for coroutine functions too, on the running loop; plain functions are called in threads."""
        import asyncio

        jobs = _jobs(work) if self._enabled else []
        tasks = min(count(at_once, "at_once", _MOST), len(jobs))
        started, failures, ended, waiting = time.monotonic(), 0, 0, iter(jobs)

        async def run() -> None:
            nonlocal failures, ended
            for job in waiting:
                try:
                    if inspect.iscoroutinefunction(job.function):
                        await job.function(*job.arguments)
                    else:
                        found = await asyncio.to_thread(job.function, *job.arguments)
                        if inspect.isawaitable(found):
                            await found
                except Exception as error:
                    failures += 1
                    job.failed(error)
                ended += 1
                if progress is not None:
                    progress(ended, len(jobs))

        with self._warms_up():
            running = [asyncio.ensure_future(run()) for _ in range(tasks)]
            try:
                await asyncio.gather(*running)
            finally:
                for task in running:
                    task.cancel()
                await asyncio.gather(*running, return_exceptions=True)
        return Warmed(len(jobs) - failures, failures, time.monotonic() - started)

    @contextmanager
    def _warms_up(self) -> Iterator[None]:
        one = object()
        self._warming.add(one)
        try:
            yield
        finally:
            self._warming.discard(one)


def _jobs(work: Any) -> list[_Job]:
    """The items of `work`, all of them checked before the first is called."""
    if isinstance(work, (str, bytes)) or not isinstance(work, Iterable):
        raise ConfigError(f"work={shown(work)}: accepted: a list of callables, or of tuples (callable, argument, ...)")
    jobs = []
    for item in work:
        job = _Job(item[0], item[1:]) if isinstance(item, tuple) and item else _Job(item, ())
        if not callable(job.function):
            raise ConfigError(f"work: {shown(item)}: accepted: a callable, or a tuple (callable, argument, ...)")
        jobs.append(job)
    return jobs


__all__ = ["Warmed", "Warming"]
