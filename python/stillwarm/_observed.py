"""What a cache says of itself: how its keys are called, its figures, and its events.

Thread rule: any thread. Hooks run on the thread where the event happens, and never under a lock.
Refuses to know: how values get in and out.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from stillwarm import _core, _keys, hooks
from stillwarm._durations import shown
from stillwarm._stats import Counters, HotKey, State, Stats, summed
from stillwarm._types import FOREVER, JOINED
from stillwarm.errors import ConfigError

if TYPE_CHECKING:
    from stillwarm._tables import TypedTable
    from stillwarm._tier import Tier
    from stillwarm._types import Settings
    from stillwarm._upkeep import Upkeep

KEPT: Final = 4  # State of cpp/core/base/life.hpp: from there on an entry counts as absent
_log = logging.getLogger("stillwarm")


class Scope(NamedTuple):
    type: str
    name: str
    keyed: bool


class Observed(_core.CacheBase):
    """The part of a Cache that names scopes, counts and tells. A scope is a function, or the texts of a type."""

    __slots__ = ()

    _enabled: bool
    _hooks: tuple[tuple[hooks.Hook, bool], ...]
    _keyed: dict[str, int]
    _last_errors: dict[str, str]
    _max_bytes: int | None
    _max_entries: int | None
    _scopes: dict[int, Scope]
    _tier: Tier | None
    _type_ids: dict[str, int]
    _upkeep: Upkeep | None  # with a tier
    tables: dict[str, TypedTable | None]

    def stats(self) -> Stats:
        """Counts in all and per type."""
        rows: dict[str, list[dict[str, Any]]] = {}
        for number, scope in list(self._scopes.items()):
            if scope.type == JOINED:
                continue
            rows.setdefault(scope.type, []).append(_core.stats(self, number))
        errors = self._last_errors
        types = {name: Counters(**summed(of_type, errors.get(name))) for name, of_type in rows.items()}
        last = next(reversed(errors.values()), None) if errors else None
        everything = [row for of_type in rows.values() for row in of_type]
        return Stats(
            **summed(everything, last),
            types=types,
            state=self.state,
            max_entries=self._max_entries,
            max_bytes=self._max_bytes,
            flights=_core.totals(self)["flights"],
            remote_errors=0 if self._tier is None else self._tier.errors,
            tier={} if self._tier is None else self._tier.figures(),
        )

    @property
    def state(self) -> State:
        """HEALTHY; DEGRADED: the link to the remote tier is lost, it is owed something, or more than 5 % of requests
        in the last 10 s failed; DOWN: it does not answer. Without a remote tier always HEALTHY."""
        return State.HEALTHY if self._tier is None else self._tier.state

    def top(self, n: int = 10) -> list[HotKey]:
        """The `n` most used entries in memory, the most used first. Reads every entry."""
        served = [row for row in _core.snapshot(self, -1) if row[4] < KEPT]
        rows = sorted(served, key=lambda row: row[2], reverse=True)[: count(n, "n", 2**31)]
        return [HotKey(self._readable(row[0], row[1]), self._scopes[row[0]].type, row[2], row[3]) for row in rows]

    def subscribe(self, hook: hooks.Hook, *, hits: bool = False) -> Callable[[], None]:
        """Calls `hook(event)` for every event (stillwarm.hooks); with `hits` for fresh hits too, which slows them.

        Returns:
            A function that ends the subscription.
        """
        if not callable(hook):
            raise ConfigError(f"hook={shown(hook)}: accepted: a callable of an Event")
        entry = (hook, hits)
        self._hooks = (*self._hooks, entry)
        self._watch()

        def unsubscribe() -> None:
            self._hooks = tuple(e for e in self._hooks if e is not entry)
            self._watch()

        return unsubscribe

    # ------------------------------------------------------------------------------------- for the other modules

    def _type_id(self, name: str) -> int:
        return self._type_ids.setdefault(name, len(self._type_ids))

    def _new_scope(self, type_name: str | None, name: str, keyed: bool) -> int:
        type_name = type_name or "default"
        number = self._type_id(type_name)
        key_scope = -1
        if keyed:
            if type_name not in self._keyed:
                self._keyed[type_name] = key_scope = _core.new_scope(self, number, "", -1)
                self._scopes[key_scope] = Scope(type_name, "", True)
            key_scope = self._keyed[type_name]
        scope = _core.new_scope(self, number, name, key_scope)
        self._scopes[scope] = Scope(type_name, name, keyed)
        return scope

    def _set_durations(self, scope: int, settings: Settings) -> None:
        ttl = FOREVER if callable(settings.ttl) else settings.ttl
        fresh, while_revalidate, if_error, keep = settings.durations(ttl)
        early, jitter = settings.early, settings.jitter
        _core.set_durations(self, scope, fresh, while_revalidate, if_error, settings.negative_ttl, early, jitter, keep)

    def _readable(self, scope: int, key: Any) -> str:
        of = self._scopes[scope]
        if of.keyed:
            return str(key)
        return _keys.readable(of.name, (key,) if _core.is_single(self, scope) else key)

    def _key_of(self, flight: Any) -> str:
        return self._readable(flight.scope, flight.key)

    def _note_error(self, scope: int, error: BaseException) -> None:
        name = self._scopes[scope].type
        self._last_errors.pop(name, None)
        self._last_errors[name] = f"{error.__class__.__qualname__}: {error}"[:500]

    def _watch(self) -> None:
        off = not self._enabled
        loads = off or bool(self._hooks) or self._tier is not None
        _core.watch(self, off or any(hits for _, hits in self._hooks), loads)

    def _emit_for(self, event: Any, source: Any, **fields: Any) -> None:
        """Makes and emits an event about a flight or a target."""
        scope, key = source.key() if callable(source.key) else (source.scope, source.key)
        self._emit(event(self._scopes[scope].type, self._readable(scope, key), **fields))

    @contextmanager
    def _around(self, flight: Any) -> Iterator[None]:
        """What a load runs in: a hook that has `around_load(flight)`, a context manager, is around it (otel)."""
        with ExitStack() as stack:
            for hook, _ in self._hooks:
                around = getattr(hook, "around_load", None)
                if around is not None:
                    try:
                        stack.enter_context(around(flight))
                    except Exception:
                        _log.exception("a hook failed around a load of %r", self._key_of(flight))
            yield

    def _emit(self, event: hooks.Event) -> None:
        for hook, hits in self._hooks:
            if hits or not isinstance(event, hooks.Hit):
                try:
                    hook(event)
                except Exception:
                    _log.exception("a hook failed on %r", event)


def count(value: object, argument: str, most: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
        raise ConfigError(f"{argument}={shown(value)}: accepted: an int from 1 to {most}")
    return value
