"""Who is inside of whom: the guarded calls that are under way, by context.

Thread rule: kept in contextvars: a thread has a context of its own, a task and `asyncio.to_thread` begin with a copy.
Refuses to know: what a breaker decides, and how a call ends.

A context keeps no call alive. One whose caller was interrupted before it could end it is gone with the caller's frame,
and its permit, dropped, is free again; and a task that outlives a block keeps nothing of it.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Final, TypeAlias
from weakref import ref

if TYPE_CHECKING:
    from stillwarm._core import BreakerCall
    from stillwarm.breaker import CircuitBreaker


class Call:
    """A call that is under way."""

    __slots__ = ("__weakref__", "breaker", "ended", "permit")

    def __init__(self, breaker: CircuitBreaker, permit: BreakerCall) -> None:
        self.breaker = breaker
        self.permit = permit
        self.ended = False


_Link: TypeAlias = "tuple[ref[Call], _Link] | None"  # a call, and those that it is in

_inside: Final[ContextVar[_Link]] = ContextVar("stillwarm_breaker", default=None)


def calls_of(breaker: CircuitBreaker) -> list[Call]:
    """The calls of this breaker that this context is inside of, the innermost first."""
    found = []
    link = _inside.get()
    while link is not None:
        call = link[0]()
        if call is not None and call.breaker is breaker:
            found.append(call)
        link = link[1]
    return found


def begin(call: Call) -> None:
    """From here on, this context is inside of it."""
    _inside.set((ref(call), _under_way(_inside.get())))


def end(call: Call) -> None:
    """It is over, whatever contexts still name it."""
    call.ended = True
    link = _inside.get()
    if link is not None and link[0]() is call:
        _inside.set(_under_way(link))


def _under_way(link: _Link) -> _Link:
    while link is not None:
        call = link[0]()
        if call is not None and not call.ended:
            break
        link = link[1]
    return link


__all__ = ["Call", "begin", "calls_of", "end"]
