"""What a cache on Redis cannot do, and says so with what is needed: tables, the app's transactions, lasting records.

Thread rule: one thread.
Refuses to know: what works there (test_redis_admin).
"""

from __future__ import annotations

from typing import Any

import pytest

from stillwarm import Cache, ConfigError
from stillwarm._tables import TypedTable
from tiers import Ground
from writing import Writes, each_front, replayed

NEEDS = r'needs the PostgreSQL tier, and the cache has a Redis tier.*accepted: Cache\("postgresql://...'


@pytest.mark.parametrize(
    ("verb", "arguments"),
    [
        ("find", {}),
        ("trim", {"max_rows": 1}),
        ("migrate", {}),
        ("verify", {}),
        ("query", {"sql": "SELECT 1"}),
        ("invalidate", {"type": "t", "where": "a > 1"}),
        ("upsert", {"table": "t", "row": {"a": 1}, "unique": "a"}),
    ],
)
@pytest.mark.parametrize("is_async", [False, True], ids=["plain", "async"])
async def test_redis_names_what_needs_tables(
    redis_ground: Ground, verb: str, arguments: dict[str, Any], is_async: bool
) -> None:
    cache = redis_ground.cache(ttl=60)
    cache.define("t", ttl=60)

    async def call() -> None:
        if not is_async:
            getattr(cache, verb)(**arguments)
        elif verb != "query":
            await getattr(cache, f"a{verb}")(**arguments)
        else:  # which has no twin
            assert cache._tier is not None
            await cache._tier.aquery("SELECT 1")

    with pytest.raises(ConfigError, match=NEEDS):
        await call()


def test_redis_refuses_a_table_and_defines_nothing(redis_ground: Ground) -> None:
    cache = redis_ground.cache(ttl=60)
    columns = {"roi": "float"}
    with pytest.raises(ConfigError, match=f"type 'scoring': table=: this {NEEDS}"):
        cache.define("scoring", ttl=60, table="scorings", columns=columns)
    with pytest.raises(ConfigError, match="type='scoring'"):
        cache.cached("scoring")
    with Cache() as memory:  # the control: without a URL the options have no effect
        memory.define("scoring", ttl=60, table="scorings", columns=columns)
        assert isinstance(memory.tables["scoring"], TypedTable)


def test_redis_refuses_the_app_s_transaction(redis_ground: Ground) -> None:
    with pytest.raises(ConfigError, match=r"connection= needs the PostgreSQL tier.*not committed together.*after the"):
        redis_ground.cache().invalidate(all=True, connection=object())


async def test_redis_refuses_the_app_s_transaction_in_coroutines(redis_ground: Ground) -> None:
    with pytest.raises(ConfigError, match="connection= needs the PostgreSQL tier"):
        await redis_ground.cache().ainvalidate(all=True, connection=object())


def test_redis_refuses_upsert_of_a_cache_that_is_switched_off() -> None:
    with (
        Cache("redis://127.0.0.1:1", enabled=False) as cache,
        pytest.raises(ConfigError, match=f"upsert: this {NEEDS}"),
    ):
        cache.upsert("t", {"a": 1}, unique="a")


def test_redis_admin_asked_of_memory_alone_names_both_tiers() -> None:
    with Cache() as cache:
        for verb in (cache.shared_stats, cache.purge):
            with pytest.raises(ConfigError, match=r'memory only; accepted: Cache\("postgresql://..."\) or "redis://'):
                verb()
        cache.check()


# ------------------------------------------------------------------------------------------------------ idempotency


@each_front
def test_redis_keeps_idempotency_keys_in_memory_and_says_why(
    front: str, redis_ground: Ground, caplog: pytest.LogCaptureFixture
) -> None:
    writes = Writes(front, redis_ground.cache())
    first, second = writes.ask(), writes.ask()
    assert (first.body, second.body, writes.executed) == (b"order 1", b"order 1", 1)
    assert replayed(second)
    (said,) = [one.getMessage() for one in caplog.records if one.getMessage().startswith("idempotent:")]
    assert said.startswith("idempotent: Redis may evict or lose them, so keys are kept in the memory of this process")
    assert redis_ground.redis("KEYS", "*idempot*") == []


@each_front
def test_redis_refuses_idempotent_with_a_transaction(front: str, redis_ground: Ground) -> None:
    with pytest.raises(ConfigError, match=f"transaction=: this {NEEDS}"):
        Writes(front, redis_ground.cache(), transaction=lambda *_: None).ask()
