"""The pytest plugin: fixtures `warm_cache`, `warm_clock`, `warm_postgres`, `warm_redis`, `assert_loads`, and the option
`--stillwarm-off`.

Before each test every cache of the process is emptied and its counts are zero, so that no test sees another's values.

Thread rule: as pytest, one thread. The clock and the caches that it resets are the whole process's.
Refuses to know: how caches work. It is loaded in every suite of the environment, so it makes and starts nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, Protocol

import pytest

from stillwarm import _core
from stillwarm._breakers import reset_all as close_circuits
from stillwarm._cache import Cache, _caches
from stillwarm._durations import duration
from stillwarm._waiting import without_waiting
from stillwarm.errors import ConfigError

if TYPE_CHECKING:
    from stillwarm._redis_server import RedisServer
    from stillwarm._servers import PostgresServer

__all__ = ["AssertLoads", "Clock", "PostgresServer", "RedisServer", "assert_loads", "reset", "without_waiting"]

_OFF: Final = "STILLWARM_DISABLED"

# ------------------------------------------------------------------------------------------------------- every cache


def reset() -> None:
    """Empties every cache of this process and zeroes counts, those of retries too; budgets are full, circuits closed.

    What is being loaded goes on and is not stored. Functions, types and hooks stay. The plugin calls it before each
    test.
    """
    _core.refill_budgets()
    _core.reset_retry_figures()
    close_circuits()
    for cache in list(_caches):
        _core.clear(cache, -1)
        _core.settle(cache)  # an empty cache takes over the time, also where `warm_clock` was ahead of it
        cache._last_errors.clear()
        for scope in list(cache._scopes):
            _core.reset_stats(cache, scope)


def _switch_off(config: pytest.Config) -> None:
    """Caches made from now on see the variable, in child processes too; those that are there already are told."""
    before = os.environ.get(_OFF)
    os.environ[_OFF] = "1"

    def restore() -> None:
        os.environ.pop(_OFF, None)
        if before is not None:
            os.environ[_OFF] = before

    config.add_cleanup(restore)
    for cache in list(_caches):
        cache._switch_off()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("stillwarm").addoption(
        "--stillwarm-off",
        action="store_true",
        default=False,
        help="run with every stillwarm cache switched off: functions are called straight through",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    # Before any conftest.py is imported, and with it the app. Workers of pytest-xdist come here too, with the option.
    if getattr(early_config.known_args_namespace, "stillwarm_off", False):
        _switch_off(early_config)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    reset()


def pytest_report_header(config: pytest.Config) -> str | None:
    return "stillwarm: off" if config.getoption("stillwarm_off", False) else None


# ---------------------------------------------------------------------------------------------------------- the cache


@pytest.fixture
def warm_cache() -> Iterator[Cache]:
    """A cache of this test alone, without jitter, so that a moved clock meets deadlines exactly."""
    with Cache(namespace="test", jitter=0.0) as cache:
        yield cache


# ---------------------------------------------------------------------------------------------------------- the clock


class Clock:
    """The time of all caches, which stands still until it is moved: `warm_clock.move("5m")`."""

    def __init__(self) -> None:
        self._now = self._start = _core.clock_now()
        _core.clock_set(self._now)

    @property
    def now(self) -> float:
        """Seconds that the clock was moved by since the test began."""
        return (self._now - self._start) / 1e9

    def move(self, by: float | timedelta | str) -> float:
        """Moves the time forward by seconds, a `timedelta` or text such as "5m"; returns `now`.

        Raises:
            ConfigError: not a duration, or a negative one.
        """
        ns = duration(by, "by", allow_zero=True, minimum_ms=0)
        self._now += ns
        _core.clock_set(self._now)
        return self.now

    def __repr__(self) -> str:
        return f"<Clock moved by {self.now:g} s>"


@pytest.fixture
def warm_clock() -> Iterator[Clock]:
    """The time of all caches, moved by hand: `warm_clock.move("5m")`. It stands still from the start of the test."""
    clock = Clock()
    try:
        yield clock
    finally:
        _core.clock_set(0)
        reset()  # entries of a time to come would outlive the test


# -------------------------------------------------------------------------------------------------------- the servers


def __getattr__(name: str) -> Any:
    if name == "PostgresServer":  # for annotations and programs; who uses no server does not load it
        from stillwarm._servers import PostgresServer

        return PostgresServer
    if name == "RedisServer":
        from stillwarm._redis_server import RedisServer

        return RedisServer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@pytest.fixture(scope="session")
def warm_postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server of this run (of this worker, with pytest-xdist): `warm_postgres.new_database()` is a URL.

    It starts with the first test that asks, on a free loopback port, and leaves nothing behind. It needs the Debian
    package postgresql or another installation in PATH or PG_BIN.
    """
    from stillwarm._servers import PostgresServer, ServerMissing

    try:
        server = PostgresServer()
    except ServerMissing as error:
        pytest.fail(f"warm_postgres: {error}", pytrace=False)
    with server:
        yield server


