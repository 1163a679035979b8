"""The schema on a real server: made, brought forward from earlier layouts with data in them, and verified.

Thread rule: migrations run in threads that start together.
Refuses to know: entries.
"""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from postgres_here import Database
from reference_tables import HISTORY, HISTORY_INDEXES, OLDER, discovery, scoring
from stillwarm import ConfigError
from stillwarm._schema import declared_tables, migrate, setup_table, sql
from stillwarm._tables import typed_table
from stillwarm._verify import verify
from stillwarm.errors import TierRejected
from stillwarm.journal import Journal
from stillwarm.tables import Step


def columns(database: Database, table: str) -> dict[str, tuple[str, str, str | None]]:
    rows = database.sql(
        "SELECT column_name, data_type || coalesce('(' || character_maximum_length || ')', ''), is_nullable, "
        "column_default FROM information_schema.columns WHERE table_name = %s ORDER BY ordinal_position",
        table,
    )
    return {str(name): (kind, nullable, default) for name, kind, nullable, default in rows}  # type: ignore[misc]


def indexes(database: Database, table: str) -> set[str]:
    return {str(row[0]) for row in database.sql("SELECT indexname FROM pg_indexes WHERE tablename = %s", table)}


def test_schema_is_made_as_declared_and_verified(database: Database) -> None:
    history = Journal(database.query, "search_history", HISTORY, HISTORY_INDEXES)
    tables = [discovery(), scoring(), history]
    done = migrate(database.query, tables)
    assert not done.already
    assert done.collapsed == {}
    report = verify(database.query, tables)
    assert (report.differences, report.warnings, report.time_zone, report.schema_version) == ((), (), "UTC", 1)
    assert [table.name for table in report.tables][:7] == [
        f"stillwarm.{name}"
        for name in ("entries", "invalidations", "floors", "leases", "flushes", "idempotency", "meta")
    ]
    assert columns(database, "product_discovery_cache") == {
        "cache_key": ("character varying(255)", "NO", None),
        "domain": ("integer", "NO", None),
        "category": ("integer", "YES", None),
        "bsr_min": ("integer", "YES", None),
        "bsr_max": ("integer", "YES", None),
        "price_min": ("double precision", "YES", None),
        "price_max": ("double precision", "YES", None),
        "asins": ("json", "NO", None),
        "count": ("integer", "NO", None),
        "created_at": ("timestamp without time zone", "YES", "now()"),
        "expires_at": ("timestamp without time zone", "NO", None),
        "hit_count": ("integer", "YES", "0"),
    }
    assert indexes(database, "product_discovery_cache") == {
        "product_discovery_cache_pkey",
        "idx_discovery_expires_at",
        "idx_discovery_created_at",
    }
    assert columns(database, "search_history")["id"] == ("character varying(36)", "NO", "gen_random_uuid()")
    assert indexes(database, "search_history") == {"search_history_pkey", *HISTORY_INDEXES}
    json.dumps(report.as_dict())


def test_schema_second_migration_does_nothing_and_locks_nothing(database: Database) -> None:
    migrate(database.query, [scoring()])
    with psycopg.connect(database.url) as other:
        other.execute("LOCK TABLE product_scoring_cache, stillwarm.entries IN ROW EXCLUSIVE MODE")
        assert migrate(database.query, [scoring()]).already
        database.sql(sql([scoring()]))  # the whole statement again: every guard holds


def test_schema_migrations_of_many_processes_do_not_collide(database: Database) -> None:
    gate = threading.Barrier(8)

    def one() -> bool:
        verify(database.query)  # its session remembers that there is nothing
        gate.wait()
        return migrate(database.query, [discovery(), scoring()]).already

    with ThreadPoolExecutor(8) as pool:
        results = [future.result() for future in [pool.submit(one) for _ in range(8)]]
    assert False in results
    assert verify(database.query, [discovery(), scoring()]).ok


def test_schema_of_one_table_runs_alone_and_again(database: Database) -> None:
    fill_older(database)
    database.sql(setup_table(discovery(), schema="warm"))
    assert verify(database.query, [discovery()], schema="warm").ok
    assert database.sql("SELECT count(*) FROM product_discovery_cache") == [(len(OLD_ROWS) - 1,)]
    database.sql(setup_table(scoring(), schema="warm"))
    with psycopg.connect(database.url) as other:
        other.execute("LOCK TABLE product_scoring_cache, warm.entries IN ROW EXCLUSIVE MODE")
        database.sql(setup_table(scoring(), schema="warm"))
    assert list(declared_tables(database.query, "warm")) == ["discovery", "scoring"]
    assert migrate(database.query, [discovery(), scoring()], schema="warm").already


