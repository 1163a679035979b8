"""No resurrection across processes, under random schedules; a naive cache is found out by the same.

Thread rule: see reliability/fleet_schedules.py.
Refuses to know: what a schedule does.
"""

from __future__ import annotations

import pytest

from reliability.fleet_schedules import Naive, Ours, Schedule
from tiers import Ground


@pytest.mark.parametrize("scope", ["process", "fleet"])
@pytest.mark.parametrize("seed", range(6))
def test_schedules_nothing_comes_back(ground: Ground, scope: str, seed: int) -> None:
    subject = Ours(ground, scope)
    subject.caches[0].migrate()
    Schedule(subject, str(ground.url), seed).run()


def test_schedules_find_a_naive_cache_out(ground: Ground) -> None:
    def came_back(seed: int) -> bool:
        try:
            Schedule(Naive(), str(ground.url), seed).run()
        except AssertionError:
            return True
        return False

    assert sum(came_back(seed) for seed in range(6)) >= 4
