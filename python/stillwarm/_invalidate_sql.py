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
from stillwarm._sql_types import literal, quoted
from stillwarm._tables import TypedTable
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
        return _matching(place, "~ $2", _regex(value), value, stale)
    if name == "key":
        return _matching(place, "= $2", value, None, stale)
    mark = "all" if name == "all" else f"{name}:{value}"
    place.query(
        f"INSERT INTO {place.table('invalidations')} (namespace, name, soft) VALUES ($1, $2, $3::boolean)",
        [place.namespace, mark, "true" if stale else "false"],
    )
    return None


def tell(place: Place) -> None:
    """Wakes the processes that listen, so that they look for marks at once and not at their next poll.

    After the statement that made the marks, never inside its transaction: a NOTIFY there has every commit of the server
    wait for one lock.
    """
    place.query(f"NOTIFY {quoted('stillwarm_' + place.schema)}", [])


def _one_intent(intent: Mapping[str, Any]) -> ConfigError:
    given = [name for name, value in intent.items() if value]
    return ConfigError(
        f"invalidate({', '.join(f'{name}=' for name in given)}): accepted: exactly one of {', '.join(_INTENTS)} "
        "(where together with a type that has a table of its own)"
    )


def _matching(place: Place, test: str, value: str, pattern: str | None, stale: bool) -> int:
    """Invalidates the rows whose keys pass the test; how many keys there were.

    By key it is a mark, with or without a row. By pattern it is one for processes to know, and a fence for what is
    stored beside it. Hard: rows are deleted; soft, by pattern: their time is over now. No row is waited for: one that
    somebody has locked gets a mark of its own. Then nothing here can be in a deadlock, whoever locks what first.
    """
    marks, soft = place.table("invalidations"), "true" if stale else "false"
    found = [
        "SELECT 0 AS place, key, type, expires_at > clock_timestamp() AS living "
        f"FROM {place.table('entries')} WHERE namespace = $1 AND key {test}"
    ]
    changes = [_change_entries(place, stale)]
    for number, table in enumerate(place.typed, 1):
        key = quoted(table.key_column)
        found.append(
            f'SELECT {number}, {key}::text COLLATE "C", {literal(table.type)}::text COLLATE "C", '
            f"(expires_at AT TIME ZONE 'UTC') > clock_timestamp() FROM {quoted(table.table)} WHERE {key} {test}"
        )
        changes.append(_change_typed(table, number, stale))
    parts = [f"found AS MATERIALIZED ({' UNION ALL '.join(found)})"]
    if pattern is None:
        parts += [] if stale else changes
        parts.append(f"marked AS (INSERT INTO {marks} (namespace, name, soft) SELECT $1, 'key:' || $2::text, {soft})")
        count, params = "count(DISTINCT key) FILTER (WHERE living)", [place.namespace, value]
    else:
        reached = " UNION ALL ".join(f"SELECT place, key, type FROM reached{n}" for n in range(len(changes)))
        parts += changes
        parts.append(
            f"marked AS (INSERT INTO {marks} (namespace, name, soft, seen) "
            f"SELECT $1::text, 'key:' || key, {soft}, NULL::pg_snapshot FROM (SELECT DISTINCT key FROM "
            f"(SELECT place, key, type FROM found EXCEPT ({reached})) missed) held "
            f"UNION ALL SELECT $1::text, 'pattern:' || $3::text, {soft}, NULL "
            "UNION ALL SELECT $1::text, 'fence', false, pg_current_snapshot())"
        )
        count, params = "count(DISTINCT key)", [place.namespace, value, pattern]
    ((n,),) = place.query(f"WITH {', '.join(parts)} SELECT {count} FROM found", params)
    return int(n or 0)


def _change_entries(place: Place, stale: bool) -> str:
    entries, mine = place.table("entries"), "e.namespace = $1 AND e.key = h.key AND e.type = h.type"
    if stale:
        over = "least(e.fresh_until, clock_timestamp())"
        change = f"UPDATE {entries} e SET fresh_until = {over} FROM held0 h WHERE {mine}"
    else:
        change = f"DELETE FROM {entries} e USING held0 h WHERE {mine}"
    return (
        f"held0 AS MATERIALIZED (SELECT e.key, e.type FROM {entries} e WHERE e.namespace = $1 AND (e.key, e.type) IN "
        "(SELECT key, type FROM found WHERE place = 0) ORDER BY e.key, e.type FOR UPDATE SKIP LOCKED), "
        f"reached0 AS ({change} RETURNING 0 AS place, e.key, e.type)"
    )


def _change_typed(table: TypedTable, number: int, stale: bool) -> str:
    name, key = quoted(table.table), quoted(table.key_column)
    if stale:
        over = "least(t.expires_at, clock_timestamp() AT TIME ZONE 'UTC')"
        change = f"UPDATE {name} t SET expires_at = {over} FROM held{number} h WHERE t.{key} = h.key"
    else:
        change = f"DELETE FROM {name} t USING held{number} h WHERE t.{key} = h.key"
    return (
        f"held{number} AS MATERIALIZED (SELECT t.{key} AS key FROM {name} t WHERE t.{key} IN "
        f'(SELECT key COLLATE "default" FROM found WHERE place = {number}) ORDER BY t.{key} FOR UPDATE SKIP LOCKED), '
        f'reached{number} AS ({change} RETURNING {number} AS place, t.{key}::text COLLATE "C" AS key, '
        f'{literal(table.type)}::text COLLATE "C" AS type)'
    )


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
        # A backslash before a letter would mean something; beyond ASCII it is the server's locale that knows letters.
        plain = c > "\x7f" or c == "_" or c.isalnum()
        parts.append(".*" if c == "*" else "." if c == "?" else c if plain else "\\" + c)
        at += 1
    return f"^(?:{''.join(parts)})$"
