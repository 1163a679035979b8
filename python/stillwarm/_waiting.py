"""The waits between attempts, once for threads and once for asyncio, and the switch that lets tests skip them.

Thread rule: any thread; the switch is the process's, and for tests only.
Refuses to know: what is waited for, and how long: the core says that.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import SystemRandom
from typing import Any

from stillwarm import _core

_draw: Callable[[], float] = SystemRandom().random  # not seeded: workers forked from one parent must not wait alike
_instead_of_sleep: Callable[[float], object] | None = None


def running_loop() -> Any:
    """The event loop that runs on this thread, without importing asyncio for those who do not use it."""
    asyncio = sys.modules.get("asyncio")
    return asyncio._get_running_loop() if asyncio is not None else None


def draw() -> float:
    """The random number in [0, 1) behind a jitter."""
    return _draw()


def pause(seconds: float) -> None:
    """Waits between attempts in a thread; see `without_waiting`."""
    if _instead_of_sleep is None:
        time.sleep(seconds)
    else:
        _instead_of_sleep(seconds)


async def apause(seconds: float) -> None:
    """Waits between attempts in a task; see `without_waiting`."""
    import asyncio  # here, so that `import stillwarm` leaves it out

    if _instead_of_sleep is None:
        await asyncio.sleep(seconds)
    else:
        _instead_of_sleep(seconds)
        await asyncio.sleep(0)


@contextmanager
def without_waiting(
    *, sleep: Callable[[float], object] | None = None, random: Callable[[], float] | None = None
) -> Iterator[list[float]]:
    """For tests: inside, no retry of this process waits, and every budget is full at the begin and again at the end.

    Yields the list of waits in seconds, in their order. `sleep` is called with each, to move a clock by hand; `random`
    replaces the random number in [0, 1) behind the jitter.
    """
    global _instead_of_sleep, _draw
    waits: list[float] = []

    def record(seconds: float) -> None:
        waits.append(seconds)
        if sleep is not None:
            sleep(seconds)

    before = _instead_of_sleep, _draw
    _core.refill_budgets()
    _instead_of_sleep, _draw = record, random or _draw
    try:
        yield waits
    finally:
        _instead_of_sleep, _draw = before
        _core.refill_budgets()
