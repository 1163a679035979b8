"""Where the entries of a namespace are: the Query, the schema, and which types have tables of their own.

Thread rule: frozen, any thread.
Refuses to know: what is done there (_admin, _purge, _trim, _where).

The pieces of SQL here say in one place what the words mean, and say the same as the look-up in
cpp/core/remote/postgres_sql.cpp: an entry is dead if a hard mark that concerns it is not visible in its `born`; a soft
one makes it stale. A typed row that has no row in entries was written by somebody else: then a mark counts if it is
younger than the row. An entry is known by key and type: the same text is another entry in another type.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from stillwarm._durations import shown
from stillwarm._sql_types import Query, identifier, literal, quoted
from stillwarm._tables import TypedTable
from stillwarm.errors import ConfigError

DICTIONARIES: Final = "#dictionary"  # the type under which the tier keeps compression dictionaries: no app's values
UTC_NOW: Final = "(now() AT TIME ZONE 'UTC')"


@dataclass(frozen=True)
class Place:
    """A namespace in a database. `tables` are its types; None: the values of the type are in the shared table."""

    query: Query
    namespace: str
    schema: str
    tables: Mapping[str, TypedTable | None]

    def __post_init__(self) -> None:
        identifier(self.namespace, "namespace")
        identifier(self.schema, "schema")

    @property
    def typed(self) -> list[TypedTable]:
        return [table for table in self.tables.values() if table is not None]

    def not_apart(self) -> str:
        """For a parameter: the types whose rows in entries are none of its own values."""
        return texts([DICTIONARIES, *(table.type for table in self.typed)])

    def table(self, name: str) -> str:
        """One of stillwarm's own tables, quoted."""
        return f"{quoted(self.schema)}.{quoted(name)}"

    def typed_table(self, type: str | None, why: str) -> TypedTable:
        """The table of a type that must have one.

        Raises:
            ConfigError: names the type and those that would do.
        """
        table = self.tables.get(type) if type is not None else None
        if table is None:
            accepted = ", ".join(sorted(one.type for one in self.typed)) or "none here"
            raise ConfigError(f"type={shown(type)}: {why} needs a type with a table of its own; accepted: {accepted}")
        return table

    def entry_of(self, table: TypedTable, row: str = "t", entry: str = "e") -> str:
        """The condition that a row of entries is the one of a typed row; $1: namespace."""
        return (
            f'{entry}.namespace = $1 AND {entry}.key = {row}.{quoted(table.key_column)} COLLATE "C" '
            f"AND {entry}.type = {literal(table.type)}"
        )

    def over(self, table: TypedTable, row: str = "t") -> str:
        """The condition that the time of a typed row is over, the time after it in which it is stale included."""
        return (
            f"({row}.expires_at < {UTC_NOW} AND NOT EXISTS (SELECT FROM {self.table('entries')} kept "
            f"WHERE {self.entry_of(table, row, 'kept')} AND kept.expires_at >= now()))"
        )

    def concerns(self, table: TypedTable | None = None) -> str:
        """The condition that the mark m makes the row e of entries invalid; $1: namespace.

        With a table it is about the row t of it, and e is its row in entries or all NULL.

        A mark of the transaction that wrote the entry does not: a `set` writes both. A fence does only if the entry was
        written beside it: what deleted by a pattern or a condition saw all others.
        """
        key, type = ("e.key", "e.type") if table is None else (f"t.{quoted(table.key_column)}", literal(table.type))
        names = f"ARRAY['all', 'fence', 'type:' || {type}, 'key:' || {key}]"
        tags = "ARRAY(SELECT 'tag:' || tag FROM unnest(e.tags) tag)"
        since = (
            "m.xid >= pg_snapshot_xmin(e.born) AND NOT pg_visible_in_snapshot(m.xid, e.born) AND m.xid <> e.version "
            "AND (m.name <> 'fence' OR NOT pg_visible_in_snapshot(e.version, m.seen))"
        )
        if table is not None:
            foreign = "m.name <> 'fence' AND (m.at AT TIME ZONE 'UTC') > coalesce(t.created_at, '-infinity')"
            since = f"CASE WHEN e.key IS NULL THEN {foreign} ELSE {since} END"
        return f'm.namespace = $1 AND m.name COLLATE "C" = ANY ({names} || {tags}) AND {since}'

    def dead(self, table: TypedTable | None = None) -> str:
        """The condition that the row e of entries was invalidated, or with a table its row t; $1: namespace."""
        return f"EXISTS (SELECT FROM {self.table('invalidations')} m WHERE {self.concerns(table)} AND NOT m.soft)"

    def stale_at(self, table: TypedTable | None = None) -> str:
        """Since when that row is stale by a soft mark, or NULL; $1: namespace."""
        return f"(SELECT min(m.at) FROM {self.table('invalidations')} m WHERE {self.concerns(table)} AND m.soft)"

    def fences(self, table: TypedTable) -> str:
        """CTEs that delete the rows in entries of the typed rows in the CTE `doomed`; $1: namespace.

        What somebody has locked is left to the purge and not waited for: a store locks entries first and typed rows
        then. Its value has gone with the typed row, or a mark says so.
        """
        mine = f"e.namespace = $1 AND e.type = {literal(table.type)}"
        entries = self.table("entries")
        return (
            f"held AS (SELECT e.key FROM {entries} e WHERE {mine} AND e.key IN "
            '(SELECT key COLLATE "C" FROM doomed) ORDER BY e.key FOR UPDATE SKIP LOCKED), '
            f"fences AS (DELETE FROM {entries} e USING held WHERE {mine} AND e.key = held.key)"
        )


def texts(values: Sequence[str]) -> str:
    """The array literal of some texts, for a parameter."""
    return "{" + ",".join('"' + one.replace("\\", "\\\\").replace('"', '\\"') + '"' for one in values) + "}"
