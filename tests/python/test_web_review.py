"""What a hostile reader found in the web layer, and what must stay mended.

Thread rule: one test, one cache; requests go to the app without sockets.
Refuses to know: which layer mends it.
"""

from __future__ import annotations

import asyncio
import functools
import threading
from typing import Any
from urllib.parse import quote

import fastapi
import flask
import pytest
import starlette.background

import stillwarm.fastapi
import stillwarm.flask
from stillwarm import Cache
from stillwarm.errors import ConfigError
from stillwarm.testing import Clock
from stillwarm.web.front import Front, Rules
from stillwarm.web.wsgi import REFRESH


def scope_of(path: str = "/", headers: Any = (), **more: Any) -> dict[str, Any]:
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "raw_path": quote(path, errors="surrogatepass").encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"app.test"), *headers],
        "client": ("192.0.2.1", 50000),
        "server": ("app.test", 80),
        **more,
    }


def environ_of(path: str = "/", **more: Any) -> dict[str, Any]:
    return {
        "REQUEST_METHOD": "GET",
        "HTTP_HOST": "app.test",
        "SCRIPT_NAME": "",
        "PATH_INFO": path,
        "QUERY_STRING": "",
        "wsgi.url_scheme": "http",
        **more,
    }


async def asked(app: Any, scope: dict[str, Any]) -> tuple[int, dict[bytes, bytes], bytes]:
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, receive, send)
    body = b"".join(message.get("body", b"") for message in sent[1:])
    return sent[0]["status"], dict(sent[0]["headers"]), body


def ask(app: Any, *args: Any, **kwargs: Any) -> tuple[int, dict[bytes, bytes], bytes]:
    return asyncio.run(asked(app, scope_of(*args, **kwargs)))


@pytest.fixture
def front() -> Front:
    return Front(Cache(), Rules(), "x", asgi=True)


# ------------------------------------------------------------------------------------------------------------- keys


def test_web_review_own_keys_that_look_alike_in_two_encodings_are_two() -> None:
    app, warm = flask.Flask(__name__), stillwarm.flask.Stillwarm(Cache())

    @app.get("/<name>")
    @warm.cache_response(ttl=60, key=lambda name: name)
    def page(name: str) -> str:
        return name

    client = app.test_client()
    for name in ("\u00c3\u00a9", "\u00e9", "\u00e9"):
        answer = client.get("/" + quote(name))
        assert answer.text == name
    assert answer.headers["X-Cache"] == "HIT"


def test_web_review_paths_that_utf8_cannot_write_are_told_apart(front: Front) -> None:
    keys = {front.core.look(scope_of(f"/{c}\udc80")).primary for c in "ab"}
    assert len(keys) == 2


def test_web_review_a_mounted_prefix_that_is_taken_off_the_path_stays_in_the_key(front: Front) -> None:
    keys = [front.core.look(scope_of(p, root_path=r)).primary for p, r in (("/x", "/a"), ("/x", "/b"), ("/a/x", "/a"))]
    assert keys[0] == keys[2] != keys[1]


@pytest.mark.parametrize("value", [b"\xff", b"\xc3\xa9", b"\\xff"])
def test_web_review_header_bytes_that_are_no_utf8_are_cached_like_others(value: bytes) -> None:
    app, warm = fastapi.FastAPI(), stillwarm.fastapi.Stillwarm(Cache())

    @app.get("/me")
    @warm.cache_response(ttl=60, per_user=True)
    async def me() -> int:
        return 1

    answers = [ask(app, "/me", [(b"cookie", b"a=" + value)]) for _ in range(2)]
    assert [(status, headers[b"x-cache"]) for status, headers, _ in answers] == [(200, b"MISS"), (200, b"HIT")]


def test_web_review_header_bytes_are_told_from_their_escapes(front: Front) -> None:
    texts = {front.core.variant_text(scope_of(headers=[(b"a", v)]), ["a"]) for v in (b"\xff", b"\\xff", b"xff")}
    assert len(texts) == 3
    assert all(text.isascii() for text in texts)


def test_web_review_headers_of_a_scope_may_be_any_iterable(front: Front) -> None:
    scope = {**scope_of(), "headers": iter([(b"a", b"b")])}
    assert front.core.variant_text(scope, ["a"]) == front.core.variant_text(scope, ["a"]) == "a=b\n"


def test_web_review_split_cookies_are_one_list_of_cookies(front: Front) -> None:
    scope = scope_of(headers=[(b"cookie", b"a=1"), (b"cookie", b"b=2")])
    assert front.core.variant_text(scope, ["cookie"]) == "cookie=a=1; b=2\n"


def test_web_review_an_own_key_is_never_the_key_of_a_uri_or_of_a_user() -> None:
    app, cache = flask.Flask(__name__), Cache()
    warm = stillwarm.flask.Stillwarm(cache)

    @app.get("/private")
    @warm.cache_response(ttl=60)
    def private() -> str:
        return "private"

    @app.get("/mine")
    @warm.cache_response(ttl=60, key="x", per_user=lambda: "alice")
    def mine() -> str:
        return "mine"

    @app.get("/echo")
    @warm.cache_response(ttl=60, key=lambda: flask.request.args["key"])
    def echo() -> str:
        return "echo"

    client, types = app.test_client(), {"private", "mine"}
    for path in types:
        client.get("/" + path)
    for stored in [entry.key for entry in cache.top(10)]:
        own = stored.removeprefix("cache:http:")
        assert client.get("/echo", query_string={"key": own}).text == "echo"
    for path in types:
        assert client.get("/" + path).text == path


