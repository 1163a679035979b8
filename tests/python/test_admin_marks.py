"""What the marks mean to the admin statements: the same as to the look-up, with two types, many sessions and races.

Thread rule: sessions with open transactions make the races; threads start together.
Refuses to know: how entries get there; rows are written here by plain SQL.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import psycopg
import pytest

from postgres_here import Database
from reference_tables import discovery, scoring
from stillwarm._admin import find, stats, top
from stillwarm._invalidate_sql import invalidate
from stillwarm._place import Place
from stillwarm._purge import purge, trim
from stillwarm._schema import migrate
from stillwarm._where import where_sql
from storing import TABLES, keys, put, score, session
from tiers import eventually

# What the look-up says of a shared entry and of a typed row: (dead, since when it is stale), as the core writes it.
AGAINST = (
    "i.xid >= pg_snapshot_xmin(e.born) AND NOT pg_visible_in_snapshot(i.xid, e.born) AND i.xid <> e.version "
    "AND (i.name <> 'fence' OR NOT pg_visible_in_snapshot(e.version, i.seen))"
)
TAGS = "ARRAY(SELECT 'tag:' || g FROM unnest(e.tags) AS g)"
LOOK_UP = (
    "SELECT e.key, e.type, coalesce(bool_or(NOT i.soft), false), min(i.at) FILTER (WHERE i.soft) "
    "FROM stillwarm.entries e LEFT JOIN stillwarm.invalidations i ON i.namespace = 'shop' AND i.name = ANY "
    f"(ARRAY['all', 'fence', 'type:' || e.type, 'key:' || e.key] || {TAGS}) AND {AGAINST} "
    "WHERE e.namespace = 'shop' AND e.type <> 'scoring' GROUP BY 1, 2 "
    "UNION ALL SELECT t.cache_key, 'scoring', coalesce(bool_or(NOT i.soft), false), min(i.at) FILTER (WHERE i.soft) "
    "FROM product_scoring_cache t LEFT JOIN stillwarm.entries e ON e.namespace = 'shop' AND e.key = t.cache_key "
    "COLLATE \"C\" AND e.type = 'scoring' LEFT JOIN stillwarm.invalidations i ON i.namespace = 'shop' AND "
    f"i.name COLLATE \"C\" = ANY (ARRAY['all', 'fence', 'type:scoring', 'key:' || t.cache_key] || {TAGS}) AND CASE "
    "WHEN e.key IS NULL THEN i.name <> 'fence' AND i.at > (t.created_at AT TIME ZONE 'UTC') "
    f"ELSE {AGAINST} END GROUP BY 1"
)
ENTRY = (
    "INSERT INTO stillwarm.entries VALUES ('shop', %s, %s, 'x', %s, coalesce(%s::pg_snapshot, "
    "pg_current_snapshot()), pg_current_xact_id(), now(), now() + interval '1 h', now() + interval '1 h', 0) "
    "ON CONFLICT (namespace, key, type) DO UPDATE SET born = excluded.born, version = excluded.version"
)
ROW = (
    "INSERT INTO product_scoring_cache VALUES (%s, 'B', 30, 1, 'BUY', NULL, 1, 1, now() AT TIME ZONE 'UTC', "
    "(now() AT TIME ZONE 'UTC') + interval '1 h', 0) ON CONFLICT (cache_key) DO UPDATE SET created_at = "
    "excluded.created_at, expires_at = excluded.expires_at"
)


@pytest.fixture
def place(database: Database) -> Place:
    migrate(database.query, [discovery(), scoring()])
    return Place(database.query, "shop", "stillwarm", TABLES)


def snapshot(database: Database) -> str:
    ((text,),) = database.sql("SELECT pg_current_snapshot()::text")
    return str(text)


def look_up(database: Database) -> dict[tuple[object, object], bool]:
    """Whether each row is dead."""
    return {(key, type): bool(dead) for key, type, dead, _ in database.sql(LOOK_UP)}


def marks(database: Database) -> list[str]:
    return keys(database, "stillwarm.invalidations", "name")


# ------------------------------------------------------------------------------------- the same key in two types


@pytest.fixture
def twins(database: Database, place: Place) -> Place:
    """The key `scoring:B1:1` in three types, one of them with a table; and neighbours."""
    key = score(database, "B1", 30, hits=7)
    for type in ("plain", "other"):
        put(database, key, type, hits=len(type), tags=[type])
        put(database, "a", type, hits=1)
    return place


def test_admin_marks_two_types_with_one_key_are_found_and_counted(database: Database, twins: Place) -> None:
    key = "scoring:B1:1"
    assert [(one.key, one.type) for one in find(twins)] == [
        ("a", "other"), ("a", "plain"), (key, "other"), (key, "plain"), (key, "scoring"),
    ]  # fmt: skip
    assert [one.type for one in find(twins, tag="other")] == ["other"]
    assert [one.tags for one in find(twins, type="scoring")] == [()]
    assert [(hot.key, hot.type, hot.hits) for hot in top(twins, 3)] == [
        (key, "scoring", 7), (key, "other", 5), (key, "plain", 5),
    ]  # fmt: skip
    assert {name: one.entries for name, one in stats(twins).types.items()} == {
        "discovery": 0, "scoring": 1, "plain": 2, "other": 2,
    }  # fmt: skip


@pytest.mark.parametrize("batch", [1, 2, 100])
def test_admin_marks_purge_takes_the_one_type_and_leaves_the_other(
    database: Database, twins: Place, batch: int
) -> None:
    invalidate(twins, type="plain")
    assert purge(twins, batch=batch, retention=0) == {"discovery": 0, "scoring": 0, "plain": 2}
    assert [(one.key, one.type) for one in find(twins)] == [
        ("a", "other"), ("scoring:B1:1", "other"), ("scoring:B1:1", "scoring"),
    ]  # fmt: skip
    database.sql("UPDATE stillwarm.entries SET expires_at = now() - interval '1 s' WHERE type = 'other'")
    assert purge(twins, batch=batch)["other"] == 2
    invalidate(twins, type="scoring", stale=True)
    purge(twins, batch=batch, retention=0)
    assert keys(database) == keys(database, "product_scoring_cache", "cache_key") == ["scoring:B1:1"]
    database.sql("UPDATE stillwarm.entries SET expires_at = now() - interval '1 s'")
    assert purge(twins, batch=batch)["scoring"] == 1
    assert keys(database) == keys(database, "product_scoring_cache", "cache_key") == []


def test_admin_marks_purge_of_a_typed_row_leaves_other_types(database: Database, twins: Place) -> None:
    database.sql("UPDATE product_scoring_cache SET expires_at = now() - interval '1 s'")
    assert purge(twins)["scoring"] == 0  # its row in entries says that it may be stale for longer
    assert [one.type for one in find(twins, type="scoring")] == ["scoring"]
    database.sql("UPDATE stillwarm.entries SET expires_at = now() - interval '1 s' WHERE type = 'scoring'")
    assert find(twins, type="scoring") == []
    assert stats(twins).types["scoring"].expired == 1
    assert purge(twins)["scoring"] == 1
    assert database.sql("SELECT type FROM stillwarm.entries ORDER BY key, type") == [
        ("other",), ("plain",), ("other",), ("plain",),
    ]  # fmt: skip


def test_admin_marks_trim_takes_the_one_type_and_leaves_the_other(database: Database, twins: Place) -> None:
    database.sql("UPDATE stillwarm.entries SET hit_count = 100 WHERE type <> 'other'")
    assert trim(twins, max_rows=3) == {"discovery": 0, "scoring": 0, "plain": 0, "other": 2}
    database.sql("UPDATE stillwarm.entries SET hit_count = 0 WHERE type = 'plain'")
    assert trim(twins, max_rows=1)["plain"] == 2
    assert [(one.key, one.type) for one in find(twins)] == [("scoring:B1:1", "scoring")]
    assert trim(twins, max_rows=0)["scoring"] == 1
    assert keys(database) == []


def test_admin_marks_invalidation_by_key_and_glob_takes_all_types_and_where_the_one(
    database: Database, twins: Place
) -> None:
    assert invalidate(twins, type="scoring", where="roi_percent > 20") == 1
    assert database.sql("SELECT type FROM stillwarm.entries WHERE key <> 'a' ORDER BY type") == [("other",), ("plain",)]
    assert invalidate(twins, key="scoring:B1:1") == 1
    assert keys(database) == ["a", "a"]
    put(database, "a", "scoring", payload=None)
    assert invalidate(twins, pattern="?") == 1
    assert keys(database) == []


# ------------------------------------------------------------------------------------------- a set and its mark


def test_admin_marks_of_the_own_transaction_leave_the_entry_alone(database: Database, place: Place) -> None:
    with psycopg.connect(database.url) as writer:
        for key, type in (("a", "plain"), ("scoring:B1:1", "scoring")):
            writer.execute(ENTRY, [key, type, None, None])
            for soft in (False, True):
                writer.execute(
                    "INSERT INTO stillwarm.invalidations (namespace, name, soft) VALUES ('shop', %s, %s)",
                    [f"key:{key}", soft],
                )
        writer.execute(ROW, ["scoring:B1:1"])
    put(database, "b")
    assert look_up(database) == {("a", "plain"): False, ("scoring:B1:1", "scoring"): False, ("b", "plain"): False}
    assert [one.key for one in find(place)] == ["a", "b", "scoring:B1:1"]
    purge(place, retention=0)
    assert marks(database) == []
    assert [one.key for one in find(place)] == ["a", "b", "scoring:B1:1"]
    assert database.sql("SELECT bool_and(fresh_until > now()) FROM stillwarm.entries") == [(True,)]
    invalidate(place, key="b")  # another transaction's does count
    put(database, "c")
    database.sql("INSERT INTO stillwarm.invalidations (namespace, name) VALUES ('shop', 'key:c')")
    assert purge(place, retention=0)["plain"] == 1
    assert keys(database) == ["a", "scoring:B1:1"]


# ---------------------------------------------------------------------------------------------------- the fence

BY: dict[str, Callable[[Place], Any]] = {
    "pattern": lambda place: invalidate(place, pattern="s*"),
    "stale pattern": lambda place: invalidate(place, pattern="s*", stale=True),
    "where": lambda place: invalidate(place, type="scoring", where="roi_percent > 20"),
    "stale where": lambda place: invalidate(place, type="scoring", where="roi_percent > 20", stale=True),
}


@pytest.mark.parametrize("by", BY)
def test_admin_marks_what_is_stored_beside_an_invalidation_is_dead_and_purged(
    database: Database, place: Place, by: str
) -> None:
    born = snapshot(database)
    with psycopg.connect(database.url) as early:
        early.execute(ENTRY, ["before", "plain", None, born])
    with psycopg.connect(database.url) as beside:
        beside.execute(ENTRY, ["s", "plain", None, born])
        beside.execute(ENTRY, ["scoring:B1:1", "scoring", None, born])
        beside.execute(ROW, ["scoring:B1:1"])
        # It began before and has not ended: what is invalidated does not see its rows, and does not wait for them.
        assert BY[by](place) == 0
    put(database, "s2")
    expected = {
        ("before", "plain"): False,
        ("s", "plain"): True,
        ("scoring:B1:1", "scoring"): True,
        ("s2", "plain"): False,
    }
    assert look_up(database) == expected
    assert [one.key for one in find(place)] == ["before", "s2"]
    assert "fence" in marks(database)
    assert purge(place, retention=0) == {"discovery": 0, "scoring": 1, "plain": 1}
    assert marks(database) == []
    assert keys(database) == ["before", "s2"]
    assert keys(database, "product_scoring_cache", "cache_key") == []


def test_admin_marks_fence_stays_while_what_it_invalidates_is_locked(database: Database, place: Place) -> None:
    with psycopg.connect(database.url) as beside:
        beside.execute(ENTRY, ["s", "plain", None, None])
        invalidate(place, pattern="s*")
    with session(database) as other:
        other.execute("SELECT FROM stillwarm.entries FOR UPDATE")
        purge(place, retention=0)
        assert look_up(database) == {("s", "plain"): True}
    assert purge(place, retention=0)["plain"] == 1


@pytest.mark.parametrize("by", ["pattern", "where"])
def test_admin_marks_row_that_is_locked_is_dead_by_a_mark_and_not_waited_for(
    database: Database, place: Place, by: str
) -> None:
    key, foreign = score(database, "B1", 30), score(database, "B2", 30, entry=False)
    with session(database) as other:
        other.execute("SELECT FROM stillwarm.entries FOR UPDATE")
        other.execute("SELECT FROM product_scoring_cache FOR UPDATE")
        assert BY[by](place) == 2
        assert {f"key:{key}", f"key:{foreign}", "fence"} <= set(marks(database))
    assert look_up(database) == {(key, "scoring"): True, (foreign, "scoring"): True}
    assert find(place) == []
    assert purge(place, retention=0)["scoring"] == 2
    assert keys(database) == []


# ---------------------------------------------------------------------------------------- the same as the look-up


def test_admin_marks_mean_the_same_as_to_the_look_up(database: Database, place: Place) -> None:
    chance = random.Random(7)
    names = ["a", "b", "scoring:B1:1", "scoring:B2:1"]
    snapshots: list[str] = []
    verdicts = set()
    with ExitStack() as stack:
        open_ = [stack.enter_context(psycopg.connect(database.url, options="-c lock_timeout=20")) for _ in range(4)]
        for step in range(250):
            snapshots = [*snapshots[-6:], snapshot(database)]
            session_ = chance.choice(open_)
            key, what = chance.choice(names), chance.random()
            try:
                if what < 0.4:
                    type = chance.choice(["plain", "other", "scoring"])
                    tags = chance.choice([None, ["red"], ["red", "blue"]])
                    session_.execute(ENTRY, [key, type, tags, chance.choice([None, *snapshots])])
                    if type == "scoring":
                        session_.execute(ROW, [key])
                elif what < 0.5:
                    session_.execute(ROW, [key])
                elif what < 0.7:
                    name = chance.choice(["all", "type:plain", "type:scoring", "tag:blue", f"key:{key}", "fence"])
                    session_.execute(
                        "INSERT INTO stillwarm.invalidations (namespace, name, soft, seen) VALUES ('shop', %s, %s, "
                        "CASE WHEN %s = 'fence' THEN pg_current_snapshot() END)",
                        [name, name != "fence" and chance.random() < 0.4, name],
                    )
                else:
                    session_.commit()
            except psycopg.errors.LockNotAvailable:
                session_.rollback()
            if step % 10 == 9:
                expected = database.sql(LOOK_UP)
                got = [
                    *database.sql(
                        f"SELECT e.key, e.type, {place.dead()}, {place.stale_at()} FROM stillwarm.entries e "
                        "WHERE e.namespace = $1 AND e.type <> 'scoring'".replace("$1", "'shop'")
                    ),
                    *database.sql(
                        f"SELECT t.cache_key, 'scoring', {place.dead(scoring())}, {place.stale_at(scoring())} "
                        f"FROM product_scoring_cache t LEFT JOIN stillwarm.entries e ON {place.entry_of(scoring())}"
                        .replace("$1", "'shop'")
                    ),
                ]  # fmt: skip
                assert sorted(got, key=repr) == sorted(expected, key=repr)
                verdicts |= {(type == "scoring", dead, at is not None) for _, type, dead, at in expected}
                if step % 50 == 49:
                    database.sql("DELETE FROM stillwarm.invalidations")
    assert len(verdicts) == 8  # every outcome was there


# ------------------------------------------------------------------------------------------------------- deadlocks

# What the core does by key: entries first, typed rows then, and it waits.
BY_KEY = (
    "WITH told AS (INSERT INTO stillwarm.invalidations (namespace, name) SELECT 'shop', 'key:' || k FROM "
    "unnest($1::text[]) k), locked AS MATERIALIZED (SELECT key, type FROM stillwarm.entries WHERE namespace = 'shop' "
    "AND key = ANY ($1::text[]) ORDER BY key, type FOR UPDATE), gone AS (DELETE FROM stillwarm.entries e "
    "USING locked l WHERE e.namespace = 'shop' AND e.key = l.key AND e.type = l.type RETURNING e.key), "
    "locked0 AS MATERIALIZED (SELECT cache_key AS key FROM product_scoring_cache WHERE cache_key = ANY ($1::text[]) "
    "ORDER BY 1 FOR UPDATE), gone0 AS (DELETE FROM product_scoring_cache t USING locked0 l WHERE t.cache_key = l.key "
    "RETURNING t.cache_key AS key) SELECT key::text FROM gone UNION SELECT key::text FROM gone0"
)
STORE = (
    "WITH w AS (INSERT INTO stillwarm.entries SELECT 'shop', k, 'scoring', NULL, NULL, pg_current_snapshot(), "
    "pg_current_xact_id(), now(), now() + interval '1 h', now() + interval '1 h', 0 FROM unnest($1::text[]) k "
    'ORDER BY k COLLATE "C" ON CONFLICT (namespace, key, type) DO UPDATE SET born = excluded.born, '
    "version = excluded.version RETURNING key), own AS (INSERT INTO product_scoring_cache SELECT key, 'B', 30, 1, "
    "'BUY', NULL, 1, 1, now(), now() + interval '1 h', 0 FROM w ORDER BY key COLLATE \"default\" "
    "ON CONFLICT (cache_key) DO UPDATE SET created_at = excluded.created_at) SELECT key FROM w"
)


def test_admin_marks_a_condition_never_meets_a_deadlock_with_what_goes_by_key(place: Place) -> None:
    names = [f"scoring:B{number}:1" for number in range(12)]
    gate = threading.Barrier(6)

    def some(chance: random.Random) -> list[str | None]:
        return ["{" + ",".join(chance.sample(names, 8)) + "}"]

    def one(seed: int) -> None:
        chance = random.Random(seed)
        gate.wait()
        for _ in range(150):
            if seed < 2:
                place.query(STORE, some(chance))
            elif seed < 4:
                place.query(BY_KEY, some(chance))
            else:
                least = {"least": chance.randrange(40)}
                place.query(*where_sql(place, "scoring", "roi_percent > :least", least, stale=chance.random() < 0.2))

    with ThreadPoolExecutor(6) as pool:
        for future in [pool.submit(one, seed) for seed in range(6)]:
            future.result()  # no TierRejected


WAITING = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'transactionid'"


@pytest.mark.parametrize("waits", [False, True], ids=["as it is", "control: it waits, in an order of its own"])
def test_admin_marks_a_condition_waits_for_nobody(place: Place, database: Database, waits: bool) -> None:
    """Another holds the first row and wants the second; the condition comes from the other end."""
    for key in ("scoring:B1:1", "scoring:B2:1"):
        place.query(STORE, [f"{{{key}}}"])
    lock = "SELECT 1 FROM product_scoring_cache WHERE cache_key = %s FOR UPDATE"
    sql, values = where_sql(place, "scoring", "roi_percent > :least", {"least": -1})
    if waits:
        sql = sql.replace(" FOR UPDATE SKIP LOCKED", " DESC FOR UPDATE")
    failures: list[str | None] = []
    with ThreadPoolExecutor(1) as pool, psycopg.connect(database.url) as other:
        other.execute("SET LOCAL deadlock_timeout = '10ms'")  # it is the one that notices: the library tries again
        other.execute(lock, ["scoring:B1:1"])
        condition = pool.submit(place.query, sql, values)
        if waits:
            with psycopg.connect(database.url, autocommit=True) as watcher:
                eventually(lambda: watcher.execute(WAITING).fetchone() == (1,))
        else:
            condition.result()
        try:
            other.execute(lock, ["scoring:B2:1"])
            other.commit()
        except psycopg.errors.DeadlockDetected as error:
            failures.append(error.sqlstate)
            other.rollback()
        condition.result()
    assert failures == (["40P01"] if waits else [])
