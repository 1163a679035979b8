"""Typed tables: a type whose values are rows of a table of its own, to be read, filtered and sorted with plain SQL.

Thread rule: frozen records, any thread. `project` and `value` run the user's code.
Refuses to know: the server. Layouts become statements in _ddl, rows are written and read by the tier.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, TypeAlias

from stillwarm._column_text import default_of, from_text, to_text
from stillwarm._durations import shown
from stillwarm._layouts import Index, Layout
from stillwarm._sql_types import Column, Text, column, identifier
from stillwarm.errors import CodecError, ConfigError

Project: TypeAlias = "Callable[..., Mapping[str, Any]]"
Value: TypeAlias = "str | Callable[[dict[str, Any]], Any] | None"

_OWN: Final = ("created_at", "expires_at", "hit_count", "payload")
_MISSING: Final = object()


@dataclass(frozen=True)
class Step:
    """A step from an earlier layout of a type's table, for `define(..., history=[...])`.

        cache.define("scoring", table="scores", columns={"roi_percent": "float not null"}, history=[
            Step("roi", ["UPDATE scores SET roi_percent = roi * 100", "ALTER TABLE scores DROP COLUMN roi"]),
        ])

    The migration runs the steps in their order, each only if the table has the column `when`: a table made by the
    present layout runs none, one of any earlier layout those that it has not seen yet. So a step stays in the list as
    long as a database may have the column, and its last statement has to drop or rename it; a step that leaves it is
    refused. When it runs, the columns of the new layout are there already, and may be NULL still.

    Args:
        when: the column that only the earlier layout has.
        sql: the statements, or a callable of the table's declaration that returns them. They run in one transaction
            with the rest of the migration: wholly, or not at all.

    Raises:
        ConfigError: `when` is no column name, or `sql` no statements.
    """

    when: str
    sql: Sequence[str] | Callable[[TypedTable], Sequence[str]]

    def __post_init__(self) -> None:
        identifier(self.when, "history: when")
        if isinstance(self.sql, str) or not (callable(self.sql) or all(isinstance(s, str) and s for s in self.sql)):
            raise ConfigError(f"history: sql={shown(self.sql)}: accepted: a list of SQL statements")

    def statements(self, table: TypedTable) -> list[str]:
        """The SQL of this step for a table."""
        return list(self.sql(table) if callable(self.sql) else self.sql)


@dataclass(frozen=True)
class TypedTable:
    """The table of a type, as `define(table=, columns=, ...)` declares it. Made by `typed_table`, which checks it."""

    type: str
    table: str
    columns: tuple[Column, ...]
    indexes: tuple[Index, ...] = ()
    key_column: str = "cache_key"
    value: Value = None
    project: Project | None = None
    unlogged: bool = False
    history: tuple[Step, ...] = ()

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of the declared columns, in the order of `row_of` and `value_of`."""
        return tuple(column.name for column in self.columns)

    def layout(self) -> Layout:
        """The whole table: the key, the columns, what stillwarm needs itself."""
        columns = (
            Column(self.key_column, "character varying(255)", True),
            *self.columns,
            *([Column("payload", "bytea")] if self.value is None else []),
            Column("created_at", "timestamp without time zone", False, "now()"),
            Column("expires_at", "timestamp without time zone", True),
            Column("hit_count", "integer", False, "0"),
        )
        indexes = self.indexes
        if not any(index.columns[0] == "expires_at" for index in indexes):  # the purge looks for them
            indexes = (*indexes, Index(f"{self.table[:44]}_expires_at_idx", ("expires_at",)))
        return Layout(self.table, columns, (self.key_column,), indexes, unlogged=self.unlogged, newest="created_at")

    def row_of(self, value: Any, arguments: Mapping[str, Any]) -> list[Text]:
        """The texts of the declared columns for a value and the arguments of its key.

        A column gets what `project` says, else the value itself if `value=` names the column, else the field or
        attribute of the value of that name, else the argument, else its default, else NULL.

        Raises:
            CodecError: a column cannot have what it would get; names the type and the column.
        """
        given: Mapping[str, Any] = {}
        if self.project is not None:
            given = self.project(value, **arguments)
            if not isinstance(given, Mapping):
                raise CodecError(f"type {self.type!r}: project returned {shown(given)}: accepted: a dict of columns")
            for name in given:
                if name not in self.names:
                    raise CodecError(
                        f"type {self.type!r}: project returned the column {name!r}; accepted: {', '.join(self.names)}"
                    )
        return [self._text(column, value, given, arguments) for column in self.columns]

    def _text(self, column: Column, value: Any, given: Mapping[str, Any], arguments: Mapping[str, Any]) -> Text:
        name = column.name
        if name in given:
            item = given[name]
        elif self.value == name:
            item = value
        else:
            item = value.get(name, _MISSING) if isinstance(value, Mapping) else getattr(value, name, _MISSING)
            if item is _MISSING or callable(item):  # a list has a method named count
                item = arguments.get(name, _MISSING)
        try:
            if item is _MISSING:
                default = default_of(column)
                return to_text(None, column) if default is None else default
            return to_text(item, column)
        except CodecError as error:
            where = "" if item is not _MISSING else "; neither project, the value nor the arguments have it"
            raise CodecError(f"type {self.type!r}: {error}{where}") from None

    def row(self, texts: Sequence[Text]) -> dict[str, Any]:
        """The declared columns of a row as a dict.

        Raises:
            CodecError: a text is none of its column's type.
        """
        return {column.name: from_text(text, column) for column, text in zip(self.columns, texts, strict=True)}

    def value_of(self, texts: Sequence[Text]) -> Any:
        """The value that the row's texts stand for: the column that `value=` names, or what its callable makes of it.

        With `value=None` the value is in the column payload, which the codec reads; then it is the row.

        Raises:
            CodecError: a text is none of its column's type.
        """
        if isinstance(self.value, str):
            place = self.names.index(self.value)
            return from_text(texts[place], self.columns[place])
        row = self.row(texts)
        return self.value(row) if callable(self.value) else row

    def declared(self) -> str:
        """The layout as JSON, as it is kept in the table meta; `declared_table` reads it."""
        value = "(callable)" if callable(self.value) else self.value
        return json.dumps(
            {
                "type": self.type,
                "table": self.table,
                "columns": {c.name: c.text for c in self.columns},
                "indexes": {index.name: list(index.columns) for index in self.indexes},
                "key_column": self.key_column,
                "value": value,
                "unlogged": self.unlogged,
            }
        )


