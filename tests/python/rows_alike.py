"""Values that a dictionary is good for, and a cache that is brought to have one.

Thread rule: a cache's pool trains; the test waits for it.
Refuses to know: what is tested.
"""

from __future__ import annotations

import random
from typing import Any

from stillwarm import Cache, _core, _dictionaries
from tiers import Ground, eventually

ENOUGH = 600  # values, of which the core wants 500


def row(n: int) -> dict[str, Any]:
    """Some 200 bytes: the same each time, and no two alike."""
    draw = random.Random(n)
    return {
        "asin": f"B0{draw.randrange(10**8):08}",
        "title": f"Bottle number {draw.randrange(9999)}",
        "category": "Home & Kitchen",
        "price": draw.randrange(9999) / 100,
        "currency": "EUR",
        "sales_rank": draw.randrange(10**6),
        "fulfilled_by": "warehouse",
        "reviews": draw.randrange(999),
    }


def current(cache: Cache, type_name: str = "direct") -> int:
    """The number of the dictionary that values of the type are compressed with, or 0."""
    types = figures(cache)["types"]
    return (types[type_name]["dictionary"] or 0) if type_name in types else 0


def figures(cache: Cache) -> Any:
    return cache.stats().tier["compression"]


def settled(cache: Cache) -> None:
    """Until the background has nothing to do."""
    tier = cache._tier
    assert tier is not None

    def done() -> bool:
        if tier.dictionaries.due() or tier.dictionaries.unconfirmed():
            _dictionaries.start(cache)
            return False
        return not tier.dictionary_work.busy.locked()

    eventually(done, "the background never came to its end")


def trained(cache: Cache, first: int = 0) -> int:
    """Writes rows until the cache has a dictionary for direct keys; its number."""
    cache.set_many({f"t{n}": row(n) for n in range(first, first + ENOUGH)}, ttl=1000)
    settled(cache)
    number = current(cache)
    assert number, figures(cache)
    return number


def stored(ground: Ground, key: str) -> bytes:
    ((payload,),) = ground.rows("payload", f"key = '{key}'")
    return bytes(payload)


def has_dictionary(payload: bytes) -> bool:
    return bool(payload[3] & 4)


def rows_of_dictionaries(ground: Ground) -> list[str]:
    return [key for (key,) in ground.rows("key", f"type = '{_dictionaries.TYPE}'")]


def pass_pause() -> None:
    """The time in which nobody asks again for what the tier has not got."""
    _core.clock_set(_core.clock_now() + 6_000_000_000)
