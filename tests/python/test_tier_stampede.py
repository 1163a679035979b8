"""A cold key and several processes with 64 threads: one load in scope "fleet", and one more when its owner is killed.

Thread rule: processes of their own.
Refuses to know: figures; `trust.py --part redis` and `--part remote` have the long versions and their limits.
"""

from __future__ import annotations

import pytest

from reliability import stampedes
from served import Served

pytestmark = pytest.mark.servers


def test_tier_stampede_of_processes_loads_once(shared_server: Served) -> None:
    one = stampedes.run(shared_server, 0.3, processes=3)
    assert (one.loads, one.wrong) == (1, [])


def test_tier_stampede_whose_owner_is_killed_loads_once_more(shared_server: Served) -> None:
    one = stampedes.run(shared_server, 2.0, kill_after=0.1, processes=3)
    assert (one.loads, one.wrong) == (2, [])
    assert one.again is not None


@pytest.mark.parametrize("shared_server", ["redis"], indirect=True)
def test_tier_stampede_of_naive_processes_loads_in_each(shared_server: Served) -> None:
    """The control: a lock of its own process holds up nobody else."""
    assert stampedes.run(shared_server, 1.0, kind="naive", processes=3).loads > 1
