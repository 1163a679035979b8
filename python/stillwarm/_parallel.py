"""`gather` and `agather`: independent calls at the same time, with one deadline; three queries of 50 ms take 50 ms.

Thread rule: any thread, any loop. A plain call runs on a daemon thread of its own, so that no cache's load pool is kept
busy and no exit waits; a process has at most `MOST` of them.
Refuses to know: caches, and what is called.
"""

from __future__ import annotations

import contextvars
import inspect
import os
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar, overload

from stillwarm._durations import duration, shown
from stillwarm._observed import count
from stillwarm._signature import name_of
from stillwarm.errors import ConfigError, LoadTimeout

if TYPE_CHECKING:
    import asyncio
    from typing import TypeAlias

    from stillwarm._types import Duration

    _A = TypeVar("_A")
    _B = TypeVar("_B")
    _C = TypeVar("_C")
    _D = TypeVar("_D")
    _E = TypeVar("_E")
    _Work: TypeAlias = Awaitable[_A] | Callable[[], Awaitable[_A]]

T = TypeVar("T")

MOST: Final = 256  # threads of all gathers of a process
AT_ONCE: Final = 32  # of one
SLICE: Final = 0.01  # s; how often a coroutine looks whether a thread is free

_free = threading.BoundedSemaphore(MOST)
_inside = threading.local()  # .it: this thread is one of them


@overload
def gather(a: Callable[[], _A], /, *, deadline: Duration | None = None, threads: int = ...) -> tuple[_A]: ...
@overload
def gather(
    a: Callable[[], _A], b: Callable[[], _B], /, *, deadline: Duration | None = None, threads: int = ...
) -> tuple[_A, _B]: ...
@overload
def gather(
    a: Callable[[], _A],
    b: Callable[[], _B],
    c: Callable[[], _C],
    /,
    *,
    deadline: Duration | None = None,
    threads: int = ...,
) -> tuple[_A, _B, _C]: ...
@overload
def gather(
    a: Callable[[], _A],
    b: Callable[[], _B],
    c: Callable[[], _C],
    d: Callable[[], _D],
    /,
    *,
    deadline: Duration | None = None,
    threads: int = ...,
) -> tuple[_A, _B, _C, _D]: ...
@overload
def gather(*calls: Callable[[], T], deadline: Duration | None = None, threads: int = ...) -> tuple[T, ...]: ...
def gather(*calls: Callable[[], Any], deadline: Duration | None = None, threads: int = AT_ONCE) -> tuple[Any, ...]:
    """Makes all calls at the same time and returns their results in the order given: `gather(orders, stock, prices)`.

    Each runs on a daemon thread, in a copy of the caller's context variables. Arguments go in by `functools.partial` or
    a lambda.

    - The first error is raised at once, as it is, with a note that names its call. Calls that have not begun are not
      made. A thread cannot be cancelled: calls that run finish in the background, and what they return or raise is
      dropped.
    - The same holds past the deadline, and when the caller gets Ctrl-C.
    - Where no thread is free (256 in use), a caller with a deadline waits for one. Without a deadline, and inside
      another gather, it makes calls itself, one after the other, so that gathers never wait for each other's threads;
      errors are then seen between calls. So it does where the system gives no thread.

    Args:
        calls: callables without arguments; for coroutine functions there is `agather`.
        deadline: for all of them together; seconds, `timedelta` or text such as "2s". None: as long as it takes.
        threads: how many calls run at a time.

    Raises:
        ConfigError: a call cannot be called, or is a coroutine function; an argument is not accepted.
        LoadTimeout: (a TimeoutError) the deadline is over; names the calls that had not finished.
        BaseException: what the first call raised that failed.
    """
    for call in calls:
        if not callable(call) or inspect.iscoroutinefunction(call):
            raise _refusal(calls, call)
    limit = duration(deadline, "deadline", allow_none=True)
    until = None if limit is None else time.monotonic() + limit / 1e9
    wanted = min(count(threads, "threads", MOST), len(calls))
    return _Gathering(calls).run(wanted, until, deadline)


