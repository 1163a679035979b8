"""The direct verbs of a cache with a remote tier: what is read, written and compared there, what memory keeps of it.

Thread rule: generators of steps (see _tier), any thread, any loop.
Refuses to know: functions and their keys; how a load runs.

Reads look into memory first and merge with those of other callers. Writes go to the tier first, then to memory, so
that a process that reads afterwards sees them; what the tier does not take waits for it (E6).
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from stillwarm import _core, _dictionaries, _tier_invalidation, _tier_loads, _tier_values
from stillwarm._landing import LOST, finish
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
from stillwarm._tier import LATER, Steps, adrive, drive
from stillwarm._tier_health import IN_DOUBT, REJECTED, UNAVAILABLE, Error, raised
from stillwarm._tier_values import ADD, DIRECT, SET, SWAP, Place, Value, storable
from stillwarm._types import FOREVER, Settings

if TYPE_CHECKING:
    from stillwarm._cache import Cache
    from stillwarm._tier import Tier

_ATTEMPTS: Final = 64  # at a value that others change at the same time
_PAUSE, _LONGEST_PAUSE = 0.001, 0.1  # s before the next one: doubles
_writes: Final = itertools.count()
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
            error: Error = (
                (UNAVAILABLE, "", "it did not answer a moment ago") if silent and tier.away else (yield request)
            )
            left = list(range(len(asked))) if error or not count else reader.land_many(request, asked, found)
            if left and error is None:
                yield from _dictionaries.lacking(tier, request)
            for i in left:
                value = _looked(tier, *asked[i], request, i, error, count)
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


def _begin(cache: Cache, key: str, count: bool, asked: int = NOT_ASKED) -> tuple[int, Any, Any]:
    return _core.begin_key(cache, 0, key, count, False, asked)


def _looked(
    tier: Tier, key: str, flight: _core.Flight | None, request: _core.Request, i: int, error: Error, count: bool
) -> Any:
    """What a look-up said of a key; MISSING: nothing that may be returned. The dictionaries that it needs are here."""
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
            error = tier.run(request)
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
        if not reader.calm:
            tier.used()
        error = await tier.arun(request)
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


def put(
    tier: Tier, values: Mapping[str, Any], ttl: int, tags: list[str], only_if_absent: bool = False
) -> Steps[dict[str, bool]]:
    """Stores values for `ttl` ns; whether each was kept.

    Raises:
        CodecError: a value cannot be serialised; nothing was stored then.
        TierError: strict, and the tier did not take one; memory has them.
    """
    cache = tier.used()
    if ttl <= 0:
        for key in values:
            yield from _tier_invalidation.invalidate(tier, [f"key:{storable(key)}"], False)
            _core.invalidate_key(cache, 0, key, False)
        return dict.fromkeys(values, False)
    mode = ADD if only_if_absent else SET
    private = _private(cache)

    def request_for(key: str) -> tuple[_core.Request, int] | None:
        return _tier_values.stored(
            tier, place(key), values[key], tier.codec, (ttl, 0, 0, 0), tags, mode=mode, private=private
        )

    made = {key: request_for(key) for key in values}  # all of them, before the first goes out
    kept: dict[str, bool] = {}
    failure: Error = None
    for key, request_and_size in made.items():
        error: Error = None
        stored: bool | None = None  # nobody says
        weight, since = -1, 0
        if request_and_size is not None:
            request, weight = request_and_size
            since = _core.detach(cache, 0, key)
            try:
                if only_if_absent:
                    stored, error = yield from _add(tier, key, request, request_for)
                else:
                    error = yield request
                    stored = request.stored if error is None else None
            except BaseException:  # cancelled: it goes on, and when it ends this process hears of it
                _core.invalidate_key(cache, 0, key, False)
                tier.core.tell()
                raise
            if error is not None and not only_if_absent and (error[0] != REJECTED or error[1] in LATER):
                tier.core.owe_write(request)
        elif not only_if_absent:  # no room for it there, nor for what it replaces
            _, error = yield from _tier_invalidation.invalidate(tier, [f"key:{storable(key)}"], False)
        failure = failure or error
        if stored is False:
            _core.invalidate_key(cache, 0, key, False)  # the tier has another's
            kept[key] = not only_if_absent
        else:
            asked = stored is not None
            kept[key] = _keep(tier, key, values[key], ttl, tags, weight, only_if_absent and not asked, since, asked)
    tier.core.tell()
    if failure is not None and tier.strict:
        raise raised(failure)
    return kept


def _add(
    tier: Tier, key: str, request: _core.Request, request_for: Callable[[str], tuple[_core.Request, int] | None]
) -> Steps[tuple[bool | None, Error]]:
    """Stores a value where there is none: whether that was done, None: nobody says; what the tier had against it."""
    before = tier.core.moment(request.key)
    request.origin = _named(tier)
    error = yield request
    if error is None:
        return request.stored, None
    if error[0] != IN_DOUBT:
        return None, error
    done = yield from _done(tier, key, request.origin, before)
    if done is False:  # sent again under its name, which makes no two of it: one finds nothing there
        made = request_for(key)
        assert made is not None
        again = made[0]
        again.origin = request.origin
        error = yield again
        done = (error is None and again.stored) or (yield from _done(tier, key, request.origin, before))
    return done, None


def _keep(
    tier: Tier,
    key: str,
    value: Any,
    ttl: int,
    tags: list[str],
    weight: int,
    only_if_absent: bool,
    since: int,
    asked: bool,
) -> bool:
    """What the tier has taken, in memory too. Whatever concerned the key after `since` may be younger than this: then
    memory keeps neither, and the next get asks the tier."""
    cache = tier.cache
    if _tier_loads.concerned(tier, place(key), tags):
        _core.invalidate_key(cache, 0, key, False)
        return True
    fingerprints = [_core.tag_fingerprint(tag) for tag in tags]
    stored = _core.put(cache, 0, key, value, ttl, 0, 0, fingerprints, weight, only_if_absent, since, asked)
    if stored == LOST:
        _core.invalidate_key(cache, 0, key, False)
    return stored in (0, LOST) or (weight >= 0 and stored == 2)


def _private(cache: Cache) -> bool:
    """Direct keys have no type of their own to be marked: the Cache's `private=` is theirs."""
    return bool(cache._defaults.get("private", False))


