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

    It deletes them, leaves a mark 'key:...' for each and one 'fence', which also stops loads that are in flight.
    With `stale` nothing is deleted and the marks are soft; loads in flight are not stopped.

    Raises:
        ConfigError: the type has no table of its own, or the condition or a parameter is not accepted.
    """
    table = place.typed_table(type, "where=")
    text, values = condition(where, params, 2)
    name, key = quoted(table.table), quoted(table.key_column)
    marks = f"INSERT INTO {place.table('invalidations')} (namespace, name, origin, soft, seen)"
    matching = f"SELECT {key} AS key FROM {name} WHERE {text} ORDER BY {key}"
    if stale:
        return (
            f"WITH found AS MATERIALIZED ({matching}), "
            f"marked AS ({marks} SELECT $1::text, 'key:' || key, $2::text, true, NULL FROM found) "
            "SELECT key FROM found",
            [place.namespace, origin, *values],
        )
    return (
        # Locked in the order of the keys, as every statement over many rows does it.
        f"WITH doomed AS MATERIALIZED ({matching} FOR UPDATE), "
        f"gone AS (DELETE FROM {name} t USING doomed WHERE t.{key} = doomed.key RETURNING doomed.key), "
        f"{place.fences()}, "
        f"marked AS ({marks} SELECT $1::text, 'key:' || key, $2::text, false, NULL FROM gone "
        "UNION ALL SELECT $1::text, 'fence', $2::text, false, pg_current_snapshot()) SELECT key FROM gone ORDER BY key",
        [place.namespace, origin, *values],
    )
