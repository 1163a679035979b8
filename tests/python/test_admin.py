"""Find, top, figures, invalidation by SQL, purge and caps, on a real server.

Thread rule: a second session holds locks or transactions open; nothing waits for time to pass.
Refuses to know: how entries get there; rows are written here by plain SQL.
"""

from __future__ import annotations

import logging
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from typing import Any

import pytest

from postgres_here import Database
from reference_tables import HISTORY, discovery, scoring
from stillwarm import ConfigError
from stillwarm._admin import find, stats, top
from stillwarm._cron import pg_cron_sql, procedure_name, procedure_sql
from stillwarm._invalidate_sql import invalidate
from stillwarm._place import Place
from stillwarm._purge import purge, trim
from stillwarm._schema import migrate
from stillwarm._tables import typed_table
from stillwarm._where import condition, where_sql
from stillwarm.journal import Journal
from storing import TABLES, keys, put, score, session


@pytest.fixture
def place(database: Database) -> Place:
    migrate(database.query, [discovery(), scoring()])
    return Place(database.query, "shop", "stillwarm", TABLES)


# ------------------------------------------------------------------------------------------------------------ find


def test_admin_find_by_type_and_tag(database: Database, place: Place) -> None:
    put(database, "a", tags=["red", "big"], payload=b"\x00\xff", hits=3)
    put(database, "b", tags=["red"], expires="-1 second")
    put(database, "c", type="other", tags=["red"])
    put(database, "d", namespace="elsewhere", tags=["red"])
    key = score(database, "B1", 31.5, tags=["red"], hits=2)
    assert [one.key for one in find(place, tag="red")] == ["a", "c", key]
    assert [one.key for one in find(place, type="plain")] == ["a"]
    assert [one.key for one in find(place, limit=1)] == ["a"]
    assert find(place, tag="blue") == []
    (one,) = find(place, type="plain", tag="big")
    assert (one.value, one.hit_count, one.tags) == (b"\x00\xff", 3, ("red", "big"))
    assert one.created_at is not None
    assert abs((datetime.now(timezone.utc) - one.created_at).total_seconds()) < 60
    (row,) = find(place, type="scoring")
    assert isinstance(row.value, dict)
    assert (row.value["roi_percent"], row.value["title"], row.hit_count, row.tags) == (31.5, None, 2, ("red",))


def test_admin_find_by_condition_with_parameters(database: Database, place: Place) -> None:
    for asin, roi in [("B1", 10), ("B2", 30), ("B3", 50)]:
        score(database, asin, roi, entry=asin != "B2")

    def asins(where: str, **params: Any) -> list[str]:
        return [one.value["asin"] for one in find(place, type="scoring", where=where, params=params)]  # type: ignore[index]

    assert asins("roi_percent > :least AND roi_percent < :most", least=20, most=40.5) == ["B2"]
    assert asins("roi_percent > :x OR roi_percent = :x - 20 -- comment", x=30) == ["B1", "B3"]
    assert asins("asin = ANY (:some)", some=["B1", "B3", "x'; DROP TABLE product_scoring_cache"]) == ["B1", "B3"]
    assert asins("asin = :a", a="' OR true --") == []
    assert asins("recommendation <> ':least' AND roi_percent::int = 30") == ["B2"]
    assert asins("title IS NOT DISTINCT FROM :t::varchar AND roi_percent < 20", t=None) == ["B1"]


def test_admin_find_gives_the_payload_of_a_typed_row_that_has_one(database: Database) -> None:
    table = typed_table("t", table="t", columns={"a": "int"})
    migrate(database.query, [table])
    database.sql("INSERT INTO t VALUES ('k', 5, '\\x00ff', now(), now() + interval '1 h', 0)")
    (found,) = find(Place(database.query, "shop", "stillwarm", {"t": table}), type="t", where="a = :a", params={"a": 5})
    assert found.value == {"a": 5, "payload": b"\x00\xff"}


def test_admin_find_does_not_see_what_was_invalidated(database: Database, place: Place) -> None:
    put(database, "a", tags=["red"])
    put(database, "b")
    entry, foreign = score(database, "B1", 1), score(database, "B2", 1, entry=False)
    assert invalidate(place, tag="red") is None
    assert [one.key for one in find(place)] == ["b", entry, foreign]
    invalidate(place, type="scoring")
    assert [one.key for one in find(place)] == ["b"]
    put(database, "c", tags=["red"])  # loaded after the mark
    assert [one.key for one in find(place)] == ["b", "c"]
    invalidate(place, all=True, stale=True)
    assert [one.key for one in find(place)] == ["b", "c"]
    invalidate(place, all=True)
    assert find(place) == []


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"where": "true"}, "type=None: where= needs a type with a table"),
        ({"where": "true", "type": "plain"}, "accepted: discovery, scoring"),
        ({"where": "a = :b", "type": "scoring"}, "params has no 'b'"),
        ({"where": "true", "params": {"b": 1}, "type": "scoring"}, "does not use it"),
        ({"where": "true; DROP TABLE x", "type": "scoring"}, "without a semicolon"),
        ({"where": "asin = $1", "type": "scoring"}, "parameters are written as :name"),
        ({"where": " ", "type": "scoring"}, "where=' '"),
        ({"limit": 0}, "limit=0"),
    ],
)
def test_admin_find_names_a_wrong_argument(place: Place, arguments: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named.replace("$", r"\$")):
        find(place, **arguments)


