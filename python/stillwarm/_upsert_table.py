"""What an upsert has to know of the table that it writes to, as the catalog has it: columns and unique indexes.

Thread rule: frozen records and pure functions; the Query's text is sent by _upsert.
Refuses to know: rows, and how they are written.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from stillwarm._ddl import keep_newest
from stillwarm._durations import shown
from stillwarm._layouts import Layout
from stillwarm._sql_types import IDENTIFIER, Column, identifier, quoted
from stillwarm.errors import ConfigError

# The types are those below domains: a domain says nothing of how a value is written, and a cast to it cuts a text. So
# does a cast to a type with a length, where storing refuses. Two keys may be one to the collation of their column.
# `to_jsonb(i)`: PostgreSQL 15 added the column.
FACTS: Final = """
SELECT c.relkind, n.nspname,
  (SELECT jsonb_agg(jsonb_build_object('name', a.attname, 'type', format_type(b.oid, b.mod), 'cast',
      format_type(b.oid, CASE WHEN b.oid IN (1042, 1043, 1560, 1562, 1014, 1015, 1561, 1563) THEN -1 ELSE b.mod END)
        || coalesce((SELECT format(' COLLATE %I.%I', s.nspname, l.collname) FROM pg_collation l
             JOIN pg_namespace s ON s.oid = l.collnamespace
             WHERE l.oid = a.attcollation AND NOT l.collisdeterministic), ''),
      'loose', format_type(b.oid, -1), 'not_null', a.attnotnull,
      'made', a.attgenerated <> '' OR a.attidentity = 'a') ORDER BY a.attnum)
    FROM pg_attribute a, LATERAL (
      WITH RECURSIVE up(oid, mod) AS (
        SELECT a.atttypid, a.atttypmod
        UNION ALL SELECT t.typbasetype, t.typtypmod FROM up JOIN pg_type t ON t.oid = up.oid WHERE t.typtype = 'd')
      SELECT up.oid, up.mod FROM up JOIN pg_type t ON t.oid = up.oid WHERE t.typtype <> 'd') b
    WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped),
  (SELECT jsonb_agg(jsonb_build_object('nulls_equal', to_jsonb(i) ->> 'indnullsnotdistinct' = 'true', 'columns', (
      SELECT jsonb_agg(a.attname) FROM pg_attribute a
      WHERE a.attrelid = c.oid AND a.attnum = ANY (i.indkey[0:i.indnkeyatts - 1]))))
    FROM pg_index i
    WHERE i.indrelid = c.oid AND i.indisunique AND i.indisvalid AND i.indisready AND i.indimmediate
      AND i.indpred IS NULL AND i.indexprs IS NULL)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = to_regclass($1)
"""
_TABLES: Final = ("r", "p")  # plain and partitioned
_MOMENTS: Final = ("updated_at", "modified_at", "created_at")


@dataclass(frozen=True)
class Target:
    """A table. `unique` has, for each set of columns that a unique index is over, whether NULLs are equal there."""

    name: str
    columns: tuple[Column, ...]
    casts: tuple[tuple[str, str], ...]  # what the text of a value is cast to, with its size and without, per column
    made: frozenset[str]  # columns that only the server fills
    unique: dict[frozenset[str], bool]

    @property
    def sql(self) -> str:
        """The quoted name."""
        return quoted_table(self.name)

    @cached_property
    def numbers(self) -> dict[str, int]:
        return {column.name: number for number, column in enumerate(self.columns)}

    def column(self, name: object, argument: str) -> Column:
        """The column of that name.

        Raises:
            ConfigError: there is none; lists those that there are.
        """
        number = self.numbers.get(name) if isinstance(name, str) else None
        if number is None:
            accepted = ", ".join(self.numbers)
            raise ConfigError(f"{argument}: the table {self.name} has no column {shown(name)}; accepted: {accepted}")
        return self.columns[number]

    def cast(self, name: str) -> tuple[str, str]:
        return self.casts[self.numbers[name]]

    def nulls_equal(self, unique: Sequence[str]) -> bool:
        """Whether a NULL in one of these columns is a key like any other (NULLS NOT DISTINCT).

        Raises:
            ConfigError: no unique index is over exactly these columns; says how to make one.
        """
        found = self.unique.get(frozenset(unique))
        if found is None:
            raise ConfigError(f"unique={shown(tuple(unique))}: {self._advice(unique)}")
        return found

    def _advice(self, unique: Sequence[str]) -> str:
        needed = (
            f"the table {self.name} has no valid unique index over exactly these columns that is neither partial nor "
            "deferrable, without which two callers at the same time would write two rows."
        )
        if not all(map(IDENTIFIER.fullmatch, unique)):  # the table may have such names; the statements below may not
            return needed
        schema, _, name = self.name.rpartition(".")
        newest = next((c.name for c in self.columns if c.name in _MOMENTS and c.base.startswith("timestamp")), None)
        layout = Layout(name, self.columns, tuple(unique), schema=schema or None, newest=newest)
        index = quoted("_".join((name, *unique))[:59] + "_key")
        columns = ", ".join(map(quoted, unique))
        return (
            f"{needed} This makes one: "
            f"CREATE UNIQUE INDEX CONCURRENTLY {index} ON {self.sql} ({columns}); if rows with the same key stand in "
            f"its way (then drop the invalid index that is left), this keeps the newest of each: {keep_newest(layout)}"
        )


def quoted_table(name: object) -> str:
    """A table's name, with or without its schema, as it stands in SQL.

    Raises:
        ConfigError: it is no name.
    """
    parts = name.split(".") if isinstance(name, str) else []
    if len(parts) not in (1, 2):
        raise ConfigError(f'table={shown(name)}: accepted: "table" or "schema.table"')
    return ".".join(quoted(identifier(part, "table")) for part in parts)


def target_of(name: str, rows: Sequence[Sequence[str | None]]) -> Target:
    """The table that the answer to FACTS describes.

    Raises:
        ConfigError: there is none, or it is a view.
    """
    if not rows:
        raise ConfigError(
            f"table={shown(name)}: there is no such table where the connection looks; names are spelled as they are "
            'stored (mostly in lower case); accepted: "table" or "schema.table"'
        )
    kind, _, columns, indexes = rows[0]
    if kind not in _TABLES:
        raise ConfigError(f"table={shown(name)}: accepted: a table, plain or partitioned, and no view")
    given: list[dict[str, Any]] = json.loads(columns or "[]")
    unique: dict[frozenset[str], bool] = {}
    for index in json.loads(indexes or "[]"):
        names = frozenset(index["columns"] or ())
        unique[names] = unique.get(names, False) or bool(index["nulls_equal"])
    return Target(
        name,
        tuple(Column(one["name"], one["type"], one["not_null"]) for one in given),
        tuple((one["cast"], one["loose"]) for one in given),
        frozenset(one["name"] for one in given if one["made"]),
        unique,
    )
