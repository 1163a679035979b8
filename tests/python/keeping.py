"""Where the records of idempotency keys are, for tests: in memory or in PostgreSQL; and how they get older.

Thread rule: one thread.
Refuses to know: what is tested.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from stillwarm import _core
from stillwarm._servers import PostgresServer
from tiers import Ground


@pytest.fixture(params=["memory", "postgres"])
def shared(request: pytest.FixtureRequest) -> Iterator[Ground]:
    """Where the records are."""
    if request.param == "memory":
        ground = Ground(None)
    else:
        ground = Ground(request.getfixturevalue("warm_postgres").new_database())
    yield ground
    ground.close()


@pytest.fixture
def database(warm_postgres: PostgresServer) -> Iterator[Ground]:
    ground = Ground(warm_postgres.new_database())
    yield ground
    ground.close()


def older(ground: Ground, seconds: float) -> None:
    """All records become older."""
    if ground.url is None:
        _core.clock_set(_core.clock_now() + int(seconds * 1e9))
    else:
        ground.sql(
            "UPDATE stillwarm.idempotency SET lease_until = lease_until - %(s)s * interval '1 s', created_at = "
            "created_at - %(s)s * interval '1 s', expires_at = expires_at - %(s)s * interval '1 s'".replace(
                "%(s)s", str(seconds)
            )
        )


def records(ground: Ground, columns: str = "state") -> list[Any]:
    return [row[0] for row in ground.sql(f"SELECT {columns} FROM stillwarm.idempotency ORDER BY key")]