def test_web_review_what_a_route_stores_is_served_only_behind_what_guards_it() -> None:
    app, cache = flask.Flask(__name__), Cache()
    warm = stillwarm.flask.Stillwarm(cache)

    @app.before_request
    def guard() -> Any:
        return ("no", 401) if flask.request.headers.get("X-Key") != "good" else None

    @app.get("/")
    @warm.cache_response(ttl=60)
    def page() -> str:
        return "secret"

    app.wsgi_app = stillwarm.flask.ResponseCache(app.wsgi_app, cache)  # type: ignore[method-assign]
    client = app.test_client()
    answers = [client.get("/", headers={"X-Key": "good"}) for _ in range(2)]
    assert [(a.text, a.headers["X-Cache"]) for a in answers] == [("secret", "MISS"), ("secret", "HIT")]
    assert client.get("/").status_code == 401


# -------------------------------------------------------------------------------------------------- what is not all


@pytest.mark.parametrize("ends", [True, False])
def test_web_review_an_answer_that_was_cut_off_is_not_stored(ends: bool) -> None:
    asks = 0

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal asks
        asks += 1
        headers = [(b"content-length", b"10"), (b"cache-control", b"max-age=60")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"12345", "more_body": not ends})

    cached = stillwarm.fastapi.ResponseCache(app, cache=Cache())
    for _ in range(2):
        assert ask(cached)[2] == b"12345"
    assert asks == 2


def test_web_review_a_wsgi_answer_shorter_than_it_says_is_not_stored() -> None:
    asks = 0

    def app(environ: Any, start_response: Any) -> list[bytes]:
        nonlocal asks
        asks += 1
        start_response("200 OK", [("Content-Length", "10"), ("Cache-Control", "max-age=60")])
        return [b"12345"]

    cached = stillwarm.flask.ResponseCache(app, Cache())
    for _ in range(2):
        assert b"".join(cached(environ_of(), lambda *_: None)) == b"12345"
    assert asks == 2


@pytest.mark.parametrize("early", [True, False])
def test_web_review_messages_around_an_answer_pass_in_their_order(early: bool) -> None:
    extra = {"type": "http.response.early_hint" if early else "http.response.trailers", "headers": []}
    own = [
        {"type": "http.response.start", "status": 200, "headers": [(b"cache-control", b"max-age=60")]},
        {"type": "http.response.body", "body": b"all"},
    ]
    own.insert(0 if early else 2, extra)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for message in own:
            await send(dict(message))

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(stillwarm.fastapi.ResponseCache(app, cache=Cache())(scope_of(), None, send))  # type: ignore[arg-type]
    assert [message["type"] for message in sent] == [message["type"] for message in own]
    assert b"".join(message.get("body", b"") for message in sent) == b"all"
    assert not sent[-1].get("more_body", False)


def test_web_review_an_error_after_the_start_of_a_stream_comes_through() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"a", "more_body": True})
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        ask(stillwarm.fastapi.ResponseCache(app, cache=Cache()))


async def test_web_review_a_leader_who_left_leaves_no_error_to_those_who_wait() -> None:
    gate, asks = asyncio.Event(), 0

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal asks
        asks += 1
        if asks == 1:
            await gate.wait()
            return  # its client has gone: no answer
        await send({"type": "http.response.start", "status": 200, "headers": [(b"cache-control", b"max-age=60")]})
        await send({"type": "http.response.body", "body": b"all"})

    cached = stillwarm.fastapi.ResponseCache(app, cache=Cache())
    first, second = (asyncio.create_task(asked(cached, scope_of())) for _ in range(2))
    await asyncio.sleep(0)
    gate.set()
    with pytest.raises(RuntimeError, match="without an answer"):
        await first
    assert (await second)[2] == b"all"


# ------------------------------------------------------------------------------------------------ what is not shared


def test_web_review_a_redirect_that_varies_is_nobody_elses() -> None:
    app, warm = fastapi.FastAPI(), stillwarm.fastapi.Stillwarm(Cache())
    gate = asyncio.Event()

    @app.get("/")
    @warm.cache_response(ttl=60)
    async def page(request: fastapi.Request) -> fastapi.Response:
        await gate.wait()
        return fastapi.Response(status_code=302, headers={"Location": request.headers["x-tenant"], "Vary": "X-Tenant"})

    async def both() -> list[bytes]:
        tasks = [asyncio.create_task(asked(app, scope_of(headers=[(b"x-tenant", t)]))) for t in (b"a", b"b")]
        while len(asyncio.all_tasks()) < 3 or not gate._waiters:  # type: ignore[attr-defined]
            await asyncio.sleep(0)
        for _ in range(50):
            await asyncio.sleep(0)
        gate.set()
        return [(await task)[1][b"location"] for task in tasks]

    assert asyncio.run(both()) == [b"a", b"b"]


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

    with pytest.raises(ConfigError, match="per_user returned"):
        app.test_client().get("/")


def test_web_review_a_route_is_cached_once() -> None:
    warm = stillwarm.fastapi.Stillwarm(Cache())
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
