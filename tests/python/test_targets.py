"""What a kind of target may decide about its loads: in whose task they run, how a refresh starts, and loads by force.

Thread rule: each test has a loop of its own where it needs one; events decide the order.
Refuses to know: decorated functions, but that `refresh` is a load by force.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any, ClassVar

import pytest

from stillwarm import Cache, NotFound, RecursiveLoadError, _aload, _core, _load
from stillwarm._target import ABANDONED
from stillwarm._verbs import KeyTarget

S = 1_000_000_000


def target(cache: Cache, loader: Callable[[], Any], key: str = "key", kind: type[KeyTarget] = KeyTarget) -> KeyTarget:
    return kind(cache, key, loader, cache._direct_settings(60))


class Inline(KeyTarget):
    __slots__ = ()
    inline: ClassVar[bool] = True


class Kept(KeyTarget):
    """Keeps the refreshes that it is told to start."""

    __slots__ = ()
    started: ClassVar[list[Any]] = []

    def start_refresh(self, flight: Any) -> None:
        self.started.append((self, flight))


class Broken(KeyTarget):
    __slots__ = ()

    def start_refresh(self, flight: Any) -> None:
        raise OSError("no connection")


@pytest.fixture(name="stale")
def stale_cache() -> Any:
    """A cache whose "key" holds a stale 1."""
    _core.clock_set(S)
    cache = Cache(ttl=60, stale_while_revalidate=60)
    _load.run(target(cache, lambda: 1))
    _core.clock_set(62 * S)
    Kept.started.clear()
    yield cache
    _core.clock_set(0)


# --------------------------------------------------------------------------------------------------- loads by force


def test_targets_reload_loads_though_a_fresh_value_is_there() -> None:
    cache = Cache(ttl=60)
    assert _load.run(target(cache, lambda: 1)) == 1
    assert _load.run(target(cache, lambda: 2)) == 1
    assert _load.reload(target(cache, lambda: 3)) == 3
    assert cache.get("key") == 3
    assert (cache.stats().loads, cache.stats().misses) == (2, 2)


def test_targets_reload_leaves_the_value_to_the_others_meanwhile() -> None:
    cache = Cache(ttl=60)
    cache.set("key", 1)
    seen: list[Any] = []

    def loader() -> int:
        seen.extend([cache.get("key"), cache.get_or_set("key", lambda: 5)])
        return 2

    assert _load.reload(target(cache, loader)) == 2
    assert seen == [1, 1]


def test_targets_reload_joins_a_load_that_runs() -> None:
    cache = Cache(ttl=60)
    cache.set("key", 1)
    running, go_on = threading.Event(), threading.Event()
    results: list[Any] = []

    def loader() -> int:
        running.set()
        assert go_on.wait(10)
        return 2

    def again() -> None:
        results.append(_load.reload(target(cache, lambda: pytest.fail("a second load"))))

    first = threading.Thread(target=lambda: results.append(_load.reload(target(cache, loader))))
    first.start()
    assert running.wait(10)
    second = threading.Thread(target=again)
    second.start()
    while cache.stats().joined < 1:
        threading.Event().wait(0.001)
    go_on.set()
    first.join(10)
    second.join(10)
    assert results == [2, 2]


def test_targets_refresh_does_not_join_a_load_that_began_before() -> None:
    cache = Cache(ttl=60)
    running, go_on = threading.Event(), threading.Event()
    source = ["old"]

    @cache.cached
    def read() -> str:
        value = source[0]
        if value == "old":
            running.set()
            assert go_on.wait(10)
        return value

    results: list[str] = []
    first = threading.Thread(target=lambda: results.append(read()))
    first.start()
    assert running.wait(10)
    source[0] = "new"
    assert read.refresh() == "new"
    go_on.set()
    first.join(10)
    assert (results, read()) == (["old"], "new")
    assert cache.stats().lost_fills == 1


def test_targets_who_come_after_an_incr_do_not_join_a_load_from_before_it() -> None:
    cache = Cache(ttl=60)
    cache.set("n", 5)
    _, _, before = _core.begin_key(cache, 0, "n", True, True)
    assert cache.incr("n") == 6
    step, _, after = _core.begin_key(cache, 0, "n", True, True)
    assert (step, after is before) == (_load.LEAD, False)
    for flight in (before, after):
        _load.finish(flight, ABANDONED, None)


def test_targets_a_reload_that_fails_leaves_the_value_and_its_life() -> None:
    cache = Cache(ttl=60)
    cache.set("key", 1)

    def fails(error: Exception) -> Callable[[], Any]:
        def loader() -> Any:
            raise error

        return loader

    before = cache.ttl_left("key")
    assert _load.reload(target(cache, fails(ConnectionError("away")))) == 1
    with pytest.raises(ValueError, match="a bug"):
        _load.reload(target(cache, fails(ValueError("a bug"))))
    assert cache.get("key") == 1
    left = cache.ttl_left("key")
    assert left is not None
    assert before is not None
    assert 59 < left <= before
    with pytest.raises(NotFound):
        _load.reload(target(cache, fails(NotFound("gone"))))
    assert cache.get("key") is None


def test_targets_reload_goes_over_a_remembered_absence(warm_cache: Cache) -> None:
    known: list[int] = []

    @warm_cache.cached(ttl=60, negative_ttl=60)
    def f() -> int:
        if not known:
            raise NotFound("not yet")
        return known[0]

    for _ in range(2):
        with pytest.raises(NotFound):
            f()
    known.append(1)
    with pytest.raises(NotFound):
        f()
    assert (f.refresh(), f()) == (1, 1)


async def test_targets_areload_loads_and_a_plain_loader_does_too() -> None:
    cache = Cache(ttl=60)
    cache.set("key", 1)

    async def loader() -> int:
        await asyncio.sleep(0)
        return 2

    assert await _aload.areload(target(cache, loader)) == 2
    assert await _aload.areload(target(cache, lambda: 3)) == 3
    assert cache.get("key") == 3


async def test_targets_reload_goes_straight_through_a_cache_that_is_off() -> None:
    cache = Cache(ttl=60, enabled=False)
    assert _load.reload(target(cache, lambda: 1)) == 1
    assert await _aload.areload(target(cache, lambda: 2)) == 2


# ------------------------------------------------------------------------------------------ how a refresh is started


def test_targets_start_their_own_refreshes(stale: Cache) -> None:
    assert [_load.run(target(stale, lambda: 2, kind=Kept)) for _ in range(3)] == [1, 1, 1]
    [(mine, flight)] = Kept.started
    assert flight.background
    assert _load.run_load(mine, flight, parent=False) == 2
    assert _load.run(target(stale, lambda: 3, kind=Kept)) == 2


def test_targets_that_abandon_a_refresh_are_asked_again(stale: Cache) -> None:
    for _ in range(2):
        assert _load.run(target(stale, lambda: 2, kind=Kept)) == 1
        _load.finish(Kept.started[-1][1], ABANDONED, None)
    assert len(Kept.started) == 2
    assert stale.stats().flights == 0


def test_targets_whose_refresh_does_not_start_serve_and_are_counted(
    stale: Cache, caplog: pytest.LogCaptureFixture
) -> None:
    assert _load.run(target(stale, lambda: 2, kind=Broken)) == 1
    assert (stale.stats().flights, stale.stats().skipped_refreshes) == (0, 1)
    assert "no connection" in caplog.text
    assert "refresh of key " in caplog.text


async def test_targets_start_their_own_refreshes_in_asyncio(stale: Cache) -> None:
    assert await _aload.run(target(stale, lambda: 2, kind=Kept)) == 1
    [(mine, flight)] = Kept.started
    assert (flight.loop, flight.thread) == (None, 0)
    await _aload.run_load(mine, flight)
    assert stale.get("key") == 2


# ---------------------------------------------------------------------------------------------- loads in their place


async def test_targets_inline_load_in_the_task_of_their_caller() -> None:
    cache = Cache(ttl=60)
    tasks: list[Any] = []

    async def loader() -> int:
        tasks.append(asyncio.current_task())
        await asyncio.sleep(0)
        return 1

    assert await _aload.run(target(cache, loader, kind=Inline)) == 1
    assert tasks == [asyncio.current_task()]
    assert _load.innermost() is None, "the load is over for the caller's context, too"
    assert await _aload.areload(target(cache, loader, kind=Inline)) == 1
    assert len(tasks) == 2


async def test_targets_inline_abandon_their_load_when_cancelled_and_a_follower_leads() -> None:
    cache = Cache(ttl=60)
    running = asyncio.Event()

    async def never() -> int:
        running.set()
        await asyncio.sleep(3600)
        return 1

    async def mine() -> int:
        return 2

    leader = asyncio.create_task(_aload.run(target(cache, never, kind=Inline)))
    await running.wait()
    follower = asyncio.create_task(_aload.run(target(cache, mine, kind=Inline)))
    while cache.stats().joined < 1:
        await asyncio.sleep(0)
    leader.cancel()
    assert await follower == 2
    with pytest.raises(asyncio.CancelledError):
        await leader
    assert (cache.get("key"), cache.stats().flights) == (2, 0)


async def test_targets_inline_raise_what_their_loader_raises_to_all() -> None:
    cache = Cache(ttl=60)
    go_on = asyncio.Event()

    async def loader() -> int:
        await go_on.wait()
        raise ValueError("once")

    calls = [asyncio.create_task(_aload.run(target(cache, loader, kind=Inline))) for _ in range(3)]
    while cache.stats().joined < 2:
        await asyncio.sleep(0)
    go_on.set()
    errors = await asyncio.gather(*calls, return_exceptions=True)
    assert [str(e) for e in errors] == ["once"] * 3
    assert cache.stats().loads == 1


async def test_targets_inline_that_ask_for_each_other_are_told() -> None:
    cache = Cache(ttl=60)

    async def a() -> Any:
        return await _aload.run(target(cache, b, "b", Inline))

    async def b() -> Any:
        return await _aload.run(target(cache, a, "a", Inline))

    with pytest.raises(RecursiveLoadError):
        await _aload.run(target(cache, a, "a", Inline))
    assert cache.stats().flights == 0
    assert _load.innermost() is None


def test_targets_inline_stay_on_their_thread_with_a_timeout() -> None:
    cache = Cache(ttl=60, hard_timeout=10)
    assert _load.run(target(cache, threading.get_ident, "pool")) != threading.get_ident()
    assert _load.run(target(cache, threading.get_ident, "here", Inline)) == threading.get_ident()
    cache.close()
