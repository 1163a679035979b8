"""The awaitable of a retried coroutine function: it is a coroutine to everybody who takes one.

Thread rule: one thread, loops of its own.
Refuses to know: how often and how long (test_retry.py).
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine, Iterator
from typing import Any

import pytest

from flaky import Source
from stillwarm import Cache, Retry, retry, transient
from stillwarm.errors import AttemptTimeout, ConfigError
from stillwarm.testing import without_waiting


@pytest.fixture(autouse=True)
def waits() -> Iterator[list[float]]:
    with without_waiting() as seen:
        yield seen


@retry(on=transient)
async def amodule_level(x: int) -> int:
    await asyncio.sleep(0)
    return x


def test_retried_coroutine_is_taken_wherever_one_is() -> None:
    async def run() -> None:
        assert isinstance(amodule_level(1), Coroutine)
        assert await amodule_level(1) == 1
        assert await asyncio.create_task(amodule_level(2)) == 2
        assert await asyncio.gather(amodule_level(3), amodule_level(4)) == [3, 4]
        assert await asyncio.wait_for(amodule_level(5), 30) == 5

    with pytest.warns(RuntimeWarning, match="never awaited"):
        asyncio.run(run())


def test_retried_coroutine_is_awaited_once() -> None:
    async def run() -> None:
        once = amodule_level(1)
        assert await once == 1
        with pytest.raises(RuntimeError, match="awaited"):
            await once
        closed = amodule_level(1)
        closed.close()
        closed.close()
        with pytest.raises(RuntimeError, match="cannot reuse"):
            closed.send(None)

    asyncio.run(run())


def test_retried_coroutine_passes_on_what_is_thrown_into_it(waits: list[float]) -> None:
    """As an event loop does where the future that is awaited has failed."""
    calls = 0

    @retry(on=transient, retries=1)
    async def f() -> int:
        nonlocal calls
        calls += 1
        if calls < 2:
            future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
            asyncio.get_running_loop().call_soon(future.set_exception, ConnectionError())
            return await future
        return calls

    async def caught() -> int:
        @retry(on=transient)
        async def swallows() -> int:
            try:
                await asyncio.sleep(3600)
            except KeyError:
                return 7
            return 0

        coroutine = swallows()
        coroutine.send(None)
        with pytest.raises(StopIteration) as stopped:
            coroutine.throw(KeyError())
        return int(stopped.value.value)

    assert asyncio.run(f()) == 2
    assert asyncio.run(caught()) == 7


def test_retried_coroutine_that_is_cancelled_is_not_tried_again(waits: list[float]) -> None:
    begun = 0

    @retry(on=transient)
    async def forever() -> None:
        nonlocal begun
        begun += 1
        await asyncio.sleep(3600)

    async def run() -> None:
        task = asyncio.create_task(forever())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(run())
    assert (begun, waits) == (1, [])


def test_retried_attempt_that_takes_too_long_is_cancelled_and_tried_again(waits: list[float]) -> None:
    cancelled = 0

    @retry(on=KeyError, attempt_timeout="5ms", retries=2)
    async def slow(answers_at: int) -> int:
        nonlocal cancelled
        if cancelled >= answers_at:
            return cancelled
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            cancelled += 1
            raise
        return -1

    assert asyncio.run(slow(2)) == 2
    cancelled = 0
    with pytest.raises(AttemptTimeout, match=r"attempt_timeout=0\.005 s"):
        asyncio.run(slow(100))
    assert cancelled == 3
    assert asyncio.run(Retry(on=KeyError, attempt_timeout=30).acall(Source().later)) == ((), {})


def test_retried_attempt_keeps_a_time_out_of_its_own(waits: list[float]) -> None:
    f = retry(on=KeyError, attempt_timeout=30)(Source(1, TimeoutError).later)
    with pytest.raises(TimeoutError) as raised:
        asyncio.run(f())
    assert type(raised.value) is TimeoutError


@pytest.mark.skipif(sys.version_info < (3, 11), reason="a task does not tell before that it is being cancelled")
def test_retried_coroutine_that_turns_its_cancellation_into_an_error_is_not_tried_again(waits: list[float]) -> None:
    begun = 0

    @retry(on=transient)
    async def broken() -> None:
        nonlocal begun
        begun += 1
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            raise ConnectionError from None

    async def run(call: Any) -> None:
        task = asyncio.create_task(call)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(ConnectionError) as raised:
            await task
        assert "the task is being cancelled" in raised.value.__notes__[0]  # type: ignore[attr-defined]

    asyncio.run(run(broken()))
    asyncio.run(run(Retry(on=transient).acall(broken.__wrapped__)))  # type: ignore[attr-defined]
    assert (begun, waits) == (2, [])


def test_retried_load_of_a_cache_has_its_attempt_timeout(waits: list[float]) -> None:
    begun = 0
    cache = Cache()

    @cache.cached(ttl=60, key="slow", retry=Retry(on=transient, attempt_timeout="5ms", retries=1))
    async def slow() -> int:
        nonlocal begun
        begun += 1
        if begun == 1:
            await asyncio.sleep(3600)
        return begun

    assert asyncio.run(slow()) == 2
    with pytest.raises(ConfigError, match="nothing can interrupt it"):
        cache.cached(ttl=60, key="plain", retry=Retry(on=transient, attempt_timeout=1))(Source())
