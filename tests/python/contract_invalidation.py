"""What every tier keeps, continued: invalidation by each intent, hard and soft. Run by test_tier_contract.py.

Thread rule, refuses to know: as contract.py.
"""

from __future__ import annotations

import contextlib
from typing import Any

import pytest

from contract import Way
from stillwarm.errors import TierRejected
from tiers import Counted, Ground

INTENTS: dict[str, dict[str, Any]] = {
    "key": {"key": "f:1"},
    "type": {"type": "numbers"},
    "tag": {"tag": "n1"},
    "pattern": {"pattern": "f:[1]"},
    "all": {"all": True},
}


@pytest.mark.parametrize("intent", INTENTS)
@pytest.mark.parametrize("stale", [False, True], ids=["hard", "soft"])
async def test_contract_invalidation(ground: Ground, way: Way, intent: str, stale: bool) -> None:
    cache = ground.cache()
    other = ground.other(cache)
    source = Counted()

    def made(c: Any) -> Any:
        if "numbers" not in c._types:
            c.define("numbers", ttl=100, stale_while_revalidate=50)
        return way.function(c, source, type="numbers", ttl=100, tags=lambda key: [f"n{key}"])

    f = made(cache)
    g = f if other is cache else made(other)
    assert [await way.of(f, 1), await way.of(f, 2)] == ["1#1", "2#1"]
    await way(cache, "set", "direct", 1, ttl=100)
    ground.written()
    assert await way.of(g, 1) == "1#1"

    count = await way(cache, "invalidate", **INTENTS[intent], stale=stale)
    assert count == (1 if intent in ("key", "pattern") else None)
    if other is not cache:
        assert await way(other, "confirm")
    first = await way.of(g, 1)
    assert first == ("1#1" if stale else "1#2")
    await way.refreshed(other)
    ground.written()  # two polls at once may bring one message twice, and memory then asks the tier
    assert await way.of(g, 1) == "1#2"
    assert source.calls[1] == 2
    assert await way(cache, "confirm")
    if stale:  # here too: what was stale is what the other has by now, or one refresh brings it
        await way.of(f, 1)
        await way.refreshed(cache)
    value = await way.of(f, 1)
    assert (value, source.calls[1]) == ("1#2", 2)

    everything = intent in ("type", "all")
    await way.of(f, 2)
    await way.refreshed(cache)
    assert source.calls[2] == (2 if everything else 1)
    assert (await way(cache, "get", "direct") is None) is (intent == "all")  # no grace


async def test_contract_invalidation_of_a_direct_key_and_counts(ground: Ground, way: Way) -> None:
    cache = ground.cache()
    await way(cache, "set_many", {"a:1": 1, "a:2": 2, "b:1": 3}, ttl=100)
    assert await way(cache, "invalidate", key="a:1") == 1
    assert await way(cache, "invalidate", key="a:1") == 0
    assert await way(cache, "invalidate", pattern="*:[12]") == 2
    assert await way(cache, "get_many", ["a:1", "a:2", "b:1"]) == {}


async def test_contract_a_tag_of_a_set(ground: Ground, way: Way) -> None:
    cache = ground.cache()
    other = ground.other(cache)
    await way(cache, "set", "k", 1, ttl=100, tags=["red", "q'\"{},"])
    await way(cache, "set", "l", 2, ttl=100, tags=["blue"])
    assert await way(other, "get", "k") == 1
    await way(other, "invalidate", tag="q'\"{},")
    if other is not cache:
        assert await way(cache, "confirm")
    assert await way(cache, "get_many", ["k", "l"]) == {"l": 2}
    await way(cache, "set", "k", 3, ttl=100, tags=["red"])
    assert await way(other, "get", "k") == 3


async def test_contract_cache_invalidate_and_cache_clear(ground: Ground, way: Way) -> None:
    cache = ground.cache()
    source = Counted()
    f = way.function(cache, source)
    g = way.function(cache, source, name="g")
    for key in (1, 2):
        await way.of(f, key)
        await way.of(g, key)
    ground.written()
    assert await way(f, "cache_invalidate", 1) is True
    assert await way(f, "cache_invalidate", 1) is False
    assert await way.of(f, 1) == "1#3"
    await way(f, "cache_clear")
    assert await way.of(f, 2) == "2#3"
    assert await way.of(g, 2) == "2#2"


async def test_contract_a_name_that_no_server_takes_holds_up_nothing(ground: Ground, way: Way) -> None:
    cache = ground.cache()
    await way(cache, "set", "k", 1, ttl=100)
    name = "".join(map(str, range(10_000)))  # too long for an index
    with contextlib.suppress(TierRejected):  # strict
        await way(cache, "invalidate", tag=name)
    await way(cache, "invalidate", key="other")
    ground.written()
    assert await way(cache, "get", "k") == (1 if ground.url is None or ground.is_redis else None), (
        "what has no name there is everything"
    )
    await way(cache, "set", "k", 2, ttl=100)
    assert await way(cache, "get", "k") == 2


async def test_contract_what_was_loading_is_not_stored(ground: Ground, way: Way) -> None:
    cache = ground.cache()
    other = ground.other(cache)

    def load(key: Any) -> Any:
        load.calls += 1  # type: ignore[attr-defined]
        if load.calls == 1:  # type: ignore[attr-defined]
            other.invalidate(tag="t")
        return load.calls  # type: ignore[attr-defined]

    load.calls = 0  # type: ignore[attr-defined]
    f = way.function(cache, load, tags=["t"])
    assert await way.of(f) == 1
    ground.written()
    assert await way(cache, "confirm")
    assert await way.of(f) == 2
    assert await way.of(f) == 2
