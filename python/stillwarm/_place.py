"""Where the entries of a namespace are: the Query, the schema, and which types have tables of their own.

Thread rule: frozen, any thread.
Refuses to know: what is done there (_admin, _purge, _trim, _where).

The pieces of SQL here say in one place what the words mean: an entry is dead if a hard mark that concerns it is not
visible in its `born`; a soft one makes it stale. A typed row that has no row in entries was written by somebody else:
then a mark counts if it is younger than the row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from stillwarm._durations import shown
from stillwarm._sql_types import Query, identifier, literal, quoted
from stillwarm._tables import TypedTable
from stillwarm.errors import ConfigError

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

    def concerns(self, mark: str = "m", entry: str = "e") -> str:
        """The condition that a mark is about an entry; a fence ('pattern:', 'where') is about none."""
        names = f"'all', 'type:' || {entry}.type, 'key:' || {entry}.key"
        tags = f"ARRAY(SELECT 'tag:' || tag FROM unnest({entry}.tags) tag)"
        return f'{mark}.namespace = {entry}.namespace AND {mark}.name COLLATE "C" = ANY (ARRAY[{names}] || {tags})'

    def fences(self, doomed: str = "doomed") -> str:
        """CTEs that delete the rows in entries of the keys in the CTE `doomed`; $1: namespace.

        What somebody has locked is left to the purge and not waited for: a store locks entries first and typed rows
        then. Its value has gone with the typed row, or a mark says so.
        """
        entries = self.table("entries")
        return (
            f"held AS (SELECT e.key FROM {entries} e WHERE e.namespace = $1 AND e.key IN "
            f'(SELECT key COLLATE "C" FROM {doomed}) ORDER BY e.key FOR UPDATE SKIP LOCKED), '
            f"fences AS (DELETE FROM {entries} e USING held WHERE e.namespace = $1 AND e.key = held.key)"
        )

    def dead(self, entry: str = "e") -> str:
        """The condition that a row of entries was invalidated."""
        return (
            f"EXISTS (SELECT FROM {self.table('invalidations')} m WHERE {self.concerns('m', entry)} "
            f"AND NOT m.soft AND NOT pg_visible_in_snapshot(m.xid, {entry}.born))"
        )

    def foreign_dead(self, table: TypedTable, row: str = "t", *, soft: bool = False) -> str:
        """The condition that a typed row without a row in entries was invalidated since it was written; $1: namespace.

        With `soft` a soft mark counts too: such a row has no time until which it is fresh.
        """
        names = f"'all', {literal('type:' + table.type)}, 'key:' || {row}.{quoted(table.key_column)}"
        return (
            f"EXISTS (SELECT FROM {self.table('invalidations')} m WHERE m.namespace = $1 AND "
            f'm.name COLLATE "C" IN ({names}) '
            f"{'' if soft else 'AND NOT m.soft '}"
            f"AND (m.at AT TIME ZONE 'UTC') >= coalesce({row}.created_at, '-infinity'))"
        )


def texts(values: Sequence[str]) -> str:
    """The array literal of some texts, for a parameter."""
    return "{" + ",".join('"' + one.replace("\\", "\\\\").replace('"', '\\"') + '"' for one in values) + "}"
