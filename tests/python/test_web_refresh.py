"""A background refresh of a route is a new request through the whole app, not the first one's handler again.

Thread rule: refreshes run on the load pool (WSGI) or as tasks of the loop (ASGI); `Server.settle` waits for them.
Refuses to know: when an answer is stale (tests/cpp), and what a plain load's refresh does.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any

import fastapi
import flask
import pytest

import stillwarm.fastapi
import stillwarm.flask
from fronts import Reply, Seen, Serve, Server, ask_asgi, each_decorator, each_front, numbered, serving, until
from stillwarm import Cache
from stillwarm.web import serve as serve_module
from stillwarm.web._counts import counts

SWR = {"ttl": 10, "stale_while_revalidate": 60}
EARLY = {"ttl": 10, "early_refresh": 0.5}
context: contextvars.ContextVar[str | None] = contextvars.ContextVar("of_the_tests", default=None)


@pytest.fixture(name="serve")
def new_serve(warm_cache: Cache) -> Iterator[Serve]:
    with serving(warm_cache) as serve:
        yield serve


class Database:
    """A session that must not be used after its request."""

    def __init__(self) -> None:
        self.closed = False
        self.found: str | None = None  # of an earlier request

    def query(self) -> str:
        assert not self.closed, "the session of a request that is over"
        return "row"

    def close(self) -> None:
        self.closed = True


def flask_app(decorate: Any) -> tuple[flask.Flask, list[Any]]:
    app, seen = flask.Flask("app", static_folder=None), []

    @app.before_request
    def open_session() -> None:
        flask.g.found, flask.g.left = flask.g.get("left"), "by an earlier request"
        flask.g.database = Database()

    @app.teardown_request
    def close_session(_: object) -> None:
        flask.g.database.close()

    def view() -> str:
        seen.append((flask.g.found, flask.g.database))
        return f"{flask.g.database.query()} {len(seen)}"

    app.add_url_rule("/", "view", decorate(view))
    return app, seen


async def database() -> AsyncIterator[Database]:
    session = Database()
    session.found = context.get()
    context.set("by an earlier request")
    yield session
    session.close()


def fastapi_app(decorate: Any) -> tuple[fastapi.FastAPI, list[Any]]:
    app, seen = fastapi.FastAPI(), []

    async def route(session: Annotated[Database, fastapi.Depends(database)]) -> fastapi.Response:
        seen.append((session.found, session))
        return fastapi.Response(f"{session.query()} {len(seen)}")

    app.add_api_route("/", decorate(route), response_model=None)
    return app, seen


def build(front: str, cache: Cache, **options: Any) -> tuple[Any, list[Any]]:
    app: Any
    if front == "flask":
        return flask_app(stillwarm.flask.Stillwarm(cache).cache_response(**options))
    if front == "fastapi":
        return fastapi_app(stillwarm.fastapi.Stillwarm(cache).cache_response(**options))
    if front == "wsgi":
        app, seen = flask_app(lambda view: view)
        app.wsgi_app = stillwarm.flask.ResponseCache(app.wsgi_app, cache, **options)
    else:
        app, seen = fastapi_app(lambda route: route)
        app.add_middleware(stillwarm.fastapi.ResponseCache, cache=cache, **options)
    return app, seen


@each_front
@pytest.mark.parametrize(("options", "label"), [(SWR, "STALE"), (EARLY, "HIT")], ids=["stale", "early"])
def test_web_refresh_works_when_the_first_requests_session_is_closed(
    front: str, serve: Serve, warm_cache: Cache, warm_clock: Any, options: dict[str, Any], label: str
) -> None:
    app, seen = build(front, warm_cache, **options)
    server = serve(front, numbered(), app=app)
    assert server.ask().body == b"row 1"
    warm_clock.move(15 if label == "STALE" else 7)
    answer = server.ask()
    assert (answer.body, answer.cache) == (b"row 1", label)
    server.settle()
    answer = server.ask()
    assert (answer.body, answer.cache, answer["age"]) == (b"row 2", "HIT", "0")
    assert warm_cache.stats().load_errors == 0
    assert [left for left, _ in seen] == [None, None]  # nothing of another request's context
    assert len({id(session) for _, session in seen}) == 2
    assert all(session.closed for _, session in seen)


@each_front
def test_web_refresh_is_one_per_key(front: str, serve: Serve, warm_cache: Cache, warm_clock: Any) -> None:
    server = serve(front, numbered(), **SWR)
    server.ask()
    warm_clock.move(15)
    gate = hold(server)
    assert [server.ask().cache for _ in range(5)] == ["STALE"] * 5
    until_inside(server, 2)
    assert [server.ask().body for _ in range(5)] == [b"1"] * 5
    gate()
    server.settle()
    assert server.loads == 2
    assert server.ask().body == b"2"


@each_front
def test_web_refresh_is_at_most_eight_at_once(front: str, serve: Serve, warm_clock: Any) -> None:
    server = serve(front, numbered(), cache=Cache(jitter=0.0, load_threads=20), **SWR)
    paths = [f"/{n}" for n in range(12)]
    for path in paths:
        server.ask(path)
    warm_clock.move(15)
    gate = hold(server)
    assert {server.ask(path).cache for path in paths} == {"STALE"}
    until_inside(server, 12 + 8)
    assert server.cache.stats().skipped_refreshes == 4
    gate()
    server.settle()
    assert server.loads == 12 + 8
    assert not serve_module._refreshing
    for path in paths:  # those that were skipped are tried again
        server.ask(path)
    server.settle()
    assert {server.ask(path).cache for path in paths} == {"HIT"}
    server.cache.close()


@each_front
def test_web_refresh_sends_the_headers_and_not_the_conditions(front: str, serve: Serve, warm_clock: Any) -> None:
    server = serve(front, numbered(("Last-Modified", "Sun, 06 Nov 1994 08:49:37 GMT")), **SWR)
    server.ask("/a?b=1")
    warm_clock.move(15)
    conditions = {
        "x-team": "red",
        "range": "bytes=0-0",
        "if-range": '"x"',
        "if-none-match": '"nothing"',
        "if-modified-since": "Sun, 06 Nov 1990 08:49:37 GMT",
    }
    server.ask("/a?b=1", headers=conditions)
    server.settle()
    again = server.seen[1]
    assert (again.method, again.path, again.query, again.host) == ("GET", "/a", "b=1", "app.test")
    assert again.headers.get("x-team") == "red"
    assert not {"range", "if-range", "if-none-match", "content-length"} & set(again.headers)
    assert again.headers.get("if-modified-since") != conditions["if-modified-since"]
    assert server.ask("/a?b=1").body == b"2"


@each_front
def test_web_refresh_that_a_head_found_due_is_a_get(front: str, serve: Serve, warm_clock: Any) -> None:
    server = serve(front, numbered(), **SWR)
    server.ask()
    warm_clock.move(15)
    assert server.ask(method="HEAD").cache == "STALE"
    server.settle()
    assert [seen.method for seen in server.seen] == ["GET", "GET"]
    answer = server.ask()
    assert (answer.body, answer.cache) == (b"2", "HIT")


@each_front
@pytest.mark.parametrize("status", [401, 403, 404, 429, 500, 503])
def test_web_refresh_that_is_refused_leaves_the_old_answer_and_pauses(
    front: str, serve: Serve, warm_clock: Any, status: int
) -> None:
    server = serve(front, lambda seen: Reply(200 if seen.number == 1 else status, (), b"%d" % seen.number), **SWR)
    server.ask()
    warm_clock.move(15)
    for _ in range(5):
        answer = server.ask()
        server.settle()
        assert (answer.status, answer.body, answer.cache) == (200, b"1", "STALE")
    assert server.loads == 2  # and it was not tried again at once
    warm_clock.move(20)
    server.ask()
    server.settle()
    assert server.loads == 3


@each_front
def test_web_refresh_that_raises_leaves_the_old_answer_and_pauses(front: str, serve: Serve, warm_clock: Any) -> None:
    def broken(seen: Seen) -> Reply:
        if seen.number > 1:
            raise RuntimeError("broken")
        return Reply()

    server = serve(front, broken, **SWR)
    server.ask()
    warm_clock.move(15)
    for _ in range(5):
        answer = server.ask()
        server.settle()
        assert (answer.status, answer.cache) == (200, "STALE")
    assert server.loads == 2
    assert server.cache.stats().flights == 0


@each_front
def test_web_refresh_of_what_may_not_be_stored_any_more(front: str, serve: Serve, warm_clock: Any) -> None:
    def closed(seen: Seen) -> Reply:
        return Reply(200, [("Cache-Control", "no-store")] if seen.number > 1 else (), b"%d" % seen.number)

    server = serve(front, closed, **SWR)
    server.ask()
    warm_clock.move(15)
    server.ask()
    server.settle()
    warm_clock.move(60)
    assert server.ask().body != b"1"
    assert server.cache.stats().flights == 0


@each_decorator
def test_web_refresh_is_for_the_user_who_found_it_stale(front: str, serve: Serve, warm_clock: Any) -> None:
    per_user = (
        (lambda: flask.request.headers["x-user"]) if front == "flask" else (lambda request: request.headers["x-user"])
    )
    server = serve(
        front, lambda seen: Reply(200, (), f"{seen.headers['x-user']} {seen.number}".encode()), per_user=per_user, **SWR
    )
    alice, bob = {"x-user": "alice"}, {"x-user": "bob"}
    server.ask(headers=alice), server.ask(headers=bob)
    warm_clock.move(15)
    assert server.ask(headers=alice).body == b"alice 1"
    server.settle()
    assert [server.ask(headers=h).body for h in (alice, bob)] == [b"alice 3", b"bob 2"]


@each_front
def test_web_refresh_of_a_variant_is_for_that_variant(front: str, serve: Serve, warm_clock: Any) -> None:
    server = serve(
        front,
        lambda seen: Reply(200, [("Vary", "X-Team")], f"{seen.headers['x-team']} {seen.number}".encode()),
        **SWR,
    )
    red, blue = {"x-team": "red"}, {"x-team": "blue"}
    server.ask(headers=red), server.ask(headers=blue)
    warm_clock.move(15)
    assert [server.ask(headers=h).body for h in (blue, red)] == [b"blue 2", b"red 1"]
    server.settle()
    fresh = [server.ask(headers=h) for h in (red, blue)]
    assert [answer.cache for answer in fresh] == ["HIT", "HIT"]
    assert sorted(seen.headers["x-team"] for seen in server.seen) == ["blue", "blue", "red", "red"]
    assert [answer.body.split()[0] for answer in fresh] == [b"red", b"blue"]


@each_front
def test_web_refresh_does_not_store_what_an_invalidation_overtook(
    front: str, serve: Serve, warm_cache: Cache, warm_clock: Any
) -> None:
    server = serve(front, numbered(), **SWR)
    server.ask()
    warm_clock.move(15)
    gate = hold(server)
    server.ask()
    until_inside(server, 2)
    warm_cache.invalidate(type="http")
    gate()
    server.settle()
    assert server.ask().body == b"3"


def test_web_refresh_ends_with_its_loop(warm_cache: Cache, warm_clock: Any) -> None:
    started = asyncio.Event()
    calls: list[int] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        calls.append(1)
        if len(calls) == 2:
            started.set()
            await asyncio.Event().wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"%d" % len(calls)})

    wrapped = stillwarm.fastapi.ResponseCache(app, warm_cache, **SWR)

    async def first() -> None:
        await ask_asgi(wrapped)
        warm_clock.move(15)
        assert (await ask_asgi(wrapped)).cache == "STALE"
        await started.wait()

    asyncio.run(first())  # cancels the refresh
    assert warm_cache.stats().flights == 0
    assert not serve_module._refreshing
    warm_clock.move(60)
    assert asyncio.run(ask_asgi(wrapped)).body == b"3"


@each_front
def test_web_refresh_is_counted_and_warns_of_nothing(
    front: str, serve: Serve, warm_cache: Cache, warm_clock: Any
) -> None:
    server = serve(front, numbered(), **SWR)
    server.ask()
    warm_clock.move(15)
    server.ask()
    server.settle()
    server.ask()
    seen = {kind: n for (kind, _), n in counts(warm_cache).items()}
    assert seen == {"miss": 1, "stale": 1, "hit": 1}
    assert warm_cache.stats().loads == 2


# ------------------------------------------------------------------------------------------------------------ helpers


def hold(server: Server) -> Any:
    """Keeps requests inside of the app until what this returns is called."""
    if server._loop is None:
        server._gate.clear()
        return server._gate.set
    server._held = asyncio.Event()
    return server._held.set


def until_inside(server: Server, n: int) -> None:
    if server._loop is not None:

        async def there() -> None:
            while server.inside < n:
                await asyncio.sleep(0)

        server._loop.run_until_complete(asyncio.wait_for(there(), 20))
    until(lambda: server.inside >= n, f"{n} requests inside of the app")
