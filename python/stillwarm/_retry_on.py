"""Which errors are meant: exception classes, predicates, or a tuple of both; and how arguments are refused.

Thread rule: any thread.
Refuses to know: what is done with such an error (_retry.py, breaker.py).
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from typing import Final, NoReturn, TypeAlias

from stillwarm._durations import shown
from stillwarm._failures import may_retry
from stillwarm.errors import ConfigError, NotFound

Predicate: TypeAlias = Callable[[Exception], bool]
On: TypeAlias = type[Exception] | Predicate | tuple[type[Exception] | Predicate, ...]

_log: Final = logging.getLogger("stillwarm")
_ON_FORMS: Final = "an exception class, a predicate such as stillwarm.transient, or a tuple of both"


class Meant:
    """What an `on=` names, checked."""

    __slots__ = ("classes", "predicates")

    def __init__(self, on: object) -> None:
        self.classes, self.predicates = _split(on)

    def __call__(self, exc: BaseException) -> bool:
        """Whether it is one of these. A predicate that raises is logged and counts as no."""
        if not isinstance(exc, Exception) or not may_retry(exc):
            return False
        if isinstance(exc, NotFound):  # an answer; LookupError in `on` does not mean it
            return any(issubclass(cls, NotFound) and isinstance(exc, cls) for cls in self.classes)
        return isinstance(exc, self.classes) or any(_says_yes(predicate, exc) for predicate in self.predicates)


def _says_yes(predicate: Predicate, exc: Exception) -> bool:
    try:
        return bool(predicate(exc))
    except Exception:  # the loader's own error is the one that its caller must see
        _log.exception("the predicate %s in on= raised, which counts as no", on_text(predicate))
        return False


def _split(on: object) -> tuple[tuple[type[Exception], ...], tuple[Predicate, ...]]:
    items = on if isinstance(on, tuple) else (on,)
    if not items:
        refuse("on", on, "nothing would be retried", _ON_FORMS)
    classes: list[type[Exception]] = []
    predicates: list[Predicate] = []
    for item in items:
        if isinstance(item, type):
            if item is Exception or item is BaseException:
                refuse("on", on, "it would also retry mistakes that never go away", _ON_FORMS)
            if not issubclass(item, Exception):
                refuse("on", on, f"{item.__name__} is not an Exception", _ON_FORMS)
            classes.append(item)
        elif inspect.iscoroutinefunction(item):
            refuse("on", on, "a coroutine function cannot be asked here", _ON_FORMS)
        elif callable(item):
            predicates.append(item)
        else:
            refuse("on", on, f"{type(item).__name__} names no failure", _ON_FORMS)
    return tuple(classes), tuple(predicates)


def check_number(argument: str, value: object, low: float, high: float, also: str = "") -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:  # NaN fails too
        refuse(argument, value, "out of range", f"a number from {low:,} to {high:,}{also}")


def check_name(argument: str, name: object) -> None:
    if not isinstance(name, str) or not 0 < len(name) <= 200 or not name.isprintable():
        refuse(argument, name, "not a name", "a printable text of 1 to 200 characters")


def refuse(argument: str, value: object, reason: str, accepted: str) -> NoReturn:
    raise ConfigError(f"{argument}={shown(value)}: {reason}; accepted: {accepted}")


def on_text(on: object) -> str:
    if isinstance(on, tuple):
        return f"({', '.join(map(on_text, on))})"
    return str(getattr(on, "__qualname__", None) or shown(on))
