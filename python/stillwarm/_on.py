"""What `on=` means, in `Retry` and in `CircuitBreaker`: which failures are named by classes and predicates.

Thread rule: immutable, any thread; predicates run on the thread that asks.
Refuses to know: what is done with a failure that is named.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from typing import Final, TypeAlias

from stillwarm._arguments import refuse
from stillwarm._durations import shown
from stillwarm._failures import may_retry
from stillwarm.errors import CircuitOpen, NotFound

Predicate: TypeAlias = Callable[[Exception], bool]
On: TypeAlias = type[Exception] | Predicate | tuple[type[Exception] | Predicate, ...]

_log: Final = logging.getLogger("stillwarm")
_FORMS: Final = "an exception class, a predicate such as stillwarm.transient, or a tuple of both"


class Named:
    """The failures that an `on=` names.

    Args:
        on: an exception class, a predicate, or a tuple of both.
        owner: whose argument it is, for errors and logs.
        do, done: what it does with a failure, likewise.

    Raises:
        ConfigError: `on` names nothing, everything, or something that is no failure.
    """

    __slots__ = ("_classes", "_done", "_owner", "_predicates")

    def __init__(self, on: object, owner: str, do: str, done: str) -> None:
        self._owner = owner
        self._done = done
        classes: list[type[Exception]] = []
        predicates: list[Predicate] = []
        items = on if isinstance(on, tuple) else (on,)
        if not items:
            refuse("on", on, f"nothing would be {done}", _FORMS)
        for item in items:
            if isinstance(item, type):
                if item is Exception or item is BaseException:
                    refuse("on", on, f"it would also {do} mistakes that never go away", _FORMS)
                if not issubclass(item, Exception):
                    refuse("on", on, f"{item.__name__} is not an Exception", _FORMS)
                classes.append(item)
            elif inspect.iscoroutinefunction(item):
                refuse("on", on, "a coroutine function cannot be asked here", _FORMS)
            elif callable(item):
                predicates.append(item)
            else:
                refuse("on", on, f"{type(item).__name__} names no failure", _FORMS)
        self._classes = tuple(classes)
        self._predicates = tuple(predicates)

    def __contains__(self, exc: BaseException) -> bool:
        """Whether this failure is named. A predicate that raises is logged and counts as no."""
        if not isinstance(exc, Exception) or not may_retry(exc):
            return False
        # An answer, and a call that was not made: neither LookupError nor `transient` means them. In a CircuitOpen the
        # circuit has decided already that asking again is of no use yet; it counts as a failure of nothing else.
        for apart in (NotFound, CircuitOpen):
            if isinstance(exc, apart):
                return any(issubclass(cls, apart) and isinstance(exc, cls) for cls in self._classes)
        return isinstance(exc, self._classes) or any(self._says_yes(predicate, exc) for predicate in self._predicates)

    def _says_yes(self, predicate: Predicate, exc: Exception) -> bool:
        try:
            return bool(predicate(exc))
        except Exception:  # the function's own error is the one that its caller must see
            _log.exception("the predicate %s in %s(on=) raised; not %s", on_text(predicate), self._owner, self._done)
            return False


def on_text(on: object) -> str:
    """`on` as a repr shows it."""
    if isinstance(on, tuple):
        return f"({', '.join(map(on_text, on))})"
    return str(getattr(on, "__qualname__", None) or shown(on))


__all__ = ["Named", "On", "Predicate", "on_text"]