def _named(tier: Tier) -> str:
    """A name for one write, by which it is known again where its answer is lost. This process hears of it, too."""
    return f"{tier.process}+{next(_writes)}"


def _done(tier: Tier, key: str, name: str, moment: str) -> Steps[bool | None]:
    """The connection broke at the answer to a write that must not be done twice: was it done? None: nobody says."""
    return (yield from tier.was_done(f"key:{storable(key)}", name, moment))


def change(tier: Tier, key: str, new: Callable[[Any], Any], ttl: int | None = None) -> Steps[Any]:
    """Stores `new(value)` in place of what is there, unless it changed meanwhile: then again. MISSING: nothing there.

    `ttl`: fresh for so long from now on; None: its deadlines stay.

    Raises:
        TierUnavailable: others change it all the time, or the tier does not answer; nothing was stored then.
    """
    cache = tier.used()
    where = place(key)
    error: Error = None
    pause = _PAUSE
    for attempt in range(_ATTEMPTS):
        if attempt:
            yield random.random() * pause
            pause = min(pause * 2, _LONGEST_PAUSE)
        look = _core.look_up(0, [where.key], [DIRECT], True)
        error = yield look
        if error is not None:
            break
        found = yield from _there(tier, where, look)
        if found is None:
            return MISSING
        value = new(found.value)
        fresh = found.fresh_left if ttl is None else ttl
        durations = found.durations if ttl is None else (ttl, 0, 0, 0)
        made = _tier_values.stored(
            tier, where, value, tier.codec, durations, found.tags, mode=SWAP, born=look.seen,
            expected=found.version, fresh_for=fresh, private=_private(cache),
        )  # fmt: skip
        if made is None:
            return MISSING
        made[0].origin = _named(tier)
        try:
            error = yield made[0]
        except BaseException:
            _core.invalidate_key(cache, 0, key, False)
            raise
        done = error is None and made[0].stored
        if error is not None:
            _core.invalidate_key(cache, 0, key, False)  # it may be done yet, and memory has the value of before
            done = error[0] == IN_DOUBT and bool((yield from _done(tier, key, made[0].origin, look.seen)))
            if not done:
                break
        if done:
            _core.invalidate_key(cache, 0, key, False)  # the next get brings it
            tier.core.tell()
            return value
    raise raised(error or (UNAVAILABLE, "", f"{key!r} is changed by others all the time"))


def contains(tier: Tier, key: str) -> Steps[bool]:
    found = yield from get_many(tier, [key], count=False)
    return key in found


def fresh_left(tier: Tier, key: str) -> Steps[int | None]:
    """ns until the tier's entry stops being fresh, negative when it is stale; None: there is none."""
    look = _core.look_up(0, [storable(key)], [DIRECT])
    if (yield look) is not None:
        return None
    found = yield from _there(tier, place(key), look)
    return None if found is None else found.fresh_left


def _there(tier: Tier, where: Place, look: _core.Request) -> Steps[Value | None]:
    """What a look-up found that may be returned."""
    yield from _dictionaries.lacking(tier, look)
    row = look.opened(0, tier.namespace, where.sealed_as, tier.max_value, tier.dictionaries)
    found = None if row is None else _tier_values.opened(tier, where, row, tier.codec, None)
    return None if found is None or found.negative or not found.servable else found
