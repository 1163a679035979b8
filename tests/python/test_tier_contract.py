"""One contract over every tier: memory; PostgreSQL, strict, through a pooler; Redis, strict, with TLS where the build
has it, behind sentinels, on a cluster. Plain and async.

Thread rule: one thread with a loop.
Refuses to know: what is promised (contract.py, contract_invalidation.py).
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from certificates import Authority
from contract import *  # noqa: F403
from contract import Way
from contract_invalidation import *  # noqa: F403
from pooling import PgBouncer
from stillwarm import _core
from stillwarm._redis_server import RedisServer
from stillwarm._servers import PostgresServer
from stillwarm.testing import Clock
from tiers import ClusterGround, Ground, sentinel_ground


@pytest.fixture(scope="session")
def shared_pooler(warm_postgres: PostgresServer) -> Iterator[PgBouncer]:
    pooler = PgBouncer(warm_postgres.port, size=4)
    try:
        yield pooler
    finally:
        pooler.close()


@pytest.fixture(scope="session")
def shared_tls(authority: Authority) -> Iterator[RedisServer]:
    with RedisServer(tls=authority.issue()) as server:
        yield server


_TLS = ["redis-tls"] if _core.REDIS_TLS else []
_TIERS = ["memory", "postgres", "strict", "pooler", "redis", "redis-strict", *_TLS, "sentinel", "cluster"]


@pytest.fixture(params=_TIERS)
def ground(request: pytest.FixtureRequest, warm_clock: Clock) -> Iterator[Ground]:
    if request.param == "memory":
        ground = Ground(None)
    elif request.param == "cluster":
        ground = ClusterGround(request.getfixturevalue("shared_cluster"))
    elif request.param == "sentinel":
        ground = sentinel_ground(request.getfixturevalue("shared_sentinel"))
    elif request.param == "redis-tls":
        ground = Ground(request.getfixturevalue("shared_tls").new_database())
    elif request.param.startswith("redis"):
        url = request.getfixturevalue("warm_redis").new_database()
        ground = Ground(url, strict=request.param == "redis-strict")
    else:
        url = request.getfixturevalue("shared_database")
        if request.param == "pooler":
            pooler = request.getfixturevalue("shared_pooler")
            ground = Ground(pooler.url(url.rpartition("/")[2]), url, pooler=True)
        else:
            ground = Ground(url, strict=request.param == "strict")
    try:
        yield ground
    finally:
        ground.close()


@pytest.fixture(params=[False, True], ids=["plain", "async"])
def way(request: pytest.FixtureRequest) -> Way:
    return Way(request.param)
