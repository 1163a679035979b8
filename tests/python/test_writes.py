"""What is written once, however many ask for it and whoever dies on the way.

A few rounds of each; `trust.py --part writes` has the many.

Thread rule: see reliability/voc_writes.py, key_writes.py and commit_cuts.py.
Refuses to know: figures.
"""

from __future__ import annotations

import pytest

from reliability import commit_cuts, key_writes, voc_writes
from stillwarm._servers import PostgresServer

pytestmark = pytest.mark.servers
SEED = 4


def test_writes_a_window_from_four_processes_is_one_row_and_nobody_sees_it_older(warm_postgres: PostgresServer) -> None:
    outcome = voc_writes.run(warm_postgres, 2, SEED)
    assert (outcome.kills, outcome.ended) == (1, 1), outcome
    assert not outcome.rows_wrong, outcome
    assert outcome.older() == (0, 0), outcome
    assert not outcome.failed
    assert all(sum(map(len, one.judged())) > 100 for one in outcome.rounds), outcome


def test_writes_a_naive_save_makes_more_rows_and_shows_older_ones(warm_postgres: PostgresServer) -> None:
    outcome = voc_writes.run(warm_postgres, 1, SEED, "naive")
    assert outcome.rows_wrong, outcome
    assert min(outcome.older()) > 0, outcome


@pytest.mark.parametrize("mode", ["with", "without"])
def test_writes_one_key_has_one_effect_wherever_its_owner_is_killed(warm_postgres: PostgresServer, mode: str) -> None:
    outcome = key_writes.run(warm_postgres, mode, len(key_writes.POINTS) + 1, SEED, threads=8)
    assert outcome.wrong == []
    assert set(outcome.killed) == set(key_writes.POINTS), outcome
    assert outcome.strangers == 0


def test_writes_a_naive_key_has_many_effects_and_tells_strangers(warm_postgres: PostgresServer) -> None:
    outcome = key_writes.run(warm_postgres, "naive", 2, SEED, threads=16)
    assert outcome.most > 1, outcome
    assert outcome.strangers > 0, outcome


@pytest.mark.parametrize("adapter", commit_cuts.ADAPTERS)
def test_writes_a_commit_that_is_cut_is_repeated_to_one_effect(warm_postgres: PostgresServer, adapter: str) -> None:
    outcome = commit_cuts.run(warm_postgres, adapter, every=40)
    assert outcome.wrong == [], outcome
    first = {case.statuses[0] for case in outcome.cases}
    assert first <= {"201", "503 commit-unknown"}, "said so that a client knows what to do"
    assert {case.executed for case in outcome.cases} == {1, 2}, "committed all the same, and not"


@pytest.mark.parametrize("adapter", commit_cuts.ADAPTERS)
def test_writes_a_commit_that_is_repeated_blindly_has_two_effects(warm_postgres: PostgresServer, adapter: str) -> None:
    outcome = commit_cuts.run(warm_postgres, adapter, decorated=False)
    assert [case.effects for case in outcome.cases] == [2], outcome
