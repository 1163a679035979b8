"""Loads in front of a remote tier: what it has already, and what of a load is written there.

Thread rule: generators of steps (see _tier), performed by _load on a thread and by _aload in a task.
Refuses to know: how a loader runs and how its waiters wait.

    read    -> a fresh value: the flight lands with it. A stale one: the same, and it is refreshed behind
    lease   -> scope "fleet": one process leads (_tier_leases)
    the load
    written -> fleet: before memory. Else behind it: what is refused leaves memory
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, cast

from stillwarm import _core, _dictionaries, _tier_values
from stillwarm._landing import finish
from stillwarm._target import ABANDONED, ERROR, MISSING, REFRESH, REFRESH_EARLY, REMOTE
from stillwarm._tier import LATER, LEASE_AGE, Steps
from stillwarm._tier_health import REJECTED, Error
from stillwarm.errors import CodecError, NotFound

if TYPE_CHECKING:
    from stillwarm._target import Target
    from stillwarm._tier import Tier
    from stillwarm._tier_values import Durations, Place, Value
    from stillwarm.codecs import Codec

_log = logging.getLogger("stillwarm")


def of(target: Target) -> Tier:
    """The tier, which there is."""
    tier = target.cache._tier
    assert tier is not None
    return tier


class Reading:
    """What a load knows of the tier: where its value is, and when it looked.

    Attributes:
        seen: the tier's moment of the look-up, t0 of the load; "" where it did not answer: then nothing is written.
        value: what is there, if it may still be of use.
        along: as whom the next look-up takes the lease along, where it finds nothing; or "".
        taken: it did; nobody renews it yet.
        owner: of the lease that this load holds, or "".
    """

    __slots__ = ("along", "owner", "place", "seen", "taken", "value")

    def __init__(self, place: Place) -> None:
        self.place = place
        self.seen = ""
        self.value: Value | None = None
        self.along = ""
        self.taken = False
        self.owner = ""


def codec_of(target: Target) -> Codec:
    return cast("Codec", target.cache._codec if target.call is None else target.call._codec)


def read(target: Target, flight: _core.Flight, whole: bool = False) -> Steps[Reading]:
    """Step 5: asks the tier for the key. `whole`: a load is to follow whatever is there, so the moment matters."""
    tier = of(target)
    reading = Reading(_tier_values.place_of(tier, flight.scope, flight.key))
    if not whole and target.settings.fleet and tier.leases_along:
        reading.along = f"{tier.process}:{flight.sequence}"
    yield from look(target, reading, whole)
    return reading


def is_plain(target: Target, flight: _core.Flight, anew: bool) -> bool:
    """Whether `read_now` may be tried: an ordinary read of an ordinary value, while nothing else goes on."""
    return (
        of(target).reader.calm
        and not anew
        and not flight.background
        and not target.settings.copy
        and codec_of(target).plain is not None
    )


def read_now(target: Target, flight: _core.Flight) -> tuple[Any, Steps[Reading]]:
    """`read` on this thread: the value with which the flight has landed, or (MISSING, what is left to do)."""
    tier, codec = of(target), codec_of(target)
    place = _tier_values.place_of(tier, flight.scope, flight.key)
    owner = f"{tier.process}:{flight.sequence}" if target.settings.fleet and tier.leases_along else ""
    name = place.sealed_as if owner else ""
    assert codec.plain is not None
    try:
        value, request, error = tier.reader.read(
            flight, place.slot, place.key, place.type, codec.plain, codec.id, name, owner, LEASE_AGE
        )
    except BaseException:
        if owner:
            tier.core.give_back(name, owner)
        raise
    return value, _read_on(target, Reading(place), request, error, owner)


def _read_on(target: Target, reading: Reading, request: Any, error: Error, owner: str) -> Steps[Reading]:
    yield from looked(target, reading, request, of(target).noted(error, request), owner, False)
    return reading


def look(target: Target, reading: Reading, whole: bool = False) -> Steps[None]:
    """Asks once more."""
    tier = of(target)
    place = reading.place
    tier.used()
    tier.core.used()
    if getattr(target, "silent", False) and (tier.away or (tier.in_parts and tier.core.is_away(place.key))):
        reading.seen, reading.value = "", None
        return
    request = _core.look_up(place.slot, [place.key], [place.type], whole)
    owner, reading.along = reading.along, ""
    if owner:
        request.with_lease(place.sealed_as, owner, LEASE_AGE)
    try:
        error = yield request
    except BaseException:
        if owner:
            tier.core.give_back(place.sealed_as, owner)
        raise
    yield from looked(target, reading, request, error, owner, whole)


def looked(
    target: Target, reading: Reading, request: _core.Request, error: Error, owner: str, whole: bool
) -> Steps[None]:
    """What the answer says. `owner`: as whom the lease was taken along, or ""."""
    tier = of(target)
    place = reading.place
    reading.seen, reading.value = "", None
    reading.taken = False
    if error is not None:
        if owner:
            tier.core.give_back(place.sealed_as, owner)  # it may have been taken all the same
        return
    reading.taken = bool(owner) and request.taken
    yield from _dictionaries.lacking(tier, request)
    may_write = take(target, reading, request, 0)
    if may_write and reading.value is None and not request.seen and not whole:  # unreadable, and to be written anew
        again = _core.look_up(place.slot, [place.key], [place.type], True)
        error = yield again
        reading.seen = "" if error is not None else again.seen


def take(target: Target, reading: Reading, request: _core.Request, i: int) -> bool:
    """What a look-up said of this key. False: nothing may be written there."""
    tier = of(target)
    place = reading.place
    reading.seen = request.seen
    row = request.opened(i, tier.namespace, place.sealed_as, tier.max_value, tier.dictionaries)
    if row is None:
        return True
    if tier.core.owes() and tier.core.concerns(place.key, place.type, list(row[7]), request):
        reading.seen = ""  # invalidated here, which the tier has not heard of: nobody else may get what is loaded now
        return False
    if place.type == _tier_values.DIRECT and tier.core.owes_set(place.key, place.type):
        reading.seen = ""  # set here, likewise: what the tier has may be older
        return False
    reading.value = _tier_values.opened(tier, place, row, codec_of(target), target.settings)
    return True


def landed(target: Target, flight: _core.Flight, reading: Reading, anew: bool) -> bool:
    """Lands the flight with what the tier has, if that may be returned. A value past that goes to memory: it may stand
    in for an error, or be revived."""
    there = True
    try:
        there = _landed(target, flight, reading, anew)
    finally:
        if there and reading.taken:  # along with the look-up, and what that found was deleted in between
            reading.taken = False
            tier = of(target)
            tier.core.give_back(reading.place.sealed_as, f"{tier.process}:{flight.sequence}")
    return there


def _landed(target: Target, flight: _core.Flight, reading: Reading, anew: bool) -> bool:
    value = reading.value
    if value is None or anew or (flight.background and not newer(target, flight, value)):
        return False
    tier = of(target)
    if not tier.pending or not concerned(tier, reading.place, value.tags):
        kept = copy.deepcopy(value.value) if target.settings.copy else value.value
        tags = [_core.tag_fingerprint(tag) for tag in value.tags] if value.tags else ()
        _core.adopt(flight, kept, value.durations, value.fresh_left, tags, value.weight, value.negative)
    if value.negative:
        if value.fresh_left <= 0:
            return False
        error = NotFound(value.value)
        finish(flight, ERROR, (error, None))
        return True
    if value.fresh_left <= 0 and not value.stale:
        return False
    finish(flight, REMOTE, value.value)
    return True


def newer(target: Target, flight: _core.Flight, value: Value) -> bool:
    """Whether what the tier has makes a refresh needless: fresh, and not the value that is to be refreshed early."""
    life = _core.life(target.cache, flight.scope, flight.key)
    left = 0 if life is None or life[0] > 1 else life[1]
    if left <= 0:
        return value.fresh_left > 0
    return value.fresh_left > left + int(value.durations[0] * target.settings.jitter)  # each has a jitter of its own


def outcome(target: Target, flight: _core.Flight) -> Any:
    """What the leader of a flight that landed with the tier's value returns; a stale one is refreshed behind it."""
    if flight.error is not None:
        raise flight.error[0]
    count(target, flight)
    return flight.value


