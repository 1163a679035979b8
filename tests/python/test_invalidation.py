"""Invalidation always wins: in every form, hard and stale, also over a load that is running.

Thread rule: the test's thread invalidates while another thread or task is in the loader, held there by events.
Refuses to know: how marks and fences work (tests/cpp does).
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from stillwarm import Cache, ConfigError

FORMS: dict[str, Callable[[Cache, Any], Any]] = {
    "key": lambda cache, f: cache.invalidate(key=f.cache_key("k")),
    "cache_invalidate": lambda cache, f: f.cache_invalidate("k"),
    "type": lambda cache, f: cache.invalidate(type="product"),
    "tag": lambda cache, f: cache.invalidate(tag="tag:k"),
    "pattern": lambda cache, f: cache.invalidate(pattern="*load*k*"),
    "all": lambda cache, f: cache.invalidate(all=True),
    "clear": lambda cache, f: cache.clear(),
    "cache_clear": lambda cache, f: f.cache_clear(),
}
STALE_FORMS = ("key", "cache_invalidate", "type", "tag", "pattern", "all")


def invalidate_stale(form: str, cache: Cache, f: Any) -> None:
    if form == "cache_invalidate":
        f.cache_invalidate("k", stale=True)
        return
    intent: dict[str, Any] = {
        "key": {"key": f.cache_key("k")},
        "type": {"type": "product"},
        "tag": {"tag": "tag:k"},
        "pattern": {"pattern": "*load*"},
        "all": {"all": True},
    }[form]
    cache.invalidate(**intent, stale=True)


@pytest.fixture
def cache(warm_cache: Cache) -> Cache:
    warm_cache.define("product", ttl="1h", jitter=0, tags=lambda key: [f"tag:{key}"])
    return warm_cache


def counted(cache: Cache, calls: list[str]) -> Any:
    @cache.cached("product")
    def load(key: str) -> int:
        calls.append(key)
        return len(calls)

    return load


@pytest.mark.parametrize("form", FORMS)
def test_invalidation_drops_what_is_stored(cache: Cache, form: str) -> None:
    load = counted(cache, [])
    assert (load("k"), load("k")) == (1, 1)
    FORMS[form](cache, load)
    assert not load.cache_contains("k")
    assert load("k") == 2


@pytest.mark.parametrize("form", ["key", "cache_invalidate", "tag"])
def test_invalidation_leaves_what_it_does_not_name(cache: Cache, form: str) -> None:
    load = counted(cache, [])
    assert (load("k"), load("other")) == (1, 2)
    FORMS[form](cache, load)
    assert load("other") == 2


@pytest.mark.parametrize("form", FORMS)
def test_invalidation_during_a_load_is_never_overwritten_by_it(cache: Cache, form: str) -> None:
    inside, go, calls = threading.Event(), threading.Event(), []

    @cache.cached("product")
    def load(key: str) -> int:
        calls.append(key)
        mine = len(calls)
        if mine == 1:
            inside.set()
            assert go.wait(10)
        return mine

    results: list[int] = []
    leader = threading.Thread(target=lambda: results.append(load("k")))
    leader.start()
    assert inside.wait(10)
    FORMS[form](cache, load)
    assert load("k") == 2  # a get that starts now does not join the old load
    go.set()
    leader.join(10)
    assert results == [1]  # who waited before gets what was loaded
    assert load("k") == 2  # and it was not stored
    assert load.cache_info().lost_fills == 1
    assert cache.stats().flights == 0


@pytest.mark.parametrize("form", FORMS)
async def test_invalidation_during_an_async_load_is_never_overwritten_by_it(cache: Cache, form: str) -> None:
    go, calls = asyncio.Event(), []

    @cache.cached("product")
    async def load(key: str) -> int:
        calls.append(key)
        mine = len(calls)
        if mine == 1:
            await go.wait()
        return mine

    leader = asyncio.create_task(load("k"))
    while not calls:
        await asyncio.sleep(0)
    FORMS[form](cache, load)
    assert await load("k") == 2
    go.set()
    assert await leader == 1
    assert await load("k") == 2
    assert load.cache_info().lost_fills == 1


@pytest.mark.parametrize("verb", ["set", "add", "delete", "incr"])
def test_invalidation_by_a_write_during_get_or_set(warm_cache: Cache, verb: str) -> None:
    inside, go = threading.Event(), threading.Event()

    def loader() -> int:
        inside.set()
        assert go.wait(10)
        return 1

    leader = threading.Thread(target=lambda: warm_cache.get_or_set("k", loader, ttl=60))
    leader.start()
    assert inside.wait(10)
    if verb == "set":
        warm_cache.set("k", 2, ttl=60)
    elif verb == "add":
        assert warm_cache.add("k", 2, ttl=60)
    elif verb == "delete":
        assert not warm_cache.delete("k")
    else:
        warm_cache.set("k", 1, ttl=60)
        assert warm_cache.incr("k") == 2
    go.set()
    leader.join(10)
    assert warm_cache.get("k") == (None if verb == "delete" else 2)


@pytest.mark.parametrize("form", STALE_FORMS)
def test_invalidation_stale_keeps_the_value_for_errors(cache: Cache, warm_clock: Any, form: str) -> None:
    down: list[bool] = []
    calls: list[str] = []

    @cache.cached("product")
    def load(key: str) -> int:
        calls.append(key)
        if down:
            raise ConnectionError("away")
        return len(calls)

    assert load("k") == 1
    warm_clock.move(60)
    invalidate_stale(form, cache, load)
    assert not load.cache_contains("k")
    down.append(True)
    assert load("k") == 1
    assert load.cache_info().stale_hits == 1
    down.clear()
    warm_clock.move(10)
    assert load("k") == 3


@pytest.mark.parametrize("form", ["type", "tag", "all"])
def test_invalidation_stale_never_lengthens_a_life(cache: Cache, warm_clock: Any, form: str) -> None:
    load = counted(cache, [])
    load("k")
    warm_clock.move("90m")  # stale for half an hour, for half an hour more
    invalidate_stale(form, cache, load)
    warm_clock.move("31m")
    assert cache.stats().entries <= 1
    assert load("k") == 2


def test_invalidation_stale_during_a_load_stores_it_as_stale(cache: Cache) -> None:
    inside, go, calls = threading.Event(), threading.Event(), []

    @cache.cached("product", stale_while_revalidate="1h")
    def load(key: str) -> int:
        calls.append(key)
        if len(calls) == 1:
            inside.set()
            assert go.wait(10)
        return len(calls)

    leader = threading.Thread(target=load, args=("k",))
    leader.start()
    assert inside.wait(10)
    cache.invalidate(type="product", stale=True)
    go.set()
    leader.join(10)
    load("k")
    assert load.cache_info().stale_hits == 1


def test_invalidation_counts_keys_and_patterns_only(cache: Cache) -> None:
    load = counted(cache, [])
    for key in ("a", "b", "c"):
        load(key)
    assert cache.invalidate(pattern="*'[ab]'") == 2
    assert cache.invalidate(key=load.cache_key("c")) == 1
    assert cache.invalidate(key=load.cache_key("c")) == 0
    assert cache.invalidate(type="product") is None
    assert cache.invalidate(tag="nothing") is None
    assert cache.invalidate(all=True) is None


def test_invalidation_by_readable_key_finds_every_kind_of_argument(warm_cache: Cache) -> None:
    from datetime import datetime, timezone
    from decimal import Decimal

    calls: list[Any] = []

    @warm_cache.cached(ttl=60)
    def f(x: Any, y: Any = None) -> int:
        calls.append(x)
        return len(calls)

    for x in (
        "a:b",
        "100%",
        1,
        1.0,
        True,
        None,
        b"\xff",
        (1, "x"),
        [1, {"a": 2}],
        Decimal("1.0"),
        -5,
        10**90,
        datetime(2026, 1, 2, 3, 4, tzinfo=timezone.utc),
        "é~'",
    ):
        f(x)
        assert warm_cache.invalidate(key=f.cache_key(x)) == 1, x
        assert not f.cache_contains(x)


def test_invalidation_of_a_type_concerns_all_its_functions_and_direct_keys_of_none(cache: Cache) -> None:
    f, g = counted(cache, []), counted(cache, [])

    @cache.cached(ttl=60)
    def other() -> int:
        return 1

    f("k"), g("k"), other(), cache.set("direct", 1, ttl=60)
    cache.invalidate(type="product")
    assert not f.cache_contains("k")
    assert not g.cache_contains("k")
    assert other.cache_contains()
    assert cache.get("direct") == 1


def test_invalidation_forgets_old_tags_but_never_serves_what_they_named(cache: Cache) -> None:
    load = counted(cache, [])
    load("k")
    cache.invalidate(tag="tag:k")
    for i in range(70_000):
        cache.invalidate(tag=f"filler:{i}")
    assert not load.cache_contains("k")
    load("k")
    assert load.cache_contains("k")


def test_invalidation_marks_leave_memory_little_by_little(cache: Cache) -> None:
    load = counted(cache, [])
    for i in range(500):
        load(str(i))
    cache.invalidate(type="product")
    for i in range(100):
        cache.set(f"write:{i}", i, ttl=60)
    assert cache.stats()["product"].entries == 0


def test_invalidation_needs_exactly_one_intent(cache: Cache) -> None:
    with pytest.raises(ConfigError, match="got none: accepted: exactly one of key="):
        cache.invalidate()
    with pytest.raises(ConfigError, match="got key and tag"):
        cache.invalidate(key="a", tag="b")
    with pytest.raises(ConfigError, match="type='nope': accepted: 'default', 'product'"):
        cache.invalidate(type="nope")
    with pytest.raises(ConfigError, match="where= needs the PostgreSQL tier"):
        cache.invalidate(where="x = 1")
    with pytest.raises(ConfigError, match="tag=''"):
        cache.invalidate(tag="")
