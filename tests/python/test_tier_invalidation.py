"""Invalidation across processes through each tier: heard by the others, never undone by a load that was running.

Thread rule: threads are held by gates; two caches in one process stand for two processes, and children are real ones.
Refuses to know: transactions of the app (test_tier_transactions.py).
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from fleet_child import Child
from stillwarm import _core, _tier_invalidation
from tiers import PATIENCE, Counted, Ground, eventually, function

INTENTS: list[dict[str, Any]] = [
    {"key": "f:'k'"},
    {"type": "default"},
    {"tag": "t"},
    {"pattern": "f:*"},
    {"all": True},
]
NAMES = ["key", "type", "tag", "pattern", "all"]


@pytest.fixture
def ground(each_ground: Ground) -> Ground:
    return each_ground


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(20) as pool:
        yield pool


# --------------------------------------------------------------------------------------------------------- is heard


@pytest.mark.parametrize("intent", INTENTS, ids=NAMES)
def test_invalidation_is_heard_by_other_processes(ground: Ground, intent: dict[str, Any]) -> None:
    source = Counted()
    f = function(ground.cache(), source, tags=lambda key: [f"tag:{key}"])  # as the child's: either may load it again
    with Child(ground) as child:
        assert child.do("f", "k") == "child:k#1"
        eventually(ground.stored)
        assert f("k") == "child:k#1"
        what = {"tag": "tag:k"} if "tag" in intent else intent
        ground.caches[0].invalidate(**what)
        eventually(lambda: child.do("get_many", ["x"]) == {} and child.do("f", "k") != "child:k#1")
        assert f("k") != "child:k#1"
        child.do("invalidate", **what)
        assert ground.caches[0].confirm()
        before = source.total
        value = f("k")
        assert source.total == before + 1 or value.startswith("child:k#")


def test_invalidation_travels_by_message(ground: Ground) -> None:
    """With a lag of an hour nobody polls: what is heard was told."""
    a, b = (ground.cache(max_lag="1h") for _ in range(2))
    a.set("k", 1, ttl=100)
    assert b.get("k") == 1
    eventually(lambda: b.stats().tier["linked"] and a.stats().tier["linked"])
    a.set("k", 2, ttl=100)
    eventually(lambda: b.get("k") == 2)
    a.delete("k")
    eventually(lambda: b.get("k") is None)
    assert b.stats().tier["heard"] > 0


def test_invalidation_is_heard_without_messages_within_max_lag(ground: Ground, warm_clock: Any) -> None:
    """The others' clocks stand still until max_lag is over; then what they have is asked about."""
    a, b = (ground.cache(max_lag="1s") for _ in range(2))
    source = Counted()
    f, g = function(a, source), function(b, source)
    f()
    ground.written()
    assert (g(), g()) == ("k#1", "k#1")
    ground.mark_type()
    warm_clock.move(1)
    assert g() == "k#2"


def test_invalidation_is_heard_after_a_clock_that_was_moved_is_back(ground: Ground) -> None:
    """As after a test: what the moved clock trusted is asked about, and what was heard is not heard again."""
    a, b = ground.cache(), ground.cache()
    source = Counted()
    f, g = function(a, source, ttl=10_000), function(b, source, ttl=10_000)
    f()
    ground.written()
    _core.clock_set(_core.clock_now() + 600 * 10**9)
    assert (g(), g()) == ("k#1", "k#1")
    assert b.confirm()
    _core.clock_set(0)
    ground.mark_type()
    eventually(lambda: g() == "k#2")
    assert b._tier is not None
    core = b._tier.core
    polls = core.health()["polls"]
    eventually(lambda: core.health()["polls"] > polls + 2)
    assert core.trusted_until() < _core.clock_now() + 10**10
    assert (g(), source.total) == ("k#2", 2)


def test_invalidation_is_heard_although_listeners_are_cut(ground: Ground) -> None:
    a, b = (ground.cache() for _ in range(2))
    for value in range(5):
        a.set("k", value, ttl=100)
        assert eventually(lambda value=value: b.get("k") == value)
        ground.cut_listeners()
        a.invalidate(key="k")
        eventually(lambda: b.get("k") is None)
    assert a.stats().tier["reconnects"] + b.stats().tier["reconnects"] > 0


def test_invalidation_in_order_of_a_set_and_another(ground: Ground) -> None:
    """B's set comes to A between the tier's answer to A's own set and A's memory: the tier has B's."""
    a, b = ground.cache(), ground.cache()
    assert a.get("k") is None
    assert a._tier is not None
    run = a._tier.run
    between = []

    def slowly(request: Any) -> Any:
        error = run(request)
        if type(request).__name__ == "Request" and not between:
            between.append(True)
            b.set("k", "B", ttl=100)
            assert a.confirm()
        return error

    a._tier.run = slowly  # type: ignore[method-assign]
    a.set("k", "A", ttl=100)
    del a._tier.run
    assert b.get("k") == "B"
    assert a.get("k") == "B"


