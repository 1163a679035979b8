"""scope="fleet": one process loads and the others wait for its value, by leases in the tier, PostgreSQL or Redis.

Thread rule: threads are held by gates and awaited; children speak over pipes. An age is moved in the server.
Refuses to know: how a lease is kept (core/remote/listener).
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from fleet_child import Child
from stillwarm import Cache, LoadTimeout
from tiers import PATIENCE, Counted, Ground, eventually, function


@pytest.fixture
def ground(each_ground: Ground) -> Ground:
    return each_ground


def fleet(cache: Cache, source: Callable[..., Any], **options: Any) -> Any:
    return function(cache, source, scope="fleet", **options)


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(80) as pool:
        yield pool


def held(source: Counted) -> None:
    source.gate.clear()


def value_of(future: Future[Any]) -> Any:
    return future.result(PATIENCE)


def test_fleet_several_caches_and_threads_load_each_key_once(ground: Ground, pool: ThreadPoolExecutor) -> None:
    source = Counted()
    functions = [fleet(ground.cache(), source) for _ in range(4)]
    start = threading.Barrier(48)

    def work(i: int) -> list[Any]:
        start.wait(PATIENCE)
        return [functions[i % 4](key) for key in range(6)]

    results = [value_of(f) for f in [pool.submit(work, i) for i in range(48)]]
    assert results == [[f"{key}#1" for key in range(6)]] * 48
    assert source.calls == dict.fromkeys(range(6), 1)
    eventually(lambda: not ground.leases(), "a lease was not given back")


async def test_fleet_tasks_load_each_key_once(ground: Ground) -> None:
    calls: list[int] = []

    def made(cache: Cache) -> Any:
        @cache.cached(ttl=100, name="f", scope="fleet")
        async def f(key: int) -> str:
            calls.append(key)
            await asyncio.sleep(0)
            return f"v{key}"

        return f

    functions = [made(ground.cache()) for _ in range(3)]
    results = await asyncio.gather(*(f(key) for _ in range(10) for f in functions for key in range(4)))
    assert results == [f"v{key}" for _ in range(30) for key in range(4)]
    assert sorted(calls) == [0, 1, 2, 3]


def test_fleet_a_control_without_it_loads_in_each_process(ground: Ground, pool: ThreadPoolExecutor) -> None:
    source = Counted()
    held(source)
    functions = [function(ground.cache(), source) for _ in range(3)]
    futures = [pool.submit(f) for f in functions]
    for _ in functions:
        assert source.begun.acquire(timeout=PATIENCE)
    source.gate.set()
    for future in futures:
        value_of(future)
    assert source.total == 3


def test_fleet_two_processes_with_threads_load_each_key_once(ground: Ground) -> None:
    with Child(ground, "load") as a, Child(ground, "load") as b:
        for child in (a, b):
            child.heard("ready")
        for child in (a, b):
            child.say("go")
        answers = [child.answer() for child in (a, b)]
    assert answers[0]["values"] == answers[1]["values"]
    for key in range(8):
        assert sum(answer["calls"].get(str(key), 0) for answer in answers) == 1


def test_fleet_a_killed_owner_lets_exactly_one_more_in(ground: Ground, pool: ThreadPoolExecutor) -> None:
    with Child(ground, "hold") as child:
        child.heard("loading")
        source = Counted()
        functions = [fleet(ground.cache(), source) for _ in range(2)]
        futures = [pool.submit(f, "held") for f in functions for _ in range(4)]
        child.kill()
        assert source.total == 0
        eventually(lambda: ground.expire_leases() or source.total, "there is no lease")
        assert {value_of(f) for f in futures} == {"held#1"}
        assert source.total == 1


def test_fleet_losers_with_a_stale_value_return_it(ground: Ground, pool: ThreadPoolExecutor, warm_clock: Any) -> None:
    source = Counted()
    a, b = ground.cache(), ground.cache()
    f, g = fleet(a, source), fleet(b, source)
    assert (f(), g()) == ("k#1", "k#1")
    ground.pass_time(150)  # FAILSAFE: a caller waits for a load
    held(source)
    leader = pool.submit(f)
    assert source.begun.acquire(timeout=PATIENCE)
    assert source.begun.acquire(timeout=PATIENCE)
    assert value_of(pool.submit(g)) == "k#1"
    c = fleet(ground.cache(), source)
    assert value_of(pool.submit(c)) == "k#1", "what the tier has is as good"
    source.gate.set()
    assert value_of(leader) == "k#2"
    assert source.total == 2


def test_fleet_a_hard_timeout_ends_the_wait_for_another(ground: Ground, pool: ThreadPoolExecutor) -> None:
    source, never = Counted(), Counted()
    held(source)
    leader = pool.submit(fleet(ground.cache(), source))
    assert source.begun.acquire(timeout=PATIENCE)
    g = fleet(ground.cache(), never, hard_timeout="200ms")
    with pytest.raises(LoadTimeout):
        g()
    source.gate.set()
    assert value_of(leader) == "k#1"
    eventually(lambda: g.cache_contains() or g() == "k#1")
    assert never.total == 0


async def test_fleet_a_hard_timeout_ends_a_tasks_wait(ground: Ground, pool: ThreadPoolExecutor) -> None:
    source = Counted()
    held(source)
    leader = pool.submit(fleet(ground.cache(), source))
    assert source.begun.acquire(timeout=PATIENCE)

    @ground.cache().cached(ttl=100, name="f", scope="fleet", hard_timeout="200ms")
    async def g(key: str = "k") -> str:
        raise AssertionError("it must not load")

    with pytest.raises(LoadTimeout):
        await g()
    source.gate.set()
    assert await asyncio.wrap_future(leader) == "k#1"


def test_fleet_a_lease_is_given_back_also_after_an_error(ground: Ground) -> None:
    def broken(key: Any) -> Any:
        assert len(ground.leases()) == 1
        raise ZeroDivisionError

    f = fleet(ground.cache(), broken)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            f()
        eventually(lambda: not ground.leases(), "a lease was not given back")


async def test_fleet_a_cancelled_wait_keeps_no_lease(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    """The load is cancelled when its lease is taken, or about to be along with a look-up, and before it runs."""
    from stillwarm import _tier_loads

    cache = ground.cache()

    @cache.cached(ttl=100, name="f", scope="fleet")
    async def f(key: str = "k") -> str:
        return key

    original = _tier_loads.look
    looks = []

    def look(target: Any, reading: Any, whole: bool = False) -> Any:
        looks.append(reading.owner or reading.along)
        if looks[-1] and sum(map(bool, looks)) == 1:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
        return (yield from original(target, reading, whole))

    monkeypatch.setattr(_tier_loads, "look", look)
    caller = asyncio.ensure_future(f())
    while not any(looks):
        await asyncio.sleep(0.005)
    monkeypatch.undo()
    assert await caller == "k"  # a follower leads
    eventually(lambda: not ground.leases(), "a lease was not given back")


def test_fleet_a_lease_is_renewed_while_its_owner_loads(ground: Ground, pool: ThreadPoolExecutor) -> None:
    source = Counted()
    held(source)
    future = pool.submit(fleet(ground.cache(), source))
    assert source.begun.acquire(timeout=PATIENCE)
    ((key, owner, first),) = ground.leases()
    assert key == "default\nf:'k'"
    eventually(lambda: ground.leases()[0][2] > first, "the lease was not renewed")
    assert ground.leases()[0][1] == owner
    source.gate.set()
    assert value_of(future) == "k#1"


def test_fleet_a_refresh_loads_whatever_the_tier_has(ground: Ground) -> None:
    source = Counted()
    f, g = fleet(ground.cache(), source), fleet(ground.cache(), source)
    assert (f(), g()) == ("k#1", "k#1")
    assert g.refresh() == "k#2"
    assert fleet(ground.cache(), Counted())() == "k#2", "the tier has it"


def test_fleet_a_background_refresh_happens_once(ground: Ground, warm_clock: Any) -> None:
    source = Counted()
    functions = [fleet(ground.cache(), source, stale_while_revalidate=100) for _ in range(3)]
    assert {f() for f in functions} == {"k#1"}
    ground.pass_time(110)
    held(source)
    assert {f() for f in functions} == {"k#1"}
    source.gate.set()
    eventually(lambda: all(cache.stats().flights == 0 for cache in ground.caches))
    ground.written()
    eventually(lambda: {f() for f in functions} == {"k#2"})
    assert source.total == 2


def test_fleet_get_many_stores_for_all(ground: Ground) -> None:
    asked: list[list[int]] = []

    def loader_many(keys: list[int]) -> list[int]:
        asked.append(list(keys))
        return [key * 10 for key in keys]

    for _ in range(2):
        f = fleet(ground.cache(), lambda key: key, loader_many=loader_many)
        assert f.get_many([1, 2]) == [10, 20]
        ground.written()
    assert asked == [[1, 2]]
