"""`cache.upsert`: one row per natural key, what became of it, and what it invalidates.

Thread rule: one thread, but for the session that holds a lock.
Refuses to know: values (test_upsert_values.py), what is refused (test_upsert_refused.py), many callers at a time
(test_upsert_concurrent.py), broken connections (test_upsert_faults.py).
"""

from __future__ import annotations

import inspect
import os
import signal
import threading
from decimal import Decimal
from typing import Any

import psycopg
import pytest

from stillwarm import Cache, ConfigError, Upserted, _upserting
from tiers import Counted, Ground, eventually, function
from upserts import Table, marks, outcomes


@pytest.fixture
def table(ground: Ground) -> Table:
    """(k, v) with a key that the server counts."""
    return Table(ground, "k int PRIMARY KEY, v text, id serial, note text DEFAULT 'new'")


@pytest.fixture
def cache(ground: Ground) -> Cache:
    return ground.cache()


# ------------------------------------------------------------------------------------------------------------ outcomes


def test_upsert_tells_the_three_apart(cache: Cache, table: Table) -> None:
    for value, outcome in (("a", "inserted"), ("a", "unchanged"), ("b", "updated"), ("b", "unchanged")):
        assert cache.upsert(table.name, {"k": 1, "v": value}, unique="k") == Upserted(outcome, {})
    assert table.rows("k, v") == [(1, "b")]


def test_upsert_tells_the_three_apart_in_one_call(cache: Cache, table: Table) -> None:
    cache.upsert(table.name, [{"k": k, "v": "old"} for k in range(0, 40, 2)], unique="k")
    rows = [{"k": k, "v": "new" if k % 4 == 0 else "old"} for k in reversed(range(40))]
    done = cache.upsert(table.name, rows, unique=("k",))
    expected = {0: "updated", 1: "inserted", 2: "unchanged", 3: "inserted"}
    assert outcomes(done) == [expected[row["k"] % 4] for row in rows], "in the order of the rows"
    assert len(table.rows()) == 40


def test_upsert_of_nothing_asks_nobody(cache: Cache) -> None:
    assert cache.upsert("there_is_no_such_table", [], unique="k") == []


def test_upsert_of_a_list_of_one_is_a_list(cache: Cache, table: Table) -> None:
    assert cache.upsert(table.name, [{"k": 1, "v": "a"}], unique="k") == [Upserted("inserted", {})]


def test_upsert_leaves_columns_that_are_not_given(cache: Cache, table: Table) -> None:
    assert cache.upsert(table.name, {"k": 1, "v": "a"}, unique="k", returning="note").row == {"note": "new"}
    cache.upsert(table.name, {"k": 1, "note": "mine"}, unique="k")
    assert cache.upsert(table.name, {"k": 1, "v": "b"}, unique="k").outcome == "updated"
    assert table.rows("k, v, note") == [(1, "b", "mine")]


def test_upsert_changes_the_columns_of_update_alone(cache: Cache, table: Table) -> None:
    cache.upsert(table.name, {"k": 1, "v": "a", "note": "n"}, unique="k")
    assert cache.upsert(table.name, {"k": 1, "v": "b", "note": "m"}, unique="k", update="v").outcome == "updated"
    assert cache.upsert(table.name, {"k": 1, "v": "b", "note": "x"}, unique="k", update=["v"]).outcome == "unchanged"
    assert table.rows("k, v, note") == [(1, "b", "n")]


def test_upsert_without_update_only_inserts(cache: Cache, table: Table) -> None:
    rows = [{"k": 1, "v": "a"}, {"k": 2, "v": "a"}]
    assert cache.upsert(table.name, rows[0], unique="k", update=()).outcome == "inserted"
    rows[0]["v"] = "b"
    assert outcomes(cache.upsert(table.name, rows, unique="k", update=())) == ["unchanged", "inserted"]
    assert table.rows("k, v") == [(1, "a"), (2, "a")]


def test_upsert_of_keys_alone(cache: Cache, ground: Ground) -> None:
    table = Table(ground, "a int, b int, PRIMARY KEY (a, b)")
    assert cache.upsert(table.name, {"a": 1, "b": 2}, unique=("b", "a")).outcome == "inserted"
    assert cache.upsert(table.name, {"a": 1, "b": 2}, unique=("a", "b")).outcome == "unchanged"


def test_upsert_returns_columns(cache: Cache, table: Table) -> None:
    first = cache.upsert(table.name, {"k": 1, "v": "a"}, unique="k", returning=("id", "v"))
    assert first.row == {"id": 1, "v": "a"}
    assert cache.upsert(table.name, {"k": 1, "v": "a"}, unique="k", returning="id") == Upserted("unchanged", {"id": 1})
    done = cache.upsert(table.name, [{"k": 1, "v": "b"}, {"k": 5, "v": "c"}], unique="k", returning="*")
    assert [one.row["v"] for one in done] == ["b", "c"]
    assert done[0].row["id"] == 1


