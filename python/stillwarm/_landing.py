"""How a load ends: what is stored, what those who wait for it get, and who is woken.

Thread rule: any thread, also one without an event loop. Nothing here holds a lock while it calls user code.
Refuses to know: how the load was performed, and how its waiters wait.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from stillwarm import _core, hooks
from stillwarm._failures import classify as classify_error
from stillwarm._target import (
    ABANDONED,
    AGAIN,
    ERROR,
    FATAL,
    MISSING,
    NOT_FOUND,
    REMOTE,
    STALE,
    TRANSIENT,
    VALUE,
    Target,
    give,
)
from stillwarm._types import Settings, tag_names, ttl_ns
from stillwarm._waiting import running_loop
from stillwarm.errors import NotFound

if TYPE_CHECKING:
    from stillwarm._tier_loads import Reading

STORED: Final = ("stored", "lost", "too_large", "not_kept")
LOST, NOT_KEPT = 1, 3
RAISE: Final = object()  # what `failed_plain` answers for "raise the loader's own error"
KINDS: Final = {"fatal": FATAL, "not_found": NOT_FOUND, "transient": TRANSIENT}


def kind_of(settings: Settings, error: BaseException) -> int:
    """FATAL, NOT_FOUND or TRANSIENT, by classify= or stale_on= where given."""
    if isinstance(error, NotFound):
        return NOT_FOUND
    if settings.classify is not None:
        kind = settings.classify(error)
        if kind not in KINDS:
            raise ValueError(f"classify= returned {kind!r}; accepted: {', '.join(map(repr, KINDS))}") from error
        return KINDS[kind]
    if settings.stale_on is not None:
        on = settings.stale_on
        matches = isinstance(error, on) if isinstance(on, (type, tuple)) else on(error)
        return TRANSIENT if matches else FATAL
    return KINDS[classify_error(error)]


class Plan(NamedTuple):
    """What is to be kept of a loaded value: where, how long, and under which tags.

    `request` is the write to the remote tier, or None; `durations` None: those of the scope.
    """

    value: Any
    kept: Any
    durations: tuple[Any, ...] | None
    tags: list[str]
    weight: int
    request: Any
    memory: bool
    answered: bool


def planned(target: Any, flight: Any, value: Any, reading: Reading | None = None) -> Plan | None:
    """What is to be kept of what the loader returned; None: nothing. Runs the user's `unless=`, `ttl=`, `tags=`..."""
    settings, load = target.settings, flight.load
    if load is not None and load._revives:
        value = load.kept
    if (load is not None and load._skip) or (settings.unless is not None and settings.unless(value)):
        return None
    durations: Any = target.durations  # what the target says of this very value; None: as the settings say
    if load is not None and load.ttl is not MISSING:
        durations = settings.durations(ttl_ns(load.ttl, "current_load().ttl"))
    elif callable(settings.ttl):
        durations = settings.durations(ttl_ns(settings.ttl(value), "the value returned by ttl="))
    elif durations is None and target.call is None:
        durations = settings.durations(settings.ttl)
    plain = settings.durations(settings.ttl) if durations is None else durations
    if durations is not None and target.durations is None:  # the scope need not have them: it may serve many settings
        durations = (*durations, settings.early, settings.jitter)
    tags = target.tags()
    if load is not None:
        tags += tag_names(load.tags)
    weight = -1 if settings.weigh is None else weight_of(settings.weigh, value)
    request, memory = None, memory_may_keep(target, reading, tags)
    if reading is not None:
        from stillwarm import _tier_loads

        prepared = _tier_loads.prepared(target, reading, value, plain, tags)
        if prepared is not None:
            request, size = prepared
            weight = size if weight < 0 else weight
    kept = copy.deepcopy(value) if settings.copy else value
    answered = reading is not None and bool(reading.seen)
    return Plan(value, kept, durations, tags, weight, request, memory, answered)


def memory_may_keep(target: Any, reading: Reading | None, tags: list[str]) -> bool:
    """Not what an open transaction invalidates."""
    if reading is None:
        return True
    from stillwarm import _tier_loads

    return not _tier_loads.concerned(target.cache._tier, reading.place, tags)


def committed(
    target: Any, flight: Any, value: Any, took: int, plan: Plan | None, refused: bool = False, behind: bool = False
) -> Any:
    """Stores what the loader returned, if it may be stored, and lands the flight. Returns what it brought.

    `refused`: the remote tier's fence refused it, so it is lost. `behind`: it is not written yet, whatever the scope.
    """
    load = flight.load
    if load is not None and load._revives:
        value = load.kept
    stored = NOT_KEPT
    try:
        if refused:
            _core.count_lost_fill(flight)
            stored = LOST
        elif plan is not None and plan.memory:
            fingerprints = [_core.tag_fingerprint(tag) for tag in plan.tags]
            stored = _core.commit(flight, plan.kept, plan.durations, fingerprints, plan.weight, False, plan.answered)
    except Exception as error:  # Ctrl-C is not an answer: then a follower leads
        finish(flight, ERROR, (error, error.__traceback__))
        raise
    finish(flight, VALUE, value)
    if plan is not None and plan.request is not None and stored != LOST and (behind or not target.settings.fleet):
        target.cache._tier.core.write_behind(plan.request)
    if target.cache._hooks:
        seconds = took / 1e9
        target.cache._emit_for(
            hooks.Loaded, flight, seconds=seconds, stored=STORED[stored], background=flight.background
        )
    return value


