"""Upsert: one row per natural key, written by one statement together with what it invalidates, never twice.

Thread rule: generators of steps (see _tier), any thread, any loop.
Refuses to know: SQL (cpp/core/antidup/upsert.hpp), values and arguments (_upsert_rows), catalogs (_upsert_table).

The request is never repeated by the queue once it was sent. Where the server said that nothing was done (a collision,
no connection) it is sent again here; where its answer was lost it is not, and what is there under its keys is read.

Memory hears of it last: what a load that began before the commit brings is fenced off by then (I3), and this returns
when memory has forgotten what there was. Who does not live to see the answer hears of the marks that the statement
left, as every other process does: they have a name of their own, so that this process takes them for news too. Who
finds a row unchanged learns that another has written it, perhaps in another process a moment ago: what that one
invalidated is asked for before this returns.
"""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from stillwarm import _core, _tier_invalidation, _tier_values
from stillwarm._column_text import array_text
from stillwarm._durations import duration, shown
from stillwarm._sql_types import quoted
from stillwarm._tier import Steps
from stillwarm._tier_health import FULL, IN_DOUBT, REJECTED, TIMEOUT, UNAVAILABLE, raised
from stillwarm._upsert_rows import Asked, Job, asked, job
from stillwarm._upsert_table import FACTS, Target, quoted_table, target_of
from stillwarm.errors import CodecError, ConfigError, TierError, TierTimeout, TierUnavailable

if TYPE_CHECKING:
    from stillwarm._cache import Cache
    from stillwarm._invalidating import Intent
    from stillwarm._tier import Tier

Outcome = Literal["inserted", "updated", "unchanged", "written"]

# The table is not as it was when it was looked at.
_CHANGED: Final = ("42703", "42P01", "3F000", "42P10", "42804", "42846", "22P02", "0A000")
_COLLISIONS: Final = ("40001", "40P01", "55P03")
_TWICE: Final = "21000"  # a row would be written a second time by one statement
# Of a second unique index: who inserts the same row at the same time was there first. Asked anew, the row has its key.
_OVERTAKEN: Final = "23505"
_SAME_KEY: Final = "two of the rows have a key that is the same to the server; nothing was written"
_AT_LEAST: Final = 1_000_000_000  # ns for the look after an answer that was lost
_writes: Final = itertools.count()


@dataclass(frozen=True)
class Upserted:
    """What became of a row.

    Attributes:
        outcome: "inserted", "updated", or "unchanged": it was as given already, and nothing was written. "written":
            the connection broke before the answer came; it was looked for then, and is there as given (under its key,
            in the columns of `update=`), but nobody knows which of the three it was.
        row: the columns of `returning=`; of an unchanged row as they were right afterwards, and empty if it was gone.
    """

    outcome: Outcome
    row: dict[str, Any] = field(default_factory=dict)


class Mark(NamedTuple):
    """What is invalidated: as memory wants it, and its names in the tier."""

    plan: Intent
    names: list[str]


def upserting(
    cache: Cache,
    tier: Tier,
    table: Any,
    row: Any,
    unique: Any,
    update: Any,
    returning: Any,
    invalidates: Any,
    timeout: Any,
) -> Steps[list[Upserted]]:
    """The rows' outcomes in their order.

    Raises:
        ConfigError: nothing was done. CodecError: likewise, or what came back cannot be read, which its text says.
        TierRejected, TierTimeout: nothing was done.
        TierUnavailable: nothing was done, or nobody knows, which its text says.
    """
    limit = duration(timeout, "timeout")
    what = asked(table, row, unique, update, returning)
    marks = marks_of(cache, invalidates)
    if not what.rows:
        return []
    until = time.monotonic_ns() + limit
    if cache._tier is not None and marks:
        tier.used()
    named = f"{tier.process}+u{next(_writes)}"
    tried = _Tries(until)
    looked_again = migrated = overtaken = False
    while True:
        ready = yield from _ready(tier, what, bool(marks), tried)
        if time.monotonic_ns() >= until:  # what is cut off in a millisecond may be done, and nobody would know
            raise TierTimeout(f"upsert of {what.table}: timeout={shown(timeout)} was over before it was sent")
        request = _core.query(ready.plan.text, _parameters(tier, ready, marks, named), tried.left(), True)
        try:
            error = yield request
        except BaseException:  # cancelled: it may be done, and then this process hears of its marks
            _forget(cache, marks)
            tier.core.tell()
            raise
        if error is None:
            return (yield from _done(cache, tier, what, ready, marks, request.rows))
        fault, state, _ = error
        if fault == IN_DOUBT:
            return (yield from _looked_up(cache, tier, what, ready, marks, until, error))
        if state == _TWICE and len(what.rows) > 1:  # else it is some trigger's own
            raise ConfigError(f"upsert of {what.table}: {_SAME_KEY}")
        if state == _OVERTAKEN and not overtaken:
            overtaken = True
            continue
        if state in _CHANGED:
            tier.targets.pop(what.table, None)
            if state in ("42P01", "3F000") and marks and not migrated:
                migrated = True
                yield _core.poll([])  # who finds no tables makes them
                continue
            if not looked_again:
                looked_again = True
                continue
        yield tried.pause(error)


