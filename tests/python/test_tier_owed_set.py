"""A set that PostgreSQL has not taken yet, and what is committed there since: that is newer.

Thread rule: a lock on the row holds the tier's own attempt back while the test reads.
Refuses to know: what a set that waits hides (test_redis_owed_set.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from stillwarm import Cache, _core
from stillwarm._tier_reads import place
from stillwarm._tier_values import SET, stored
from stillwarm.errors import TierError
from tiers import Ground, eventually
from upserts import Table

INTENTS: list[dict[str, Any]] = [{"key": "k"}, {"tag": "t"}, {"type": "default"}, {"all": True}]


@pytest.fixture
def cache(ground: Ground) -> Iterator[Cache]:
    """Its tier has 1 under "k" and answers; a set of 2 waits."""
    cache = ground.cache()
    cache.set("k", 1, ttl=600, tags=["t"])
    tier = cache._tier
    assert tier is not None
    with psycopg.connect(str(ground.direct_url)) as other:
        other.execute("SELECT FROM stillwarm.entries WHERE namespace = %s FOR UPDATE", [ground.namespace])
        made = stored(tier, place("k"), 2, tier.codec, (600 * 10**9, 0, 0, 0), ["t"], mode=SET)
        assert made is not None
        tier.core.owe_write(made[0])
        tier.reader.end_calm()  # as the failure of a set does it
        _core.clear(cache, -1)
        assert cache.get("k") == 2, "what waits is newer than what is there"
        yield cache
        ended = cache.get("k")
    eventually(lambda: tier.core.drain(0))
    _core.clear(cache, -1)
    assert cache.get("k") == ended, "so did the tier decide"


@pytest.mark.parametrize("intent", INTENTS, ids=str)
def test_tier_owed_set_ends_with_a_transaction(cache: Cache, ground: Ground, intent: dict[str, Any]) -> None:
    with psycopg.connect(str(ground.url)) as app:
        cache.invalidate(**intent, connection=app)
        assert cache.get("k") != 2, "nobody keeps what an open transaction names"
        app.commit()
        assert cache.get("k") is None


def test_tier_owed_set_survives_a_transaction_that_is_rolled_back(cache: Cache, ground: Ground) -> None:
    with psycopg.connect(str(ground.url)) as app:
        cache.invalidate(key="k", connection=app)
        app.rollback()
        assert cache.get("k") == 2


@pytest.mark.parametrize("intent", INTENTS, ids=str)
def test_tier_owed_set_ends_with_an_upsert(cache: Cache, ground: Ground, intent: dict[str, Any]) -> None:
    table = Table(ground, "k int PRIMARY KEY, v text")
    done = cache.upsert(table.name, {"k": 1, "v": "a"}, unique="k", invalidates=[intent])
    assert done.outcome == "inserted"
    assert cache.get("k") is None


def test_tier_owed_set_ends_with_an_upsert_whose_answer_cannot_be_read(
    cache: Cache, ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreadable(*_: object) -> None:
        raise ValueError("no such outcome")

    table = Table(ground, "k int PRIMARY KEY, v text")
    monkeypatch.setattr(_core, "read_upsert", unreadable)
    with pytest.raises(TierError, match="it was done"):
        cache.upsert(table.name, {"k": 1, "v": "a"}, unique="k", invalidates=[{"key": "k"}])
    assert cache.get("k") is None


def test_tier_owed_set_survives_an_upsert_that_changes_nothing(cache: Cache, ground: Ground) -> None:
    table = Table(ground, "k int PRIMARY KEY, v text")
    cache.upsert(table.name, {"k": 1, "v": "a"}, unique="k")
    done = cache.upsert(table.name, {"k": 1, "v": "a"}, unique="k", invalidates=[{"key": "k"}])
    assert done.outcome == "unchanged"
    assert cache.get("k") == 2
