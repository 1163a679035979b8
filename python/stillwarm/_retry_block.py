"""Retry as a block of statements: `for attempt in Retry(...): with attempt: ...`, and the same with `async for`.

Thread rule: a block belongs to one thread or task.
Refuses to know: whether and how long (_attempts.py).

    next attempt -> with: fails -> a wait is granted: swallowed, the next one waits first
                                -> stopped: the error leaves the loop
                    with: done  -> the loop ends
"""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Final

from stillwarm._attempts import Attempts
from stillwarm._waiting import apause, pause, running_loop
from stillwarm.errors import ConfigError

if TYPE_CHECKING:
    from stillwarm._retry import Retry

_UNUSED: Final = "for attempt in Retry(...): the body of the loop has to stand under `with attempt:`"


class Attempt:
    """One pass through the block."""

    __slots__ = ("_block", "_entered", "_left", "number")

    number: int  # from 1

    def __init__(self, block: _Blocks, number: int) -> None:
        self._block = block
        self._entered = self._left = False
        self.number = number

    def __repr__(self) -> str:
        return f"<attempt {self.number} of {self._block.policy!r}>"

    def __enter__(self) -> Attempt:
        if self._entered:
            raise ConfigError("an attempt is entered once: take the next one from the loop")
        self._entered = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        if self._left or not self._entered:
            return False
        self._left = True
        return self._block.ended(error)


class _Blocks:
    __slots__ = ("_attempt", "_attempts", "_delay", "_over", "policy")

    def __init__(self, policy: Retry) -> None:
        if policy.attempt_timeout is not None:
            raise ConfigError(
                "attempt_timeout= and a block: only the call of a coroutine function can be interrupted; accepted: "
                "asyncio.timeout() inside the block, or the decorator"
            )
        self.policy = policy
        self._attempts: Attempts | None = None
        self._attempt: Attempt | None = None
        self._delay = 0.0
        self._over = False

    def ended(self, error: BaseException | None) -> bool:
        """Whether the error stays here, since another attempt follows."""
        assert self._attempts is not None
        if error is None:
            self._attempts.succeeded()
        delay = self._attempts.failed(error) if isinstance(error, Exception) else None
        self._over = delay is None
        self._delay = delay or 0.0
        return delay is not None

    def _begin(self) -> None:
        if self._attempts is None:
            self._attempts = self.policy.start()
        elif self._attempt is not None and not self._attempt._left:
            raise ConfigError(_UNUSED)

    def _next(self) -> Attempt:
        number = 1 if self._attempt is None else self._attempt.number + 1
        self._attempt = Attempt(self, number)
        return self._attempt


class Block(_Blocks):
    """For a plain function."""

    __slots__ = ()

    def __iter__(self) -> Block:
        return self

    def __next__(self) -> Attempt:
        if self._over:
            raise StopIteration
        self._begin()
        if self._attempt is not None:
            pause(self._delay)
        elif running_loop() is not None:
            raise ConfigError(
                "for attempt in Retry(...) inside a coroutine: its waits would stop the event loop; accepted here: "
                "async for attempt in Retry(...)"
            )
        return self._next()


class AsyncBlock(_Blocks):
    """For a coroutine."""

    __slots__ = ()

    def __aiter__(self) -> AsyncBlock:
        return self

    async def __anext__(self) -> Attempt:
        if self._over:
            raise StopAsyncIteration
        self._begin()
        if self._attempt is not None:
            await apause(self._delay)
        return self._next()
