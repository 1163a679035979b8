"""What one process changes is seen by another, over each tier: soon, also beside a cut; and naive ones that miss it.

Thread rule: the other process is a child that reads all the time.
Refuses to know: figures; `trust.py --part redis` and `--part remote` have the long versions and their limits.
"""

from __future__ import annotations

import pytest

from reliability import heard
from served import Served

pytestmark = pytest.mark.servers


def test_tier_heard_by_another_process(shared_server: Served) -> None:
    seen = heard.of_ours(shared_server, 200)
    assert seen.missed == 0
    assert len(seen.all) == 200


@pytest.mark.parametrize("shared_server", ["redis"], indirect=True)
def test_tier_heard_of_foreign_writers(shared_server: Served) -> None:
    seen = heard.of_foreign(shared_server, 100)
    assert seen.missed == 0
    assert len(seen.all) == 100


def test_tier_heard_although_the_link_is_cut(shared_server: Served) -> None:
    for how, lags in heard.of_cuts(shared_server, 4, 20261127).items():
        assert lags.missed == 0, how
        assert lags.all, how


@pytest.mark.parametrize("shared_server", ["redis"], indirect=True)
def test_tier_heard_by_a_naive_process_is_not_all(shared_server: Served) -> None:
    """The control: what is deleted by hand, and what is told while its link is cut, it never hears of."""
    assert heard.of_ours(shared_server, 20, "naive").missed == 0
    assert heard.of_foreign(shared_server, 2, "naive").missed == 1
    assert sum(lags.missed for lags in heard.of_cuts(shared_server, 4, 20261127, "naive").values()) > 0
