"""`cache.prefetch`: calls of cached functions that are refreshed in the background before their values expire.

Thread rule: `start`, `stop` and `figures` from any thread. A schedule is a daemon thread that only waits: the loads run
on the cache's load pool. `_aprefetch` is its twin, a task.
Refuses to know: how a load runs and what may be stored. A refresh here is the one that a stale hit starts, so what
failed is tried again when the rules of every refresh allow it.
"""

from __future__ import annotations

import inspect
import logging
import threading
import time
import types
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple

from stillwarm import _core, _waiting
from stillwarm._durations import duration, shown
from stillwarm._landing import finish
from stillwarm._load import run_detached
from stillwarm._observed import count
from stillwarm._target import (
    ABANDONED,
    CONFIRM,
    ERROR,
    LEAD,
    NOT_ASKED,
    REFRESH,
    REFRESH_EARLY,
    REMOTE,
    RETURN,
    STALE,
    VALUE,
    Target,
)
from stillwarm._warm import Warming
from stillwarm.errors import ConfigError

if TYPE_CHECKING:
    from typing_extensions import Self

    from stillwarm._pool import LoadPool
    from stillwarm._types import Duration

Calls = Iterable["Callable[..., Any] | tuple[Any, ...]"]

_MOST: Final = 256
_log = logging.getLogger("stillwarm")


class Prefetched(NamedTuple):
    """What a schedule has done since it began: `Prefetch.figures()`.

    Attributes:
        runs: rounds that it made.
        refreshed: values that came anew, from the loader or from another process by way of the remote tier.
        failed: refreshes that raised; the value that was there stays as long as it may.
        skipped: refreshes that the load pool did not take.
        last_error: text of the last error.
    """

    runs: int
    refreshed: int
    failed: int
    skipped: int
    last_error: str | None


