"""The direct verbs of a Cache, plain and async, and its construction.

Thread rule: one thread, or one loop.
Refuses to know: decorated functions.
"""

from __future__ import annotations

import math
import threading
from typing import Any

import pytest

from stillwarm import Cache, ConfigError, NotFound


def test_verbs_set_get_delete_contains(warm_cache: Cache, warm_clock: Any) -> None:
    assert warm_cache.get("k") is None
    assert warm_cache.get("k", 5) == 5
    assert warm_cache.set("k", None, ttl=10)
    assert warm_cache.get("k", 5) is None
    assert warm_cache.contains("k")
    assert "k" in warm_cache
    warm_clock.move(9.9)
    assert "k" in warm_cache
    warm_clock.move(0.1)
    assert "k" not in warm_cache
    assert warm_cache.get("k", 5) == 5
    warm_cache.set("k", 1, ttl=10)
    assert warm_cache.delete("k")
    assert not warm_cache.delete("k")


def test_verbs_need_a_ttl(warm_cache: Cache) -> None:
    for verb in (
        lambda: warm_cache.set("k", 1),
        lambda: warm_cache.add("k", 1),
        lambda: warm_cache.touch("k"),
        lambda: warm_cache.get_or_set("k", lambda: 1),
    ):
        with pytest.raises(ConfigError, match="no ttl, and there is no unbounded default"):
            verb()
    with Cache(ttl=60) as cache:
        assert cache.set("k", 1)
        assert cache.ttl_left("k") == pytest.approx(60, abs=1)
        assert cache.set("for ever", 1, ttl=None)
        assert cache.ttl_left("for ever") == math.inf
        assert not cache.set("never", 1, ttl=0)
        assert cache.ttl_left("never") is None


def test_verbs_add_touch_incr(warm_cache: Cache, warm_clock: Any) -> None:
    assert warm_cache.add("k", 1, ttl=10)
    assert not warm_cache.add("k", 2, ttl=10)
    assert warm_cache.incr("k") == 2
    assert warm_cache.incr("k", -5) == -3
    warm_clock.move(8)
    assert warm_cache.incr("k", 10**30) == 10**30 - 3
    assert warm_cache.ttl_left("k") == pytest.approx(2)
    assert warm_cache.touch("k", ttl=10)
    warm_clock.move(9)
    assert warm_cache.get("k") == 10**30 - 3
    warm_clock.move(2)
    assert not warm_cache.touch("k", ttl=10)
    with pytest.raises(KeyError, match="k"):
        warm_cache.incr("k")
    warm_cache.set("text", "x", ttl=10)
    with pytest.raises(TypeError, match=r"incr\(\) works on int"):
        warm_cache.incr("text")
    with pytest.raises(ConfigError, match=r"delta=1\.5"):
        warm_cache.incr("text", 1.5)  # type: ignore[arg-type]


def test_verbs_many(warm_cache: Cache) -> None:
    assert warm_cache.set_many({"a": 1, "b": None}, ttl=10) == []
    assert warm_cache.get_many(["a", "b", "c"]) == {"a": 1, "b": None}
    assert warm_cache.delete_many(["a", "c"]) == 1
    warm_cache.clear()
    assert warm_cache.get_many(["a", "b"]) == {}


def test_verbs_get_or_set_loads_once_and_keeps_the_rules(warm_cache: Cache, warm_clock: Any) -> None:
    calls: list[int] = []
    down: list[bool] = []

    def loader() -> int:
        calls.append(1)
        if down:
            raise ConnectionError("away")
        return len(calls)

    assert warm_cache.get_or_set("k", loader, ttl=10) == 1
    assert warm_cache.get_or_set("k", loader, ttl=10) == 1
    warm_clock.move(11)
    down.append(True)
    assert warm_cache.get_or_set("k", loader, ttl=10) == 1  # still warm
    warm_clock.move(10)
    with pytest.raises(ConnectionError):
        warm_cache.get_or_set("k", loader, ttl=10)
    with pytest.raises(ConfigError, match="loader=5"):
        warm_cache.get_or_set("k", 5, ttl=10)  # type: ignore[arg-type]


def test_verbs_tags(warm_cache: Cache) -> None:
    warm_cache.set("a", 1, ttl=10, tags=["t", "u"])
    warm_cache.set("b", 1, ttl=10, tags=["u"])
    warm_cache.set("c", 1, ttl=10)
    warm_cache.invalidate(tag="t")
    assert warm_cache.get_many("abc") == {"b": 1, "c": 1}
    with pytest.raises(ConfigError, match="tags='t'"):
        warm_cache.set("a", 1, ttl=10, tags="t")


def test_verbs_keys_are_text(warm_cache: Cache) -> None:
    class Text(str):
        def __hash__(self) -> int:
            raise AssertionError("never asked")

    warm_cache.set(Text("k"), 1, ttl=10)
    assert warm_cache.get("k") == warm_cache.get(Text("k")) == 1
    for verb in (warm_cache.get, warm_cache.delete, warm_cache.contains):
        with pytest.raises(TypeError, match="key must be a str, not int"):
            verb(5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="1 or 2 positional arguments"):
        warm_cache.get()  # type: ignore[call-arg]


