"""What makes entries go before their time: by key, type, tag, pattern, or all of them.

Thread rule: any thread; the `a` twins from any loop. A get that starts afterwards never sees what was there before.
Refuses to know: how the core keeps that promise (cpp/core/fence), and how entries got in.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar, cast

from stillwarm import _core, _keys, _tier_invalidation, _tier_transactions, _tier_values, hooks
from stillwarm._durations import shown
from stillwarm._target import NOT_ASKED
from stillwarm._tier import Steps, adrive, drive
from stillwarm._tier_health import Error, raised
from stillwarm._tier_redis import NEEDS_SQL
from stillwarm._verbs import Verbs
from stillwarm.errors import ConfigError

if TYPE_CHECKING:
    from stillwarm._place import Place
    from stillwarm._target import Target

T = TypeVar("T")
NO_REMOTE: Final = 'this cache has memory only; accepted: Cache("postgresql://...")'
NO_TIER: Final = (
    'this needs a remote tier; this cache has memory only; accepted: Cache("postgresql://...") or "redis://..."'
)


def no_sql(what: str, has_redis: bool) -> ConfigError:
    """The error of what only a database with tables can do."""
    if has_redis:
        return ConfigError(f"{what}: {NEEDS_SQL}" if what else NEEDS_SQL)
    return ConfigError(f"{what or 'this'} needs the PostgreSQL tier; {NO_REMOTE}")


class Intent(NamedTuple):
    """What is to be invalidated, checked."""

    intent: str
    name: str
    stale: bool = False
    type: str | None = None
    params: Mapping[str, Any] | None = None


class Invalidating(Verbs):
    """The part of a Cache that turns an intent into marks, fences and removed entries."""

    __slots__ = ()

    def invalidate(
        self,
        *,
        key: str | None = None,
        type: str | None = None,
        tag: str | None = None,
        pattern: str | None = None,
        where: Any = None,
        all: bool = False,
        params: Mapping[str, Any] | None = None,
        stale: bool = False,
        connection: Any = None,
    ) -> int | None:
        """Makes entries invalid; exactly one of key, type, tag, pattern, where, all says which.

        A get that starts afterwards never sees the older value, and a load that is running is not stored.

        Args:
            key: a readable key (`f.cache_key(...)`) or a direct key.
            type: name of a type: everything of its functions.
            tag: everything stored with this tag.
            pattern: a glob over readable keys: `*`, `?`, `[...]`. Reads every key.
            where: a condition in SQL over the columns of `type=`, which has a table of its own: "roi_percent < :least",
                with `params={"least": 10}`.
            all: everything.
            connection: the app's own open transaction in the tier's database (psycopg, SQLAlchemy, asyncpg): the
                invalidation happens if, and only if, it commits. Until then this process keeps nothing in memory of
                what is named; the others hear of it within `max_lag` after the commit.
            stale: keep the entries as stale values that may be served while, or if not, a new one can be loaded.

        Returns:
            How many entries for key, pattern and where; None for type, tag and all, which write one mark, and within a
            transaction.

        Raises:
            ConfigError: none or several intents, an unknown type, or one that needs a remote tier.
            TierError: with where=, the database did not take it; else only if the cache is strict, after memory was
                invalidated.
        """
        plan = self._intent(key, type, tag, pattern, where, all, params, stale)
        if connection is not None:
            _tier_transactions.within(self._tier, connection, plan)
            return None
        if self._tier is None:
            return self._invalidate_here(plan)
        return drive(self._tier, self._invalidating(plan))

    async def ainvalidate(self, **intent: Any) -> int | None:
        """`invalidate` for coroutines; `connection=` may be an asynchronous one."""
        connection = intent.pop("connection", None)
        if self._tier is None and connection is None:
            return self.invalidate(**intent)
        names = ("key", "type", "tag", "pattern", "where", "all", "params", "stale")
        for name in intent:
            if name not in names:
                raise TypeError(f"ainvalidate() got an unexpected keyword argument {name!r}")
        plan = self._intent(*(intent.get(name, False if name in ("all", "stale") else None) for name in names))
        if connection is not None:
            await _tier_transactions.awithin(self._tier, connection, plan)
            return None
        assert self._tier is not None
        return await adrive(self._tier, self._invalidating(plan))

    def _drive(self, steps: Steps[T]) -> T:
        return run_through(steps) if self._tier is None else drive(self._tier, steps)

    async def _adrive(self, steps: Steps[T]) -> T:
        return run_through(steps) if self._tier is None else await adrive(self._tier, steps)

    def clear(self) -> None:
        """Removes every entry at once, in the remote tier too; loads in flight are not stored. Counts stay."""
        if self._tier is not None:
            drive(self._tier, self._invalidating(Intent("all", "")))
        _core.clear(self, -1)
        self._emit(hooks.Invalidated("all", "", False))

    async def aclear(self) -> None:
        """`clear` for coroutines."""
        if self._tier is not None:
            await adrive(self._tier, self._invalidating(Intent("all", "")))
        _core.clear(self, -1)
        self._emit(hooks.Invalidated("all", "", False))

    def confirm(self) -> bool:
        """Asks the remote tier what happened since it was last asked. True: memory is right as of now."""
        return self._tier is None or drive(self._tier, _tier_invalidation.confirm(self._tier))

    _confirm = confirm

    async def aconfirm(self) -> bool:
        """`confirm` for coroutines."""
        return self._tier is None or await adrive(self._tier, _tier_invalidation.confirm(self._tier))

    _aconfirm = aconfirm

    def _asked(self, target: Target) -> int:
        """What comes of asking the tier whether memory is right of this key."""
        tier = self._tier
        return (
            NOT_ASKED
            if tier is None
            else drive(tier, _tier_invalidation.asked(tier, _tier_values.text_of(tier, target)))
        )

    async def _aasked(self, target: Target) -> int:
        """`_asked` for coroutines."""
        tier = self._tier
        return (
            NOT_ASKED
            if tier is None
            else await adrive(tier, _tier_invalidation.asked(tier, _tier_values.text_of(tier, target)))
        )

    # ----------------------------------------------------------------------------------------------------- intents

    def _intent(
        self, key: Any, type: Any, tag: Any, pattern: Any, where: Any, all: Any, params: Any, stale: Any
    ) -> Intent:
        """The one intent that was given, checked."""
        given = {"key": key, "type": type, "tag": tag, "pattern": pattern, "where": where}
        named = [name for name, value in given.items() if value is not None] + ["all"] * bool(all)
        if where is not None and (self._tier is None or not self._tier.speaks_sql):
            raise no_sql("where=", self._tier is not None)
        intents = ["where"] if named == ["type", "where"] else named
        if len(intents) != 1 or named == ["where"]:
            which = " and ".join(named) or "none"
            accepted = "exactly one of key=, type=, tag=, pattern=, all=True, or where= with type="
            raise ConfigError(f"invalidate() got {which}: accepted: {accepted}")
        intent = intents[0]
        for name in named:
            if name != "all" and (not isinstance(given[name], str) or not given[name]):
                raise ConfigError(f"{name}={shown(given[name])}: accepted: a str that is not empty")
        if params is not None and intent != "where":
            raise ConfigError(f"params={shown(params)}: accepted with where= only")
        if intent in ("type", "where") and type not in self._type_ids:
            raise ConfigError(f"type={shown(type)}: accepted: {', '.join(map(repr, self._type_ids))}")
        return Intent(intent, "" if intent == "all" else given[intent], bool(stale), type, params)

    def _invalidate_here(self, plan: Intent) -> int | None:
        """In memory."""
        name, count = plan.name, None
        if plan.intent == "key":
            count = self._invalidate_text(name, plan.stale)
        elif plan.intent == "pattern":
            count = self._invalidate_pattern(name, plan.stale)
        elif plan.intent == "tag":
            _core.mark(self, "tag", _core.tag_fingerprint(name), plan.stale)
        elif plan.intent == "type":
            _core.mark(self, "type", self._type_ids[name], plan.stale)
        else:
            _core.mark(self, "all", 0, plan.stale)
        if self._hooks:
            self._emit(hooks.Invalidated(plan.intent, name, plan.stale))
        return count

    def _invalidating(self, plan: Intent) -> Steps[int | None]:
        """The tier, then memory, then the others."""
        assert self._tier is not None
        if plan.intent == "where":
            return (yield from self._invalidating_where(plan))
        name = _tier_values.storable(plan.name) if plan.intent == "key" else plan.name
        names = _tier_invalidation.names_of(plan.intent, name)
        there, error = yield from _tier_invalidation.invalidate(self._tier, names, plan.stale)
        here = self._invalidate_here(plan)
        if error is not None and self._tier.strict:
            raise raised(error)
        return None if here is None else max(here, there)

    def _invalidating_where(self, plan: Intent) -> Steps[int]:
        from stillwarm._where import where_sql

        tier = self._tier
        assert tier is not None
        sql, values = where_sql(
            self._place(), plan.type or "", plan.name, plan.params, origin=tier.process, stale=plan.stale
        )
        request = _core.query(sql, values, 30_000_000_000)
        try:
            error = yield request
        except BaseException:  # cancelled: the tier may have it, and nobody knows which keys
            _core.mark(self, "all", 0, plan.stale)
            tier.core.tell()
            raise
        if error is not None:
            raise raised(error)
        _core.fence_pattern(self)
        keys = [row[0] for row in request.rows if row[0] is not None]
        for key in keys:
            self._invalidate_text(key, plan.stale)
        tier.core.tell()
        if self._hooks:
            self._emit(hooks.Invalidated("where", plan.name, plan.stale))
        return len(keys)

    def _place(self) -> Place:
        """Where this cache's entries are, for SQL."""
        from stillwarm._place import Place

        tier = self._tier
        if tier is None or not tier.speaks_sql:
            raise no_sql("", tier is not None)
        types = {name: self.tables.get(name) for name in (*self._type_ids, _tier_values.DIRECT)}
        return Place(lambda sql, params: tier.query(sql, params, 30.0), tier.namespace, tier.schema, types)

    def _invalidating_stored(self, scope: int, key: Any, stale: bool) -> Steps[bool]:
        """One call of a function; whether there was an entry. Without a tier it yields nothing."""
        there = False
        error: Error = None
        if self._tier is not None:
            place = _tier_values.place_of(self._tier, scope, key)
            count, error = yield from _tier_invalidation.invalidate(self._tier, [f"key:{place.key}"], stale)
            there = count > 0
        there = _core.invalidate_key(self, scope, key, stale) or there
        if self._tier is not None and self._tier.strict and error is not None:
            raise raised(error)
        if self._hooks:
            self._emit(hooks.Invalidated("key", self._readable(scope, key), stale))
        return there

    def _clearing(self, scope: int) -> Steps[None]:
        """Everything of one function, and its counts."""
        of = self._scopes[scope]
        if self._tier is not None and of.keyed:
            yield from self._invalidating(self._intent(None, of.type, None, None, None, False, None, False))
        elif self._tier is not None:
            yield from self._invalidating(Intent("pattern", f"{_keys.glob_escaped(of.name)}:*"))
            yield from self._invalidating(Intent("key", of.name))  # without arguments
        _core.clear(self, scope)
        _core.reset_stats(self, scope)

    def _invalidate_text(self, text: str, stale: bool) -> int:
        if _keys.is_digested(text):  # of a key that memory has in full
            return self._invalidate_matching(lambda readable: _tier_values.storable(readable) == text, stale, -1)
        count = sum(_core.invalidate_key(self, scope, text, stale) for scope in (0, *self._keyed.values()))
        for number, scope in list(self._scopes.items()):
            if scope.keyed or not (text == scope.name or text.startswith(scope.name + ":")):
                continue
            try:
                items = _keys.parse(text[len(scope.name) + 1 :]) if text != scope.name else ()
                if _keys.readable(scope.name, items) != text:
                    raise ValueError("another way to write it")
                key = items[0] if _core.is_single(self, number) and len(items) == 1 else items
            except ValueError:
                count += self._invalidate_matching(lambda readable: readable == text, stale, number)
            else:
                count += _core.invalidate_key(self, number, key, stale)
        return count

    def _invalidate_pattern(self, pattern: str, stale: bool) -> int:
        matches = re.compile(fnmatch.translate(pattern)).match
        return self._invalidate_matching(lambda readable: matches(readable) is not None, stale, -1)

    def _invalidate_matching(self, matches: Callable[[str], bool], stale: bool, scope: int) -> int:
        _core.fence_pattern(self)  # first: what is being loaded now is not stored
        count = 0
        for number, key, *_ in _core.snapshot(self, scope):
            if matches(self._readable(number, key)):
                count += _core.invalidate_key(self, number, key, stale)
        return count


def run_through(steps: Steps[T]) -> T:
    """The result of steps that ask nobody: those of a cache without a tier."""
    try:
        next(steps)
    except StopIteration as stop:
        return cast("T", stop.value)
    raise AssertionError("there is nobody to ask")
