"""The direct verbs: get, set and their kin on keys that are texts. Each has a twin for coroutines.

Thread rule: every verb from any thread; the `a` twins from any loop. Nothing waits, but `get_or_set` for its load.
Refuses to know: functions and their keys; invalidation by anything but the key; how a load is performed.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast, overload

from stillwarm import _core, _load, _off, _tier_invalidation, _tier_reads, _tier_values, _tier_writes
from stillwarm._durations import shown
from stillwarm._observed import KEPT, Observed
from stillwarm._target import NOT_ASKED, Target
from stillwarm._tier import Steps, adrive, drive
from stillwarm._tier_health import raised
from stillwarm._types import FOREVER, Settings, resolve, tag_names, ttl_ns
from stillwarm.errors import ConfigError

if TYPE_CHECKING:
    from stillwarm._types import Duration, Ttl
    from stillwarm.codecs import Codec

T = TypeVar("T")


class Unset:
    """No ttl was given, which is not None: that means for ever. Signatures show it as they show that of `set`."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "..."


UNSET: Final[Any] = Unset()


class Verbs(Observed):
    """The part of a Cache that works on keys which are texts; `get` and `set` are the core's (`_core.CacheBase`)."""

    __slots__ = ()

    _codec: Codec | None  # with a tier
    _defaults: dict[str, Any]
    _direct: dict[Any, Settings]

    def add(self, key: str, value: Any, ttl: Duration | None = UNSET, tags: Iterable[str] = ()) -> bool:
        """`set`, unless there is a value already. True if it was stored. Atomic in this process.

        A cache that is off says True: whoever uses `add` as a lock goes on.
        """
        if self._tier is not None:
            return drive(self._tier, self._putting({_text(key): value}, ttl, tags, True))[key]
        return self._put(key, value, ttl, tags, True) == 0 or not self._enabled

    def get_or_set(self, key: str, loader: Callable[[], T], ttl: Ttl = UNSET) -> T:
        """The value of `key`, or what `loader()` returns: one load however many callers, with all rules of `cached`."""
        if not callable(loader):
            raise ConfigError(f"loader={shown(loader)}: accepted: a callable without arguments")
        target = KeyTarget(self, _text(key), loader, self._direct_settings(ttl))
        return _load.run(target) if self._enabled else _off.run(target)  # type: ignore[no-any-return]

    def get_many(self, keys: Iterable[str]) -> dict[str, Any]:
        """The values that are there, by key."""
        if self._tier is not None:
            return drive(self._tier, _tier_reads.get_many(self._tier, [_text(key) for key in keys]))
        found = {key: self.get(key, _core.MISSING) for key in keys}
        return {key: value for key, value in found.items() if value is not _core.MISSING}

    def set_many(self, values: Mapping[str, Any], ttl: Duration | None = UNSET, tags: Iterable[str] = ()) -> list[str]:
        """`set` for each; the keys that were not kept."""
        tags = tag_names(tags)
        if self._tier is not None:
            kept = drive(self._tier, self._putting({_text(key): value for key, value in values.items()}, ttl, tags))
            return [key for key, was_kept in kept.items() if not was_kept]
        return [key for key, value in values.items() if not self.set(key, value, ttl, tags)]

    def delete(self, key: str) -> bool:
        """Removes the entry of a direct key; a load of it that runs is not stored. True if there was one."""
        if self._tier is not None:
            return drive(self._tier, self._deleting([_text(key)])) == 1
        return _core.invalidate_key(self, 0, _text(key), False)

    def delete_many(self, keys: Iterable[str]) -> int:
        """`delete` for each; how many were there."""
        if self._tier is not None:
            return drive(self._tier, self._deleting([_text(key) for key in keys]))
        return sum(self.delete(key) for key in keys)

    def touch(self, key: str, ttl: Duration | None = UNSET) -> bool:
        """Makes what is stored fresh for `ttl` from now on. False: nothing there."""
        if self._tier is not None:
            return drive(self._tier, self._touching(_text(key), ttl))
        return _core.touch(self, 0, _text(key), self._direct_ttl(ttl))

    def incr(self, key: str, delta: int = 1) -> int:
        """Adds to a stored int, atomically; its deadlines stay.

        Raises:
            KeyError: there is no such entry.
            TypeError: the value is not an int.
        """
        if type(delta) is not int:
            raise ConfigError(f"delta={shown(delta)}: accepted: an int")
        if self._tier is not None:
            return drive(self._tier, self._adding(_text(key), delta))
        value = _core.incr(self, 0, _text(key), delta)
        if value is _core.MISSING:
            if not self._enabled:
                return delta
            raise KeyError(key)
        return value  # type: ignore[no-any-return]

    def contains(self, key: str) -> bool:
        """Whether `get` would find a value. Does not count as a hit."""
        if self._tier is not None:
            return drive(self._tier, _tier_reads.contains(self._tier, _text(key)))
        return _core.peek(self, 0, _text(key)) is not _core.MISSING

    __contains__ = contains

    def ttl_left(self, key: str) -> float | None:
        """Seconds until the entry stops being fresh, negative when it is stale; inf: never; None: no entry."""
        if self._tier is not None:
            return drive(self._tier, self._left(_text(key)))
        life = _core.life(self, 0, _text(key))
        if life is None or life[0] >= KEPT:
            return None
        return seconds_left(life[1])

    async def aget(self, key: str, default: Any = None) -> Any:
        """`get` for coroutines."""
        if self._tier is not None:
            return await _tier_reads.aget_now(self._tier, _text(key), default)
        return self.get(key, default)

    async def aset(self, key: str, value: Any, ttl: Duration | None = UNSET, tags: Iterable[str] = ()) -> bool:
        """`set` for coroutines."""
        if self._tier is not None:
            return (await adrive(self._tier, self._putting({_text(key): value}, ttl, tags)))[key]
        return self.set(key, value, ttl, tags)

    async def aadd(self, key: str, value: Any, ttl: Duration | None = UNSET, tags: Iterable[str] = ()) -> bool:
        """`add` for coroutines."""
        if self._tier is not None:
            return (await adrive(self._tier, self._putting({_text(key): value}, ttl, tags, True)))[key]
        return self.add(key, value, ttl, tags)

    @overload
    async def aget_or_set(self, key: str, loader: Callable[[], Awaitable[T]], ttl: Ttl = UNSET) -> T: ...
    @overload
    async def aget_or_set(self, key: str, loader: Callable[[], T], ttl: Ttl = UNSET) -> T: ...
    async def aget_or_set(self, key: str, loader: Callable[[], Any], ttl: Ttl = UNSET) -> Any:
        """`get_or_set` for coroutines; the loader may be plain or a coroutine function."""
        from stillwarm import _aload

        if not callable(loader):
            raise ConfigError(f"loader={shown(loader)}: accepted: a callable without arguments")
        target = KeyTarget(self, _text(key), loader, self._direct_settings(ttl))
        return await (_aload.run(target) if self._enabled else _off.arun(target))

    async def aget_many(self, keys: Iterable[str]) -> dict[str, Any]:
        """`get_many` for coroutines."""
        if self._tier is not None:
            return await adrive(self._tier, _tier_reads.get_many(self._tier, [_text(key) for key in keys]))
        return self.get_many(keys)

    async def aset_many(
        self, values: Mapping[str, Any], ttl: Duration | None = UNSET, tags: Iterable[str] = ()
    ) -> list[str]:
        """`set_many` for coroutines."""
        if self._tier is not None:
            steps = self._putting({_text(key): value for key, value in values.items()}, ttl, tags)
            return [key for key, was_kept in (await adrive(self._tier, steps)).items() if not was_kept]
        return self.set_many(values, ttl, tags)

    async def adelete(self, key: str) -> bool:
        """`delete` for coroutines."""
        if self._tier is not None:
            return await adrive(self._tier, self._deleting([_text(key)])) == 1
        return self.delete(key)

    async def adelete_many(self, keys: Iterable[str]) -> int:
        """`delete_many` for coroutines."""
        if self._tier is not None:
            return await adrive(self._tier, self._deleting([_text(key) for key in keys]))
        return self.delete_many(keys)

    async def atouch(self, key: str, ttl: Duration | None = UNSET) -> bool:
        """`touch` for coroutines."""
        if self._tier is not None:
            return await adrive(self._tier, self._touching(_text(key), ttl))
        return self.touch(key, ttl)

    async def aincr(self, key: str, delta: int = 1) -> int:
        """`incr` for coroutines."""
        if self._tier is not None and type(delta) is int:
            return await adrive(self._tier, self._adding(_text(key), delta))
        return self.incr(key, delta)

    async def acontains(self, key: str) -> bool:
        """`contains` for coroutines."""
        if self._tier is not None:
            return await adrive(self._tier, _tier_reads.contains(self._tier, _text(key)))
        return self.contains(key)

    async def attl_left(self, key: str) -> float | None:
        """`ttl_left` for coroutines."""
        if self._tier is not None:
            return await adrive(self._tier, self._left(_text(key)))
        return self.ttl_left(key)

    # ------------------------------------------------------------------------------------------------ remote tier

    def _get_slowly(self, key: str, default: Any, *begun: Any) -> Any:
        """`get` where memory has no fresh value, or what is left of it: see cpp/bindings/remote_read.cpp."""
        assert self._tier is not None
        return _tier_reads.get_now(self._tier, key, default, *begun)

    def _putting(
        self, values: dict[str, Any], ttl: Any, tags: Iterable[str], only_if_absent: bool = False
    ) -> Steps[dict[str, bool]]:
        assert self._tier is not None
        return _tier_writes.put(self._tier, values, self._direct_ttl(ttl), tag_names(tags), only_if_absent)

    def _deleting(self, keys: list[str]) -> Steps[int]:
        """The tier first, then memory; how many were there."""
        assert self._tier is not None
        gone = 0
        for key in dict.fromkeys(keys):
            count, error = yield from _tier_invalidation.invalidate(
                self._tier, [f"key:{_tier_values.storable(key)}"], False
            )
            here = _core.invalidate_key(self, 0, key, False)
            gone += bool(count) or here
            if error is not None and self._tier.strict:
                raise raised(error)
        return gone

    def _touching(self, key: str, ttl: Any) -> Steps[bool]:
        assert self._tier is not None
        value = yield from _tier_writes.change(self._tier, key, lambda value: value, self._direct_ttl(ttl))
        return value is not _core.MISSING

    def _adding(self, key: str, delta: int) -> Steps[int]:
        assert self._tier is not None

        def more(value: Any) -> int:
            if type(value) is not int:
                raise TypeError(f"incr() works on int, and the stored value is a {type(value).__name__}")
            return value + delta

        value = yield from _tier_writes.change(self._tier, key, more)
        if value is _core.MISSING:
            raise KeyError(key)
        return cast("int", value)

    def _left(self, key: str) -> Steps[float | None]:
        assert self._tier is not None
        left = yield from _tier_reads.fresh_left(self._tier, key)
        if left is None:
            life = _core.life(self, 0, key)
            left = None if life is None or life[0] >= KEPT else life[1]
        return None if left is None else seconds_left(left)

    # ---------------------------------------------------------------------------------------- settings of the verbs

    def _set_slowly(self, key: str, value: Any, ttl: Any = UNSET, tags: Iterable[str] = ()) -> bool:
        """`set` with anything but a plain ttl, or with a remote tier: see cpp/bindings/cache_base.cpp."""
        if self._tier is not None:
            return drive(self._tier, self._putting({_text(key): value}, ttl, tags))[key]
        return self._put(key, value, ttl, tags, False) == 0

    def _put(self, key: str, value: Any, ttl: Any, tags: Iterable[str], only_if_absent: bool) -> int:
        ns = self._direct_ttl(ttl)
        fingerprints = [_core.tag_fingerprint(tag) for tag in tag_names(tags)]
        if not self._enabled:
            return 3
        return _core.put(self, 0, _text(key), value, ns, 0, 0, fingerprints, -1, only_if_absent, 0, False)

    def _direct_ttl(self, ttl: Any) -> int:
        if ttl is not UNSET:
            return ttl_ns(ttl)
        settings = self._direct_settings(UNSET)
        return FOREVER if callable(settings.ttl) else settings.ttl

    def _plain_direct_ttl(self) -> int:
        """What `set` needs to know without a ttl: ns, 0 to be asked, -1 to be asked for every set."""
        if not self._enabled or self._tier is not None:
            return -1
        ttl = self._defaults.get("ttl", 0)
        return 0 if callable(ttl) else ttl_ns(ttl)

    def _direct_settings(self, ttl: Any) -> Settings:
        level = {} if ttl is UNSET else {"ttl": ttl}
        try:
            settings = self._direct.get(ttl)
        except TypeError:
            return resolve([level, self._defaults], "a verb of this Cache")
        if settings is None:
            settings = resolve([level, self._defaults], "a verb of this Cache")
            if len(self._direct) < 256 and not callable(ttl):
                self._direct[ttl] = settings
        return settings


def seconds_left(ns: int) -> float:
    return math.inf if ns >= FOREVER else ns / 1e9


def _text(key: object) -> str:
    if type(key) is str:
        return key
    if isinstance(key, str):
        return str.__str__(key)
    raise TypeError(f"key must be a str, not {type(key).__name__}")


class KeyTarget(Target):
    """A get_or_set: the key is a text, the loader came with the call."""

    __slots__ = ("loader", "text")

    def __init__(self, cache: Any, text: str, loader: Callable[[], Any], settings: Settings) -> None:
        self.call = None
        self.cache = cache
        self.settings = settings
        self.args = ()
        self.kwargs = {}
        self.text = text
        self.loader = loader

    def begin(self, count: bool, asked: int = NOT_ASKED) -> tuple[int, Any, Any]:
        return _core.begin_key(self.cache, 0, self.text, count, False, asked)

    def load(self) -> Any:
        return self.loader()

    def tags(self) -> list[str]:
        tags = self.settings.tags
        return tag_names(tags()) if callable(tags) else list(tags)

    def key(self) -> tuple[int, Any]:
        return 0, self.text
