"""Event loops that wait for a remote tier: one descriptor each, by which everything that ended together wakes them.

Thread rule: a Loop belongs to its event loop; the core's worker threads end requests.
Refuses to know: requests.
"""

from __future__ import annotations

import itertools
import weakref
from typing import TYPE_CHECKING

from stillwarm import _core

if TYPE_CHECKING:
    import asyncio


class Loop:
    """What an event loop waits for: futures by token, woken through one descriptor."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = weakref.ref(loop)
        self.completions = _core.Completions()
        self.futures: dict[int, asyncio.Future[None]] = {}
        self.tokens = itertools.count(1)
        loop.add_reader(self.completions.fileno(), self._ended)

    def expect(self, loop: asyncio.AbstractEventLoop) -> tuple[int, asyncio.Future[None]]:
        """A token that ends with the future. `loop`: that of this object."""
        token = next(self.tokens)
        future = self.futures[token] = loop.create_future()
        return token, future

    def _ended(self) -> None:
        for token in self.completions.take():
            future = self.futures.pop(token, None)
            if future is not None and not future.done():
                future.set_result(None)
