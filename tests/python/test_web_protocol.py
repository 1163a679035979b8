"""ResponseCache keeps to WSGI (PEP 3333) and ASGI, whatever an app does: streams, closing, odd headers, its own errors.

Thread rule: one thread.
Refuses to know: for how long an answer is stored (test_web_middleware).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import stillwarm.fastapi
import stillwarm.flask
from fronts import ask_asgi, ask_wsgi, environ_of, scope_of
from stillwarm import Cache
from stillwarm.web._counts import counts

PLAIN = [("Content-Type", "text/plain")]


class Body:
    """An iterable as frameworks make them, which counts how often it is closed."""

    def __init__(self, *parts: bytes, fails: bool = False) -> None:
        self.parts, self.fails = parts, fails
        self.closed = 0
        self.made: list[bytes] = []

    def __iter__(self) -> Iterator[bytes]:
        for part in self.parts:
            self.made.append(part)
            yield part
        if self.fails:
            raise RuntimeError("in the middle")

    def close(self) -> None:
        self.closed += 1


def wsgi_app(bodies: list[Body], *fields: tuple[str, str], status: str = "200 OK") -> Any:
    given = iter(bodies)

    def app(environ: Any, start_response: Any) -> Any:
        start_response(status, [*PLAIN, *fields])
        return next(given)

    return app


def wsgi(app: Any, cache: Cache, **options: Any) -> Any:
    return stillwarm.flask.ResponseCache(app, cache, **{"ttl": 60, **options})


# -------------------------------------------------------------------------------------------------------------- WSGI


def test_web_protocol_wsgi_bodies_are_closed_once_on_every_path(warm_cache: Cache) -> None:
    def sized(*parts: bytes) -> tuple[str, str]:
        return ("Content-Length", str(sum(map(len, parts))))

    cases: list[tuple[list[tuple[str, str]], dict[str, Any], dict[str, Any]]] = [
        ([sized(b"ab", b"c")], {}, {}),  # stored
        ([], {}, {}),  # it streams
        ([sized(b"ab", b"c")], {"max_body": 2}, {}),  # too large, and says so
        ([("Content-Length", "1")], {"max_body": 2}, {}),  # too large, and says it is not
        ([sized(b"ab", b"c"), ("Cache-Control", "no-store")], {}, {}),
        ([sized(b"ab", b"c")], {}, {"method": "POST"}),
        ([sized(b"ab", b"c")], {}, {"headers": {"cookie": "a=1"}}),
    ]
    for n, (fields, options, request) in enumerate(cases):
        body = Body(b"ab", b"c")
        answer = ask_wsgi(wsgi(wsgi_app([body], *fields), warm_cache, **options), f"/{n}", **request)
        assert (n, answer.body, body.closed) == (n, b"abc", 1)


def test_web_protocol_wsgi_a_body_that_fails_is_closed_once(warm_cache: Cache) -> None:
    for fields in ([("Content-Length", "9")], []):
        body = Body(b"ab", fails=True)
        with pytest.raises(RuntimeError, match="in the middle"):
            ask_wsgi(wsgi(wsgi_app([body], *fields), warm_cache, stale_if_error=0))
        assert body.closed == 1
        assert warm_cache.stats().flights == 0


def test_web_protocol_wsgi_streams_come_as_they_are_made(warm_cache: Cache) -> None:
    body = Body(b"first", b"second", b"third")
    started: list[Any] = []
    result = wsgi(wsgi_app([body]), warm_cache)(environ_of("/"), lambda *args: started.append(args))
    parts = iter(result)
    assert next(parts) == b"first"
    assert started[0][0] == "200 OK"
    assert body.made == [b"first"]  # the second is not made yet
    result.close()  # the client goes away
    assert body.closed == 1
    assert warm_cache.stats().entries == 0


def test_web_protocol_wsgi_a_generator_that_starts_late_is_understood(warm_cache: Cache) -> None:
    calls: list[int] = []

    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        calls.append(1)
        start_response("200 OK", [*PLAIN, ("Content-Length", "4")])
        yield b"ab"
        yield b"cd"

    wrapped = wsgi(app, warm_cache)
    assert [ask_wsgi(wrapped).body for _ in range(2)] == [b"abcd", b"abcd"]
    assert len(calls) == 1


@pytest.mark.parametrize("part", [b"", b"x"])
def test_web_protocol_wsgi_an_empty_generator_is_understood(warm_cache: Cache, part: bytes) -> None:
    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [*PLAIN, ("Content-Length", str(len(part)))])
        if part:
            yield part

    wrapped = wsgi(app, warm_cache)
    assert [ask_wsgi(wrapped).body for _ in range(2)] == [part, part]
    assert ask_wsgi(wrapped).cache == "HIT"


def test_web_protocol_wsgi_write_is_part_of_the_body(warm_cache: Cache) -> None:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        write = start_response("200 OK", PLAIN)
        write(b"written, ")
        write(b"then ")
        return [b"returned"]

    wrapped = wsgi(app, warm_cache)
    answers = [ask_wsgi(wrapped) for _ in range(2)]
    assert [answer.body for answer in answers] == [b"written, then returned"] * 2
    assert answers[1].cache == "HIT"
    assert ask_wsgi(wrapped, method="POST").body == b"written, then returned"


def test_web_protocol_wsgi_exc_info_replaces_what_was_started(warm_cache: Cache) -> None:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [*PLAIN, ("X-First", "1")])
        try:
            raise ValueError
        except ValueError:
            import sys

            start_response("500 Oops", PLAIN, sys.exc_info())
        return [b"error"]

    wrapped = wsgi(app, warm_cache)
    for request in ({}, {"method": "POST"}):
        answer = ask_wsgi(wrapped, **request)
        assert (answer.status, answer["x-first"]) == (500, None)
    assert warm_cache.stats().entries == 0


def test_web_protocol_wsgi_own_status_lines_stay(warm_cache: Cache) -> None:
    lines: list[str] = []

    def app(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 Fine By Me", PLAIN)
        return [b"x"]

    wrapped = wsgi(app, warm_cache)
    for _ in range(2):
        list(wrapped(environ_of("/"), lambda status, headers, exc_info=None: lines.append(status)))
    assert lines == ["200 Fine By Me"] * 2


def test_web_protocol_wsgi_the_apps_exception_passes_unchanged(warm_cache: Cache) -> None:
    error = KeyError("mine")

    def app(environ: Any, start_response: Any) -> list[bytes]:
        raise error

    for request in ({}, {"method": "POST"}):
        with pytest.raises(KeyError) as caught:
            ask_wsgi(wsgi(app, warm_cache), **request)
        assert caught.value is error
    assert not [what for kind, what in counts(warm_cache) if kind == "warning"]


# -------------------------------------------------------------------------------------------------------------- ASGI


def asgi(app: Any, cache: Cache, **options: Any) -> Any:
    return stillwarm.fastapi.ResponseCache(app, cache, **{"ttl": 60, **options})


def start(*fields: tuple[bytes, bytes], status: int = 200) -> dict[str, Any]:
    return {"type": "http.response.start", "status": status, "headers": list(fields)}


def part(body: bytes, more: bool = False) -> dict[str, Any]:
    return {"type": "http.response.body", "body": body, "more_body": more}


def sends(*messages: dict[str, Any]) -> Callable[..., Any]:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        for message in messages:
            await send(message)

    return app


async def test_web_protocol_asgi_streams_come_as_they_are_made(warm_cache: Cache) -> None:
    made: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            await send(start())
            for text in ("first", "second"):
                made.append(text)
                await send(part(text.encode(), True))
            await send(part(b""))
        finally:
            made.append("closed")

    got: list[Any] = []

    async def send(message: Any) -> None:
        got.append((message["type"], message.get("body"), list(made)))
        if message.get("body") == b"first":
            raise ConnectionError("the client is gone")

    with pytest.raises(ConnectionError):
        await asgi(app, warm_cache)(scope_of("/"), None, send)
    assert [(kind, body) for kind, body, _ in got] == [("http.response.start", None), ("http.response.body", b"first")]
    assert got[1][2] == ["first"]  # the second was not made yet
    assert made == ["first", "closed"]
    assert warm_cache.stats().flights == 0


async def test_web_protocol_asgi_bodies_in_parts_are_stored_where_their_length_is_known(warm_cache: Cache) -> None:
    sized = asgi(sends(start((b"content-length", b"4")), part(b"ab", True), part(b"cd")), warm_cache)
    assert [(await ask_asgi(sized, "/1")).body for _ in range(2)] == [b"abcd"] * 2
    assert (await ask_asgi(sized, "/1")).cache == "HIT"
    unsized = asgi(sends(start(), part(b"ab", True), part(b"cd")), warm_cache)
    assert [(await ask_asgi(unsized, "/2")).body for _ in range(2)] == [b"abcd"] * 2
    assert warm_cache.stats().entries == 1


async def test_web_protocol_asgi_large_bodies_pass_through_whole(warm_cache: Cache) -> None:
    parts = [part(b"abc", True), part(b"def", True), part(b"ghi")]
    for n, fields in enumerate([[(b"content-length", b"9")], [(b"content-length", b"3")], []]):
        answer = await ask_asgi(asgi(sends(start(*fields), *parts), warm_cache, max_body=5), f"/{n}")
        assert answer.body == b"abcdefghi"
        assert answer.cache == "BYPASS"
    assert warm_cache.stats().entries == 0


async def test_web_protocol_asgi_headers_may_be_any_iterable_of_pairs(warm_cache: Cache) -> None:
    for n, headers in enumerate([((b"x-a", b"1"),), [[b"x-a", b"1"]], iter([(b"x-a", b"1")])]):
        message = {"type": "http.response.start", "status": 200, "headers": headers}
        wrapped = asgi(sends(message, part(b"x")), warm_cache)
        first = await ask_asgi(wrapped, f"/{n}")
        assert (first["x-a"], first.body) == ("1", b"x")
        assert (await ask_asgi(wrapped, f"/{n}"))["x-a"] == "1"


async def test_web_protocol_asgi_other_messages_pass_through(warm_cache: Cache) -> None:
    messages = [start(), part(b"x", True), {"type": "http.response.trailers", "headers": [], "more_trailers": False}]
    got: list[Any] = []

    async def send(message: Any) -> None:
        got.append(message["type"])

    await asgi(sends(*messages), warm_cache)(scope_of("/"), None, send)
    assert got == ["http.response.start", "http.response.body", "http.response.trailers"]


async def test_web_protocol_asgi_websockets_and_lifespan_are_untouched(warm_cache: Cache) -> None:
    got: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        got.append((scope, receive, send))

    wrapped = asgi(app, warm_cache)
    for kind in ("websocket", "lifespan"):
        given = ({"type": kind}, object(), object())
        await wrapped(*given)
        assert all(a is b for a, b in zip(got[-1], given, strict=True))


async def test_web_protocol_asgi_the_apps_exception_passes_unchanged(warm_cache: Cache) -> None:
    error = KeyError("mine")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise error

    for request in ({}, {"method": "POST"}):
        with pytest.raises(KeyError) as caught:
            await ask_asgi(asgi(app, warm_cache), **request)
        assert caught.value is error


async def test_web_protocol_asgi_an_app_that_answers_nothing_is_the_apps_error(warm_cache: Cache) -> None:
    with pytest.raises(RuntimeError, match="without an answer"):
        await ask_asgi(asgi(sends(), warm_cache))
    assert warm_cache.stats().flights == 0


@pytest.mark.parametrize("made", [lambda c: wsgi(None, c, colour="red"), lambda c: asgi(None, c, debug_token="short")])
def test_web_protocol_bad_options_are_refused_at_the_start(warm_cache: Cache, made: Callable[[Cache], Any]) -> None:
    with pytest.raises(stillwarm.ConfigError, match=r"colour|debug_token"):
        made(warm_cache)


def test_web_protocol_what_is_no_environ_is_the_apps_affair(warm_cache: Cache) -> None:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        return [b"x"]

    class Environ(dict):  # type: ignore[type-arg]
        pass

    got: list[Any] = []
    assert list(wsgi(app, warm_cache)(Environ(environ_of("/")), lambda *args: got.append(args))) == [b"x"]
    asyncio.run(asgi(sends(start(), part(b"x")), warm_cache)({"type": "http", "headers": 5}, None, _nowhere))


async def _nowhere(message: Any) -> None: ...


@pytest.mark.parametrize("middleware", [stillwarm.flask.ResponseCache, stillwarm.fastapi.ResponseCache])
def test_web_protocol_what_is_no_cache_is_refused_at_the_start(middleware: Any) -> None:
    with pytest.raises(stillwarm.ConfigError, match=r"cache='redis://x': accepted: a stillwarm\.Cache"):
        middleware(None, "redis://x")
