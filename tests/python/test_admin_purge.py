"""The purge of expired and invalidated rows, caps, and the procedure that does the same by pg_cron, on a real server.

Thread rule: a second session holds locks or transactions open; nothing waits for time to pass.
Refuses to know: how entries get there; rows are written here by plain SQL.
"""

from __future__ import annotations

import logging
import random
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from postgres_here import Database
from reference_tables import HISTORY, discovery, scoring
from stillwarm import ConfigError
from stillwarm._admin import find
from stillwarm._cron import pg_cron_sql, procedure_name, procedure_sql
from stillwarm._invalidate_sql import invalidate
from stillwarm._place import Place
from stillwarm._purge import purge, trim
from stillwarm._schema import migrate
from stillwarm.journal import Journal
from storing import TABLES, keys, put, score, session


@pytest.fixture
def place(database: Database) -> Place:
    migrate(database.query, [discovery(), scoring()])
    return Place(database.query, "shop", "stillwarm", TABLES)


# ------------------------------------------------------------------------------------------------------- purge


def test_admin_purge_deletes_what_expired_and_nothing_else(
    database: Database, place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(25):
        put(database, f"old{number}", expires="-1 second")
    put(database, "new")
    put(database, "mine", namespace="elsewhere", expires="-1 second")
    living, _ = score(database, "B1", 1), score(database, "B2", 1, expires="-1 second")
    score(database, "B3", 1, expires="-1 second", entry=False)
    Journal(database.query, "search_history", HISTORY)
    database.sql("INSERT INTO stillwarm.leases VALUES ('shop', 'a', 'me', now() - interval '1 s'), "
                 "('shop', 'b', 'me', now() + interval '1 h')")  # fmt: skip
    database.sql("INSERT INTO stillwarm.flushes VALUES ('old', 1, now() - interval '8 days'), ('new', 1, now())")
    seen: list[tuple[int, int]] = []
    with caplog.at_level(logging.INFO, "stillwarm"):
        counts = purge(place, lambda done, total: seen.append((done, total)), 10)
    assert counts == {"discovery": 0, "scoring": 2, "plain": 25}
    assert "purged {'discovery': 0, 'scoring': 2, 'plain': 25}" in caplog.text
    assert seen[-1] == (27, 27)
    assert keys(database) == ["mine", "new", living]
    assert keys(database, "product_scoring_cache", "cache_key") == [living]
    assert keys(database, "stillwarm.leases") == ["b"]
    assert keys(database, "stillwarm.flushes", "process") == ["new"]
    assert purge(place) == {"discovery": 0, "scoring": 0, "plain": 0}


def test_admin_purge_waits_for_no_lock(database: Database, place: Place) -> None:
    for key in ("a", "b", "c"):
        put(database, key, expires="-1 second")
    typed = score(database, "B1", 1, expires="-1 second")
    with session(database) as other:
        other.execute("SELECT FROM stillwarm.entries WHERE key = 'b' FOR UPDATE")
        other.execute("SELECT FROM product_scoring_cache FOR UPDATE")
        assert purge(place)["plain"] == 2
        assert keys(database) == ["b", typed]
    assert purge(place) == {"discovery": 0, "scoring": 1, "plain": 1}
    assert keys(database) == []


def test_admin_purge_is_for_one_process_at_a_time(database: Database, place: Place) -> None:
    put(database, "a", expires="-1 second")
    with session(database) as other:
        other.execute("SELECT pg_advisory_xact_lock(hashtextextended('stillwarm purges stillwarm.shop', 0))")
        assert purge(place) == {"discovery": 0, "scoring": 0, "plain": 0}
        assert keys(database) == ["a"]
        assert purge(Place(database.query, "elsewhere", "stillwarm", {})) == {}
    assert purge(place)["plain"] == 1


def test_admin_purge_deletes_what_marks_invalidated_before_the_marks(database: Database, place: Place) -> None:
    put(database, "a", tags=["red"])
    put(database, "b")
    entry, foreign = score(database, "B1", 1), score(database, "B2", 1, entry=False)
    invalidate(place, tag="red")
    invalidate(place, key=entry)
    database.sql("INSERT INTO stillwarm.invalidations (namespace, name) VALUES ('shop', %s)", f"key:{foreign}")
    database.sql("INSERT INTO stillwarm.invalidations (namespace, name) VALUES ('elsewhere', 'all')")
    # Under the default retention the marks stay, what they invalidate goes.
    assert purge(place, batch=1) == {"discovery": 0, "scoring": 1, "plain": 1}
    assert keys(database) == ["b"]
    assert database.sql("SELECT count(*) FROM stillwarm.invalidations") == [(4,)]
    assert database.sql("SELECT count(*) FROM stillwarm.floors") == [(0,)]
    ((highest,),) = database.sql("SELECT max(xid::text::bigint) FROM stillwarm.invalidations WHERE namespace = 'shop'")
    assert purge(place, batch=1, retention=0) == {"discovery": 0, "scoring": 0, "plain": 0}
    assert keys(database, "stillwarm.invalidations", "namespace") == ["elsewhere"]
    assert database.sql("SELECT namespace, xid::text::bigint FROM stillwarm.floors") == [("shop", highest + 1)]  # type: ignore[operator]


def test_admin_many_that_store_count_purge_and_invalidate_are_in_no_deadlock(database: Database, place: Place) -> None:
    names = [score(database, f"B{number}", number) for number in range(20)]
    gate = threading.Barrier(6)
    store = (
        "WITH e AS (INSERT INTO stillwarm.entries SELECT 'shop', k, 'scoring', NULL, NULL, pg_current_snapshot(), "
        "pg_current_xact_id(), now(), now(), now() - interval '1 s', 0 FROM unnest($1::text[]) k ORDER BY k "
        "ON CONFLICT (namespace, key, type) DO UPDATE SET born = excluded.born, version = excluded.version "
        "RETURNING key) INSERT INTO product_scoring_cache SELECT key, 'B', 1, 1, 'BUY', NULL, 1, 1, now(), "
        "now() - interval '1 s', 0 "
        "FROM e ORDER BY key ON CONFLICT (cache_key) DO UPDATE SET hit_count = 1"
    )

    def writer(seed: int) -> None:
        chance = random.Random(seed)
        gate.wait()
        for _ in range(40):
            place.query(store, ["{" + ",".join(sorted(chance.sample(names, 8))) + "}"])

    def cleaner(seed: int) -> None:
        chance = random.Random(seed)
        gate.wait()
        for _ in range(20):
            purge(place, batch=5, retention=0)
            invalidate(place, type="scoring", where="roi_percent < :most", params={"most": chance.randrange(20)})
            invalidate(place, pattern=f"scoring:B{chance.randrange(10)}*")
            trim(place, max_rows=chance.randrange(20))

    with ThreadPoolExecutor(6) as pool:
        for future in [pool.submit(writer if seed < 4 else cleaner, seed) for seed in range(6)]:
            future.result()
    purge(place, retention=0)
    purge(place, retention=0)
    assert keys(database) == keys(database, "product_scoring_cache", "cache_key") == []


def test_admin_purge_keeps_marks_of_rows_that_it_could_not_delete(database: Database, place: Place) -> None:
    put(database, "a")
    put(database, "b")
    invalidate(place, type="plain")
    with session(database) as other:
        other.execute("SELECT FROM stillwarm.entries WHERE key = 'b' FOR UPDATE")
        assert purge(place, retention=0)["plain"] == 1
    # With the mark gone, b would be alive again.
    assert [one.key for one in find(place)] == []
    assert database.sql("SELECT count(*) FROM stillwarm.invalidations") == [(1,)]
    assert purge(place, retention=0)["plain"] == 1
    assert database.sql("SELECT count(*) FROM stillwarm.invalidations") == [(0,)]


def test_admin_purge_keeps_marks_that_a_running_transaction_may_not_see(database: Database, place: Place) -> None:
    with session(database) as other:
        other.execute("SELECT pg_current_xact_id()")  # older than the mark, so that xmin stays below it
        invalidate(place, all=True)
        purge(place, retention=0)
        assert database.sql("SELECT count(*) FROM stillwarm.invalidations") == [(1,)]
    purge(place, retention=0)
    assert database.sql("SELECT count(*) FROM stillwarm.invalidations") == [(0,)]


def test_admin_purge_writes_down_what_soft_marks_say(database: Database, place: Place) -> None:
    put(database, "a")
    entry = score(database, "B1", 1)
    score(database, "B2", 1, entry=False)
    invalidate(place, all=True, stale=True)
    purge(place, retention=0)
    assert keys(database) == ["a", entry]
    assert database.sql("SELECT DISTINCT fresh_until <= now(), expires_at > now() FROM stillwarm.entries") == [
        (True, True)
    ]
    assert database.sql("SELECT count(*) FROM stillwarm.invalidations") == [(0,)]
    put(database, "b")
    invalidate(place, all=True, stale=True)
    put(database, "c")  # not concerned
    purge(place, retention=0)
    assert database.sql("SELECT key FROM stillwarm.entries WHERE fresh_until > now()") == [("c",)]
    # A row of somebody else has no time in which it is stale; the other has, in entries.
    assert keys(database, "product_scoring_cache", "cache_key") == [entry]
    assert database.sql("SELECT expires_at <= now() FROM product_scoring_cache") == [(True,)]


def test_admin_purge_of_an_orphan_is_not_counted(database: Database, place: Place) -> None:
    put(database, "scoring:gone:1", "scoring", payload=None, expires="-1 second")
    kept = score(database, "B1", 1)
    database.sql("UPDATE stillwarm.entries SET expires_at = now() - interval '1 s' WHERE key = %s", kept)
    assert purge(place)["scoring"] == 0
    assert keys(database) == [kept]  # the typed row is alive, and its fence with it


def test_admin_trim_takes_the_least_used_first_and_of_these_the_oldest(database: Database, place: Place) -> None:
    for key, hits in [("a", 5), ("b", 0), ("c", 0), ("d", 1)]:
        put(database, key, hits=hits)
    typed = score(database, "B1", 1, hits=3)
    assert trim(place, max_rows=5) == {"discovery": 0, "scoring": 0, "plain": 0}
    assert trim(place, max_rows=4)["plain"] == 1
    assert keys(database) == ["a", "c", "d", typed]
    assert trim(place, max_rows=1, batch=2) == {"discovery": 0, "scoring": 1, "plain": 2}
    assert keys(database) == ["a"]
    put(database, "big", payload=random.Random(1).randbytes(5000))
    assert trim(place, max_bytes=400)["plain"] == 1
    assert keys(database) == ["a"]
    for wrong in ({}, {"max_rows": -1}, {"max_bytes": "x"}):
        with pytest.raises(ConfigError, match="max_"):
            trim(place, **wrong)  # type: ignore[arg-type]


# ----------------------------------------------------------------------------------------------------- pg_cron


def test_admin_cron_procedure_does_the_same_without_our_process(database: Database, place: Place) -> None:
    for number in range(5):
        put(database, f"old{number}", expires="-1 second")
    put(database, "dead", tags=["red"])
    put(database, "b")
    score(database, "B1", 1, expires="-1 second")
    living = score(database, "B2", 1)
    invalidate(place, tag="red")
    database.sql(procedure_sql(place, batch=2, retention=0))
    database.sql(f"CALL {procedure_name(place)}()")
    assert keys(database) == ["b", living]
    assert keys(database, "product_scoring_cache", "cache_key") == [living]
    assert database.sql("SELECT count(*) FROM stillwarm.invalidations") == [(0,)]
    assert database.sql("SELECT count(*) FROM stillwarm.floors") == [(1,)]


def test_admin_cron_script_names_the_schedule(place: Place) -> None:
    text = pg_cron_sql(place, "*/5 * * * *")
    assert (
        "cron.schedule('stillwarm purge stillwarm.shop', '*/5 * * * *', 'CALL \"stillwarm\".\"purge_shop\"()')" in text
    )
    with pytest.raises(ConfigError, match="schedule="):
        pg_cron_sql(place, "'; DROP TABLE x")
