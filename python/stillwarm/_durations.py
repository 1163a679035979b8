"""Durations and sizes of arguments: any accepted form to an int of nanoseconds or bytes.

Thread rule: pure functions, any thread.
Refuses to know: what an argument is for. The texts themselves are read by the core (cpp/core/base/duration.hpp).
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final, Literal, overload

from stillwarm import _core
from stillwarm.errors import ConfigError

_NS_PER_SECOND: Final = 1_000_000_000
_NS_PER_MS: Final = 1_000_000
_LONGEST_NS: Final = 36_525 * 86_400 * _NS_PER_SECOND  # 100 years, as in the core
_DURATION_FORMS: Final = 'seconds (int or float), timedelta, or text like "300ms", "30s", "5m", "6h", "1d", "2h30m"'
_SIZE_FORMS: Final = 'a positive number of bytes (int), or text like "64KB", "256MB", "1GB"'


@overload
def duration(
    value: object, argument: str, *, minimum_ms: int = 10, allow_none: Literal[False] = False, allow_zero: bool = False
) -> int: ...
@overload
def duration(
    value: object, argument: str, *, minimum_ms: int = 10, allow_none: bool, allow_zero: bool = False
) -> int | None: ...
def duration(
    value: object, argument: str, *, minimum_ms: int = 10, allow_none: bool = False, allow_zero: bool = False
) -> int | None:
    """Nanoseconds of a duration that a user gave for `argument`.

    Accepts int or float seconds, `timedelta`, and text such as "2h30m"; None (returned as None) with `allow_none`, 0
    with `allow_zero`. Refused: bool, NaN, infinity, what is negative, above 0 but under `minimum_ms` milliseconds (the
    clock moves in steps of up to 10 ms), or over 100 years.

    Raises:
        ConfigError: names the argument, the value and what is accepted.
    """
    if value is None and allow_none:
        return None

    def refuse(reason: str) -> ConfigError:
        accepted = f"{_DURATION_FORMS}, at least {minimum_ms} ms" + ", or 0" * allow_zero + ", or None" * allow_none
        return ConfigError(f"{argument}={shown(value)}: {reason}; accepted: {accepted}")

    ns: int
    if isinstance(value, bool):
        raise refuse("a bool is not a duration")
    elif isinstance(value, (int, float)):
        if value != value:  # NaN; math.isnan fails on an int that is too large for a float
            raise refuse("not a number")
        if value < 0:
            raise refuse("negative")
        if value > _LONGEST_NS // _NS_PER_SECOND:  # also infinity; before a product that may overflow
            raise refuse("longer than 100 years")
        ns = round(value * _NS_PER_SECOND) or int(value > 0)
    elif isinstance(value, timedelta):
        ns = (value // timedelta(microseconds=1)) * 1_000
    elif isinstance(value, str):
        try:
            ns = _core.parse_duration(value)
        except ValueError as error:
            raise refuse(_reason(error)) from None
    else:
        raise refuse(f"{type(value).__name__} is not a duration")

    if ns < 0:
        raise refuse("negative")
    if ns == 0 and not allow_zero:
        raise refuse("zero")
    if 0 < ns < minimum_ms * _NS_PER_MS:
        raise refuse("too short")
    if ns > _LONGEST_NS:
        raise refuse("longer than 100 years")
    return ns


def size(value: object, argument: str) -> int:
    """Bytes of a size that a user gave for `argument`: an int, or text such as "256MB" (of 1024); 1 to 2**63 - 1.

    Raises:
        ConfigError: names the argument, the value and what is accepted.
    """

    def refuse(reason: str) -> ConfigError:
        return ConfigError(f"{argument}={shown(value)}: {reason}; accepted: {_SIZE_FORMS}")

    if isinstance(value, str):
        try:
            count = _core.parse_size(value)
        except ValueError as error:
            raise refuse(_reason(error)) from None
    elif isinstance(value, int) and not isinstance(value, bool):
        count = value
    else:
        raise refuse(f"{type(value).__name__} is not a size")
    if count <= 0:
        raise refuse("not positive")
    if count >= 2**63:
        raise refuse("larger than 2**63 - 1 bytes")
    return count


def shown(value: object) -> str:
    """The repr of a bad value for an error: at most 80 characters, and never an error of its own."""
    try:
        text = repr(value)
    except Exception:  # a repr may do anything; an int of more than 4,300 digits raises too
        return f"<{type(value).__name__}>"
    return text if len(text) <= 80 else text[:77] + "..."


def _reason(error: ValueError) -> str:
    """What the core says is wrong, without the value and the accepted forms, which are named here."""
    return str(getattr(error, "reason", error))
