"""Conditions that a developer writes over a type's columns, with named parameters, and invalidation by them.

Thread rule: pure functions, any thread.
Refuses to know: what the condition says. Its text is the developer's own SQL; a parameter is never part of the text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from stillwarm._column_text import array_text, plain_text
from stillwarm._durations import shown
from stillwarm._place import Place
from stillwarm._sql_types import Text, quoted
from stillwarm.errors import CodecError, ConfigError

# What may hold a colon that is no parameter comes first.
_TOKEN: Final = re.compile(
    r"""(?P<kept> '(?:[^']|'')*' | "(?:[^"]|"")*" | \$(?P<tag>\w*)\$.*?\$(?P=tag)\$ | --[^\n]* | /\*.*?\*/
         | :: | := )
      | (?P<semicolon> ; ) | (?P<number> \$\d+ ) | (?<![\w:]) : (?P<name> [A-Za-z_]\w* )""",
    re.VERBOSE | re.DOTALL,
)


def condition(where: object, params: Mapping[str, Any] | None, used: int) -> tuple[str, list[Text]]:
    """The condition with `:name` turned into $n, counted on from `used`, and the texts of its parameters.

    Raises:
        ConfigError: a parameter is missing or is not used, or the text is more than a condition.
        CodecError: a parameter has no text.
    """
    if not isinstance(where, str) or not where.strip():
        raise ConfigError(f'where={shown(where)}: accepted: an SQL condition such as "roi_percent > :least"')
    given = dict(params or {})
    places: dict[str, int] = {}

    def replace(found: re.Match[str]) -> str:
        if found["kept"] is not None:
            return found[0]
        if found["semicolon"]:
            raise ConfigError(f"where={shown(where)}: one condition, without a semicolon")
        if found["number"]:
            raise ConfigError(f"where={shown(where)}: {found[0]}: parameters are written as :name")
        name = found["name"]
        if name not in given:
            accepted = ", ".join(given) or "none were given"
            raise ConfigError(f"where={shown(where)}: params has no {name!r}; it has: {accepted}")
        return f"${places.setdefault(name, used + 1 + len(places))}"

    text = _TOKEN.sub(replace, where)
    unused = [name for name in given if name not in places]
    if unused:
        raise ConfigError(f"params={unused}: where={shown(where)} does not use it")
    # The line ends before the parenthesis does: the condition may end in a comment.
    return f"({text}\n)", [_parameter(name, given[name]) for name in places]


def _parameter(name: str, value: Any) -> Text:
    if value is None:
        return None
    try:
        text = array_text(value) if isinstance(value, (list, tuple, set, frozenset)) else plain_text(value)
    except (TypeError, ValueError) as error:
        raise CodecError(f"params[{name!r}]={shown(value)}: {error}") from None
    if "\0" in text:
        raise CodecError(f"params[{name!r}]={shown(value)}: PostgreSQL has no NUL in a text")
    return text


def where_sql(
    place: Place,
    type: str,
    where: str,
    params: Mapping[str, Any] | None = None,
    *,
    origin: str | None = None,
    stale: bool = False,
) -> tuple[str, list[Text]]:
    """One statement that invalidates the rows of a type that match, and returns their keys; and its parameters.

    It deletes them, leaves a mark 'key:...' for each, which tells processes what to drop, and one 'fence', which stops
    loads that are in flight. A mark names no type: an entry of another type with the same key goes too.
    With `stale` nothing is deleted and the marks are soft; the fence is the same: what is stored beside it has no mark.

    It waits for no row: a store locks entries first and typed rows then, and this one the other way round. A row that
    somebody has locked stays, dead by its mark, until the purge meets it.

    Raises:
        ConfigError: the type has no table of its own, or the condition or a parameter is not accepted.
    """
    table = place.typed_table(type, "where=")
    text, values = condition(where, params, 2)
    name, key = quoted(table.table), quoted(table.key_column)
    deletes = (
        # Locked in the order of the keys, as every statement over many rows does it.
        f"doomed AS MATERIALIZED (SELECT t.{key} AS key FROM {name} t WHERE t.{key} IN (SELECT key FROM found) "
        f"ORDER BY t.{key} FOR UPDATE SKIP LOCKED), "
        f"gone AS (DELETE FROM {name} t USING doomed WHERE t.{key} = doomed.key), {place.fences(table)}, "
    )
    return (
        f"WITH found AS MATERIALIZED (SELECT {key} AS key FROM {name} WHERE {text}), {'' if stale else deletes}"
        f"marked AS (INSERT INTO {place.table('invalidations')} (namespace, name, origin, soft, seen) "
        f"SELECT $1::text, 'key:' || key, $2::text, {'true' if stale else 'false'}, NULL::pg_snapshot FROM found "
        "UNION ALL SELECT $1::text, 'fence', $2::text, false, pg_current_snapshot()) "
        "SELECT key FROM found ORDER BY key",
        [place.namespace, origin, *values],
    )