def test_upsert_writes_what_is_equal_but_not_the_same(cache: Cache, ground: Ground) -> None:
    """1.0 and 1.00 are equal to the server, and somebody reads the difference; json has no equality at all."""
    table = Table(ground, "k int PRIMARY KEY, n numeric, j json, p point")
    row = {"k": 1, "n": Decimal("1.0"), "j": {"a": [1, None]}, "p": "(1,2)"}
    assert cache.upsert(table.name, row, unique="k").outcome == "inserted"
    assert cache.upsert(table.name, row, unique="k").outcome == "unchanged"
    assert cache.upsert(table.name, {**row, "n": Decimal("1.00")}, unique="k").outcome == "updated"
    assert table.rows("n::text") == [("1.00",)]
    assert cache.upsert(table.name, {**row, "n": Decimal("1.00"), "j": {"a": [1]}}, unique="k").outcome == "updated"


@pytest.mark.parametrize("lock", ["FOR KEY SHARE", "FOR SHARE", "FOR NO KEY UPDATE"])
def test_upsert_tells_right_beside_who_locked_the_row(cache: Cache, ground: Ground, table: Table, lock: str) -> None:
    """A lock stands in the row's own header, which others take for the sign of an update."""
    cache.upsert(table.name, [{"k": k, "v": "a"} for k in (1, 2)], unique="k")
    with psycopg.connect(str(ground.url)) as other:
        for round_ in range(2):
            other.execute(f"SELECT FROM {table.name} WHERE k IN (1, 2) {lock}")
            if lock != "FOR KEY SHARE":  # that one alone lets an update through
                other.rollback()
            rows = [{"k": 1, "v": "a"}, {"k": 2, "v": f"b{round_}"}, {"k": 10 + round_, "v": "c"}]
            assert outcomes(cache.upsert(table.name, rows, unique="k")) == ["unchanged", "updated", "inserted"]
            other.rollback()


def test_upsert_tells_right_beside_foreign_keys_and_triggers(cache: Cache, ground: Ground) -> None:
    table = Table(ground, "k int PRIMARY KEY, v int, parent int")
    ground.sql(f"ALTER TABLE {table.name} ADD FOREIGN KEY (parent) REFERENCES {table.name}")
    ground.sql(
        f"CREATE FUNCTION again_{table.name}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        f"UPDATE {table.name} SET v = v WHERE k = new.k; RETURN NULL; END $$"
    )
    ground.sql(f"CREATE TRIGGER again AFTER INSERT ON {table.name} FOR EACH ROW EXECUTE FUNCTION again_{table.name}()")
    rows = [{"k": 1, "v": 1, "parent": None}, {"k": 2, "v": 1, "parent": 1}, {"k": 3, "v": 1, "parent": 1}]
    assert outcomes(cache.upsert(table.name, rows, unique="k")) == ["inserted"] * 3
    rows = [{"k": 1, "v": 2, "parent": None}, {"k": 2, "v": 1, "parent": 1}, {"k": 4, "v": 1, "parent": 2}]
    assert outcomes(cache.upsert(table.name, rows, unique="k")) == ["updated", "unchanged", "inserted"]


def test_upsert_into_partitions(cache: Cache, ground: Ground) -> None:
    table = Table(ground, "k int PRIMARY KEY, v int) PARTITION BY RANGE (k")
    ground.sql(f"CREATE TABLE {table.name}_a PARTITION OF {table.name} FOR VALUES FROM (0) TO (10)")
    ground.sql(f"CREATE TABLE {table.name}_b (v int, gone int, k int NOT NULL)")  # laid out otherwise
    ground.sql(f"ALTER TABLE {table.name}_b DROP COLUMN gone")
    ground.sql(f"ALTER TABLE {table.name} ATTACH PARTITION {table.name}_b FOR VALUES FROM (10) TO (20)")
    with pytest.raises(psycopg.errors.FeatureNotSupported):  # what others tell the two apart by
        ground.sql(f"INSERT INTO {table.name} VALUES (9, 9) RETURNING xmax")
    assert outcomes(cache.upsert(table.name, [{"k": k, "v": 1} for k in (1, 11)], unique="k")) == ["inserted"] * 2
    rows = [{"k": 1, "v": 1}, {"k": 2, "v": 1}, {"k": 11, "v": 2}, {"k": 12, "v": 1}]
    assert outcomes(cache.upsert(table.name, rows, unique="k")) == ["unchanged", "inserted", "updated", "inserted"]


