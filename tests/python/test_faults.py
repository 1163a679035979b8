"""Faults in one process: fork, exit, Ctrl-C, cancellation, recursion, hostile keys and values, no memory, leaks.

Thread rule: what may hang or end the process runs in a child under a watchdog; the rest waits for events, not time.
Refuses to know: figures. tests/python/trust.py runs the long versions and holds them against the limits.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from reliability import children, naive
from reliability.leaks import WORKLOADS
from stillwarm import Cache, LoadTimeout, RecursiveLoadError, _load

EXITS = ["loads", "followers", "refreshes", "many-caches", "tasks", "comparisons", "finalizers"]
REENTRY = [
    "special_methods_raise",
    "special_methods_come_back",
    "values_come_back",
    "collector_in_every_operation",
    "comparisons_wait",
]


@pytest.fixture(name="cache")
def fresh_cache(monkeypatch: pytest.MonkeyPatch) -> Cache:
    monkeypatch.setattr(_load, "FOLLOWER_LIMIT", 8.0)  # a hang shows as LoadTimeout
    return Cache(ttl=60)


# --- fork, exit, Ctrl-C


@pytest.mark.forks
def test_faults_a_child_after_fork_works() -> None:
    ended = children.run("forks", 60)
    assert ended.ok, ended
    assert "stuck or failed: 0" in ended.output, ended


@pytest.mark.forks
def test_faults_a_fork_with_a_plain_lock_is_seen_stuck() -> None:
    ended = children.run("forks", 5, "naive")
    assert ended.ok, ended
    assert "stuck or failed: 0" not in ended.output, ended


@pytest.mark.parametrize("how", EXITS)
def test_faults_exit_with_work_in_flight(how: str) -> None:
    ended = children.run("exits", how)
    assert ended.ok, ended
    assert ended.errors == ""


@pytest.mark.parametrize("who", ["leader", "follower"])
def test_faults_ctrl_c_reaches_a_caller_that_loads_or_waits(who: str) -> None:
    ended = children.run("interrupts", who)
    assert ended.ok, ended
    assert ended.output.count("took") == 3


def test_faults_ctrl_c_anywhere_leaves_no_key_stuck() -> None:
    ended = children.run("interrupts", "everywhere", watchdog=120)
    assert ended.ok, ended


# --- hostile keys and values, no memory, leaks


@pytest.mark.parametrize("part", REENTRY)
def test_faults_special_methods_may_do_anything(part: str) -> None:
    ended = children.run("reentry", part, watchdog=120)
    assert ended.ok, ended


def test_faults_each_allocation_may_fail() -> None:
    pytest.importorskip("_testcapi", reason="this interpreter was built without its test module")
    ended = children.run("nomemory", watchdog=120)
    assert ended.ok, ended


@pytest.mark.parametrize("workload", [name for name in WORKLOADS if name != "functions"])
def test_faults_nothing_leaks(workload: str) -> None:
    ended = children.run("leaks", 100_000, workload, watchdog=120)
    assert ended.ok, ended
    assert float(ended.output.split()[1]) < 8, ended  # a leak of one object is 32 and more; the trust run is stricter


# --- recursion


def test_faults_recursion_own_key(cache: Cache) -> None:
    for options in ({}, {"tags": ["a"]}, {"hard_timeout": 5}):
        asked: list[int] = []

        @cache.cached(name=f"own{len(options)}{options}", **options)
        def own(key: int, asked: list[int] = asked) -> int:
            return own(key)  # the function of this turn

        with pytest.raises(RecursiveLoadError):
            own(1)
    assert cache.stats().flights == 0


def test_faults_recursion_by_way_of_another_key(cache: Cache) -> None:
    @cache.cached
    def a(key: int) -> int:
        return b(key)

    @cache.cached(tags=["b"])
    def b(key: int) -> int:
        return cache.get_or_set("c", lambda: a(key))

    for ask in (a, b):
        with pytest.raises(RecursiveLoadError):
            ask(1)
    assert cache.stats().flights == 0


def test_faults_recursion_across_two_threads(cache: Cache) -> None:
    for _ in range(20):
        both = threading.Barrier(2)
        errors: list[BaseException] = []

        def load(own: str, other: str, both: threading.Barrier = both) -> str:
            both.wait(10)
            return cache.get_or_set(other, lambda: load(other, own))

        def ask(own: str, other: str, errors: list[BaseException] = errors) -> None:
            try:
                cache.get_or_set(own, lambda: load(own, other))
            except Exception as error:
                errors.append(error)

        threads = [threading.Thread(target=ask, args=pair) for pair in (("a", "b"), ("b", "a"))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors
        assert not [e for e in errors if isinstance(e, LoadTimeout)], "they waited for each other"
        cache.clear()


async def test_faults_recursion_through_gather_and_tasks(cache: Cache) -> None:
    @cache.cached
    async def a(key: int) -> Any:
        return await asyncio.gather(b(key), asyncio.create_task(c(key)))

    @cache.cached
    async def b(key: int) -> Any:
        await asyncio.sleep(0)
        return await a(key)

    @cache.cached
    async def c(key: int) -> int:
        return key

    with pytest.raises(RecursiveLoadError):
        await asyncio.wait_for(a(1), 5)
    assert await c(1) == 1


async def test_faults_recursion_sync_within_async(cache: Cache) -> None:
    @cache.cached
    async def outer(key: int) -> Any:
        return inner(key)

    @cache.cached
    def inner(key: int) -> Any:
        return cache.get_or_set("direct", lambda: inner(key))

    with pytest.raises(RecursiveLoadError):
        await asyncio.wait_for(outer(1), 5)


def test_faults_recursion_async_within_sync(cache: Cache) -> None:
    @cache.cached
    def outer(key: int) -> Any:
        return asyncio.run(inner(key))

    @cache.cached
    async def inner(key: int) -> Any:
        return outer(key)

    with pytest.raises(RecursiveLoadError):
        outer(1)
    assert cache.stats().flights == 0


def test_faults_a_hook_that_asks_for_the_key_being_missed(cache: Cache) -> None:
    @cache.cached
    def load(key: int) -> int:
        return key

    asked: list[object] = []

    def hook(event: object) -> None:
        if not asked:
            asked.append(event)
            with pytest.raises(RecursiveLoadError):
                load(1)
            asked.append("told")

    cache.subscribe(hook)
    assert load(1) == 1
    assert asked[1:] == ["told"]


# --- the mistakes of others


WAYS: dict[str, Callable[[Cache, Any], object]] = {
    "key": lambda cache, f: f.cache_invalidate(1),
    "text": lambda cache, f: cache.invalidate(key=f.cache_key(1)),
    "tag": lambda cache, f: cache.invalidate(tag="a"),
    "type": lambda cache, f: cache.invalidate(type="numbers"),
    "pattern": lambda cache, f: cache.invalidate(pattern="*:1"),
    "all": lambda cache, f: cache.invalidate(all=True),
    "clear": lambda cache, f: cache.clear(),
    "cache_clear": lambda cache, f: f.cache_clear(),
}


def check_after(function: Any, way: str, results: list[int], new: int) -> None:
    assert results == [0], "who asked before the invalidation gets what was loaded"
    assert new == 1, f"{way}: the value of a load that was invalidated was stored"


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("tags", [True, False])
def test_faults_a_load_that_runs_during_an_invalidation_is_not_stored(cache: Cache, way: str, tags: bool) -> None:
    cache.define("numbers")
    begun, go_on = threading.Event(), threading.Event()
    source = [0]

    def load(key: int) -> int:
        value = source[0]
        if value == 0:
            begun.set()
            assert go_on.wait(10)
        return value

    function = cache.cached("numbers", name="f", tags=["a"] if tags or way == "tag" else [])(load)
    results: list[int] = []
    thread = threading.Thread(target=lambda: results.append(function(1)))
    thread.start()
    assert begun.wait(10)
    source[0] = 1
    WAYS[way](cache, function)
    during = function(1)  # starts afterwards: it must not join the old load
    assert during == 1
    go_on.set()
    thread.join(10)
    check_after(function, way, results, function(1))


@pytest.mark.parametrize("way", WAYS)
async def test_faults_a_load_that_runs_during_an_invalidation_is_not_stored_async(cache: Cache, way: str) -> None:
    cache.define("numbers")
    begun, go_on = asyncio.Event(), asyncio.Event()
    source = [0]

    async def load(key: int) -> int:
        value = source[0]
        if value == 0:
            begun.set()
            await go_on.wait()
        return value

    function = cache.cached("numbers", name="f", tags=["a"])(load)
    task = asyncio.ensure_future(function(1))
    await begun.wait()
    source[0] = 1
    WAYS[way](cache, function)
    assert await asyncio.wait_for(function(1), 5) == 1
    go_on.set()
    check_after(function, way, [await task], await function(1))


@pytest.mark.parametrize("way", ["set", "delete", "add", "incr"])
def test_faults_a_load_that_runs_during_a_write_of_its_key_is_not_stored(cache: Cache, way: str) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def load() -> int:
        begun.set()
        assert go_on.wait(10)
        return 0

    results: list[int] = []
    thread = threading.Thread(target=lambda: results.append(cache.get_or_set("key", load)))
    thread.start()
    assert begun.wait(10)
    if way == "delete":
        cache.delete("key")
    elif way == "incr":
        cache.set("key", 6)
        cache.incr("key")
    else:
        getattr(cache, way)("key", 7)
    go_on.set()
    thread.join(10)
    assert results == [0]
    assert cache.get("key") == (None if way == "delete" else 7)


def test_faults_ten_failing_callers_make_one_call(cache: Cache) -> None:
    calls: list[int] = []

    @cache.cached
    def fail(key: int) -> int:
        calls.append(key)
        while cache.stats().joined < 9:
            threading.Event().wait(0.001)
        raise ValueError("once")

    errors: list[ValueError] = []

    def ask() -> None:
        with pytest.raises(ValueError, match="once") as caught:
            fail(1)
        errors.append(caught.value)

    threads = [threading.Thread(target=ask) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(errors) == 10
    assert calls == [1]


def test_faults_after_an_exception_the_key_is_not_locked(cache: Cache) -> None:
    attempts: list[int] = []

    def load(key: int) -> int:
        attempts.append(key)
        if len(attempts) % 2:
            raise ValueError(key)
        return key

    for function in (cache.cached(load), cache.cached(tags=["a"])(load)):
        with pytest.raises(ValueError, match="1"):
            function(1)
        assert function(1) == 1

    control = naive.LocksForEver(load)
    with pytest.raises(ValueError, match="1"):
        control(1)
    with pytest.raises(TimeoutError):
        control(1, patience=0.01)


def test_faults_an_error_is_never_stored_and_none_is(cache: Cache) -> None:
    calls: list[object] = []

    @cache.cached
    def load(key: object) -> None:
        calls.append(key)
        if key == "fail":
            raise ValueError(key)

    assert load(1) is None
    assert load(1) is None
    for _ in range(2):
        with pytest.raises(ValueError, match="fail"):
            load("fail")
    assert calls == [1, "fail", "fail"]
    assert cache.stats().entries == 1
    cache.clear()
    assert cache.stats().entries == cache.stats().bytes == 0
