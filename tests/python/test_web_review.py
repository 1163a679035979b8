"""What a hostile reader found in the web layer, and what must stay mended.

Thread rule: one test, one cache; requests go to the app without sockets.
Refuses to know: which layer mends it.
"""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import quote

import fastapi
import flask
import pytest

import stillwarm.fastapi
import stillwarm.flask
from asking import ask, asked, environ_of, scope_of
from stillwarm import Cache
from stillwarm.web.front import Front, Rules


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
        for _ in range(50):  # both have come as far as they get
            await asyncio.sleep(0)
        gate.set()
        return [(await task)[1][b"location"] for task in tasks]

    assert asyncio.run(both()) == [b"a", b"b"]
