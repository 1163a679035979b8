"""Layouts of tables: columns, key and indexes as records, stillwarm's own ones among them.

Thread rule: frozen records, any thread.
Refuses to know: the server, and how a layout gets there (_ddl, _schema).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from stillwarm._sql_types import Column, quoted

# Small and often, at full speed: a cache's rows are rewritten all the time, and dead ones make every look-up longer.
# fillfactor leaves room in the page for the next version of a row (heap-only updates, which touch no index). That needs
# columns that change to be in no index: hence none on entries.expires_at, which would make every store write to all of
# them (measured: indexes 3.6 times as large as written anew, and 30 % dead rows).
BUSY: Final = (
    ("fillfactor", "75"),
    ("autovacuum_vacuum_scale_factor", "0.05"),
    ("autovacuum_analyze_scale_factor", "0.1"),
    ("autovacuum_vacuum_cost_delay", "0"),
)
# Appended and purged, never updated.
APPENDED: Final = (
    ("autovacuum_vacuum_scale_factor", "0.05"),
    ("autovacuum_vacuum_insert_scale_factor", "0.2"),
    ("autovacuum_vacuum_cost_delay", "0"),
)


@dataclass(frozen=True)
class Index:
    """An index of a table; `where` makes it a partial one."""

    name: str
    columns: tuple[str, ...]
    method: str = "btree"
    where: str | None = None

    def create(self, table: str) -> str:
        names = ", ".join(map(quoted, self.columns))
        using = "" if self.method == "btree" else f" USING {self.method}"
        return f"CREATE INDEX {quoted(self.name)} ON {table}{using} ({names})" + (
            f" WHERE {self.where}" if self.where else ""
        )


@dataclass(frozen=True)
class Layout:
    """What a table looks like. Without a schema it is where the connection's search_path has or puts it."""

    name: str
    columns: tuple[Column, ...]
    primary_key: tuple[str, ...]
    indexes: tuple[Index, ...] = ()
    schema: str | None = None
    unlogged: bool = False
    storage: tuple[tuple[str, str], ...] = BUSY
    newest: str | None = None  # the column that tells which of two rows with one key is the newer

    @property
    def sql(self) -> str:
        """The quoted name."""
        return (quoted(self.schema) + "." if self.schema else "") + quoted(self.name)

    @property
    def shown(self) -> str:
        return (self.schema + "." if self.schema else "") + self.name

    def index_sql(self, index: Index) -> str:
        """The quoted name of an index; it lives in the schema of its table."""
        return (quoted(self.schema) + "." if self.schema else "") + quoted(index.name)


def _text(name: str, not_null: bool = True) -> Column:
    return Column(name, "text", not_null, collate="C")


def _time(name: str, default: str | None = None) -> Column:
    return Column(name, "timestamp with time zone", True, default)


def own(schema: str = "stillwarm", *, unlogged: bool = False) -> tuple[Layout, ...]:
    """stillwarm's tables in the schema. `unlogged` is for the entries; marks are never unlogged."""
    entries = Layout(
        "entries",
        (
            _text("namespace"),
            _text("key"),
            _text("type"),
            Column("payload", "bytea"),  # NULL: the value is in the type's own table
            Column("tags", "text[]"),
            Column("born", "pg_snapshot", True),
            Column("version", "xid8", True),
            _time("created_at", "now()"),
            _time("fresh_until"),
            _time("expires_at"),
            Column("hit_count", "bigint", True, "0"),
        ),
        ("namespace", "key", "type"),  # the same text is another entry in another type
        (Index("entries_tags", ("tags",), "gin", "tags IS NOT NULL"),),
        schema,
        unlogged,
        newest="created_at",
    )
    invalidations = Layout(
        "invalidations",
        (
            _text("namespace"),
            _text("name"),
            Column("xid", "xid8", True, "pg_current_xact_id()"),
            Column("soft", "boolean", True, "false"),
            _text("origin", False),  # the process that knows already
            _time("at", "clock_timestamp()"),
            Column("seen", "pg_snapshot"),  # of a fence: what is not visible in it was written beside it
        ),
        (),
        (
            Index("invalidations_name", ("namespace", "name", "xid")),
            # For who says `name <> ''`, which is true. A look-up does not, lest a planner that knows nothing of the
            # table yet takes this one for it and walks over all marks since.
            Index("invalidations_xid", ("namespace", "xid"), where="name <> ''::text"),
            Index("invalidations_broad", ("namespace", "xid"), where="NOT starts_with(name, 'key:'::text)"),
        ),
        schema,
        storage=APPENDED,
    )
    floors = Layout("floors", (_text("namespace"), Column("xid", "xid8", True)), ("namespace",), (), schema)
    leases = Layout(
        "leases",
        (_text("namespace"), _text("key"), Column("owner", "text", True), _time("expires_at")),
        ("namespace", "key"),
        (),
        schema,
        unlogged=True,
    )
    flushes = Layout(
        "flushes",
        (_text("process"), Column("batch", "bigint", True), _time("at", "now()")),
        ("process",),
        (),
        schema,
    )
    idempotency = Layout(
        "idempotency",
        (
            _text("namespace"),
            _text("key"),  # a hash of caller, route and key: neither is stored
            Column("route", "text", True),
            Column("fingerprint", "text", True),  # of method, path, query and body
            Column("witness", "text", True),  # of who may see the answer, where the key alone does not tell
            Column("owner", "text", True),
            Column("state", "text", True),  # claimed, done, unkept: executed without an answer to give
            Column("status", "integer"),
            Column("headers", "text"),
            Column("body", "bytea"),
            _time("created_at", "clock_timestamp()"),
            _time("lease_until"),
            _time("expires_at"),
        ),
        ("namespace", "key"),
        (Index("idempotency_expires", ("namespace", "expires_at")),),
        schema,  # never unlogged: what a crash took would be executed again
    )
    meta = Layout("meta", (Column("name", "text", True), Column("value", "text", True)), ("name",), (), schema)
    return entries, invalidations, floors, leases, flushes, idempotency, meta
