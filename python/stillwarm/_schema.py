"""The schema in the database: migrations forward from every earlier layout, and the SQL of them.

Thread rule: any thread; concurrent migrations of many processes run one after the other, and all but one do nothing.
Refuses to know: what is in the rows.

A migration is one DO block: one statement and one transaction, so that it happens wholly or not at all. It touches
stillwarm's own schema and the tables that it was given, and nothing else. An index on a table that is large already
locks out its writers while it is built.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from stillwarm._ddl import block, bring_forward
from stillwarm._layouts import Layout, own
from stillwarm._sql_types import Query, identifier, literal, quoted
from stillwarm._tables import TypedTable, declared_table
from stillwarm._verify import differences
from stillwarm.errors import ConfigError

SCHEMA_VERSION: Final = 1
_log = logging.getLogger("stillwarm")


class Table(Protocol):
    """A table that is migrated and verified beside stillwarm's own: a TypedTable, a Journal."""

    @property
    def table(self) -> str: ...
    def layout(self) -> Layout: ...
    def declared(self) -> str: ...


@dataclass(frozen=True)
class Migrated:
    """What a migration did.

    Attributes:
        already: everything was there, and nothing was done.
        schema_version: of the layout that is there now.
        tables: their names.
        collapsed: per table, rows of an earlier layout that became one with a newer row of the same key.
    """

    already: bool
    schema_version: int = SCHEMA_VERSION
    tables: tuple[str, ...] = ()
    collapsed: Mapping[str, int] = field(default_factory=dict)


def sql(tables: Iterable[Table] = (), *, schema: str = "stillwarm", unlogged: bool = False) -> str:
    """The one statement that `migrate` runs."""
    identifier(schema, "schema")
    meta = f"{quoted(schema)}.meta"
    lines = [
        # A look into the table and not to_regnamespace(): opening it makes this session take note of what others made
        # while it waited for the lock. Else its caches would still say that nothing is there, here and below.
        f"IF NOT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = {literal(schema)}) THEN",
        f"  CREATE SCHEMA {quoted(schema)};",
        "END IF;",
    ]
    for layout in own(schema, unlogged=unlogged):
        lines += bring_forward(layout)
    # Steps from one version of the own tables to the next come here, each below IF version < n.
    lines += [
        f"IF EXISTS (SELECT FROM {meta} WHERE name = 'schema_version' AND value::int > {SCHEMA_VERSION}) THEN",
        f"  RAISE EXCEPTION USING MESSAGE = 'the schema {schema} was made by a newer stillwarm', ERRCODE = 'SW001';",
        "END IF;",
        _save(meta, "schema_version", literal(str(SCHEMA_VERSION))),
    ]
    for table in tables:
        steps = [(step.when, step.statements(table)) for step in table.history] if isinstance(table, TypedTable) else []
        lines += bring_forward(table.layout(), steps, _save(meta, f"collapsed:{table.table}", "taken::text"))
        lines.append(_save(meta, _name(table), literal(table.declared())))
    return block(lines, f"stillwarm migrates {schema}")


def setup(tables: Iterable[Table] = (), *, schema: str = "stillwarm", unlogged: bool = False) -> list[str]:
    """What makes missing tables, as the tier runs it when it meets the lack of one."""
    return [sql(tables, schema=schema, unlogged=unlogged)]


def setup_table(table: Table, *, schema: str = "stillwarm", unlogged: bool = False) -> str:
    """What makes one typed table or brings it forward, and keeps its declared layout in the table meta.

    One statement, which may run alone and again: stillwarm's own tables are made where they are missing. `unlogged` is
    for these; the typed table says for itself.
    """
    return sql([table], schema=schema, unlogged=unlogged)


def migrate(
    query: Query, tables: Iterable[Table] = (), *, schema: str = "stillwarm", unlogged: bool = False
) -> Migrated:
    """Makes the tables, or brings them to the layout of this version. Safe to call at every start of every process.

    Raises:
        ConfigError: the schema was made by a newer version.
        TierRejected: the server refused; with sqlstate SW001 the text says what the owner of the data has to decide.
    """
    tables = list(tables)
    statement = sql(tables, schema=schema, unlogged=unlogged)
    kept = read_meta(query, schema)
    version = int(kept.get("schema_version") or 0)
    if version > SCHEMA_VERSION:
        raise ConfigError(
            f"schema={schema!r} has version {version}, of a newer stillwarm; accepted here: {SCHEMA_VERSION} and older"
        )
    layouts = [*own(schema, unlogged=unlogged), *(table.layout() for table in tables)]
    declared = all(kept.get(_name(table)) == table.declared() for table in tables)
    if version == SCHEMA_VERSION and declared and not any(differences(query, layout) for layout in layouts):
        return Migrated(True)
    query(statement, [])
    collapsed = {
        name.partition(":")[2]: int(value)
        for name, value in read_meta(query, schema).items()
        if name.startswith("collapsed:") and name.partition(":")[2] in {table.table for table in tables} and int(value)
    }
    names = tuple(layout.shown for layout in layouts)
    _log.info("migrated the schema %s to version %d: %s", schema, SCHEMA_VERSION, ", ".join(names))
    for name, count in collapsed.items():
        _log.info("%s: %d rows of the earlier layout became one with a newer row of the same key", name, count)
    return Migrated(False, SCHEMA_VERSION, names, collapsed)


def read_meta(query: Query, schema: str) -> dict[str, str]:
    """The rows of the table meta; {} where there is none, or none that this role may read."""
    meta = f"{quoted(schema)}.meta"
    readable = query(
        "SELECT CASE WHEN to_regnamespace($1) IS NULL THEN false "
        "WHEN NOT has_schema_privilege(to_regnamespace($1)::oid, 'USAGE') THEN false "
        "ELSE coalesce(has_table_privilege(to_regclass($2)::oid, 'SELECT'), false) END",
        [quoted(schema), meta],
    )
    if readable != [("t",)]:
        return {}
    return {str(name): str(value) for name, value in query(f"SELECT name, value FROM {meta}", [])}


def declared_tables(query: Query, schema: str = "stillwarm") -> dict[str, TypedTable]:
    """The typed tables that were migrated into this database, by type."""
    return {
        name.partition(":")[2]: declared_table(value)
        for name, value in sorted(read_meta(query, schema).items())
        if name.startswith("table:")
    }


def analyze(query: Query, schema: str) -> None:
    """Tells the planner about new tables, which autovacuum sees after a minute or more; others are left as they are.

    It takes a namespace for a two-hundredth of a table that it knows nothing of, and walks through it rather than use
    keys. Whoever does not own the tables gets a warning from the server, and nothing happens.
    """
    tables = [f"{quoted(schema)}.{name}" for name in ("entries", "invalidations")]
    unseen = "reltuples < 0 OR relpages = 0"  # before PostgreSQL 14 that is 0, too
    if query(f"SELECT 1 FROM pg_class WHERE oid IN ($1::regclass, $2::regclass) AND ({unseen})", tables):
        query(f"ANALYZE {', '.join(tables)}", [])


def _name(table: Table) -> str:
    return f"table:{table.type}" if isinstance(table, TypedTable) else f"journal:{table.table}"


def _save(meta: str, name: str, value: str) -> str:
    return (
        f"INSERT INTO {meta} AS kept (name, value) VALUES ({literal(name)}, {value}) "
        "ON CONFLICT (name) DO UPDATE SET value = excluded.value WHERE kept.value <> excluded.value;"
    )