def test_schema_may_have_another_name_and_unlogged_entries(database: Database) -> None:
    migrate(database.query, schema="Warm", unlogged=True)
    kinds = dict(
        database.sql(
            "SELECT relname, relpersistence::text FROM pg_class WHERE relnamespace = '\"Warm\"'::regnamespace "
            "AND relkind = 'r'"
        )
    )
    assert kinds == {
        "entries": "u", "invalidations": "p", "floors": "p", "leases": "u", "flushes": "p", "idempotency": "p",
        "meta": "p",
    }  # fmt: skip
    assert verify(database.query, schema="Warm", unlogged=True).ok
    assert any("is not LOGGED" in one for one in verify(database.query, schema="Warm").differences)
    with pytest.raises(ConfigError, match="schema"):
        migrate(database.query, schema='a"b')


OLD_ROWS = [
    # (key, filters, ids, created)
    (
        "md5-a",
        {"domain": 1, "category": 281, "bsr_min": 100, "bsr_max": 500, "price_min": 10, "price_max": 50.5},
        ["A"],
        1,
    ),
    (
        "md5-b",
        {"domain": 1, "category": 281, "bsr_min": 100, "bsr_max": 500, "price_min": 20, "price_max": 50},
        ["B"],
        1,
    ),
    ("md5-c", {"domain": 4, "category": None, "bsr_min": None, "bsr_max": None}, ["C", "D"], 1),
    ("old-d", {"category": 0, "bsr_min": 1, "bsr_max": 2, "price_min": None, "price_max": 3.25}, ["old"], 1),
    ("new-d", {"category": 0, "bsr_min": 1, "bsr_max": 2, "price_max": 3.25, "domain": 1}, ["new"], 2),
    # Its key is the new key of another row: keys move in two steps.
    ("discovery:1:281:100-500:10.0-50.5", {"domain": 9, "category": 9, "bsr_min": 9.0, "bsr_max": 9}, [], 1),
]


def fill_older(database: Database) -> None:
    database.sql(OLDER)
    for key, filters, ids, day in OLD_ROWS:
        database.sql(
            "INSERT INTO product_discovery_cache VALUES (%s, %s, %s, %s, %s, '2030-01-01', 3)",
            key, json.dumps(filters), json.dumps(ids), len(ids), f"2026-01-0{day}",
        )  # fmt: skip


def test_schema_older_layout_is_rekeyed_and_nothing_is_lost(database: Database) -> None:
    fill_older(database)
    done = migrate(database.query, [discovery()])
    assert done.collapsed == {"product_discovery_cache": 1}
    rows = dict(database.sql("SELECT cache_key, asins FROM product_discovery_cache"))
    assert rows == {
        "discovery:1:281:100-500:10.0-50.5": ["A"],
        "discovery:1:281:100-500:20.0-50.0": ["B"],
        "discovery:4:0:None-None:None-None": ["C", "D"],
        "discovery:1:0:1-2:None-3.25": ["new"],
        "discovery:9:9:9-9:None-None": [],
    }
    for key, *columns_ in database.sql(
        "SELECT cache_key, domain, category, bsr_min, bsr_max, price_min, price_max FROM product_discovery_cache"
    ):
        d, c, low, high, cheap, dear = columns_
        assert key == f"discovery:{d}:{c or 0}:{low}-{high}:{cheap}-{dear}"  # as the app's own code makes it
    assert database.sql("SELECT sum(hit_count) FROM product_discovery_cache") == [(15,)]
    assert verify(database.query, [discovery()]).ok
    assert migrate(database.query, [discovery()]).already


def test_schema_older_layout_whose_step_fails_stays_as_it_was(database: Database) -> None:
    fill_older(database)
    database.sql("UPDATE product_discovery_cache SET filters_applied = '{\"domain\": \"x\"}' WHERE cache_key = 'md5-b'")
    before = database.sql("SELECT cache_key, filters_applied::text FROM product_discovery_cache ORDER BY 1")
    with pytest.raises(TierRejected):
        migrate(database.query, [discovery()])
    assert database.sql("SELECT cache_key, filters_applied::text FROM product_discovery_cache ORDER BY 1") == before
    assert database.sql("SELECT to_regclass('stillwarm.entries')::text") == [(None,)]


def test_schema_missing_columns_and_indexes_are_added_to_a_table_with_rows(database: Database) -> None:
    database.sql(
        "CREATE TABLE product_scoring_cache (cache_key varchar(255), asin varchar(20), roi_percent float, "
        "created_at timestamp, expires_at timestamp)"
    )
    database.sql("INSERT INTO product_scoring_cache VALUES ('k', 'B1', 1.5, now(), now())")
    table = scoring()
    with pytest.raises(TierRejected, match=r"velocity_score is to be NOT NULL.*Step") as caught:
        migrate(database.query, [table])
    assert caught.value.sqlstate == "SW001"
    database.sql("ALTER TABLE product_scoring_cache ADD COLUMN v1 int")
    steps = [
        "UPDATE product_scoring_cache SET velocity_score = 0, recommendation = 'SKIP'",
        "ALTER TABLE product_scoring_cache DROP COLUMN v1",
    ]
    import dataclasses

    table = dataclasses.replace(table, history=(Step("v1", steps),))
    assert not migrate(database.query, [table]).already
    assert verify(database.query, [table]).ok
    assert database.sql("SELECT cache_key, velocity_score, recommendation, hit_count FROM product_scoring_cache") == [
        ("k", 0.0, "SKIP", 0)
    ]