def test_invalidation_while_a_set_is_on_its_way(ground: Ground) -> None:
    a = ground.cache()
    assert a.get("k") is None
    assert a._tier is not None
    run, between = a._tier.run, []

    def slowly(request: Any) -> Any:
        error = run(request)
        if not between:
            between.append(True)
            a.invalidate(tag="t")
        return error

    a._tier.run = slowly  # type: ignore[method-assign]
    a.set("k", "A", ttl=100, tags=["t"])
    del a._tier.run
    assert a.get("k") is None


@pytest.mark.parametrize("verb", ["touch", "incr"])
@pytest.mark.parametrize("intent", [{"tag": "t"}, {"all": True}, {"type": "default"}, {"pattern": "*"}, {"key": "k"}])
def test_invalidation_beside_touch_and_incr_is_not_undone(ground: Ground, verb: str, intent: dict[str, Any]) -> None:
    """They read and write what they read: an invalidation in between counts."""
    a, b = ground.cache(), ground.cache()
    a.set("k", 1, ttl=100, tags=["t"])
    assert a._tier is not None
    run, between = a._tier.run, []

    def slowly(request: Any) -> Any:
        error = run(request)
        if not between:
            between.append(True)
            b.invalidate(**intent)
        return error

    a._tier.run = slowly  # type: ignore[method-assign]
    if verb == "touch":
        assert a.touch("k", 100) is False
    else:
        with pytest.raises(KeyError):
            a.incr("k")
    del a._tier.run
    a.confirm()
    assert (a.get("k"), b.get("k"), ground.cache().get("k")) == (None, None, None)


@pytest.mark.parametrize("verb", ["touch", "incr"])
@pytest.mark.parametrize("intent", [{"tag": "t"}, {"all": True}, {"type": "default"}, {"pattern": "*"}, {"key": "k"}])
def test_invalidation_softly_beside_touch_and_incr_is_not_undone(
    ground: Ground, verb: str, intent: dict[str, Any]
) -> None:
    a, b = ground.cache(), ground.cache()
    a.set("k", 1, ttl=100, tags=["t"])
    assert a._tier is not None
    run, between = a._tier.run, []

    def slowly(request: Any) -> Any:
        error = run(request)
        if not between:
            between.append(True)
            b.invalidate(**intent, stale=True)
        return error

    a._tier.run = slowly  # type: ignore[method-assign]
    with contextlib.suppress(KeyError):
        a.touch("k", 200) if verb == "touch" else a.incr("k")
    del a._tier.run
    left = ground.cache().ttl_left("k")
    assert left is None or left <= 0


