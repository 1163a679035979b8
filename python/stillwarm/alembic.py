"""Alembic beside stillwarm: its autogenerate leaves our tables alone, and a revision may run our migration.

    # env.py
    from stillwarm.alembic import ignore
    context.configure(..., include_object=ignore("product_scoring_cache"), include_name=ignore("product_scoring_cache"))

    # a revision, if you want one
    from stillwarm.alembic import downgrade, upgrade
    def upgrade_(): upgrade(op, *TABLES)

Thread rule: any thread.
Refuses to know: Alembic. It is neither imported nor needed, but for `upgrade` and `downgrade`, which get its `op`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from stillwarm._durations import shown
from stillwarm._schema import Table, sql
from stillwarm._sql_types import identifier, quoted
from stillwarm.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["downgrade", "ignore", "upgrade"]


def ignore(
    *tables: str | Table, schema: str = "stillwarm", also: Callable[..., bool] | None = None
) -> Callable[..., bool]:
    """What to give to `context.configure` as include_object=, and with include_schemas=True also as include_name=.

    Without include_name SQLAlchemy would still reflect stillwarm's schema, and warn of types that it does not know.

    Args:
        tables: names of the typed tables and journals, or the tables themselves.
        schema: stillwarm's schema.
        also: your own include_object or include_name, asked about everything else.

    Raises:
        ConfigError: a table is none.
    """
    return _Ignore(frozenset(_names(tables)), identifier(schema, "schema"), also)


class _Ignore:
    def __init__(self, tables: frozenset[str], schema: str, also: Callable[..., bool] | None) -> None:
        self._tables, self._schema, self._also = tables, schema, also

    def __call__(self, *about: Any) -> bool:
        """(object, name, type_, reflected, compare_to) or (name, type_, parent_names)."""
        ours = self._object(*about[:3]) if len(about) == 5 else self._name(*about)
        if ours:
            return False
        return True if self._also is None else bool(self._also(*about))

    def _object(self, thing: Any, name: str | None, kind: str) -> bool:
        table = thing if kind == "table" else getattr(thing, "table", None)
        if table is None:
            return False
        schema = getattr(table, "schema", None)
        return schema == self._schema or (schema in (None, "public") and table.name in self._tables)

    def _name(self, name: str | None, kind: str, parents: Any) -> bool:
        if kind == "schema":
            return name == self._schema
        schema = parents.get("schema_name")
        table = name if kind == "table" else parents.get("table_name")
        return schema == self._schema or (schema in (None, "public") and table in self._tables)


def upgrade(op: Any, *tables: Table, schema: str = "stillwarm", unlogged: bool = False) -> None:
    """Runs the migration within a revision, in its transaction; in offline mode it is written into the script."""
    # Alembic takes `:name` in a text for a parameter.
    text = re.sub(r"(?<![:\w\\]):(?=\w)(?!:)", r"\\:", sql(tables, schema=schema, unlogged=unlogged))
    op.execute(text)


def downgrade(op: Any, *tables: str | Table, schema: str = "stillwarm", drop_schema: bool = True) -> None:
    """Drops the tables, and stillwarm's schema with all that is in it. A cache can be loaded anew; a journal cannot."""
    for name in _names(tables):
        op.execute(f"DROP TABLE IF EXISTS {quoted(name)}")
    if drop_schema:
        op.execute(f"DROP SCHEMA IF EXISTS {quoted(schema)} CASCADE")


def _names(tables: Iterable[str | Table]) -> list[str]:
    names = []
    for table in tables:
        name = table if isinstance(table, str) else getattr(table, "table", None)
        if not isinstance(name, str):
            raise ConfigError(f"tables: {shown(table)}: accepted: a name, a typed table, a Journal")
        names.append(identifier(name, "tables"))
    return names
