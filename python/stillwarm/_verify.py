"""Verification: what the catalog says of the tables, beside what their layouts say.

Thread rule: any thread; it only reads.
Refuses to know: how a difference came about. `migrate` mends what it can.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stillwarm._ddl import keep_newest, unique_index
from stillwarm._layouts import Index, Layout, own
from stillwarm._sql_types import Query, literal, quoted, same_default

if TYPE_CHECKING:
    from stillwarm._schema import Table

_COLUMNS = """
SELECT a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, pg_get_expr(d.adbin, d.adrelid)
FROM pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
WHERE a.attrelid = to_regclass($1) AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum
"""
_INDEXES = """
SELECT c.relname, pg_get_indexdef(i.indexrelid), i.indisunique, i.indisprimary, m.amname,
  (SELECT string_agg(a.attname, ',' ORDER BY n) FROM unnest(i.indkey[0:i.indnkeyatts - 1]) WITH ORDINALITY k(attnum, n)
   JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum), pg_get_expr(i.indpred, i.indrelid)
FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am m ON m.oid = c.relam
WHERE i.indrelid = to_regclass($1) ORDER BY c.relname
"""
_SERVER = """
SELECT current_setting('TimeZone'), current_setting('server_version_num'), current_setting('server_version'),
  (SELECT split_part(s, '=', 2) FROM pg_db_role_setting r, unnest(r.setconfig) s
   WHERE r.setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database()) AND r.setrole = 0
   AND lower(s) LIKE 'timezone=%'),
  (SELECT reset_val FROM pg_settings WHERE name = 'TimeZone')
"""
_UTC = ("utc", "etc/utc", "universal", "etc/universal", "zulu", "etc/zulu", "gmt", "etc/gmt", "gmt0", "etc/uct", "uct")


@dataclass(frozen=True)
class TableReport:
    """A table as it is.

    Attributes:
        name: with its schema.
        exists: whether it is there.
        columns: as (name, type, not null, default).
        indexes: as (name, definition).
        rows: counted; None where this role may not read them.
        differences: what is not as expected, and what to do about it.
    """

    name: str
    exists: bool
    columns: tuple[tuple[str, str, bool, str | None], ...]
    indexes: tuple[tuple[str, str], ...]
    rows: int | None
    differences: tuple[str, ...]


@dataclass(frozen=True)
class Report:
    """What `verify` found.

    Attributes:
        tables: each of them as it is.
        time_zone: of the server.
        server_version: as text.
        server_number: as PostgreSQL counts, such as 150004.
        schema_version: of stillwarm's tables; None: they are not there.
        differences: what is wrong.
        warnings: what may hurt.
    """

    tables: tuple[TableReport, ...]
    time_zone: str
    server_version: str
    server_number: int
    schema_version: int | None
    differences: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether there is no difference."""
        return not self.differences

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "ok": self.ok,
            "server_version": self.server_version,
            "time_zone": self.time_zone,
            "schema_version": self.schema_version,
            "differences": list(self.differences),
            "warnings": list(self.warnings),
            "tables": [
                {
                    "name": table.name,
                    "exists": table.exists,
                    "rows": table.rows,
                    "columns": [
                        {"name": name, "type": kind, "not_null": not_null, "default": default}
                        for name, kind, not_null, default in table.columns
                    ],
                    "indexes": [{"name": name, "definition": definition} for name, definition in table.indexes],
                    "differences": list(table.differences),
                }
                for table in self.tables
            ],
        }


def verify(query: Query, tables: Iterable[Table] = (), *, schema: str = "stillwarm", unlogged: bool = False) -> Report:
    """Compares the database with the layouts. Counts every row: it reads the tables."""
    from stillwarm._schema import SCHEMA_VERSION, read_meta

    reports = [
        _table(query, layout) for layout in (*own(schema, unlogged=unlogged), *(table.layout() for table in tables))
    ]
    ((_, number, version, of_database, reset),) = query(_SERVER, [])
    zone = of_database or reset or ""
    kept = read_meta(query, schema).get("schema_version")
    found = [difference for report in reports for difference in report.differences]
    if kept is not None and int(kept) != SCHEMA_VERSION:
        found.append(f"schema_version is {kept}, this version writes {SCHEMA_VERSION}")
    warnings = []
    if zone.lower() not in _UTC:
        warnings.append(
            f"the database's time zone is {zone}, not UTC: rows of typed tables that others write with now() are off "
            "by hours. ALTER DATABASE ... SET timezone TO 'UTC'"
        )
    return Report(
        tuple(reports),
        zone,
        str(version),
        int(number or 0),
        None if kept is None else int(kept),
        tuple(found),
        tuple(warnings),
    )


