"""Tasks and the tier: leaders and waiters cancelled, loops closed, two loops, time-outs, late answers.

Thread rule: each test has loops of its own.
Refuses to know: figures; `trust.py --part remote` cancels 10,000 times.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from chaos import ChaosProxy
from outages import DEADLINE, Shared, eventually, forget, is_of, shared, value_of
from reliability import remote
from served import Served

pytestmark = pytest.mark.servers


def coroutine(one: Shared, load: Callable[[str], Any] | None = None) -> Any:
    async def get(key: str) -> Any:
        await asyncio.sleep(0)
        return (load or one.load)(key)

    return one.cache.cached(name="aget")(get)


def test_tier_faults_random_cancels_give_no_wrong_value(shared_server: Served) -> None:
    cancelled, ended, wrong = remote.cancels_run(shared_server, 1_500, seed=7)
    assert wrong == 0
    assert cancelled > 100
    assert ended > 20
    assert asyncio.run(remote.naive_run(300, seed=7)) > 0, "a connection that is used on after a cancel"


async def test_tier_faults_a_cancelled_leader_cancels_nobody_else(url: str, proxy: ChaosProxy) -> None:
    with shared(url) as one:
        get = coroutine(one)
        await get("first")
        proxy.behave(frozen=True)
        leader, *others = [asyncio.ensure_future(get("k")) for _ in range(5)]
        await asyncio.sleep(0.02)  # all of them wait for the tier
        leader.cancel()
        others[0].cancel()
        proxy.behave()
        values = await asyncio.gather(*others[1:])
        assert len(set(values)) == 1
        assert is_of(values[0], "k")
        assert leader.cancelled()
        assert others[0].cancelled()
        assert one.load.calls == ["first", "k"]


async def test_tier_faults_cancelled_at_each_await(url: str) -> None:
    """The leader's call is cancelled after 0, 1, 2... steps of the loop: the key is never stuck."""
    with shared(url) as one:
        get = coroutine(one)
        for steps in range(25):
            task = asyncio.ensure_future(get(f"k{steps}"))
            for _ in range(steps):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            value = await asyncio.wait_for(get(f"k{steps}"), 20)
            assert is_of(value, f"k{steps}")
        assert one.cache._check_invariants()


async def test_tier_faults_tasks_keep_their_deadline(url: str, proxy: ChaosProxy) -> None:
    with shared(url) as one:
        get = coroutine(one)
        await get("first")
        proxy.behave(frozen=True)
        for round_ in range(4):
            begun = time.monotonic()
            values = await asyncio.gather(*(get(f"{round_}-{n}") for n in range(30)))
            assert time.monotonic() - begun < 10 * DEADLINE
            assert all(is_of(value, f"{round_}-{n}") for n, value in enumerate(values))
        proxy.behave()


async def test_tier_faults_the_loop_goes_on_while_the_tier_is_waited_for(url: str, proxy: ChaosProxy) -> None:
    with shared(url) as one:
        await one.cache.aset("a", 1)
        forget(one.cache)
        proxy.behave(frozen=True)
        task = asyncio.ensure_future(one.cache.aget("a", "none"))
        beats = 0
        while not task.done():
            await asyncio.sleep(0.001)
            beats += 1
        assert beats > 10, "the loop was not blocked"
        assert task.result() == "none"
        proxy.behave()


def test_tier_faults_a_loop_that_closes_while_it_waits(url: str, proxy: ChaosProxy) -> None:
    """Its load will never go on: whoever follows leads."""
    with shared(url) as one:
        get = coroutine(one)

        async def begin(keys: list[str]) -> None:
            tasks = [asyncio.ensure_future(get(key)) for key in keys]
            kept.extend(tasks)
            await asyncio.sleep(0.01)

        kept: list[Any] = []
        asyncio.run(get("first"))
        proxy.behave(frozen=True)
        loop = asyncio.new_event_loop()
        try:
            loop.run_until_complete(begin(["a", "b", "c"]))
        finally:
            for task in kept:
                task._log_destroy_pending = False
            loop.close()
        proxy.behave()
        for key in ("a", "b", "c"):
            assert is_of(asyncio.run(asyncio.wait_for(get(key), 20)), key)
        assert one.cache._check_invariants()


def test_tier_faults_two_loops_share_a_tier(url: str) -> None:
    with shared(url) as one:
        get = coroutine(one)
        outcomes: list[Any] = []

        async def use(me: int) -> None:
            for n in range(30):
                key = f"k{n}"
                value = await get(key)
                await one.cache.aset(f"{me}-{n}", value_of(f"{me}-{n}"))
                mine = await one.cache.aget(f"{me}-{n}")
                outcomes.append(is_of(value, key) and is_of(mine, f"{me}-{n}"))
                if n % 10 == 0:
                    forget(one.cache)

        async def many(me: int) -> None:
            await asyncio.gather(*(use(10 * me + n) for n in range(3)))

        threads = [threading.Thread(target=lambda n=n: asyncio.run(many(n))) for n in range(3)]  # type: ignore[misc]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive()
        assert outcomes == [True] * 270


async def test_tier_faults_a_dead_connection_and_tasks(url: str, proxy: ChaosProxy) -> None:
    with shared(url) as one:
        get = coroutine(one)
        for round_, end in enumerate(("fin", "reset", "fin", "reset")):
            keys = [f"{round_}-{n}" for n in range(20)]
            tasks = [asyncio.ensure_future(get(key)) for key in keys]
            await asyncio.sleep(0)
            proxy.end_all(end)  # type: ignore[arg-type]
            assert all(is_of(value, key) for key, value in zip(keys, await asyncio.gather(*tasks), strict=True))
        eventually(one.cache.confirm)


async def test_tier_faults_incr_cancelled_is_applied_once_at_most(url: str) -> None:
    with shared(url) as one:
        await one.cache.aset("n", 0)
        ended = 0
        for n in range(40):
            task = asyncio.ensure_future(one.cache.aincr("n"))
            await asyncio.sleep(0.0005 * (n % 8))
            task.cancel()
            outcome = (await asyncio.gather(task, return_exceptions=True))[0]
            ended += type(outcome) is int
        forget(one.cache)
        await asyncio.sleep(0)
        with shared(url) as other:
            value = other.cache.get("n")
        assert ended <= value <= 40
