"""Invalidation by SQL alone, for tools that have no Cache: the same marks, seen by every process at its next poll.

Thread rule: any thread.
Refuses to know: memory tiers. A mark without an origin is news to every process.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from stillwarm._durations import shown
from stillwarm._place import Place
from stillwarm._sql_types import quoted
from stillwarm._where import where_sql
from stillwarm.errors import ConfigError

_INTENTS: Final = ("key", "type", "tag", "pattern", "where", "all")


def invalidate(
    place: Place, *, params: Mapping[str, Any] | None = None, stale: bool = False, **intent: Any
) -> int | None:
    """As `Cache.invalidate`: key=, type=, tag=, pattern=, all=True, or where= with type= and params=.

    Returns the count of rows for key, pattern, where; None for type, tag, all.

    Raises:
        ConfigError: not exactly one intent.
    """
    given = {name: value for name, value in intent.items() if value}
    if "where" in given and "type" in given:
        sql, values = where_sql(place, given.pop("type"), given.pop("where"), params, stale=stale)
        if given:
            raise _one_intent(intent)
        return len(place.query(sql, values))
    if len(given) != 1 or "where" in given:
        raise _one_intent(intent)
    if params:
        raise ConfigError(f"params={shown(params)}: accepted with where= only")
    ((name, value),) = given.items()
    if name == "pattern":
        return _matching(place, "~ $2", _regex(value), f"pattern:{value}", stale)
    if name == "key":
        return _matching(place, "= $2", value, None, stale)
    mark = "all" if name == "all" else f"{name}:{value}"
    place.query(
        f"INSERT INTO {place.table('invalidations')} (namespace, name, soft) VALUES ($1, $2, $3::boolean)",
        [place.namespace, mark, "true" if stale else "false"],
    )
    return None


def _one_intent(intent: Mapping[str, Any]) -> ConfigError:
    given = [name for name, value in intent.items() if value]
    return ConfigError(
        f"invalidate({', '.join(f'{name}=' for name in given)}): accepted: exactly one of {', '.join(_INTENTS)} "
        "(where together with a type that has a table of its own)"
    )


def _matching(place: Place, test: str, value: str, fence: str | None, stale: bool) -> int:
    """Deletes the rows whose keys pass the test, with a mark for each; the key itself is marked even without a row."""
    entries, marks = place.table("entries"), place.table("invalidations")
    parts, deletes, seen = [], [], [f"SELECT key, key AS at FROM {entries} WHERE namespace = $1 AND key {test}"]
    if not stale:
        deletes.append(place.fences("found"))  # one that is locked is dead all the same: it has a mark
    for number, table in enumerate(place.typed, 1):
        key = quoted(table.key_column)
        seen.append(f'SELECT {key} COLLATE "C", NULL FROM {quoted(table.table)} WHERE {key} {test}')
        if not stale:
            deletes.append(
                f"d{number} AS (DELETE FROM {quoted(table.table)} t USING found "
                f'WHERE t.{key} = found.key COLLATE "default")'
            )
    soft = "true" if stale else "false"
    parts.append(f"found AS MATERIALIZED (SELECT DISTINCT key FROM ({' UNION ALL '.join(seen)}) s ORDER BY key)")
    parts += deletes
    also = "'key:' || $2::text" if fence is None else "$3::text"
    each = "" if fence is None else "SELECT $1, 'key:' || key, " + soft + " FROM found UNION ALL "
    if fence is not None and stale:
        inserted = f"SELECT $1, 'key:' || key, {soft} FROM found"
    else:
        inserted = f"{each}SELECT $1, {also}, {soft}"
    parts.append(f"marked AS (INSERT INTO {marks} (namespace, name, soft) {inserted})")
    if fence is not None:
        parts.append(
            f"fenced AS (INSERT INTO {marks} (namespace, name, seen) SELECT $1, 'fence', pg_current_snapshot())"
        )
    params = [place.namespace, value, *([fence] if fence is not None and not stale else [])]
    ((count,),) = place.query(f"WITH {', '.join(parts)} SELECT count(*) FROM found", params)
    return int(count or 0)


def _regex(glob: str) -> str:
    """The glob as a regular expression of PostgreSQL: `*`, `?`, `[...]`, `[!...]` as in fnmatch."""
    parts, at = [], 0
    while at < len(glob):
        c = glob[at]
        end = glob.find("]", at + 2 + (glob[at + 1 : at + 2] == "!")) if c == "[" else -1
        if end > 0:
            inside = glob[at + 1 : end]
            negated, inside = inside.startswith("!"), inside.removeprefix("!")
            safe = re.sub(r"([\\\[\]^])", r"\\\1", inside)
            parts.append(f"[{'^' if negated else ''}{safe}]")
            at = end + 1
            continue
        parts.append(".*" if c == "*" else "." if c == "?" else re.sub(r"([^\w\s]|_)", r"\\\1", c, flags=re.ASCII))
        at += 1
    return f"^(?:{''.join(parts)})$"