def count(target: Target, flight: _core.Flight) -> None:
    """The caller was counted as a miss, and was answered from the tier."""
    if not _core.count_remote_hit(flight, False):  # memory could not keep it: its count has no entry
        upkeep = target.cache._upkeep
        if upkeep is not None:
            upkeep.count(flight.scope, flight.key, 1)


def follow_up(target: Target, start: Callable[[Target, Any], None]) -> None:
    """After a value came from the tier: begins its refresh, if it is stale or early."""
    step, _, flight = target.begin(False)
    if step in (REFRESH, REFRESH_EARLY):
        start(target, flight)
    elif flight is not None and step != 3:  # FOLLOW: another's
        finish(flight, ABANDONED, None)


def pending(target: Any) -> bool:
    """Whether transactions are open that invalidate something: what is loading may be of before their commit."""
    tier = target.tier
    return tier is not None and bool(tier.pending)


def concerned(tier: Tier, place: Place, tags: Sequence[str]) -> bool:
    """Whether an open transaction invalidates this: then memory must not keep it."""
    pending = tier.pending
    if not pending:
        return False
    names = {"all", f"type:{place.type}", f"key:{place.key}", *(f"tag:{tag}" for tag in tags)}
    if place.type == _tier_values.DIRECT:
        names.add("type:default")
    return any(not names.isdisjoint(held.names) for held in list(pending))


