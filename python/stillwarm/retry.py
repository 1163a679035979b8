"""Retry: which failures may be tried again, and the policy that says how often and how long to wait.

    policy = Retry(on=transient, retries=3, deadline="5s")
    rows = policy.call(query, "SELECT 1")            # or: await policy.acall(aquery, "SELECT 1")

Thread rule: a policy is immutable and shared; an `Attempts` belongs to one call. Budgets are shared by name.
Refuses to know: how failures are told apart (_failures.py, _on.py), how waiting is done (_waiting.py), and how long or
how often: that is the core's (cpp/core/retry).
"""

from __future__ import annotations

import inspect
import logging
import re
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Final, Literal, NoReturn, ParamSpec, TypeVar

from stillwarm import _core
from stillwarm._arguments import check_count, check_name, check_number, refuse
from stillwarm._durations import duration, shown
from stillwarm._failures import Kind, classify, retry_after, transient
from stillwarm._on import Named, On, on_text
from stillwarm._waiting import apause, draw, pause, without_waiting
from stillwarm.errors import CircuitOpen

__all__ = [
    "Attempts",
    "Kind",
    "On",
    "Retry",
    "apause",
    "classify",
    "define_budget",
    "pause",
    "retry_after",
    "transient",
    "without_waiting",
]

P = ParamSpec("P")
T = TypeVar("T")

_log: Final = logging.getLogger("stillwarm")
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
        base, cap: durations (seconds, timedelta or text such as "200ms"); 0, or 1 ms and more.
        factor: growth per attempt, 1 to 100.
        jitter: fraction of the wait, 0 to 1, or "full" (anything from 0 to the wait).
        deadline: duration of the call with all its attempts; no wait is begun that would not end before it.
        budget: name of the token bucket that is shared by all policies of that name (see `define_budget`); None: none.
        max_retry_after: duration; a server that asks for a longer wait ends the call.

    Raises:
        ConfigError: names the argument, its value and what is accepted.
    """

    __slots__ = (
        "_named",
        "_policy",
        "base",
        "budget",
        "cap",
        "deadline",
        "factor",
        "jitter",
        "max_retry_after",
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
    _named: Named
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
        if budget is not None:
            check_name("budget", budget)
        below, above = (1.0, 0.0) if jitter == "full" else (float(jitter), float(jitter))
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
            "_named": named,
            "_policy": _core.RetryPolicy(
                retries=retries,
                base=base_ns,
                cap=cap_ns,
                factor=float(factor),
                below=below,
                above=above,
                deadline=deadline_ns,
                max_retry_after=longest_ns,
                budget=budget,
            ),
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"a Retry is immutable; make another one with the {name} you want")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError("a Retry is immutable")

    def __repr__(self) -> str:
        names = ("retries", "base", "cap", "factor", "jitter", "deadline", "budget", "max_retry_after")
        return f"Retry(on={on_text(self.on)}, {', '.join(f'{n}={getattr(self, n)!r}' for n in names)})"

    def retryable(self, exc: BaseException) -> bool:
        """Whether `on` names this failure. A predicate that raises is logged and counts as no."""
        return exc in self._named

    def start(self) -> Attempts:
        """The state of one call, whose deadline counts from here. For loops that do the waiting themselves."""
        return Attempts(self)

    def call(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Calls a plain function until it succeeds or the policy stops; the last error is raised as it is.

        Raises:
            ConfigError: `fn` is a coroutine function: use `acall`.
        """
        attempts = self.start()
        while True:
            try:
                result = fn(*args, **kwargs)
            except Exception as exc:
                delay = attempts.failed(exc)
                if delay is None:
                    raise
            else:
                if inspect.iscoroutine(result):
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
                result: T = await awaitable
            except Exception as exc:
                delay = attempts.failed(exc)
                if delay is None:
                    raise
            else:
                attempts.succeeded()
                return result
            await apause(delay)
        refuse("fn", fn, "not a coroutine function", "a coroutine function; Retry.call() for this one")


class Attempts:
    """One call under a policy. Made by `Retry.start()`; not shared between calls.

    attempts = policy.start()
    delay = attempts.failed(exc)   # None: raise exc; else wait `delay` seconds (pause, apause) and try again
    attempts.succeeded()           # once, when the call has succeeded
    """

    __slots__ = ("_refused", "_retry", "_state")

    def __init__(self, retry: Retry) -> None:
        self._refused = False
        self._retry = retry
        self._state = retry._policy.start()

    def failed(self, exc: BaseException) -> float | None:
        """Seconds to wait before the next attempt; None to stop, with a note on the attempts added to `exc`.

        Never raises. Logs "retry 1/3 in 0.23 s: ..." as a warning on the logger "stillwarm".
        """
        asked = retry_after(exc)
        asked_ns = None if asked is None else int(asked * _NS)
        retryable = self._retry.retryable(exc)
        self._refused = isinstance(exc, CircuitOpen) and not retryable
        ns = self._state.failed(retryable, asked_ns, draw())
        failures = self._state.failures
        if ns is None:
            stop = self.stopped or ""
            # An error that was neither retried nor would have been is nobody's news.
            if failures > 1 or stop not in ("not transient", "retries exhausted"):
                times = f"{failures} attempts" if failures > 1 else "1 attempt"
                _add_note(exc, f"{times} in {self._state.elapsed / _NS:.2f} s; stopped: {stop}")
            return None
        if _log.isEnabledFor(logging.WARNING):
            _log.warning("retry %d/%d in %.2f s: %s", failures, self._retry.retries, ns / _NS, _text(exc))
        return ns / _NS

    def succeeded(self) -> None:
        """Gives its fraction back to the budget."""
        self._state.succeeded()

    @property
    def failures(self) -> int:
        """Attempts that have failed so far."""
        return self._state.failures

    @property
    def stopped(self) -> str | None:
        """Why `failed` returned None, as in the note, or None."""
        return "circuit open" if self._refused else self._state.stop


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


# ------------------------------------------------------------------------------------------------------------ helpers

_SECRETS: Final = re.compile(
    r"(?<=://)[^/\s]*@|\b(?P<name>passw(?:or)?d|pwd|secret|token|api_?key)=[^\s&]+", re.IGNORECASE
)


def _text(exc: BaseException) -> str:
    """One line for a log: class and text, without passwords, at most 200 characters of it."""
    try:
        text = " ".join(str(exc).split())
    except Exception:
        text = ""
    text = _SECRETS.sub(lambda found: f"{found['name']}=***" if found["name"] else "***@", text)
    return f"{type(exc).__name__}: {text[:200]}" if text else type(exc).__name__


def _add_note(exc: BaseException, text: str) -> None:
    """A note as of Python 3.11. An exception object that is raised again and again keeps only the newest of ours."""
    try:
        notes = [note for note in exc.__dict__.get("__notes__", ()) if not str(note).startswith("stillwarm: ")]
        exc.__dict__["__notes__"] = notes  # as add_note() keeps them; Python 3.10 has no such method
        notes.append(f"stillwarm: {text}")
    except Exception:  # no attributes, or notes of another shape: the error itself matters more
        return
