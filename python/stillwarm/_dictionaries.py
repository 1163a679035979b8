"""Compression dictionaries of a remote tier: fetched when a value asks for one, trained, published, seen to be there.

Thread rule: generators of steps (see _tier), any thread, any loop; `run` on a thread of the load pool, one at a time
per cache. The state is the core's (cpp/core/codec/dictionaries.hpp), under the GIL; a study runs without it.
Refuses to know: zstd, and which values are compressed with what.

A dictionary is a value like any other, in the tier's shared table, of the type TYPE, under a key with the type and the
number of the dictionary; and under a key with the type alone stands the number of the newest. So every tier has them.
Whatever deletes values may delete them: `doubted` then looks for those in use, and writes again those that have gone.
"""

from __future__ import annotations

import fnmatch
import functools
import logging
from typing import TYPE_CHECKING, Final, TypeAlias

from stillwarm import _core
from stillwarm._place import DICTIONARIES as TYPE
from stillwarm._tier import SHARED, Steps, drive
from stillwarm._tier_values import ADD, SET, Place, storable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from stillwarm._cache import Cache
    from stillwarm._tier import Tier

LIFE: Final = 30 * 86_400 * 1_000_000_000  # ns; written again before half of it is over by whoever still uses it
_LIMIT: Final = 1 << 10  # bytes of the number of the newest, sealed

Wanted: TypeAlias = "tuple[str, int]"  # type, number
_log = logging.getLogger("stillwarm")


def place(type_name: str, number: int) -> Place:
    """Where a dictionary is."""
    return Place(storable(f"{TYPE}:{type_name}:{number:013x}"), TYPE, SHARED)


def newest(type_name: str) -> Place:
    """Where the number of the newest is."""
    return Place(storable(f"{TYPE}:{type_name}"), TYPE, SHARED)


def _look(places: Iterable[Place]) -> _core.Request:
    keys = [one.key for one in places]
    return _core.look_up(SHARED, keys, [TYPE] * len(keys))


# ------------------------------------------------------------------------------------------------------------- reading


def lacking(tier: Tier, request: _core.Request) -> Steps[None]:
    """Brings what values of this look-up were compressed with. What cannot be had makes them unreadable, for a while
    without being asked for again."""
    wanted = tier.dictionaries.lacking(request)
    if wanted:
        yield from fetch(tier, wanted)


def fetch(tier: Tier, wanted: list[Wanted]) -> Steps[bool]:
    """Asks the tier for dictionaries. False: it did not answer."""
    places = [place(*one) for one in wanted]
    request = _look(places)
    error = yield request
    if error is not None:
        return False
    for i, (type_name, number) in enumerate(wanted):
        if not tier.dictionaries.learn(type_name, number, request, i, tier.namespace, places[i].sealed_as):
            text = "values of %s were compressed with a dictionary that the tier has not got: they are misses"
            tier.say_once(logging.WARNING, f"dictionary {type_name}", text, type_name)
    return True


# ------------------------------------------------------------------------------------------------------------ training


def studied(tier: Tier, type_name: str) -> Steps[None]:
    """Looks whether another process has a dictionary for the type, else trains one, and uses what pays."""
    if not (yield from _ask_newest(tier, type_name)):
        return  # the tier does not answer: the sample stays, and the next second tries again
    study = tier.dictionaries.begin(type_name)
    if study is None:
        return
    published, doubts = False, tier.dictionaries.doubts
    try:
        study.run()
        if study.adopts:
            published = not study.made or (yield from _published(tier, study))
    finally:
        tier.dictionaries.end(study, published, doubts)
    if study.trains:
        raw, without, before, after = study.sizes
        text = "dictionary for %s: %d bytes held out take %d without one, %d with the present one, %d with the best: %s"
        _log.info(text, type_name, raw, without, before, after, "adopted" if study.adopts and published else "left")


def _ask_newest(tier: Tier, type_name: str) -> Steps[bool]:
    where = newest(type_name)
    request = _look([where])
    error = yield request
    if error is not None:
        return False
    row = request.opened(0, tier.namespace, where.sealed_as, _LIMIT)
    number = _number_of(row)
    if number and not tier.dictionaries.knows(type_name, number):
        return (yield from fetch(tier, [(type_name, number)]))
    return True


def _number_of(row: _core._Row | None) -> int:
    if row is None or row[0] != 0 or row[1] is None or row[3] != _core.DICTIONARY_CODEC or len(row[1]) != 8:
        return 0
    return int.from_bytes(row[1], "little")


