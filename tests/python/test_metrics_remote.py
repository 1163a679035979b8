"""What metrics say of the remote tier: what it answers, that it is gone, and what it is owed meanwhile.

Thread rule: one thread; the database is of the test's own where it is hurt.
Refuses to know: metrics of memory (test_metrics), and how the tier recovers.
"""

from __future__ import annotations

import pytest

from stillwarm import Cache
from stillwarm._readings import FIGURES, read
from stillwarm.testing import PostgresServer

REMOTE = {name for name in FIGURES if name.startswith("remote_")} | {"undecodable"}


@pytest.fixture(params=["warm_postgres", "warm_redis"])
def url(request: pytest.FixtureRequest) -> str:
    url = request.getfixturevalue(request.param).new_database()
    assert isinstance(url, str)
    return url


def test_metrics_remote_figures_are_absent_without_a_tier() -> None:
    names = {name for name, _ in read(Cache())}
    assert names & REMOTE == {"remote_hits", "remote_errors"}


def test_metrics_remote_hits_and_connections(url: str) -> None:
    with Cache(url, namespace="shop", ttl=60) as writer, Cache(url, namespace="shop", ttl=60) as reader:
        writer.set("k", 1)
        assert reader.get("k") == 1
        now = read(reader)
        assert now["remote_hits", ("shop", "default")] == 1
        assert now["hits", ("shop", "default")] == 1
        assert now["remote_up", ("shop",)] == 1
        assert now["remote_connections", ("shop",)] >= 1
        assert now["remote_round_trips", ("shop",)] >= 1
        assert now["remote_errors", ("shop",)] == 0
        assert now["remote_owed", ("shop", "invalidations")] == now["remote_owed", ("shop", "writes")] == 0


def test_metrics_remote_tier_that_is_gone_is_owed_an_invalidation(private_postgres: PostgresServer) -> None:
    with Cache(private_postgres.new_database(), namespace="shop", ttl=60, timeout="2s") as cache:
        cache.set("k", 1)
        private_postgres.kill()
        cache.invalidate(key="k")
        now = read(cache)
        assert now["remote_owed", ("shop", "invalidations")] == 1
        assert now["remote_errors", ("shop",)] >= 1


def test_metrics_remote_values_that_are_too_large_are_counted(url: str) -> None:
    with Cache(url, namespace="shop", ttl=60, max_value=1000) as cache:
        cache.set("k", b"x" * 2000)
        assert read(cache)["undecodable", ("shop", "too_large")] == 1
