"""What holds for every test: the plugin's fixtures are there, caches agree with themselves afterwards, time is real.
Servers that a test may hurt, and the faults to hurt them with.

Thread rule: one thread.
Refuses to know: what a test is about.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from chaos import ChaosProxy
from pooling import PgBouncer
from reliability import children
from stillwarm import _core
from stillwarm._cache import _caches
from stillwarm._servers import Keeper, PostgresServer, initdb, make_folder

pytest_plugins = ["pytester", "postgres_here", "tiers", "served", "certificates"]

children.hear_ctrl_c()

# In a checkout that is only built and not installed, nobody announces the plugin.
if not importlib.metadata.entry_points(group="pytest11", name="stillwarm"):
    pytest_plugins.append("stillwarm.testing")


@pytest.fixture(autouse=True)
def _caches_are_whole() -> Iterator[None]:
    """After each test: every cache that lives checks its invariants, and the clock is the real one again."""
    yield
    try:
        broken = [cache for cache in list(_caches) if not cache._check_invariants()]
        assert not broken, f"the structures of {broken} do not agree with each other"
    finally:
        _core.clock_set(0)


@pytest.fixture(scope="session")
def postgres_template() -> Iterator[Path]:
    """A data folder to copy, which is ten times quicker than making one."""
    folder = make_folder()
    keeper = Keeper(folder)
    try:
        initdb(folder / "data")
        yield folder / "data"
    finally:
        keeper.close()


@pytest.fixture
def private_postgres(postgres_template: Path) -> Iterator[PostgresServer]:
    """A server of this test alone, to be stopped, killed, frozen and configured at will."""
    with PostgresServer(template=postgres_template) as server:
        yield server


@pytest.fixture
def chaos() -> Iterator[Callable[..., ChaosProxy]]:
    """Makes proxies to a port: `chaos(server.port)`."""
    with ExitStack() as stack:
        yield lambda port, **more: stack.enter_context(ChaosProxy(port, **more))


@pytest.fixture
def pgbouncer(warm_postgres: PostgresServer) -> Iterator[str]:
    """The URL of a new database of `warm_postgres` through a pooler in transaction mode with two server connections."""
    database = warm_postgres.new_database().rpartition("/")[2]
    pooler = PgBouncer(warm_postgres.port)
    try:
        yield pooler.url(database)
    finally:
        pooler.close()