async def test_verbs_async_twins_do_the_same(warm_cache: Cache) -> None:
    assert await warm_cache.aset("k", 1, ttl=10)
    assert not await warm_cache.aadd("k", 1, ttl=10)
    assert await warm_cache.aget("k") == 1
    assert await warm_cache.aincr("k") == 2
    assert await warm_cache.atouch("k", ttl=20)
    assert (await warm_cache.attl_left("k") or 0) > 10
    assert await warm_cache.acontains("k")
    assert await warm_cache.aset_many({"a": 1}, ttl=10) == []
    assert await warm_cache.aget_many(["a", "k"]) == {"a": 1, "k": 2}
    assert await warm_cache.adelete("a")
    assert await warm_cache.adelete_many(["a", "k"]) == 1

    async def loader() -> int:
        return 5

    assert await warm_cache.aget_or_set("x", loader, ttl=10) == 5
    assert await warm_cache.aget_or_set("y", lambda: 6, ttl=10) == 6
    assert await warm_cache.ainvalidate(key="x") == 1
    await warm_cache.aclear()
    assert await warm_cache.aget("y") is None
    async with Cache(ttl=5) as cache:
        assert await cache.aset("k", 1)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"max_bytes": 0}, "max_bytes=0: not positive"),
        ({"max_bytes": "lots"}, "max_bytes='lots'"),
        ({"max_bytes": 100}, "max_bytes=100: accepted: 4096 bytes and more"),
        ({"max_bytes": None}, "max_bytes=None"),
        ({"max_entries": 0}, "max_entries=0: accepted: an int from 1"),
        ({"max_entries": 1.5}, "max_entries=1.5"),
        ({"load_threads": 0}, "load_threads=0"),
        ({"namespace": "a b"}, "namespace='a b'"),
        ({"ttl": -1}, "ttl=-1"),
        ({"url": "redis://user:secret@host/x"}, r"url='redis://user:\*\*\*@host/x': the database 'x' is no number"),
        ({"url": "mysql://user:secret@host/db"}, r"url='mysql://user:\*\*\*@host/db': accepted: postgresql://"),
        ({"url": ""}, "url='': accepted: postgresql://"),
        ({"max_lag": 0}, "max_lag=0"),
        ({"connections": 0}, "connections=0: accepted: an int from 1 to 60"),
        ({"schema": "a b"}, "schema='a b'"),
        ({"url": "postgresql://host/db", "codec": "pickle"}, "codec='pickle'"),
        ({"max_byte": 1}, "no option 'max_byte'; did you mean 'max_bytes'"),
    ],
)
def test_verbs_construction_mistakes_are_named(arguments: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text) as error:
        Cache(**arguments)
    assert "secret" not in str(error.value)


def test_verbs_from_env(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STILLWARM_NAMESPACE", "shop")
    monkeypatch.setenv("STILLWARM_MAX_BYTES", "1MB")
    cache = Cache.from_env(ttl=5)
    assert cache.namespace == "shop"
    assert cache.stats().max_bytes == 1024 * 1024
    monkeypatch.setenv("STILLWARM_MAX_BYTES", "much")
    with pytest.raises(ConfigError, match="STILLWARM_MAX_BYTES: max_bytes='much'"):
        Cache.from_env()
    monkeypatch.setenv("STILLWARM_DISABLED", "1")
    monkeypatch.delenv("STILLWARM_MAX_BYTES")
    off = Cache.from_env(ttl=5)
    off.set("k", 1)
    assert off.get("k") is None


def test_verbs_close_twice_and_work_on() -> None:
    cache = Cache(ttl=60)
    cache.set("k", 1)
    cache.close()
    cache.close()
    assert cache.get("k") is None
    assert "0 entries" in repr(cache)


def test_verbs_get_or_set_has_all_settings_of_its_cache(warm_clock: Any) -> None:
    cache = Cache(ttl=100, early_refresh=0.5, jitter=0, stale_if_error=0, negative_ttl=10)
    loads: list[int] = []

    def load() -> int:
        loads.append(1)
        if len(loads) == 1:
            raise NotFound("not yet")
        return len(loads)

    for _ in range(2):
        with pytest.raises(NotFound):
            cache.get_or_set("key", load)
    assert len(loads) == 1, "the absence is remembered"
    warm_clock.move(10)
    assert cache.get_or_set("key", load) == 2
    warm_clock.move(49)
    assert cache.get_or_set("key", load) == 2
    assert cache.stats().flights == 0
    warm_clock.move(1)
    assert cache.get_or_set("key", load) == 2, "early"
    for _ in range(2000):
        if len(loads) == 3 and cache.stats().flights == 0:
            break
        threading.Event().wait(0.005)
    assert cache.get("key") == 3
    spread = Cache(ttl=100, jitter=0.5)
    left = []
    for n in range(100):
        spread.get_or_set(str(n), lambda: 1)
        left.append(spread.ttl_left(str(n)) or 0)
    assert max(left) - min(left) > 25
    assert 50 <= min(left) <= max(left) <= 100
