"""A write route that runs once per idempotency key, in a task: the twin of `idempotent.drive`, with the same steps.

Thread rule: each coroutine runs on its request's loop.
Refuses to know: what `idempotent` refuses.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Protocol


class AsyncHands(Protocol):
    """What drives the steps in a task."""

    async def do(self, wish: Any) -> Any: ...


async def adrive(hands: AsyncHands, steps: Generator[Any, Any, Any]) -> Any:
    """Does what the steps ask for."""
    try:
        wish = next(steps)
        while True:
            try:
                got = await hands.do(wish)
            except BaseException as error:  # noqa: PERF203
                wish = steps.throw(error)
            else:
                wish = steps.send(got)
    except StopIteration as stop:
        return stop.value
    finally:
        steps.close()


__all__ = ["adrive"]