# ------------------------------------------------------------------------------------------------------------- writes


def prepared(
    target: Target, reading: Reading, value: Any, durations: Durations, tags: list[str], *, negative: bool = False
) -> tuple[_core.Request, int] | None:
    """The request that stores a loaded value, and its bytes; None: the tier is not given it."""
    tier = of(target)
    if not reading.seen or durations[0] <= 0:
        return None
    place = reading.place
    if negative and place.slot:
        return None  # a table of plain columns has no place for an absence
    try:
        return _tier_values.stored(
            tier, place, value, codec_of(target), durations, tags,
            born=reading.seen, jitter=target.settings.jitter, negative=negative, arguments=target.arguments(),
            private=target.settings.private,
        )  # fmt: skip
    except CodecError as error:
        if tier.strict:
            raise
        tier.errors += 1
        tier.say_once(logging.WARNING, f"encode {place.type} {error}", "%s stays in memory only: %s", place.key, error)
        return None


def absent(target: Target, reading: Reading, text: str) -> None:
    """The loader says that there is no such thing: what the tier has goes, or the absence is written behind."""
    tier = of(target)
    ttl = target.settings.negative_ttl
    made = prepared(target, reading, text, (ttl, 0, 0, 0), target.tags(), negative=True) if ttl else None
    if made is not None:
        tier.core.write_behind(made[0])
    elif reading.value is not None:
        tier.core.forget(f"key:{reading.place.key}")


def written(tier: Tier, request: _core.Request, reading: Reading | None) -> Steps[bool]:
    """Fleet: the write comes before memory. False: the fence refused it, so memory must not keep it either."""
    along = tier.leases_along and reading is not None and bool(reading.owner)
    if along and reading is not None:
        request.with_lease(reading.place.sealed_as, reading.owner, LEASE_AGE)
    error = yield request
    if error is None:
        if along and reading is not None and request.stored:
            tier.core.drop_lease(reading.place.sealed_as, reading.owner)
            reading.owner = ""
        return request.stored
    if error[0] != REJECTED or error[1] in LATER:
        tier.core.owe_write(request)
    return True


__all__ = ["MISSING", "Reading"]
