"""Rows as a store leaves them, written by plain SQL, and a second session to hold locks and transactions open.

Thread rule: any thread; each call has a connection of its own.
Refuses to know: what is tested with them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg

from postgres_here import Database
from reference_tables import discovery, scoring

TABLES = {"discovery": discovery(), "scoring": scoring(), "plain": None}


def put(
    database: Database, key: str, type: str = "plain", *, payload: bytes | None = b"x", tags: list[str] | None = None,
    expires: str = "1 hour", hits: int = 0, namespace: str = "shop",
) -> None:  # fmt: skip
    database.sql(
        "INSERT INTO stillwarm.entries VALUES (%s, %s, %s, %s, %s, pg_current_snapshot(), pg_current_xact_id(), now(), "
        "now() + %s::interval, now() + %s::interval, %s)",
        namespace, key, type, payload, tags, expires, expires, hits,
    )  # fmt: skip


def score(
    database: Database, asin: str, roi: float, *, expires: str = "1 hour", hits: int = 0, entry: bool = True,
    tags: list[str] | None = None,
) -> str:  # fmt: skip
    key = f"scoring:{asin}:1"
    database.sql(
        "INSERT INTO product_scoring_cache (cache_key, asin, roi_percent, velocity_score, recommendation, created_at, "
        "expires_at, hit_count) VALUES (%s, %s, %s, 0.5, 'BUY', now() AT TIME ZONE 'UTC', "
        "(now() AT TIME ZONE 'UTC') + %s::interval, %s)",
        key, asin, roi, expires, hits,
    )  # fmt: skip
    if entry:
        put(database, key, "scoring", payload=None, tags=tags, expires=expires)
    return key


def keys(database: Database, table: str = "stillwarm.entries", column: str = "key") -> list[str]:
    return [str(row[0]) for row in database.sql(f'SELECT {column} FROM {table} ORDER BY {column} COLLATE "C"')]


@contextmanager
def session(database: Database) -> Iterator[psycopg.Connection[Any]]:
    """A transaction of somebody else that stays open, and is rolled back."""
    with psycopg.connect(database.url) as connection:
        yield connection
        connection.rollback()