@pytest.fixture(scope="session")
def warm_redis() -> Iterator[RedisServer]:
    """A Redis server of this run (of this worker, with pytest-xdist): `warm_redis.new_database()` is a URL.

    It starts with the first test that asks, on a free loopback port, and leaves nothing behind. It needs the Debian
    package redis-server, or another redis-server or valkey-server in PATH or REDIS_SERVER.
    """
    from stillwarm._redis_server import RedisServer
    from stillwarm._servers import ServerMissing

    try:
        server = RedisServer()
    except ServerMissing as error:
        pytest.fail(f"warm_redis: {error}", pytrace=False)
    with server:
        yield server


# -------------------------------------------------------------------------------------------------------- the counting


class AssertLoads(Protocol):
    """What the fixture `assert_loads` gives: the function of that name."""

    def __call__(self, n: int, /, *, of: Any = None) -> AbstractContextManager[None]: ...


@contextmanager
def assert_loads(n: int, /, *, of: Any = None) -> Iterator[None]:
    """Fails unless exactly `n` loader runs ended inside: `with assert_loads(1): page()`.

    Retries count each; a refresh in the background counts once it has ended. Where the cache is switched off nothing is
    counted, so that a suite passes with and without.

    Args:
        n: how many, 0 or more.
        of: a cached function or a Cache; None: every cache of the process.

    Raises:
        ConfigError: `of` is neither, or n is no count.
        AssertionError: says which functions were loaded how often.
    """
    __tracebackhide__ = True
    if not isinstance(n, int) or isinstance(n, bool) or n < 0:
        raise ConfigError(f"n={n!r}: accepted: a count of loads, 0 or more")
    count = _counter(of)
    before = count()
    yield
    after = count()
    if after is None or before is None:
        return
    loads = {name: number - before.get(name, 0) for name, number in after.items()}
    total = sum(loads.values())
    if total != n:
        pytest.fail(_failure(n, total, {name: number for name, number in loads.items() if number}), pytrace=True)


def _counter(of: Any) -> Callable[[], dict[tuple[int, int, str], int] | None]:
    """A function that tells the loads so far, by cache, scope and name; None where caches are off."""
    if of is not None and not isinstance(of, (Cache, _core.CachedCall)):
        of = getattr(of, "__func__", of)  # a method of an instance
        if not isinstance(of, _core.CachedCall):
            raise ConfigError(f"of={of!r}: accepted: a cached function, a Cache, or None for every cache")
    kept: set[Cache] = set()  # a cache that is collected meanwhile would take its counts with it

    def count() -> dict[tuple[int, int, str], int] | None:
        if isinstance(of, _core.CachedCall):
            caches, only = [of._cache], of._scope
        else:
            kept.update(_caches if of is None else (of,))
            caches, only = list(kept), None
        if caches and not any(cache._enabled for cache in caches):
            return None
        return {
            (id(cache), number, _name(scope)): _core.stats(cache, number)["loads"]
            for cache in caches
            for number, scope in list(cache._scopes.items())
            if only is None or number == only
        }

    return count


def _name(scope: Any) -> str:
    return scope.name or ("get_or_set" if scope.type == "default" else f"type {scope.type!r}")


def _failure(n: int, total: int, loads: dict[tuple[int, int, str], int]) -> str:
    each = sorted(((number, name) for (_, _, name), number in loads.items()), reverse=True)
    what = "".join(f"\n  {number} x {name}" for number, name in each)
    return f"expected {n} load{'' if n == 1 else 's'}, saw {total}{':' if what else ''}{what}"


@pytest.fixture(name="assert_loads")
def _assert_loads() -> AssertLoads:
    """`with assert_loads(1, of=score): ...` fails unless exactly one loader run happened inside."""
    return assert_loads
