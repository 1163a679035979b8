"""A cache that is switched off: calls go straight through, nothing is kept, nobody waits for anybody.

Thread rule: any thread, any loop.
Refuses to know: keys and flights, but that a loader may ask `current_load()` for its readable key.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from stillwarm._target import innermost, straight


class Passing:
    """Stands for a flight where a loader asks for `current_load()`: an app that uses it runs with its cache off too."""

    __slots__ = ("_target", "load", "outer", "over")

    background = False

    def __init__(self, target: Any) -> None:
        self._target = target
        self.load: Any = None
        self.outer = innermost()
        self.over = False

    @property
    def cache(self) -> Any:
        return self._target.cache

    @property
    def scope(self) -> int:
        return self._target.key()[0]  # type: ignore[no-any-return]

    @property
    def key(self) -> Any:
        return self._target.key()[1]


@contextmanager
def passing(target: Any) -> Iterator[None]:
    """What a call that goes round the cache runs in."""
    one = Passing(target)
    before = straight.set(one)
    try:
        yield
    finally:
        one.over = True
        straight.reset(before)


def run(target: Any) -> Any:
    """What the loader of a plain call returns."""
    with passing(target):
        return target.load()


async def arun(target: Any) -> Any:
    """`run` for coroutine functions, and for plain ones that are awaited."""
    with passing(target):
        value = target.load()
        return await value if inspect.isawaitable(value) else value
