"""Retry: which failures may be tried again, and the policy that says how often and how long to wait.

    policy = Retry(on=transient, retries=3, deadline="5s")
    rows = policy.call(query, "SELECT 1")            # or: await policy.acall(aquery, "SELECT 1")

    @policy                                          # or: @retry(on=transient, retries=3, deadline="5s")
    def query(sql): ...

    for attempt in policy:                           # or: async for
        with attempt:
            rows = query("SELECT 1")

Thread rule: a policy is immutable and shared; an `Attempts` belongs to one call. Budgets are shared by name.
Refuses to know: how failures are told apart (_failures.py, _on.py), how waiting is done (_waiting.py), decorated
functions (_retried.py), blocks (_retry_block.py), and how long or how often: that is the core's (cpp/core/retry).
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, Literal, NoReturn, ParamSpec, TypeVar

from stillwarm import _core
from stillwarm._arguments import check_count, check_name, check_number, refuse
from stillwarm._attempts import Attempts, Hook
from stillwarm._durations import duration, shown
from stillwarm._on import Named, On, on_text
from stillwarm._waiting import apause, pause
from stillwarm.errors import AttemptTimeout

if TYPE_CHECKING:
    from typing_extensions import Self

    from stillwarm._retry_block import Attempt

P = ParamSpec("P")
T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

_NS: Final = 1_000_000_000
_MOST_RETRIES: Final = 1_000

# --------------------------------------------------------------------------------------------------------- the policy


class Retry:
    """How a failed call is tried again. Immutable; used by many threads and tasks at once.

    The n-th wait (n from 0) is `min(cap, base * factor**n)`, spread by `jitter` around it and never above `cap`. A
    server's `Retry-After` is never undercut, also where it is above `cap`.

    Args:
        on: what is retried: an exception class, a predicate such as `transient`, or a tuple of both. No default:
            `Exception` is refused, since a wrong argument fails for ever. Never retried, whatever `on` says:
            cancellation, KeyboardInterrupt, SystemExit; and unless the class itself is named, `NotFound`, which is an
            answer, and `CircuitOpen`: a circuit breaker has said when asking makes sense again (its `retry_after`),
            so the call ends at once, and takes nothing from the budget.
        retries: further attempts after the first, 0 to 1,000.
        base: duration of the first wait (seconds, timedelta or text such as "200ms"); 0, or 1 ms and more.
        cap: duration that no wait is longer than; as `base`.
        factor: growth per attempt, 1 to 100.
        jitter: fraction of the wait, 0 to 1, or "full" (anything from 0 to the wait).
        deadline: duration of the call with all its attempts; no wait is begun that would not end before it.
        budget: name of the token bucket that is shared by all policies of that name (see `define_budget`); None: none.
        max_retry_after: duration; a server that asks for a longer wait ends the call.
        attempt_timeout: duration of one attempt of a coroutine function, which is then cancelled and counts as a
            TimeoutError that may be retried, whatever `on` says. Plain functions cannot be interrupted.
        name: what log lines, `retry_stats()` and metrics call it; by default that of the decorated function, else
            "retry".
        hook: called with each `Retried` and `GaveUp`, on the thread of the call; an error of its own is logged.

    An error that an inner retry gave up on is not tried again by an outer one: layers do not multiply.

    Raises:
        ConfigError: names the argument, its value and what is accepted.
    """

    __slots__ = (
        "_figures",
        "_named",
        "_policy",
        "attempt_timeout",
        "base",
        "budget",
        "cap",
        "deadline",
        "factor",
        "hook",
        "jitter",
        "max_retry_after",
        "name",
        "on",
        "retries",
    )

    on: On
    retries: int
    base: float  # durations are kept in seconds
    cap: float
    factor: float
    jitter: float | Literal["full"]
    deadline: float | None
    budget: str | None
    max_retry_after: float
    attempt_timeout: float | None
    name: str | None
    hook: Hook | None
    _named: Named
    _figures: dict[str, Any]  # of the core, in ns
    _policy: _core.RetryPolicy

    def __init__(
        self,
        on: On,
        *,
        retries: int = 3,
        base: float | timedelta | str = 0.2,
        cap: float | timedelta | str = 2.0,
        factor: float = 2.0,
        jitter: float | Literal["full"] = 0.3,
        deadline: float | timedelta | str | None = None,
        budget: str | None = "default",
        max_retry_after: float | timedelta | str = 30.0,
        attempt_timeout: float | timedelta | str | None = None,
        name: str | None = None,
        hook: Hook | None = None,
    ) -> None:
        named = Named(on, "Retry", "retry", "retried")
        base_ns = duration(base, "base", minimum_ms=1, allow_zero=True)
        cap_ns = duration(cap, "cap", minimum_ms=1, allow_zero=True)
        if base_ns > cap_ns:
            refuse("base", base, f"above cap={shown(cap)}", "a duration up to cap")
        deadline_ns = duration(deadline, "deadline", allow_none=True)
        longest_ns = duration(max_retry_after, "max_retry_after", allow_zero=True)
        check_count("retries", retries, _MOST_RETRIES, "retries")
        check_number("factor", factor, 1, 100)
        if jitter != "full":
            check_number("jitter", jitter, 0, 1, ', or "full"')
        limit_ns = duration(attempt_timeout, "attempt_timeout", minimum_ms=1, allow_none=True)
        if budget is not None:
            check_name("budget", budget)
        if name is not None:
            check_name("name", name)
        if hook is not None and not callable(hook):
            refuse("hook", hook, "not callable", "a callable that takes a Retried or GaveUp")
        below, above = (1.0, 0.0) if jitter == "full" else (float(jitter), float(jitter))
        figures: dict[str, Any] = {
            "retries": retries,
            "base": base_ns,
            "cap": cap_ns,
            "factor": float(factor),
            "below": below,
            "above": above,
            "deadline": deadline_ns,
            "max_retry_after": longest_ns,
            "budget": budget,
        }
        values: dict[str, object] = {
            "on": on,
            "retries": retries,
            "base": base_ns / _NS,
            "cap": cap_ns / _NS,
            "factor": float(factor),
            "jitter": jitter,
            "deadline": None if deadline_ns is None else deadline_ns / _NS,
            "budget": budget,
            "max_retry_after": longest_ns / _NS,
            "attempt_timeout": None if limit_ns is None else limit_ns / _NS,
            "name": name,
            "hook": hook,
            "_named": named,
            "_figures": figures,
            "_policy": _core.RetryPolicy(**figures, name=name or "retry"),
        }
        for slot, value in values.items():
            object.__setattr__(self, slot, value)

    def named(self, name: str) -> Self:
        """The same policy under another name."""
        other = object.__new__(type(self))
        for cls in type(self).__mro__:
            for slot in getattr(cls, "__slots__", ()):
                if hasattr(self, slot) and slot not in ("__dict__", "__weakref__"):
                    object.__setattr__(other, slot, getattr(self, slot))
        getattr(other, "__dict__", {}).update(getattr(self, "__dict__", {}))
        object.__setattr__(other, "name", name)
        object.__setattr__(other, "_policy", _core.RetryPolicy(**self._figures, name=name))
        return other

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, _: object) -> Self:
        return self

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"a Retry is immutable; make another one with the {name} you want")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError("a Retry is immutable")

    def __repr__(self) -> str:
        names = ["retries", "base", "cap", "factor", "jitter", "deadline", "budget", "max_retry_after"]
        names += [n for n in ("attempt_timeout", "name", "hook") if getattr(self, n) is not None]
        return f"Retry(on={on_text(self.on)}, {', '.join(f'{n}={getattr(self, n)!r}' for n in names)})"

    def retryable(self, exc: BaseException) -> bool:
        """Whether `on` names this failure. A predicate that raises is logged and counts as no."""
        return isinstance(exc, AttemptTimeout) or exc in self._named

    def __call__(self, fn: F, /) -> F:
        """Decorates a plain function or a coroutine function; see `retry`.

        Raises:
            ConfigError: what is decorated is no function, or a generator function.
        """
        from stillwarm._retried import decorate

        return decorate(self, fn)  # type: ignore[no-any-return]

    def __iter__(self) -> Iterator[Attempt]:
        """The attempts of a block: `for attempt in policy: with attempt: ...`.

        Raises:
            ConfigError: an event loop runs on this thread, which the waits would stop: use `async for`.
        """
        from stillwarm._retry_block import Block

        return Block(self)

    def __aiter__(self) -> AsyncIterator[Attempt]:
        """The attempts of a block in a coroutine: `async for attempt in policy: with attempt: ...`."""
        from stillwarm._retry_block import AsyncBlock

        return AsyncBlock(self)

    def start(self) -> Attempts:
        """The state of one call, whose deadline counts from here. For loops that do the waiting themselves."""
        return Attempts(self)

    def call(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Calls a plain function until it succeeds or the policy stops; the last error is raised as it is.

        Raises:
            ConfigError: `fn` is a coroutine function: use `acall`; or attempt_timeout= is set.
        """
        if self.attempt_timeout is not None:
            from stillwarm._retried import refuse_timeout

            refuse_timeout(fn)
        attempts = self.start()
        while True:
            try:
                result = fn(*args, **kwargs)
            except Exception as exc:
                delay = attempts.failed(exc)
                if delay is None:
                    raise
            else:
                if isinstance(result, Coroutine):
                    result.close()
                    refuse("fn", fn, "a coroutine function", "a plain function; await Retry.acall() for this one")
                attempts.succeeded()
                return result
            pause(delay)  # outside of the handler: the next error must not carry this one, nor its frames live on

    async def acall(self, fn: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """`call` for a coroutine function. Cancellation passes at once, also during a wait.

        Raises:
            ConfigError: `fn` returned something that cannot be awaited: use `call`.
        """
        attempts = self.start()
        while True:
            try:
                awaitable: object = fn(*args, **kwargs)
                if not inspect.isawaitable(awaitable):
                    break
                result: T = await limited(awaitable, self.attempt_timeout)
            except Exception as exc:
                delay = attempts.failed(exc)
                if delay is None:
                    raise
            else:
                attempts.succeeded()
                return result
            await apause(delay)
        refuse("fn", fn, "not a coroutine function", "a coroutine function; Retry.call() for this one")


def define_budget(name: str, *, tokens: float = 10, per_success: float = 0.1) -> None:
    """Sets the figures of the retry budget `name`; those of gRPC's retry throttling (proposal A6) by default.

    Args:
        tokens: retries that may happen without any success, 0 to 1,000,000; also what the bucket holds at most.
        per_success: tokens that a successful call gives back, 0 to 1,000: the share of load that retries may add.
    """
    check_name("budget", name)
    check_number("tokens", tokens, 0, 1_000_000)
    check_number("per_success", per_success, 0, 1_000)
    _core.define_budget(name, round(tokens * 1_000), round(per_success * 1_000))


async def limited(awaitable: Awaitable[T], seconds: float | None) -> T:
    """The result of one attempt, which may take so long.

    Raises:
        AttemptTimeout: it took longer, and was cancelled.
    """
    if seconds is None:
        return await awaitable
    import asyncio

    told = f"the attempt took longer than attempt_timeout={seconds:g} s"
    if sys.version_info >= (3, 11):
        limit = asyncio.timeout(seconds)
        try:
            async with limit:
                return await awaitable
        except TimeoutError as error:
            if not limit.expired():  # the function's own
                raise
            raise AttemptTimeout(told) from error
    else:  # wait_for does not tell its own time-out from the function's
        task = asyncio.ensure_future(awaitable)
        try:
            await asyncio.wait({task}, timeout=seconds)
        except BaseException:
            task.cancel()
            await asyncio.wait({task})
            raise
        if not task.done():
            task.cancel()
            await asyncio.wait({task})
            raise AttemptTimeout(told)
        return task.result()


__all__ = ["Attempts", "On", "Retry", "define_budget", "limited"]
