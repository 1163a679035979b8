"""What the database has of a namespace: entries found by tag or by condition, hot keys, figures per type.

Thread rule: any thread. A call is one statement, or one per typed table.
Refuses to know: payloads. Whoever wants the value of one decodes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any, Final

from stillwarm._durations import shown
from stillwarm._place import Place
from stillwarm._sql_types import Text, literal, quoted
from stillwarm._tables import TypedTable
from stillwarm._where import condition
from stillwarm.errors import ConfigError

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=timezone.utc)


@dataclass(frozen=True)
class Found:
    """An entry in the database. Times are aware, in UTC; None: for ever.

    Attributes:
        key: the readable key.
        type: the name of its type.
        value: what was stored; of a type with a table of its own the columns of the row, the payload among them where
            the table has one; bytes where no function here reads it.
        created_at: when it was stored.
        fresh_until: soft invalidations are taken into account.
        expires_at: when nothing needs the row any more.
        hit_count: hits of all processes, as far as they were written.
        tags: what it can be invalidated by.
    """

    key: str
    type: str
    value: bytes | dict[str, Any] | None
    created_at: datetime | None
    fresh_until: datetime | None
    expires_at: datetime | None
    hit_count: int
    tags: tuple[str, ...]


@dataclass(frozen=True)
class Hot:
    """One of the most reused entries."""

    key: str
    type: str
    hits: int


@dataclass(frozen=True)
class TypeStats:
    """Figures of a type in the database.

    Attributes:
        entries: rows, expired ones included.
        hits: sum of the hit counts.
        average_hits: the same per entry.
        expired: rows whose time is over and which the purge has not met yet.
        bytes: of payloads in the shared table; of a table of its own its whole size with indexes.
        table: name of the type's own table, None for the shared one.
    """

    entries: int
    hits: int
    average_hits: float
    expired: int
    bytes: int
    table: str | None


@dataclass(frozen=True)
class Figures:
    """What `Cache.shared_stats()` returns.

    Attributes:
        types: figures per type, by name.
        shared_table_bytes: size of the shared table with its indexes.
    """

    types: Mapping[str, TypeStats]
    shared_table_bytes: int

    @property
    def entries(self) -> int:
        """Of all types."""
        return sum(one.entries for one in self.types.values())

    @property
    def expired(self) -> int:
        """Of all types."""
        return sum(one.expired for one in self.types.values())


def find(
    place: Place,
    *,
    type: str | None = None,
    tag: str | None = None,
    where: str | None = None,
    params: Mapping[str, Any] | None = None,
    limit: int = 100,
) -> list[Found]:
    """Living entries in the order of their keys: of one type or of all, with a tag, or by a condition over the columns.

    Raises:
        ConfigError: an argument is not accepted; where= and its type as in `where_sql`.
    """
    if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= 100_000:
        raise ConfigError(f"limit={shown(limit)}: accepted: 1 to 100000")
    if where is not None or params:
        tables: list[TypedTable] = [place.typed_table(type, "where=")]
    else:
        tables = [table for table in place.typed if type in (None, table.type)]
    found = [] if where is not None else _find_shared(place, type, tag, limit)
    for table in tables:
        found += _find_typed(place, table, tag, where, params, limit)
    return sorted(found, key=lambda one: (one.key.encode(), one.type))[:limit]


def _find_shared(place: Place, type: str | None, tag: str | None, limit: int) -> list[Found]:
    rows = place.query(
        "SELECT e.key, e.type, extract(epoch FROM e.created_at), "
        f"extract(epoch FROM least(e.fresh_until, {place.stale_at()})), extract(epoch FROM e.expires_at), e.hit_count, "
        f"array_to_json(e.tags), encode(e.payload, 'hex') FROM {place.table('entries')} e "
        "WHERE e.namespace = $1 AND ($2::text IS NULL OR e.type = $2) "
        "AND ($3::text IS NULL OR e.tags @> ARRAY[$3::text]) AND e.type <> ALL ($4::text[]) "
        f"AND e.expires_at >= now() AND NOT {place.dead()} ORDER BY e.key, e.type LIMIT $5::int",
        [place.namespace, type, tag, place.not_apart(), str(limit)],
    )
    return [_found(row, None if row[7] is None else bytes.fromhex(row[7])) for row in rows]


def _find_typed(
    place: Place,
    table: TypedTable,
    tag: str | None,
    where: str | None,
    params: Mapping[str, Any] | None,
    limit: int,
) -> list[Found]:
    text, values = ("true", []) if where is None else condition(where, params, 3)
    name, key, until = quoted(table.table), f"t.{quoted(table.key_column)}", "(t.expires_at AT TIME ZONE 'UTC')"
    columns = "".join(f", t.{quoted(column)}" for column in table.names)
    rows = place.query(
        f"SELECT {key}, {literal(table.type)}, extract(epoch FROM t.created_at), "
        f"extract(epoch FROM least({until}, {place.stale_at(table)})), extract(epoch FROM greatest({until}, "
        "e.expires_at)), greatest(t.hit_count, e.hit_count), array_to_json(e.tags), "
        f"encode({'t.payload' if table.value is None else 'NULL'}, 'hex'){columns} "
        f"FROM (SELECT * FROM {name} WHERE {text}) t "
        f"LEFT JOIN {place.table('entries')} e ON {place.entry_of(table)} "
        f"WHERE NOT {place.over(table)} AND NOT {place.dead(table)} "
        "AND ($2::text IS NULL OR e.tags @> ARRAY[$2::text]) "
        f'ORDER BY {key} COLLATE "C" LIMIT $3::int',
        [place.namespace, tag, str(limit), *values],
    )
    return [_found(row, _row(table, row)) for row in rows]


def _row(table: TypedTable, row: tuple[Text, ...]) -> dict[str, Any]:
    columns = table.row(row[8:])
    if table.value is None:
        columns["payload"] = None if row[7] is None else bytes.fromhex(row[7])
    return columns


def _found(row: tuple[Text, ...], value: bytes | dict[str, Any] | None) -> Found:
    import json

    created, fresh, expires = (_moment(text) for text in row[2:5])
    tags = tuple(json.loads(row[6])) if row[6] else ()
    return Found(str(row[0]), str(row[1]), value, created, fresh, expires, int(row[5] or 0), tags)


def _moment(epoch: str | None) -> datetime | None:
    if epoch is None or "nfinity" in epoch:
        return None
    whole, _, fraction = epoch.partition(".")
    return _EPOCH + timedelta(seconds=int(whole), microseconds=int(fraction[:6].ljust(6, "0") or 0))


def top(place: Place, n: int = 10) -> list[Hot]:
    """The n most reused entries, the most reused first.

    Raises:
        ConfigError: n is not accepted.
    """
    if isinstance(n, bool) or not isinstance(n, int) or not 1 <= n <= 100_000:
        raise ConfigError(f"n={shown(n)}: accepted: 1 to 100000")
    parts = [
        f"(SELECT key, type, hit_count::bigint AS hits FROM {place.table('entries')} WHERE namespace = $1 "
        "AND type <> ALL ($2::text[]) AND expires_at >= now() ORDER BY hit_count DESC LIMIT $3::int)"
    ]
    for table in place.typed:
        key = quoted(table.key_column)
        parts.append(
            f"(SELECT {key}, {literal(table.type)}, coalesce(hit_count, 0) FROM {quoted(table.table)} t "
            f"WHERE NOT {place.over(table)} ORDER BY hit_count DESC NULLS LAST LIMIT $3::int)"
        )
    rows = place.query(
        f"SELECT key, type, hits FROM ({' UNION ALL '.join(parts)}) hot WHERE hits > 0 "
        'ORDER BY hits DESC, key COLLATE "C", type COLLATE "C" LIMIT $3::int',
        [place.namespace, place.not_apart(), str(n)],
    )
    return [Hot(str(key), str(type), int(hits or 0)) for key, type, hits in rows]


def stats(place: Place) -> Figures:
    """Figures per type. Every type of the place is there, and every other that the shared table has."""
    entries = place.table("entries")
    rows = place.query(
        "SELECT type, count(*), coalesce(sum(hit_count), 0), count(*) FILTER (WHERE expires_at < now()), "
        f"coalesce(sum(octet_length(payload)), 0) FROM {entries} "
        "WHERE namespace = $1 AND type <> ALL ($2::text[]) GROUP BY type ORDER BY type",
        [place.namespace, place.not_apart()],
    )
    types = {name: TypeStats(0, 0, 0.0, 0, 0, table.table if table else None) for name, table in place.tables.items()}
    for name, *figures in rows:
        types[str(name)] = _figures(figures, None)
    for table in place.typed:
        (row,) = place.query(
            "SELECT count(*), coalesce(sum(hit_count), 0), "
            f"count(*) FILTER (WHERE {place.over(table)}), pg_total_relation_size({literal(quoted(table.table))}) "
            f"FROM {quoted(table.table)} t",
            [place.namespace],
        )
        types[table.type] = _figures(row, table.table)
    ((size,),) = place.query(f"SELECT pg_total_relation_size({literal(entries)})", [])
    return Figures(types, int(size or 0))


def _figures(row: Any, table: str | None) -> TypeStats:
    entries, hits, expired, size = (int(text or 0) for text in row)
    return TypeStats(entries, hits, hits / entries if entries else 0.0, expired, size, table)