def test_schema_step_that_leaves_its_column_is_refused(database: Database) -> None:
    database.sql("CREATE TABLE t (cache_key varchar(255) PRIMARY KEY, old int, expires_at timestamp NOT NULL)")
    table = typed_table("t", table="t", columns={"a": "int"}, history=[Step("old", ["UPDATE t SET a = old"])])
    with pytest.raises(TierRejected, match="must drop or rename it"):
        migrate(database.query, [table])


def test_schema_duplicates_that_block_the_key_come_with_the_sql_that_keeps_the_newest(
    database: Database,
) -> None:
    table = typed_table("t", table="t", columns={"a": "int"})
    migrate(database.query, [table])
    database.sql("ALTER TABLE t DROP CONSTRAINT t_pkey")
    database.sql("INSERT INTO t (cache_key, a, created_at, expires_at) VALUES ('k', 1, '2026-01-01', now()), "
                 "('k', 2, '2026-01-02', now()), ('k', 0, NULL, now()), ('l', 3, now(), now())")  # fmt: skip
    (difference,) = verify(database.query, [table]).differences
    assert "2 duplicate rows" in difference
    with pytest.raises(TierRejected, match="keeps the newest"):
        migrate(database.query, [table])
    database.sql(difference.partition("newest of each: ")[2])
    assert database.sql("SELECT cache_key, a FROM t ORDER BY 1") == [("k", 2), ("l", 3)]
    migrate(database.query, [table])
    assert verify(database.query, [table]).ok


def test_schema_touches_only_its_own_tables(database: Database) -> None:
    database.sql("CREATE TABLE users (id int, product_scoring_cache int)")
    before = database.sql("SELECT oid, relfilenode, reloptions FROM pg_class WHERE relname = 'users'")
    migrate(database.query, [scoring()])
    assert database.sql("SELECT oid, relfilenode, reloptions FROM pg_class WHERE relname = 'users'") == before


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("ALTER TABLE t ALTER a TYPE bigint", "t.a is bigint, declared integer"),
        ("ALTER TABLE t ADD COLUMN more int", "t.more is not declared"),
        ("ALTER TABLE t DROP COLUMN a", "t.a is missing"),
        ("ALTER TABLE t ALTER a SET NOT NULL", "t.a is NOT NULL, declared otherwise"),
        ("ALTER TABLE t ALTER expires_at DROP NOT NULL", "t.expires_at is nullable"),
        ("ALTER TABLE t ALTER hit_count SET DEFAULT 5", "t.hit_count has the default 5, declared 0"),
        ("DROP INDEX t_a_idx", "t_a_idx of t is missing"),
        ("DROP INDEX t_a_idx; CREATE INDEX t_a_idx ON t (expires_at)", "t_a_idx is otherwise"),
        ("ALTER TABLE t DROP CONSTRAINT t_pkey", "t has no primary key or unique index over cache_key: still"),
        ("DROP TABLE t", "t is missing"),
        ("DROP TABLE stillwarm.leases", "stillwarm.leases is missing"),
        ("DROP INDEX stillwarm.entries_tags", "entries_tags of stillwarm.entries is missing"),
        ("UPDATE stillwarm.meta SET value = 9 WHERE name = 'schema_version'", "schema_version is 9"),
    ],
)
def test_schema_verify_names_each_difference(database: Database, change: str, named: str) -> None:
    table = typed_table("t", table="t", columns={"a": "int"}, indexes=["a"])
    migrate(database.query, [table])
    for one in change.split("; "):
        database.sql(one)
    differences = verify(database.query, [table]).differences
    assert any(named in one for one in differences), differences


def test_schema_of_a_newer_version_is_left_alone(database: Database) -> None:
    migrate(database.query)
    database.sql("UPDATE stillwarm.meta SET value = 9 WHERE name = 'schema_version'")
    with pytest.raises(ConfigError, match="version 9, of a newer stillwarm"):
        migrate(database.query)


def test_schema_time_zone_that_is_not_utc_is_a_warning(database: Database) -> None:
    migrate(database.query)
    database.sql(f"ALTER DATABASE {database.url.rpartition('/')[2]} SET timezone TO 'Europe/Berlin'")
    report = verify(database.query)
    assert report.ok
    assert report.time_zone == "Europe/Berlin"
    assert "not UTC" in report.warnings[0]


def test_schema_keeps_the_declared_layouts_in_the_database(database: Database) -> None:
    assert declared_tables(database.query) == {}
    migrate(database.query, [discovery(), scoring()])
    found = declared_tables(database.query)
    assert list(found) == ["discovery", "scoring"]
    assert found["scoring"].layout() == scoring().layout()
