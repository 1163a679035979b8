"""The direct verbs of a cache with a remote tier that read: what is found there, what memory keeps of it.

Thread rule: generators of steps (see _tier), any thread, any loop.
Refuses to know: functions and their keys; how a load runs.

Reads look into memory first and merge with those of other callers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from stillwarm import _core, _dictionaries, _tier_invalidation, _tier_loads, _tier_values
from stillwarm._landing import finish
from stillwarm._target import (
    ABANDONED,
    ABSENT,
    AWAY,
    CONFIRM,
    FOLLOW,
    LEAD,
    MISSING,
    NOT_ASKED,
    REMOTE,
    Target,
)
from stillwarm._tier import Steps, adrive, drive
from stillwarm._tier_health import UNAVAILABLE, Error
from stillwarm._tier_values import DIRECT, Place, Value, storable
from stillwarm._types import FOREVER, Settings

if TYPE_CHECKING:
    from stillwarm._cache import Cache
    from stillwarm._tier import Tier

OWED: Final[Error] = (UNAVAILABLE, "", "a set of this key waits for the tier")
_LOOKS, _LOOK_PAUSE = 8, 0.005  # s: whether the tier has taken a set by now. In all less than a call may overrun by
_PLAIN: Final = Settings(ttl=FOREVER, jitter=0.0)


class KeyLook(Target):
    """A look at a direct key that loads nothing."""

    __slots__ = ("text",)

    def __init__(self, cache: Cache, text: str) -> None:
        self.call, self.cache, self.settings = None, cache, _PLAIN
        self.args, self.kwargs = (), {}
        self.text = text

    def begin(self, count: bool, asked: int = NOT_ASKED) -> tuple[int, Any, Any]:
        return _core.begin_key(self.cache, 0, self.text, count, False, asked)

    def key(self) -> tuple[int, Any]:
        return 0, self.text


def place(key: str) -> Place:
    return Place(storable(key), DIRECT, 0)


def get_many(tier: Tier, keys: list[str], count: bool = True) -> Steps[dict[str, Any]]:
    """What is there, by key: from memory, the rest by one look-up."""
    cache, reader = tier.cache, tier.reader
    distinct = list(dict.fromkeys(keys))
    begun = reader.begin_many(cache, distinct, True) if count and reader.calm else None
    found, request, asked, rest = ({}, None, [], []) if begun is None else begun
    steps = ((key, *_begin(cache, key, count)) for key in distinct) if begun is None else iter(rest)
    silent = False
    try:
        for key, step, value, flight in steps:
            if step == CONFIRM:
                asked_tier = yield from _tier_invalidation.asked(tier, storable(key))
                silent = silent or asked_tier == AWAY
                step, value, flight = _begin(cache, key, count, asked_tier)
                if step == CONFIRM:
                    step, value, flight = _begin(cache, key, count, AWAY)
            if step in (LEAD, FOLLOW):
                asked.append((key, flight if step == LEAD else None))
                request = None
                continue
            if flight is not None:
                finish(flight, ABANDONED, None)  # nobody loads here
            if step != ABSENT:
                found[key] = value
        if asked:
            tier.used()
            tier.core.used()
            if request is None:
                request = _core.look_up(0, [storable(key) for key, _ in asked], [DIRECT] * len(asked))
            owed = yield from still_owed(tier, [key for key, _ in asked])
            error: Error = (
                (UNAVAILABLE, "", "it did not answer a moment ago") if silent and tier.away else (yield request)
            )
            left = list(range(len(asked))) if error or owed or not count else reader.land_many(request, asked, found)
            if left and error is None:
                yield from _dictionaries.lacking(tier, request)
            for i in left:
                its_own = error or (OWED if asked[i][0] in owed else None)
                value = _looked(tier, *asked[i], request, i, its_own, count)
                if value is not MISSING:
                    found[asked[i][0]] = value
            asked = [asked[i] for i in left]
    finally:
        for _, flight in asked:
            if flight is not None:
                finish(flight, REMOTE, MISSING)
        for _, step, _, flight in rest:
            if flight is not None and step != FOLLOW:
                finish(flight, ABANDONED, None)
    return found


def still_owed(tier: Tier, keys: list[str]) -> Steps[frozenset[str]]:
    """Those of these keys whose set the tier has not taken, also not in a moment in which it may: what it has of them
    may be older. They are sent by nobody but the recovery, in their order."""
    owed: frozenset[str] = frozenset()
    if not tier.core.owes_writes():
        return owed
    if tier.pending:  # one that has committed by now may end what is owed
        yield from _tier_invalidation.confirm(tier)
    for _ in range(_LOOKS):
        owed = frozenset(key for key in keys if tier.core.owes_set(storable(key), DIRECT))
        if not owed or tier.away or tier.core.health()["last_rejection"] is not None:
            break
        yield _LOOK_PAUSE
    return owed


def _begin(cache: Cache, key: str, count: bool, asked: int = NOT_ASKED) -> tuple[int, Any, Any]:
    return _core.begin_key(cache, 0, key, count, False, asked)


def _looked(
    tier: Tier, key: str, flight: _core.Flight | None, request: _core.Request, i: int, error: Error, count: bool
) -> Any:
    """What a look-up said of a key; MISSING: nothing that may be returned. The dictionaries that it needs are here."""
    if error is OWED:
        return _owed_value(tier, key)
    if error is not None:  # what memory has is better than nothing
        return MISSING if tier.strict else _core.peek(tier.cache, 0, key)
    target, reading = KeyLook(tier.cache, key), _tier_loads.Reading(place(key))
    _tier_loads.take(target, reading, request, i)
    found = reading.value
    if found is None or found.negative or not found.servable:
        return MISSING
    if flight is not None and _tier_loads.landed(target, flight, reading, False) and count:
        _tier_loads.count(target, flight)
    return found.value


def _owed_value(tier: Tier, key: str) -> Any:
    """What this process has set, which the tier has not taken. Memory may have lost it since."""
    if tier.pending:  # whose names nobody keeps in memory, and this is nowhere else
        return MISSING
    where = place(key)
    payload = tier.core.owed_set(where.key, DIRECT)
    if payload is None:  # taken by now, or over
        return _core.peek(tier.cache, 0, key)
    limits = (tier.max_value, tier.dictionaries, DIRECT)
    status, *_, body = _core.open_envelope(tier.namespace, where.sealed_as, payload, *limits)
    return tier.codec.decode(body) if status == 0 else MISSING


def get(tier: Tier, key: str, default: Any, count: bool = True) -> Steps[Any]:
    found = yield from get_many(tier, [key], count)
    return found.get(key, default)


def _ended(step: int, value: Any, flight: Any, default: Any) -> Any:
    """What memory alone answers; MISSING: the tier has to be asked. Either is counted already, but for CONFIRM."""
    if step in (LEAD, FOLLOW, CONFIRM):
        return MISSING
    if flight is not None:
        finish(flight, ABANDONED, None)  # nobody loads here
    return default if step == ABSENT else value


def get_now(
    tier: Tier, key: str, default: Any, begun: Any = None, request: _core.Request | None = None, error: Error = None
) -> Any:
    """`get` on this thread, where memory has nothing: the short way of the same steps. What was begun and asked already
    was so by cpp/bindings/remote_read.cpp."""
    step, value, flight = begun or _begin(tier.cache, key, True)
    if step != LEAD:
        held = _ended(step, value, flight, default)
        return drive(tier, get(tier, key, default, step == CONFIRM)) if held is MISSING else held
    try:
        if request is None:
            tier.used()
            tier.core.used()
            request = _core.look_up(0, [storable(key)], [DIRECT])
            error = OWED if drive(tier, still_owed(tier, [key])) else tier.run(request)
        else:
            error = tier.noted(error, request)
        if error is None and tier.dictionaries.lacking(request):
            drive(tier, _dictionaries.lacking(tier, request))
        found = _looked(tier, key, flight, request, 0, error, True)
        return default if found is MISSING else found
    finally:
        finish(flight, REMOTE, MISSING)


async def aget_now(tier: Tier, key: str, default: Any) -> Any:
    """`get_now` in a task."""
    reader = tier.reader
    step, value, flight, request = reader.begin(tier.cache, key)
    if step != LEAD:
        held = _ended(step, value, flight, default)
        return await adrive(tier, get(tier, key, default, step == CONFIRM)) if held is MISSING else held
    try:
        if request is None:
            tier.core.used()
            request = _core.look_up(0, [storable(key)], [DIRECT])
        error: Error = None
        if not reader.calm:
            tier.used()
            error = OWED if await adrive(tier, still_owed(tier, [key])) else None
        error = error or await tier.arun(request)
        if error is None:
            codec = tier.codec
            if codec.plain is not None:
                value = reader.landed(flight, request, 0, codec.plain, codec.id)
                if value is not MISSING:
                    return value
            if tier.dictionaries.lacking(request):
                await adrive(tier, _dictionaries.lacking(tier, request))
        found = _looked(tier, key, flight, request, 0, error, True)
        return default if found is MISSING else found
    finally:
        finish(flight, REMOTE, MISSING)


def contains(tier: Tier, key: str) -> Steps[bool]:
    found = yield from get_many(tier, [key], count=False)
    return key in found


def fresh_left(tier: Tier, key: str) -> Steps[int | None]:
    """ns until the tier's entry stops being fresh, negative when it is stale; None: there is none."""
    look = _core.look_up(0, [storable(key)], [DIRECT])
    if (yield from still_owed(tier, [key])) or (yield look) is not None:
        return None
    found = yield from there(tier, place(key), look)
    return None if found is None else found.fresh_left


def there(tier: Tier, where: Place, look: _core.Request) -> Steps[Value | None]:
    """What a look-up found that may be returned."""
    yield from _dictionaries.lacking(tier, look)
    row = look.opened(0, tier.namespace, where.sealed_as, tier.max_value, tier.dictionaries)
    found = None if row is None else _tier_values.opened(tier, where, row, tier.codec, None)
    return None if found is None or found.negative or not found.servable else found
