"""`invalidate(connection=)`: an invalidation that happens if, and only if, the app's own transaction commits.

Thread rule: transactions are ended by the test, when it has seen what it wants to.
Refuses to know: other invalidation (test_tier_invalidation.py).
"""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import asyncpg
import psycopg
import psycopg2
import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

from stillwarm import ConfigError
from stillwarm._servers import PostgresServer
from tiers import PATIENCE, Counted, Ground, eventually, function


@contextmanager
def closing(connection: Any) -> Iterator[Any]:
    try:
        yield connection
    finally:
        connection.close()


@contextmanager
def engine(url: str, kind: Callable[[sa.Engine], Any]) -> Iterator[Any]:
    made = sa.create_engine(url.replace("postgresql://", "postgresql+psycopg://"), poolclass=NullPool)
    with closing(kind(made)) as connection:
        yield connection
    made.dispose()


PLAIN: dict[str, Callable[[str], Any]] = {
    "psycopg": lambda url: closing(psycopg.connect(url)),
    "psycopg2": lambda url: closing(psycopg2.connect(url)),
    "session": lambda url: engine(url, Session),
    "connection": lambda url: engine(url, lambda e: e.connect()),
}


@pytest.fixture(params=PLAIN)
def connection(request: pytest.FixtureRequest, ground: Ground) -> Iterator[Any]:
    with PLAIN[request.param](str(ground.url)) as connection:
        yield connection


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(20) as pool:
        yield pool


def heard(*caches: Any) -> None:
    for cache in caches:
        assert cache.confirm()


@pytest.mark.parametrize("intent", [{"key": "f:'k'"}, {"tag": "t"}, {"type": "default"}, {"all": True}], ids=str)
def test_transactions_that_commit_invalidate(ground: Ground, connection: Any, intent: dict[str, Any]) -> None:
    a, b = ground.cache(), ground.cache()
    source = Counted()
    f, g = (function(cache, source, tags=["t"]) for cache in (a, b))
    assert f("k") == "k#1"
    ground.written()
    assert g("k") == "k#1"
    assert a.invalidate(connection=connection, **intent) is None
    heard(b)
    assert (f("k"), g("k")) == ("k#1", "k#1"), "until the commit the tier has what is committed"
    connection.commit()
    assert f("k") == "k#2", "the process of the transaction sees its commit at once"
    ground.written()
    heard(b)
    assert g("k") == "k#2"
    heard(a)
    assert f("k") == "k#2"


@pytest.mark.parametrize("scope", ["process", "fleet"])
def test_transactions_that_roll_back_leave_nothing(ground: Ground, connection: Any, scope: str) -> None:
    a, b = ground.cache(), ground.cache()
    source = Counted()
    f, g = (function(cache, source, tags=["t"], scope=scope) for cache in (a, b))
    assert f("k") == "k#1"
    ground.written()
    assert g("k") == "k#1"
    a.invalidate(tag="t", connection=connection)
    connection.rollback()
    heard(a, b)
    assert (f("k"), g("k")) == ("k#1", "k#1")
    assert ground.sql("SELECT name FROM stillwarm.invalidations WHERE namespace = %s", ground.namespace) == []
    heard(a)
    assert f("k") == "k#1"
    assert f.cache_contains("k"), "memory keeps it again"