class Prefetch:
    """A schedule that `cache.prefetch` or `cache.aprefetch` made. As a context manager it stops at the end."""

    _plain: ClassVar[bool]  # coroutine functions need a loop

    def __init__(self, cache: Any, calls: Any, every: object, early: object, at_once: object) -> None:
        ns = duration(every, "every")
        self._early = ns * 3 // 2 if early is None else duration(early, "early")
        if self._early < ns:
            raise ConfigError(
                f"early={shown(early)}: accepted: every={shown(every)} or more, else values expire between"
            )
        self._cache = cache
        self._calls = calls if callable(calls) else _targets(cache, calls, self._plain)
        self._every = ns / 1e9
        self._at_once = count(at_once, "at_once", _MOST)
        self._runs = self._refreshed = self._failed = self._skipped = 0
        self._last_error: str | None = None
        self._logged: set[str] = set()
        self.reset()

    def reset(self) -> None:
        """As if it had not been started: in the child of a fork."""
        self._lock = threading.Lock()

    @property
    def running(self) -> bool:
        """Whether it will go on."""
        raise NotImplementedError

    def start(self) -> None:
        """Goes on after `stop()`, or in the child of a fork, where nothing runs by itself. Nothing if it runs."""
        raise NotImplementedError

    def stop(self) -> None:
        """Begins no more refreshes. Waits for nobody: one that runs goes on, and its value is stored."""
        raise NotImplementedError

    def figures(self) -> Prefetched:
        """Counts since it was made."""
        with self._lock:
            return Prefetched(self._runs, self._refreshed, self._failed, self._skipped, self._last_error)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"<Prefetch every {self._every:g} s, {'running' if self.running else 'stopped'}, {self.figures()}>"

    # --------------------------------------------------------------------------------------------------- one round

    def _due(self) -> list[Target]:
        """The calls of this round whose values are missing or will soon expire. Never raises."""
        with self._lock:
            self._runs += 1
        try:
            wanted = self._calls
            if callable(wanted):
                wanted = _targets(self._cache, wanted(), self._plain)
        except Exception as error:
            self._note_failure("its list of calls", told(error))
            return []
        return [target for target in wanted if self._is_due(target)] if self._cache._enabled else []

    def _is_due(self, target: Target) -> bool:
        try:
            return self._expires(target)
        except Exception as error:  # a comparison of keys may raise; the others are due all the same
            self._note_failure(shown(target.call), told(error))
            return False

    def _expires(self, target: Target) -> bool:
        life = _core.life(self._cache, *target.key())
        return life is None or life[1] <= self._early

    def _claimed(self, target: Target, asked: int = NOT_ASKED) -> tuple[int, Any]:
        """The step, and the flight of a refresh that is now this schedule's to run; None: there is nothing to do."""
        step, _, flight = target.begin(False, asked)
        if step == RETURN and self._expires(target):
            step, _, flight = target.begin_anew(False)
        if step not in (LEAD, REFRESH, REFRESH_EARLY):
            return step, None
        flight.background = True
        return step, flight

    def _judge(self, flight: Any) -> None:
        """Counts what came of a refresh."""
        if flight.state in (VALUE, REMOTE):
            with self._lock:
                self._refreshed += 1
        elif flight.state in (ERROR, STALE):
            if flight.state == ERROR:
                error = flight.error[0]
                text = told(error)
            else:  # the value that is there stood in for it
                text = self._cache._last_errors.get(self._cache._scopes[flight.scope].type, "")
            self._note_failure(self._cache._key_of(flight), text)

    def _note_failure(self, what: str, text: str) -> None:
        kind = text.partition(":")[0]
        with self._lock:
            self._failed += 1
            self._last_error = text[:500]
            is_new = kind not in self._logged
            self._logged.add(kind)
        if is_new:
            _log.warning("prefetch: %.200s failed: %.500s; more of this kind is only counted", what, text)

    def _skip(self) -> None:
        with self._lock:
            self._skipped += 1

    def _in_pool(self, target: Target, ended: Callable[[], None]) -> None:
        """Refreshes on the load pool; `ended` is called when it is over, whatever came of it."""

        def run() -> None:
            flight = None
            try:
                step, flight = self._claimed(target)
                if step == CONFIRM:
                    _, flight = self._claimed(target, self._cache._asked(target))
                if flight is not None:
                    run_detached(target, flight)
                    self._judge(flight)
            except Exception as error:  # a comparison of keys may raise
                self._note_failure("a refresh", told(error))
            finally:
                if flight is not None:
                    finish(flight, ABANDONED, None)  # nothing if it has landed
                ended()

        def drop() -> None:
            self._skip()
            ended()

        pool: LoadPool = self._cache._pool
        if not pool.submit(run, drop):
            drop()


