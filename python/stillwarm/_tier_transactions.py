"""Invalidation inside the app's own transaction (I2): what this process does until its end is known.

Thread rule: the caller's thread or task.
Refuses to know: drivers (_transactions).

From the call until the outcome is known (a poll asks for it, `_tier_invalidation.settle`), memory neither serves nor
keeps what is named: its entries go at once, and nothing new is kept. The tier still answers with what is committed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from stillwarm import _tier_invalidation, _tier_values, _transactions
from stillwarm._durations import shown
from stillwarm._sql_types import quoted
from stillwarm.errors import ConfigError

if TYPE_CHECKING:
    from stillwarm._invalidating import Intent
    from stillwarm._tier import Tier


class Held:
    """What one open transaction invalidates: names, and its number once it has one."""

    __slots__ = ("names", "xid")

    def __init__(self, names: list[str]) -> None:
        self.names = frozenset(names)
        self.xid: str | None = None


def within(tier: Tier | None, connection: Any, plan: Intent) -> None:
    """Inserts the row on a synchronous connection."""
    tier, names, table = _checked(tier, connection, plan)
    theirs = _transactions.run(connection, _transactions.WHERE, table=table)
    _same(theirs, tier.query(*_asked(table)), connection)
    with _holding(tier, names) as held:
        text, values = _transactions.insert(table, tier.namespace, names, plan.stale)
        held.xid = _transactions.run(connection, text, **values)


async def awithin(tier: Tier | None, connection: Any, plan: Intent) -> None:
    """`within` for an asynchronous connection, or a synchronous one."""
    tier, names, table = _checked(tier, connection, plan)
    theirs = await _transactions.arun(connection, _transactions.WHERE, table=table)
    _same(theirs, await tier.aquery(*_asked(table)), connection)
    with _holding(tier, names) as held:
        text, values = _transactions.insert(table, tier.namespace, names, plan.stale)
        held.xid = await _transactions.arun(connection, text, **values)


def _checked(tier: Tier | None, connection: object, plan: Intent) -> tuple[Tier, list[str], str]:
    """The tier, the names of the plan there, and the table they are written to."""
    if tier is None:
        raise ConfigError('connection= needs the PostgreSQL tier; accepted: Cache("postgresql://...")')
    if not tier.speaks_sql:
        raise ConfigError(
            f"connection= needs the PostgreSQL tier, and the cache has a {tier.name} tier: what a transaction writes "
            f"and what {tier.name} holds are not committed together; accepted: invalidate() after the commit"
        )
    if plan.intent in ("pattern", "where"):
        raise ConfigError(f"{plan.intent}= with connection=: accepted with it: key=, type=, tag=, all=True")
    _transactions.kind_of(connection)
    name = _tier_values.storable(plan.name) if plan.intent == "key" else plan.name
    names = _tier_invalidation.names_of(plan.intent, name)
    return tier, names, f"{quoted(tier.schema)}.invalidations"


def _asked(table: str) -> tuple[str, list[str]]:
    """The tier is asked where it is, as the connection is."""
    return _transactions.WHERE.format(table="$1"), [table]


def _same(theirs: str | None, ours: list[tuple[str | None, ...]], connection: object) -> None:
    """Raises ConfigError unless the connection leads to the tier's database."""
    if theirs != ours[0][0] or (theirs or "").endswith(" -"):
        raise ConfigError(
            f"connection={shown(connection)}: it is not in the database of the tier, or that has no tables yet "
            f"(`stillwarm db migrate`); accepted: a transaction in the database of the cache's url"
        )


@contextmanager
def _holding(tier: Tier, names: list[str]) -> Iterator[Held]:
    """From here on memory neither serves nor keeps what is named; until the outcome is known, if the body succeeds."""
    held = Held(names)
    tier.pending.append(held)
    tier.reader.end_calm()
    for name in names:
        _tier_invalidation.apply(tier.cache, name, False)
    try:
        yield held
    except BaseException:
        tier.pending.remove(held)
        raise
    tier.used()