@pytest.mark.parametrize("scope", ["process", "fleet"])
@pytest.mark.parametrize("loader", ["here", "elsewhere"])
def test_transactions_that_commit_late_overtake_loads(
    ground: Ground, connection: Any, pool: ThreadPoolExecutor, scope: str, loader: str
) -> None:
    """The load begins and ends while the transaction is open: it saw the old rows of the app's tables."""
    a, b = ground.cache(), ground.cache()
    loading, invalidating = (a, a) if loader == "here" else (a, b)
    source = Counted()
    f = function(loading, source, tags=["t"], scope=scope)
    invalidating.invalidate(tag="t", connection=connection)
    assert f("k") == "k#1"
    ground.written()
    connection.commit()
    if loading is not invalidating:
        heard(loading)
    assert f("k") == "k#2"
    ground.written()
    third = function(ground.cache(), source, tags=["t"], scope=scope)
    assert third("k") == "k#2"


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_transactions_that_end_while_a_load_runs(
    ground: Ground, connection: Any, pool: ThreadPoolExecutor, end: str
) -> None:
    a, b = ground.cache(), ground.cache()
    source = Counted()
    f, g = (function(cache, source, tags=["t"]) for cache in (a, b))
    f("warm")
    assert source.begun.acquire(timeout=PATIENCE)
    source.gate.clear()
    running = pool.submit(f, "k")
    assert source.begun.acquire(timeout=PATIENCE)
    b.invalidate(tag="t", connection=connection)
    getattr(connection, end)()
    source.gate.set()
    assert running.result(PATIENCE) == "k#1"
    ground.written()
    heard(a, b)
    expected = "k#2" if end == "commit" else "k#1"
    assert g("k") == expected
    ground.written()
    assert f("k") == expected


def test_transactions_of_two_connections_on_one_name(ground: Ground) -> None:
    """One rolls back while the other is open: this process still keeps nothing of what is named."""
    a = ground.cache()
    source = Counted()
    f = function(a, source, tags=["t"])
    with psycopg.connect(str(ground.url)) as one, psycopg.connect(str(ground.url)) as two:
        a.invalidate(tag="t", connection=one)
        a.invalidate(tag="t", connection=two)
        two.rollback()
        heard(a)
        assert f("k") == "k#1"
        ground.written()
        assert f("k") == "k#1"
        one.commit()
        assert f("k") == "k#2"


def test_transactions_a_failed_statement_frees_the_name(ground: Ground) -> None:
    a = ground.cache()
    source = Counted()
    f = function(a, source, tags=["t"])
    with psycopg.connect(str(ground.url)) as one:
        with pytest.raises(psycopg.errors.SyntaxError):
            one.execute("nonsense")
        with pytest.raises(psycopg.Error):
            a.invalidate(tag="t", connection=one)
    f("k")
    assert f.cache_contains("k")
    assert not a._tier.pending  # type: ignore[union-attr]


def test_transactions_with_a_savepoint(ground: Ground) -> None:
    a, b = ground.cache(), ground.cache()
    source = Counted()
    f = function(b, source)
    assert f("k") == "k#1"
    ground.written()
    with psycopg.connect(str(ground.url)) as one:
        with one.transaction(force_rollback=True):
            a.invalidate(key="f:'k'", connection=one)
        one.commit()
        heard(a, b)
        assert f("k") == "k#1"
        with one.transaction():
            a.invalidate(key="f:'k'", connection=one)
        one.commit()
    heard(a, b)
    assert f("k") == "k#2"


def test_transactions_do_not_let_sets_into_memory(ground: Ground) -> None:
    a = ground.cache()
    with psycopg.connect(str(ground.url)) as one:
        a.invalidate(key="k", connection=one)
        a.set("k", "before the commit", ttl=100)
        assert a.get("k") == "before the commit"
        one.commit()
        assert a.get("k") is None


def test_transactions_of_another_database_are_refused(
    ground: Ground, warm_postgres: PostgresServer, connection: Any
) -> None:
    elsewhere = Ground(warm_postgres.new_database())
    try:
        cache = elsewhere.cache()
        cache.migrate()
        with pytest.raises(ConfigError, match="not in the database of the tier"):
            cache.invalidate(all=True, connection=connection)
        connection.rollback()
        with pytest.raises(ConfigError, match=r"pattern= with connection="):
            ground.cache().invalidate(pattern="*", connection=connection)
        with pytest.raises(ConfigError, match="accepted"):
            ground.cache().invalidate(all=True, connection=object())
    finally:
        elsewhere.close()


# --------------------------------------------------------------------------------------------------------------- async


@asynccontextmanager
async def of_sqlalchemy(url: str, kind: str) -> AsyncIterator[Any]:
    made = create_async_engine(url.replace("postgresql://", "postgresql+asyncpg://"), poolclass=NullPool)
    connection = AsyncSession(made) if kind == "session" else await made.connect()
    try:
        yield connection
    finally:
        await connection.close()
        await made.dispose()


