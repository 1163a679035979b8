"""What is kept after its service: never returned, offered to its loader, revived by not_modified(), bounded.

Thread rule: one thread, but for loads that another thread interrupts; the clock is moved.
Refuses to know: deadlines to the nanosecond (tests/cpp), how the web asks its apps.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from stillwarm import Cache, ConfigError, NotFound, Retry, _core, _load, current_load
from stillwarm._verbs import KeyTarget


class Source:
    """A source with a version: its loader loads it only when the cache does not know that version."""

    def __init__(self) -> None:
        self.version = 1
        self.seen: list[Any] = []
        self.sent = 0
        self.error: Exception | None = None

    def __call__(self) -> Any:
        load = current_load()
        self.seen.append(load.kept if load.has_kept else "nothing")
        if self.error is not None:
            raise self.error
        if load.has_kept and load.kept == self.version:
            return load.not_modified()
        self.sent += 1
        return self.version


@pytest.fixture(name="source")
def new_source() -> Source:
    return Source()


def cached(cache: Cache, source: Source, **options: Any) -> Any:
    @cache.cached(**{"ttl": 10, "stale_if_error": 0, "keep": 60, "jitter": 0, "name": "page", **options})
    def page() -> Any:
        return source()

    return page


WAYS = {"plain": {}, "in python": {"tags": ["page"]}, "copied": {"copy": "deep"}, "in the pool": {"hard_timeout": 30}}


@pytest.mark.parametrize("options", WAYS.values(), ids=WAYS)
def test_kept_is_revived_by_a_loader_that_finds_nothing_new(
    warm_cache: Cache, warm_clock: Any, source: Source, options: dict[str, Any]
) -> None:
    page = cached(warm_cache, source, **options)
    assert page() == 1
    warm_clock.move(30)
    assert (page(), page(), source.sent) == (1, 1, 1)
    assert source.seen == ["nothing", 1]
    warm_clock.move(9.99)
    assert page.cache_contains(), "it has a new life"
    warm_clock.move(30)
    source.version = 2
    assert (page(), page(), source.sent) == (2, 2, 2)
    assert page.cache_info().currsize == 1
    warm_clock.move(71)
    assert (page(), source.seen[-1]) == (2, "nothing")


@pytest.mark.parametrize("kind", ["function", "verb"])
async def test_kept_is_revived_by_coroutines(warm_cache: Cache, warm_clock: Any, source: Source, kind: str) -> None:
    async def load() -> Any:
        await asyncio.sleep(0)
        return source()

    options: Any = {"ttl": 10, "stale_if_error": 0, "keep": 60}
    page = warm_cache.cached(**options)(load)
    cache = Cache(**options)

    async def ask() -> Any:
        return await (page() if kind == "function" else cache.aget_or_set("page", load))

    assert await ask() == 1
    warm_clock.move(30)
    assert [await ask(), await ask()] == [1, 1]
    assert (source.seen, source.sent) == (["nothing", 1], 1)


def test_kept_is_absent_for_everybody_but_the_loader(warm_clock: Any) -> None:
    cache = Cache(ttl=10, stale_if_error=5, keep=60, jitter=0)
    assert cache.get_or_set("key", lambda: 1) == 1
    warm_clock.move(12)
    assert cache.ttl_left("key") == pytest.approx(-2)
    warm_clock.move(4)
    hits = cache.stats().hits
    assert cache.get("key", "nothing") == "nothing"
    assert not cache.contains("key")
    assert cache.ttl_left("key") is None
    assert cache.get_many(["key"]) == {}
    assert not cache.touch("key")
    with pytest.raises(KeyError):
        cache.incr("key")
    assert cache.top() == []
    assert (cache.stats().hits, cache.stats().stale_hits, cache.stats().entries) == (hits, 0, 1)
    assert not cache.delete("key"), "there was nothing that could be returned"
    assert cache.stats().entries == 0
    cache.get_or_set("key", lambda: 1)
    warm_clock.move(16)
    assert cache.add("key", 2)
    assert (cache.get("key"), cache.stats().entries) == (2, 1)


def test_kept_leaves_at_its_end_and_is_not_served_for_errors(
    warm_cache: Cache, warm_clock: Any, source: Source
) -> None:
    page = cached(warm_cache, source, stale_if_error=10, stale_while_revalidate=5)
    page()
    source.error = ConnectionError("away")
    warm_clock.move(19)
    assert page() == 1, "failsafe"
    warm_clock.move(1)
    for _ in range(2):
        with pytest.raises(ConnectionError):
            page()
    assert source.seen == ["nothing", 1, 1, 1]
    assert page.cache_info().currsize == 1, "a failed load does not shorten it"
    warm_clock.move(59)
    warm_cache.set("other", 1, 10)
    assert page.cache_info().currsize == 1
    warm_clock.move(2)
    warm_cache.set("other", 1, 10)
    assert page.cache_info().currsize == 0, "nor lengthen it"
    assert warm_cache.stats().expired == 1


def test_kept_not_found_ends_it(warm_cache: Cache, warm_clock: Any, source: Source) -> None:
    page = cached(warm_cache, source, negative_ttl=5)
    page()
    warm_clock.move(20)
    source.error = NotFound("deleted")
    for _ in range(2):
        with pytest.raises(NotFound):
            page()
    warm_clock.move(6)
    source.error = None
    assert page() == 1
    assert source.seen == ["nothing", 1, "nothing"]


INVALIDATIONS: dict[str, Callable[[Any, Any], Any]] = {
    "own": lambda cache, page: page.cache_invalidate(),
    "key": lambda cache, page: cache.invalidate(key=page.cache_key()),
    "pattern": lambda cache, page: cache.invalidate(pattern="pag*"),
    "tag": lambda cache, page: cache.invalidate(tag="page"),
    "type": lambda cache, page: cache.invalidate(type="default"),
    "all": lambda cache, page: cache.invalidate(all=True),
    "clear": lambda cache, page: cache.clear(),
}


@pytest.mark.parametrize("how", INVALIDATIONS.values(), ids=INVALIDATIONS)
@pytest.mark.parametrize("age", [0, 20])
def test_kept_is_not_offered_once_invalidated(
    warm_cache: Cache, warm_clock: Any, source: Source, how: Callable[[Any, Any], Any], age: int
) -> None:
    page = cached(warm_cache, source, tags=["page"])
    page()
    warm_clock.move(age)
    counted = how(warm_cache, page)
    assert counted in ((None, 1, True) if age == 0 else (None, 0, False))
    assert page() == 1
    assert source.seen == ["nothing", "nothing"]


@pytest.mark.parametrize("how", INVALIDATIONS.values(), ids=INVALIDATIONS)
def test_kept_is_not_stored_again_when_invalidated_meanwhile(
    warm_cache: Cache, warm_clock: Any, how: Callable[[Any, Any], Any]
) -> None:
    invalidates = [False]

    @warm_cache.cached(ttl=10, stale_if_error=0, keep=60, tags=["page"], name="page")
    def page() -> Any:
        load = current_load()
        if not invalidates[0]:
            return "new"
        offered = load.kept
        how(warm_cache, page)
        assert load.kept == offered, "what was offered stays, so that not_modified() can be answered"
        return load.not_modified()

    page()
    warm_clock.move(20)
    invalidates[0] = True
    assert page() == "new", "those who wait get it"
    assert not page.cache_contains()
    assert (warm_cache.stats().lost_fills, warm_cache.stats().entries) == (1, 0)


def test_kept_is_offered_while_it_may_still_be_served(warm_cache: Cache, warm_clock: Any, source: Source) -> None:
    page = cached(warm_cache, source, keep=0, stale_if_error=10)
    page()
    assert page.refresh() == 1
    warm_clock.move(15)
    assert page() == 1
    page.cache_invalidate(stale=True)
    assert page() == 1
    assert (source.seen, source.sent) == (["nothing", 1, 1, 1], 1)


def test_kept_may_be_none_and_not_modified_needs_it(warm_cache: Cache, warm_clock: Any) -> None:
    seen: list[Any] = []

    @warm_cache.cached(ttl=10, stale_if_error=0, keep=60, name="f")
    def f(x: int) -> Any:
        seen.append((current_load().has_kept, current_load().kept))
        if x == 1:
            return current_load().not_modified() if seen[-1][0] else None
        return current_load().not_modified()

    f(1)
    warm_clock.move(20)
    f(1)
    assert seen == [(False, None), (True, None)]
    with pytest.raises(RuntimeError, match=r"no previous value of f:2\b"):
        f(2)
    assert warm_cache.stats().flights == 0
    off = Cache(ttl=60, enabled=False)
    with pytest.raises(RuntimeError, match="no previous value of key"):
        off.get_or_set("key", lambda: current_load().not_modified())


def test_kept_is_stored_whatever_the_loader_returns_then(warm_cache: Cache, warm_clock: Any) -> None:
    @warm_cache.cached(ttl=10, stale_if_error=0, keep=60)
    def page() -> Any:
        load = current_load()
        if load.has_kept:
            load.ttl = 30
            load.not_modified()
            return "forgotten"
        return "first"

    page()
    warm_clock.move(20)
    assert page() == "first"
    warm_clock.move(29)
    assert page() == "first"
    assert page.cache_contains(), "it lives as long as its loader said"


def test_kept_what_a_failed_attempt_said_is_forgotten(warm_cache: Cache, warm_clock: Any) -> None:
    attempts: list[int] = []

    @warm_cache.cached(ttl=10, stale_if_error=0, keep=60, retry=Retry(on=OSError, retries=2, base=0, jitter=0))
    def page() -> Any:
        attempts.append(1)
        if len(attempts) == 2:
            current_load().not_modified()
            current_load().skip_store()
            raise OSError("then the line broke")
        return len(attempts)

    assert page() == 1
    warm_clock.move(20)
    assert (page(), page()) == (3, 3)


def test_kept_is_a_copy_where_values_are(warm_cache: Cache, warm_clock: Any) -> None:
    @warm_cache.cached(ttl=10, stale_if_error=0, keep=60, copy="deep")
    def page() -> Any:
        load = current_load()
        if not load.has_kept:
            return [1]
        load.kept.append(2)
        raise ConnectionError("away")

    page()
    warm_clock.move(20)
    for _ in range(2):
        with pytest.raises(ConnectionError):
            page()
    target = _load.Target(page, (), None)
    step, _, flight = target.begin(True)
    assert step == _load.LEAD
    assert _core.kept(flight) == [1]
    _load.finish(flight, _load.ABANDONED, None)


def test_kept_serves_targets_that_are_no_functions(warm_clock: Any) -> None:
    cache = Cache(ttl=10, stale_if_error=0, keep=60, jitter=0)
    seen: list[Any] = []

    class Route(KeyTarget):
        __slots__ = ()

        def load(self) -> Any:
            seen.append(current_load().kept)
            return current_load().not_modified() if current_load().has_kept else "page"

    def ask() -> Any:
        return _load.run(Route(cache, "/", lambda: None, cache._direct_settings(10)))

    assert ask() == "page"
    warm_clock.move(20)
    assert (ask(), ask()) == ("page", "page")
    assert _load.reload(Route(cache, "/", lambda: None, cache._direct_settings(10))) == "page"
    assert seen == [None, "page", "page"]


def test_kept_makes_room_like_everything_else(warm_clock: Any) -> None:
    cache = Cache(max_entries=50, max_bytes=None, ttl=10, stale_if_error=0, keep="1d")
    for i in range(50):
        cache.get_or_set(f"old{i}", lambda: 1)
    warm_clock.move(20)
    for _ in range(10):
        for i in range(50):
            cache.get_or_set(f"new{i}", lambda: 1)
    assert cache.stats().entries == 50
    assert sum(cache.contains(f"new{i}") for i in range(50)) >= 40


def test_kept_two_loads_at_once_agree(warm_cache: Cache, warm_clock: Any) -> None:
    running, go_on = threading.Event(), threading.Event()

    @warm_cache.cached(ttl=10, stale_if_error=0, keep=60)
    def page() -> Any:
        if not current_load().has_kept:
            return object()
        running.set()
        assert go_on.wait(10)
        return current_load().not_modified()

    first = page()
    warm_clock.move(20)
    results: list[Any] = []
    threads = [threading.Thread(target=lambda: results.append(page())) for _ in range(3)]
    threads[0].start()
    assert running.wait(10)
    for thread in threads[1:]:
        thread.start()
    while warm_cache.stats().joined < 2:
        threading.Event().wait(0.001)
    go_on.set()
    for thread in threads:
        thread.join(10)
    assert results == [first] * 3
    assert page() is first


def test_kept_options_are_checked_and_shown(warm_cache: Cache) -> None:
    assert warm_cache.cached(ttl=1, keep="1h")(lambda: 1).cache_parameters()["keep"] == 3600
    assert warm_cache.cached(ttl=1)(lambda: 1).cache_parameters()["keep"] == 0
    for keep in (-1, "soon", True):
        with pytest.raises(ConfigError, match="keep="):
            warm_cache.cached(ttl=1, keep=keep)
