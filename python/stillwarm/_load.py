"""How a plain function's load is performed: the loop that does what the core's flow decides. `_aload` is its twin.

Thread rule: any thread. Nothing here holds a lock while it calls user code.
Refuses to know: states and deadlines (cpp/core/flow.hpp decides), keys, tiers.

The same functions in the same order as in `_aload`; only the waiting differs. A plain load without timeouts, retry or
hooks does not come here at all: cpp/bindings/cached_call.cpp performs it.
"""

from __future__ import annotations

import contextvars
import copy
import sys
import threading
import time
from _thread import LockType, allocate_lock, get_ident
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from stillwarm import _core, hooks
from stillwarm._types import FOREVER, Settings, tag_names, ttl_ns
from stillwarm.errors import LoadTimeout, NotFound, RecursiveLoadError
from stillwarm.retry import classify as classify_error
from stillwarm.retry import pause

if TYPE_CHECKING:
    from stillwarm._cache import Cache
    from stillwarm._pool import LoadPool

RETURN, REFRESH, LEAD, FOLLOW, ABSENT, RETURN_STALE, REFRESH_EARLY = range(7)  # Step of cpp/core/flow.hpp, and two
RUNNING, VALUE, ERROR, ABANDONED, STALE = range(5)  # FlightState of cpp/bindings/flight.hpp
FATAL, NOT_FOUND, TRANSIENT = range(3)  # ErrorKind
SERVED: Final[dict[int, type[hooks.Event]]] = {
    RETURN: hooks.Hit,
    REFRESH_EARLY: hooks.Hit,
    REFRESH: hooks.StaleServed,
    RETURN_STALE: hooks.StaleServed,
}
STORED: Final = ("stored", "lost", "too_large", "not_kept")
MISSING: Final = _core.MISSING
RAISE: Final = object()  # what `failed_plain` answers for "raise the loader's own error"
AGAIN: Final = object()  # the flight was abandoned: look again, one of the waiters will lead

# A follower whose limit nobody set. It ends what no check can see: a loader that waits for a thread that waits for it.
FOLLOWER_LIMIT: Final = 30.0
_SLICE: Final = 0.25  # how often a waiting thread looks whether the event loop of the load is still there

KINDS: Final = {"fatal": FATAL, "not_found": NOT_FOUND, "transient": TRANSIENT}

# The async load inside which this context runs.
current_async: contextvars.ContextVar[Any] = contextvars.ContextVar("stillwarm_load", default=None)
# The call inside which this context runs that goes straight through a cache which is switched off (_off.Passing).
straight: contextvars.ContextVar[Any] = contextvars.ContextVar("stillwarm_straight", default=None)


class Target:
    """One call that wants a value: what to ask the core, what to run, and the settings of both."""

    __slots__ = ("args", "cache", "call", "kwargs", "settings")

    def __init__(self, call: Any, args: tuple[Any, ...], kwargs: dict[str, Any] | None) -> None:
        self.call = call
        self.cache: Cache = call._cache
        self.settings: Settings = call._settings
        self.args = args
        self.kwargs = kwargs or {}

    def begin(self, count: bool) -> tuple[int, Any, Any]:
        return self.call._begin(self.args, self.kwargs, count)  # type: ignore[no-any-return]

    def load(self) -> Any:
        return self.call._function(*self.args, **self.kwargs)

    def tags(self) -> list[str]:
        tags = self.settings.tags
        return tag_names(tags(*self.args, **self.kwargs)) if callable(tags) else list(tags)

    def key(self) -> tuple[int, Any]:
        """Scope and stored key."""
        return self.call._scope, self.call._key(self.args, self.kwargs)


