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

    __slots__ = ("__weakref__", "breaker", "doubtful", "ended", "outer", "permit")

    def __init__(self, breaker: CircuitBreaker, permit: BreakerCall, outer: Call | None) -> None:
        self.breaker = breaker
        self.permit = permit
        self.outer = outer  # whose permit it was
        self.doubtful = False  # a call inside gave the permit back: of that one nobody knows
        self.ended = False

    def hand_back(self, outer: Call | None) -> None:
        """Nobody knows how it went. The permit goes back to the call that it came from, which may see it fail: what
        was cancelled in here is a time-out out there."""
        back = None if outer is None or outer.ended else self.permit.pass_on()
        if outer is None or back is None:
            self.permit.abandoned()
        else:
            outer.permit = back
            outer.doubtful = True


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
    call.outer = None
    link = _inside.get()
    if link is not None and link[0]() is call:
        _inside.set(_under_way(link))


def _under_way(link: _Link) -> _Link:
    """Without those that are over, wherever they are: of tasks that each begin the next, none would ever go."""
    calls = []
    at = link
    length = 0
    while at is not None:
        call = at[0]()
        if call is not None and not call.ended:
            calls.append(at[0])
        at = at[1]
        length += 1
    if len(calls) == length:
        return link
    link = None
    for living in reversed(calls):
        link = (living, link)
    return link


__all__ = ["Call", "begin", "calls_of", "end"]
