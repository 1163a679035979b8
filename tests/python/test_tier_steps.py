"""What a tier does, step by step: answers that a test gives in the server's place, loops that go on.

Thread rule: one thread, or one loop.
Refuses to know: how requests reach the server (tests/cpp/remote).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from stillwarm import Cache, ConfigError, _tier_writes
from stillwarm._tier import Steps, Tier
from stillwarm._tier_health import IN_DOUBT
from stillwarm.testing import PostgresServer

MINUTE = 60 * 10**9


@pytest.fixture
def url(warm_postgres: PostgresServer) -> str:
    return warm_postgres.new_database()


@pytest.fixture
def cache(url: str) -> Iterator[Cache]:
    with Cache(url, namespace="shop", ttl=60) as made:
        made.migrate()
        yield made


def tier_of(cache: Cache) -> Tier:
    assert cache._tier is not None
    return cache._tier


def ended(tier: Tier, steps: Steps[Any], error: Any) -> Any:
    """What the steps return when this is the answer to the last request; what they ask after it is performed."""
    while True:
        try:
            request = steps.send(error)
        except StopIteration as stop:
            return stop.value
        assert not isinstance(request, float)
        error = tier.run(request)


@pytest.mark.parametrize(("there", "mine"), [(None, True), ("another's", False)])
def test_tier_add_in_doubt_looks_whose_value_is_there(cache: Cache, url: str, there: Any, mine: bool) -> None:
    tier = tier_of(cache)
    if there is not None:
        with Cache(url, namespace="shop", ttl=60) as other:
            assert other.add("lock", there)
    steps = _tier_writes.put(tier, {"lock": "ours"}, MINUTE, [], True)
    assert tier.run(add := next(steps)) is None
    assert not isinstance(add, float)
    look = steps.send((IN_DOUBT, "", "the connection broke at the answer"))
    assert tier.run(look) is None
    assert ended(tier, steps, None) == {"lock": mine}


async def test_tier_invalidation_in_an_async_transaction_never_blocks_the_loop(
    cache: Cache, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def blocking(*_: Any) -> None:
        raise AssertionError("a coroutine waits for the server on its loop's thread")

    await cache.aset("k", 1)
    monkeypatch.setattr(Tier, "run", blocking)
    monkeypatch.setattr(Tier, "query", blocking)
    async with await psycopg.AsyncConnection.connect(url) as connection:
        assert await cache.ainvalidate(key="k", connection=connection) is None
        await connection.rollback()
    async with await psycopg.AsyncConnection.connect(url) as connection:
        assert await cache.ainvalidate(key="k", connection=connection) is None
    assert await cache.aconfirm()
    assert await cache.aget("k") is None


def test_tier_transaction_of_another_database_is_refused(cache: Cache, warm_postgres: PostgresServer) -> None:
    with (
        psycopg.connect(warm_postgres.new_database()) as elsewhere,
        pytest.raises(ConfigError, match="not in the database of the tier"),
    ):
        cache.invalidate(key="k", connection=elsewhere)