class Load:
    """The load that runs now, as its loader sees it: `stillwarm.current_load()`.

    What is set here counts for this one value, once the loader returns.
    """

    def __init__(self, flight: Any) -> None:
        self._flight = flight
        self.ttl: Any = MISSING
        self.tags: list[str] = []
        self._skip = False

    @property
    def key(self) -> str:
        """The readable key."""
        return self._flight.cache._readable(self._flight.scope, self._flight.key)  # type: ignore[no-any-return]

    @property
    def background(self) -> bool:
        """True for a refresh that no caller waits for."""
        return self._flight.background  # type: ignore[no-any-return]

    def skip_store(self) -> None:
        """The value goes to those who wait and is not stored; what was stored before stays."""
        self._skip = True


def current_load() -> Load:
    """The innermost load that runs on this thread or in this task.

    A loader changes what is kept with it: `current_load().ttl = 60`, `.tags.append("user:1")`, `.skip_store()`.

    Raises:
        RuntimeError: no load is running here.
    """
    flight, passing = innermost(), straight.get()
    if passing is not None and not passing.over and passing.outer is flight:
        flight = passing
    if flight is None:
        raise RuntimeError("current_load() works inside a loader: no load is running on this thread or task")
    if flight.load is None:
        flight.load = Load(flight)
    return flight.load  # type: ignore[no-any-return]


def innermost() -> Any:
    """The flight inside which this code runs: the later started one of the thread's and the context's."""
    here, context = _core.running(), current_async.get()
    if here is not None and here.state != RUNNING:
        here = None
    if context is not None and context.state != RUNNING:
        context = None
    if here is None or context is None:
        return here or context
    return here if here.sequence > context.sequence else context


