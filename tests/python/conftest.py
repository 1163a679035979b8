"""What holds for every test: the plugin's fixtures are there, caches agree with themselves afterwards, time is real.

Thread rule: one thread.
Refuses to know: what a test is about.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator

import pytest

from stillwarm import _core
from stillwarm._cache import _caches

pytest_plugins = ["pytester", "postgres_here"]

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