def marks_of(cache: Cache, invalidates: Any) -> list[Mark]:
    """The intents, checked as `invalidate` does it.

    Raises:
        ConfigError: names the one that is not accepted.
    """
    forms = 'dicts such as {"tag": "asin:B07"}, with exactly one of key, type, tag, all, and "stale" if wanted'
    if isinstance(invalidates, (str, bytes, Mapping)) or not isinstance(invalidates, Iterable):
        raise ConfigError(f"invalidates={shown(invalidates)}: accepted: a list of {forms}")
    marks = []
    for intent in invalidates:
        if not isinstance(intent, Mapping) or not set(intent) <= {"key", "type", "tag", "all", "stale"}:
            raise ConfigError(f"invalidates: {shown(intent)}: accepted: {forms}")
        key, type, tag, all, stale = (intent.get(name) for name in ("key", "type", "tag", "all", "stale"))
        if sum((key is not None, type is not None, tag is not None, bool(all))) != 1:
            raise ConfigError(f"invalidates: {shown(dict(intent))}: accepted: {forms}")
        try:
            plan = cache._intent(key, type, tag, None, None, all, None, stale)
        except ConfigError as error:
            raise ConfigError(f"invalidates: {shown(dict(intent))}: {error}") from None
        if plan.intent == "tag" and not _is_text(plan.name):
            raise ConfigError(f"invalidates: {shown(dict(intent))}: accepted: a text without NUL and lone surrogates")
        name = _tier_values.storable(plan.name) if plan.intent == "key" else plan.name
        marks.append(Mark(plan, _tier_invalidation.names_of(plan.intent, name)))
    return marks


