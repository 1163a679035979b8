"""Compression dictionaries in the Redis tier, which knows nothing of them: they are values like any other.

Thread rule: each test's thread; the pool of a cache trains.
Refuses to know: what holds in every tier (test_dictionaries).
"""

from __future__ import annotations

from fleet_child import Child
from rows_alike import ENOUGH, current, figures, pass_pause, row, settled, trained
from stillwarm import Cache, _core
from tiers import Ground


def writes_with_one(cache: Cache, key: str, n: int) -> bool:
    before = figures(cache)["with_dictionary"]
    cache.set(key, row(n), ttl=1000)
    return bool(figures(cache)["with_dictionary"] > before)


def delete_dictionaries(ground: Ground) -> int:
    names = ground.redis("KEYS", f"stillwarm:{{{ground.namespace}}}:e:#dictionary:*")
    return int(ground.redis("DEL", *names))


def test_dictionaries_redis_keeps_them_and_others_fetch_them(redis_ground: Ground) -> None:
    cache = redis_ground.cache()
    assert not writes_with_one(cache, "k", 1)
    name = f"stillwarm:{{{redis_ground.namespace}}}:e:direct:k"
    before = redis_ground.redis("STRLEN", name)
    number = trained(cache)
    assert writes_with_one(cache, "k", 1)
    assert redis_ground.redis("STRLEN", name) < before - len(str(row(1))) / 3
    other = redis_ground.cache()
    assert other.get_many(["k", "t5"]) == {"k": row(1), "t5": row(5)}
    assert figures(other)["fetched"] == 1
    other.set_many({f"o{n}": row(20_000 + n) for n in range(40)}, ttl=100)
    settled(other)
    assert current(other) == number
    with Child(redis_ground) as child:
        assert child.do("get", "k") == row(1)


def test_dictionaries_redis_has_them_again_after_everything_was_invalidated(redis_ground: Ground) -> None:
    cache = redis_ground.cache()
    number = trained(cache)
    for how in ({"all": True}, {"pattern": "*"}):
        cache.invalidate(**how)  # type: ignore[arg-type]
        settled(cache)
        assert current(cache) == number
        assert writes_with_one(cache, "k", 1)
        assert redis_ground.cache().get("k") == row(1)


def test_dictionaries_redis_without_them_values_are_counted_misses(redis_ground: Ground) -> None:
    cache = redis_ground.cache()
    trained(cache)
    assert writes_with_one(cache, "k", 1)
    assert delete_dictionaries(redis_ground) == 2, "the dictionary, and which is the newest"
    other = redis_ground.cache()
    assert other.get("k") is None
    assert other.get("k") is None
    assert other.stats().tier["undecodable"]["no_dictionary"] == 2
    assert figures(other)["missing"] == 1, "asked for once"
    _core.clock_set(_core.clock_now() + 61_000_000_000)  # it is looked for once a minute
    assert writes_with_one(cache, "l", 2)
    settled(cache)
    pass_pause()
    assert other.get("l") == row(2)
    assert redis_ground.cache().get("l") == row(2)


def test_dictionaries_redis_keeps_none_of_private_values(redis_ground: Ground) -> None:
    cache = redis_ground.cache(private=True)
    cache.set_many({f"k{n}": row(n) for n in range(ENOUGH)}, ttl=100)
    settled(cache)
    assert redis_ground.redis("KEYS", "*#dictionary*") == []