def perform(call: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A call that was no plain hit and no plain miss, from the start."""
    target = Target(call, args, kwargs)
    if not target.cache._enabled:
        from stillwarm import _off

        return _off.run(target)
    return run(target)


def run(target: Any) -> Any:
    count = True
    while True:
        step, value, flight = target.begin(count)
        if step in SERVED and count and target.cache._hooks:
            target.cache._emit_for(SERVED[step], target)
        if step in (RETURN, RETURN_STALE):
            return give(target, value)
        if step == ABSENT:
            raise NotFound(value)
        try:
            if step in (REFRESH, REFRESH_EARLY):
                refresh(target, flight)
                return give(target, value)
            if target.cache._hooks:
                target.cache._emit_for(hooks.Missed, target, joined=step == FOLLOW)
            value = lead(target, flight, value) if step == LEAD else follow(target, flight, value)
        except BaseException:
            if step != FOLLOW and flight.thread == get_ident():
                finish(flight, ABANDONED, None)  # nothing, unless Ctrl-C came before the load had begun
            raise
        if value is not AGAIN:
            return give(target, value)
        count = False


def give(target: Any, value: Any) -> Any:
    """The value as this caller gets it."""
    return copy.deepcopy(value) if target.settings.copy else value


def lead(target: Any, flight: Any, fallback: Any) -> Any:
    settings = target.settings
    limited = settings.hard_timeout or (settings.soft_timeout and fallback is not MISSING)
    if limited and in_pool(target, flight):
        return follow(target, flight, fallback)
    value = run_load(target, flight)
    if flight.state == STALE:
        count_stale(target, flight)
    return value


def in_pool(target: Any, flight: Any) -> bool:
    """Gives the load to the pool. False: the pool does not take it."""
    try:
        flight.thread = 0
        pool: LoadPool = target.cache._pool
        return pool.submit(lambda: run_detached(target, flight), lambda: finish(flight, ABANDONED, None))
    except BaseException:
        finish(flight, ABANDONED, None)  # a load that was taken all the same is not stored
        raise


def refresh(target: Any, flight: Any) -> None:
    """Starts a background refresh; if the pool is full the next get tries again."""
    if not in_pool(target, flight):
        _core.count_skipped_refresh(flight)
        finish(flight, ABANDONED, None)


def run_detached(target: Any, flight: Any) -> None:
    """A load that no caller runs: its outcome is in the flight, its error is counted."""
    try:
        run_load(target, flight, parent=False)
    except Exception:
        pass  # the flight has it for those who follow; stats count it


def run_load(target: Any, flight: Any, parent: bool = True) -> Any:
    """Runs the loader on this thread, with retries, until the flight has landed."""
    attempts = target.settings.retry.start() if target.settings.retry else None
    outer = innermost()
    before = _core.enter(flight)
    # The load inside which this one runs cannot end before it. Its own frame is below this one, so it stays alive.
    _core.set_parent(flight, outer if parent else None)
    try:
        while True:
            start = time.perf_counter_ns()
            try:
                value = target.load()
            except Exception as error:
                _core.count_load(flight, time.perf_counter_ns() - start, True)
                kind = kind_of(target.settings, error)
                delay = attempts.failed(error) if attempts is not None and kind != NOT_FOUND else None
                if delay is None:
                    return failed(target, flight, error, kind)
            else:
                took = time.perf_counter_ns() - start
                _core.count_load(flight, took, False)
                if attempts is not None:
                    attempts.succeeded()
                return committed(target, flight, value, took)
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
        if lock.acquire(timeout=max(0.0, min(left, _SLICE))):
            return True
        if flight.loop.is_closed():
            finish(flight, ABANDONED, None)  # its load will never go on
            return True
        if left <= 0:
            return False


def running_loop() -> Any:
    """The event loop that runs on this thread, without importing asyncio for those who do not use it."""
    asyncio = sys.modules.get("asyncio")
    return asyncio._get_running_loop() if asyncio is not None else None


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


def count_stale(target: Any, flight: Any) -> None:
    """The caller, who was counted as a miss, gets a stale value."""
    _core.count_stale(flight)
    if target.cache._hooks:
        target.cache._emit_for(hooks.StaleServed, flight)


def give_up(target: Any, flight: Any, fallback: Any) -> Any:
    hard = target.settings.hard_timeout
    default = f"the {FOLLOWER_LIMIT:g} s that a caller waits for another's load"
    limit = f"hard_timeout={hard / 1e9:g} s" if hard else default
    key = target.cache._key_of(flight)
    raise LoadTimeout(f"the load of {key} took longer than {limit}; it goes on and may be stored")


def outcome(target: Any, flight: Any) -> Any:
    """What a landed flight brought."""
    if flight.state == STALE:
        count_stale(target, flight)
    if flight.state in (VALUE, STALE):
        return flight.value
    if flight.state == ABANDONED:
        return AGAIN
    error, traceback = flight.error
    # One error for all who waited: with the traceback it had, not with that of every other waiter.
    raise error.with_traceback(traceback)


def kind_of(settings: Settings, error: BaseException) -> int:
    """FATAL, NOT_FOUND or TRANSIENT, by classify= or stale_on= where given."""
    if isinstance(error, NotFound):
        return NOT_FOUND
    if settings.classify is not None:
        kind = settings.classify(error)
        if kind not in KINDS:
            raise ValueError(f"classify= returned {kind!r}; accepted: {', '.join(map(repr, KINDS))}") from error
        return KINDS[kind]
    if settings.stale_on is not None:
        on = settings.stale_on
        matches = isinstance(error, on) if isinstance(on, (type, tuple)) else on(error)
        return TRANSIENT if matches else FATAL
    return KINDS[classify_error(error)]


def committed(target: Any, flight: Any, value: Any, took: int) -> Any:
    """Stores what the loader returned, if it may be stored, and lands the flight."""
    try:
        stored = store(target, flight, value)
    except Exception as error:  # Ctrl-C is not an answer: then a follower leads
        finish(flight, ERROR, (error, error.__traceback__))
        raise
    finish(flight, VALUE, value)
    if target.cache._hooks:
        seconds = took / 1e9
        target.cache._emit_for(
            hooks.Loaded, flight, seconds=seconds, stored=STORED[stored], background=flight.background
        )
    return value


def store(target: Any, flight: Any, value: Any) -> int:
    settings, load = target.settings, flight.load
    if (load is not None and load._skip) or (settings.unless is not None and settings.unless(value)):
        return 3
    durations = None
    if load is not None and load.ttl is not MISSING:
        durations = settings.durations(ttl_ns(load.ttl, "current_load().ttl"))
    elif callable(settings.ttl):
        durations = settings.durations(ttl_ns(settings.ttl(value), "the value returned by ttl="))
    elif target.call is None:
        durations = settings.durations(settings.ttl)
    tags = target.tags()
    if load is not None:
        tags += tag_names(load.tags)
    weight = -1 if settings.weigh is None else weight_of(settings.weigh, value)
    kept = copy.deepcopy(value) if settings.copy else value
    return _core.commit(flight, kept, durations, [_core.tag_fingerprint(t) for t in tags], weight, False)


def weight_of(weigh: Callable[[Any], int], value: Any) -> int:
    weight = weigh(value)
    if not isinstance(weight, int) or weight < 0:
        raise ValueError(f"weigh= returned {weight!r}; accepted: a number of bytes (int, 0 or more)")
    return weight


def failed(target: Any, flight: Any, error: Exception, kind: int) -> Any:
    """Lands the flight of a load that failed for good. A stale value, or the error."""
    value, _ = _core.fail(flight, kind)
    if target.cache._hooks:
        target.cache._emit_for(hooks.LoadFailed, flight, error=error, background=flight.background)
    target.cache._note_error(flight.scope, error)
    if value is not MISSING:
        finish(flight, STALE, value)
        return value
    if kind == NOT_FOUND:
        if target.settings.negative_ttl:
            durations = (target.settings.negative_ttl, 0, 0)
            _core.commit(flight, str(error), durations, [_core.tag_fingerprint(t) for t in target.tags()], -1, True)
        if not isinstance(error, NotFound):
            absence = NotFound(str(error))
            absence.__cause__ = error
            error = absence
    finish(flight, ERROR, (error, error.__traceback__))
    raise error


def failed_plain(call: Any, flight: Any, error: BaseException) -> Any:
    """The C++ side ran a plain load and it raised: a stale value, RAISE, or another error."""
    if not isinstance(error, Exception):
        finish(flight, ABANDONED, None)  # Ctrl-C is not the load's answer: a follower leads
        return RAISE
    target = Target(call, (), None)
    try:
        value = failed(target, flight, error, kind_of(target.settings, error))
        count_stale(target, flight)
        return give(target, value)
    except Exception as raised:
        finish(flight, ERROR, (raised, raised.__traceback__))
        if raised is error:
            return RAISE
        raise


def commit_plain(call: Any, flight: Any, value: Any) -> None:
    """The C++ side ran a plain load whose loader used current_load()."""
    committed(Target(call, (), None), flight, value, 0)


def finish(flight: Any, state: int, result: Any) -> None:
    """Lands the flight, if it has not landed, and wakes those who wait for it."""
    waiters = _core.land(flight, state, result)
    if waiters is not None:
        wake(waiters)


def wake(waiters: list[Any]) -> None:
    """Futures of tasks are resolved on their own loops, all of a loop at once; threads are woken by the core."""
    loops: dict[int, tuple[Any, list[Any]]] = {}
    for loop, future in waiters:
        loops.setdefault(id(loop), (loop, []))[1].append(future)
    here = running_loop()
    for loop, futures in loops.values():
        if loop is here:
            resolve(futures)
            continue
        try:
            loop.call_soon_threadsafe(resolve, futures)
        except RuntimeError:
            pass  # that loop is closed, and so are its waiters


def resolve(futures: list[Any]) -> None:
    for future in futures:
        if not future.done():
            future.set_result(None)


def forever_or_seconds(ns: int) -> float | None:
    return None if ns >= FOREVER else ns / 1e9
