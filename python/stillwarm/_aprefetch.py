"""`_prefetch` for asyncio: a schedule that is a task, for coroutine functions and plain ones.

Thread rule: `start` on the loop; `stop` and `figures` from any thread.
Refuses to know: what `_prefetch` refuses.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import inspect
import time
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from stillwarm import _aload, _waiting
from stillwarm._landing import finish
from stillwarm._prefetch import Prefetch, told
from stillwarm._target import ABANDONED, CONFIRM
from stillwarm._waiting import running_loop

if TYPE_CHECKING:
    from stillwarm._target import Target


class OnLoop(Prefetch):
    _plain = False

    def reset(self) -> None:
        super().reset()
        self._task: asyncio.Task[None] | None = None

    @property
    def running(self) -> bool:
        # Of a loop that was closed with its tasks in it, none is ever done.
        return (
            self._task is not None and not self._task.done() and not self._stop.is_set() and not self._loop.is_closed()
        )

    def start(self) -> None:
        if self.running:
            return
        self._loop = asyncio.get_running_loop()
        self._stop = stop = asyncio.Event()
        self._cache._schedules.add(self)
        self._task = self._loop.create_task(self._run(stop))
        self._task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if task is self._task:  # it was not started anew meanwhile
            self._cache._schedules.discard(self)

    def stop(self) -> None:
        self._cache._schedules.discard(self)
        if self._task is None:
            return
        if running_loop() is self._loop:
            self._stop.set()
            return
        _call_soon(self._loop, self._stop.set)

    async def _run(self, stop: asyncio.Event) -> None:
        wait = self._every * _waiting.draw()
        while not await apause(stop, wait):
            begun = time.monotonic()
            try:
                await self._round(stop)
            except Exception as error:
                self._note_failure("a round", told(error))
            wait = self._every - (time.monotonic() - begun) % self._every

    async def _round(self, stop: asyncio.Event) -> None:
        due = iter(self._due())

        async def run() -> None:
            for target in due:
                if stop.is_set():
                    return
                await self._refresh(target)

        running = [asyncio.ensure_future(run()) for _ in range(self._at_once)]
        try:
            await asyncio.gather(*running)
        finally:  # the loop ends
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    async def _refresh(self, target: Target) -> None:
        loop = asyncio.get_running_loop()
        if not inspect.iscoroutinefunction(target.call._function):
            over = asyncio.Event()
            self._in_pool(target, lambda: _call_soon(loop, over.set))
            await over.wait()
            return
        flight = None
        try:
            step, flight = self._claimed(target)
            if step == CONFIRM:
                _, flight = self._claimed(target, await self._cache._aasked(target))
            if flight is not None:
                flight.loop, flight.thread = loop, 0
                await _alone(_aload.run_load(target, flight))
                self._judge(flight)
        except Exception as error:
            self._note_failure("a refresh", told(error))
        finally:
            if flight is not None:
                finish(flight, ABANDONED, None)


async def _alone(load: Coroutine[Any, Any, None]) -> None:
    """Runs a load as a task of its own, so that one that cancels itself ends no schedule.

    Raises:
        concurrent.futures.CancelledError: it did; to be told from asyncio's, which would be that of who waits for it.
    """
    task = asyncio.ensure_future(load)
    try:
        await asyncio.wait((task,))
    finally:
        if not task.done():  # the loop ends
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
    if task.cancelled():
        raise concurrent.futures.CancelledError("raised by the function")
    task.result()


async def apause(stop: asyncio.Event, seconds: float) -> bool:
    """Waits between rounds. True: stopped."""
    try:
        await asyncio.wait_for(stop.wait(), seconds)
    except asyncio.TimeoutError:
        return False
    return True


def _call_soon(loop: asyncio.AbstractEventLoop, function: Callable[[], object]) -> None:
    try:
        loop.call_soon_threadsafe(function)
    except RuntimeError:
        pass  # that loop is closed, and nobody waits


__all__ = ["OnLoop"]
