"""Statements of the tier on tables that the planner knows nothing of: how many rows each touches.

Thread rule: one thread, a server of its own.
Refuses to know: how long it takes, what the statements say.

Until autovacuum has been there, the planner takes a namespace for a two-hundredth of the table. It must have no choice.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from outages import Shared, forget, shared
from stillwarm._servers import PostgresServer
from stillwarm._upkeep import ENOUGH

pytestmark = pytest.mark.servers

SETTINGS = {
    "autovacuum": "off",
    "session_preload_libraries": "auto_explain",
    "auto_explain.log_min_duration": "0",
    "auto_explain.log_analyze": "on",
    "auto_explain.log_timing": "off",
}
MANY = 3_000
MOST = 300  # rows that any part of a statement about a few keys may touch


@pytest.fixture(scope="module")
def server(postgres_template: Path) -> Iterator[PostgresServer]:
    with PostgresServer(template=postgres_template, settings=SETTINGS) as server:
        yield server


def filled(one: Shared, url: str) -> None:
    """Many entries, and marks that are younger than most of them and concern others."""
    one.cache.migrate()
    one.get("before")
    one.written()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO stillwarm.entries (namespace, key, type, payload, tags, born, version, created_at, "
            "fresh_until, expires_at) SELECT namespace, 'n' || n, type, payload, tags, born, version, created_at, "
            "fresh_until, expires_at FROM stillwarm.entries, generate_series(1, %s) AS n WHERE key = 'get:''before'''",
            [MANY],
        )
        connection.execute(
            "INSERT INTO stillwarm.invalidations (namespace, name, origin) SELECT 'default', 'key:other' || n, 'x' "
            "FROM generate_series(1, %s) AS n",
            [MANY],
        )
        assert connection.execute("SELECT max(reltuples) FROM pg_class WHERE relname = 'entries'").fetchone() == (-1,)


STATEMENTS = {
    "look-up of one": "SELECT e.payload, date_part",
    "look-up": "SELECT k.n, ",
    "load": "pg_snapshot, pg_current_snapshot()) AS seen",
    "add": "DO UPDATE SET payload = EXCLUDED.payload, tags = EXCLUDED.tags, born = EXCLUDED.born, version = "
    "EXCLUDED.version, created_at = EXCLUDED.created_at, fresh_until = EXCLUDED.fresh_until, expires_at = "
    "EXCLUDED.expires_at WHERE e.fresh_until",
    "swap": "WHERE e.version = $10",
    "set": "WITH given AS MATERIALIZED (SELECT g.*",
    "invalidate": "WITH told AS",
    "flush": "flushes AS f",
    "poll": "array_agg(coalesce(pg_xact_status",
}


def touched(log: str) -> dict[str, int]:
    """The most rows that a part of a statement touched, by its name. The poll's are those that it is to bring."""
    most: dict[str, int] = {}
    for plan in re.split(r"LOG:  duration: [0-9.]+ ms  plan:\n", log)[1:]:
        text = re.search(r"Query Text: (.*)", plan)
        assert text is not None
        name = next((name for name, part in STATEMENTS.items() if part in text[1]), text[1][:60])
        rows = [int(r) * int(loops) for r, loops in re.findall(r"actual rows=(\d+) loops=(\d+)", plan)]
        removed = [int(n) for n in re.findall(r"Rows Removed by \w+(?: \w+)?: (\d+)", plan)]
        if name != "poll":
            most[name] = max(most.get(name, 0), 0, *rows, *removed)
    return most


def test_plans_of_a_few_keys_touch_a_few_rows(server: PostgresServer) -> None:
    url = server.new_database()
    with shared(url, timeout="20s", tags=["t"], max_lag="1h") as one:
        filled(one, url)
        for key in ("before", "after"):
            one.get(key)
        one.cache.set_many({f"d{n}": n for n in range(5)})
        one.written()
        begin = len(server.log)
        for n in range(8):  # five times a statement is planned for its values, then for any
            forget(one.cache)
            one.get("before")
            one.get("after")
            one.cache.get_many([f"d{i}" for i in range(5)])
            one.cache.set("d1", 1)
            one.cache.add("d2", 1)
            one.cache.invalidate(tag="other")
            one.cache.touch("d3", 60)
            one.get(f"new{n}")
            one.written()
        most = touched(server.log[begin:])
        assert {"look-up of one", "look-up", "load", "set", "add", "swap"} <= set(most)
        assert {name: rows for name, rows in most.items() if rows > MOST} == {}


def test_plans_are_good_for_the_rest_as_soon_as_the_tier_has_described_its_tables(server: PostgresServer) -> None:
    url = server.new_database()
    with shared(url, timeout="20s", tags=["t"], max_lag="1h") as one:
        filled(one, url)
        assert one.cache._upkeep is not None
        for n in range(ENOUGH):
            one.cache.get(f"nothing{n}")
        one.cache._upkeep.tick()
        with psycopg.connect(url, autocommit=True) as connection:
            row = connection.execute("SELECT min(reltuples) FROM pg_class WHERE relname = 'entries'").fetchone()
            assert row is not None
            assert row[0] >= MANY
        begin = len(server.log)
        for _ in range(8):
            one.cache.set("d1", 1)
            one.cache.delete("d1")
            one.get("before")
            one.cache._flush_hits()
        most = touched(server.log[begin:])
        assert {"invalidate", "flush"} <= set(most)
        assert {name: rows for name, rows in most.items() if rows > MOST} == {}


def test_plans_of_a_naive_look_up_touch_all_marks(server: PostgresServer) -> None:
    url = server.new_database()
    with shared(url, timeout="20s", max_lag="1h") as one:
        filled(one, url)
        begin = len(server.log)
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(
                "SELECT k, e.payload, m.dead FROM unnest(%s::text[]) AS k LEFT JOIN stillwarm.entries e ON "
                "e.namespace = 'default' AND e.key = k LEFT JOIN LATERAL (SELECT bool_or(NOT i.soft) AS dead FROM "
                "stillwarm.invalidations i WHERE i.namespace = 'default' AND (i.name IN ('all', 'fence') OR "
                "i.name LIKE '%%:' || e.key) AND i.xid >= pg_snapshot_xmin(e.born)) m ON e.key IS NOT NULL",
                [["get:'before'"]],
            )
        assert max(touched(server.log[begin:]).values()) > MOST
