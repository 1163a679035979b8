"""From a function to its cached form: the signature that makes keys, the scope, and what a cached function carries.

Thread rule: decoration runs once, at import; the methods from any thread.
Refuses to know: how a hit or a load works (cpp/bindings/cached_call.cpp, _load, _aload).
"""

from __future__ import annotations

import functools
import inspect
import string
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

from stillwarm import _core, _keys, _load
from stillwarm._durations import shown
from stillwarm._types import FOREVER, Settings
from stillwarm.errors import ConfigError, KeyTypeError, NotFound

if TYPE_CHECKING:
    from stillwarm._cache import Cache

CachedCall = _core.CachedCall


class CacheInfo(tuple[int, int, "int | None", int]):
    """hits, misses, maxsize, currsize, as of `functools.lru_cache`; every further figure is an attribute only.

    Attributes:
        hits: calls that were answered from memory, stale ones included.
        misses: calls that had to wait for a load.
        maxsize: `max_entries` of the cache, or None: the whole cache's, since its functions share it.
        currsize: entries of this function.
        stale_hits, loads, load_errors, joined, lost_fills, expired, bytes: counts.
        load_seconds: time spent in the loader.
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
        return self[0]

    @property
    def misses(self) -> int:
        return self[1]

    @property
    def maxsize(self) -> int | None:
        return self[2]

    @property
    def currsize(self) -> int:
        return self[3]

    def __repr__(self) -> str:
        hits, misses, maxsize, currsize = self
        return f"CacheInfo({hits=}, {misses=}, {maxsize=}, {currsize=})"


def decorate(cache: Cache, function: Any, settings: Settings, options: dict[str, Any], type_name: str | None) -> Any:
    """The cached form of a function, coroutine function, classmethod or staticmethod object."""
    if isinstance(function, (classmethod, staticmethod)):
        return type(function)(decorate(cache, function.__func__, settings, options, type_name))
    if isinstance(function, _core.CachedCall):
        raise ConfigError(f"{function!r} is cached already: decorate it once")
    if not callable(function) or isinstance(function, type):
        raise ConfigError(f"@cached got {shown(function)}: accepted: a function, coroutine function or method")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise ConfigError(
            f"{_name_of(function, None)} is a generator function: its values can be read only once, so there is "
            f"nothing to cache; accepted: a function that returns a list or tuple of them"
        )
    is_async = inspect.iscoroutinefunction(function)
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        signature = inspect.Signature(
            [
                inspect.Parameter("args", inspect.Parameter.VAR_POSITIONAL),
                inspect.Parameter("kwargs", inspect.Parameter.VAR_KEYWORD),
            ]
        )
    name = _name_of(function, options.get("name"))
    version = options.get("version", 0)
    readable = _keys.escape(name) if version == 0 else f"{_keys.escape(name)}@{_keys.escape(str(version))}"
    key = compile_key(options.get("key"), signature, name, version)
    parameters = list(signature.parameters.values())
    ignored = ignore_flags(options.get("ignore", ()), parameters, name)

    scope = cache._new_scope(type_name, readable, keyed=key is not None)
    cache._set_durations(scope, settings)
    named = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    call: Any = _core.CachedCall(
        cache,
        function,
        scope,
        tuple(p.name for p in named),
        tuple(_core.MISSING if p.default is p.empty else p.default for p in named),
        ignored,
        sum(p.kind is p.POSITIONAL_ONLY for p in named),
        sum(p.kind is not p.KEYWORD_ONLY for p in named),
        any(p.kind is p.VAR_POSITIONAL for p in parameters),
        any(p.kind is p.VAR_KEYWORD for p in parameters),
        key,
        is_async,
        settings.plain and not is_async,
        cache._enabled and not settings.copy,
    )
    functools.update_wrapper(call, function)
    call._settings = settings
    call._options = options
    call._type = type_name
    if is_async:
        look_async(call, function)
    return call


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


def _name_of(function: Any, name: object) -> str:
    if name is not None:
        if not isinstance(name, str) or not name:
            raise ConfigError(f"name={shown(name)}: accepted: a str that is not empty")
        return name
    inner = function.func if isinstance(function, functools.partial) else function
    qualname = getattr(inner, "__qualname__", type(inner).__qualname__)
    return f"{getattr(inner, '__module__', None) or '?'}.{qualname}"


def ignore_flags(ignore: object, parameters: list[inspect.Parameter], name: str) -> tuple[bool, ...]:
    """For each named parameter, then *args, then **kwargs: is it left out of the key?"""
    if isinstance(ignore, str) or not isinstance(ignore, Iterable):
        raise ConfigError(f"ignore={shown(ignore)}: accepted: a sequence of argument names of {name}()")
    left_out = list(ignore)
    for one in left_out:
        if one not in [p.name for p in parameters]:
            raise ConfigError(
                f"ignore={shown(one)}: {name}() has no such argument; accepted: "
                f"{', '.join(p.name for p in parameters) or 'none'}"
            )
    named = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    special = [
        any(p.kind is kind and p.name in left_out for p in parameters)
        for kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    ]
    return (*(p.name in left_out for p in named), *special)


def compile_key(key: object, signature: inspect.Signature, name: str, version: object) -> Callable[..., str] | None:
    """The callable that makes the text of a `key=` template or callable."""
    if key is None:
        return None
    suffix = "" if version == 0 else f"@{_keys.escape(str(version))}"
    if callable(key):
        given = key

        def from_callable(*args: Any, **kwargs: Any) -> str:
            text = given(*args, **kwargs)
            if not isinstance(text, str):
                raise KeyTypeError(f"key= of {name}() returned a {type(text).__qualname__}; accepted: a str")
            return _keys.shorten(str(text) + suffix)

        return from_callable
    if not isinstance(key, str) or not key:
        raise ConfigError(
            f'key={shown(key)}: accepted: a template such as "scoring:{{asin}}:{{domain}}", or a callable'
        )
    pieces: list[tuple[str, str | None]] = []
    try:
        for literal, field, spec, conversion in string.Formatter().parse(key):
            if field is not None and field not in signature.parameters:
                known = ", ".join(signature.parameters) or "none"
                raise ConfigError(f"key={shown(key)}: {name}() has no argument {field!r}; accepted: {known}")
            if spec or conversion:
                raise ConfigError(f"key={shown(key)}: accepted: plain fields like {{{field}}}, without ! or : in them")
            pieces.append((literal, field))
    except ValueError as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(
            f"key={shown(key)}: {error}; accepted: a template such as 'scoring:{{asin}}:{{domain}}'"
        ) from None

    def from_template(*args: Any, **kwargs: Any) -> str:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        values = bound.arguments
        text = "".join(t if f is None else t + _keys.escape(str(values[f])) for t, f in pieces)
        return _keys.shorten(text + suffix)

    return from_template


# --------------------------------------------------------------------------------------- what a cached function carries


def cache_info(self: Any) -> CacheInfo:
    """Counts since the start or the last `cache_clear()`."""
    cache = self._cache
    return CacheInfo(_core.stats(cache, self._scope), cache._max_entries)


def cache_clear(self: Any) -> None:
    """Drops every entry of this function and resets its counts. Loads in flight are not stored."""
    _core.clear(self._cache, self._scope)
    _core.reset_stats(self._cache, self._scope)


def cache_parameters(self: Any) -> dict[str, Any]:
    """The settings in force: {"maxsize", "typed"} as of lru_cache, and ours, durations in seconds."""
    settings: Settings = self._settings
    seconds = _load.forever_or_seconds
    ttl = settings.ttl if callable(settings.ttl) else seconds(settings.ttl)
    sie = settings.stale_if_error
    return {
        "maxsize": self._cache._max_entries,
        "typed": True,
        "type": self._type,
        "ttl": ttl,
        "stale_while_revalidate": seconds(settings.stale_while_revalidate),
        "stale_if_error": ttl if sie is None else seconds(sie),
        "early_refresh": settings.early or None,
        "negative_ttl": seconds(settings.negative_ttl) or None,
        "jitter": settings.jitter,
        "soft_timeout": seconds(settings.soft_timeout) or None,
        "hard_timeout": seconds(settings.hard_timeout) or None,
        "scope": "process",
        "copy": "deep" if settings.copy else "none",
    }


def cache_key(self: Any, *args: Any, **kwargs: Any) -> str:
    """The readable key of these arguments: what `invalidate(key=)`, logs and patterns see."""
    return self._cache._readable(self._scope, self._key(args, kwargs))  # type: ignore[no-any-return]


def cache_contains(self: Any, *args: Any, **kwargs: Any) -> bool:
    """Whether a call with these arguments would be answered without waiting for a load."""
    return _core.peek(self._cache, self._scope, self._key(args, kwargs)) is not _core.MISSING


def cache_invalidate(self: Any, *args: Any, stale: bool = False, **kwargs: Any) -> bool:
    """Invalidates the entry of these arguments; True if there was one. `stale=True` keeps it as a stale value."""
    return self._cache._invalidate_stored(self._scope, self._key(args, kwargs), stale)  # type: ignore[no-any-return]


class Refresh(_load.Target):
    """A call that wants a new value, whatever is stored."""

    __slots__ = ()

    def begin(self, count: bool) -> tuple[int, Any, Any]:
        if count:  # an older value stays for those who fail: it only stops counting as fresh
            _core.invalidate_key(self.cache, self.call._scope, self.call._key(self.args, self.kwargs), True)
        step, value, flight = super().begin(count)
        return (_load.LEAD, _core.MISSING, flight) if step in (_load.REFRESH, _load.REFRESH_EARLY) else (step, value, flight)


def refresh(self: Any, *args: Any, **kwargs: Any) -> Any:
    """Loads now and stores, also when a fresh value is there. Awaitable for a coroutine function."""
    if not self._cache._enabled:
        return self(*args, **kwargs)
    target = Refresh(self, args, kwargs)
    if not inspect.iscoroutinefunction(self._function):
        return _load.run(target)
    from stillwarm import _aload

    return _aload.run(target)


def get_many(self: Any, arguments: Iterable[Any]) -> Any:
    """The values for many calls, in order: each item is a tuple of arguments, or the only argument.

    What is missing is loaded with one flight per key: by one call of `loader_many=` with the list of missing items,
    which returns a list in the same order or a dict by item; else one call of the function each (all at once for a
    coroutine function). Awaitable for a coroutine function.
    """
    items = list(arguments)
    if not inspect.iscoroutinefunction(self._function):
        return get_many_sync(self, items)
    return get_many_async(self, items)


def _as_args(item: Any) -> tuple[Any, ...]:
    return item if type(item) is tuple else (item,)


def get_many_sync(call: Any, items: list[Any]) -> list[Any]:
    loader_many = call._options.get("loader_many")
    if loader_many is None:
        return [call(*_as_args(item)) for item in items]
    if not call._cache._enabled:
        return found_in(items, loader_many(items)) if items else []
    batch = Batch(call, items)
    if batch.leading:
        before = _core.enter(batch.enter())
        try:
            batch.land(loader_many(batch.wanted()))
        except Exception as error:
            batch.fail(error)
        finally:
            _core.enter(before)
            batch.leave()
    for i, target, flight, fallback in batch.following:
        value = _load.follow(target, flight, fallback)
        batch.results[i] = call(*target.args) if value is _load.AGAIN else _load.give(target, value)
    return batch.finish()


async def get_many_async(call: Any, items: list[Any]) -> list[Any]:
    import asyncio

    from stillwarm import _aload

    loader_many = call._options.get("loader_many")
    if loader_many is None:
        return list(await asyncio.gather(*(call(*_as_args(item)) for item in items)))
    if not call._cache._enabled:
        loaded = loader_many(items) if items else []
        return found_in(items, await loaded if inspect.isawaitable(loaded) else loaded)
    batch = Batch(call, items)
    if batch.leading:
        before = _load.current_async.set(batch.enter())
        try:
            loaded = loader_many(batch.wanted())
            batch.land(await loaded if inspect.isawaitable(loaded) else loaded)
        except Exception as error:
            batch.fail(error)
        finally:
            _load.current_async.reset(before)
            batch.leave()
    for i, target, flight, fallback in batch.following:
        value = await _aload.follow(target, flight, fallback)
        batch.results[i] = await call(*target.args) if value is _load.AGAIN else _load.give(target, value)
    return batch.finish()


def by_item(items: list[Any], loaded: Any) -> list[Any]:
    """What `loader_many=` returned, in the order of the items; MISSING where a dict has nothing for one."""
    if isinstance(loaded, dict):
        return [loaded.get(item, _core.MISSING) for item in items]
    values = list(loaded)
    if len(values) != len(items):
        raise ValueError(
            f"loader_many= returned {len(values)} values for {len(items)} items; accepted: one each, or a dict"
        )
    return values


def found_in(items: list[Any], loaded: Any) -> list[Any]:
    """The same for a cache that is off: an item that was not found raises."""
    values = by_item(items, loaded)
    for item, value in zip(items, values, strict=True):
        if value is _core.MISSING:
            raise nothing_for(item)
    return values


def nothing_for(item: Any) -> NotFound:
    return NotFound(f"loader_many= returned nothing for {item!r}")


class Batch:
    """The calls of one get_many: what is there, what this caller loads, and what others are loading.

    Everything this caller leads has landed before it follows anything, so two batches never wait for each other.
    """

    def __init__(self, call: Any, items: list[Any]) -> None:
        self.call, self.items = call, items
        self.results: list[Any] = [None] * len(items)
        self.errors: list[Exception] = []
        self.leading: list[tuple[int, Any, Any]] = []
        self.following: list[tuple[int, Any, Any, Any]] = []
        try:
            for i, item in enumerate(items):
                self._begin(i, _load.Target(call, _as_args(item), None))
        except BaseException:
            self.abandon()
            raise

    def _begin(self, i: int, target: Any) -> None:
        step, value, flight = target.begin(True)
        if step == _load.FOLLOW:
            self.following.append((i, target, flight, value))
        elif step == _load.ABSENT:
            self.errors.append(NotFound(value))
        elif step == _load.LEAD:
            self.leading.append((i, target, flight))
        else:
            if step in (_load.REFRESH, _load.REFRESH_EARLY):
                self.leading.append((-1 - i, target, flight))
            self.results[i] = _load.give(target, value)

    def enter(self) -> Any:
        """One flight stands for the running load; none of the others can end before it."""
        first = self.leading[0][2]
        for _, _, flight in self.leading[1:]:
            _core.add_follower(first, flight)
        return first

    def leave(self) -> None:
        first = self.leading[0][2]
        for _, _, flight in self.leading[1:]:
            _core.remove_follower(first, flight)
        self.abandon()

    def wanted(self) -> list[Any]:
        return [self.items[i if i >= 0 else -1 - i] for i, _, _ in self.leading]

    def land(self, loaded: Any) -> None:
        wanted = self.wanted()
        for item, value, (i, target, flight) in zip(wanted, by_item(wanted, loaded), self.leading, strict=True):
            if value is _core.MISSING:
                self._settle(i, target, flight, nothing_for(item))
                continue
            _core.count_load(flight, 0, False)
            _load.committed(target, flight, value, 0)
            if i >= 0:
                self.results[i] = _load.give(target, value)

    def fail(self, error: Exception) -> None:
        for i, target, flight in self.leading:
            if flight.state == _load.RUNNING:
                self._settle(i, target, flight, error)

    def _settle(self, i: int, target: Any, flight: Any, error: Exception) -> None:
        _core.count_load(flight, 0, True)
        try:
            value = _load.failed(target, flight, error, _load.kind_of(target.settings, error))
        except Exception as raised:
            if i >= 0:
                self.errors.append(raised)
        else:
            if i >= 0:
                _load.count_stale(target, flight)
                self.results[i] = _load.give(target, value)

    def abandon(self) -> None:
        """Whatever has not landed (Ctrl-C, a broken loader) is left to the next caller."""
        for _, _, flight in self.leading:
            _load.finish(flight, _load.ABANDONED, None)

    def finish(self) -> list[Any]:
        if self.errors:
            raise self.errors[0]
        return self.results


def _reduce(self: Any) -> str:
    return self.__qualname__  # type: ignore[no-any-return]  # pickled by name, like every function


def _same(self: Any, *_: Any) -> Any:
    return self


_METHODS: Final = {
    "cache_info": cache_info,
    "cache_clear": cache_clear,
    "cache_parameters": cache_parameters,
    "cache_key": cache_key,
    "cache_contains": cache_contains,
    "cache_invalidate": cache_invalidate,
    "refresh": refresh,
    "get_many": get_many,
    "__reduce__": _reduce,
    "__copy__": _same,
    "__deepcopy__": _same,
}

# The type is raw for the sake of its call; these methods are not hot, so Python writes them.
for _name, _method in _METHODS.items():
    setattr(_core.CachedCall, _name, _method)

__all__ = ["FOREVER", "CacheInfo", "CachedCall", "decorate"]
