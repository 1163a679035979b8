"""What an exception says about itself: transient or not, and when the server wants to be asked again.

Thread rule: pure functions, any thread.
Refuses to know: the libraries that raise (none is imported) and the tables, which are in cpp/core/retry/classify.cpp.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone
from email.utils import parsedate_to_datetime
from typing import Final, Literal, TypeAlias, cast

from stillwarm import _core
from stillwarm.errors import CircuitOpen

Kind: TypeAlias = Literal["fatal", "not_found", "transient"]

_LONGEST_WAIT: Final = 100 * 365 * 86_400.0  # s


def classify(exc: BaseException) -> Kind:
    """What kind of failure this is: "transient", "not_found" (`stillwarm.errors.NotFound`) or "fatal".

    Judged by class name, SQLSTATE, errno and HTTP status; knows OSError, psycopg, psycopg2, asyncpg, SQLAlchemy, redis,
    requests, httpx, urllib3 and aiohttp and imports none of them. The tables are in cpp/core/retry/classify.cpp.
    Cancellation, KeyboardInterrupt and SystemExit are "fatal"; an exception group is what all its members are.
    """
    if not may_retry(exc):
        return "fatal"
    if any(cls.__name__ == "BaseExceptionGroup" for cls in type(exc).__mro__):
        members = _get(exc, "exceptions")
        kinds = {classify(member) for member in members} if isinstance(members, tuple) else set()
        return kinds.pop() if len(kinds) == 1 else "fatal"
    lost = _get(exc, "connection_invalidated") is True  # SQLAlchemy: the driver's error meant a dead connection
    exc = _innermost(exc)
    names = [f"{cls.__module__}.{cls.__qualname__}" for cls in type(exc).__mro__]
    number = _get(exc, "errno")
    known_number = number if type(number) is int and abs(number) < 2**31 else None
    return cast(Kind, _core.classify_error(names, _sqlstate(exc), known_number, _http_status(exc), lost))


def transient(exc: BaseException) -> bool:
    """Whether the same call may succeed a moment later without anybody changing anything. See `classify`.

    For `on=`, `stale_on=` and in predicates of your own: `lambda e: transient(e) or isinstance(e, Busy)`.
    """
    return classify(exc) == "transient"


def retry_after(exc: BaseException) -> float | None:
    """Seconds (>= 0) that the server asked to wait in a `Retry-After` header (RFC 9110, 10.2.3), or None.

    Reads `exc.response.headers` (requests, httpx) or `exc.headers` (aiohttp, urllib). A date is compared with the
    response's own `Date`, so that a wrong clock on either side does not matter; without one, with the time of day.
    Of a `CircuitOpen`: seconds until its circuit lets a call through.
    """
    seconds = exc.retry_after if isinstance(exc, CircuitOpen) else _asked(exc)
    # What is absurd must not overflow the core's nanoseconds; NaN is nothing.
    return None if seconds is None or seconds != seconds else min(max(0.0, seconds), _LONGEST_WAIT)


def _asked(exc: BaseException) -> float | None:
    for source in (_get(exc, "response"), exc):
        headers = _get(source, "headers")
        text = _header(headers, "Retry-After")
        if text is None:
            continue
        if re.fullmatch(r"[0-9]+(\.[0-9]+)?", text):
            return float(text)
        until = _http_date(text)
        if until is None:
            return None
        now = _http_date(_header(headers, "Date")) or datetime.now(timezone.utc)
        return (until - now) / timedelta(seconds=1)
    return None


def may_retry(exc: BaseException) -> bool:
    """False for cancellation and for what ends a thread or the program: those are never errors."""
    if not isinstance(exc, Exception):
        return False
    # The one of concurrent.futures is an Exception; asyncio's is not.
    return all(cls.__name__ != "CancelledError" for cls in type(exc).__mro__)


def _innermost(exc: BaseException) -> BaseException:
    """The driver's error in SQLAlchemy's wrappers, the socket's in urllib's and urllib3's."""
    for _ in range(8):  # a chain that leads back to itself must end
        package = type(exc).__module__.partition(".")[0]
        inner: object = None
        if package == "sqlalchemy":
            inner = _get(exc, "orig")
            if inner is None and all(cls.__name__ != "SQLAlchemyError" for cls in type(exc).__mro__):
                inner = exc.__cause__  # its asyncio adapters translate once more, for instance asyncpg's errors
        elif package in ("urllib", "urllib3"):
            inner = _get(exc, "reason")
        if not isinstance(inner, BaseException):
            break
        exc = inner
    return exc


def _get(source: object, name: str) -> object:
    """An attribute, or None; a property of somebody else's exception may raise anything."""
    try:
        return getattr(source, name, None)
    except Exception:
        return None


def _sqlstate(exc: BaseException) -> str | None:
    for name in ("sqlstate", "pgcode"):
        state = _get(exc, name)
        if isinstance(state, str) and len(state) == 5 and state.isascii():
            return state
    return None


def _http_status(exc: BaseException) -> int | None:
    response = _get(exc, "response")
    for source in (response, exc):
        for name in ("status_code", "status"):
            status = _get(source, name)
            if type(status) is int and 100 <= status <= 599:
                return status
    return None


def _header(headers: object, name: str) -> str | None:
    get = _get(headers, "get")
    if not callable(get):
        return None
    try:
        value = get(name) or get(name.lower())  # a plain dict knows one spelling
    except Exception:
        return None
    return value.strip() if isinstance(value, str) else None


def _http_date(text: str | None) -> datetime | None:
    try:
        date = parsedate_to_datetime(text or "")
    except (TypeError, ValueError, OverflowError):
        return None
    return date if date.tzinfo else date.replace(tzinfo=timezone.utc)
