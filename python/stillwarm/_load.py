"""How a plain function's load is performed: the loop that does what the core's flow decides. `_aload` is its twin.

Thread rule: any thread. Nothing here holds a lock while it calls user code.
Refuses to know: states and deadlines (cpp/core/flow.hpp decides), keys, tiers.

The same functions in the same order as in `_aload`; only the waiting differs. A plain load without timeouts, retry or
hooks does not come here at all: cpp/bindings/cached_call.cpp performs it.
"""

from __future__ import annotations

import logging
import threading
import time
from _thread import LockType, allocate_lock, get_ident
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from stillwarm import _core, _tier_leases, _tier_loads, hooks
from stillwarm._landing import committed, count_stale, failed, finish, kind_of, outcome, planned
from stillwarm._target import (
    ABANDONED,
    ABSENT,
    AGAIN,
    AWAY,
    CONFIRM,
    ERROR,
    FOLLOW,
    LEAD,
    MISSING,
    NOT_ASKED,
    NOT_FOUND,
    REFRESH,
    REFRESH_EARLY,
    RETURN,
    RETURN_STALE,
    RUNNING,
    STALE,
    Load,
    Target,
    give,
    innermost,
)
from stillwarm._tier import drive
from stillwarm._types import Settings
from stillwarm._waiting import pause, running_loop
from stillwarm.errors import LoadTimeout, NotFound, RecursiveLoadError

if TYPE_CHECKING:
    from stillwarm._pool import LoadPool
    from stillwarm._tier_loads import Reading

SERVED: Final[dict[int, type[hooks.Event]]] = {
    RETURN: hooks.Hit,
    REFRESH_EARLY: hooks.Hit,
    REFRESH: hooks.StaleServed,
    RETURN_STALE: hooks.StaleServed,
}

_log = logging.getLogger("stillwarm")

# A follower whose limit nobody set. It ends what no check can see: a loader that waits for a thread that waits for it.
FOLLOWER_LIMIT: Final = 30.0
SLICE: Final = 0.25  # how often a waiting thread looks whether the event loop of the load is still there


