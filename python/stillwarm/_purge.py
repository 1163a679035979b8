"""The purge: expired rows, then what marks invalidated, then the marks; and the cap by rows and bytes.

Thread rule: any thread of any process; one purges a namespace at a time, the others return at once.
Refuses to know: when it is time for it.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias

from stillwarm import _purge_sql
from stillwarm._durations import duration, shown, size
from stillwarm._place import DICTIONARIES, Place, texts
from stillwarm._sql_types import Text, literal, quoted
from stillwarm.errors import ConfigError

Progress: TypeAlias = "Callable[[int, int], object]"

RETENTION: Final = "15m"
_UNNAMED: Final = ("default", "direct", DICTIONARIES)
_log = logging.getLogger("stillwarm")


class _Busy(Exception):
    """Another process purges."""


def purge(
    place: Place, progress: Progress | None = None, batch: int = 1000, *, retention: Any = RETENTION
) -> dict[str, int]:
    """Deletes what is expired or invalidated, and the marks that nothing needs any more. Counts of rows per type.

    Args:
        progress: called with how many rows are done and of how many, after each batch.
        batch: rows per statement, 1 to 100,000.
        retention: how long a mark is kept at least; longer than any statement takes. 0 only where nothing else runs.

    While another process purges the same namespace this one does nothing.

    Raises:
        ConfigError: an argument is not accepted.
    """
    step = str(_count(batch, "batch", 100_000))
    seconds = duration(retention, "retention", allow_zero=True) / 1e9
    counts = Counter(dict.fromkeys(place.tables, 0))
    typed = {DICTIONARIES, *(table.type for table in place.typed)}
    # Before anything else: a row that an older mark invalidates is stored by now, and will be met.
    ((cutoff,),) = place.query("SELECT clock_timestamp() - make_interval(secs => $1::float8)", [repr(seconds)])
    ((total,),) = place.query(_purge_sql.count_expired(place), [place.namespace])
    done = 0

    def run(sql: str, params: Sequence[Text], counted: bool = True) -> tuple[int, str | None, int]:
        nonlocal done
        gone, last, missed = 0, None, 0
        for got, key, left, type, n in place.query(sql, params):
            if got != "t":
                raise _Busy
            last, missed = key, int(left or 0)
            gone += int(n or 0)
            if type is not None and counted:
                counts[type] += int(n or 0)
        done += gone
        if progress is not None and gone:
            progress(done, max(done, int(total or 0)))
        return gone, last, missed

    try:
        for table in place.typed:
            while run(_purge_sql.typed_expired(place, table), [place.namespace, step])[0]:
                pass
        # What is left of typed rows that have gone is no row of its own.
        _uncounted(counts, typed, lambda: _walk(place, _purge_sql.expired(place), step, run))
        ((hard, soft, old),) = place.query(_purge_sql.any_marks(place), [place.namespace, cutoff])
        missed = 0
        if hard == "t":
            for table in place.typed:
                missed += _walk(place, _purge_sql.typed_dead(place, table), step, run)
            missed += _uncounted(counts, typed, lambda: _walk(place, _purge_sql.dead(place), step, run))
        if soft == "t":
            for table in place.typed:
                missed += _walk(place, _purge_sql.typed_stale(place, table), step, run)
            missed += _walk(place, _purge_sql.stale(place), step, run)
        if missed:
            # A mark must not go before what it invalidates: the next purge will do both.
            _log.debug("purge: %d invalidated rows are locked; the marks stay", missed)
        elif old == "t":
            while run(_purge_sql.marks(place), [place.namespace, step, cutoff])[0]:
                pass
    except _Busy:
        _log.info("purge of %s: another process is at it", place.namespace)
        return _told(counts)
    place.query(_purge_sql.leases(place), [place.namespace])
    place.query(_purge_sql.flushes(place), [])
    while place.query(_purge_sql.idempotency(place), [place.namespace, step]) == [(step,)]:
        pass  # a full batch: there may be more
    _log.info("purged %s", _told(counts))
    return _told(counts)


def _told(counts: Mapping[str, int]) -> dict[str, int]:
    """Without the types that no app has named, where nothing of theirs was there."""
    return {type: n for type, n in counts.items() if n or type not in _UNNAMED}


def _uncounted(counts: Counter[str], types: set[str], call: Callable[[], Any]) -> Any:
    """Calls, and leaves the counts of these types as they were."""
    before = {type: counts[type] for type in types}
    try:
        return call()
    finally:
        counts.update({type: before[type] - counts[type] for type in types})


def _walk(place: Place, sql: str, step: str, run: Callable[[str, Sequence[Text]], tuple[int, str | None, int]]) -> int:
    """Runs the statement of a window from the first key to the last; how many rows it missed."""
    last: str | None = ""
    missed = 0
    while last is not None:
        _, last, left = run(sql, [place.namespace, step, last])
        missed += left
    return missed


def trim(
    place: Place, *, max_rows: int | None = None, max_bytes: int | str | None = None, batch: int = 1000
) -> dict[str, int]:
    """Deletes the least used rows of the namespace, of these the oldest, until it keeps the caps. Counts per type.

    Bytes are those of the rows as stored, without indexes.

    Raises:
        ConfigError: no cap is given, or it is not accepted.
    """
    if max_rows is None and max_bytes is None:
        raise ConfigError("max_rows=None: accepted: a number of rows, unless max_bytes is given")
    most_rows = None if max_rows is None else _count(max_rows, "max_rows", 2**62, least=0)
    most_bytes = None if max_bytes is None else size(max_bytes, "max_bytes")
    _count(batch, "batch", 100_000)
    counts = Counter(dict.fromkeys(place.tables, 0))
    while True:
        ((rows, total),) = place.query(f"SELECT count(*), coalesce(sum(bytes), 0) FROM ({_rows(place)}) r", _of(place))
        over_rows = 0 if most_rows is None else int(rows or 0) - most_rows
        over_bytes = 0 if most_bytes is None else int(total or 0) - most_bytes
        if over_rows <= 0 and over_bytes <= 0:
            break
        victims: dict[str, list[str]] = {}
        least = place.query(
            f"SELECT type, key, bytes FROM ({_rows(place)}) r "
            f'ORDER BY hit_count, created_at NULLS FIRST, key COLLATE "C" LIMIT {batch}',
            _of(place),
        )
        for type, key, weight in least:
            if over_rows <= 0 and over_bytes <= 0:
                break
            over_rows, over_bytes = over_rows - 1, over_bytes - int(weight or 0)
            victims.setdefault(str(type), []).append(str(key))
        gone = sum(_delete(place, type, keys, counts) for type, keys in victims.items())
        if not gone:
            break  # all of them are locked: they are in use
    if any(counts.values()):
        _log.info("trimmed %s", {type: n for type, n in counts.items() if n})
    return _told(counts)


def _of(place: Place) -> list[Text]:
    return [place.namespace, place.not_apart()]


def _rows(place: Place) -> str:
    """Every row that holds a value: type, key, hit_count, created_at, bytes; $1: namespace, $2: types with tables."""
    parts = [
        "SELECT type, key, hit_count, created_at, "
        "(octet_length(key) + coalesce(pg_column_size(payload), 0) + coalesce(pg_column_size(tags), 0) + 100)::bigint "
        "AS bytes "
        f"FROM {place.table('entries')} e WHERE namespace = $1 AND type <> ALL ($2::text[])"
    ]
    for table in place.typed:
        # Column by column: the size of a whole row would read what is stored out of line.
        names = (table.key_column, *table.names, *(["payload"] if table.value is None else []))
        weight = " + ".join(f"coalesce(pg_column_size(t.{quoted(name)}), 0)" for name in names)
        parts.append(
            f"SELECT {literal(table.type)}, {quoted(table.key_column)}, coalesce(hit_count, 0), "
            f"created_at AT TIME ZONE 'UTC', {weight} + 48 FROM {quoted(table.table)} t"
        )
    return " UNION ALL ".join(parts)


def _delete(place: Place, type: str, keys: list[str], counts: Counter[str]) -> int:
    table = place.tables.get(type)
    entries = place.table("entries")
    own, key = (entries, "key") if table is None else (quoted(table.table), quoted(table.key_column))
    mine = f"r.namespace = $1 AND r.type = {literal(type)} AND " if table is None else ""
    fences = "" if table is None else f", {place.fences(table)}"
    ((n,),) = place.query(
        f"WITH doomed AS (SELECT r.{key} AS key FROM {own} r WHERE {mine}r.{key} = ANY ($2::text[]) "
        f"ORDER BY r.{key} FOR UPDATE SKIP LOCKED), "
        f"gone AS (DELETE FROM {own} r USING doomed WHERE {mine}r.{key} = doomed.key RETURNING 1){fences} "
        "SELECT count(*) FROM gone",
        [place.namespace, texts(keys)],
    )
    counts[type] += int(n or 0)
    return int(n or 0)


def _count(value: object, argument: str, most: int, *, least: int = 1) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ConfigError(f"{argument}={shown(value)}: accepted: {least} to {most}")
    return value
