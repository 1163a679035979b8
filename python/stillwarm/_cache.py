"""Cache: what a user holds. It names things and checks arguments; the core decides.

Thread rule: every method from any thread; the `a` twins from any loop.
Refuses to know: how hits, loads and waiting work.
"""

from __future__ import annotations

import atexit
import fnmatch
import logging
import math
import os
import re
import time
import weakref
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar, overload

from stillwarm import _core, _keys, _load, _off, hooks
from stillwarm._cached import decorate
from stillwarm._durations import shown, size
from stillwarm._pool import LoadPool
from stillwarm._stats import Counters, HotKey, State, Stats, summed
from stillwarm._types import (
    FOREVER,
    OPTIONS,
    TYPE_OPTIONS,
    Settings,
    check_names,
    checked_level,
    replace,
    resolve,
    tag_names,
    ttl_ns,
)
from stillwarm.errors import ConfigError, NotFound

if TYPE_CHECKING:
    from typing import ParamSpec

    from typing_extensions import Self, Unpack

    from stillwarm._types import CacheOptions, Duration, Options, Ttl, TypeOptions
    from stillwarm._typing import CachedCoroutine, CachedFunction, Decorator

    P = ParamSpec("P")

T = TypeVar("T")

_UNSET: Final[Any] = object()
_IDENTIFIER: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")
_NO_REMOTE: Final = "this version has the memory tier only; accepted: no url (memory)"

_caches: weakref.WeakSet[Cache] = weakref.WeakSet()
_log = logging.getLogger("stillwarm")


class _Scope(NamedTuple):
    type: str
    name: str
    keyed: bool


