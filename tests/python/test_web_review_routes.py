"""What a hostile reader found in decorated routes, and what must stay mended.

Thread rule: one test, one cache; requests go to the app without sockets.
Refuses to know: which layer mends it.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import threading
import weakref
from typing import Any

import fastapi
import flask
import pytest
import starlette.background

import stillwarm.fastapi
import stillwarm.flask
from asking import ask, asked, environ_of, scope_of
from fronts import numbered, serving
from stillwarm import Cache
from stillwarm.errors import ConfigError
from stillwarm.testing import Clock
from stillwarm.web.wsgi import REFRESH


def test_web_review_background_tasks_of_a_stored_response_run() -> None:
    app, warm = fastapi.FastAPI(), stillwarm.fastapi.Stillwarm(Cache())
    ran: list[int] = []

    @app.get("/")
    @warm.cache_response(ttl=60)
    async def page() -> fastapi.Response:
        return fastapi.Response("x", background=starlette.background.BackgroundTask(ran.append, 1))

    assert [ask(app)[1][b"x-cache"] for _ in range(2)] == [b"MISS", b"HIT"]
    assert ran == [1]


def test_web_review_a_response_whose_bytes_are_stored_is_closed() -> None:
    app, warm = flask.Flask(__name__), stillwarm.flask.Stillwarm(Cache())
    closed: list[int] = []

    @app.get("/")
    @warm.cache_response(ttl=60)
    def page() -> flask.Response:
        response = flask.Response("x")
        response.call_on_close(lambda: closed.append(1))
        return response

    for _ in range(2):
        app.test_client().get("/")
    assert closed == [1]


def test_web_review_a_streamed_failure_is_closed_where_a_stale_answer_stands_in(warm_clock: Clock) -> None:
    closed: list[int] = []

    class Body:
        def __iter__(self) -> Any:
            return iter([b"x"])

        def close(self) -> None:
            closed.append(1)

    answers = [
        ("200 OK", [("Cache-Control", "max-age=1, stale-if-error=60")], [b"good"]),
        ("503 No", [], Body()),
    ]

    def app(environ: Any, start_response: Any) -> Any:
        status, headers, body = answers.pop(0)
        start_response(status, headers)
        return body

    cached = stillwarm.flask.ResponseCache(app, Cache())
    assert b"".join(cached(environ_of(), lambda *_: None)) == b"good"
    warm_clock.move(5)
    assert b"".join(cached(environ_of(), lambda *_: None)) == b"good"
    assert closed == [1]


@pytest.mark.parametrize("field", [b"no-store", b"private"])
def test_web_review_a_dependency_may_forbid_to_store(field: bytes) -> None:
    app, warm = fastapi.FastAPI(), stillwarm.fastapi.Stillwarm(Cache())

    async def forbid(response: fastapi.Response) -> None:
        response.headers["Cache-Control"] = field.decode()

    @app.get("/", dependencies=[fastapi.Depends(forbid)])
    @warm.cache_response(ttl=60)
    async def page() -> int:
        return 1

    answers = [ask(app) for _ in range(2)]
    assert [headers[b"x-cache"] for _, headers, _ in answers] == [b"BYPASS", b"BYPASS"]


def test_web_review_a_dependencys_own_fields_come_once() -> None:
    app, warm = fastapi.FastAPI(), stillwarm.fastapi.Stillwarm(Cache())
    sent: list[Any] = []

    async def say(response: fastapi.Response) -> None:
        response.headers["Cache-Control"] = "max-age=5"

    @app.get("/", dependencies=[fastapi.Depends(say)])
    @warm.cache_response(ttl=60)
    async def page() -> int:
        return 1

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    for label in (b"MISS", b"HIT"):
        sent.clear()
        asyncio.run(app(scope_of(), receive, send))  # type: ignore[arg-type]
        assert (b"x-cache", label) in sent[0]["headers"]
        assert [value for name, value in sent[0]["headers"] if name == b"cache-control"] == [b"max-age=5"]


def test_web_review_a_user_must_have_a_text_of_his_own() -> None:
    app, warm = flask.Flask(__name__), stillwarm.flask.Stillwarm(Cache())
    app.testing = True

    @app.get("/")
    @warm.cache_response(ttl=60, per_user=object)
    def page() -> str:
        return "x"

    with pytest.raises(ConfigError, match="per_user is"):
        app.test_client().get("/")


@pytest.mark.parametrize("kind", [stillwarm.flask.Stillwarm, stillwarm.fastapi.Stillwarm])
def test_web_review_a_route_is_cached_once(kind: Any) -> None:
    warm = kind(Cache())
    with pytest.raises(ConfigError, match="already"):
        warm.cache_response(ttl=1)(warm.cache_response(ttl=1)(asked))


def test_web_review_an_object_with_an_async_call_is_a_route() -> None:
    app, warm = fastapi.FastAPI(), stillwarm.fastapi.Stillwarm(Cache())

    class Page:
        async def __call__(self) -> int:
            return 1

    app.get("/")(warm.cache_response(ttl=60)(Page()))
    app.get("/part")(warm.cache_response(ttl=60)(functools.partial(Page.__call__, Page())))
    for path in ("/", "/part"):
        assert [ask(app, path)[2] for _ in range(2)] == [b"1", b"1"]


def test_web_review_a_session_that_notes_no_reading_counts_as_read() -> None:
    class Blind(dict[str, str], flask.sessions.SessionMixin):
        accessed = True

    class Interface(flask.sessions.SessionInterface):
        def open_session(self, app: Any, request: Any) -> Any:
            return Blind(user=request.cookies.get("session", "nobody"))

        def save_session(self, app: Any, session: Any, response: Any) -> None:
            return None

    app, warm = flask.Flask(__name__), stillwarm.flask.Stillwarm(Cache())
    app.session_interface = Interface()

    @app.get("/")
    @warm.cache_response(ttl=60, vary_on=())
    def page() -> str:
        return str(flask.session["user"])

    for user in ("alice", "bob"):
        client = app.test_client()
        client.set_cookie("session", user)
        assert client.get("/").text == user


def test_web_review_a_refresh_whose_user_has_left_stores_nothing_for_him(warm_clock: Clock) -> None:
    app, warm = flask.Flask(__name__), stillwarm.flask.Stillwarm(Cache())
    refreshed, loads = threading.Event(), []

    @app.teardown_request
    def ended(error: Any) -> None:
        if REFRESH in flask.request.environ:
            refreshed.set()

    def who() -> str | None:
        return None if REFRESH in flask.request.environ else "alice"  # the session has ended meanwhile

    @app.get("/")
    @warm.cache_response(ttl=10, stale_while_revalidate=100, per_user=who)
    def page() -> str:
        loads.append(who())
        return f"page of {who()}"

    for label in ("MISS", "STALE"):
        answer = app.test_client().get("/")
        assert (answer.text, answer.headers["X-Cache"]) == ("page of alice", label)
        warm_clock.move(11)
    assert refreshed.wait(20)
    assert loads == ["alice"]


def test_web_review_a_key_may_name_an_argument_that_the_url_leaves_out() -> None:
    app, warm = fastapi.FastAPI(), stillwarm.fastapi.Stillwarm(Cache())

    @app.get("/")
    @warm.cache_response(ttl=60, key="search:{q}")
    async def search(q: str = "all") -> str:
        return q

    assert [ask(app)[2], ask(app, query_string=b"q=all")[2], ask(app, query_string=b"q=b")[2]] == [b'"all"'] * 2 + [
        b'"b"'
    ]


def test_web_review_a_view_that_answers_304_itself_is_cached_for_others() -> None:
    app, warm = flask.Flask(__name__), stillwarm.flask.Stillwarm(Cache())

    @app.get("/")
    @warm.cache_response(ttl=60)
    def page() -> flask.Response:
        response = flask.make_response("x")
        response.add_etag()
        return response.make_conditional(flask.request)

    client = app.test_client()
    etag = client.get("/", headers={"If-None-Match": "*"}).headers["ETag"]
    labels = [client.get("/", headers=h).headers["X-Cache"] for h in ({}, {}, {"If-None-Match": etag})]
    assert labels == ["MISS", "HIT", "HIT"]


def test_web_review_an_app_that_is_gone_takes_its_cache_with_it() -> None:
    warm = stillwarm.flask.Stillwarm()

    @warm.cache_response(ttl=60)
    def view() -> str:
        return "answer"

    def made() -> weakref.ref[Cache]:
        app = flask.Flask("app")
        app.add_url_rule("/", view_func=view)
        warm.init_app(app)
        assert [app.test_client().get("/").headers["X-Cache"] for _ in range(2)] == ["MISS", "HIT"]
        with app.app_context():
            return weakref.ref(warm.cache())

    caches = [made() for _ in range(3)]
    gc.collect()
    assert [cache() for cache in caches] == [None] * 3


@pytest.mark.parametrize("front", ["flask", "fastapi"])
def test_web_review_what_one_user_gets_is_private_to_caches_further_out(front: str, warm_cache: Cache) -> None:
    with serving(warm_cache) as serve:
        server = serve(front, numbered(), per_user=lambda *_: "u1")
        assert [server.ask()["cache-control"] for _ in range(2)] == ["private", "private"]
        assert server.ask(method="POST")["cache-control"] == "private"
        said = serve(front, numbered(("Cache-Control", "max-age=5")), per_user=lambda *_: "u2", key="said")
        assert [said.ask()["cache-control"] for _ in range(2)] == ["max-age=5", "max-age=5"]


@pytest.mark.parametrize("front", ["flask", "wsgi", "fastapi", "asgi"])
def test_web_review_the_debug_token_also_explains_what_passed_by(front: str, warm_cache: Cache) -> None:
    token = "a-token-of-the-tests"
    with serving(warm_cache) as serve:
        server = serve(front, numbered(("Cache-Control", "max-age=5")), debug_token=token)
        answer = server.ask(headers={"Cookie": "a=1", "Stillwarm-Debug": token})
        assert answer.cache_status.startswith('stillwarm; fwd=bypass; key="cache:')
        assert answer.cache_status.endswith("; detail=cookie")


def test_web_review_a_key_of_arguments_that_the_view_lacks_is_refused_at_once() -> None:
    warm = stillwarm.flask.Stillwarm(Cache())
    with pytest.raises(ConfigError, match=r"key= names 'nubmer', and the view's arguments are: 'number'"):

        @warm.cache_response(ttl=60, key="item:{nubmer}")
        def item(number: int) -> str:
            return str(number)

    @warm.cache_response(ttl=60, key="item:{number}")
    def anything(**arguments: int) -> str:
        return str(arguments)
