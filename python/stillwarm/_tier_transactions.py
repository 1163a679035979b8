"""Invalidation inside the app's own transaction (I2): what this process does until its end is known.

Thread rule: the caller's thread or task.
Refuses to know: drivers (_transactions).

From the call until the outcome is known (a poll asks for it, `_tier_invalidation.settle`), memory neither serves nor keeps
what is named: its entries go at once, and nothing new is kept. The tier still answers with what is committed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stillwarm import _tier_invalidation, _tier_values, _transactions
from stillwarm._durations import shown
from stillwarm._sql_types import quoted
from stillwarm.errors import ConfigError

if TYPE_CHECKING:
    from stillwarm._cache import Cache
    from stillwarm._invalidating import Intent


def within(cache: Cache, connection: Any, plan: Intent) -> None:
    """Inserts the row on a synchronous connection."""
    names, table = _names(cache, connection, plan)
    _same(cache, _transactions.run(connection, _transactions.WHERE, table=table), connection)
    ticket, xid = _hold(cache, names), None
    try:
        text, values = _transactions.insert(table, cache.namespace, names, plan.stale)
        xid = _transactions.run(connection, text, **values)
    finally:
        _await_outcome(cache, names, ticket, xid)


async def awithin(cache: Cache, connection: Any, plan: Intent) -> None:
    """`within` for an asynchronous connection, or a synchronous one."""
    names, table = _names(cache, connection, plan)
    _same(cache, await _transactions.arun(connection, _transactions.WHERE, table=table), connection)
    ticket, xid = _hold(cache, names), None
    try:
        text, values = _transactions.insert(table, cache.namespace, names, plan.stale)
        xid = await _transactions.arun(connection, text, **values)
    finally:
        _await_outcome(cache, names, ticket, xid)


def _names(cache: Cache, connection: Any, plan: Intent) -> tuple[list[str], str]:
    tier = cache._tier
    if tier is None:
        raise ConfigError('connection= needs the PostgreSQL tier; accepted: Cache("postgresql://...")')
    if plan.intent in ("pattern", "where"):
        raise ConfigError(f"{plan.intent}= with connection=: accepted with it: key=, type=, tag=, all=True")
    _transactions.kind_of(connection)
    name = _tier_values.storable(plan.name) if plan.intent == "key" else plan.name
    names = _tier_invalidation.names_of(plan.intent, name)
    return names, f"{quoted(tier.schema)}.invalidations"


def _same(cache: Cache, theirs: str | None, connection: Any) -> None:
    """Raises ConfigError unless the connection leads to the tier's database."""
    tier = cache._tier
    assert tier is not None
    table = f"{quoted(tier.schema)}.invalidations"
    rows = tier.query(_transactions.WHERE.format(table="$1"), [table])
    if theirs != rows[0][0] or (theirs or "").endswith(" -"):
        raise ConfigError(
            f"connection={shown(connection)}: it is not in the database of the tier, or that has no tables yet "
            f"(`stillwarm db migrate`); accepted: a transaction in the database of the cache's url"
        )


def _hold(cache: Cache, names: list[str]) -> str:
    tier = cache._tier
    assert tier is not None
    ticket = tier.pending.hold(names)
    for name in names:
        _tier_invalidation.apply(cache, name, False)
    return ticket


def _await_outcome(cache: Cache, names: list[str], ticket: str, xid: str | None) -> None:
    """`xid` None: the statement failed, and the transaction with it."""
    tier = cache._tier
    assert tier is not None
    tier.pending.told(names, ticket, xid)
    cache._upkeep.used()
