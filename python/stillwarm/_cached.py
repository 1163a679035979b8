"""From a function to its cached form: its scope, its object, and the methods that a cached function carries.

Thread rule: decoration runs once, at import; the methods from any thread.
Refuses to know: how a hit or a load works (cpp/bindings/cached_call.cpp, _load, _aload), and how keys are made.
"""

from __future__ import annotations

import functools
import inspect
import sys
import typing
from typing import TYPE_CHECKING, Any, Final

from stillwarm import _core, _keys, _load
from stillwarm._durations import shown
from stillwarm._many import get_many
from stillwarm._retried import refuse_timeout
from stillwarm._signature import compile_key, ignore_flags, name_of, signature_of
from stillwarm._target import MISSING, Target
from stillwarm._types import EARLY_AUTO, FOREVER, Settings
from stillwarm.errors import ConfigError

if TYPE_CHECKING:
    from stillwarm._cache import Cache


class CacheInfo(tuple[int, int, "int | None", int]):
    """hits, misses, maxsize, currsize, as of `functools.lru_cache`; every further figure is an attribute only.

    Attributes:
        hits: calls that were answered from memory, stale ones included.
        misses: calls that had to wait for a load.
        maxsize: `max_entries` of the cache, or None: the whole cache's, since its functions share it.
        currsize: entries of this function.
        stale_hits: of the hits, those with a stale value.
        loads: runs of the loader.
        load_errors: of these, those that raised.
        load_seconds: time spent in the loader.
        joined: misses that shared another caller's load.
        lost_fills: values that were loaded and not stored, because of an invalidation meanwhile.
        expired: entries that left because their time was over.
        bytes: of its entries, with their keys.
        removed: entries that left, by cause.
    """

    stale_hits: int
    loads: int
    load_errors: int
    load_seconds: float
    joined: int
    lost_fills: int
    expired: int
    bytes: int
    removed: dict[str, int]

    def __new__(cls, stats: dict[str, Any], maxsize: int | None) -> CacheInfo:
        hits = stats["hits"] + stats["stale_hits"]
        self = super().__new__(cls, (hits, stats["misses"], maxsize, stats["entries"]))
        for name in ("stale_hits", "loads", "load_errors", "load_seconds", "joined", "lost_fills", "bytes", "removed"):
            setattr(self, name, stats[name])
        self.expired = stats["removed"]["expired"]
        return self

    @property
    def hits(self) -> int:
        """Calls that were answered from memory, stale ones included."""
        return self[0]

    @property
    def misses(self) -> int:
        """Calls that had to wait for a load."""
        return self[1]

    @property
    def maxsize(self) -> int | None:
        """`max_entries` of the cache, or None."""
        return self[2]

    @property
    def currsize(self) -> int:
        """Entries of this function."""
        return self[3]

    def __repr__(self) -> str:
        hits, misses, maxsize, currsize = self
        return f"CacheInfo({hits=}, {misses=}, {maxsize=}, {currsize=})"


def _generates(function: Any) -> bool:
    return inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)


