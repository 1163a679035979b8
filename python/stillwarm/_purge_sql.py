"""The statements of a purge; each deletes one batch and gives rows (got, last, missed, type, n).

`got`: whether this process may purge now; `last`: the last key of the window that was looked at, NULL at the end;
`missed`: rows that should go and are locked by somebody; `type`, `n`: how many rows went.

Thread rule: pure functions, any thread.
Refuses to know: who runs them: a process (_purge), or the database itself (_cron).

Rows are locked in the order of their keys and never waited for, so that a purge blocks nobody and is in no deadlock.
A window goes by key alone and takes in every type that has the key, so that the next one may begin behind the key.
The lock that keeps it to one process at a time lasts for a batch: a pooler may give each statement another connection.
"""

from __future__ import annotations

from stillwarm import _core
from stillwarm._place import UTC_NOW, Place
from stillwarm._sql_types import literal, quoted
from stillwarm._tables import TypedTable


def _lock(place: Place) -> str:
    name = literal(f"stillwarm purges {place.schema}.{place.namespace}")
    return f"lock AS MATERIALIZED (SELECT pg_try_advisory_xact_lock(hashtextextended({name}, 0)) AS got)"


_GOT = "(SELECT got FROM lock)"


def _outcome(last: str = "NULL::text", missed: str = "0") -> str:
    return (
        f" SELECT lock.got AS got, {last} AS last, {missed} AS missed, counted.type AS type, "
        "coalesce(counted.n, 0) AS n "
        "FROM lock LEFT JOIN (SELECT type, count(*) AS n FROM gone GROUP BY type) counted ON true"
    )


def _mine(place: Place) -> str:
    """The condition that a row of entries holds its value itself, or is what is left of a typed row that has gone."""
    parts = []
    for table in place.typed:
        name, key = quoted(table.table), quoted(table.key_column)
        parts.append(
            f"(e.type <> {literal(table.type)} OR NOT EXISTS "
            f'(SELECT FROM {name} t WHERE t.{key} = e.key COLLATE "default"))'
        )
    return " AND ".join(parts) or "true"


def _gone(place: Place) -> str:
    return (
        f"gone AS (DELETE FROM {place.table('entries')} e USING doomed "
        "WHERE e.namespace = $1 AND e.key = doomed.key AND e.type = doomed.type RETURNING e.type)"
    )


def count_expired(place: Place) -> str:
    """How many rows there are to purge; $1: namespace."""
    parts = [f"SELECT count(*) AS n FROM {place.table('entries')} e WHERE e.namespace = $1 AND expires_at < now()"]
    parts[0] += f" AND {_mine(place)}"
    parts += [f"SELECT count(*) FROM {quoted(table.table)} t WHERE {place.over(table)}" for table in place.typed]
    return f"SELECT sum(n) FROM ({' UNION ALL '.join(parts)}) counts"


def expired(place: Place) -> str:
    """A window of the shared table, without what is expired; $1: namespace, $2: batch, $3: after this key.

    By windows, since expires_at has no index there: one would make every store write to all indexes (_layouts).
    """
    entries = place.table("entries")
    return (
        f"WITH {_lock(place)}, part AS (SELECT key FROM {entries} WHERE namespace = $1 AND key > $3 AND {_GOT} "
        "ORDER BY key LIMIT $2::int), "
        f"old AS (SELECT e.key, e.type FROM {entries} e WHERE e.namespace = $1 AND e.key IN (SELECT key FROM part) "
        f"AND e.expires_at < now() AND {_mine(place)}), "
        # Asked again where it is locked: it may have been stored anew since.
        f"doomed AS (SELECT e.key, e.type FROM {entries} e WHERE e.namespace = $1 "
        "AND (e.key, e.type) IN (SELECT key, type FROM old) "
        "AND e.expires_at < now() ORDER BY e.key, e.type FOR UPDATE SKIP LOCKED), "
        + _gone(place)
        + _outcome("(SELECT max(key) FROM part)")
    )


