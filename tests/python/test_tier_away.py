"""A tier that does not answer: memory goes on, and the verbs keep their word in this process.

Thread rule: one thread; the proxy lets nothing through; the clock is moved.
Refuses to know: which faults there are (test_tier_faults*.py).
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from chaos import ChaosProxy
from stillwarm import Cache
from stillwarm.errors import TierError
from tiers import PATIENCE, Counted, Ground, eventually, function, with_port


@pytest.fixture
def ground(each_ground: Ground) -> Ground:
    return each_ground


@pytest.fixture
def proxy(ground: Ground, chaos: Callable[..., ChaosProxy]) -> ChaosProxy:
    return chaos(int(str(ground.url).rpartition(":")[2].partition("/")[0]))


def through(ground: Ground, proxy: ChaosProxy, **options: Any) -> Cache:
    cache = Cache(with_port(str(ground.url), proxy.port), namespace=ground.namespace, jitter=0.0, **options)
    ground.caches.append(cache)
    return cache


def away(ground: Ground, proxy: ChaosProxy) -> None:
    proxy.behave(refuse=True)
    proxy.end_all()


@pytest.fixture(autouse=True)
def _close_before_the_proxy(ground: Ground, proxy: ChaosProxy) -> Iterator[None]:
    yield
    for cache in ground.caches:
        cache.close()
    ground.caches.clear()


async def test_away_a_get_has_what_memory_has(ground: Ground, proxy: ChaosProxy, warm_clock: Any) -> None:
    cache, strict = through(ground, proxy), through(ground, proxy, strict=True)
    cache.set("k", 1, ttl=100)
    assert strict.get("k") == 1
    away(ground, proxy)
    warm_clock.move(2)  # nothing is trusted any more
    for _ in range(2):
        assert cache.get("k") == 1
        assert await cache.aget("k") == 1
        assert cache.get_many(["k", "l"]) == {"k": 1}
        assert cache.contains("k")
        assert cache.get("l", 5) == 5
        assert strict.get("k") is None
        assert strict.get_many(["k"]) == {}
    warm_clock.move(100)
    assert cache.get("k") is None


async def test_away_an_add_is_once_in_this_process(ground: Ground, proxy: ChaosProxy) -> None:
    cache = through(ground, proxy)
    assert cache.get("k") is None
    away(ground, proxy)
    assert cache.add("k", 1, ttl=100) is True
    assert cache.add("k", 2, ttl=100) is False
    assert await cache.aadd("k", 3, ttl=100) is False
    assert cache.get("k") == 1


def test_away_a_strict_verb_raises_after_memory_has_it(ground: Ground, proxy: ChaosProxy) -> None:
    cache = through(ground, proxy, strict=True)
    cache.set("k", 1, ttl=100)
    away(ground, proxy)
    for verb in (lambda: cache.set("k", 2, ttl=100), lambda: cache.delete("k"), lambda: cache.invalidate(all=True)):
        with pytest.raises(TierError):
            verb()
    assert cache.get("k") is None


def test_away_what_is_owed_is_done_when_it_is_back(ground: Ground, proxy: ChaosProxy) -> None:
    cache, other = through(ground, proxy), ground.cache()
    source = Counted()
    f = function(cache, source)
    f("k")
    cache.set("d", 1, ttl=100)
    eventually(lambda: ground.stored() == 2)
    assert cache.confirm()
    away(ground, proxy)
    cache.invalidate(key="f:'k'")
    cache.set("d", 2, ttl=100)
    assert f("k") == "k#2"
    proxy.behave()
    eventually(lambda: other.confirm() and other.get("d") == 2)
    ground.written()
    assert function(other, source)("k") in ("k#2", "k#3")
    assert cache.get("d") == 2


def test_away_is_not_what_a_first_load_finds(ground: Ground, warm_clock: Any) -> None:
    """Before the first poll memory is not trusted, and yet the tier answers: what is stale is refreshed at once."""
    source = Counted()
    f = function(ground.cache(), source, stale_while_revalidate=50, tags=["t"])
    assert f("k") == "k#1"
    ground.caches[0].invalidate(tag="t", stale=True)
    f("k")
    eventually(lambda: source.total == 2)


def test_away_increments_of_many_threads_all_count(ground: Ground, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)
    caches = [ground.cache() for _ in range(2)]
    caches[0].set("n", 0, ttl=100)
    start = threading.Barrier(16)

    def work(i: int) -> None:
        start.wait(PATIENCE)
        for _ in range(10):
            caches[i % 2].incr("n")

    with ThreadPoolExecutor(16) as pool:
        for future in [pool.submit(work, i) for i in range(16)]:
            future.result(PATIENCE)
    assert ground.cache().get("n") == 160


@pytest.mark.parametrize("way", ["call", "await", "verb"])
def test_away_no_call_waits_for_the_tier_twice(ground: Ground, proxy: ChaosProxy, way: str) -> None:
    """Memory is to be confirmed, and the server has just stopped to answer: the load that follows asks no more."""
    cache = through(ground, proxy, ttl=100, timeout="1s", connect_timeout="20s")
    cache.check()
    asked: list[int] = []
    tier = cache._tier
    assert tier is not None

    @cache.cached(name="f")
    def f() -> int:
        return 1

    @cache.cached(name="g")
    async def g() -> int:
        return 1

    def ask() -> Any:
        if way == "verb":
            return cache.get("k")
        return f() if way == "call" else asyncio.run(_awaited(g))

    cache.set("k", 1)
    assert ask() == 1
    assert tier.core.drain(int(PATIENCE * 1e9))
    proxy.behave(frozen=True)
    tier.core.lost()
    original = type(tier).noted

    def noted(self: Any, error: Any, request: Any) -> Any:
        asked.append(request.kind)
        return original(self, error, request)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(tier), "noted", noted)
        assert ask() == 1
    assert len([kind for kind in asked if kind in (0, 3)]) == 1, "look-ups and polls"


async def _awaited(function: Any) -> Any:
    return await function()
