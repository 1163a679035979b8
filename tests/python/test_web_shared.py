"""What a crowd may share of one load, and what stays with the request that led: cookies, hooks, errors.

Thread rule: requests in flight at once are held by `Server.race`.
Refuses to know: who is who (test_web_users).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import fastapi
import flask
import pytest

import stillwarm.fastapi
import stillwarm.flask
from fronts import Serve, each_decorator, numbered, serving
from stillwarm import Cache


@pytest.fixture(name="serve")
def new_serve(warm_cache: Cache) -> Iterator[Serve]:
    with serving(warm_cache) as serve:
        yield serve


def add_cookie(request: fastapi.Request, response: fastapi.Response) -> None:
    response.headers.append("Set-Cookie", f"id={request.headers['x-id']}")


def crowd_app(front: str, cache: Cache, server: list[Any], error: Any) -> Any:
    """Each answer gets a cookie of its request, by a hook or a dependency; `error` makes what is answered."""
    if front == "flask":
        app = flask.Flask("app", static_folder=None)

        @app.after_request
        def number(response: flask.Response) -> flask.Response:
            response.headers.add("Set-Cookie", f"id={flask.request.headers['x-id']}")
            return response

        @app.get("/")
        @stillwarm.flask.Stillwarm(cache).cache_response(ttl=60)
        def view() -> Any:
            mine = flask.request.headers["x-id"]
            server[0].enter()
            return error("flask", mine)

        return app
    api = fastapi.FastAPI(openapi_url=None)

    @api.get("/", dependencies=[fastapi.Depends(add_cookie)])
    @stillwarm.fastapi.Stillwarm(cache).cache_response(ttl=60)
    async def route(request: fastapi.Request) -> Any:
        mine = request.headers["x-id"]
        await server[0].aenter()
        return error("fastapi", mine)

    return api


def plain(framework: str, mine: str) -> Any:
    return framework


def moved(framework: str, mine: str) -> Any:
    if framework == "flask":
        return flask.redirect("/elsewhere")
    return fastapi.responses.RedirectResponse("/elsewhere", 302)


def broken(framework: str, mine: str) -> Any:
    return flask.Response("x", 503) if framework == "flask" else fastapi.Response(b"x", 503)


@each_decorator
@pytest.mark.parametrize(("made", "status"), [(plain, 200), (moved, 302), (broken, 503)])
def test_web_shared_a_shared_answer_has_the_cookies_of_each_request(
    front: str, serve: Serve, warm_cache: Cache, made: Any, status: int
) -> None:
    server: list[Any] = []
    server.append(serve(front, numbered(), app=crowd_app(front, warm_cache, server, made)))
    answers = server[0].race(*({"headers": {"x-id": str(n)}} for n in range(5)))
    assert server[0].inside == 1  # they did share
    assert {answer.status for answer in answers} == {status}
    assert [answer.all("set-cookie") for answer in answers] == [[f"id={n}"] for n in range(5)]
    assert all(len(answer.all("x-cache")) == len(answer.all("cache-status")) == 1 for answer in answers)


@each_decorator
def test_web_shared_a_raised_answer_with_a_cookie_is_not_shared(front: str, serve: Serve, warm_cache: Cache) -> None:
    def raised(framework: str, mine: str) -> Any:
        if framework == "flask":
            flask.abort(flask.Response("x", 404, {"Set-Cookie": f"secret={mine}"}))
        raise fastapi.HTTPException(404, headers={"Set-Cookie": f"secret={mine}"})

    server: list[Any] = []
    server.append(serve(front, numbered(), app=crowd_app(front, warm_cache, server, raised)))
    answers = server[0].race(*({"headers": {"x-id": str(n)}} for n in range(4)))
    assert [f"secret={n}" in answer.all("set-cookie") for n, answer in enumerate(answers)] == [True] * 4
    assert [len([c for c in answer.all("set-cookie") if "secret" in c]) for answer in answers] == [1] * 4


@each_decorator
@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 418, 500, 503])
def test_web_shared_a_raised_answer_is_asked_for_once(front: str, serve: Serve, warm_cache: Cache, status: int) -> None:
    def raised(framework: str, mine: str) -> Any:
        if framework == "flask":
            flask.abort(status)
        raise fastapi.HTTPException(status)

    server: list[Any] = []
    server.append(serve(front, numbered(), app=crowd_app(front, warm_cache, server, raised)))
    assert [server[0].ask(headers={"x-id": "1"}).status for _ in range(2)] == [status] * 2
    assert server[0].inside == 2
    if status == 404:  # it says the same to all who asked meanwhile
        warm_cache.clear()
        assert {a.status for a in server[0].race(*[{"headers": {"x-id": "1"}}] * 5)} == {404}
        assert server[0].inside == 3


@each_decorator
def test_web_shared_an_error_met_with_credentials_is_not_shared(front: str, serve: Serve, warm_cache: Cache) -> None:
    def raised(framework: str, mine: str) -> Any:
        if framework == "flask":
            flask.abort(404, description=f"nothing for {mine}")
        raise fastapi.HTTPException(404, detail=f"nothing for {mine}")

    server: list[Any] = []
    server.append(serve(front, numbered(), app=crowd_app(front, warm_cache, server, raised)))
    requests = [{"headers": {"x-id": user, "authorization": user}} for user in ("alice", "bob")]
    answers = server[0].race(*requests, {"headers": {"x-id": "nobody"}})
    for answer, user in zip(answers, ("alice", "bob", "nobody"), strict=True):
        assert f"nothing for {user}".encode() in answer.body