def test_upsert_says_when_a_trigger_changed_the_key(cache: Cache, ground: Ground) -> None:
    from stillwarm.errors import TierError

    table = Table(ground, "k text PRIMARY KEY, v int")
    ground.sql(
        f"CREATE FUNCTION low_{table.name}() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN new.k := lower(new.k); RETURN new; END $$"
    )
    ground.sql(f"CREATE TRIGGER low BEFORE INSERT ON {table.name} FOR EACH ROW EXECUTE FUNCTION low_{table.name}()")
    assert cache.upsert(table.name, {"k": "a", "v": 1}, unique="k").outcome == "inserted"
    with pytest.raises(TierError, match="a trigger"):
        cache.upsert(table.name, {"k": "B", "v": 1}, unique="k")
    assert table.rows() == [("a", 1), ("b", 1)]


@pytest.mark.parametrize("enabled", [True, False])
def test_upsert_needs_a_tier_that_speaks_sql(enabled: bool) -> None:
    with (
        Cache("redis://127.0.0.1:1/0", enabled=enabled) as cache,
        pytest.raises(ConfigError, match="upsert: this needs the PostgreSQL tier, and the cache has a Redis tier"),
    ):
        cache.upsert("t", {"k": 1}, unique="k")


def test_upsert_needs_a_tier() -> None:
    with Cache() as cache, pytest.raises(ConfigError, match="upsert needs the PostgreSQL tier"):
        cache.upsert("t", {"k": 1}, unique="k")
    with Cache(enabled=False) as cache, pytest.raises(ConfigError, match="upsert needs the PostgreSQL tier"):
        cache.upsert("t", {"k": 1}, unique="k")


