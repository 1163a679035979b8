"""Layouts as statements: what makes a table, and what brings an earlier one forward, in PL/pgSQL that may run again.

Thread rule: pure functions, any thread.
Refuses to know: connections, and which tables there are.

No text has a percent sign: Alembic's offline mode would double it. Every statement is guarded by a look into the
catalog, so that a second run changes nothing and takes no strong lock.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from stillwarm._layouts import Layout
from stillwarm._sql_types import Column, literal, quoted

NOT_MIGRATABLE = "SW001"  # SQLSTATE of what only the owner of the data can decide


def create_table(layout: Layout) -> str:
    """CREATE TABLE with its primary key and storage settings."""
    lines = [f"{quoted(column.name)} {column.text}" for column in layout.columns]
    if layout.primary_key:
        lines.append(f"PRIMARY KEY ({', '.join(map(quoted, layout.primary_key))})")
    storage = ", ".join(f"{name} = {value}" for name, value in layout.storage)
    unlogged = "UNLOGGED " if layout.unlogged else ""
    return f"CREATE {unlogged}TABLE {layout.sql} (\n  " + ",\n  ".join(lines) + f"\n) WITH ({storage})"


def bring_forward(layout: Layout, steps: Iterable[tuple[str, Sequence[str]]] = (), record: str = "") -> list[str]:
    """PL/pgSQL that makes the table or brings it to this layout: columns, the steps, NOT NULL, key, indexes.

    A step is (column that an earlier layout has, statements). `record` is a statement that keeps how many rows the
    steps took away, found in the variable `taken`.
    """
    there = f"to_regclass({literal(layout.sql)})"
    # What create_table made is whole: no other guard need look at it.
    lines = [f"IF {there} IS NULL THEN", indented(create_table(layout) + ";"), "ELSE"]
    old: list[str] = []
    for column in layout.columns:
        old += _column(layout, column, there)
    for when, statements in steps:
        old += _step(layout, when, statements, record, there)
    for column in layout.columns:
        if column.not_null:
            old += _not_null(layout, column, there)
    if layout.primary_key:
        old += _unique(layout, there)
    if layout.storage:
        storage = ", ".join(f"{name} = {value}" for name, value in layout.storage)
        old += [
            f"IF (SELECT reloptions IS NULL FROM pg_class WHERE oid = {there}) THEN",
            f"  ALTER TABLE {layout.sql} SET ({storage});",
            "END IF;",
        ]
    lines += [indented("\n".join(old)), "END IF;"]
    for index in layout.indexes:
        lines += [
            f"IF to_regclass({literal(layout.index_sql(index))}) IS NULL THEN",
            f"  {index.create(layout.sql)};",
            "END IF;",
        ]
    return lines


def indented(text: str) -> str:
    return "\n".join("  " + line for line in text.split("\n"))


def _has(there: str, name: str, more: str = "") -> str:
    return (
        f"EXISTS (SELECT FROM pg_attribute WHERE attrelid = {there} AND attname = {literal(name)} "
        f"AND NOT attisdropped{more})"
    )


def _column(layout: Layout, column: Column, there: str) -> list[str]:
    default = f" DEFAULT {column.default}" if column.default else ""
    lines = [
        f"IF NOT {_has(there, column.name)} THEN",
        # NOT NULL comes later, when the steps have filled it.
        f"  ALTER TABLE {layout.sql} ADD COLUMN {quoted(column.name)} {column.kind}{default};",
    ]
    if default:
        lines += [
            f"ELSIF {_has(there, column.name, ' AND NOT atthasdef')} THEN",
            f"  ALTER TABLE {layout.sql} ALTER COLUMN {quoted(column.name)} SET{default};",
        ]
    return [*lines, "END IF;"]


def _step(layout: Layout, when: str, statements: Sequence[str], record: str, there: str) -> list[str]:
    left = literal(
        f"the step of {layout.shown} for the column {when} ended with the column still there: "
        "its last statement must drop or rename it"
    )
    count = f"(SELECT count(*) FROM {layout.sql})"
    return [
        f"IF {_has(there, when)} THEN",
        f"  taken := {count};",
        *(f"  EXECUTE {literal(statement)};" for statement in statements),
        f"  IF {_has(there, when)} THEN",
        f"    RAISE EXCEPTION USING MESSAGE = {left}, ERRCODE = '{NOT_MIGRATABLE}';",
        "  END IF;",
        f"  taken := taken - {count};",
        *([f"  {record}"] if record else []),
        "END IF;",
    ]


def _not_null(layout: Layout, column: Column, there: str) -> list[str]:
    name = quoted(column.name)
    what = literal(
        f"{layout.shown}.{column.name} is to be NOT NULL, and rows have no value in it: fill it in a Step of "
        f"history=, or delete them: DELETE FROM {layout.sql} WHERE {name} IS NULL"
    )
    return [
        f"IF {_has(there, column.name, ' AND NOT attnotnull')} THEN",
        f"  IF EXISTS (SELECT FROM {layout.sql} WHERE {name} IS NULL) THEN",
        f"    RAISE EXCEPTION USING MESSAGE = {what}, ERRCODE = '{NOT_MIGRATABLE}';",
        "  END IF;",
        f"  ALTER TABLE {layout.sql} ALTER COLUMN {name} SET NOT NULL;",
        "END IF;",
    ]


def _unique(layout: Layout, there: str) -> list[str]:
    names = ", ".join(map(quoted, layout.primary_key))
    array = ", ".join(map(literal, sorted(layout.primary_key)))
    what = literal(
        f"{layout.shown} has several rows with the same {', '.join(layout.primary_key)}, so that it cannot be made "
        f"unique. This keeps the newest of each: {keep_newest(layout)}"
    )
    return [
        f"IF NOT EXISTS ({unique_index(there, array)}) THEN",
        f"  IF EXISTS (SELECT FROM {layout.sql} GROUP BY {names} HAVING count(*) > 1) THEN",
        f"    RAISE EXCEPTION USING MESSAGE = {what}, ERRCODE = '{NOT_MIGRATABLE}';",
        "  END IF;",
        f"  IF EXISTS (SELECT FROM pg_index WHERE indrelid = {there} AND indisprimary) THEN",
        f"    ALTER TABLE {layout.sql} ADD UNIQUE ({names});",
        "  ELSE",
        f"    ALTER TABLE {layout.sql} ADD PRIMARY KEY ({names});",
        "  END IF;",
        "END IF;",
    ]


def unique_index(there: str, names: str) -> str:
    """SELECT of the valid unique indexes of a table over exactly these columns (literals, sorted)."""
    return (
        f"SELECT FROM pg_index i WHERE i.indrelid = {there} AND i.indisunique AND i.indisvalid "
        "AND i.indpred IS NULL AND i.indexprs IS NULL AND ARRAY(SELECT a.attname::text FROM pg_attribute a "
        "WHERE a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey[0:i.indnkeyatts - 1]) "
        f'ORDER BY a.attname::text COLLATE "C") = ARRAY[{names}]'
    )


def keep_newest(layout: Layout) -> str:
    """The DELETE that leaves one row per key, the newest."""
    same = " AND ".join(f"old.{quoted(name)} = new.{quoted(name)}" for name in layout.primary_key)
    if layout.newest is None:
        return f"DELETE FROM {layout.sql} old USING {layout.sql} new WHERE {same} AND old.ctid < new.ctid"
    at = quoted(layout.newest)
    return (
        f"DELETE FROM {layout.sql} old USING {layout.sql} new WHERE {same} AND "
        f"(coalesce(old.{at}, '-infinity'), old.ctid) < (coalesce(new.{at}, '-infinity'), new.ctid)"
    )


def block(lines: Iterable[str], lock: str) -> str:
    """A DO block of the lines: one statement, one transaction, one at a time in the whole database."""
    body = "\n".join(
        [
            "DECLARE taken bigint;",
            "BEGIN",
            # Not two of them: CREATE ... IF NOT EXISTS of two transactions at once ends in a unique violation.
            f"  PERFORM pg_advisory_xact_lock(hashtextextended({literal(lock)}, 0));",
            *(indented(line) for line in lines),
            "END",
        ]
    )
    tag = "$stillwarm$"
    while tag in body:
        tag = tag[:-1] + "_$"
    return f"DO {tag}\n{body}\n{tag}"
