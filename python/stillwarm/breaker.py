"""CircuitBreaker: keeps calls away from something that fails, and finds out when it is back.

    prices = CircuitBreaker(name="prices")

    @prices                                          # plain functions, coroutine functions, methods
    def price(asin): ...
    with prices: ...                                 # or: async with prices: ...

Thread rule: a breaker is shared by any threads, tasks and loops; the GIL is its lock. Nothing here waits.
Refuses to know: when it opens and for how long: that is the core's (cpp/core/base/breaker.hpp, breaker_call.hpp); who
is inside of whom (_inside.py); which breakers there are (_breakers.py).
"""

from __future__ import annotations

import functools
import inspect
import logging
import types
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType
from typing import Any, Final, Literal, NoReturn, ParamSpec, TypeAlias, TypeVar, cast

from stillwarm import _core, _inside
from stillwarm._arguments import check_count, check_name, refuse
from stillwarm._breakers import breakers, register
from stillwarm._durations import duration, shown
from stillwarm._failures import may_retry, transient
from stillwarm._inside import Call
from stillwarm._on import Named, On, on_text
from stillwarm.errors import CircuitOpen, ConfigError

__all__ = ["CircuitBreaker", "Figures", "breakers"]

P = ParamSpec("P")
T = TypeVar("T")
Circuit: TypeAlias = Literal["closed", "open", "half-open"]

_log: Final = logging.getLogger("stillwarm")
_NS: Final = 1_000_000_000
_MOST_CALLS: Final = 1_000_000
_LATER: Final = (types.CoroutineType, types.GeneratorType, types.AsyncGeneratorType)  # the body has not run yet
_FUNCTIONS: Final = "a function, coroutine function or method"


@dataclass(frozen=True)
class Figures:
    """What a breaker has counted.

    Attributes:
        state: "closed", "half-open" or "open".
        opened: how often it opened; only grows.
        refused: calls that it refused; only grows.
        calls: in its window.
        failures: of these, those that failed.
        in_a_row: failures since the last success.
    """

    state: Circuit
    opened: int
    refused: int
    calls: int
    failures: int
    in_a_row: int


