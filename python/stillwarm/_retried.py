"""Functions behind `@retry`: how they are made, and what happens after their first attempt has failed.

Thread rule: any thread, any loop.
Refuses to know: whether and how long (_attempts.py), and the first attempt, which is the core's
(cpp/bindings/retried_call.cpp).
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, Literal

from stillwarm import _core
from stillwarm._arguments import refuse
from stillwarm._attempts import Attempts, Hook
from stillwarm._durations import shown
from stillwarm._on import On
from stillwarm._retry import Retry, limited
from stillwarm._waiting import apause, pause
from stillwarm.errors import ConfigError

_RAISE_IT: Final = object()
_MISSING: Final[Any] = object()
_FORMS: Final = "a plain function or a coroutine function"


def retry(
    function: None = None,
    /,
    *,
    on: On = _MISSING,
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
) -> Retry:
    """Decorates a function so that it is tried again: `@retry(on=transient, retries=3)`. The arguments are `Retry`'s.

    A plain function stays plain, a coroutine function awaitable. Methods are decorated alike; `@staticmethod` and
    `@classmethod` stand above. A call that succeeds costs some 20 ns more than without.

    Raises:
        ConfigError: an argument is not accepted, or `on=` is missing.
    """
    if function is not None or on is _MISSING:
        raise ConfigError(
            "retry(): on= has no default; accepted: what is retried, as in @retry(on=transient) or @retry(on=OSError)"
        )
    return Retry(
        on, retries=retries, base=base, cap=cap, factor=factor, jitter=jitter, deadline=deadline, budget=budget,
        max_retry_after=max_retry_after, attempt_timeout=attempt_timeout, name=name, hook=hook,
    )  # fmt: skip


def decorate(policy: Retry, function: Any) -> Any:
    """The function under the policy, which takes its name if it has none."""
    if isinstance(function, (staticmethod, classmethod)):
        above = type(function).__name__
        raise ConfigError(f"retry: put @{above} above it: it decorates the function that @{above} takes")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        refuse("function", function, "a generator, which runs after its call has returned", _FORMS)
    if not callable(function) or isinstance(function, type):
        refuse("function", function, "no function", _FORMS)
    is_async = inspect.iscoroutinefunction(function)
    if policy.attempt_timeout is not None and not is_async:
        refuse_timeout(function)
    name = getattr(function, "__qualname__", None) or type(function).__name__
    named = policy if policy.name else policy.named(f"{getattr(function, '__module__', '')}.{name}"[:200])
    attempt = function if policy.attempt_timeout is None else _limited(function, policy.attempt_timeout)
    call: Any = _core.RetriedCall(attempt, named, named._policy, is_async)
    functools.update_wrapper(call, function)
    if is_async:
        from stillwarm._cached import look_async

        look_async(call, function)
    return call


def _limited(function: Any, seconds: float) -> Any:
    @functools.wraps(function)
    async def attempt(*args: Any, **kwargs: Any) -> Any:
        return await limited(function(*args, **kwargs), seconds)

    return attempt


def refuse_timeout(function: object) -> None:
    raise ConfigError(
        f"attempt_timeout= and the plain function {shown(function)}: nothing can interrupt it; accepted: coroutine "
        "functions (give a plain one the time-out of its client, or deadline= for the time of all attempts)"
    )


# ------------------------------------------------------------------------------------- after the first attempt failed


def _go(
    attempts: Attempts,
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    delay: float | None,
) -> Any:
    while True:
        assert delay is not None
        pause(delay)
        try:
            result = function(*args, **kwargs)
        except Exception as exc:
            delay = attempts.failed(exc)
            if delay is None:
                raise
        else:
            attempts.succeeded()
            return result


async def _ago(
    attempts: Attempts,
    function: Callable[..., Coroutine[Any, Any, Any]],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    delay: float | None,
) -> Any:
    while True:
        assert delay is not None
        await apause(delay)
        try:
            result = await function(*args, **kwargs)
        except Exception as exc:
            delay = attempts.failed(exc)
            if delay is None:
                raise
        else:
            attempts.succeeded()
            return result


def _judging(go: Callable[..., Any]) -> Callable[..., Any]:
    """What the core asks after a first attempt: `go` makes what goes on, a callable or a coroutine."""

    def recover(
        policy: Retry,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        error: BaseException,
        began: int,
        tick: int,
    ) -> Any:
        attempts = Attempts(policy, began, tick)
        delay = attempts.failed(error)
        return _RAISE_IT if delay is None else go(attempts, function, args, kwargs, delay)

    return recover


_core.set_retry_hooks(_judging(lambda *state: functools.partial(_go, *state)), _judging(_ago), _RAISE_IT)


# ------------------------------------------------------------------------------------------------------------ figures


@dataclass(frozen=True)
class RetryStats:
    """What the retries of one name did in this process.

    Attributes:
        calls: that began.
        succeeded: of these, at whichever attempt.
        recovered: of these, after a failure.
        failures: attempts that failed.
        retries: attempts that followed one.
        waited: seconds between attempts.
        given_up: calls that ended with their error, by reason ("not transient", "retries exhausted", "deadline",
            "retry budget exhausted", "the server asked for a longer wait than allowed", "an inner retry gave up").
    """

    calls: int
    succeeded: int
    recovered: int
    failures: int
    retries: int
    waited: float
    given_up: Mapping[str, int]


def retry_stats() -> dict[str, RetryStats]:
    """The figures of every policy of this process, by its name."""
    return {
        name: RetryStats(calls, succeeded, recovered, failures, retries, waited / 1e9, given_up)
        for name, (calls, succeeded, recovered, failures, retries, waited, given_up) in _core.retry_figures().items()
    }


__all__ = ["RetryStats", "retry", "retry_stats"]