@pytest.mark.parametrize("how", ["argument", "environment", "later"])
def test_upsert_writes_while_the_cache_is_off(
    ground: Ground, table: Table, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = ground.cache()
    source = Counted()
    f = function(other, source, tags=["t"])
    assert f("k") == "k#1"
    if how == "environment":
        monkeypatch.setenv("STILLWARM_DISABLED", "1")
    cache = ground.cache(enabled=how != "argument")
    if how == "later":
        cache._switch_off()
    g = function(cache, Counted())
    for value, outcome in (("a", "inserted"), ("a", "unchanged"), ("b", "updated")):
        done = cache.upsert(table.name, {"k": 1, "v": value}, unique="k", invalidates=[{"tag": "t"}])
        assert done.outcome == outcome
    assert (g("k"), g("k")) == ("k#1", "k#2"), "still off"
    assert other.confirm()
    assert f("k") == "k#2", "the others hear of it"


def test_upsert_in_the_child_of_a_fork_while_the_cache_is_off(ground: Ground, table: Table) -> None:
    cache = ground.cache(enabled=False)
    cache.upsert(table.name, {"k": 1, "v": "a"}, unique="k")
    child = os.fork()
    if child == 0:
        done = False
        try:
            done = cache.upsert(table.name, {"k": 2, "v": "b"}, unique="k").outcome == "inserted"
        finally:
            os._exit(0 if done else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert cache.upsert(table.name, {"k": 3, "v": "c"}, unique="k").outcome == "inserted", "its connection is unharmed"
    assert table.rows("k") == [(1,), (2,), (3,)]


def test_upsert_in_the_child_of_a_fork_while_the_parent_makes_its_connection(ground: Ground, table: Table) -> None:
    cache = ground.cache(enabled=False)
    held, over = threading.Event(), threading.Event()

    def make() -> None:
        with _upserting._making:
            held.set()
            over.wait(60)

    thread = threading.Thread(target=make)
    thread.start()
    assert held.wait(60)
    child = os.fork()
    if child == 0:
        signal.alarm(30)  # a child that waits for that thread waits for ever
        done = False
        try:
            done = cache.upsert(table.name, {"k": 1, "v": "a"}, unique="k").outcome == "inserted"
        finally:
            os._exit(0 if done else 1)
    over.set()
    thread.join()
    assert os.waitpid(child, 0)[1] == 0
    assert table.rows("k") == [(1,)]


# --------------------------------------------------------------------------------------------------------- invalidation


@pytest.mark.parametrize("intent", [{"key": "f:'k'"}, {"tag": "t"}, {"type": "default"}, {"all": True}], ids=str)
def test_upsert_invalidates(ground: Ground, table: Table, intent: dict[str, Any]) -> None:
    a, b = ground.cache(), ground.cache()
    source = Counted()
    f, g = (function(cache, source, tags=["t"]) for cache in (a, b))
    assert f("k") == "k#1"
    ground.written()
    assert g("k") == "k#1"
    a.upsert(table.name, {"k": 1, "v": "a"}, unique="k", invalidates=[intent])
    assert f("k") == "k#2", "when it returns, memory has forgotten"
    ground.written()
    assert b.confirm()
    assert g("k") == "k#2"
    assert source.total == 2


def test_upsert_that_changes_nothing_invalidates_nothing(ground: Ground, cache: Cache, table: Table) -> None:
    source = Counted()
    f = function(cache, source, tags=["t"])
    row = {"k": 1, "v": "a"}
    cache.upsert(table.name, row, unique="k")
    assert f("k") == "k#1"
    assert cache.upsert(table.name, row, unique="k", invalidates=[{"tag": "t"}]).outcome == "unchanged"
    assert marks(ground) == []
    assert f("k") == "k#1"
    cache.upsert(table.name, [row, {"k": 2, "v": "b"}], unique="k", invalidates=[{"tag": "t"}])
    assert marks(ground) == [("tag:t", False)]
    assert f("k") == "k#2"


@pytest.mark.parametrize("away", [False, True])
def test_upsert_that_finds_anothers_row_has_heard_what_that_invalidated(
    ground: Ground, table: Table, away: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever is told that the row is as given never gets what was there before it."""
    a, b = ground.cache(), ground.cache(pooler=True, max_lag="60s")  # b hears of nothing by itself
    source, others = Counted(), Counted()
    f, g = function(b, source, tags=["t"]), function(b, others, "g", tags=["other"])
    row, intents = {"k": 1, "v": "a"}, [{"tag": "t"}]
    assert (f("k"), g("k")) == ("k#1", "k#1")
    ground.written()
    eventually(lambda: b._tier is not None and b._tier.core.health()["polls"])  # the first, and the next in 30 s
    assert a.upsert(table.name, row, unique="k", invalidates=intents).outcome == "inserted"
    assert f("k") == "k#1", "it has not heard of it, and max_lag is not over"
    if away:
        monkeypatch.setattr(type(b._tier), "away", True)
    assert b.upsert(table.name, row, unique="k", invalidates=intents).outcome == "unchanged"
    monkeypatch.undo()
    assert f("k") == "k#2"
    assert g("k") == "k#1", "nothing else is forgotten"


def test_upsert_makes_stale_what_may_be_served_stale(ground: Ground, cache: Cache, table: Table) -> None:
    f = function(cache, Counted(), tags=["t"], stale_while_revalidate=100)
    assert f("k") == "k#1"
    intents = [{"tag": "t", "stale": True}, {"key": "other"}]
    cache.upsert(table.name, {"k": 1, "v": "a"}, unique="k", invalidates=intents)
    assert marks(ground) == [("key:other", False), ("tag:t", True)]
    assert f("k") == "k#1", "stale, and refreshed behind"


def test_upsert_makes_the_tables_of_marks(warm_postgres: Any) -> None:
    url = warm_postgres.new_database()
    ground = Ground(url)
    try:
        table = Table(ground, "k int PRIMARY KEY, v int")
        done = ground.cache().upsert(table.name, {"k": 1, "v": 1}, unique="k", invalidates=[{"tag": "t"}])
        assert done.outcome == "inserted"
        assert marks(ground) == [("tag:t", False)]
    finally:
        ground.close()


# ---------------------------------------------------------------------------------------------------------------- async


async def test_upsert_for_coroutines(ground: Ground, table: Table) -> None:
    async with ground.cache() as cache:
        f = function(cache, Counted(), tags=["t"])
        assert f("k") == "k#1"
        for value, outcome in (("a", "inserted"), ("a", "unchanged"), ("b", "updated")):
            done = await cache.aupsert(
                table.name, {"k": 1, "v": value}, unique="k", returning="id", invalidates=[{"tag": "t"}]
            )
            assert done == Upserted(outcome, {"id": 1})
        assert f("k") == "k#2"
        many = await cache.aupsert(table.name, [{"k": 1, "v": "b"}, {"k": 2, "v": "b"}], unique="k")
        assert outcomes(many) == ["unchanged", "inserted"]
        assert await cache.aupsert(table.name, [], unique="k") == []
        with pytest.raises(ConfigError):
            await cache.aupsert(table.name, {"z": 1}, unique="z")


def test_upsert_twins_take_the_same_arguments() -> None:
    plain, twin = (inspect.signature(f).parameters for f in (Cache.upsert, Cache.aupsert))
    assert plain == twin


def test_upsert_behind_a_pooler(pgbouncer: str) -> None:
    ground = Ground(pgbouncer, pooler=True)
    try:
        table = Table(ground, "k int PRIMARY KEY, v int")
        cache = ground.cache()
        for value, outcome in ((1, "inserted"), (1, "unchanged"), (2, "updated")):
            row = [{"k": 1, "v": value}]
            assert outcomes(cache.upsert(table.name, row, unique="k", invalidates=[{"tag": "t"}])) == [outcome]
    finally:
        ground.close()