def declared_table(text: str) -> TypedTable:
    """A TypedTable from its `declared()`. What only the app has, its callables and history, is not there.

    Raises:
        ConfigError: the text is none.
    """
    try:
        fields = json.loads(text)
        value: Value = fields.pop("value")
        name = fields.pop("type")
    except (ValueError, KeyError, AttributeError, TypeError):
        raise ConfigError(f"declared layout {shown(text)}: accepted: what `db migrate` saved") from None
    return typed_table(name, **fields, value=dict if value == "(callable)" else value)


def typed_table(
    type: str,
    *,
    table: str,
    columns: Mapping[str, str],
    indexes: Sequence[str] | Mapping[str, str | Sequence[str]] = (),
    key_column: str = "cache_key",
    value: Value = None,
    project: Project | None = None,
    unlogged: bool = False,
    history: Sequence[Step] = (),
) -> TypedTable:
    """The checked TypedTable of `define`'s options.

    Raises:
        ConfigError: names the option, its value and what is accepted.
    """
    identifier(table, "table")
    identifier(key_column, "key_column")
    if not isinstance(columns, Mapping) or not columns:
        raise ConfigError(f"columns={shown(columns)}: accepted: a dict of column name to SQL type, at least one")
    made = tuple(column(name, text) for name, text in columns.items())
    for one in made:
        if one.name in _OWN or one.name == key_column:
            raise ConfigError(
                f"columns[{one.name!r}]: leave it out: the table has {key_column}, {', '.join(_OWN)} by itself"
            )
    if value is not None and not callable(value) and value not in columns:
        raise ConfigError(
            f"value={shown(value)}: accepted: a column ({', '.join(columns)}), a callable of the row, or None"
        )
    if project is not None and not callable(project):
        raise ConfigError(f"project={shown(project)}: accepted: a callable that returns a dict of columns, or None")
    if not isinstance(unlogged, bool):
        raise ConfigError(f"unlogged={shown(unlogged)}: accepted: True or False")
    if isinstance(history, Step) or not all(isinstance(step, Step) for step in history):
        raise ConfigError(f"history={shown(history)}: accepted: a list of Step(when=..., sql=[...])")
    known = (key_column, *columns, *_OWN[:3])
    return TypedTable(
        type, table, made, checked_indexes(indexes, table, known), key_column, value, project, unlogged, tuple(history)
    )


def checked_indexes(given: Any, table: str, known: Sequence[str]) -> tuple[Index, ...]:
    """Indexes as options give them: a list of columns, or a dict of index name to column or columns.

    Raises:
        ConfigError: a name is no identifier, or a column is not there.
    """
    forms = "a list of columns, or a dict of index name to a column or a list of columns"
    if isinstance(given, str) or not isinstance(given, (Mapping, Sequence)):
        raise ConfigError(f"indexes={shown(given)}: accepted: {forms}")
    if not isinstance(given, Mapping):
        if not all(isinstance(name, str) for name in given):
            raise ConfigError(f"indexes={shown(given)}: accepted: {forms}")
        given = {f"{table}_{name}_idx": name for name in given}
    made = []
    for name, columns in given.items():
        names = (columns,) if isinstance(columns, str) else columns
        identifier(name, "indexes: name")
        if not isinstance(names, Sequence) or not names:
            raise ConfigError(f"indexes[{name!r}]={shown(columns)}: accepted: {forms}")
        for one in names:
            if one not in known:
                raise ConfigError(f"indexes[{name!r}]: there is no column {shown(one)}; accepted: {', '.join(known)}")
        made.append(Index(name, tuple(names)))
    return tuple(made)
