"""What of invalidation, leases and a tier that is away is PostgreSQL's alone: conditions, transactions, its tables.

Thread rule: threads are held by gates; two caches in one process stand for two processes.
Refuses to know: what any tier has to keep (test_tier_invalidation, test_tier_fleet, test_tier_away).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

from stillwarm import ConfigError, NotFound, _core
from stillwarm._servers import PostgresServer
from stillwarm.errors import TierError
from tiers import PATIENCE, Counted, Ground, eventually, function


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(20) as pool:
        yield pool


def test_sql_invalidation_where(ground: Ground, pool: ThreadPoolExecutor, warm_postgres: PostgresServer) -> None:
    ground = Ground(warm_postgres.new_database())
    try:
        source = Counted()
        source.value = lambda key: {"n": key, "call": source.calls[key]}

        def made() -> Any:
            cache = ground.cache()
            cache.define("numbers", ttl=100, table="numbers", columns={"n": "int"})
            return cache, function(cache, source, type="numbers")

        (a, f), (b, g) = made(), made()
        a.migrate()
        for key in (1, 2, 3):
            assert f(key)["call"] == 1
        ground.written()
        assert [g(key)["call"] for key in (1, 2, 3)] == [1, 1, 1]
        source.gate.clear()
        running = pool.submit(f, 10)
        assert eventually(lambda: source.calls.get(10))
        assert b.invalidate(type="numbers", where="n >= :least", params={"least": 2}) == 2
        source.gate.set()
        assert running.result(PATIENCE) == {"n": 10, "call": 1}
        ground.written()
        a.confirm()
        assert [f(key)["call"] for key in (1, 2, 3, 10)] == [1, 2, 2, 2]
        ground.written()
        b.confirm()
        assert [g(key)["call"] for key in (1, 2, 3, 10)] == [1, 2, 2, 2]
        with pytest.raises(TierError):
            b.invalidate(type="numbers", where="no_such_column = 1")
        with pytest.raises(ConfigError):
            b.invalidate(type="default", where="n = 1")
    finally:
        ground.close()


def test_sql_invalidation_of_more_than_can_be_listed_drops_everything(ground: Ground) -> None:
    a, b = (ground.cache() for _ in range(2))
    a.set("k", 1, ttl=100, tags=["x"])
    assert b.get("k") == 1
    assert b.confirm()
    assert b._tier is not None
    b._tier.core.lost()  # nothing is heard meanwhile
    ground.sql(
        "INSERT INTO stillwarm.invalidations (namespace, name) "
        "SELECT %s, 'key:n' || n FROM generate_series(1, 10001) n",
        ground.namespace,
    )
    ground.sql("UPDATE stillwarm.entries SET payload = NULL WHERE namespace = %s", ground.namespace)
    assert b.confirm()
    assert b.get("k") is None, "memory kept an entry that may have been among what was not listed"


def test_sql_an_absence_is_not_kept_beside_a_transaction(ground: Ground) -> None:
    cache = ground.cache()
    there: list[int] = []

    def load(key: Any) -> int:
        if not there:
            raise NotFound("not yet")
        return there[0]

    f = function(cache, load, tags=["t"], negative_ttl=100)
    with psycopg.connect(str(ground.url)) as connection:
        cache.invalidate(tag="t", connection=connection)
        with pytest.raises(NotFound):
            f("k")
        there.append(1)
        ground.written()
        connection.commit()
        assert f("k") == 1


def test_sql_callers_of_an_open_transaction_do_not_join_what_began_before(ground: Ground) -> None:
    cache, source = ground.cache(), Counted()
    f = function(cache, source, tags=["t"])
    with psycopg.connect(str(ground.url)) as connection, ThreadPoolExecutor(2) as pool:
        cache.invalidate(tag="t", connection=connection)
        source.gate.clear()
        running = pool.submit(f, "k")
        assert source.begun.acquire(timeout=PATIENCE)
        connection.commit()
        second = pool.submit(f, "k")
        assert source.begun.acquire(timeout=PATIENCE)
        source.gate.set()
        assert (running.result(PATIENCE), second.result(PATIENCE)) == ("k#1", "k#2")


def test_sql_without_a_lease_service_each_process_loads(ground: Ground, pool: ThreadPoolExecutor) -> None:
    schema = f"s{ground.namespace}"
    ground = Ground(ground.url, schema=schema)
    try:
        ground.cache().migrate()
        ground.sql(f'ALTER TABLE "{schema}".leases RENAME COLUMN owner TO whose')
        source = Counted()
        source.gate.clear()
        functions = [function(ground.cache(), source, scope="fleet") for _ in range(2)]
        futures = [pool.submit(f) for f in functions]
        for _ in functions:
            assert source.begun.acquire(timeout=PATIENCE)
        source.gate.set()
        assert all(f.result(PATIENCE) for f in futures)
        assert source.total == 2
    finally:
        ground.close()


@pytest.mark.parametrize("name", ["key:f:'k'", "tag:t", "all"])
def test_sql_invalidation_that_is_owed_counts_for_a_look_up_that_is_answered_before(ground: Ground, name: str) -> None:
    """The tier answers a look-up, then takes what it was owed, and only then the answer comes home: it is of before.

    What is owed is any tier's; a Redis whose writes are held answers no reads that come after them.
    """
    a = ground.cache(connections=4)
    source = Counted()
    f = function(a, source, tags=["t"])
    assert f("k") == "k#1"
    ground.written()
    assert a._tier is not None
    core, run, between = a._tier.core, a._tier.run, []
    with contextlib.ExitStack() as held:
        waits = held.enter_context(ground.writes_held())
        core.owe(name, False)
        _core.clear(a, -1)  # as whoever invalidates does
        eventually(waits)
        a._tier.reader.end_calm()  # so that the answer passes by here

        def slowly(request: Any) -> Any:
            error = run(request)
            if error is None and not between:
                between.append(True)
                held.close()
                eventually(lambda: core.health()["owed_invalidations"] == 0)
            return error

        a._tier.run = slowly  # type: ignore[method-assign]
        value = f("k")
    assert between, "the tier was not asked"
    assert value == "k#2"
    del a._tier.run
    assert f("k") != "k#1"
