"""The connection of a handler ends in the middle of what commits its effect and the answer, at each byte of it.

A proxy stands between the handler's connection and the server; the cache has another way. Once the handler has written
its effect, the proxy is told where to cut: before a request arrives, in the middle of COMMIT, or after so many bytes of
the replies to what records the answer and to COMMIT. A client repeats its request, with the same key, until the answer
is final.

    decorated     transaction=: one effect, and the answer that is stored
    naive         the handler commits, and the client repeats: the control

Thread rule: one thread; the proxy has its own, and FastAPI a loop for each request.
Refuses to know: limits (trust.py), pytest.
"""

from __future__ import annotations

import asyncio
import inspect
import itertools
import logging
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import fastapi
import flask
import psycopg
import psycopg2
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

import stillwarm.fastapi
import stillwarm.flask
from chaos import COMMITTED, ChaosProxy
from fronts import Answer, ask_asgi, ask_wsgi
from outages import eventually
from stillwarm import Cache
from stillwarm._servers import PostgresServer

Cut = dict[str, Any]
REPLY = 18  # bytes of the reply to COMMIT: CommandComplete and ReadyForQuery
_MOST = 200  # requests until an answer is final


def _engine(url: str) -> sa.Engine:
    return sa.create_engine(url.replace("postgresql://", "postgresql+psycopg://"), poolclass=NullPool)


def _asession(url: str) -> AsyncSession:
    return AsyncSession(create_async_engine(url.replace("postgresql://", "postgresql+asyncpg://"), poolclass=NullPool))


# Those of coroutines are behind FastAPI, the others behind Flask.
ADAPTERS: dict[str, Callable[[str], Any]] = {
    "psycopg": psycopg.connect,
    "psycopg2": psycopg2.connect,
    "Session": lambda url: Session(_engine(url)),
    "Connection": lambda url: _engine(url).connect(),
    "psycopg async": psycopg.AsyncConnection.connect,
    "AsyncSession": _asession,
}


class Case(NamedTuple):
    """What a cut led to."""

    cut: Cut
    statuses: list[str]  # of all answers, the last one final
    executed: int  # times
    effects: int  # rows
    own: bool  # the final answer is that of the effect
    cuts: int  # how often the proxy did it

    @property
    def ok(self) -> bool:
        return self.effects == 1 and self.own and self.executed <= 2 and self.cuts == 1


class Outcome:
    """All cuts of one adapter."""

    def __init__(self, adapter: str, cases: list[Case]) -> None:
        self.adapter, self.cases = adapter, cases

    @property
    def wrong(self) -> list[Case]:
        return [case for case in self.cases if not case.ok]

    def __str__(self) -> str:
        first = Counter(case.statuses[0] for case in self.cases)
        told = ", ".join(f"{count} times {status}" for status, count in sorted(first.items()))
        kept, most = sum(case.executed == 1 for case in self.cases), max(case.effects for case in self.cases)
        return (
            f"{len(self.cases)} cuts, first answered {told}; committed all the same {kept}, executed again "
            f"{len(self.cases) - kept}; most effects of a key: {most}, {len(self.wrong)} wrong"
        )


