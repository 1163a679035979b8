"""Checks of arguments that are no durations: numbers, counts and names.

Thread rule: pure functions, any thread.
Refuses to know: what an argument is for.
"""

from __future__ import annotations

from typing import NoReturn

from stillwarm._durations import shown
from stillwarm.errors import ConfigError


def refuse(argument: str, value: object, reason: str, accepted: str) -> NoReturn:
    """Raises the ConfigError that names the argument, its value and what is accepted."""
    raise ConfigError(f"{argument}={shown(value)}: {reason}; accepted: {accepted}")


def check_number(argument: str, value: object, low: float, high: float, also: str = "") -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:  # NaN fails too
        refuse(argument, value, "out of range", f"a number from {low:,} to {high:,}{also}")


def check_count(argument: str, value: object, high: int, of: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= high:
        refuse(argument, value, f"not a count of {of}", f"an int from 0 to {high}")


def check_name(argument: str, name: object) -> None:
    if not isinstance(name, str) or not 0 < len(name) <= 200 or not name.isprintable():
        refuse(argument, name, "not a name", "a printable text of 1 to 200 characters")


__all__ = ["check_count", "check_name", "check_number", "refuse"]