def typed_expired(place: Place, table: TypedTable) -> str:
    """A batch of the expired rows of a typed table, with their rows in entries; $1: namespace, $2: batch."""
    name, key = quoted(table.table), quoted(table.key_column)
    return (
        f"WITH {_lock(place)}, old AS (SELECT t.{key} AS key FROM {name} t WHERE {place.over(table)} AND {_GOT} "
        "ORDER BY t.expires_at LIMIT $2::int), "
        f"doomed AS (SELECT t.{key} AS key FROM {name} t WHERE t.{key} IN (SELECT key FROM old) "
        f"AND t.expires_at < {UTC_NOW} ORDER BY t.{key} FOR UPDATE SKIP LOCKED), "
        f"gone AS (DELETE FROM {name} t USING doomed WHERE t.{key} = doomed.key "
        f"RETURNING {literal(table.type)} AS type), " + place.fences(table) + _outcome()
    )


def any_marks(place: Place) -> str:
    """Whether there are hard marks that concern entries, soft ones, and any that may go; $1: namespace, $2: cutoff.

    'pattern:...' tells processes what to drop and concerns no entry: its fence does.
    """
    return (
        "SELECT bool_or(NOT soft AND name NOT LIKE 'pattern:%'), "
        "bool_or(soft AND name NOT LIKE 'pattern:%' AND at < $2::timestamptz), "
        f"bool_or(at < $2::timestamptz) FROM {place.table('invalidations')} WHERE namespace = $1"
    )


def dead(place: Place) -> str:
    """A window of the shared table, without what hard marks invalidated; $1: namespace, $2: batch, $3: after."""
    entries = place.table("entries")
    return (
        f"WITH {_lock(place)}, part AS (SELECT key FROM {entries} WHERE namespace = $1 AND key > $3 AND {_GOT} "
        "ORDER BY key LIMIT $2::int), "
        f"dead AS (SELECT e.key, e.type FROM {entries} e WHERE e.namespace = $1 AND e.key IN (SELECT key FROM part) "
        f"AND {_mine(place)} AND {place.dead()}), "
        f"doomed AS (SELECT e.key, e.type FROM {entries} e WHERE e.namespace = $1 "
        f"AND (e.key, e.type) IN (SELECT key, type FROM dead) AND {place.dead()} "
        "ORDER BY e.key, e.type FOR UPDATE SKIP LOCKED), "
        + _gone(place)
        + _outcome("(SELECT max(key) FROM part)", "(SELECT count(*) FROM dead) - (SELECT count(*) FROM gone)")
    )


def typed_dead(place: Place, table: TypedTable) -> str:
    """A window of a typed table, without what marks invalidated; $1: namespace, $2: batch, $3: after this key."""
    name, key = quoted(table.table), quoted(table.key_column)
    return (
        f"WITH {_lock(place)}, part AS (SELECT {key} AS key FROM {name} WHERE {key} > $3 AND {_GOT} "
        f"ORDER BY {key} LIMIT $2::int), "
        f"dead AS (SELECT t.{key} AS key, t.ctid AS place FROM {name} t LEFT JOIN {place.table('entries')} e "
        f"ON {place.entry_of(table)} WHERE t.{key} IN (SELECT key FROM part) AND {place.dead(table)}), "
        # A row that was stored anew since is at another place, and stays.
        f"doomed AS (SELECT t.{key} AS key FROM {name} t JOIN dead ON t.{key} = dead.key AND t.ctid = dead.place "
        f"ORDER BY t.{key} FOR UPDATE OF t SKIP LOCKED), "
        f"gone AS (DELETE FROM {name} t USING doomed WHERE t.{key} = doomed.key "
        f"RETURNING {literal(table.type)} AS type), "
        + place.fences(table)
        + _outcome("(SELECT max(key) FROM part)", "(SELECT count(*) FROM dead) - (SELECT count(*) FROM gone)")
    )


