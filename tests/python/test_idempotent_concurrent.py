"""One key, many at once: threads, processes, a process that is killed in the middle; with and without transaction=.

Thread rule: racers start at a barrier; who is inside of the handler waits for the test.
Refuses to know: the rules for one request after the other (test_idempotent).
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import fastapi
import flask
import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

import stillwarm.fastapi
from fronts import ask_asgi
from stillwarm import ConfigError
from stillwarm._servers import PostgresServer
from tiers import PATIENCE, Ground, eventually
from writing import KEY, Writes, code, each_front, replayed
from writing_child import app_of, ask, start

THREADS = 64


@pytest.fixture
def ground(warm_postgres: PostgresServer) -> Iterator[Ground]:
    ground = Ground(warm_postgres.new_database())
    ground.sql("CREATE TABLE effects (what text)")
    yield ground
    for cache in ground.caches:
        cache.close()


def effects(ground: Ground) -> int:
    return int(ground.sql("SELECT count(*) FROM effects")[0][0])


def race(call: Callable[[], Any], threads: int = THREADS) -> list[Any]:
    barrier = threading.Barrier(threads)

    def run(_: int) -> Any:
        barrier.wait(PATIENCE)
        return call()

    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(run, range(threads)))


@each_front
@pytest.mark.parametrize("place", ["memory", "postgres"])
def test_idempotent_many_at_once_execute_once(front: str, place: str, ground: Ground) -> None:
    cache = ground.cache() if place == "postgres" else Ground(None).cache()
    writes = Writes(front, cache)
    answers = race(writes.ask)
    assert writes.executed == 1
    assert sum(answer.status == 201 and not replayed(answer) for answer in answers) == 1
    for answer in answers:
        if answer.status == 409:
            assert code(answer) == "running"
            assert int(answer["retry-after"]) >= 1
        else:
            assert (answer.status, answer.body) == (201, b"order 1")
    assert replayed(writes.ask())


def test_idempotent_control_many_at_once_execute_all(ground: Ground) -> None:
    writes = Writes("flask", ground.cache(), decorated=False)
    race(writes.ask)
    assert writes.executed > 1


@each_front
def test_idempotent_duplicate_is_answered_while_the_first_runs(front: str, ground: Ground) -> None:
    inside, go_on = threading.Event(), threading.Event()

    def held(n: int) -> Any:
        inside.set()
        assert go_on.wait(PATIENCE)
        return 201, [], b"done"

    writes, other = Writes(front, ground.cache(), held), Writes(front, ground.cache())
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(writes.ask)
        assert inside.wait(PATIENCE)
        try:
            answer = other.ask()
            assert (answer.status, code(answer), answer["retry-after"]) == (409, "running", "1")
            assert other.ask(body=b"[]").status == 422
        finally:
            go_on.set()
        assert first.result().status == 201
    assert other.ask().body == b"done"


# ------------------------------------------------------------------------------------------------------- transaction=


@pytest.mark.parametrize("transaction", [True, False])
def test_idempotent_many_at_once_have_one_effect(ground: Ground, transaction: bool) -> None:
    app = app_of(str(ground.url), ground.cache(), transaction)
    statuses = Counter(race(lambda: ask(app, KEY), 32))
    assert set(statuses) <= {201, 409}
    assert effects(ground) == 1
    assert ask(app, KEY) == 201
    assert effects(ground) == 1


@pytest.mark.parametrize("transaction", [True, False])
def test_idempotent_many_at_once_behind_a_pooler(pgbouncer: str, transaction: bool) -> None:
    ground = Ground(pgbouncer, pooler=True)
    ground.sql("CREATE TABLE effects (what text)")
    with ground.cache() as cache:
        app = app_of(pgbouncer, cache, transaction)
        assert set(race(lambda: ask(app, KEY), 16)) <= {201, 409}
        assert ask(app, KEY) == 201
    assert effects(ground) == 1


def test_idempotent_control_many_at_once_have_many_effects(ground: Ground) -> None:
    app = app_of(str(ground.url), ground.cache(), True, decorated=False)
    assert race(lambda: ask(app, KEY), 8) == [201] * 8
    assert effects(ground) == 8


@pytest.mark.parametrize("transaction", ["with", "without"])
def test_idempotent_two_processes_have_one_effect(ground: Ground, transaction: str) -> None:
    ground.cache().migrate()
    children = [start(str(ground.url), ground.namespace, transaction, KEY, "go") for _ in range(2)]
    try:
        for child in children:
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n"
        told = [child.communicate("\n", PATIENCE)[0].split() for child in children]
    finally:
        for child in children:
            child.kill()
    assert sum("inside" in lines for lines in told) == 1
    assert {lines[-1] for lines in told} <= {"201", "409"}
    assert effects(ground) == 1


@pytest.mark.parametrize("transaction", ["with", "without"])
def test_idempotent_owner_is_killed_in_the_middle(ground: Ground, transaction: str) -> None:
    ground.cache().migrate()
    app = app_of(str(ground.url), ground.cache(), transaction == "with")
    child = start(str(ground.url), ground.namespace, transaction, KEY, "hold")
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "inside\n"
        assert ask(app, KEY) == 409, "at once: it waits for no lock"
    finally:
        child.kill()
        child.communicate()
    if transaction == "with":
        eventually(lambda: ask(app, KEY) == 201, "the key is free as soon as the server sees the end of the connection")
        assert effects(ground) == 1
        assert ask(app, KEY) == 201
    else:
        assert ask(app, KEY) == 409
        ground.sql("UPDATE stillwarm.idempotency SET lease_until = clock_timestamp() - interval '1 s'")
        assert ask(app, KEY) == 409, "nobody knows what it did"
    assert effects(ground) == 1


CONNECTIONS: dict[str, Callable[[str], Any]] = {
    "psycopg": psycopg.connect,
    "session": lambda url: Session(_engine(url)),
    "connection": lambda url: _engine(url).connect(),
}


def _engine(url: str) -> sa.Engine:
    return sa.create_engine(url.replace("postgresql://", "postgresql+psycopg://"), poolclass=NullPool)


def run(connection: Any, text: str) -> None:
    connection.execute(text if isinstance(connection, psycopg.Connection) else sa.text(text))


@pytest.mark.parametrize("kind", CONNECTIONS)
def test_idempotent_transaction_commits_effect_and_answer_or_neither(ground: Ground, kind: str) -> None:
    connection = CONNECTIONS[kind](str(ground.url))
    outcomes: list[Any] = [ZeroDivisionError(), 503, 429, 404, 201]

    def handler(n: int) -> Any:
        run(connection, "INSERT INTO effects VALUES ('it')")
        outcome = outcomes[n - 1]
        if isinstance(outcome, Exception):
            raise outcome
        if outcome == 404:
            flask.abort(404)
        return outcome, [], b"done"

    writes = Writes("flask", ground.cache(), handler, transaction=lambda: connection)
    try:
        assert [writes.ask().status for _ in range(7)] == [500, 503, 429, 404, 201, 201, 201]
        assert (writes.executed, effects(ground)) == (5, 1)
        assert code(writes.ask(body=b"[]")) == "key-reused"
    finally:
        connection.close()


@pytest.mark.parametrize("ends", ["commit", "rollback"])
def test_idempotent_handler_that_ends_its_transaction_itself_is_recorded(ground: Ground, ends: str) -> None:
    with psycopg.connect(str(ground.url)) as connection:

        def handler(n: int) -> Any:
            run(connection, "INSERT INTO effects VALUES ('first')")
            getattr(connection, ends)()
            run(connection, "INSERT INTO effects VALUES ('second')")
            return 201, [], b"done"

        writes = Writes("flask", ground.cache(), handler, transaction=lambda: connection)
        assert [writes.ask().body for _ in range(3)] == [b"done"] * 3
    assert writes.executed == 1
    assert effects(ground) == (2 if ends == "commit" else 1)


@each_front
def test_idempotent_transaction_that_cannot_be_begun_executes_nothing(front: str, ground: Ground) -> None:
    def away(*_: Any) -> Any:
        raise psycopg.OperationalError("connection refused")

    writes = Writes(front, ground.cache(), transaction=away)
    answer = writes.ask()
    assert (answer.status, code(answer), answer["retry-after"]) == (503, "unavailable", "1")
    with psycopg.connect(str(ground.url)) as broken:
        broken.close()
        closed = Writes("flask", ground.cache(), transaction=lambda: broken)
        assert closed.ask().status == 503
    assert (writes.executed, closed.executed) == (0, 0)


def test_idempotent_autocommit_is_refused(ground: Ground) -> None:
    with psycopg.connect(str(ground.url), autocommit=True) as connection:
        writes = Writes("flask", ground.cache(), transaction=lambda: connection)
        writes.app.testing = True
        with pytest.raises(ConfigError, match="autocommit"):
            writes.ask()
        assert ground.sql("SELECT 1 FROM stillwarm.idempotency") == []
    assert writes.executed == 0


@pytest.mark.parametrize("by", ["argument", "callable"])
@pytest.mark.parametrize("kind", ["psycopg", "session", "sync session"])
def test_idempotent_transaction_of_fastapi(ground: Ground, kind: str, by: str) -> None:
    url = str(ground.url)
    text = "INSERT INTO effects VALUES ('it')"

    async def database(request: fastapi.Request) -> AsyncIterator[Any]:
        if kind == "psycopg":
            connection: Any = await psycopg.AsyncConnection.connect(url)
        elif kind == "session":
            engine = create_async_engine(url.replace("postgresql://", "postgresql+asyncpg://"), poolclass=NullPool)
            connection = AsyncSession(engine)
        else:
            connection = Session(_engine(url))
        request.state.database = connection
        yield connection
        if kind == "sync session":
            connection.close()
        else:
            await connection.close()

    app = fastapi.FastAPI()
    warm = stillwarm.fastapi.Stillwarm(ground.cache())
    executed: list[int] = []

    @app.post("/effects", status_code=201)
    @warm.idempotent(transaction="db" if by == "argument" else lambda request: request.state.database)
    async def effect(db: Any = fastapi.Depends(database)) -> dict[str, int]:  # noqa: B008
        executed.append(1)
        done = db.execute(text if kind == "psycopg" else sa.text(text))
        if kind != "sync session":
            await done
        if len(executed) == 1:
            raise fastapi.HTTPException(409)
        return {"n": len(executed)}

    async def all_of_them() -> list[Any]:
        request: Any = {"method": "POST", "path": "/effects", "headers": {"idempotency-key": KEY}}
        first = [await ask_asgi(app, **request)]
        return first + await asyncio.gather(*(ask_asgi(app, **request) for _ in range(8)), ask_asgi(app, **request))

    answers = asyncio.run(all_of_them())
    assert answers[0].status == 409
    assert {answer.status for answer in answers[1:]} <= {201, 409}
    assert any(answer.body == b'{"n":2}' for answer in answers)
    assert (len(executed), effects(ground)) == (2, 1)


def test_idempotent_cancelled_task_leaves_its_outcome_unknown(ground: Ground) -> None:
    app = fastapi.FastAPI()
    cache = Ground(None).cache()
    warm = stillwarm.fastapi.Stillwarm(cache)
    request: Any = {"method": "POST", "path": "/", "headers": {"idempotency-key": KEY}}

    async def cancelled() -> Any:
        inside = asyncio.Event()

        @app.post("/")
        @warm.idempotent()
        async def stays() -> None:
            inside.set()
            await asyncio.Event().wait()

        task = asyncio.ensure_future(ask_asgi(app, **request))
        await inside.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return await ask_asgi(app, **request)

    assert code(asyncio.run(cancelled())) == "outcome-unknown"
