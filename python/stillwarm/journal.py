"""A journal: the append-only record of look-ups in a table of its own, written behind the caller in batches.

    journal = Journal(query, table="search_history", columns={"search_type": "varchar(50) not null", ...})
    journal.record(search_type="discovery", filters={...}, results_count=12)

Thread rule: every method from any thread. One thread of its own writes; it starts with the first record, and again
after a fork, where the child does not write what the parent has to.
Refuses to know: the caches. Clearing them leaves it as it is, and it never expires; `archive` moves what is old.

A failing database loses nothing until `keep` records wait; then the oldest go and are counted. A batch whose commit was
in doubt is written again under the same ids, and lands once.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import Any, Final
from uuid import uuid4

from stillwarm._column_text import array_text, default_of, from_text, plain_text, to_text
from stillwarm._durations import duration, shown
from stillwarm._layouts import APPENDED, Layout
from stillwarm._sql_types import Column, Query, Text, column, identifier, literal, quoted
from stillwarm._tables import checked_indexes
from stillwarm.errors import CodecError, ConfigError, TierRejected

__all__ = ["Journal"]

_ID: Final = Column("id", "character varying(36)", True, "gen_random_uuid()")
_AT: Final = Column("created_at", "timestamp without time zone", False, "now()")
_log = logging.getLogger("stillwarm")


class Journal:
    """The record of look-ups in `table`: id, your columns, created_at.

    Args:
        query: how a statement gets to the database.
        table: its name; `stillwarm db migrate` or `_schema.migrate` makes it.
        columns: name to SQL type, as for a type's table.
        indexes: as for a type's table; created_at may be in them.
        interval: seconds after which what waits is written; batch: records at which it is written at once.
        keep: how many records wait at most while the database fails.

    Raises:
        ConfigError: names the argument, its value and what is accepted.
    """

    def __init__(
        self,
        query: Query,
        table: str,
        columns: Mapping[str, str],
        indexes: Sequence[str] | Mapping[str, str | Sequence[str]] = (),
        *,
        interval: float = 1.0,
        batch: int = 500,
        keep: int = 10_000,
    ) -> None:
        self.table = identifier(table, "table")
        if not isinstance(columns, Mapping) or not columns:
            raise ConfigError(f"columns={shown(columns)}: accepted: a dict of column name to SQL type, at least one")
        self.columns = tuple(column(name, text) for name, text in columns.items())
        for one in self.columns:
            if one.name in ("id", "created_at"):
                raise ConfigError(f"columns[{one.name!r}]: the table has it already: leave it out")
        self.indexes = checked_indexes(indexes, table, ("id", *columns, "created_at"))
        self._by_name = {one.name: one for one in (*self.columns, _AT)}
        self._query, self._interval = query, duration(interval, "interval") / 1e9
        self._batch, self._keep = _positive(batch, "batch"), _positive(keep, "keep")
        self._waiting: deque[tuple[float, list[Text]]] = deque()  # (monotonic time of the record, id and columns)
        self._dropped = self._written = 0
        self._offset = 0.0
        self._asked: float | None = None  # when the server was asked for its time
        self._warned = False
        self._pid = os.getpid()
        self._wake = threading.Condition(threading.Lock())  # guards all of the above
        self._writing = threading.Lock()  # held through a batch, so that the order is kept
        self._thread: threading.Thread | None = None
        self._closed = False
        _journals.add(self)

    @property
    def dropped(self) -> int:
        """Records that were not kept: the database failed for too long, or would not have them."""
        return self._dropped

    @property
    def waiting(self) -> int:
        """Records that are not written yet."""
        return len(self._waiting)

    def layout(self) -> Layout:
        """The whole table, for `migrate` and `verify`."""
        return Layout(
            self.table, (_ID, *self.columns, _AT), ("id",), self.indexes, storage=APPENDED, newest="created_at"
        )

    def declared(self) -> str:
        """The layout as JSON, as it is kept in the table meta."""
        columns = {one.name: one.text for one in self.columns}
        indexes = {index.name: list(index.columns) for index in self.indexes}
        return json.dumps({"table": self.table, "columns": columns, "indexes": indexes})

    def record(self, **columns: Any) -> None:
        """Keeps a record, to be written soon. A column that is not given has its default.

        A record that the table cannot have is dropped, counted, and logged once; nothing is raised for it.

        Raises:
            ConfigError: there is no such column.
        """
        for name in columns:
            if name not in self._by_name or name == "created_at":
                accepted = ", ".join(one.name for one in self.columns)
                raise ConfigError(f"record: there is no column {name!r}; accepted: {accepted}")
        try:
            texts = [to_text(columns[c.name], c) if c.name in columns else _default(c) for c in self.columns]
        except CodecError as error:
            self._drop(1, f"a record cannot be written: {error}")
            return
        with self._wake:
            if self._closed:
                self._dropped += 1
                return
            if self._pid != os.getpid():
                self._after_fork()
            self._waiting.append((time.monotonic(), [str(uuid4()), *texts]))
            if len(self._waiting) > self._keep:
                self._waiting.popleft()
                self._dropped += 1
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=f"stillwarm-journal-{self.table}", daemon=True)
                self._thread.start()
            if len(self._waiting) == self._batch:
                self._wake.notify()

    def flush(self) -> int:
        """Writes what waits, in order; how many were written. What the database does not take goes on waiting."""
        written = 0
        with self._writing:
            while self._waiting:
                with self._wake:
                    batch = [self._waiting[i] for i in range(min(self._batch, len(self._waiting)))]
                try:
                    taken = self._write(batch)
                except Exception as error:
                    self._warn(f"the journal {self.table} waits with {len(self._waiting)} records: {error}")
                    break
                written += taken
                with self._wake:
                    # Those that were dropped at the front meanwhile are gone from there already.
                    done = {id(one) for one in batch}
                    while self._waiting and id(self._waiting[0]) in done:
                        self._waiting.popleft()
                    self._written += taken
                    self._warned = False
        return written

    def close(self) -> None:
        """Writes what waits and ends the thread. What cannot be written is counted as dropped. May be called twice."""
        with self._wake:
            if self._closed:
                return
            self._closed = True
            self._wake.notify()
        thread = self._thread
        if thread is not None and self._pid == os.getpid() and thread is not threading.current_thread():
            thread.join(5.0)
        self.flush()
        if self._waiting:
            self._drop(len(self._waiting), "closed while the database failed")
            self._waiting.clear()
        _journals.discard(self)

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Journal({self.table!r}, waiting={self.waiting}, dropped={self.dropped})"

    # -------------------------------------------------------------------------------------------------- reading

    def count_by(self, name: str, since: Any = None) -> dict[Any, int]:
        """How many records there are per value of a column; `since`: a datetime, or a duration before now."""
        condition, params = self._since(since)
        return dict(self._grouped(name, f"{condition} GROUP BY 1 ORDER BY 2 DESC, 1", params))

    def frequent(self, name: str, n: int = 10, since: Any = None) -> list[tuple[Any, int]]:
        """The n most frequent values of a column with their counts, such as the filters that are asked for most."""
        condition, params = self._since(since)
        return self._grouped(name, f"{condition} GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT {_positive(n, 'n')}", params)

    def _grouped(self, name: str, rest: str, params: list[Text]) -> list[tuple[Any, int]]:
        one = self._by_name.get(name)
        if one is None:
            raise ConfigError(f"there is no column {shown(name)}; accepted: {', '.join(self._by_name)}")
        value = quoted(name) + ("::jsonb" if one.base == "json" else "")  # json has no equality
        rows = self._query(f"SELECT {value}, count(*) FROM {quoted(self.table)} WHERE {rest}", params)
        return [(from_text(text, one), int(count or 0)) for text, count in rows]

    def _since(self, since: Any) -> tuple[str, list[Text]]:
        if since is None:
            return "true", []
        if isinstance(since, datetime):
            aware = since if since.tzinfo else since.replace(tzinfo=timezone.utc)
            return "created_at >= ($1::timestamptz AT TIME ZONE 'UTC')", [plain_text(aware, zone=True)]
        seconds = duration(since, "since") / 1e9
        return "created_at >= (now() AT TIME ZONE 'UTC') - make_interval(secs => $1::float8)", [repr(seconds)]

    def archive(self, older_than: Any, to_table: str | None = None, *, batch: int = 1000) -> int:
        """Moves records older than a duration into another table, made like this one; without one, deletes them.

        Returns how many. In batches, each a transaction of its own.
        """
        seconds = repr(duration(older_than, "older_than", allow_zero=True) / 1e9)
        name, names = quoted(self.table), ", ".join(quoted(c.name) for c in (_ID, *self.columns, _AT))
        move = ""
        if to_table is not None:
            target = quoted(identifier(to_table, "to_table"))
            if to_table == self.table:
                raise ConfigError(f"to_table={to_table!r}: accepted: another table")
            if self._query(f"SELECT to_regclass({literal(target)})::text", []) == [(None,)]:
                self._query(f"CREATE TABLE IF NOT EXISTS {target} (LIKE {name} INCLUDING ALL)", [])
            move = f", moved AS (INSERT INTO {target} ({names}) SELECT {names} FROM gone ON CONFLICT (id) DO NOTHING)"
        ((cutoff,),) = self._query("SELECT (now() AT TIME ZONE 'UTC') - make_interval(secs => $1::float8)", [seconds])
        sql = (
            f"WITH old AS (SELECT id FROM {name} WHERE created_at < $1::timestamp ORDER BY created_at LIMIT $2::int), "
            f"doomed AS (SELECT id FROM {name} WHERE id IN (SELECT id FROM old) ORDER BY id FOR UPDATE SKIP LOCKED), "
            f"gone AS (DELETE FROM {name} j USING doomed WHERE j.id = doomed.id RETURNING j.*){move} "
            "SELECT count(*) FROM gone"
        )
        moved = 0
        while True:
            ((count,),) = self._query(sql, [cutoff, str(_positive(batch, "batch"))])
            if not int(count or 0):
                break
            moved += int(count or 0)
        _log.info("archived %d records of %s%s", moved, self.table, f" in {to_table}" if to_table else "")
        return moved

    # -------------------------------------------------------------------------------------------------- writing

    def _run(self) -> None:
        while True:
            with self._wake:
                if not self._closed and len(self._waiting) < self._batch:
                    self._wake.wait(self._interval)
                if self._closed:
                    return
            failed = self.flush() == 0 and self._waiting
            if failed:
                with self._wake:  # at a batch or more it would not wait by itself
                    if not self._closed:
                        self._wake.wait(self._interval)

    def _write(self, batch: Sequence[tuple[float, list[Text]]]) -> int:
        try:
            self._insert(batch)
            return len(batch)
        except TierRejected as error:
            if (error.sqlstate or "")[:2] not in ("22", "23"):
                raise
            if len(batch) == 1:
                self._drop(1, f"a record was refused: {error}")
                return 0
        # One of them is the reason: the others are written.
        half = len(batch) // 2
        return self._write(batch[:half]) + self._write(batch[half:])

    def _insert(self, batch: Sequence[tuple[float, list[Text]]]) -> None:
        columns = (_ID, *self.columns)
        names = ", ".join(quoted(one.name) for one in columns)
        values = ", ".join(f"r.c{i}::{one.type}" for i, one in enumerate(columns))
        arrays = ", ".join(f"${i + 1}::text[]" for i in range(len(columns) + 1))
        aliases = ", ".join(f"c{i}" for i in range(len(columns)))
        ahead = self._ahead()
        params = [array_text([texts[i] for _, texts in batch]) for i in range(len(columns))]
        params.append(array_text([f"{ahead + at:.6f}" for at, _ in batch]))
        self._query(
            f"INSERT INTO {quoted(self.table)} ({names}, created_at) "
            f"SELECT {values}, to_timestamp(r.at::float8) AT TIME ZONE 'UTC' "
            f"FROM unnest({arrays}) WITH ORDINALITY AS r ({aliases}, at, place) ORDER BY r.place "
            "ON CONFLICT (id) DO NOTHING",
            params,
        )

    def _ahead(self) -> float:
        """What the server's clock is ahead of this process's monotonic one. It is asked once a minute, and believed
        when it says something new: a little more or less each time would put records out of order."""
        now = time.monotonic()
        if self._asked is None or now - self._asked > 60.0:
            ((epoch,),) = self._query("SELECT extract(epoch FROM clock_timestamp())", [])
            ahead = float(epoch or 0) - now
            if self._asked is None or abs(ahead - self._offset) > 0.5:
                self._offset = ahead
            self._asked = now
        return self._offset

    def _drop(self, count: int, why: str) -> None:
        with self._wake:
            self._dropped += count
        self._warn(f"journal {self.table}: {why}")

    def _warn(self, text: str) -> None:
        if not self._warned:
            self._warned = True
            _log.warning("%s", text)

    def _after_fork(self) -> None:
        self._pid, self._thread = os.getpid(), None
        self._waiting.clear()  # the parent writes these


def _default(one: Column) -> Text:
    default = default_of(one)
    return to_text(None, one) if default is None else default


def _positive(value: object, argument: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 10**6:
        raise ConfigError(f"{argument}={shown(value)}: accepted: 1 to 1000000")
    return value


_journals: weakref.WeakSet[Journal] = weakref.WeakSet()


def _close_all() -> None:
    for journal in list(_journals):
        journal.close()


def _child_is_free() -> None:
    """After a fork: another thread of the parent may have held these locks."""
    for journal in list(_journals):
        journal._wake, journal._writing = threading.Condition(threading.Lock()), threading.Lock()
        journal._after_fork()


atexit.register(_close_all)
os.register_at_fork(after_in_child=_child_is_free)
