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
from stillwarm import Cache
from stillwarm.web.front import Front, Rules


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
