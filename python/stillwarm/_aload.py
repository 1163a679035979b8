"""How a coroutine function's load is performed: `_load` for asyncio. The same functions in the same order.

Thread rule: each coroutine runs on its caller's loop; flights are shared by all loops and threads.
Refuses to know: what `_load` refuses.

The load is a task of its own on the leader's loop, so that cancelling a caller only detaches that caller.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from typing import TYPE_CHECKING, Any

from stillwarm import _core, _tier_leases, _tier_loads, hooks
from stillwarm._landing import committed, failed, finish, kind_of, outcome, planned
from stillwarm._load import SERVED, SLICE, limits, recursive, refresh_by_target
from stillwarm._retry import limited
from stillwarm._target import (
    ABANDONED,
    ABSENT,
    AGAIN,
    AWAY,
    CONFIRM,
    ERROR,
    FOLLOW,
    LEAD,
    NOT_ASKED,
    NOT_FOUND,
    REFRESH,
    REFRESH_EARLY,
    REMOTE,
    RETURN,
    RETURN_STALE,
    Load,
    Target,
    current_async,
    give,
    innermost,
)
from stillwarm._tier import adrive
from stillwarm._waiting import apause
from stillwarm.errors import NotFound

if TYPE_CHECKING:
    from stillwarm._tier_loads import Reading

_tasks: set[asyncio.Task[None]] = set()  # asyncio keeps only weak references


async def perform(call: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    target = Target(call, args, kwargs)
    if not target.cache._enabled:
        from stillwarm import _off

        return await _off.arun(target)
    return await run(target)


async def areload(target: Any) -> Any:
    """`_load.reload` for coroutines."""
    if not target.cache._enabled:
        from stillwarm import _off

        return await _off.arun(target)
    return await run(target, anew=True)


async def run(target: Any, anew: bool = False) -> Any:
    count, asked, settled = True, NOT_ASKED, False
    while True:
        step, value, flight = target.begin_anew(count) if anew else target.begin(count, asked)
        if step == CONFIRM:
            asked = await target.cache._aasked(target)
            if asked == AWAY:
                target.silent = True
            continue
        if step == FOLLOW and not settled and _tier_loads.pending(target):
            await target.cache._aconfirm()
            count, settled = False, True
            continue
        try:
            if step in SERVED and count and target.cache._hooks:
                target.cache._emit_for(SERVED[step], target)
            if step in (RETURN, RETURN_STALE):
                return give(target, value)
            if step == ABSENT:
                raise NotFound(value)
            if step in (LEAD, FOLLOW) and target.cache._hooks:
                target.cache._emit_for(hooks.Missed, target, joined=step == FOLLOW)
            if step in (REFRESH, REFRESH_EARLY):
                refresh(target, flight)
            elif step == LEAD and not target.inline:
                start(target, flight, anew)
        except BaseException:
            if flight is not None and step != FOLLOW and flight.loop is None:
                finish(flight, ABANDONED, None)  # nobody runs it
            raise
        if step in (REFRESH, REFRESH_EARLY):
            return give(target, value)
        inline = step == LEAD and target.inline
        value = await (lead_inline(target, flight, anew) if inline else follow(target, flight, value))
        if value is not AGAIN:
            if flight.state == REMOTE:
                _tier_loads.follow_up(target, refresh)
            return give(target, value)
        count, asked = False, NOT_ASKED


async def lead_inline(target: Any, flight: Any, anew: bool = False) -> Any:
    """Runs the load in the caller's own task. Cancelled with it, the load is abandoned and a follower leads."""
    me = innermost()
    try:
        if me is not None:
            _core.add_follower(flight, me)  # the load inside which this one runs cannot end before it
        await run_load(target, flight, anew)
    finally:
        finish(flight, ABANDONED, None)  # nothing, unless Ctrl-C came before the load had begun
        if me is not None:
            _core.remove_follower(flight, me)
    return outcome(target, flight)


def refresh(target: Any, flight: Any) -> None:
    """Starts a background refresh."""
    if not refresh_by_target(target, flight):
        start(target, flight)


def start(target: Any, flight: Any, anew: bool = False) -> None:
    """Runs the load as a task of this loop."""
    try:
        loop = asyncio.get_running_loop()
        flight.loop, flight.thread = loop, 0
        task = loop.create_task(run_load(target, flight, anew))
    except BaseException:
        finish(flight, ABANDONED, None)
        raise
    _tasks.add(task)
    task.add_done_callback(_tasks.discard)
    # A task that is cancelled before its first step never runs, so nobody else would land the flight.
    task.add_done_callback(lambda _: finish(flight, ABANDONED, None))


