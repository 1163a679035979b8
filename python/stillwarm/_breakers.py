"""The circuit breakers of this process, none of them kept alive, and their names.

Thread rule: any thread. The lock is recursive, for the collector may run anything while it is held.
Refuses to know: what a breaker does.
"""

from __future__ import annotations

import gc
import os
import threading
from typing import TYPE_CHECKING
from weakref import WeakSet, WeakValueDictionary

from stillwarm._arguments import refuse

if TYPE_CHECKING:
    from stillwarm.breaker import CircuitBreaker

_lock = threading.RLock()
_all: WeakSet[CircuitBreaker] = WeakSet()
_named: WeakValueDictionary[str, CircuitBreaker] = WeakValueDictionary()


def register(breaker: CircuitBreaker) -> None:
    """Takes one more.

    Raises:
        ConfigError: a living one has its name.
    """
    for again in (True, False):
        with _lock:
            if breaker.name is None or _named.setdefault(breaker.name, breaker) is breaker:
                _all.add(breaker)
                return
        if again:
            gc.collect()  # the one that has the name may be garbage, of an app that was made for a test
    refuse("name", breaker.name, "another breaker has it", "a name that no living breaker has; share that one")


def breakers() -> dict[str, CircuitBreaker]:
    """The living breakers that have a name, by it."""
    with _lock:
        return dict(_named.items())


def reset_all() -> None:
    """Every breaker closed and empty, silently: for tests, and for the child of a fork."""
    with _lock:
        every = list(_all)
    for breaker in every:
        breaker._core.reset()


def _after_fork_in_child() -> None:
    global _lock
    _lock = threading.RLock()  # another thread of the parent may have held it
    reset_all()  # the parent's calls are not in the child


os.register_at_fork(after_in_child=_after_fork_in_child)

__all__ = ["breakers", "register", "reset_all"]