def decorate(cache: Cache, function: Any, settings: Settings, options: dict[str, Any], type_name: str | None) -> Any:
    """The cached form of a function, coroutine function, classmethod or staticmethod object."""
    if isinstance(function, (classmethod, staticmethod)):
        return type(function)(decorate(cache, function.__func__, settings, options, type_name))
    if isinstance(function, _core.CachedCall):
        raise ConfigError(f"{function!r} is cached already: decorate it once")
    if not callable(function) or isinstance(function, type):
        what = "@joined" if settings.local else "@cached"
        raise ConfigError(f"{what} got {shown(function)}: accepted: a function, coroutine function or method")
    if _generates(function):
        raise ConfigError(
            f"{name_of(function, None)} is a generator function: its values can be read only once, so callers "
            f"cannot share them; accepted: a function that returns a list or tuple of them"
        )
    is_async = inspect.iscoroutinefunction(function)
    called = getattr(function, "__call__", None)  # noqa: B004
    if not is_async and (inspect.iscoroutinefunction(called) or _generates(called)):
        raise ConfigError(
            f"{name_of(function, None)}: its __call__ is a coroutine function or a generator function, and what it "
            "returns can be used only once; accepted: a coroutine function that awaits it"
        )
    signature = signature_of(function)
    name = name_of(function, options.get("name"))
    version = options.get("version", 0)
    readable = _keys.escape(name) if version == 0 else f"{_keys.escape(name)}@{_keys.escape(str(version))}"
    key = compile_key(options.get("key"), signature, name, version)
    parameters = list(signature.parameters.values())
    ignored = ignore_flags(options.get("ignore", ()), parameters, name)

    if settings.retry is not None and settings.retry.attempt_timeout is not None and not is_async:
        refuse_timeout(function)
    check_scope(cache, settings)
    tier = None if settings.local else cache._tier
    codec = None if tier is None else codec_of(cache, function, options)
    if tier is not None and key is None:
        fit_for_a_tier(name, parameters, ignored)
    if codec is not None:
        cache._codecs.setdefault(type_name or "default", []).append(codec)
    scope = cache._new_scope(type_name, readable, keyed=key is not None and not settings.local)
    cache._set_durations(scope, settings)
    named = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    call: Any = _core.CachedCall(
        cache,
        function,
        scope,
        tuple(p.name for p in named),
        tuple(MISSING if p.default is p.empty else p.default for p in named),
        ignored,
        sum(p.kind is p.POSITIONAL_ONLY for p in named),
        sum(p.kind is not p.KEYWORD_ONLY for p in named),
        any(p.kind is p.VAR_POSITIONAL for p in parameters),
        any(p.kind is p.VAR_KEYWORD for p in parameters),
        key,
        is_async,
        settings.plain and not is_async and cache._tier is None,
        cache._enabled and not settings.copy,
    )
    functools.update_wrapper(call, function)
    call._settings = settings
    call._options = options
    call._type = type_name
    call._codec = codec
    if is_async:
        look_async(call, function)
    return call


def check_scope(cache: Cache, settings: Settings) -> None:
    """Raises ConfigError for "fleet" without a URL. A cache that has one and is off takes it: calls go through."""
    if settings.fleet and cache._codec is None:
        raise ConfigError("scope='fleet' needs a remote tier, and this Cache has only memory; accepted here: 'process'")


def codec_of(cache: Cache, function: Any, options: dict[str, Any]) -> Any:
    """How the function's values travel: `codec=` here or of the Cache, `decode_as=` or the return annotation."""
    from stillwarm import codecs

    decode_as = options.get("decode_as")
    if decode_as is None:
        try:
            decode_as = typing.get_type_hints(inspect.unwrap(function)).get("return")
        except Exception:  # a name that exists for type checkers only
            decode_as = None
    return codecs.codec_for(options.get("codec") or cache._codec_name, decode_as)


def fit_for_a_tier(name: str, parameters: list[inspect.Parameter], ignored: Any) -> None:
    """Raises ConfigError for what has no meaning in another process."""
    if "<locals>" in name:
        raise ConfigError(
            f"{name} is defined inside a function, so other processes cannot tell it from its siblings: "
            f"give name= or key="
        )
    first = parameters[0] if parameters else None
    if first is not None and first.name in ("self", "cls") and not ignored[0]:
        raise ConfigError(
            f"{name}: {first.name} is part of the key, and an object means nothing in another process: give "
            f"ignore=({first.name!r},) or key="
        )


def look_async(call: Any, function: Any) -> None:
    """Makes frameworks see a coroutine function: what inspect, asyncio and FastAPI look at."""
    import asyncio

    for name in ("__code__", "__defaults__", "__kwdefaults__"):
        call.__dict__[name] = getattr(function, name, None)
    call.__dict__.setdefault("__annotations__", {})
    call.__dict__["__call__"] = call  # FastAPI asks the __call__ of objects that are not functions
    marker = getattr(asyncio.coroutines, "_is_coroutine", None)
    if marker is not None:
        call._is_coroutine = marker
    if sys.version_info >= (3, 12):
        inspect.markcoroutinefunction(call)


# --------------------------------------------------------------------------------------- what a cached function carries


def cache_info(self: Any) -> CacheInfo:
    """Counts since the start or the last `cache_clear()`."""
    cache = self._cache
    return CacheInfo(_core.stats(cache, self._scope), cache._max_entries)