@overload
async def agather(a: _Work[_A], /, *, deadline: Duration | None = None) -> tuple[_A]: ...
@overload
async def agather(a: _Work[_A], b: _Work[_B], /, *, deadline: Duration | None = None) -> tuple[_A, _B]: ...
@overload
async def agather(
    a: _Work[_A], b: _Work[_B], c: _Work[_C], /, *, deadline: Duration | None = None
) -> tuple[_A, _B, _C]: ...
@overload
async def agather(
    a: _Work[_A], b: _Work[_B], c: _Work[_C], d: _Work[_D], /, *, deadline: Duration | None = None
) -> tuple[_A, _B, _C, _D]: ...
@overload
async def agather(*calls: _Work[_E], deadline: Duration | None = None) -> tuple[_E, ...]: ...
@overload
async def agather(*calls: Awaitable[Any] | Callable[[], Any], deadline: Duration | None = None) -> tuple[Any, ...]: ...
async def agather(*calls: Any, deadline: Duration | None = None) -> tuple[Any, ...]:
    """`gather` for coroutines: awaits everything at the same time and returns the results in the order given.

    - The first error is raised as it is, with a note that names its call, once the others have been cancelled and have
      ended. The same holds past the deadline, and when the caller is cancelled.
    - A plain callable runs on a daemon thread, as in `gather`; where none is free, it waits for one. Cancelled, it
      finishes in the background, and what it returns or raises is dropped.

    Args:
        calls: awaitables, coroutine functions without arguments, or plain callables without arguments.
        deadline: for all of them together; seconds, `timedelta` or text such as "2s". None: as long as it takes.

    Raises:
        ConfigError: an item is none of these, or the deadline is not accepted.
        LoadTimeout: (a TimeoutError) the deadline is over; names the calls that had not finished.
        BaseException: what the first call raised that failed.
    """
    import asyncio

    try:
        for call in calls:
            if not inspect.isawaitable(call) and not callable(call):
                raise ConfigError(f"agather({shown(call)}): accepted: awaitables, and callables without arguments")
        limit = duration(deadline, "deadline", allow_none=True)
    except ConfigError:
        _close(calls)
        raise
    tasks = [asyncio.ensure_future(call if inspect.isawaitable(call) else _one(call)) for call in calls]
    waiting, until = set(tasks), None if limit is None else time.monotonic() + limit / 1e9
    try:
        while waiting:
            left = None if until is None else max(0.0, until - time.monotonic())
            ended, waiting = await asyncio.wait(waiting, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            for number, task in enumerate(tasks):
                if task in ended and (task.cancelled() or task.exception() is not None):
                    _raise_of(task, calls, number)
            if waiting and not ended:
                unfinished = [number for number, task in enumerate(tasks) if task in waiting]
                raise _late("agather", calls, unfinished, deadline, "they were cancelled")
        return tuple(task.result() for task in tasks)
    finally:
        for task in waiting:
            task.cancel()
        try:
            if waiting:
                await asyncio.gather(*waiting, return_exceptions=True)
        finally:
            for task in tasks:
                if task.done() and not task.cancelled():
                    task.exception()  # of several that failed at the same moment asyncio would report all but the first


def _refusal(calls: Sequence[Any], call: Any) -> ConfigError:
    """Of a call that `gather` cannot make."""
    _close(calls)
    if inspect.iscoroutinefunction(call):
        return ConfigError(f"gather({shown(call)}): a coroutine function: use `await agather(...)`")
    advice = "; use `await agather(...)`" * inspect.isawaitable(call)
    return ConfigError(f"gather({shown(call)}): accepted: callables without arguments{advice}")


def _close(calls: Sequence[Any]) -> None:
    """Closes coroutines that are dropped: they would warn that nobody awaited them."""
    for call in calls:
        if inspect.iscoroutine(call):
            call.close()


def _raise_of(task: asyncio.Task[Any], calls: Sequence[Any], number: int) -> None:
    try:
        task.result()
    except BaseException as error:
        _note(error, f"agather: {_which(calls, number)}")
        raise


async def _one(call: Callable[[], Any]) -> Any:
    if inspect.iscoroutinefunction(call):
        return await call()
    found = await _in_thread(call)
    return await found if inspect.isawaitable(found) else found


async def _in_thread(call: Callable[[], Any]) -> Any:
    """What a plain callable returns that runs on a thread."""
    import asyncio

    loop, context = asyncio.get_running_loop(), contextvars.copy_context()
    future: asyncio.Future[tuple[Any, BaseException | None]] = loop.create_future()

    def land(outcome: tuple[Any, BaseException | None]) -> None:
        if future.done():
            _close(outcome[:1])
        else:
            future.set_result(outcome)

    def run() -> None:
        outcome: tuple[Any, BaseException | None]
        try:
            outcome = context.run(call), None
        except BaseException as error:
            outcome = None, error
        try:
            loop.call_soon_threadsafe(land, outcome)
        except RuntimeError:
            _close(outcome[:1])  # the loop is closed, and nobody waits

    # A thread of ours that waits for another always gets one: else all of them could wait.
    while not _start(run, always=getattr(_inside, "it", False)):  # noqa: ASYNC110  (no event says it)
        await asyncio.sleep(SLICE)
    try:
        value, error = await future
    except asyncio.CancelledError:
        if future.done() and not future.cancelled():
            _close(future.result()[:1])  # it came at the same moment
        raise
    if error is not None:
        raise error
    return value


class _Gathering:
    """One `gather`: threads take its calls one after the other, until all are made or nobody waits any more."""

    def __init__(self, calls: Sequence[Callable[[], Any]]) -> None:
        self._calls = calls
        self._context = contextvars.copy_context()
        self._results: dict[int, Any] = {}
        self._next = 0
        self._over = not calls
        self._failed: tuple[int, BaseException] | None = None
        self._lock = threading.Lock()
        self._ended = threading.Lock()  # held until it is over; a wait for it ends with Ctrl-C at once
        self._ended.acquire()

    def run(self, wanted: int, until: float | None, deadline: object) -> tuple[Any, ...]:
        try:
            self._begin(wanted, until)
            if not self._over:
                self._ended.acquire(timeout=-1 if until is None else max(0.0, until - time.monotonic()))
            with self._lock:
                failed, late = self._failed, len(self._results) < len(self._calls)
            if failed is not None:
                _note(failed[1], f"gather: {_which(self._calls, failed[0])}")
                raise failed[1]
            if late:
                unfinished = [number for number in range(len(self._calls)) if number not in self._results]
                raise _late("gather", self._calls, unfinished, deadline, "those that run go on in the background")
            return tuple(self._results[number] for number in range(len(self._calls)))
        finally:
            self._end()
            failed = self._failed = None  # an error and the frames that it was raised through would keep each other

    def _begin(self, wanted: int, until: float | None) -> None:
        """Starts the threads. Where there are too few, calls are made on this one."""
        started = 0
        while started < wanted and not self._over and _start(lambda: self._work(None)):
            started += 1
        if started == wanted:
            return
        if until is not None and not getattr(_inside, "it", False):
            # A call on this thread could take longer than the deadline: it waits for another thread, maybe in vain.
            left = max(0.0, until - time.monotonic())
            if started or _start(lambda: self._work(None), timeout=left):
                return
        self._work(until)

    def _work(self, until: float | None) -> None:
        while (until is None or time.monotonic() < until) and (number := self._take()) is not None:
            try:
                result = self._context.copy().run(self._calls[number])
            except BaseException as error:
                self._land(number, None, error)
                return
            self._land(number, result, None)

    def _take(self) -> int | None:
        with self._lock:
            if self._over or self._next >= len(self._calls):
                return None
            self._next += 1
            return self._next - 1

    def _land(self, number: int, result: Any, error: BaseException | None) -> None:
        with self._lock:
            if self._over:
                return  # nobody wants to know
            if error is not None:
                self._failed = number, error
            else:
                self._results[number] = result
            if error is None and len(self._results) < len(self._calls):
                return
            self._over = True
            self._ended.release()

    def _end(self) -> None:
        with self._lock:
            if not self._over:
                self._over = True
                self._ended.release()


def _start(run: Callable[[], None], always: bool = False, timeout: float = 0.0) -> bool:
    """Runs it on a daemon thread. False: none is free, for `timeout` seconds. `always`: beyond `MOST`, too."""
    free = _free
    counted = free.acquire(timeout=timeout)
    if not counted and not always:
        return False

    first = threading.Lock().acquire  # who has it first gives the permit back: the thread, or who could not start it

    def work() -> None:
        if not first(blocking=False):
            return
        _inside.it = True
        try:
            run()
        finally:
            if counted:
                free.release()

    try:
        threading.Thread(target=work, name="stillwarm-gather", daemon=True).start()
    except BaseException as error:  # no memory, Ctrl-C: it may run all the same
        if first(blocking=False) and counted:
            free.release()
        if not isinstance(error, RuntimeError):  # no more threads, or the interpreter is going down
            raise
        return False
    return True


def _which(calls: Sequence[Any], number: int) -> str:
    return f"call {number + 1} of {len(calls)}, {_name(calls[number])}"


def _name(call: Any) -> str:
    if inspect.iscoroutine(call):
        return call.__qualname__
    return shown(call) if inspect.isawaitable(call) else name_of(call, None)


def _late(what: str, calls: Sequence[Any], unfinished: list[int], deadline: object, then: str) -> LoadTimeout:
    names = ", ".join(f"{_name(calls[number])} (call {number + 1})" for number in unfinished[:10])
    more = f" and {len(unfinished) - 10} more" if len(unfinished) > 10 else ""
    return LoadTimeout(
        f"{what}: {len(unfinished)} of {len(calls)} calls had not finished within deadline={shown(deadline)}: "
        f"{names}{more}; {then}"
    )


def _note(error: BaseException, text: str) -> None:
    """A note as of Python 3.11, which 3.10 has no method for. One error may come out of several gathers."""
    try:
        notes = error.__dict__.setdefault("__notes__", [])
        if text not in notes:
            notes.append(text)
    except Exception:  # no attributes, or notes of another shape: the error itself matters more
        return


def _after_fork_in_child() -> None:
    global _free
    _free = threading.BoundedSemaphore(MOST)  # the threads that held the parent's are not here


os.register_at_fork(after_in_child=_after_fork_in_child)

__all__ = ["agather", "gather"]