def _table(query: Query, layout: Layout) -> TableReport:
    columns = tuple(
        (str(name), str(kind), not_null == "t", default)
        for name, kind, not_null, default in query(_COLUMNS, [layout.sql])
    )
    if not columns:
        return TableReport(layout.shown, False, (), (), 0, (f"{layout.shown} is missing: stillwarm db migrate",))
    indexes = tuple((str(row[0]), str(row[1])) for row in query(_INDEXES, [layout.sql]))
    rows = int(query(f"SELECT count(*) FROM {layout.sql}", [])[0][0] or 0) if _readable(query, layout) else None
    return TableReport(layout.shown, True, columns, indexes, rows, tuple(differences(query, layout)))


def _readable(query: Query, layout: Layout) -> bool:
    return query("SELECT has_table_privilege(to_regclass($1)::oid, 'SELECT')", [layout.sql]) == [("t",)]


def differences(query: Query, layout: Layout) -> list[str]:
    """What is not as the layout says, a sentence each; [] when all is well. Reads the catalog alone, unless a unique
    index is missing: then it looks for the rows that block it."""
    there = {row[0]: row[1:] for row in query(_COLUMNS, [layout.sql])}
    if not there:
        return [f"{layout.shown} is missing: stillwarm db migrate"]
    found = []
    for column in layout.columns:
        where = f"{layout.shown}.{column.name}"
        if column.name not in there:
            found.append(f"{where} is missing: stillwarm db migrate")
            continue
        kind, not_null, default = there[column.name]
        if kind != column.type:
            found.append(f"{where} is {kind}, declared {column.type}")
        if (not_null == "t") != column.not_null and (column.not_null or column.name not in layout.primary_key):
            found.append(f"{where} is {'NOT NULL' if not_null == 't' else 'nullable'}, declared otherwise")
        if not same_default(default, column.default):
            found.append(f"{where} has the default {default or 'NULL'}, declared {column.default or 'NULL'}")
    declared = {column.name for column in layout.columns}
    found += [f"{layout.shown}.{name} is not declared" for name in there if name not in declared]
    rows = query(_INDEXES, [layout.sql])
    found += [problem for index in layout.indexes if (problem := _index(layout, index, rows))]
    if layout.primary_key and not query(_unique(layout), []):
        names = ", ".join(layout.primary_key)
        found.append(f"{layout.shown} has no primary key or unique index over {names}{duplicates(query, layout)}")
    ((persistence,),) = query("SELECT relpersistence::text FROM pg_class WHERE oid = to_regclass($1)", [layout.sql])
    if (persistence == "u") != layout.unlogged:
        wanted = "UNLOGGED" if layout.unlogged else "LOGGED"
        found.append(f"{layout.shown} is not {wanted}: ALTER TABLE {layout.sql} SET {wanted}")
    return found


def _unique(layout: Layout) -> str:
    names = ", ".join(map(literal, sorted(layout.primary_key)))
    return unique_index(f"to_regclass({literal(layout.sql)})", names).replace("SELECT FROM", "SELECT 1 FROM", 1)


def duplicates(query: Query, layout: Layout) -> str:
    """The second half of the sentence on a missing unique index: what to do about it."""
    names = ", ".join(map(quoted, layout.primary_key))
    if not _readable(query, layout):
        return ": stillwarm db migrate"
    ((count,),) = query(
        f"SELECT coalesce(sum(n - 1), 0) FROM (SELECT count(*) AS n FROM {layout.sql} GROUP BY {names}) g", []
    )
    if int(count or 0) == 0:
        return ": stillwarm db migrate"
    return f", and {count} duplicate rows block it; this keeps the newest of each: {keep_newest(layout)}"


def _index(layout: Layout, index: Index, rows: Sequence[tuple[str | None, ...]]) -> str | None:
    for name, definition, _, _, method, columns, predicate in rows:
        if name == index.name:
            partial = re.sub(r"^\((.*)\)$", r"\1", predicate or "") == (index.where or "")
            if method == index.method and columns == ",".join(index.columns) and partial:
                return None
            return f"the index {name} is otherwise: {definition}; declared: {index.create(layout.sql)}"
    return f"the index {index.name} of {layout.shown} is missing: stillwarm db migrate"