def cache_clear(self: Any) -> None:
    """Drops every entry of this function and resets its counts. Loads in flight are not stored.

    With a remote tier, its entries go there too; with `key=`, those of the whole type, whose keys it shares.
    """
    self._cache._drive(self._cache._clearing(self._scope))


async def acache_clear(self: Any) -> None:
    """`cache_clear` for coroutines."""
    await self._cache._adrive(self._cache._clearing(self._scope))


def cache_parameters(self: Any) -> dict[str, Any]:
    """The settings in force: {"maxsize", "typed"} as of lru_cache, and ours, durations in seconds."""
    settings: Settings = self._settings
    seconds = forever_or_seconds
    ttl = settings.ttl if callable(settings.ttl) else seconds(settings.ttl)
    sie = settings.stale_if_error
    return {
        "maxsize": self._cache._max_entries,
        "typed": True,
        "type": self._type,
        "ttl": ttl,
        "stale_while_revalidate": seconds(settings.stale_while_revalidate),
        "stale_if_error": ttl if sie is None else seconds(sie),
        "early_refresh": "auto" if settings.early == EARLY_AUTO else settings.early or None,
        "keep": seconds(settings.keep),
        "negative_ttl": seconds(settings.negative_ttl) or None,
        "jitter": settings.jitter,
        "soft_timeout": seconds(settings.soft_timeout) or None,
        "hard_timeout": seconds(settings.hard_timeout) or None,
        "scope": "fleet" if settings.fleet else "process",
        "copy": "deep" if settings.copy else "none",
    }


def forever_or_seconds(ns: int) -> float | None:
    return None if ns >= FOREVER else ns / 1e9


def cache_key(self: Any, *args: Any, **kwargs: Any) -> str:
    """The readable key of these arguments: what `invalidate(key=)`, logs and patterns see."""
    return self._cache._readable(self._scope, self._key(args, kwargs))  # type: ignore[no-any-return]


def cache_contains(self: Any, *args: Any, **kwargs: Any) -> bool:
    """Whether a call with these arguments would be answered without waiting for a load."""
    return _core.peek(self._cache, self._scope, self._key(args, kwargs)) is not MISSING


def cache_invalidate(self: Any, *args: Any, stale: bool = False, **kwargs: Any) -> bool:
    """Invalidates the entry of these arguments; True if there was one. `stale=True` keeps it as a stale value."""
    cache = self._cache
    steps = cache._invalidating_stored(self._scope, self._key(args, kwargs), stale)
    return cache._drive(steps)  # type: ignore[no-any-return]


async def acache_invalidate(self: Any, *args: Any, stale: bool = False, **kwargs: Any) -> bool:
    """`cache_invalidate` for coroutines."""
    cache = self._cache
    steps = cache._invalidating_stored(self._scope, self._key(args, kwargs), stale)
    return await cache._adrive(steps)  # type: ignore[no-any-return]


def refresh(self: Any, *args: Any, **kwargs: Any) -> Any:
    """Loads now and stores, also when a fresh value is there. Awaitable for a coroutine function.

    A load that runs already may have read what is outdated by now: it is not joined, and not stored.
    """
    if not self._cache._enabled:
        return self(*args, **kwargs)
    target = Target(self, args, kwargs)
    _core.detach(self._cache, *target.key())
    if not inspect.iscoroutinefunction(self._function):
        return _load.reload(target)
    from stillwarm import _aload

    return _aload.areload(target)


def _reduce(self: Any) -> str:
    return self.__qualname__  # type: ignore[no-any-return]  # pickled by name, like every function


def _same(self: Any, *_: Any) -> Any:
    return self


_METHODS: Final = {
    "cache_info": cache_info,
    "cache_clear": cache_clear,
    "acache_clear": acache_clear,
    "cache_parameters": cache_parameters,
    "cache_key": cache_key,
    "cache_contains": cache_contains,
    "cache_invalidate": cache_invalidate,
    "acache_invalidate": acache_invalidate,
    "refresh": refresh,
    "get_many": get_many,
    "__reduce__": _reduce,
    "__copy__": _same,
    "__deepcopy__": _same,
}

# The type is raw for the sake of its call; these methods are not hot, so Python writes them.
for _name, _method in _METHODS.items():
    setattr(_core.CachedCall, _name, _method)

__all__ = ["CacheInfo", "decorate"]