def _is_text(name: str) -> bool:
    """Whether a database takes it."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in name


class _Tries:
    """How often something is tried that was not done: jittered pauses up to half a second, within the time."""

    def __init__(self, until: int) -> None:
        self._until = until
        self._attempt = _core.RetryPolicy(
            retries=12, base=10_000_000, cap=500_000_000, factor=2.0, below=1.0, above=0.0,
            deadline=max(1, until - time.monotonic_ns()), max_retry_after=0, budget=None, name="upsert",
        ).start()  # fmt: skip

    def left(self) -> int:
        """ns; at least 1 ms, which is too short for anything and ends as what it is, a timeout."""
        return max(1_000_000, self._until - time.monotonic_ns())

    def pause(self, error: tuple[int, str, str]) -> float:
        """s until the next attempt.

        Raises:
            TierError: there is none; the error.
        """
        fault, state, _ = error
        passing = fault in (UNAVAILABLE, FULL) or (fault in (REJECTED, TIMEOUT) and state in _COLLISIONS)
        wait = self._attempt.failed(passing, None, random.random())
        if wait is None or wait >= self._until - time.monotonic_ns():
            raise raised(error)
        return wait / 1e9


def _ready(tier: Tier, what: Asked, marked: bool, tried: _Tries) -> Steps[Job]:
    """The job for the table as it is known, which is looked at first if it is not."""
    marks = f"{quoted(tier.schema)}.invalidations" if marked else ""
    known: Target | None = tier.targets.get(what.table)
    if known is not None:
        try:
            return job(what, known, marks)
        except (ConfigError, CodecError):  # there may be a new column, a new index, a wider type
            pass
    while True:
        request = _core.query(FACTS, [quoted_table(what.table)], tried.left())
        error = yield request
        if error is None:
            break
        yield tried.pause((UNAVAILABLE, *error[1:]) if error[0] == IN_DOUBT else error)
    target = tier.targets[what.table] = target_of(what.table, request.rows)
    return job(what, target, marks)


def _parameters(tier: Tier, ready: Job, marks: list[Mark], named: str) -> list[str | None]:
    if not marks:
        return ready.arrays
    names = [(name, mark.plan.stale) for mark in marks for name in mark.names]
    listed, soft = (
        array_text([name for name, _ in names]),
        array_text(["true" if stale else "false" for _, stale in names]),
    )
    return [*ready.arrays, tier.namespace, named, listed, soft]


def _forget(cache: Cache, marks: list[Mark]) -> None:
    for mark in marks:
        cache._invalidate_here(mark.plan)


def _committed(cache: Cache, tier: Tier, marks: list[Mark]) -> None:
    """The marks are in the tier: memory follows, what this process had set before is no longer owed, others hear."""
    for mark in marks:
        for name in mark.names:
            tier.core.overtaken(name)
    _forget(cache, marks)
    if marks:
        tier.core.tell()


def _done(cache: Cache, tier: Tier, what: Asked, ready: Job, marks: list[Mark], rows: Any) -> Steps[list[Upserted]]:
    """It was done, and this is the answer."""
    try:
        found, whole, twice = _core.read_upsert(rows, len(what.rows))
    except ValueError as error:
        _committed(cache, tier, marks)
        raise TierError(f"upsert of {what.table}: {error}; it was done") from None
    if twice:
        raise ConfigError(f"upsert of {what.table}: {_SAME_KEY}")
    if not whole or any(outcome != "unchanged" for outcome, _ in found):
        _committed(cache, tier, marks)
    elif marks and cache._tier is not None and not (yield from _tier_invalidation.confirm(tier)):
        _forget(cache, marks)  # what the one who wrote it invalidated could not be asked for
    if not whole:
        raise TierError(
            f"upsert of {what.table}: it was done, but a trigger must have kept rows out, or changed their keys: what "
            "became of which row is not known"
        )
    unchanged: dict[int, Any] = {}
    if ready.returning and any(outcome == "unchanged" for outcome, _ in found):
        tried = _Tries(time.monotonic_ns() + _AT_LEAST)
        try:
            there = yield from _reread(what, ready, tried)
        except TierError as second:
            lost = f"upsert of {what.table}: it was done, but the rows that were unchanged could not be read"
            raise TierUnavailable(f"{lost} ({second})") from second
        unchanged = {n: texts for n, (is_there, _, texts) in enumerate(there) if is_there}
    return _upserted(
        what,
        ready,
        ((outcome, unchanged.get(n) if outcome == "unchanged" else texts) for n, (outcome, texts) in enumerate(found)),
    )


def _upserted(what: Asked, ready: Job, found: Iterable[tuple[Outcome, Any]]) -> list[Upserted]:
    """The outcomes with the texts of their rows, or None, as values."""
    try:
        return [Upserted(outcome, {} if texts is None else ready.row(texts)) for outcome, texts in found]
    except CodecError as error:  # a date before Christ
        raise CodecError(f"upsert of {what.table}: it was done, but what it returns cannot be read: {error}") from None


def _reread(what: Asked, ready: Job, tried: _Tries) -> Steps[list[Any]]:
    while True:
        request = _core.query(ready.plan.reread_text, ready.arrays, tried.left())
        error = yield request
        if error is None:
            return _core.read_reread(request.rows, len(what.rows))
        yield tried.pause(error)


def _looked_up(
    cache: Cache, tier: Tier, what: Asked, ready: Job, marks: list[Mark], until: int, error: tuple[int, str, str]
) -> Steps[list[Upserted]]:
    """The answer was lost: done or not done, and perhaps not yet. Nothing is sent again; what is there is read."""
    for mark in marks:  # what the tier does not take now is owed to it
        for name in mark.names:
            yield from _tier_invalidation.invalidate(tier, [name], mark.plan.stale)
    _forget(cache, marks)
    lost = f"upsert of {what.table}: {raised(error)}; whether it was done is not known, and it was not repeated"
    tried = _Tries(max(until, time.monotonic_ns() + _AT_LEAST))
    try:
        there = yield from _reread(what, ready, tried)
    except TierError as second:
        raise TierUnavailable(f"{lost}: what is there could not be read ({second})") from second
    for n, (is_there, as_given, _) in enumerate(there):
        if not is_there or not as_given:
            state = "is there otherwise than given" if is_there else "is not there"
            raise TierUnavailable(f"{lost}: {what.where(n)} ({ready.keys[n]}) {state}")
    return _upserted(what, ready, (("written", texts) for _, _, texts in there))


__all__ = ["Outcome", "Upserted", "upserting"]
