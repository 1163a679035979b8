"""Cache: what a user holds. It checks its arguments, decorates functions, and ends its pool with the process.

Thread rule: every method from any thread; the `a` twins from any loop.
Refuses to know: how hits, loads and waiting work. Its bases have the rest, from _upserting to _observed.
"""

from __future__ import annotations

import atexit
import logging
import math
import os
import time
import weakref
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final, TypeVar, overload

from stillwarm import _core, _url, hooks
from stillwarm._cached import check_scope, decorate
from stillwarm._durations import duration, shown, size
from stillwarm._joined import Joining
from stillwarm._observed import Scope, count
from stillwarm._place import DICTIONARIES
from stillwarm._pool import LoadPool
from stillwarm._sql_types import identifier
from stillwarm._tier_values import DIRECT
from stillwarm._types import JOINED, OPTIONS, TABLE_ONLY, TYPE_OPTIONS, check_names, checked_level, own_table, resolve
from stillwarm._upkeep import Upkeep
from stillwarm._verbs import UNSET
from stillwarm.errors import ConfigError

if TYPE_CHECKING:
    from typing import ParamSpec

    from typing_extensions import Self, Unpack

    from stillwarm._tier_settings import TierSettings
    from stillwarm._types import CacheOptions, Duration, Options, TableOptions, Ttl
    from stillwarm._typing import CachedCoroutine, CachedFunction, Decorator
    from stillwarm.codecs import Codec, OwnCodec

    P = ParamSpec("P")

T = TypeVar("T")

_ARGUMENTS: Final = frozenset({
    "url", "namespace", "max_bytes", "max_entries", "load_threads", "enabled", "schema", "strict", "max_lag",
    "connect_timeout", "timeout", "connections", "queue", "pooler", "codec", "compress_above", "max_value", "unlogged",
    "purge_every",
})  # fmt: skip
_TAKEN: Final = {
    DIRECT: "the keys of get and set",
    JOINED: "joined functions",
    DICTIONARIES: "compression dictionaries",
}
_VARIABLES: Final = {
    "url": ("STILLWARM_URL", "DATABASE_URL", "REDIS_URL"),
    "namespace": ("STILLWARM_NAMESPACE",),
    "max_bytes": ("STILLWARM_MAX_BYTES",),
}

_caches: weakref.WeakSet[Cache] = weakref.WeakSet()
_log = logging.getLogger("stillwarm")