class _OnThread(Prefetch):
    _plain = True

    def reset(self) -> None:
        super().reset()
        self._stop = threading.Event()
        self._stop.set()

    @property
    def running(self) -> bool:
        return not self._stop.is_set()

    def start(self) -> None:
        with self._lock:
            if self.running:
                return
            self._stop = stop = threading.Event()
        self._cache._schedules.add(self)
        if stop.is_set():  # stop() was faster
            self._cache._schedules.discard(self)
        thread = threading.Thread(target=self._run, args=(stop,), name="stillwarm-prefetch", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # no more threads, or the interpreter is going down
            self.stop()
            _log.warning("prefetch: no thread can be started; start() tries again")

    def stop(self) -> None:
        self._stop.set()
        self._cache._schedules.discard(self)

    def _run(self, stop: threading.Event) -> None:
        wait = self._every * _waiting.draw()  # processes that start together do not refresh together
        try:
            while not pause(stop, wait):
                begun = time.monotonic()
                try:
                    self._round(stop)
                except Exception as error:
                    self._note_failure("a round", told(error))
                wait = self._every - (time.monotonic() - begun) % self._every
        except BaseException as error:  # a list of calls that ends its thread: SystemExit
            self._note_failure("the schedule, which ends,", told(error))
        finally:
            if self._stop is stop:
                self.stop()

    def _round(self, stop: threading.Event) -> None:
        free = threading.Semaphore(self._at_once)
        for target in self._due():
            free.acquire()
            if stop.is_set():
                return
            self._in_pool(target, free.release)
        for _ in range(self._at_once):
            free.acquire()


class Prefetching(Warming):
    """The part of a Cache that refreshes by itself."""

    __slots__ = ()

    _schedules: set[Prefetch]  # those that run

    def prefetch(
        self,
        calls: Calls | Callable[[], Calls],
        *,
        every: Duration,
        early: Duration | None = None,
        at_once: int = 1,
    ) -> Prefetch:
        """Refreshes calls of this cache's functions in the background before their values expire, until it is stopped,
        the cache is closed or the process ends: `cache.prefetch([(score, "B01"), totals], every="1m")`.

        Every so often it looks at each call: one whose value is missing, or will expire within `early`, is loaded on
        the load pool. It starts after a random part of `every`, so that processes do not refresh together, and raises
        nothing: a failed refresh is counted, logged once per kind of error, and tried again as every refresh is (a
        value that is stale pauses). It keeps nobody from starting or ending. With a remote tier, a value that another
        process has refreshed meanwhile is taken over.

        In the child of a fork it does not run: call `start()` there (gunicorn: in `post_fork`). With the cache switched
        off it does nothing.

        Args:
            calls: cached functions, or tuples of one and its arguments; or a callable that returns them, asked anew in
                every round.
            every: time between two rounds.
            early: how long before its end a value is refreshed; at least `every`. None: one and a half times that.
            at_once: how many are refreshed at a time; never more than the load pool has threads.

        Raises:
            ConfigError: a call is none of this cache's functions or is a coroutine function (`aprefetch`), or an
                argument is not accepted.
        """
        schedule = _OnThread(self, calls, every, early, at_once)
        if self._enabled:
            schedule.start()
        return schedule

    async def aprefetch(
        self,
        calls: Calls | Callable[[], Calls],
        *,
        every: Duration,
        early: Duration | None = None,
        at_once: int = 1,
    ) -> Prefetch:
        """`prefetch` for coroutine functions too, as a task of the running loop, and ends with it. Returns at once."""
        from stillwarm._aprefetch import OnLoop

        schedule = OnLoop(self, calls, every, early, at_once)
        if self._enabled:
            schedule.start()
        return schedule


def _targets(cache: Any, calls: Any, plain: bool) -> list[Target]:
    """The calls as targets, all of them checked before the first is looked at."""
    if isinstance(calls, (str, bytes)) or not isinstance(calls, Iterable):
        raise ConfigError(f"calls={shown(calls)}: accepted: a list of cached functions, or of tuples (function, ...)")
    found = []
    for item in calls:
        function: Any
        function, *args = item if isinstance(item, tuple) and item else (item,)
        if isinstance(function, types.MethodType):
            args = [function.__self__, *args]
            function = function.__func__
        if not isinstance(function, _core.CachedCall) or function._cache is not cache:
            raise ConfigError(f"calls: {shown(item)}: accepted: functions that this cache caches, and tuples of such")
        if plain and inspect.iscoroutinefunction(function._function):
            raise ConfigError(f"calls: {shown(function)} is a coroutine function: use `await cache.aprefetch(...)`")
        target = Target(function, tuple(args), None)
        target.key()  # says what is wrong with the arguments
        found.append(target)
    return found


def told(error: BaseException) -> str:
    """Kind and text of an error, whatever its `__str__` does."""
    try:
        return f"{type(error).__qualname__}: {error}"
    except Exception:
        return f"{type(error).__qualname__}: its text cannot be had"


def pause(stop: threading.Event, seconds: float) -> bool:
    """Waits between rounds. True: stopped."""
    return stop.wait(seconds)


__all__ = ["Prefetch", "Prefetched", "Prefetching"]
