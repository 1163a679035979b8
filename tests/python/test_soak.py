"""The soak's checker sees what is wrong, and a short soak of two workers with faults on both tiers has nothing wrong.

Thread rule: a soak has threads and processes of its own.
Refuses to know: how long a wait or a recovery may be; that is for `make trust`, on a machine with nothing else to do.
"""

from __future__ import annotations

import pytest

from reliability import soak
from reliability.soak_report import ROOM, Report, Wait
from reliability.soak_truth import COARSE, COMMIT, GRACE, Invalidation, Read, Truth

SEED = 20261126
LAG, TTL = 1.0, 15.0
HERE, THERE = 1, 2  # process ids


def truth(owed: bool = False) -> Truth:
    """Version 2 was written at 100 s, and its invalidation returned at 101 s in the process HERE."""
    one = Truth(LAG, TTL)
    one.wrote("pg", "k", 50.0)
    one.invalidated("pg", "k", Invalidation(50.0, 50.1, HERE, 1, owed=False))
    one.wrote("pg", "k", 100.0)
    one.invalidated("pg", "k", Invalidation(100.0, 101.0, HERE, 2, owed))
    return one


def broken(one: Truth, began: float, pid: int, version: int = 1) -> list[str]:
    """The rules that a read of this version breaks."""
    one.read(Read(began, began + 0.01, pid, "pg", "k", version))
    return [wrong.rule for wrong in one.judge().wrong]


def test_soak_truth_of_the_process_that_invalidated() -> None:
    assert broken(truth(), 100.99, HERE) == []
    assert broken(truth(), 101.01, HERE) == ["same"]
    assert broken(truth(owed=True), 101.01, HERE) == ["same"], "whether or not the tier took it"
    assert broken(truth(), 101.01, HERE, version=2) == []


def test_soak_truth_of_another_process() -> None:
    assert broken(truth(), 101 + LAG, THERE) == []
    assert broken(truth(), 101 + LAG + 2 * COARSE, THERE) == ["other"]


def test_soak_truth_while_the_tier_is_away() -> None:
    def away() -> Truth:
        one = truth()
        one.disturbed("pg", 100.5, 103.0)
        return one

    until = 103 + GRACE + LAG + COARSE
    assert broken(away(), until - 0.01, THERE) == []
    assert broken(away(), until + 0.01, THERE) == ["away"]
    elsewhere = truth()
    elsewhere.disturbed("redis", 100.5, 103.0)
    assert broken(elsewhere, 103.0, THERE) == ["other"]


def test_soak_truth_of_what_was_owed_by_a_process_that_was_killed() -> None:
    def dead() -> Truth:
        one = truth(owed=True)
        one.disturbed("pg", 100.5, 103.0)
        one.killed(HERE, 102.0)
        return one

    assert broken(dead(), 100 + TTL + COMMIT - 0.1, THERE) == []
    assert broken(dead(), 100 + TTL + COMMIT + 0.1, THERE) == ["ttl"]


def test_soak_truth_of_values_that_never_were() -> None:
    assert broken(truth(), 99.0, HERE, version=2) == ["strange"]
    assert broken(truth(), 101.5, HERE, version=3) == ["strange"]
    assert broken(truth(), 99.0, HERE, version=-1) == ["strange"]
    assert soak._version_of("pg|k1|7|" + "k1" * 20, "pg", "k1") == 7
    for other in ("pg|k2|7|" + "k2" * 20, "redis|k1|7|" + "k1" * 20, "pg|k1|7|" + "k1" * 19, None):
        assert soak._version_of(other, "pg", "k1") == -1


def test_soak_report_sees_growth_and_waits() -> None:
    report = Report(SEED)
    report.samples["rss"] = [(float(n), n * ROOM["rss"]) for n in range(9)]
    report.samples["threads"] = [(float(n), 20.0 + n % 2) for n in range(9)]
    assert report.growing() == ["rss"]
    report.waits += [Wait(1.0, "read", "pg", 0.3, 0.28), Wait(2.0, "read", "pg", 0.3, 0.0)]
    assert report.long_waits(0.05) == report.waits[1:], "of the first the machine was late"


@pytest.mark.servers
def test_soak_a_control_that_tells_nobody_is_seen() -> None:
    report = soak.run(5, SEED, naive=True, faults=False)
    assert report.errors == []
    assert "other" in {wrong.rule for wrong in report.verdict.wrong}


@pytest.mark.servers
def test_soak_two_workers_and_faults_on_both_tiers() -> None:
    report = soak.run(15, SEED)
    assert report.verdict.wrong == []
    assert report.errors == []
    assert {tier for _, tier, _ in report.faults} == {"pg", "redis"}
    assert all(report.verdict.checked[rule] for rule in ("same", "other")), "nothing was checked"
