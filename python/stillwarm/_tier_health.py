"""What a remote tier's requests came to: its errors, its state, and when reads need no Python.

Thread rule: any thread; every change is one step under the GIL.
Refuses to know: what was asked.

Reads that end as most do are performed in C++ while the tier is calm (cpp/bindings/remote_read.hpp): it is used
already, no open transaction invalidates anything, and nothing failed within the last WINDOW. What is read then is not
noted here one by one: a failure that ends the calm first notes how much it was.
"""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, TypeAlias

from stillwarm import _core
from stillwarm._stats import State
from stillwarm.errors import TierError, TierRejected, TierTimeout, TierUnavailable

if TYPE_CHECKING:
    import weakref

    from stillwarm._cache import Cache
    from stillwarm._tier_transactions import Held

Error: TypeAlias = "tuple[int, str, str] | None"

OK, UNAVAILABLE, TIMEOUT, REJECTED, IN_DOUBT, FULL, CLOSED = range(7)  # TierFault of core/remote/remote_tier.hpp
_ERRORS: Final[tuple[Literal["last_error", "last_rejection", "listener_error"], ...]] = (
    "last_error",
    "last_rejection",
    "listener_error",
)
LOOK_UP, STORE, INVALIDATE, QUERY = 0, 1, 2, 6  # Request.kind of a read, a write, an invalidation, any one statement
WINDOW: Final = 10.0  # s

_log = logging.getLogger("stillwarm")


def raised(error: tuple[int, str, str]) -> TierError:
    """The exception for an error of the core."""
    fault, state, message = error
    text = f"{message} (SQLSTATE {state})" if state and state not in message else message
    if fault == TIMEOUT:
        return TierTimeout(text)
    if fault == REJECTED:
        return TierRejected(text, state)
    return TierUnavailable(text)


class Health:
    """The part of a Tier that notes how its requests ended."""

    name: ClassVar[str]
    speaks_sql: ClassVar[bool]
    in_parts: bool = False  # several servers, of which one may be away while the others answer
    denied: ClassVar[tuple[str, ...]]  # errors that will not pass by themselves

    core: _core.RemoteTier
    reader: _core.Reader
    dictionaries: _core.Dictionaries
    closed: bool
    _cache: weakref.ref[Cache]
    pending: list[Held]  # what open transactions invalidate

    def __init__(self) -> None:
        self.errors = 0
        self.undecodable: dict[str, int] = {}
        self._said: set[str] = set()
        self._denied: dict[int, str] = {}  # kind of request -> SQLSTATE that its last one met
        self._recent: deque[tuple[float, bool]] = deque(maxlen=512)  # (moment, whether it failed)
        self._failed_at = -math.inf
        self._calm_since = 0.0
        self._away_until = 0.0

    def noted(self, error: Error, request: _core.Request) -> Error:
        """How a request ended, which is returned."""
        kind_of_request = request.kind
        if error is not None and kind_of_request == QUERY and request.once and error[1]:
            return error  # the server's answer about a row of the app's: the tier works
        now = time.monotonic()
        if error is None:
            self._recent.append((now, False))
            self._away_until = 0.0
            self._denied.pop(kind_of_request, None)
            if kind_of_request == STORE:
                self.core.took()
            if not self.reader.calm:
                self._settle(now)
            return None
        self._failed_at = now
        self.reader.end_calm()
        self._note_served(now)
        self._recent.append((now, True))
        if error[0] == REJECTED and error[1] in self.denied and (self.speaks_sql or kind_of_request != QUERY):
            self._denied[kind_of_request] = error[1]
        self.errors += 1
        if error[0] != REJECTED and not (self.in_parts and self.core.partly):
            self._away_until = now + 0.1
        kind = error[1] or error[2]
        if kind not in self._said and error[0] != CLOSED:
            if len(self._said) > 100:
                self._said.clear()
            self._said.add(kind)
            _log.warning("the %s tier failed: %s; it is said once", self.name, raised(error))
        return error

    def _settle(self, now: float) -> None:
        """Lets reads go without Python, if all is calm. Another thread may end the calm while this one looks."""
        ended = self.reader.ended
        cache = self._cache()  # gone: work behind it still asks the tier
        upkeep = None if cache is None else cache._upkeep
        if (
            now - self._failed_at > WINDOW
            and not self._denied
            and not self.pending
            and not self.core.owes_writes()
            and not self.closed
            and cache is not None
            and cache._enabled
            and upkeep is not None
            and upkeep.runs
        ):
            self._note_served(now)
            self._calm_since = now
            self.reader.begin_calm(ended)

    def _note_served(self, now: float) -> None:
        """What was read without Python, as much as is likely to be of the last WINDOW."""
        lately = WINDOW / max(WINDOW, now - self._calm_since)
        served = min(math.ceil(self.reader.take_served() * lately), self._recent.maxlen or 0)
        self._recent.extend([(now, False)] * served)

    @property
    def away(self) -> bool:
        """The tier did not answer a moment ago: memory goes on without asking."""
        return time.monotonic() < self._away_until

    @property
    def state(self) -> State:
        """As `Cache.state` says it."""
        health = self.core.health()
        gone = health["connections"] == 0 and not health["linked"] and health["last_error"] is not None  # idle: linked
        rejection = health["last_rejection"]
        if not health["owed_invalidations"]:
            self._denied.pop(INVALIDATE, None)
        denied = self._denied or (rejection is not None and rejection[1] in self.denied)
        parts, parts_away = health["parts"], health["parts_away"]
        if health["circuit"] != "closed" or gone or denied or 0 < parts == parts_away:
            return State.DOWN
        unlinked = health["reconnects"] and not health["linked"]
        if (
            health["owed_invalidations"]
            or health["owed_writes"]
            or parts_away
            or unlinked
            or rejection is not None
            or self.error_share() > 0.05
        ):
            return State.DEGRADED
        return State.HEALTHY

    def figures(self) -> dict[str, Any]:
        """What `Stats.tier` shows."""
        health = self.core.health()
        told: dict[str, Any] = {"name": self.name, **health, "undecodable": dict(self.undecodable)}
        told["compression"] = self.dictionaries.figures()
        for name in _ERRORS:
            error = health[name]
            told[name] = None if error is None else str(raised(error))
        return told

    def error_share(self) -> float:
        """Failed requests of the last WINDOW, 0 to 1."""
        since = time.monotonic() - WINDOW
        recent = [failed for moment, failed in list(self._recent) if moment >= since]
        return sum(recent) / len(recent) if recent else 0.0

    def say_once(self, level: int, what: str, text: str, *args: object) -> None:
        """Logs the first time, per `what`."""
        if what not in self._said:
            self._said.add(what)
            _log.log(level, text, *args)


__all__ = ["Error", "Health", "raised"]