def stale(place: Place) -> str:
    """A window of entries, with what soft marks say written into fresh_until; $1: namespace, $2: batch, $3: after."""
    entries = place.table("entries")
    return (
        f"WITH {_lock(place)}, part AS (SELECT key FROM {entries} WHERE namespace = $1 AND key > $3 AND {_GOT} "
        "ORDER BY key LIMIT $2::int), "
        f"old AS (SELECT e.key, e.type, e.ctid AS place, {place.stale_at()} AS at FROM {entries} e "
        "WHERE e.namespace = $1 AND e.key IN (SELECT key FROM part)), "
        f"held AS (SELECT e.key, e.type, old.at FROM {entries} e "
        "JOIN old ON e.key = old.key AND e.type = old.type AND e.ctid = old.place "
        "WHERE e.namespace = $1 AND old.at < e.fresh_until ORDER BY e.key, e.type FOR UPDATE OF e SKIP LOCKED), "
        f"moved AS (UPDATE {entries} e SET fresh_until = held.at FROM held "
        "WHERE e.namespace = $1 AND e.key = held.key AND e.type = held.type "
        "RETURNING 1), gone AS (SELECT NULL::text AS type WHERE false)"
        + _outcome(
            "(SELECT max(key) FROM part)",
            f"(SELECT count(*) FROM old JOIN {entries} e ON e.namespace = $1 AND e.key = old.key AND e.type = old.type "
            "WHERE old.at < e.fresh_until) - (SELECT count(*) FROM moved)",
        )
    )


def typed_stale(place: Place, table: TypedTable) -> str:
    """The same of a typed table, whose rows are fresh until their expires_at; the parameters of `stale`.

    A row of somebody else has no time beyond that one: the next purge deletes it.
    """
    name, key = quoted(table.table), quoted(table.key_column)
    return (
        f"WITH {_lock(place)}, part AS (SELECT {key} AS key FROM {name} WHERE {key} > $3 AND {_GOT} "
        f"ORDER BY {key} LIMIT $2::int), "
        f"old AS (SELECT t.{key} AS key, t.ctid AS place, {place.stale_at(table)} AT TIME ZONE 'UTC' AS at "
        f"FROM {name} t LEFT JOIN {place.table('entries')} e ON {place.entry_of(table)} "
        f"WHERE t.{key} IN (SELECT key FROM part)), "
        f"held AS (SELECT t.{key} AS key, old.at FROM {name} t JOIN old ON t.{key} = old.key AND t.ctid = old.place "
        f"WHERE old.at < t.expires_at ORDER BY t.{key} FOR UPDATE OF t SKIP LOCKED), "
        f"moved AS (UPDATE {name} t SET expires_at = held.at FROM held WHERE t.{key} = held.key RETURNING 1), "
        "gone AS (SELECT NULL::text AS type WHERE false)"
        + _outcome(
            "(SELECT max(key) FROM part)",
            f"(SELECT count(*) FROM old JOIN {name} t ON t.{key} = old.key WHERE old.at < t.expires_at) "
            "- (SELECT count(*) FROM moved)",
        )
    )


def marks(place: Place) -> str:
    """A batch of old marks, the oldest first, with the floor raised above them; $1: namespace, $2: batch, $3: cutoff.

    Only marks that every running transaction sees: nothing that is stored from now on can be older than the floor.
    """
    table = place.table("invalidations")
    return (
        f"WITH {_lock(place)}, old AS (SELECT ctid AS place, xid FROM {table} WHERE namespace = $1 "
        f"AND name <> '' AND at < $3::timestamptz AND xid < pg_snapshot_xmin(pg_current_snapshot()) AND {_GOT} "
        "ORDER BY xid LIMIT $2::int), "
        f"raised AS (INSERT INTO {place.table('floors')} AS f (namespace, xid) "
        "SELECT $1, (max(xid::text::numeric) + 1)::text::xid8 FROM old HAVING count(*) > 0 "
        "ON CONFLICT (namespace) DO UPDATE SET xid = excluded.xid WHERE f.xid < excluded.xid), "
        f"gone AS (DELETE FROM {table} WHERE ctid = ANY (ARRAY(SELECT place FROM old)) RETURNING NULL::text AS type)"
        + _outcome()
    )


def leases(place: Place) -> str:
    """Leases that ended; $1: namespace."""
    return f"DELETE FROM {place.table('leases')} WHERE namespace = $1 AND expires_at < now()"


def idempotency(place: Place) -> str:
    """A batch of the records of idempotency keys that expired, as one number; $1: namespace, $2: batch."""
    return _core.idempotency_sql(quoted(place.schema))["purge"]


def flushes(place: Place) -> str:
    """Notes of processes that have not written for a week."""
    return f"DELETE FROM {place.table('flushes')} WHERE at < now() - interval '7 days'"
