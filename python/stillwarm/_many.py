"""Many calls at once: `f.get_many`. What is missing is loaded by one call of `loader_many=`, or each by itself.

Thread rule: any thread, any loop; a Batch belongs to its caller.
Refuses to know: how a single load is performed (_load, _aload), and keys.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from stillwarm import _core, _load, _tier_loads, _tier_values
from stillwarm._landing import committed, count_stale, failed, finish, kind_of, planned
from stillwarm._target import (
    ABANDONED,
    ABSENT,
    AGAIN,
    AWAY,
    CONFIRM,
    FOLLOW,
    LEAD,
    MISSING,
    REFRESH,
    REFRESH_EARLY,
    RUNNING,
    Target,
    current_async,
    give,
)
from stillwarm._tier import Steps, adrive, drive
from stillwarm.errors import NotFound


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
    if batch.leading and call._cache._tier is not None:
        with batch.guarded():
            drive(call._cache._tier, batch.read())
    if batch.leading:
        before = None
        try:
            before = _core.enter(batch.enter())
            batch.land(loader_many(batch.wanted()))
        except Exception as error:
            batch.fail(error)
        finally:
            _core.enter(before)
            batch.leave()
    for i, target, flight, fallback in batch.following:
        value = _load.follow(target, flight, fallback)
        batch.results[i] = call(*target.args) if value is AGAIN else give(target, value)
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
    if batch.leading and call._cache._tier is not None:
        with batch.guarded():
            await adrive(call._cache._tier, batch.read())
    if batch.leading:
        before = current_async.set(batch.enter())
        try:
            loaded = loader_many(batch.wanted())
            batch.land(await loaded if inspect.isawaitable(loaded) else loaded)
        except Exception as error:
            batch.fail(error)
        finally:
            current_async.reset(before)
            batch.leave()
    for i, target, flight, fallback in batch.following:
        value = await _aload.follow(target, flight, fallback)
        batch.results[i] = await call(*target.args) if value is AGAIN else give(target, value)
    return batch.finish()


def by_item(items: list[Any], loaded: Any) -> list[Any]:
    """What `loader_many=` returned, in the order of the items; MISSING where a dict has nothing for one."""
    if isinstance(loaded, dict):
        return [loaded.get(item, MISSING) for item in items]
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
        if value is MISSING:
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
        self.readings: dict[Any, Any] = {}  # by flight, where there is a remote tier
        try:
            for i, item in enumerate(items):
                self._begin(i, Target(call, _as_args(item), None))
        except BaseException:
            self.abandon()
            raise

    def _begin(self, i: int, target: Any) -> None:
        step, value, flight = target.begin(True)
        if step == CONFIRM:
            step, value, flight = target.begin(True, self.call._cache._asked(target))
        if step == CONFIRM:  # trust ran out in between
            step, value, flight = target.begin(True, AWAY)
        if step == FOLLOW and _tier_loads.pending(target):
            self.call._cache._confirm()
            step, value, flight = target.begin(False, AWAY)
        if step == FOLLOW:
            self.following.append((i, target, flight, value))
        elif step == ABSENT:
            self.errors.append(NotFound(value))
        elif step == LEAD:
            self.leading.append((i, target, flight))
        else:
            if step in (REFRESH, REFRESH_EARLY):
                self.leading.append((-1 - i, target, flight))
            self.results[i] = give(target, value)

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """Nobody waits for ever, whatever ends it."""
        try:
            yield
        except BaseException:
            self.abandon()
            raise

    def read(self) -> Steps[None]:
        """Asks the remote tier for all of them at once; what it has is landed."""
        for _, _, flight in self.leading:
            place = _tier_values.place_of(self.call._cache._tier, flight.scope, flight.key)
            self.readings[flight] = _tier_loads.Reading(place)
        self.call._cache._tier.core.used()
        readings = list(self.readings.values())
        places = [reading.place for reading in readings]
        request = _core.look_up(places[0].slot, [place.key for place in places], [place.type for place in places], True)
        error = yield request
        left = []
        for number, (i, target, flight) in enumerate(self.leading):
            if error is None:
                _tier_loads.take(target, self.readings[flight], request, number)
            if not _tier_loads.landed(target, flight, self.readings[flight], False):
                left.append((i, target, flight))
                continue
            try:
                value = _tier_loads.outcome(target, flight) if i >= 0 else None
            except NotFound as absent:
                self.errors.append(absent)
                continue
            if i >= 0:
                self.results[i] = give(target, value)
        self.leading = left

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
            if value is MISSING:
                self._settle(i, target, flight, nothing_for(item))
                continue
            _core.count_load(flight, 0, False)
            plan = planned(target, flight, value, self.readings.get(flight))
            committed(target, flight, value, 0, plan, behind=True)
            if i >= 0:
                self.results[i] = give(target, value)

    def fail(self, error: Exception) -> None:
        for i, target, flight in self.leading:
            if flight.state == RUNNING:
                self._settle(i, target, flight, error)

    def _settle(self, i: int, target: Any, flight: Any, error: Exception) -> None:
        _core.count_load(flight, 0, True)
        try:
            value = failed(target, flight, error, kind_of(target.settings, error), self.readings.get(flight))
        except Exception as raised:
            if i >= 0:
                self.errors.append(raised)
        else:
            if i >= 0:
                count_stale(target, flight)
                self.results[i] = give(target, value)

    def abandon(self) -> None:
        """Whatever has not landed (Ctrl-C, a broken loader) is left to the next caller."""
        for _, _, flight in self.leading:
            finish(flight, ABANDONED, None)

    def finish(self) -> list[Any]:
        if self.errors:
            raise self.errors[0]
        return self.results