async def run_load(target: Any, flight: Any, anew: bool = False) -> None:
    """Asks the remote tier, then runs the loader in this task, with retries, until the flight has landed. Never raises
    but for cancellation."""
    reading = None
    tier = target.tier
    if tier is not None:
        flight.loop, flight.thread = asyncio.get_running_loop(), 0
        try:
            reading = await adrive(tier, _tier_loads.read(target, flight, anew or flight.background))
            there = _tier_loads.landed(target, flight, reading, anew)
            if not there and target.settings.fleet and reading.seen:
                there = await adrive(tier, _tier_leases.acquire(target, flight, reading, anew))
        except Exception as error:
            finish(flight, ERROR, (error, error.__traceback__))
            return
        except BaseException:
            finish(flight, ABANDONED, None)
            raise
        if there:
            return
    try:
        if target.cache._hooks:
            with target.cache._around(flight):
                await run_to_landing(target, flight, reading)
        else:
            await run_to_landing(target, flight, reading)
    finally:
        if reading is not None and reading.owner:
            await adrive(tier, _tier_leases.give_back(tier, reading))


async def run_to_landing(target: Any, flight: Any, reading: Reading | None) -> None:
    flight.loop, flight.thread = asyncio.get_running_loop(), 0
    outer = current_async.set(flight)
    retry = target.settings.retry
    attempts = retry.start() if retry else None
    try:
        while True:
            flight.load = Load(flight, True) if target.settings.copy else None  # of this attempt
            begun = time.perf_counter_ns()
            try:
                value = target.load()
                if inspect.isawaitable(value):
                    value = await limited(value, retry.attempt_timeout if retry else None)
            except Exception as error:
                _core.count_load(flight, time.perf_counter_ns() - begun, True)
                kind = kind_of(target.settings, error)
                delay = attempts.failed(error) if attempts is not None and kind != NOT_FOUND else None
                if delay is None:
                    failed(target, flight, error, kind, reading)
                    return
            else:
                took = time.perf_counter_ns() - begun
                _core.count_load(flight, took, False)
                if attempts is not None:
                    attempts.succeeded()
                plan = planned(target, flight, value, reading)
                refused = False
                if plan is not None and plan.request is not None and target.settings.fleet:
                    tier = target.tier
                    refused = not await adrive(tier, _tier_loads.written(tier, plan.request, reading))
                committed(target, flight, value, took, plan, refused)
                return
            await apause(delay)
    except Exception as error:
        finish(flight, ERROR, (error, error.__traceback__))  # nothing if it has landed
    except BaseException:
        finish(flight, ABANDONED, None)  # cancelled, or the loop is going down: a waiter elsewhere leads
        raise
    finally:
        try:
            current_async.reset(outer)
        except ValueError:
            pass  # the collector closes what a dead loop left, in a context of its own


async def follow(target: Any, flight: Any, fallback: Any) -> Any:
    """Waits for a load that runs in another task, loop or thread. AGAIN if it was abandoned."""
    me = innermost()
    loop = asyncio.get_running_loop()
    future = loop.create_future()
    if me is not None and not _core.add_follower(flight, me):  # one step: two threads may ask for each other's key
        raise recursive(target, me, flight)
    try:
        if flight.wait_with((loop, future)):
            for seconds, timed_out in limits(target.settings, fallback):
                if await wait(future, seconds, flight, loop):
                    break
                if timed_out is not None:
                    return timed_out(target, flight, fallback)
    finally:
        if me is not None:
            _core.remove_follower(flight, me)
    return outcome(target, flight)


async def wait(future: asyncio.Future[None], seconds: float, flight: Any, loop: Any) -> bool:
    if flight.loop is None or flight.loop is loop:
        return bool((await asyncio.wait([future], timeout=seconds))[0])
    deadline = time.monotonic() + seconds
    while True:
        left = deadline - time.monotonic()
        if (await asyncio.wait([future], timeout=max(0.0, min(left, SLICE))))[0]:
            return True
        if flight.loop.is_closed():
            finish(flight, ABANDONED, None)  # its load will never go on
            return True
        if left <= 0:
            return False


__all__ = ["areload", "follow", "perform", "run", "run_load"]