class Cache(_core.CacheBase):
    """A cache in this process's memory.

    Args:
        url: the remote tier; not in this version.
        namespace: name of this cache in a shared tier and in figures; letters, digits, underscore.
        max_bytes: budget of the values with their keys, bytes or text such as "256MB"; None: only `max_entries` counts.
        max_entries: budget in entries; None: only `max_bytes` counts.
        ttl: for functions and verbs that have none of their own; seconds, "5m", `timedelta`, or None for ever.
        load_threads: threads of the load pool (background refreshes, loads with a timeout); started when needed.
        enabled: False calls every function straight through and stores nothing; so does STILLWARM_DISABLED=1.
        options: defaults for all functions; see `cached`.

    Raises:
        ConfigError: names the argument, its value and what is accepted.
    """

    __slots__ = (
        "_defaults",
        "_direct",
        "_enabled",
        "_hooks",
        "_keyed",
        "_last_errors",
        "_max_bytes",
        "_max_entries",
        "_pool",
        "_scopes",
        "_type_ids",
        "_types",
        "namespace",
    )

    def __init__(
        self,
        url: str | None = None,
        *,
        namespace: str = "default",
        max_bytes: int | str | None = "64MB",
        max_entries: int | None = None,
        ttl: Ttl = _UNSET,
        load_threads: int = 4,
        enabled: bool = True,
        **options: Unpack[CacheOptions],
    ) -> None:
        if url is not None:
            raise ConfigError(f"url={shown(_without_password(url))}: {_NO_REMOTE}")
        if not isinstance(namespace, str) or not _IDENTIFIER.fullmatch(namespace):
            raise ConfigError(f"namespace={shown(namespace)}: accepted: {_IDENTIFIER.pattern}")
        check_names(options, TYPE_OPTIONS | _ARGUMENTS, "Cache()")
        if max_bytes is None and max_entries is None:
            raise ConfigError("max_bytes=None: accepted: a size such as '64MB', unless max_entries is given")
        self._max_bytes = None if max_bytes is None else size(max_bytes, "max_bytes")
        self._max_entries = None if max_entries is None else _count(max_entries, "max_entries", 2**31)
        if self._max_bytes is not None and self._max_bytes < 4096:
            raise ConfigError(f"max_bytes={shown(max_bytes)}: accepted: 4096 bytes and more")
        super().__init__(self._max_entries or 0, self._max_bytes or 0)
        self.namespace = namespace
        given = dict(options) if ttl is _UNSET else {"ttl": ttl, **options}
        self._defaults = checked_level(given, "Cache()")
        self._enabled = bool(enabled) and os.environ.get("STILLWARM_DISABLED", "").lower() not in ("1", "true", "yes")
        self._types: dict[str, dict[str, Any]] = {}
        self._type_ids = {"default": 0}
        self._scopes: dict[int, _Scope] = {0: _Scope("default", "", True)}
        self._keyed: dict[str, int] = {}
        self._last_errors: dict[str, str] = {}
        self._direct: dict[Any, Settings] = {}
        self._hooks: tuple[tuple[hooks.Hook, bool], ...] = ()
        self._pool = LoadPool(_count(load_threads, "load_threads", 1024))
        _core.set_single(self, 0)
        _core.set_direct(self, self._plain_direct_ttl(), Cache._set_slowly)
        _caches.add(self)
        if _log.isEnabledFor(logging.DEBUG):
            self.subscribe(hooks.log_event, hits=True)

    @classmethod
    def from_env(cls, **arguments: Any) -> Self:
        """A Cache as the environment says: STILLWARM_URL, STILLWARM_NAMESPACE, STILLWARM_MAX_BYTES, STILLWARM_DISABLED.

        `arguments` go to the constructor and are overruled by the environment.

        Raises:
            ConfigError: names the variable.
        """
        for name, argument in (("URL", "url"), ("NAMESPACE", "namespace"), ("MAX_BYTES", "max_bytes")):
            value = os.environ.get(f"STILLWARM_{name}")
            if value:
                arguments[argument] = value
        try:
            return cls(**arguments)
        except ConfigError as error:
            for name, argument in (("URL", "url"), ("NAMESPACE", "namespace"), ("MAX_BYTES", "max_bytes")):
                if os.environ.get(f"STILLWARM_{name}") and str(error).startswith(f"{argument}="):
                    raise ConfigError(f"STILLWARM_{name}: {error}") from None
            raise

    # ------------------------------------------------------------------------------------------------ functions

    def define(self, name: str, **options: Unpack[TypeOptions]) -> None:
        """Gives settings a name, a type, that functions then refer to: `@cache.cached("scoring")`.

        Raises:
            ConfigError: an option does not exist, its value is not accepted, or the type is defined otherwise already.
        """
        if not isinstance(name, str) or not name:
            raise ConfigError(f"type name {shown(name)}: accepted: a str that is not empty")
        level = checked_level(dict(options), f"type {name!r}")
        if self._types.setdefault(name, level) != level:
            raise ConfigError(f"type {name!r} is defined already, with other options: define it once")
        self._type_id(name)

    @overload
    def cached(self, type: Callable[P, Coroutine[Any, Any, T]], /) -> CachedCoroutine[P, T]: ...  # type: ignore[overload-overlap]
    @overload
    def cached(self, type: Callable[P, T], /) -> CachedFunction[P, T]: ...
    @overload
    def cached(self, type: str | None = None, /, **options: Unpack[Options]) -> Decorator: ...
    def cached(self, type: Any = None, /, **options: Any) -> Any:
        """Decorates a function so that its results are kept: `@cache.cached(ttl="5m")`.

        A plain function stays plain, a coroutine function awaitable. Arguments are the key; see `key=`, `ignore=`.

        Args:
            type: name of a type (`define`) whose settings hold where none is given here.
            options: see `Options` in the API reference. Durations are seconds, `timedelta` or text such as "5m".

        Raises:
            ConfigError: an option does not exist or its value is not accepted; there is no ttl; what is decorated is no
                function.
        """
        if type is not None and not isinstance(type, str):
            if not callable(type):
                raise ConfigError(f"cached({shown(type)}): accepted: the name of a type, or options such as ttl='5m'")
            return self.cached()(type)
        check_names(options, OPTIONS, "@cached")
        if "type" in options:
            type = options.pop("type") if type is None else type
        if type is not None and type not in self._types:
            known = ", ".join(map(repr, self._types)) or "none is defined: call cache.define() first"
            raise ConfigError(f"type={shown(type)}: accepted: {known}")
        level = {name: value for name, value in options.items() if name in TYPE_OPTIONS}
        settings = resolve([level, self._types.get(type, {}), self._defaults], "@cached")
        loader_many = options.get("loader_many")
        if loader_many is not None and not callable(loader_many):
            raise ConfigError(f"loader_many={shown(loader_many)}: accepted: a callable of a list, or None")

        def decorator(function: Any) -> Any:
            return decorate(self, function, settings, options, type)

        return decorator

    # --------------------------------------------------------------------------------------------- direct verbs

    def add(self, key: str, value: Any, ttl: Duration | None = _UNSET, tags: Iterable[str] = ()) -> bool:
        """`set`, unless there is a value already. True if it was stored. Atomic in this process.

        A cache that is off says True: whoever uses `add` as a lock goes on.
        """
        return self._put(key, value, ttl, tags, True) == 0 or not self._enabled

    def get_or_set(self, key: str, loader: Callable[[], T], ttl: Ttl = _UNSET) -> T:
        """The value of `key`, or what `loader()` returns: one load however many callers, with all rules of `cached`."""
        if not callable(loader):
            raise ConfigError(f"loader={shown(loader)}: accepted: a callable without arguments")
        target = _KeyTarget(self, _text(key), loader, self._direct_settings(ttl))
        return _load.run(target) if self._enabled else _off.run(target)  # type: ignore[no-any-return]

    def get_many(self, keys: Iterable[str]) -> dict[str, Any]:
        """The values that are there, by key."""
        found = {key: self.get(key, _core.MISSING) for key in keys}
        return {key: value for key, value in found.items() if value is not _core.MISSING}

    def set_many(self, values: Mapping[str, Any], ttl: Duration | None = _UNSET, tags: Iterable[str] = ()) -> list[str]:
        """`set` for each; the keys that were not kept."""
        tags = tag_names(tags)
        return [key for key, value in values.items() if not self.set(key, value, ttl, tags)]

    def delete(self, key: str) -> bool:
        """Removes the entry of a direct key; a load of it that runs is not stored. True if there was one."""
        return _core.invalidate_key(self, 0, _text(key), False)

    def delete_many(self, keys: Iterable[str]) -> int:
        """`delete` for each; how many were there."""
        return sum(self.delete(key) for key in keys)

    def touch(self, key: str, ttl: Duration | None = _UNSET) -> bool:
        """Makes what is stored fresh for `ttl` from now on. False: nothing there."""
        return _core.touch(self, 0, _text(key), self._direct_ttl(ttl))

    def incr(self, key: str, delta: int = 1) -> int:
        """Adds to a stored int, atomically; its deadlines stay.

        Raises:
            KeyError: there is no such entry.
            TypeError: the value is not an int.
        """
        if type(delta) is not int:
            raise ConfigError(f"delta={shown(delta)}: accepted: an int")
        value = _core.incr(self, 0, _text(key), delta)
        if value is _core.MISSING:
            if not self._enabled:
                return delta
            raise KeyError(key)
        return value  # type: ignore[no-any-return]

    def contains(self, key: str) -> bool:
        """Whether `get` would find a value. Does not count as a hit."""
        return _core.peek(self, 0, _text(key)) is not _core.MISSING

    __contains__ = contains

    def ttl_left(self, key: str) -> float | None:
        """Seconds until the entry stops being fresh, negative when it is stale; inf: never; None: no entry."""
        life = _core.life(self, 0, _text(key))
        if life is None or life[0] == 4:
            return None
        return math.inf if life[1] >= FOREVER else life[1] / 1e9

    def clear(self) -> None:
        """Removes every entry at once; loads in flight are not stored. Counts stay."""
        _core.clear(self, -1)
        self._emit(hooks.Invalidated("all", "", False))

    async def aget(self, key: str, default: Any = None) -> Any:
        """`get` for coroutines."""
        return self.get(key, default)

    async def aset(self, key: str, value: Any, ttl: Duration | None = _UNSET, tags: Iterable[str] = ()) -> bool:
        """`set` for coroutines."""
        return self.set(key, value, ttl, tags)

    async def aadd(self, key: str, value: Any, ttl: Duration | None = _UNSET, tags: Iterable[str] = ()) -> bool:
        """`add` for coroutines."""
        return self.add(key, value, ttl, tags)

    @overload
    async def aget_or_set(self, key: str, loader: Callable[[], Awaitable[T]], ttl: Ttl = _UNSET) -> T: ...
    @overload
    async def aget_or_set(self, key: str, loader: Callable[[], T], ttl: Ttl = _UNSET) -> T: ...
    async def aget_or_set(self, key: str, loader: Callable[[], Any], ttl: Ttl = _UNSET) -> Any:
        """`get_or_set` for coroutines; the loader may be plain or a coroutine function."""
        from stillwarm import _aload

        if not callable(loader):
            raise ConfigError(f"loader={shown(loader)}: accepted: a callable without arguments")
        target = _KeyTarget(self, _text(key), loader, self._direct_settings(ttl))
        return await (_aload.run(target) if self._enabled else _off.arun(target))

    async def aget_many(self, keys: Iterable[str]) -> dict[str, Any]:
        """`get_many` for coroutines."""
        return self.get_many(keys)

    async def aset_many(
        self, values: Mapping[str, Any], ttl: Duration | None = _UNSET, tags: Iterable[str] = ()
    ) -> list[str]:
        """`set_many` for coroutines."""
        return self.set_many(values, ttl, tags)

    async def adelete(self, key: str) -> bool:
        """`delete` for coroutines."""
        return self.delete(key)

    async def adelete_many(self, keys: Iterable[str]) -> int:
        """`delete_many` for coroutines."""
        return self.delete_many(keys)

    async def atouch(self, key: str, ttl: Duration | None = _UNSET) -> bool:
        """`touch` for coroutines."""
        return self.touch(key, ttl)

    async def aincr(self, key: str, delta: int = 1) -> int:
        """`incr` for coroutines."""
        return self.incr(key, delta)

    async def acontains(self, key: str) -> bool:
        """`contains` for coroutines."""
        return self.contains(key)

    async def attl_left(self, key: str) -> float | None:
        """`ttl_left` for coroutines."""
        return self.ttl_left(key)

    async def aclear(self) -> None:
        """`clear` for coroutines."""
        self.clear()

    # --------------------------------------------------------------------------------------------- invalidation

    def invalidate(
        self,
        *,
        key: str | None = None,
        type: str | None = None,
        tag: str | None = None,
        pattern: str | None = None,
        where: Any = None,
        all: bool = False,
        stale: bool = False,
        connection: Any = None,
    ) -> int | None:
        """Makes entries invalid; exactly one of key, type, tag, pattern, all says which.

        A get that starts afterwards never sees the older value, and a load that is running is not stored.

        Args:
            key: a readable key (`f.cache_key(...)`) or a direct key.
            type: name of a type: everything of its functions.
            tag: everything stored with this tag.
            pattern: a glob over readable keys: `*`, `?`, `[...]`. Reads every key.
            all: everything.
            stale: keep the entries as stale values that may be served while, or if not, a new one can be loaded.

        Returns:
            How many entries for key and pattern; None for type, tag and all, which write one mark.

        Raises:
            ConfigError: none or several intents, an unknown type, or one that needs a remote tier.
        """
        given = {"key": key, "type": type, "tag": tag, "pattern": pattern, "where": where}
        intents = [name for name, value in given.items() if value is not None] + ["all"] * bool(all)
        if len(intents) != 1:
            named = " and ".join(intents) or "none"
            raise ConfigError(
                f"invalidate() got {named}: accepted: exactly one of key=, type=, tag=, pattern=, where=, all=True"
            )
        if where is not None or connection is not None:
            raise ConfigError(
                f"{'where' if connection is None else 'connection'}= needs the PostgreSQL tier; {_NO_REMOTE}"
            )
        intent = intents[0]
        if intent != "all" and (not isinstance(given[intent], str) or not given[intent]):
            raise ConfigError(f"{intent}={shown(given[intent])}: accepted: a str that is not empty")
        count: int | None = None
        if key is not None:
            count = self._invalidate_text(key, stale)
        elif pattern is not None:
            count = self._invalidate_pattern(pattern, stale)
        elif tag is not None:
            _core.mark(self, "tag", _core.tag_fingerprint(tag), stale)
        elif type is not None:
            if type not in self._type_ids:
                raise ConfigError(f"type={shown(type)}: accepted: {', '.join(map(repr, self._type_ids))}")
            _core.mark(self, "type", self._type_ids[type], stale)
        else:
            _core.mark(self, "all", 0, stale)
        if self._hooks:
            self._emit(hooks.Invalidated(intent, str(given.get(intent, "")), stale))
        return count

    async def ainvalidate(self, **intent: Any) -> int | None:
        """`invalidate` for coroutines."""
        return self.invalidate(**intent)

    # --------------------------------------------------------------------------------------- figures and events

    def stats(self) -> Stats:
        """Counts in all and per type."""
        rows: dict[str, list[dict[str, Any]]] = {}
        for number, scope in list(self._scopes.items()):
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
        )

    @property
    def state(self) -> State:
        """HEALTHY: there is no remote tier that could be down."""
        return State.HEALTHY

    def top(self, n: int = 10) -> list[HotKey]:
        """The `n` most used entries in memory, the most used first. Reads every entry."""
        rows = sorted(_core.snapshot(self, -1), key=lambda row: row[2], reverse=True)[: _count(n, "n", 2**31)]
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

    def close(self) -> None:
        """Stops background work (waits up to 0.2 s for it) and drops every entry. May be called twice."""
        self._pool.close(0.2)
        _core.clear(self, -1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        budget = [f"max_bytes={self._max_bytes}"] * (self._max_bytes is not None)
        budget += [f"max_entries={self._max_entries}"] * (self._max_entries is not None)
        return f"<Cache {self.namespace!r} {', '.join(budget)}, {_core.totals(self)['entries']} entries>"

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
                self._scopes[key_scope] = _Scope(type_name, "", True)
            key_scope = self._keyed[type_name]
        scope = _core.new_scope(self, number, name, key_scope)
        self._scopes[scope] = _Scope(type_name, name, keyed)
        return scope

    def _set_durations(self, scope: int, settings: Settings) -> None:
        ttl = FOREVER if callable(settings.ttl) else settings.ttl
        _core.set_durations(
            self, scope, *settings.durations(ttl), settings.negative_ttl, settings.early, settings.jitter
        )

    def _readable(self, scope: int, key: Any) -> str:
        of = self._scopes[scope]
        if of.keyed:
            return str(key)
        return _keys.readable(of.name, (key,) if _core.is_single(self, scope) else key)

    def _key_of(self, flight: Any) -> str:
        return self._readable(flight.scope, flight.key)

    def _invalidate_stored(self, scope: int, key: Any, stale: bool) -> bool:
        there = _core.invalidate_key(self, scope, key, stale)
        if self._hooks:
            self._emit(hooks.Invalidated("key", self._readable(scope, key), stale))
        return there

    def _invalidate_text(self, text: str, stale: bool) -> int:
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

    def _set_slowly(self, key: str, value: Any, ttl: Any = _UNSET, tags: Iterable[str] = ()) -> bool:
        """`set` with anything but a plain ttl: see cpp/bindings/cache_base.cpp."""
        return self._put(key, value, ttl, tags, False) == 0

    def _put(self, key: str, value: Any, ttl: Any, tags: Iterable[str], only_if_absent: bool) -> int:
        ns = self._direct_ttl(ttl)
        fingerprints = [_core.tag_fingerprint(tag) for tag in tag_names(tags)]
        if not self._enabled:
            return 3
        return _core.put(self, 0, _text(key), value, ns, 0, 0, fingerprints, -1, only_if_absent)

    def _direct_ttl(self, ttl: Any) -> int:
        if ttl is not _UNSET:
            return ttl_ns(ttl)
        settings = self._direct_settings(_UNSET)
        return FOREVER if callable(settings.ttl) else settings.ttl

    def _plain_direct_ttl(self) -> int:
        """What `set` needs to know without a ttl: ns, 0 to be asked, -1 to be asked for every set."""
        if not self._enabled:
            return -1
        ttl = self._defaults.get("ttl", 0)
        return 0 if callable(ttl) else ttl_ns(ttl)

    def _direct_settings(self, ttl: Any) -> Settings:
        level = {} if ttl is _UNSET else {"ttl": ttl}
        try:
            settings = self._direct.get(ttl)
        except TypeError:
            return resolve([level, self._defaults], "a verb of this Cache")
        if settings is None:
            settings = resolve([level, self._defaults], "a verb of this Cache")
            if len(self._direct) < 256 and not callable(ttl):
                self._direct[ttl] = settings
        return settings

    def _note_error(self, scope: int, error: BaseException) -> None:
        name = self._scopes[scope].type
        self._last_errors.pop(name, None)
        self._last_errors[name] = f"{error.__class__.__qualname__}: {error}"[:500]

    def _watch(self) -> None:
        off = not self._enabled
        _core.watch(self, off or any(hits for _, hits in self._hooks), off or bool(self._hooks))

    def _switch_off(self) -> None:
        """As if `enabled=False` had been given, also for the functions that are decorated already."""
        self._enabled = False
        _core.clear(self, -1)
        self._watch()  # every call now asks the Python side, which sees that the cache is off

    def _emit_for(self, event: Any, source: Any, **fields: Any) -> None:
        """Makes and emits an event about a flight or a target."""
        scope, key = source.key() if callable(source.key) else (source.scope, source.key)
        self._emit(event(self._scopes[scope].type, self._readable(scope, key), **fields))

    def _emit(self, event: hooks.Event) -> None:
        for hook, hits in self._hooks:
            if hits or not isinstance(event, hooks.Hit):
                try:
                    hook(event)
                except Exception:
                    _log.exception("a hook failed on %r", event)

    def _check_invariants(self) -> bool:
        """For tests: whether the core's structures agree with each other."""
        return _core.check_invariants(self)


_core.adopt_methods(Cache)  # get and set: the same methods, but CPython specialises their calls


class _KeyTarget(_load.Target):
    """A get_or_set: the key is a text, the loader came with the call."""

    __slots__ = ("loader", "text")

    def __init__(self, cache: Cache, text: str, loader: Callable[[], Any], settings: Settings) -> None:
        self.call = None
        self.cache = cache
        self.settings = settings
        self.args = ()
        self.kwargs = {}
        self.text = text
        self.loader = loader

    def begin(self, count: bool) -> tuple[int, Any, Any]:
        return _core.begin_key(self.cache, 0, self.text, count)

    def load(self) -> Any:
        return self.loader()

    def tags(self) -> list[str]:
        tags = self.settings.tags
        return tag_names(tags()) if callable(tags) else list(tags)

    def key(self) -> tuple[int, Any]:
        return 0, self.text


_ARGUMENTS: Final = frozenset({"url", "namespace", "max_bytes", "max_entries", "load_threads", "enabled"})


def _count(value: object, argument: str, most: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
        raise ConfigError(f"{argument}={shown(value)}: accepted: an int from 1 to {most}")
    return value


def _text(key: object) -> str:
    if type(key) is str:
        return key
    if isinstance(key, str):
        return str.__str__(key)
    raise TypeError(f"key must be a str, not {type(key).__name__}")


def _without_password(url: object) -> object:
    return re.sub(r"//[^@/]*@", "//***@", url) if isinstance(url, str) else url


def _after_fork_in_child() -> None:
    # Loads of the parent's threads do not run here, and neither do its pool's threads; what is in memory stays.
    _core.enter(None)
    for cache in list(_caches):
        _core.detach_all(cache)
        cache._pool.reset()


def _at_exit() -> None:
    pools = [cache._pool for cache in list(_caches)]
    for pool in pools:
        pool.close(0)
    deadline = time.monotonic() + 0.2  # for all of them: the process has a second to end
    for pool in pools:
        pool.close(max(0.0, deadline - time.monotonic()))


os.register_at_fork(after_in_child=_after_fork_in_child)
atexit.register(_at_exit)

__all__ = ["Cache", "NotFound", "replace"]
