"""The state of one retried call, what it tells others, and what it leaves on the error that it raises.

Thread rule: an `Attempts` belongs to one call; a hook runs on the thread of that call.
Refuses to know: how long to wait and when to stop (cpp/core/retry/attempt.hpp), and how a call is performed.
"""

from __future__ import annotations

import logging
import re
import sys
from _thread import get_ident
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from stillwarm import _core
from stillwarm._failures import retry_after
from stillwarm._waiting import draw, running_loop
from stillwarm.errors import CircuitOpen

if TYPE_CHECKING:
    from stillwarm._retry import Retry

_log: Final = logging.getLogger("stillwarm")
_NS: Final = 1_000_000_000
_GAVE_UP: Final = "_stillwarm_gave_up"  # on an error: a _Mark
_INSIDE: Final = "an inner retry gave up"  # the core's text
_said: Final[set[tuple[str, str]]] = set()


@dataclass(frozen=True)
class Retried:
    """What `hook=` hears before a wait.

    Attributes:
        name: of the policy.
        failures: attempts that failed so far, this one included.
        retries: how many retries the policy allows.
        delay: seconds until the next attempt.
        error: of this attempt.
    """

    name: str
    failures: int
    retries: int
    delay: float
    error: BaseException


@dataclass(frozen=True)
class GaveUp:
    """What `hook=` hears at the end of a call that failed with a retried error.

    Attributes:
        name: of the policy.
        failures: attempts that failed.
        reason: why it ends, as in `RetryStats.given_up`.
        error: of the last attempt.
    """

    name: str
    failures: int
    reason: str
    error: BaseException


Hook: TypeAlias = Callable[[Retried | GaveUp], object]


class Attempts:
    """One call under a policy. Made by `Retry.start()`; not shared between calls.

    attempts = policy.start()
    delay = attempts.failed(exc)   # None: raise exc; else wait `delay` seconds (pause, apause) and try again
    attempts.succeeded()           # once, when the call has succeeded
    """

    __slots__ = ("_refused", "_retry", "_since", "_state")

    _refused: str  # why it is not tried again, where the core does not know it

    def __init__(self, retry: Retry, began: int | None = None, tick: int | None = None) -> None:
        self._refused = ""
        self._retry = retry
        self._state = retry._policy.start(began)
        self._since = _core.retry_tick() if tick is None else tick

    def failed(self, exc: BaseException) -> float | None:
        """Seconds to wait before the next attempt; None to stop, with a note on the attempts added to `exc`.

        Never raises. Logs "retry 1/3 in 0.23 s: ..." as a warning on the logger "stillwarm".
        """
        retryable = self._retry.retryable(exc)
        inner = _gave_up_since(exc, self._since)
        if inner is not None and self._retry.retries and retryable:
            self._state.failed_inside()
            _say_nested(self._name, inner)
            self._stop(exc)
            return None
        asked = retry_after(exc)
        asked_ns = None if asked is None else int(asked * _NS)
        self._refused = ""
        if retryable and _is_being_cancelled():
            self._refused, retryable = "the task is being cancelled", False
        elif isinstance(exc, CircuitOpen) and not retryable:
            self._refused = "circuit open"
        ns = self._state.failed(retryable, asked_ns, draw())
        if ns is None:
            self._stop(exc)
            return None
        self._since = _core.retry_tick()
        if _log.isEnabledFor(logging.WARNING):
            _log.warning("retry %d/%d in %.2f s: %s", self.failures, self._retry.retries, ns / _NS, _text(exc))
        if self._retry.hook is not None:
            _tell(self._retry.hook, Retried(self._name, self.failures, self._retry.retries, ns / _NS, exc))
        return ns / _NS

    @property
    def _name(self) -> str:
        return self._retry.name or "retry"

    def _stop(self, exc: BaseException) -> None:
        failures, stop = self._state.failures, self.stopped or ""
        # An error that was neither retried nor would have been is nobody's news; the inner retry has told its own.
        if failures > 1 or stop not in ("not transient", "retries exhausted", _INSIDE):
            times = f"{failures} attempts" if failures > 1 else "1 attempt"
            _add_note(exc, f"{times} in {self._state.elapsed / _NS:.2f} s; stopped: {stop}")
        if self._state.stop == "not transient":
            return
        if self._retry.retries and stop != _INSIDE:
            _mark(exc, self._name)
        if self._retry.hook is not None:
            _tell(self._retry.hook, GaveUp(self._name, failures, stop, exc))

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
        return self._refused or self._state.stop


# ------------------------------------------------------------------------------------------------ marks, notes, texts


class _Mark(tuple[int, str, tuple[int, int]]):
    """(tick, name of the policy, where) on an error that a policy gave up on. It stays in this process."""

    __slots__ = ()

    def __reduce__(self) -> Any:
        return _nothing, ()


def _nothing() -> None:
    return None


def _here() -> tuple[int, int]:
    """The thread, and its task if there is one."""
    task = _current_task()
    return get_ident(), 0 if task is None else id(task)


def _current_task() -> Any:
    loop = running_loop()
    return None if loop is None else sys.modules["asyncio"].current_task(loop)


def _is_being_cancelled() -> bool:
    """An error that took the place of a cancellation: the task is to end. Python 3.10 does not tell."""
    task = _current_task()
    return task is not None and bool(getattr(task, "cancelling", int)())


def _mark(exc: BaseException, name: str) -> None:
    try:
        exc.__dict__[_GAVE_UP] = _Mark((_core.retry_tick(), name, _here()))
    except Exception:  # no attributes: an outer policy cannot know
        return


def _gave_up_since(exc: BaseException, tick: int) -> str | None:
    """The policy that gave up on this error, or on the one that it was raised from, after `tick`, in here.

    An error object that is raised again in a later call has an older tick, and one that several callers get at once
    (those who wait for one load, or one future) the mark of another thread or task: both are none.
    """
    cause: BaseException | None = exc
    for _ in range(8):  # a chain that leads back to itself must end
        if cause is None:
            return None
        mark = getattr(cause, "__dict__", {}).get(_GAVE_UP)
        if isinstance(mark, _Mark):
            at, name, where = mark
            return name if at > tick and where == _here() else None
        cause = cause.__cause__
    return None


def _say_nested(outer: str, inner: str) -> None:
    if (outer, inner) not in _said and len(_said) < 1_000:
        _said.add((outer, inner))
        _log.warning(
            "the retry %s is inside of the retry %s: what the inner one gives up on is not tried again (said once)",
            inner, outer,
        )  # fmt: skip


def _tell(hook: Hook, event: Retried | GaveUp) -> None:
    try:
        hook(event)
    except Exception:  # the call's own error is the one that its caller must see
        _log.exception("the hook of a retry raised")


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
