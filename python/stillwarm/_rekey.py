"""A step from an earlier layout in which a JSON column held what columns of their own hold now.

Thread rule: pure functions, any thread.
Refuses to know: which system had such a layout.

The columns are filled from the JSON, each row's key is built anew from the columns, and the JSON column goes. Of rows
that come to the same key the newest is kept; the migration counts the others.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from stillwarm._column_text import plain_text
from stillwarm._durations import shown
from stillwarm._sql_types import Column, literal, quoted
from stillwarm._tables import Step, TypedTable
from stillwarm.errors import ConfigError

_FIELD: Final = re.compile(r"\{(\w+)(?: or ([\w.-]+))?\}")


def rekeyed(
    when: str, key: str, *, defaults: Mapping[str, Any] | None = None, fill: Mapping[str, str] | None = None
) -> Step:
    """The step from a layout whose JSON column `when` held what columns hold now, for `define(..., history=[...])`.

        cache.define("scoring", table="scores", columns={"asin": "varchar(20) not null", "domain": "int not null"},
                     history=[rekeyed("arguments", "scoring:{asin}:{domain}", defaults={"domain": 1})])

    The migration fills the columns from the JSON, gives each row the key of the template, keeps the newest of rows that
    come to the same key, and drops `when`; a table without that column is left alone.

    Args:
        when: the JSON column of the earlier layout.
        key: the template of the new key, such as "discovery:{domain}:{category or 0}:{price_min}"; a field is a column,
            shown as Python's str() shows it; `or` stands in for null and 0.
        defaults: values of columns that the JSON may not have.
        fill: SQL expressions of further columns, over the other columns: {"count": "json_array_length(ids)"}.

    Raises:
        ConfigError: the template is none.
    """
    if not isinstance(key, str) or not _FIELD.search(key) or re.search(r"[{}]", _FIELD.sub("", key)):
        raise ConfigError(f'key={shown(key)}: accepted: a template such as "scoring:{{asin}}:{{domain}}"')

    def statements(table: TypedTable) -> list[str]:
        return _statements(table, when, key, dict(defaults or {}), dict(fill or {}))

    return Step(when, statements)


def _statements(table: TypedTable, when: str, key: str, defaults: dict[str, Any], fill: dict[str, str]) -> list[str]:
    columns = {column.name: column for column in table.columns}
    for name in (*(field[1] for field in _FIELD.finditer(key)), *defaults, *fill):
        if name not in columns:
            raise ConfigError(f"type {table.type!r}: there is no column {name!r}; accepted: {', '.join(columns)}")
    name, json, at = quoted(table.table), quoted(when), quoted(table.key_column)
    filled = [
        f"{quoted(column.name)} = coalesce({quoted(column.name)}, {_from_json(column, json, defaults)})"
        for column in table.columns
        if column.name not in fill
    ]
    more = [f"{quoted(one)} = coalesce({quoted(one)}, {expression})" for one, expression in fill.items()]
    new = f"CASE WHEN {json} IS NULL THEN {at} ELSE {_key(key, columns)} END"
    order = "created_at DESC NULLS LAST, expires_at DESC, ctid DESC"
    return [
        f"UPDATE {name} SET {', '.join(filled)}",
        *([f"UPDATE {name} SET {', '.join(more)}"] if more else []),
        f"DELETE FROM {name} old USING (SELECT ctid, row_number() OVER (PARTITION BY {new} ORDER BY {order}) AS place "
        f"FROM {name}) ranked WHERE old.ctid = ranked.ctid AND ranked.place > 1",
        # In two moves: a new key may be the key that another row is about to leave.
        f"UPDATE {name} SET {at} = '~' || ({new})",
        f"UPDATE {name} SET {at} = substr({at}, 2)",
        f"ALTER TABLE {name} DROP COLUMN {json}",
    ]


def _from_json(column: Column, json: str, defaults: dict[str, Any]) -> str:
    field = f"({json}::jsonb ->> {literal(column.name)})"
    if column.base in ("integer", "bigint", "smallint"):
        field = f"{field}::numeric"  # 5.0 in JSON is a whole number too
    if column.base in ("json", "jsonb"):
        field = f"({json}::jsonb -> {literal(column.name)})"
    found = f"{field}::{column.type}"
    if column.name in defaults:
        return f"coalesce({found}, {literal(plain_text(defaults[column.name]))}::{column.type})"
    return found


def _key(template: str, columns: Mapping[str, Column]) -> str:
    """The template as an SQL expression, with each field as Python's str() shows it."""
    parts, end = [], 0
    for field in _FIELD.finditer(template):
        if field.start() > end:
            parts.append(literal(template[end : field.start()]))
        parts.append(_shown(columns[field[1]], field[2]))
        end = field.end()
    if end < len(template):
        parts.append(literal(template[end:]))
    return " || ".join(parts)


def _shown(column: Column, instead: str | None) -> str:
    name = quoted(column.name)
    text = f"{name}::text"
    if column.base in ("real", "double precision"):
        text = (
            f"CASE WHEN {name} = trunc({name}) AND abs({name}) < 1e15 THEN {name}::text || '.0' ELSE {name}::text END"
        )
    elif column.base == "boolean":
        text = f"CASE WHEN {name} THEN 'True' ELSE 'False' END"
    empty = f"{name} IS NULL"
    if instead is not None and column.base in ("integer", "bigint", "smallint", "real", "double precision", "numeric"):
        empty = f"coalesce({name}, 0) = 0"
    elif instead is not None:
        empty = f"coalesce({text}, '') = ''"
    return f"CASE WHEN {empty} THEN {literal('None' if instead is None else instead)} ELSE {text} END"