def weight_of(weigh: Callable[[Any], int], value: Any) -> int:
    weight = weigh(value)
    if not isinstance(weight, int) or weight < 0:
        raise ValueError(f"weigh= returned {weight!r}; accepted: a number of bytes (int, 0 or more)")
    return min(weight, 2**62)


def failed(target: Any, flight: Any, error: Exception, kind: int, reading: Reading | None = None) -> Any:
    """Lands the flight of a load that failed for good. A stale value, or the error."""
    value, _ = _core.fail(flight, kind)
    if target.cache._hooks:
        target.cache._emit_for(hooks.LoadFailed, flight, error=error, background=flight.background)
    target.cache._note_error(flight.scope, error)
    if value is not MISSING:
        finish(flight, STALE, value)
        return value
    if kind == NOT_FOUND:
        if target.settings.negative_ttl:
            durations = (target.settings.negative_ttl, 0, 0, 0)
            fingerprints = [_core.tag_fingerprint(tag) for tag in target.tags()]
            answered = reading is not None and bool(reading.seen)
            if memory_may_keep(target, reading, target.tags()):
                _core.commit(flight, str(error), durations, fingerprints, -1, True, answered)
        if reading is not None:
            from stillwarm import _tier_loads

            _tier_loads.absent(target, reading, str(error))
        if not isinstance(error, NotFound):
            absence = NotFound(str(error))
            absence.__cause__ = error
            error = absence
    finish(flight, ERROR, (error, error.__traceback__))
    raise error


def failed_plain(call: Any, flight: Any, error: BaseException) -> Any:
    """The C++ side ran a plain load and it raised: a stale value, RAISE, or another error."""
    if not isinstance(error, Exception):
        finish(flight, ABANDONED, None)  # Ctrl-C is not the load's answer: a follower leads
        return RAISE
    target = Target(call, (), None)
    try:
        value = failed(target, flight, error, kind_of(target.settings, error))
        count_stale(target, flight)
        return give(target, value)
    except Exception as raised:
        finish(flight, ERROR, (raised, raised.__traceback__))
        if raised is error:
            return RAISE
        raise


def commit_plain(call: Any, flight: Any, value: Any) -> Any:
    """The C++ side ran a plain load whose loader used current_load(). Returns what the load brought."""
    target = Target(call, (), None)
    try:
        plan = planned(target, flight, value)
    except Exception as error:
        finish(flight, ERROR, (error, error.__traceback__))
        raise
    return committed(target, flight, value, 0, plan)


def finish(flight: Any, state: int, result: Any) -> None:
    """Lands the flight, if it has not landed, and wakes those who wait for it."""
    waiters = _core.land(flight, state, result)
    if waiters is not None:
        wake(waiters)


def outcome(target: Any, flight: Any) -> Any:
    """What a landed flight brought."""
    if flight.state == STALE:
        count_stale(target, flight)
    if flight.state == REMOTE:
        from stillwarm import _tier_loads

        if flight.value is MISSING:
            return AGAIN  # somebody only looked, and there was nothing
        _tier_loads.count(target, flight)
    if flight.state in (VALUE, STALE, REMOTE):
        return flight.value
    if flight.state == ABANDONED:
        return AGAIN
    error, traceback = flight.error
    # One error for all who waited: with the traceback it had, not with that of every other waiter.
    raise error.with_traceback(traceback)


def count_elsewhere(flight: Any) -> None:
    """The core's hook: a hit of a value that memory could not keep has no entry to be counted at."""
    upkeep = flight.cache._upkeep
    if upkeep is not None:
        upkeep.count(flight.scope, flight.key, 1)


def count_stale(target: Any, flight: Any) -> None:
    """The caller, who was counted as a miss, gets a stale value."""
    _core.count_stale(flight)
    if target.cache._hooks:
        target.cache._emit_for(hooks.StaleServed, flight)


def wake(waiters: list[Any]) -> None:
    """Futures of tasks are resolved on their own loops, all of a loop at once; threads are woken by the core."""
    loops: dict[int, tuple[Any, list[Any]]] = {}
    for loop, future in waiters:
        loops.setdefault(id(loop), (loop, []))[1].append(future)
    here = running_loop()
    for loop, futures in loops.values():
        if loop is here:
            resolve(futures)
            continue
        try:
            loop.call_soon_threadsafe(resolve, futures)
        except RuntimeError:
            pass  # that loop is closed, and so are its waiters


def resolve(futures: list[Any]) -> None:
    for future in futures:
        if not future.done():
            future.set_result(None)
