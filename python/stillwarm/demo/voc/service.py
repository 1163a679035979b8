"""The two cached readings of the windows, and the write that invalidates both.

How long anybody waits, whatever the database does: `SOFT` who could have an older value, `HARD` who has none, `WRITE`
who writes; and before each, once, as long as the cache may wait for its own database (250 ms). A read that fails is
tried again three times; then the older value is served, and only without one an error.

Thread rule: one event loop.
Refuses to know: HTTP, and how windows are read (`windows`).
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, Final

from stillwarm import Cache, Retry, agather, hooks, transient
from stillwarm.demo.voc.windows import TABLE, Windows
from stillwarm.errors import LoadTimeout, TierTimeout, TierUnavailable

STATUS: Final = "voc_status"
CURRENT: Final = "voc_current"
TTL: Final = {STATUS: 120, CURRENT: 60}  # s
SOFT: Final = "300ms"
HARD: Final = "6s"
WRITE: Final = "3s"
ATTEMPT: Final = "1s"  # one attempt to read; four of them and the waits between are below HARD
KEPT: Final = "7d"  # how long an expired value stands in while the database is away
# No budget: there is one load per key however many ask, so retries cannot multiply.
RETRY: Final = Retry(on=transient, retries=3, base=0.2, cap=2.0, jitter=0.3, budget=None, name="voc")

_log = logging.getLogger("stillwarm.demo.voc")
_stale: ContextVar[bool] = ContextVar("voc_stale", default=False)


class UnavailableError(Exception):
    """The database does not answer, and there is no value that could stand in."""


@dataclass(frozen=True)
class Given:
    """A value as a request got it.

    Attributes:
        value: what was read.
        cache_hit: it was there already: no read that this request waited for made it.
        age: seconds since it was read.
        stale: it is over its time, and stands in because there is no newer one.
    """

    value: dict[str, Any]
    cache_hit: bool
    age: float
    stale: bool

    @property
    def label(self) -> str:
        """The X-Cache header."""
        return "STALE" if self.stale else "HIT" if self.cache_hit else "MISS"


class Service:
    """The caches of `windows`.

    Args:
        windows: the table.
        cache: the types STATUS and CURRENT are defined on it. Writing needs its database.
        retry: other waits than the usual ones.
        attempt: how long one attempt to read may take.
        soft, hard: how long anybody waits who could have an older value, and who has none.
        clock: seconds since 1970.
    """

    def __init__(
        self,
        windows: Windows,
        cache: Cache,
        retry: Retry = RETRY,
        attempt: str = ATTEMPT,
        soft: str = SOFT,
        hard: str = HARD,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.windows, self.cache, self.clock = windows, cache, clock
        self._me = secrets.token_hex(8)  # this process among those that share values
        self._read = 0  # reads that ended here
        self.last: dict[str, dict[str, Any]] = {}  # by type: the value that was given last
        for name, ttl in TTL.items():
            limits: Any = {"soft_timeout": soft, "hard_timeout": hard}
            cache.define(name, ttl=ttl, jitter=0, stale_if_error=KEPT, retry=retry, **limits)
        cache.subscribe(_tell)

        async def status() -> dict[str, Any]:
            now = self._now()
            await self._ready(attempt)
            current, following, upcoming = await agather(
                self.windows.current(now), self.windows.next(now), self.windows.upcoming(now), deadline=attempt
            )
            return self._made({"current": current, "next": following, "upcoming": upcoming})

        async def current() -> dict[str, Any]:
            now = self._now()
            await self._ready(attempt)
            (found,) = await agather(self.windows.current(now), deadline=attempt)
            return self._made({"current": found})

        self.status: Any = cache.cached(STATUS, key="voc:status")(status)
        self.current: Any = cache.cached(CURRENT, key="voc:current")(current)

    async def get_status(self) -> Given:
        """current, next, upcoming.

        Raises:
            UnavailableError: there is no value, and the database does not answer.
        """
        return await self._get(STATUS, self.status)

    async def get_current(self) -> Given:
        """current. Raises as `get_status`."""
        return await self._get(CURRENT, self.current)

    async def save(self, start_at: datetime, end_at: datetime, source: str) -> Any:
        """Writes a window, one row for each start_at and end_at; both caches forget what was before, if it changed.

        Raises:
            UnavailableError: the database does not answer. The text says whether nothing was done.
        """
        row = {"start_at": start_at, "end_at": end_at, "source": source}
        try:
            await self._ready(WRITE)
            done = await self.cache.aupsert(
                TABLE,
                row,
                unique=("start_at", "end_at"),
                update=("source",),
                returning=("id",),
                invalidates=[{"type": STATUS}, {"type": CURRENT}],
                timeout=WRITE,
            )
        except Exception as error:
            if not _away(error):
                raise
            _log.warning("update refused: %s", type(error).__name__)
            raise UnavailableError(f"the window is not known to be saved: {_told(error)}") from error
        _log.info("update: %s, %s to %s", done.outcome, start_at.isoformat(), end_at.isoformat())
        return done

    def age_of(self, name: str) -> float | None:
        """Seconds since the value was read that this process gave last; None: it has given none."""
        value = self.last.get(name)
        return None if value is None else self._age(value)

    async def _get(self, name: str, call: Callable[[], Awaitable[dict[str, Any]]]) -> Given:
        before = self._read
        _stale.set(False)
        try:
            value = await call()
        except Exception as error:
            if _away(error):
                _log.error("%s: no value, and the database does not answer: %s", name, type(error).__name__)
                raise UnavailableError("the database does not answer, and there is no older value") from error
            raise
        self.last[name] = value
        process, number = value["read"]
        age = self._age(value)
        hit = process != self._me or number <= before
        given = Given(value, hit, age, hit and (_stale.get() or age >= TTL[name]))
        if given.stale:
            _log.warning("%s stale served: %.1f s old", name, age)
        elif hit:
            _log.info("%s hit: %.1f s old", name, age)
        else:
            _log.info("%s miss: read in the database", name)
        return given

    def _made(self, value: dict[str, Any]) -> dict[str, Any]:
        self._read += 1
        return {**value, "read_at": self.clock(), "read": [self._me, self._read]}

    async def _ready(self, timeout: str) -> None:
        if not self.windows.there:
            await agather(self.windows.ensure(), deadline=timeout)

    def _age(self, value: dict[str, Any]) -> float:
        return max(0.0, self.clock() - float(value["read_at"]))

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self.clock(), timezone.utc)


def _told(error: Exception) -> str:
    """Whether nothing was done is in the text of a tier's error; those of drivers have SQL and addresses in them."""
    return str(error) if isinstance(error, (TierUnavailable, TierTimeout)) else type(error).__name__


def _away(error: Exception) -> bool:
    return isinstance(error, (LoadTimeout, TierUnavailable, TierTimeout)) or transient(error)


def _tell(event: hooks.Event) -> None:
    if isinstance(event, hooks.StaleServed):
        _stale.set(True)  # in the context of the call that gets it, before it gets it
    elif isinstance(event, hooks.Invalidated):
        _log.info("cleared: %s %s", event.type, event.key)
    elif isinstance(event, hooks.LoadFailed):
        _log.warning("%s: no fresh value: %s", event.key, type(event.error).__name__)


__all__ = ["ATTEMPT", "CURRENT", "HARD", "KEPT", "RETRY", "SOFT", "STATUS", "TTL", "WRITE", "Given", "Service"]
__all__ += ["UnavailableError"]