class Cache(Joining):
    """A cache in this process's memory, and, with a URL, in a database that processes and hosts share.

    Args:
        url: the remote tier: "postgresql://user@host:5432/database" or "redis://host:6379/0"; None: memory only. Nobody
            connects before the tier is needed, and a tier that does not answer makes the cache slower,
            never wrong and never down.
        namespace: name of this cache in a shared tier and in figures; letters, digits, underscore.
        max_bytes: budget of the values with their keys, bytes or text such as "256MB"; None: only `max_entries` counts.
        max_entries: budget in entries; None: only `max_bytes` counts.
        ttl: for functions and verbs that have none of their own; seconds, "5m", `timedelta`, or None for ever.
        load_threads: threads of the load pool (background refreshes, loads with a timeout); started when needed.
        enabled: False calls every function straight through and stores nothing; so does STILLWARM_DISABLED=1. What is
            no caching goes on: `upsert` writes.
        schema: where the tier's own tables are.
        strict: True raises TierError where the tier did not take a write or an invalidation (memory did), and never
            serves what the tier has not confirmed within `max_lag`.
        max_lag: how long after an invalidation in another process an older value may be served, while the tier answers.
        connect_timeout: of a connection; a duration, with libpq 2 s at least.
        timeout: of an operation of the tier; a duration.
        connections: to the tier; one more listens.
        queue: how many requests may wait for them.
        pooler: True behind a pooler in transaction mode, such as PgBouncer: nothing is prepared or listened to.
        codec: "msgpack", "json", or a codec (`stillwarm.codecs`).
        compress_above: size from which values are compressed (zstd), 100 bytes where their type has a dictionary; 0
            switches both off.
        max_value: size above which a value is not stored in the tier.
        unlogged: True keeps the tier's entries out of the write-ahead log: faster, and empty after a crash.
        purge_every: how often expired rows are deleted by one of the processes; None: never.
        options: defaults for all functions; see `cached`.

    Raises:
        ConfigError: names the argument, its value and what is accepted.
    """

    __slots__ = (
        "_codec",
        "_codec_name",
        "_codecs",
        "_defaults",
        "_direct",
        "_enabled",
        "_hooks",
        "_keyed",
        "_last_errors",
        "_max_bytes",
        "_max_entries",
        "_pool",
        "_schedules",
        "_scopes",
        "_tier",
        "_type_ids",
        "_types",
        "_upkeep",
        "_warming",
        "_writer",
        "namespace",
        "tables",
    )

    def __init__(
        self,
        url: str | None = None,
        *,
        namespace: str = "default",
        max_bytes: int | str | None = "64MB",
        max_entries: int | None = None,
        ttl: Ttl = UNSET,
        load_threads: int = 4,
        enabled: bool = True,
        schema: str = "stillwarm",
        strict: bool = False,
        max_lag: Duration = "1s",
        connect_timeout: Duration = "1s",
        timeout: Duration = "250ms",
        connections: int = 2,
        queue: int = 10_000,
        pooler: bool = False,
        codec: str | Codec | OwnCodec = "msgpack",
        compress_above: int | str = "1KB",
        max_value: int | str = "8MB",
        unlogged: bool = False,
        purge_every: Duration | None = "1h",
        **options: Unpack[CacheOptions],
    ) -> None:
        identifier(namespace, "namespace")
        check_names(options, TYPE_OPTIONS | _ARGUMENTS, "Cache()")
        if max_bytes is None and max_entries is None:
            raise ConfigError("max_bytes=None: accepted: a size such as '64MB', unless max_entries is given")
        self._max_bytes = None if max_bytes is None else size(max_bytes, "max_bytes")
        self._max_entries = None if max_entries is None else count(max_entries, "max_entries", 2**31)
        if self._max_bytes is not None and self._max_bytes < 4096:
            raise ConfigError(f"max_bytes={shown(max_bytes)}: accepted: 4096 bytes and more")
        super().__init__(self._max_entries or 0, self._max_bytes or 0)
        self.namespace = namespace
        given = dict(options) if ttl is UNSET else {"ttl": ttl, **options}
        self._defaults = checked_level(given, "Cache()")
        self._enabled = bool(enabled) and os.environ.get("STILLWARM_DISABLED", "").lower() not in ("1", "true", "yes")
        self._types: dict[str, dict[str, Any]] = {}
        self.tables = {}
        self._type_ids = {"default": 0}
        self._scopes = {0: Scope("default", "", True)}
        self._keyed = {}
        self._last_errors = {}
        self._direct = {}
        self._hooks = ()
        self._schedules = set()
        self._warming = set()
        self._pool = LoadPool(count(load_threads, "load_threads", 1024))
        self._tier = self._codec = self._upkeep = self._writer = None
        self._codec_name = codec
        self._codecs = {}
        settings: TierSettings = {
            "schema": identifier(schema, "schema"),
            "strict": bool(strict),
            "max_lag": duration(max_lag, "max_lag"),
            "connect_timeout": duration(connect_timeout, "connect_timeout"),
            "timeout": duration(timeout, "timeout"),
            "connections": count(connections, "connections", 60),
            "queue": count(queue, "queue", 10_000_000),
            "pooler": bool(pooler),
            "compress_above": 0 if compress_above == 0 else size(compress_above, "compress_above"),
            "max_value": size(max_value, "max_value"),
            "unlogged": bool(unlogged),
        }
        every = duration(purge_every, "purge_every", allow_none=True, minimum_ms=1000)
        if url is not None:
            _url.scheme_of(url)
            from stillwarm import codecs

            self._codec = codecs.codec_for(codec)
            if not self._enabled:
                self._writer = url, settings
            else:
                from stillwarm._tier import tier_for

                self._tier = tier_for(self, url, settings)
                self._upkeep = Upkeep(self, None if every is None else every / 1e9)
        _core.set_single(self, 0)
        _core.set_direct(self, self._plain_direct_ttl(), Cache._set_slowly)
        if self._tier is not None:
            _core.set_get_slowly(self, self._tier.reader.get)
            self._watch()
        _caches.add(self)
        if _log.isEnabledFor(logging.DEBUG):
            self.subscribe(hooks.log_event, hits=True)

    @classmethod
    def from_env(cls, **arguments: Any) -> Self:
        """A Cache as the environment says: STILLWARM_URL (else DATABASE_URL, else REDIS_URL), STILLWARM_NAMESPACE,
        STILLWARM_MAX_BYTES, STILLWARM_DISABLED.

        `arguments` go to the constructor and are overruled by the environment.

        Raises:
            ConfigError: names the variable.
        """
        given: dict[str, str] = {}
        for argument, names in _VARIABLES.items():
            for name in names:
                if os.environ.get(name):
                    given[argument] = name
                    arguments[argument] = os.environ[name]
                    break
        try:
            return cls(**arguments)
        except ConfigError as error:
            for argument, name in given.items():
                if str(error).startswith(f"{argument}="):
                    raise ConfigError(f"{name}: {error}") from None
            raise

    # ------------------------------------------------------------------------------------------------ functions

    def define(self, name: str, **options: Unpack[TableOptions]) -> None:
        """Gives settings a name, a type, that functions then refer to: `@cache.cached("scoring")`.

        With `table=` and `columns=` its values are rows of a table of its own in the PostgreSQL tier. Without a URL
        those options have no effect, so that an app runs with and without a database; a Redis URL refuses them.

        Raises:
            ConfigError: an option does not exist, its value is not accepted, or the type is defined otherwise already.
        """
        if not isinstance(name, str) or not name:
            raise ConfigError(f"type name {shown(name)}: accepted: a str that is not empty")
        if name in _TAKEN:
            raise ConfigError(f"type name {shown(name)}: that is what {_TAKEN[name]} have")
        given = dict(options)
        table = own_table(name, {key: given.pop(key) for key in list(given) if key in TABLE_ONLY})
        if table is not None and self._tier is not None and not self._tier.speaks_sql:
            self._tier.add_table(table)  # raises, before anything is defined
        level = checked_level(given, f"type {name!r}")
        if self._types.setdefault(name, level) != level or self.tables.get(name, table) != table:
            raise ConfigError(f"type {name!r} is defined already, with other options: define it once")
        self._type_id(name)
        if table is not None and name not in self.tables and self._tier is not None:
            self._tier.add_table(table)
        self.tables[name] = table

    @overload
    def cached(  # type: ignore[overload-overlap]
        self, type: Callable[P, Coroutine[Any, Any, T]], /, **options: Unpack[Options]
    ) -> CachedCoroutine[P, T]: ...
    @overload
    def cached(self, type: Callable[P, T], /, **options: Unpack[Options]) -> CachedFunction[P, T]: ...
    @overload
    def cached(self, type: str | None = None, /, **options: Unpack[Options]) -> Decorator: ...
    def cached(self, type: Any = None, /, **options: Any) -> Any:
        """Decorates a function so that its results are kept: `@cache.cached(ttl="5m")`.

        A plain function stays plain, a coroutine function awaitable. Arguments are the key; see `key=`, `ignore=`.

        Args:
            type: name of a type (`define`) whose settings hold where none is given here.
            options: see `Options` in the API reference. Durations are seconds, `timedelta` or text such as "5m".

        Raises:
            ConfigError: an option or its value is not accepted; there is no ttl; what is decorated is no function.
        """
        if type is not None and not isinstance(type, str):
            if not callable(type):
                raise ConfigError(f"cached({shown(type)}): accepted: the name of a type, or options such as ttl='5m'")
            return self.cached(**options)(type)
        check_names(options, OPTIONS, "@cached")
        if "type" in options:
            type = options.pop("type") if type is None else type
        if type is not None and type not in self._types:
            known = ", ".join(map(repr, self._types)) or "none is defined: call cache.define() first"
            raise ConfigError(f"type={shown(type)}: accepted: {known}")
        level = {name: value for name, value in options.items() if name in TYPE_OPTIONS}
        settings = resolve([level, self._types.get(type, {}), self._defaults], "@cached")
        check_scope(self, settings)
        loader_many = options.get("loader_many")
        if loader_many is not None and not callable(loader_many):
            raise ConfigError(f"loader_many={shown(loader_many)}: accepted: a callable of a list, or None")

        def decorator(function: Any) -> Any:
            return decorate(self, function, settings, options, type)

        return decorator

    def close(self) -> None:
        """Stops background work (waits up to 0.2 s for it), writes what a tier is owed, and drops every entry. May be
        called twice."""
        for schedule in list(self._schedules):
            schedule.stop()
        self._pool.close(0.2)
        self._close_tier(0.2)
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

    def _switch_off(self) -> None:
        """As if `enabled=False` had been given, also for the functions that are decorated already."""
        self._enabled = False
        if self._tier is not None:
            self._tier.reader.end_calm()
        _core.clear(self, -1)
        self._watch()  # every call now asks the Python side, which sees that the cache is off

    def _close_tier(self, wait: float, until: float = math.inf) -> None:
        if self._upkeep is not None and self._tier is not None and not self._tier.closed:
            self._upkeep.close(wait, until)
            self._tier.close(wait, until)
        if self._writer is not None and not isinstance(self._writer, tuple):
            self._writer.close(wait, until)

    def _check_invariants(self) -> bool:
        """For tests: whether the core's structures agree with each other."""
        return _core.check_invariants(self)