class CircuitBreaker:
    """Opens when too many calls fail; refuses calls with `CircuitOpen` while it is open; then lets one through to see.

    Every call through it succeeds, fails, or is abandoned. A failure is what `on` names, and a time-out always: nothing
    has answered. Cancellation, KeyboardInterrupt, GeneratorExit and the like abandon a call, which then says nothing,
    as does a `CircuitOpen` of another breaker inside it. Any other exception is an answer, and a success. So a time-out
    belongs inside: `asyncio.wait_for` around a guarded call only cancels it.

    A call inside another of the same breaker, however deep, is counted once, by what the innermost does: the outer
    call's permission passes to the first call in it, further ones ask for their own, and the outer one reports only
    what no call in it has reported; where the one in it was abandoned, a failure such as the time-out around it, and no
    success. "Inside" is a matter of contextvars: awaited coroutines, tasks and `asyncio.to_thread` are, the threads of
    a bare pool are not.

    Args:
        on: which errors are failures: an exception class, a predicate, or a tuple of both, as in `Retry`.
        name: for texts, figures and metrics; None: none, and no metrics. Two living breakers never have the same.
        consecutive: failures in a row that open it; 0: they never do.
        share: of the calls in the window, above 0 and up to 1: so many failures open it.
        least_calls: calls in the window before the share counts; 0: it never does.
        window: duration (seconds, timedelta or text such as "10s"), 100 ms and more.
        open_for: duration of the first wait. Then one call goes through: if it succeeds, the circuit closes.
        open_most: duration; each call that fails so doubles the wait, up to this. One that hangs keeps the others out
            for no longer, either.

    Raises:
        ConfigError: names the argument, its value and what is accepted.
    """

    __slots__ = ("__weakref__", "_blocks", "_consecutive", "_core", "_on", "_text", "_window", "name")

    name: Final[str | None]

    def __init__(
        self,
        on: On = transient,
        *,
        name: str | None = None,
        consecutive: int = 5,
        share: float = 0.5,
        least_calls: int = 20,
        window: float | timedelta | str = "10s",
        open_for: float | timedelta | str = "2s",
        open_most: float | timedelta | str = "30s",
    ) -> None:
        self._on = Named(on, "CircuitBreaker", "count", "counted")
        self._text = on_text(on)
        if name is not None:
            check_name("name", name)
        check_count("consecutive", consecutive, _MOST_CALLS, "failures")
        check_count("least_calls", least_calls, _MOST_CALLS, "calls")
        if consecutive == 0 and least_calls == 0:
            refuse("consecutive", consecutive, "with least_calls=0 it would never open", "1 and more for one of them")
        if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 < share <= 1:  # NaN fails too
            refuse("share", share, "out of range", "a number above 0 and up to 1")
        window_ns = duration(window, "window", minimum_ms=100)  # ten buckets, and a clock that steps up to 10 ms
        open_for_ns = duration(open_for, "open_for")
        open_most_ns = duration(open_most, "open_most")
        if open_for_ns > open_most_ns:
            refuse("open_for", open_for, f"above open_most={shown(open_most)}", "a duration up to open_most")
        self.name = name
        self._consecutive = consecutive
        self._window = window_ns / _NS
        self._core = _core.Breaker(
            consecutive=consecutive,
            share=float(share),
            least_calls=least_calls,
            window=window_ns,
            open_for=open_for_ns,
            open_most=open_most_ns,
        )
        # The blocks that were entered. One that is left in another context than it was entered in (a generator that a
        # framework runs on two threads) does not find its own, and takes any: they differ in their beginning only.
        self._blocks: set[Call] = set()
        register(self)

    def __repr__(self) -> str:
        return f"<CircuitBreaker {self.name or '(no name)'}: {self.state}, on={self._text}>"

    # -------------------------------------------------------------------------------------------------------- guarding

    def __call__(self, function: Callable[P, T], /) -> Callable[P, T]:
        """Decorates a plain function, a coroutine function or a method, whose every call then goes through it.

        Raises:
            ConfigError: a generator function, whose body runs after its call has returned; a class, a classmethod or
                staticmethod object (put the breaker below it).
        """
        _check_function(function)
        if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None)):  # noqa: B004
            called: Callable[..., Any] = function

            @functools.wraps(called)
            async def aguarded(*args: Any, **kwargs: Any) -> Any:
                return await self.acall(called, *args, **kwargs)

            return cast("Callable[P, T]", aguarded)

        @functools.wraps(function)
        def guarded(*args: P.args, **kwargs: P.kwargs) -> T:
            return self.call(function, *args, **kwargs)

        return guarded

    def call(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Calls a plain function, unless the circuit is open.

        Raises:
            CircuitOpen: the function was not called.
            ConfigError: `fn` is a coroutine function: use `acall`; or a generator function.
        """
        call = self._begin()
        try:
            result = fn(*args, **kwargs)
        except BaseException as error:
            self._end(call, error)
            raise
        if isinstance(result, _LATER):
            if isinstance(result, types.CoroutineType):
                result.close()
                call.permit.abandoned()
                self._end(call, None)
                refuse("fn", fn, "a coroutine function", "a plain function; await CircuitBreaker.acall() for this one")
            if _is_generator(fn):
                call.permit.abandoned()
                self._end(call, None)
                _refuse_generator(fn)
        self._end(call, None)
        return result

    async def acall(self, fn: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """`call` for a coroutine function.

        Raises:
            CircuitOpen: the function was not called.
            ConfigError: `fn` returned something that cannot be awaited: use `call`.
        """
        call = self._begin()
        try:
            awaitable: object = fn(*args, **kwargs)
            if inspect.isawaitable(awaitable):
                result: T = await awaitable
                self._end(call, None)
                return result
            call.permit.abandoned()
        except BaseException as error:
            self._end(call, error)
            raise
        self._end(call, None)
        refuse("fn", fn, "not a coroutine function", "a coroutine function; CircuitBreaker.call() for this one")

    def __enter__(self) -> CircuitBreaker:
        """Begins a block, by any number of threads and tasks at once.

        Raises:
            CircuitOpen: the block does not run.
        """
        call = self._begin()
        try:
            self._blocks.add(call)
        except BaseException as error:  # Ctrl-C: nobody will leave this block
            self._end(call, error)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        mine = [call for call in _inside.calls_of(self) if call in self._blocks]
        try:
            call = mine[0] if mine else self._blocks.pop()
        except KeyError:
            return  # left without having been entered
        self._blocks.discard(call)
        self._end(call, error)

    async def __aenter__(self) -> CircuitBreaker:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, traceback)

    def _begin(self) -> Call:
        permit = outer = None
        for outer in _inside.calls_of(self):
            permit = outer.permit.pass_on()
            if permit is not None:
                break
        else:
            outer, permit = None, self._core.allow()
        if permit is None:
            raise self._refusal()
        call = Call(self, permit, outer)
        _inside.begin(call)
        return call

    def _end(self, call: Call, error: BaseException | None) -> None:
        outer, permit = call.outer, call.permit
        _inside.end(call)
        if not permit.held:
            return  # a call inside has reported
        try:
            failed = error is not None and (_is_timeout(error) or error in self._on)
        except BaseException:  # Ctrl-C in a predicate
            permit.abandoned()
            raise
        if failed:
            turn = permit.failed()
        elif call.doubtful or (error is not None and (not may_retry(error) or isinstance(error, CircuitOpen))):
            call.hand_back(outer)
            return
        else:
            turn = permit.succeeded()
        if turn is not None:
            self._tell(turn)

    # --------------------------------------------------------------------------------------------------------- telling

    @property
    def state(self) -> Circuit:
        """ "closed", "open" or "half-open": the next call goes through, or one that did is under way."""
        return self._core.state

    @property
    def retry_in(self) -> float:
        """Seconds until a call may go through; 0: now, or (half-open) as soon as the one under way has ended."""
        return self._core.retry_in / _NS

    def figures(self) -> Figures:
        """What it has counted, now."""
        core = self._core
        return Figures(
            state=core.state,
            opened=core.opened,
            refused=core.refused,
            calls=core.calls_in_window,
            failures=core.failures_in_window,
            in_a_row=core.failures_in_a_row,
        )

    def reset(self) -> None:
        """Closes it and forgets what it counted, `opened` and `refused` aside: when somebody knows that all is well."""
        was_closed = self._core.state == "closed"
        self._core.reset()
        if not was_closed:
            self._tell("closed")

    def _refusal(self) -> CircuitOpen:
        seconds = self.retry_in
        if self.state == "open":
            return CircuitOpen(f"{self._circuit()} is open; tries again in {seconds:.1f} s", seconds)
        return CircuitOpen(
            f"{self._circuit()} is half-open; tries again when the one call under way has ended", seconds
        )

    def _circuit(self) -> str:
        return "a circuit without a name" if self.name is None else f"circuit {self.name!r}"

    def _tell(self, turn: Literal["opened", "closed"]) -> None:
        if turn == "closed":
            _log.info("%s closed", self._circuit())
            return
        now = self.figures()
        why = f"{now.in_a_row} failures in a row"
        if not 0 < self._consecutive <= now.in_a_row:
            why = f"{now.failures} failures of {now.calls} calls in {self._window:g} s"
        _log.warning("%s opened after %s; tries again in %.1f s", self._circuit(), why, self.retry_in)


# ------------------------------------------------------------------------------------------------------------ helpers


def _is_timeout(error: BaseException) -> bool:
    # By name, for those of asyncio and concurrent.futures before Python 3.11, of urllib3, redis, httpx and requests.
    return any(cls.__name__ in ("TimeoutError", "TimeoutException", "Timeout") for cls in type(error).__mro__)


def _check_function(function: object) -> None:
    accepted = _FUNCTIONS
    if isinstance(function, (classmethod, staticmethod)):
        refuse("function", function, f"a {type(function).__name__}", f"{accepted}; put the breaker below it")
    if not callable(function) or isinstance(function, type):
        refuse("function", function, "cannot be guarded", accepted)
    if _is_generator(function):
        _refuse_generator(function)


def _is_generator(function: object) -> bool:
    forms = (function, getattr(function, "__call__", None))  # noqa: B004
    return any(inspect.isgeneratorfunction(form) or inspect.isasyncgenfunction(form) for form in forms)


def _refuse_generator(function: object) -> NoReturn:
    name = getattr(function, "__qualname__", shown(function))
    raise ConfigError(
        f"{name} is a generator function: it runs after its call has returned, so there is nothing to guard; "
        f'accepted: {_FUNCTIONS}; a block in it ("with breaker:")'
    )
