"""Leases of scope "fleet": one process loads a key for all; the others look again until they find its value.

Thread rule: generators of steps (see _tier), performed by _load on a thread and by _aload in a task.
Refuses to know: how long a lease lives while its load runs (cpp/core/remote/listener.hpp), and how the load runs.
"""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING, Final

from stillwarm import _core, _tier_loads
from stillwarm._landing import finish
from stillwarm._target import ABANDONED, REMOTE
from stillwarm._tier import LEASE_AGE, Steps
from stillwarm.errors import LoadTimeout

if TYPE_CHECKING:
    from stillwarm._target import Target
    from stillwarm._tier import Tier
    from stillwarm._tier_loads import Reading

LEASE_WAIT: Final = 30.0  # s, where no hard timeout is set


def acquire(target: Target, flight: _core.Flight, reading: Reading, anew: bool) -> Steps[bool]:
    """Step 6: until this load may run (False), or the flight has landed with what another process stored (True).

    Raises:
        LoadTimeout: another process loads for longer than this caller waits.
    """
    tier = _tier_loads.of(target)
    owner = f"{tier.process}:{flight.sequence}"
    name = reading.place.sealed_as
    hard = target.settings.hard_timeout
    limit = hard / 1e9 if hard else LEASE_WAIT
    until = time.monotonic() + limit
    pause = 0.02
    whole = anew or flight.background
    if reading.taken:  # with the look-up that found nothing
        reading.taken, reading.owner = False, owner
        tier.core.hold_lease(name, owner)
        return False
    while True:
        request = _core.lease(True, name, owner, LEASE_AGE)
        try:
            error = yield request
            if error is not None:
                tier.core.give_back(name, owner)  # it may have been taken all the same
                return False  # no lease service: each process for itself
            if request.taken:
                reading.owner = owner
                tier.core.hold_lease(name, owner)
                yield from _tier_loads.look(target, reading, whole)  # it may have been loaded since we looked
                if _landed_fresh(target, flight, reading, anew):
                    yield from give_back(tier, reading)
                    return True
                return False
        except BaseException:  # cancelled: nobody would end it
            reading.owner = ""
            tier.core.give_back(name, owner)
            raise
        if flight.background:
            finish(flight, ABANDONED, None)
            return True
        if reading.value is not None and reading.value.servable and not anew:
            finish(flight, REMOTE, reading.value.value)
            return True
        if time.monotonic() >= until:
            key = target.cache._key_of(flight)
            raise LoadTimeout(f"another process loads {key} for longer than {limit:g} s; it goes on and may be stored")
        yield pause * (0.75 + random.random() / 2)
        pause = min(pause * 2, 0.25)
        yield from _tier_loads.look(target, reading, whole)
        if _landed_fresh(target, flight, reading, anew):
            return True


def _landed_fresh(target: Target, flight: _core.Flight, reading: Reading, anew: bool) -> bool:
    """Lands the flight if another process has loaded the value by now."""
    value = reading.value
    return value is not None and value.fresh_left > 0 and _tier_loads.landed(target, flight, reading, anew)


def give_back(tier: Tier, reading: Reading) -> Steps[None]:
    """Ends the lease, so that nobody waits for its age."""
    if reading.owner:
        owner, reading.owner = reading.owner, ""
        tier.core.drop_lease(reading.place.sealed_as, owner)
        yield _core.lease(False, reading.place.sealed_as, owner, 0)


__all__ = ["acquire", "give_back"]