class Ground:
    """An app whose handler's connections go through a proxy; `cut` is for the next one that has written its effect."""

    def __init__(self, server: PostgresServer, cache: Cache, adapter: str, decorated: bool = True) -> None:
        self.proxy = ChaosProxy(server.port)
        assert cache._tier is not None
        self.direct = cache._tier.url
        self.url = self.proxy.url(self.direct.rpartition("/")[2])
        self.connect, self.decorated = ADAPTERS[adapter], decorated
        self.cut: Cut | None = None
        self.executed = self.size = 0
        self.is_async = "sync" in adapter.lower()
        self._app: Any = self._fastapi(cache) if self.is_async else self._flask(cache)

    def ask(self, key: str) -> Answer:
        request: Any = {"method": "POST", "headers": {"idempotency-key": key}}
        if self.is_async:
            return asyncio.run(ask_asgi(self._app, "/", **request))
        return ask_wsgi(self._app, "/", **request)

    def sizes(self) -> int:
        """Bytes of the replies after the effect, up to that to COMMIT, where nothing is cut."""
        assert self.ask(str(uuid.uuid4())).status == 201
        return int(self.proxy.connections[-1].bytes_from_server - self.size)

    def effect(self, connection: Any, key: str) -> tuple[str, Any]:
        self.executed += 1
        body, text = f"effect {uuid.uuid4()}", "INSERT INTO effects VALUES ('{}', '{}')"
        statement: Any = text.format(key, body)
        if hasattr(connection, "cursor") and not hasattr(connection, "scalar"):
            return body, connection.cursor().execute(statement)
        return body, connection.execute(sa.text(statement))

    def written(self) -> None:
        """The effect is there: what comes now is cut."""
        here = self.proxy.connections[-1]
        self.size = here.bytes_from_server
        if self.cut is not None:
            here.behave(**self.cut)
            self.cut = None

    def _flask(self, cache: Cache) -> Any:
        app = flask.Flask("cuts")
        app.logger.disabled = True

        def connection() -> Any:
            if "connection" not in flask.g:
                flask.g.connection = self.connect(self.url)
            return flask.g.connection

        @app.teardown_appcontext
        def close(_: Any) -> None:
            if "connection" in flask.g:
                flask.g.connection.close()

        def handler() -> tuple[str, int]:
            body, _ = self.effect(connection(), flask.request.headers["Idempotency-Key"])
            self.written()
            if not self.decorated:
                connection().commit()
            return body, 201

        if self.decorated:
            handler = stillwarm.flask.Stillwarm(cache).idempotent(transaction=connection)(handler)
        app.post("/")(handler)
        return app

    def _fastapi(self, cache: Cache) -> Any:
        app = fastapi.FastAPI()

        async def database() -> Any:
            connection = self.connect(self.url)
            connection = await connection if inspect.isawaitable(connection) else connection
            try:
                yield connection
            finally:
                await connection.close()

        async def handler(request: fastapi.Request, db: Any = fastapi.Depends(database)) -> Any:  # noqa: B008
            body, done = self.effect(db, request.headers["Idempotency-Key"])
            await done
            self.written()
            if not self.decorated:
                await db.commit()
            return fastapi.Response(body, 201)

        if self.decorated:
            handler = stillwarm.fastapi.Stillwarm(cache).idempotent(transaction="db")(handler)
        app.post("/")(handler)
        return app

    def case(self, cut: Cut) -> Case:
        """One key, its first request cut, repeated until the answer is final."""
        key, faults = str(uuid.uuid4()), self.proxy.faults
        self.cut, self.executed = cut, 0
        statuses: list[str] = []
        last: list[Answer] = []

        def final() -> bool:
            answer = self.ask(key)
            what = "replayed" if answer["idempotency-replayed"] else ""
            if answer["content-type"] == "application/problem+json":
                what = answer.body.decode().partition("idempotency-")[2].partition('"')[0]
            statuses.append(f"{answer.status} {what}".strip())
            last[:] = [answer]
            return answer.status == 201 or len(statuses) >= _MOST

        eventually(final)
        with psycopg.connect(self.direct) as connection:
            rows = connection.execute("SELECT body FROM effects WHERE key = %s", [key]).fetchall()
        own = [row[0].encode() for row in rows] == [last[0].body]
        return Case(cut, statuses, self.executed, len(rows), own, self.proxy.faults - faults)


def cuts(size: int, every: int = 1) -> Iterator[Cut]:
    """In the requests, and everywhere in the replies to what records the answer and to COMMIT; `every` thins out."""
    for end in ("fin", "reset"):
        for text in (b"UPDATE", b"COMMIT"):
            yield {"cut_request": text, "end": end}
        yield {"cut_before": COMMITTED, "end": end}
    for kept in range(0, 9, 1 if every == 1 else 4):  # with 8 it is whole, whichever way the driver writes it
        yield {"cut_request": b"COMMIT", "request_kept": kept}
    ends = itertools.cycle(("fin", "reset"))
    for after in range(size + 1):
        left = size - after
        if every == 1:
            yield from ({"cut_after": after, "end": end} for end in ("fin", "reset"))
        elif (left % 5 == 0) if left <= REPLY else (after % every == 0):
            yield {"cut_after": after, "end": next(ends)}


def run(server: PostgresServer, adapter: str, decorated: bool = True, every: int = 1) -> Outcome:
    """All cuts, or fewer where `every` thins them out; the control has the one that loses the reply to COMMIT."""
    logging.getLogger("stillwarm").addHandler(logging.NullHandler())
    url = server.new_database()
    with Cache(url, timeout="20s", connect_timeout="20s", purge_every=None) as cache:
        cache.migrate()
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("CREATE TABLE effects (key text, body text)")
        ground = Ground(server, cache, adapter, decorated)
        try:
            size = ground.sizes()
            plan = cuts(size, every) if decorated else [{"cut_before": COMMITTED}]
            return Outcome(adapter, [ground.case(cut) for cut in plan])
        finally:
            ground.proxy.close()


__all__ = ["ADAPTERS", "Outcome", "run"]