async def test_invalidation_that_is_cancelled_is_done_here_too(ground: Ground) -> None:
    """Whether the tier has it is unknown: memory must not go on with what the tier may not have any more."""
    import asyncio

    a, b = ground.cache(), ground.cache()
    for doing in (lambda: a.ainvalidate(key="k"), lambda: a.adelete("k"), lambda: a.aset("k", 2, ttl=100)):
        a.set("k", 1, ttl=100)
        assert a.get("k") == 1
        task = asyncio.ensure_future(doing())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        ground.written()
        eventually(lambda: a.stats().tier["waiting"] == 0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        eventually(lambda: b.confirm() and a.get("k") == b.get("k"))


def asked(cache: Any) -> bool:
    """Whether a task has a request on its way."""
    return any(loop.futures for loop in cache._tier._loops.values())


async def test_invalidation_that_is_cancelled_while_it_is_under_way(ground: Ground) -> None:
    """The server is held up, so that the write ends after a read that found the value of before."""
    import asyncio

    a = ground.cache(connections=3)  # the write has one, its repetition another
    for doing in (lambda: a.ainvalidate(key="k"), lambda: a.adelete("k"), lambda: a.aset("k", 2, ttl=100)):
        a.set("k", 1, ttl=100)
        ground.written()
        with ground.writes_held() as waits:
            task = asyncio.ensure_future(doing())
            while not (asked(a) and waits()):  # on Redis a poll may be what waits first
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            if not ground.is_redis:  # there it would wait behind the write
                a.get("k")  # may find the value of before, and keep it
        end = time.monotonic() + PATIENCE
        while a.get("k") == 1:
            assert time.monotonic() < end, "memory goes on with the value of before"
            await asyncio.sleep(0)


def test_invalidation_that_is_interrupted_while_it_is_under_way(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C, while the server is held up: the same for threads."""
    a = ground.cache(max_lag="1h", connections=3)
    tier, asked = a._tier, threading.Event()
    assert tier is not None
    run = tier.run
    monkeypatch.setattr(tier, "run", lambda request: (asked.set(), run(request))[1])
    for doing in (lambda: a.invalidate(key="k"), lambda: a.delete("k"), lambda: a.set("k", 2, ttl=100)):
        a.set("k", 1, ttl=100)
        ground.written()
        asked.clear()
        with ground.writes_held() as waits:

            def interrupt(waits: Any = waits) -> None:
                assert asked.wait(PATIENCE)
                eventually(waits)
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

            interrupting = threading.Thread(target=interrupt)
            interrupting.start()
            with pytest.raises(KeyboardInterrupt):
                doing()
            interrupting.join()
            if not ground.is_redis:  # there it would wait behind the write
                a.get("k")  # may find the value of before, and keep it
        eventually(lambda: a.get("k") != 1, "memory goes on with the value of before")


@pytest.mark.parametrize("done", [True, False])
def test_invalidation_that_is_interrupted_is_finished_later(ground: Ground, done: bool) -> None:
    """Of several names one was under way, or not even that: all that may be missing is owed."""
    a, b = ground.cache(), ground.cache()
    a.set_many({"one": 1, "two": 1}, ttl=100)
    assert b.get_many(["one", "two"]) == {"one": 1, "two": 1}
    tier = a._tier
    assert tier is not None
    steps = _tier_invalidation.invalidate(tier, ["key:one", "key:two"], False)
    first = next(steps)
    assert not done or tier.run(first) is None
    with pytest.raises(KeyboardInterrupt):
        steps.throw(KeyboardInterrupt())
    ground.written()
    assert b.confirm()
    assert b.get_many(["one", "two"]) == {}


# --------------------------------------------------------------------------------------------- a load that is running


@pytest.mark.parametrize("scope", ["process", "fleet"])
@pytest.mark.parametrize("intent", INTENTS, ids=NAMES)
def test_invalidation_of_what_another_process_loads(
    ground: Ground, pool: ThreadPoolExecutor, intent: dict[str, Any], scope: str
) -> None:
    a, b = ground.cache(), ground.cache()
    source = Counted()
    f = function(a, source, tags=["t"], scope=scope)
    source.gate.clear()
    running = pool.submit(f, "k")
    assert source.begun.acquire(timeout=PATIENCE)
    b.invalidate(**intent)
    source.gate.set()
    assert running.result(PATIENCE) == "k#1"  # who waited before gets it
    ground.written()
    assert ground.stored() == 0
    assert function(b, source, tags=["t"])("k") == "k#2"
    ground.written()
    a.confirm()
    assert f("k") == "k#2"
    assert a.stats().lost_fills + a.stats().tier["refused"] > 0


def test_invalidation_a_refused_write_leaves_memory(ground: Ground, pool: ThreadPoolExecutor) -> None:
    """Even where this process hears of nothing: its own write tells it."""
    a = ground.cache(max_lag="1h")
    source = Counted()
    f = function(a, source)
    f("x")
    source.gate.clear()
    running = pool.submit(f, "k")
    assert source.begun.acquire(timeout=PATIENCE)
    assert source.begun.acquire(timeout=PATIENCE)
    ground.mark_type()
    source.gate.set()
    assert running.result(PATIENCE) == "k#1"
    ground.written()
    assert a.stats().tier["refused"] == 1
    assert f("k") == "k#2"


def test_invalidation_of_a_key_that_is_too_long_to_read(ground: Ground, pool: ThreadPoolExecutor) -> None:
    a, b = ground.cache(), ground.cache()
    long = "x" * 500
    a.set(long, 1, ttl=100)
    assert b.get(long) == 1
    a.set(long, 2, ttl=100)
    assert b.confirm()
    assert b.get(long) == 2
    source = Counted()
    source.value = lambda key: source.calls[key]
    f, g = (cache.cached(ttl=100, name="f", key="{key}")(lambda key: source(key)) for cache in (a, b))
    assert f(long) == 1
    ground.written()
    assert g(long) == 1
    f.cache_invalidate(long)
    assert b.confirm()
    assert g(long) == 2


def test_invalidation_under_fire(ground: Ground) -> None:
    """What a get after an invalidation returned brings is never older: three caches, loads all the time."""
    version = [0]
    functions = [function(ground.cache(), lambda key: version[0], tags=["t"]) for _ in range(3)]
    over = threading.Event()

    def load(f: Any) -> None:
        while not over.is_set():
            f("k")

    with ThreadPoolExecutor(6) as pool:
        loads = [pool.submit(load, f) for f in functions for _ in range(2)]
        try:
            for n in range(1, 60):
                version[0] = n
                cache = ground.caches[n % 3]
                cache.invalidate(**({"tag": "t"} if n % 2 else {"key": "f:'k'"}))
                assert functions[n % 3]("k") == n
                other = ground.caches[(n + 1) % 3]
                assert other.confirm()
                assert functions[(n + 1) % 3]("k") == n
        finally:
            over.set()
        for future in loads:
            future.result(PATIENCE)