def _published(tier: Tier, study: _core.Study) -> Steps[bool]:
    where = place(study.type, study.best)
    sealed = study.publication(tier.namespace, where.sealed_as)
    if not (yield from _written(tier, where, sealed, study.best)):
        return False
    yield from _name_newest(tier, study.type, study.best)  # who does not find it trains one of their own
    return True


def _written(tier: Tier, where: Place, sealed: bytes, number: int) -> Steps[bool]:
    """Stores a dictionary, unless it is there."""
    request = _store(where, sealed, ADD)
    error = yield request
    if error is not None or request.stored:
        return error is None
    look = _look([where])
    error = yield look
    if error is not None:
        return False
    if tier.dictionaries.holds(number, look, 0, tier.namespace, where.sealed_as):
        return True
    request = _store(where, sealed, SET)  # what only stands in its place
    error = yield request
    return error is None and request.stored


def _name_newest(tier: Tier, type_name: str, number: int, mode: int = SET) -> Steps[None]:
    where = newest(type_name)
    durations = (LIFE, 0, 0, 0)
    body = number.to_bytes(8, "little")
    sealed = _core.seal(tier.namespace, where.sealed_as, body, _core.DICTIONARY_CODEC, False, durations, 0)
    yield _store(where, sealed, mode)


def _store(where: Place, sealed: bytes, mode: int) -> _core.Request:
    return _core.store(SHARED, mode, where.key, TYPE, sealed, "", "", [], None, LIFE, LIFE)


# ------------------------------------------------------------------------------------------------------- being there


def confirmed(tier: Tier) -> Steps[None]:
    """Looks for the dictionaries in use; what the tier has not got, or not for long any more, is written again."""
    wanted = tier.dictionaries.unconfirmed()
    if not wanted:
        return
    doubts = tier.dictionaries.doubts
    places = [place(type_name, number) for type_name, number, _ in wanted]
    current = [type_name for type_name, _, used in wanted if used]
    request = _look([*places, *map(newest, current)])
    error = yield request
    if error is not None:
        return
    for i, (type_name, number, _) in enumerate(wanted):
        where = places[i]
        left = tier.dictionaries.holds(number, request, i, tier.namespace, where.sealed_as)
        if left < LIFE // 2:
            sealed = tier.dictionaries.publication(type_name, number, tier.namespace, where.sealed_as)
            if not sealed:
                continue  # it has left this process
            again = _store(where, sealed, SET)
            error = yield again
            if error is not None or not again.stored:
                continue
        tier.dictionaries.confirm(type_name, number, doubts)
    numbers = {type_name: number for type_name, number, used in wanted if used}
    for i, type_name in enumerate(current, len(places)):
        row = request.opened(i, tier.namespace, newest(type_name).sealed_as, _LIMIT)
        if not _number_of(row) or (row is not None and row[6] < LIFE // 2):
            yield from _name_newest(tier, type_name, numbers[type_name])


def concerns(tier: Tier, name: str) -> bool:
    """Whether what an invalidation names may be one of the dictionaries that this process knows."""
    intent, _, what = name.partition(":")
    if intent == "pattern":
        return any(fnmatch.fnmatchcase(place(*one).key, what) for one in tier.dictionaries.known())
    return intent == "all" or (intent == "key" and what.startswith(TYPE))


def doubted(cache: Cache) -> None:
    """Something was invalidated that dictionaries may be among: none is written with until it was seen to be there."""
    tier = cache._tier
    if tier is not None and not tier.closed:
        tier.dictionaries.doubt()
        if tier.dictionaries.unconfirmed():
            start(cache)


# ---------------------------------------------------------------------------------------------------------- background


def start(cache: Cache) -> None:
    """Begins the background work."""
    tier = cache._tier
    if tier is not None and not tier.closed:
        tier.dictionary_work.start(cache._pool, functools.partial(_run, tier))


def tick(cache: Cache) -> None:
    """Once a second: begins it where there is something to do."""
    tier = cache._tier
    if tier is None or not (tier.dictionaries.due() or tier.dictionaries.unconfirmed()):
        return
    if tier.core.health()["circuit"] != "open":  # else the tier is away, and this can wait
        start(cache)


def _run(tier: Tier) -> None:
    if not tier.closed:
        run(tier)


def run(tier: Tier) -> None:
    """All that is to be done now, on this thread."""
    drive(tier, confirmed(tier))
    for type_name in tier.dictionaries.due():
        drive(tier, studied(tier, type_name))


__all__ = ["LIFE", "TYPE", "concerns", "doubted", "lacking", "newest", "place", "run", "start", "tick"]