def perform(call: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A call that was no plain hit and no plain miss, from the start."""
    target = Target(call, args, kwargs)
    if not target.cache._enabled:
        from stillwarm import _off

        return _off.run(target)
    return run(target)


def reload(target: Any) -> Any:
    """A new value whatever is stored: of the load that runs, or of one that starts now.

    What is stored serves other callers meanwhile, and this one if the load fails TRANSIENT.
    """
    if not target.cache._enabled:
        from stillwarm import _off

        return _off.run(target)
    return run(target, anew=True)


def run(target: Any, anew: bool = False) -> Any:
    count, asked, settled = True, NOT_ASKED, False
    while True:
        step, value, flight = target.begin_anew(count) if anew else target.begin(count, asked)
        if step == CONFIRM:  # memory has a value, and only the tier knows whether it is still right
            asked = target.cache._asked(target)
            if asked == AWAY:
                target.silent = True
            continue
        if step == FOLLOW and not settled and _tier_loads.pending(target):
            target.cache._confirm()  # a transaction that has ended by now detaches what began before
            count, settled = False, True
            continue
        try:
            if step in SERVED and count and target.cache._hooks:
                target.cache._emit_for(SERVED[step], target)
            if step in (RETURN, RETURN_STALE):
                return give(target, value)
            if step == ABSENT:
                raise NotFound(value)
            if step in (REFRESH, REFRESH_EARLY):
                refresh(target, flight)
                return give(target, value)
            if target.cache._hooks:
                target.cache._emit_for(hooks.Missed, target, joined=step == FOLLOW)
            value = lead(target, flight, value, anew) if step == LEAD else follow(target, flight, value)
        except BaseException:
            if flight is not None and step != FOLLOW and flight.thread == get_ident():
                finish(flight, ABANDONED, None)  # nothing, unless Ctrl-C came before the load had begun
            raise
        if value is not AGAIN:
            return give(target, value)
        count, asked = False, NOT_ASKED


def lead(target: Any, flight: Any, fallback: Any, anew: bool = False) -> Any:
    settings = target.settings
    limited = settings.hard_timeout or (settings.soft_timeout and fallback is not MISSING)
    if limited and not target.inline and in_pool(target, flight, anew):
        return follow(target, flight, fallback)
    value = run_load(target, flight, anew=anew)
    if flight.state == STALE:
        count_stale(target, flight)
    return value


def in_pool(target: Any, flight: Any, anew: bool = False) -> bool:
    """Gives the load to the pool. False: the pool does not take it.

    A load that runs on a thread of the pool does not wait for another of its threads: nested loads would starve each
    other. What it needs is loaded on its own thread.
    """
    pool: LoadPool = target.cache._pool
    if pool.runs_here() and not flight.background:
        return False
    try:
        flight.offer(anew)
        if pool.submit(lambda: run_offered(target, flight), lambda: drop_offered(flight)):
            flight.let_go()  # not sooner: a __del__ on this thread would wait for what is not in the pool's hands
            return True
        return flight.take() is None  # then a thread of the pool that needs it was faster
    except BaseException:
        finish(flight, ABANDONED, None)  # a load that was taken all the same is not stored
        raise


def run_offered(target: Any, flight: Any) -> None:
    """Runs a load that was given to the pool, unless somebody has begun it."""
    anew = flight.take()
    if anew is None:
        return
    try:
        run_detached(target, flight, anew)
    finally:
        finish(flight, ABANDONED, None)  # nothing if it has landed: the stack may end before the load begins


def drop_offered(flight: Any) -> None:
    """The pool is closed: a load that nobody has begun will not be."""
    if flight.take() is not None:
        finish(flight, ABANDONED, None)


def refresh(target: Any, flight: Any) -> None:
    """Starts a background refresh; if the pool is full the next get tries again."""
    if not refresh_by_target(target, flight) and not in_pool(target, flight):
        _core.count_skipped_refresh(flight)
        finish(flight, ABANDONED, None)


def refresh_by_target(target: Any, flight: Any) -> bool:
    """Lets the target start the refresh, if it has a way of its own."""
    if target.start_refresh is None:
        return False
    flight.thread = 0  # not this thread: whoever asks for the key here meanwhile may wait
    try:
        target.start_refresh(flight)
    except BaseException as error:
        finish(flight, ABANDONED, None)  # a load that was taken all the same is not stored
        if not isinstance(error, Exception):
            raise
        _core.count_skipped_refresh(flight)
        _log.exception("a background refresh of %s could not be started", target.cache._key_of(flight))
    return True


def run_detached(target: Any, flight: Any, anew: bool = False) -> None:
    """A load that no caller runs: its outcome is in the flight, its error is counted."""
    try:
        run_load(target, flight, parent=False, anew=anew)
    except Exception:
        pass  # the flight has it for those who follow; stats count it


def run_load(target: Any, flight: Any, parent: bool = True, anew: bool = False) -> Any:
    """Asks the remote tier, then runs the loader on this thread, with retries, until the flight has landed."""
    reading = None
    tier = target.tier
    if tier is not None:
        try:
            if parent and _tier_loads.is_plain(target, flight, anew):
                value, rest = _tier_loads.read_now(target, flight)
                if value is not MISSING:
                    if target.settings.early:
                        _tier_loads.follow_up(target, refresh)
                    return value
                reading = drive(tier, rest)
            else:
                reading = drive(tier, _tier_loads.read(target, flight, anew or flight.background))
            there = _tier_loads.landed(target, flight, reading, anew)
            if not there and target.settings.fleet and reading.seen:
                there = drive(tier, _tier_leases.acquire(target, flight, reading, anew))
        except Exception as error:
            finish(flight, ERROR, (error, error.__traceback__))
            raise
        except BaseException:
            finish(flight, ABANDONED, None)
            raise
        if there:
            return from_tier(target, flight, parent)
    try:
        if target.cache._hooks:
            with target.cache._around(flight):
                return run_to_landing(target, flight, parent, reading)
        return run_to_landing(target, flight, parent, reading)
    finally:
        if reading is not None and reading.owner:
            drive(tier, _tier_leases.give_back(tier, reading))


def from_tier(target: Any, flight: Any, is_leader: bool) -> Any:
    """What the leader returns after its flight landed without a load. A load in the pool is nobody's call: its leader
    is one of those who follow, and counted as they are."""
    if flight.state == ABANDONED:
        return AGAIN
    if flight.background:
        return flight.value
    value = _tier_loads.outcome(target, flight) if is_leader else flight.value
    _tier_loads.follow_up(target, refresh)
    return value


def run_to_landing(target: Any, flight: Any, parent: bool, reading: Reading | None) -> Any:
    attempts = target.settings.retry.start() if target.settings.retry else None
    outer = innermost()
    before = _core.enter(flight)
    # The load inside which this one runs cannot end before it. Its own frame is below this one, so it stays alive.
    _core.set_parent(flight, outer if parent else None)
    try:
        while True:
            flight.load = Load(flight, True) if target.settings.copy else None  # of this attempt
            start = time.perf_counter_ns()
            try:
                value = target.load()
            except Exception as error:
                _core.count_load(flight, time.perf_counter_ns() - start, True)
                kind = kind_of(target.settings, error)
                delay = attempts.failed(error) if attempts is not None and kind != NOT_FOUND else None
                if delay is None:
                    return failed(target, flight, error, kind, reading)
            else:
                took = time.perf_counter_ns() - start
                _core.count_load(flight, took, False)
                if attempts is not None:
                    attempts.succeeded()
                plan = planned(target, flight, value, reading)
                refused = False
                if plan is not None and plan.request is not None and target.settings.fleet:
                    refused = not drive(target.tier, _tier_loads.written(target.tier, plan.request, reading))
                return committed(target, flight, value, took, plan, refused)
            pause(delay)
    except Exception as error:
        finish(flight, ERROR, (error, error.__traceback__))  # nothing if it has landed
        raise
    except BaseException:
        finish(flight, ABANDONED, None)  # the same
        raise
    finally:
        _core.leave(flight, before)


def follow(target: Any, flight: Any, fallback: Any) -> Any:
    """Waits for a load that runs elsewhere. AGAIN if it was abandoned."""
    if flight.state != RUNNING:  # it landed meanwhile, perhaps by this very thread
        return outcome(target, flight)
    me = innermost()
    if flight.loop is not None and flight.loop is running_loop():
        if me is not None and _core.depends_on_itself(me, flight):
            raise recursive(target, me, flight)
        return target.load()  # waiting would stop the very loop that runs the load
    if flight.thread == get_ident():  # the load is below on this stack, or about to begin there
        raise recursive(target, me or flight, flight)
    lock = allocate_lock()
    lock.acquire()
    if me is not None and not _core.add_follower(flight, me):  # one step: two threads may ask for each other's key
        raise recursive(target, me, flight)
    try:
        if target.cache._pool.runs_here():
            # It waits for a thread of the pool, and all of these may wait for it: who needs it begins it.
            run_offered(target, flight)
        # Ctrl-C comes to the main thread, which therefore does not carry the relay (cpp/bindings/flight.hpp).
        if flight.sleep_with(lock, get_ident() != main_thread_ident()):
            for seconds, timed_out in limits(target.settings, fallback):
                if acquire(lock, seconds, flight):
                    break
                if timed_out is not None:
                    return timed_out(target, flight, fallback)
    finally:
        flight.left(lock)
        if me is not None:
            _core.remove_follower(flight, me)
    return outcome(target, flight)


def main_thread_ident() -> int | None:
    return threading.main_thread().ident


def recursive(target: Any, me: Any, flight: Any) -> RecursiveLoadError:
    asking, asked = target.cache._key_of(me), target.cache._key_of(flight)
    return RecursiveLoadError(f"the loader of {asking} asks for {asked}, which waits for it")


def acquire(lock: LockType, seconds: float, flight: Any) -> bool:
    if flight.loop is None:
        return lock.acquire(timeout=seconds)
    deadline = time.monotonic() + seconds
    while True:
        left = deadline - time.monotonic()
        if lock.acquire(timeout=max(0.0, min(left, SLICE))):
            return True
        if flight.loop.is_closed():
            finish(flight, ABANDONED, None)  # its load will never go on
            return True
        if left <= 0:
            return False


def limits(settings: Settings, fallback: Any) -> list[tuple[float, Callable[[Any, Any, Any], Any] | None]]:
    """How long to wait, step by step, and what happens after each."""
    hard = settings.hard_timeout / 1e9 if settings.hard_timeout else FOLLOWER_LIMIT
    soft = settings.soft_timeout / 1e9
    if fallback is not MISSING and 0 < soft < hard:
        return [(soft, serve_stale)]
    return [(hard, give_up if fallback is MISSING else serve_stale)]


def serve_stale(target: Any, flight: Any, fallback: Any) -> Any:
    count_stale(target, flight)
    return fallback


def give_up(target: Any, flight: Any, fallback: Any) -> Any:
    hard = target.settings.hard_timeout
    default = f"the {FOLLOWER_LIMIT:g} s that a caller waits for another's load"
    limit = f"hard_timeout={hard / 1e9:g} s" if hard else default
    key = target.cache._key_of(flight)
    raise LoadTimeout(f"the load of {key} took longer than {limit}; it goes on and may be stored")