_core.adopt_methods(Cache)  # get and set: the same methods, but CPython specialises their calls


def drain(cache: Cache) -> None:
    """The core's hook: other processes have said something."""
    from stillwarm._tier_invalidation import drain

    drain(cache)


def _after_fork_in_child() -> None:
    for cache in list(_caches):
        if cache._tier is not None:
            cache._tier.after_fork_in_child()
        if cache._writer is not None and not isinstance(cache._writer, tuple):
            cache._writer.after_fork_in_child()
    # Loads of the parent's threads do not run here, and neither do its pool's threads; what is in memory stays.
    _core.enter(None)
    for cache in list(_caches):
        _core.detach_all(cache)
        cache._pool.reset()
        for schedule in list(cache._schedules):
            schedule.reset()
        cache._schedules.clear()
        cache._warming.clear()
        if cache._upkeep is not None:
            _core.take_hits(cache)  # the parent tells of them
            cache._upkeep.reset()


def _at_exit() -> None:
    pools = [cache._pool for cache in list(_caches)]
    for pool in pools:
        pool.close(0)
    deadline = time.monotonic() + 0.2  # for all of them: the process has a second to end
    for pool in pools:
        pool.close(max(0.0, deadline - time.monotonic()))
    deadline = time.monotonic() + 0.4
    for cache in list(_caches):
        cache._close_tier(0.2, deadline)


os.register_at_fork(after_in_child=_after_fork_in_child)
atexit.register(_at_exit)

__all__ = ["Cache"]