def test_admin_condition_leaves_quotes_casts_and_comments_alone() -> None:
    text, values = condition("a = :x AND b = ':y' AND c::int = :z -- :w\n AND \"d:e\" = $q$:v$q$ AND f = :x",
                             {"x": 1, "z": True}, 2)  # fmt: skip
    assert text == "(a = $3 AND b = ':y' AND c::int = $4 -- :w\n AND \"d:e\" = $q$:v$q$ AND f = $3\n)"
    assert values == ["1", "true"]


# ---------------------------------------------------------------------------------------------------- figures


def test_admin_top_and_stats_count_shared_and_typed(database: Database, place: Place) -> None:
    put(database, "a", hits=5, payload=b"12345")
    put(database, "b", hits=1, expires="-1 second")
    put(database, "u", type="unknown")
    score(database, "B1", 1, hits=9)
    score(database, "B2", 1, expires="-1 second", hits=50)
    assert [(hot.key, hot.type, hot.hits) for hot in top(place, 2)] == [
        ("scoring:B1:1", "scoring", 9),
        ("a", "plain", 5),
    ]
    figures = stats(place)
    plain, typed = figures.types["plain"], figures.types["scoring"]
    assert (plain.entries, plain.hits, plain.average_hits, plain.expired, plain.bytes) == (2, 6, 3.0, 1, 6)
    assert (typed.entries, typed.hits, typed.expired, typed.table) == (2, 59, 1, "product_scoring_cache")
    assert typed.bytes > 8192
    assert figures.types["discovery"].entries == 0
    assert figures.types["unknown"].entries == 1
    assert (figures.entries, figures.expired) == (5, 2)
    assert figures.shared_table_bytes > 0
    with pytest.raises(ConfigError, match="n=0"):
        top(place, 0)


# ------------------------------------------------------------------------------------------------ invalidation


def test_admin_where_invalidation_deletes_marks_and_returns_keys(database: Database, place: Place) -> None:
    low, high = score(database, "B1", 10), score(database, "B2", 30)
    foreign = score(database, "B3", 40, entry=False)
    sql, values = where_sql(place, "scoring", "roi_percent > :least", {"least": 20}, origin="me")
    assert [row[0] for row in place.query(sql, values)] == [high, foreign]
    assert keys(database, "product_scoring_cache", "cache_key") == [low]
    assert keys(database) == [low]
    assert database.sql('SELECT name, soft, origin FROM stillwarm.invalidations ORDER BY name COLLATE "C"') == [
        ("fence", False, "me"), (f"key:{high}", False, "me"), (f"key:{foreign}", False, "me"),
    ]  # fmt: skip
    assert invalidate(place, type="scoring", where="false") == 0  # the fence all the same
    assert database.sql("SELECT count(seen) FROM stillwarm.invalidations WHERE name = 'fence'") == [(2,)]


def test_admin_where_invalidation_may_leave_rows_stale(database: Database, place: Place) -> None:
    key = score(database, "B1", 10)
    assert invalidate(place, type="scoring", where="asin = :a", params={"a": "B1"}, stale=True) == 1
    assert keys(database, "product_scoring_cache", "cache_key") == [key]
    assert database.sql('SELECT name, soft FROM stillwarm.invalidations ORDER BY name COLLATE "C"') == [
        ("fence", False), (f"key:{key}", True),
    ]  # fmt: skip
    (found,) = find(place, type="scoring")
    assert found.fresh_until is not None
    assert found.fresh_until <= datetime.now(timezone.utc)


def test_admin_invalidation_by_key_and_glob(database: Database, place: Place) -> None:
    for key in ("cache:search:1", "cache:search:22", "cache:user:1", "a.c", "abc", "a_c", "日本:1"):
        put(database, key)
    score(database, "B1", 1)
    assert invalidate(place, pattern="cache:search:?") == 1
    assert invalidate(place, pattern="cache:*") == 2
    assert invalidate(place, pattern="a.c") == 1
    assert invalidate(place, pattern="a[!x-z]c") == 2
    assert invalidate(place, pattern="日本*") == 1
    assert invalidate(place, pattern="scoring:*") == 1
    assert keys(database) == []
    assert keys(database, "product_scoring_cache", "cache_key") == []
    assert invalidate(place, key="not there") == 0
    names = keys(database, "stillwarm.invalidations", "name")
    assert names == ["fence"] * 6 + ["key:not there"] + [
        f"pattern:{glob}" for glob in ("a.c", "a[!x-z]c", "cache:*", "cache:search:?", "scoring:*", "日本*")
    ]  # fmt: skip


@pytest.mark.parametrize("intent", [{}, {"key": "a", "tag": "b"}, {"where": "true"}, {"key": "a", "type": "b"}])
def test_admin_invalidation_wants_one_intent(place: Place, intent: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="exactly one"):
        invalidate(place, **intent)


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


def test_admin_clearing_the_caches_leaves_the_journal(database: Database, place: Place) -> None:
    with Journal(database.query, "search_history", HISTORY) as journal:
        migrate(database.query, [journal])
        journal.record(search_type="discovery", filters={}, results_count=1)
        journal.flush()
        score(database, "B1", 1)
        invalidate(place, all=True)
        purge(place, retention=0)
        assert journal.count_by("search_type") == {"discovery": 1}
        assert keys(database, "product_scoring_cache", "cache_key") == []
