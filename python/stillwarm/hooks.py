"""Events of a cache, for those who want to watch it: `cache.subscribe(hook)`.

Thread rule: a hook runs on the thread of the call that caused the event, outside of every lock; an error is logged.
Refuses to know: what a hook does with an event.

Events are frozen records. Without a hook they are not even made. Fresh hits are reported only to hooks that asked for
them (`hits=True`), because then every hit takes the long way.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

__all__ = [
    "AlertCleared",
    "AlertRaised",
    "Event",
    "Hit",
    "Hook",
    "Invalidated",
    "Loaded",
    "LoadFailed",
    "Missed",
    "StaleServed",
    "log_event",
]


@dataclass(frozen=True)
class Event:
    """Something happened.

    Attributes:
        type: the type of what it happened to.
        key: its readable key.
    """

    type: str
    key: str


@dataclass(frozen=True)
class Hit(Event):
    """A fresh value was returned."""


@dataclass(frozen=True)
class StaleServed(Event):
    """A stale value was returned: while it is refreshed, or in place of an error or of a slow load."""


@dataclass(frozen=True)
class Missed(Event):
    """There was no value: a load starts, or the caller waits for one.

    Attributes:
        joined: it waits for one that runs already.
    """

    joined: bool


@dataclass(frozen=True)
class Loaded(Event):
    """A load succeeded.

    Attributes:
        seconds: how long it took.
        stored: "stored", "lost" (invalidated meanwhile), "too_large" or "not_kept".
        background: a refresh that no caller waited for.
    """

    seconds: float
    stored: str
    background: bool


@dataclass(frozen=True)
class LoadFailed(Event):
    """A load failed for good.

    Attributes:
        error: what it raised.
        background: a refresh that no caller waited for.
    """

    error: BaseException
    background: bool


@dataclass(frozen=True)
class Invalidated(Event):
    """`invalidate()` was called. `key` holds what was named, `type` the intent: key, type, tag, pattern or all."""

    stale: bool


@dataclass(frozen=True)
class AlertRaised(Event):
    """A figure crossed its `threshold` (stillwarm.web.alerts). `type` is "alert", `key` the name of the alert."""

    value: float
    threshold: float


@dataclass(frozen=True)
class AlertCleared(Event):
    """The figure is back on the good side of its `threshold`."""

    value: float
    threshold: float


Hook = Callable[[Event], None]
"""What `cache.subscribe` takes."""

_log = logging.getLogger("stillwarm")


def log_event(event: Event) -> None:
    """A hook that writes each event to the logger "stillwarm": failures as WARNING, everything else as DEBUG."""
    if isinstance(event, LoadFailed):
        kind = "refresh" if event.background else "load"
        _log.warning("%s failed: %s: %r", kind, event.key, event.error)
    elif isinstance(event, Loaded):
        _log.debug("loaded in %.3f s (%s): %s", event.seconds, event.stored, event.key)
    elif isinstance(event, Missed):
        _log.debug("%s: %s", "joined" if event.joined else "miss", event.key)
    elif isinstance(event, (AlertRaised, AlertCleared)):  # the WARNING line is the alert's own
        _log.debug("alert %s: %s", "raised" if isinstance(event, AlertRaised) else "cleared", event.key)
    elif isinstance(event, Invalidated):
        _log.debug("invalidated%s: %s=%s", " (stale)" if event.stale else "", event.type, event.key)
    else:
        _log.debug("%s: %s", "hit" if isinstance(event, Hit) else "stale", event.key)