class Transaction:
    """asyncpg's connection with the names of the others."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self.transaction = connection.transaction()

    async def commit(self) -> None:
        await self.transaction.commit()

    async def rollback(self) -> None:
        await self.transaction.rollback()


@asynccontextmanager
async def opened(url: str, kind: str) -> AsyncIterator[tuple[Any, Any]]:
    """The connection, and who ends its transaction."""
    if kind in ("session", "connection"):
        async with of_sqlalchemy(url, kind) as connection:
            yield connection, connection
    elif kind == "psycopg":
        async with await psycopg.AsyncConnection.connect(url) as connection:
            yield connection, connection
    else:
        connection = await asyncpg.connect(url)
        try:
            transaction = Transaction(connection)
            await transaction.transaction.start()
            yield connection, transaction
        finally:
            await connection.close()


@pytest.mark.parametrize("end", ["commit", "rollback"])
@pytest.mark.parametrize("kind", ["asyncpg", "psycopg", "session", "connection"])
async def test_transactions_async(ground: Ground, kind: str, end: str) -> None:
    a, b = ground.cache(), ground.cache()
    calls: list[str] = []

    def made(cache: Any) -> Any:
        @cache.cached(ttl=100, name="f", tags=["t"])
        async def f(key: str) -> int:
            calls.append(key)
            return len(calls)

        return f

    f, g = made(a), made(b)
    assert await f("k") == 1
    ground.written()
    assert await g("k") == 1
    async with opened(str(ground.url), kind) as (connection, transaction):
        assert await a.ainvalidate(tag="t", connection=connection) is None
        assert await f("k") == 1
        assert await g("l") == 2  # loaded beside it
        ground.written()
        with pytest.raises(ConfigError, match="ainvalidate"):
            a.invalidate(tag="t", connection=connection)
        await getattr(transaction, end)()
        changed = end == "commit"
        assert await f("k") == (3 if changed else 1)
        ground.written()
        assert await b.aconfirm()
        assert await g("k") == (3 if changed else 1)
        assert await g("l") == (4 if changed else 2)


def test_transactions_under_fire(ground: Ground) -> None:
    """A table of the app, changed in transactions of which half are rolled back, read through two caches."""
    with psycopg.connect(str(ground.url), autocommit=True) as setup:
        table = f"app_{ground.namespace}"
        setup.execute(f"CREATE TABLE {table} (n int)")  # type: ignore[call-overload]
        setup.execute(f"INSERT INTO {table} VALUES (0)")  # type: ignore[call-overload]
    local = threading.local()

    def load(key: Any) -> int:
        if not hasattr(local, "connection"):
            local.connection = psycopg.connect(str(ground.url), autocommit=True)
            opened_here.append(local.connection)
        return local.connection.execute(f"SELECT n FROM {table}").fetchone()[0]  # type: ignore[no-any-return]

    opened_here: list[Any] = []
    functions = [function(ground.cache(), load, tags=["t"]) for _ in range(2)]
    over = threading.Event()

    def read(f: Any) -> None:
        while not over.is_set():
            f("k")

    with ThreadPoolExecutor(4) as pool, psycopg.connect(str(ground.url)) as writer:
        reads = [pool.submit(read, f) for f in functions for _ in range(2)]
        committed = 0
        try:
            for n in range(1, 40):
                cache, f = ground.caches[n % 2], functions[n % 2]
                writer.execute(f"UPDATE {table} SET n = {n}")  # type: ignore[call-overload]
                cache.invalidate(tag="t", connection=writer)
                if n % 3 == 0:
                    writer.rollback()
                else:
                    writer.commit()
                    committed = n
                assert f("k") == committed
                other = ground.caches[(n + 1) % 2]
                assert other.confirm()
                assert functions[(n + 1) % 2]("k") == committed
        finally:
            over.set()
        for future in reads:
            future.result(PATIENCE)
    for connection in opened_here:
        connection.close()
    eventually(lambda: not any(cache.stats().flights for cache in ground.caches))
