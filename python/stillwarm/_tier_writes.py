"""The direct verbs of a cache with a remote tier that write: put there, compared with what is there, kept in memory.

Thread rule: generators of steps (see _tier), any thread, any loop.
Refuses to know: functions and their keys; how a load runs.

Writes go to the tier first, then to memory, so that a process that reads afterwards sees them; what the tier does not
take waits for it (E6).
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from stillwarm import _core, _tier_invalidation, _tier_loads, _tier_values
from stillwarm._landing import LOST
from stillwarm._target import MISSING
from stillwarm._tier import LATER, Steps
from stillwarm._tier_health import IN_DOUBT, REJECTED, UNAVAILABLE, Error, raised
from stillwarm._tier_reads import OWED, place, still_owed, there
from stillwarm._tier_values import ADD, DIRECT, SET, SWAP, storable

if TYPE_CHECKING:
    from stillwarm._cache import Cache
    from stillwarm._tier import Tier

_ATTEMPTS: Final = 64  # at a value that others change at the same time
_PAUSE, _LONGEST_PAUSE = 0.001, 0.1  # s before the next one: doubles
_writes: Final = itertools.count()


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
                    if error is None:
                        tier.core.overtaken(f"key:{request.key}")
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
    if (yield from still_owed(tier, [key])):
        return False, None
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
        error = OWED if (yield from still_owed(tier, [key])) else (yield look)
        if error is not None:
            break
        found = yield from there(tier, where, look)
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
