"""ResponseCache for ASGI apps: `app.add_middleware(ResponseCache, cache=cache)`, or `ResponseCache(app, cache=cache)`.

It obeys what the app's own answers say: Cache-Control, Vary, ETag, Last-Modified, Expires.

Thread rule: each call runs on its own loop; any number of loops.
Refuses to know: frameworks, and the rules of HTTP (cpp/core/http).
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from stillwarm import _aload, _core
from stillwarm._landing import finish
from stillwarm._target import VALUE, innermost
from stillwarm.web.aserve import AsyncAsk, respond
from stillwarm.web.facts import NoAnswerError, Response, Unstored, header, line_of, with_marks
from stillwarm.web.front import Front
from stillwarm.web.options import middleware_rules
from stillwarm.web.serve import GATEWAY_TIMEOUT, Ask, passed, refresh_ended, stored_only

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from stillwarm._cache import Cache
    from stillwarm.web.options import MiddlewareOptions

Message = Any  # mutable mappings; servers and frameworks type them each in their own way
Scope = Any
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

REFRESH = "stillwarm.refresh"  # scope of a background refresh: who answers it, and for which flight

_refreshes: set[asyncio.Task[None]] = set()  # asyncio keeps only weak references


class ResponseCache:
    """An ASGI app in front of an ASGI app, which answers from the cache what may be answered from there.

    Args:
        app: the app behind it.
        cache: a stillwarm.Cache.
        options: `ttl` (for answers that say nothing of their lifetime; without it those are not stored),
            `stale_while_revalidate`, `stale_if_error` (by default as long again as it was fresh), `absent_ttl` (404 and
            410), `heuristic` (RFC 9111, 4.2.2), `ignore_cookies` (names, "*" at the end; requests with other cookies
            pass by), `early_refresh`, `keep` (how long an answer with a validator is kept to ask the app whether it
            still holds), `max_body` (8 MB), `max_key` (2,048 bytes), `debug_token`, `unless` (a callable of the
            response), `classify`, `stale_on`, `type` (its name in the figures).

    Raises:
        ConfigError: names the option, its value and what is accepted.
    """

    def __init__(self, app: App, cache: Cache, **options: Unpack[MiddlewareOptions]) -> None:
        self.app = app
        self.front = Front(cache, middleware_rules(cache, options), "ResponseCache", asgi=True)
        self._look = self.front.core.look

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or REFRESH in scope:
            await self.app(scope, receive, send)
            return
        try:
            found = self._look(scope)
        except Exception as error:  # not a scope as ASGI has it
            self.front.warn("internal", repr(error))
            await self.app(scope, receive, send)
            return
        if type(found) is tuple:
            await send(found[0])
            await send(found[1])
            return
        await self._ask(scope, receive, send, found)

    async def _ask(self, scope: Scope, receive: Receive, send: Send, question: Any) -> None:
        front = self.front
        relay = Relay(front, question, send)

        async def ask_app(fields: list[tuple[str, str]]) -> Response:
            try:
                return await fetch(self.app, asking(scope, fields), receive, front.rules.max_body, relay)
            except Exception as error:
                relay.error = error
                raise

        ask = AsyncAsk(front, scope, question, ask_app)
        ask.again = self._refresh
        relay.ask = ask
        try:
            kind, what = stored_only(ask, asgi_timeout) if question.only_if_cached else await respond(front, ask)
        except Exception:
            if relay.error is None or not relay.sent:
                raise
        if relay.sent:
            if relay.error is not None:
                raise relay.error
            return  # it streamed, and went to the client as it came
        if kind == "answer":
            await send(what[0])
            await send(what[1])
        elif kind == "response":
            response, marks = what
            await deliver(response, marks, send)
        else:
            await self._pass(scope, receive, send, question, what)

    async def _pass(self, scope: Scope, receive: Receive, send: Send, question: Any, reason: str) -> None:
        front = self.front
        if reason == "off":
            await self.app(scope, receive, send)
            return
        marks = passed(front, question, reason)

        async def marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                if question.invalidates and 200 <= message["status"] < 400:
                    _core.invalidate_key(front.cache, front.scope, question.primary, False)
                message["headers"] = with_marks(message.get("headers", ()), marks)
            await send(message)

        await self.app(scope, receive, marked)

    def _refresh(self, ask: Ask, flight: Any) -> None:
        """A new request, from a copy of this one, as a task of this loop."""
        scope = bare(ask.raw)

        async def ask_app(fields: list[tuple[str, str]]) -> Response:
            return await fetch(self.app, asking(scope, fields), no_body(), self.front.rules.max_body, None)

        question: Any = self._look(scope, None, None, False)  # a GET of all of it
        question.key = flight.key
        spawn(_aload.run_load(AsyncAsk(ask.front, scope, question, ask_app), flight), flight)


def spawn(work: Any, flight: Any) -> None:
    """Runs a refresh as a task."""
    try:
        # In a context of its own: that of the first request is not the refresh's.
        task = contextvars.Context().run(asyncio.get_running_loop().create_task, work)
    except BaseException:
        work.close()
        raise
    flight.loop = asyncio.get_running_loop()
    _refreshes.add(task)

    def ended(task: asyncio.Task[None]) -> None:
        _refreshes.discard(task)
        if not task.cancelled():
            task.exception()  # the flight has it
        refresh_ended(flight)

    task.add_done_callback(ended)


class Relay:
    """Passes on, as it comes, what the app streams to the request that leads."""

    def __init__(self, front: Front, question: Any, send: Send) -> None:
        self.front, self.question, self.send = front, question, send
        self.ask: AsyncAsk | None = None
        self.sent = False
        self.error: Exception | None = None  # of the app, perhaps after the start

    async def start(self, start: Message, why: str, parts: list[bytes], ended: bool = False) -> None:
        self.sent = True
        flight = innermost()
        if self.ask is not None and flight is not None:  # those who wait do not wait for the end of a stream
            self.ask.brought = Unstored(None, False, why)
            finish(flight, VALUE, self.ask.brought)
            self.front.note_passing(self.question.key)
        marks = passed(self.front, self.question, why)
        start["headers"] = with_marks(start.get("headers", ()), marks)
        await self.send(start)
        for number, part in enumerate(parts, 1):
            more = not (ended and number == len(parts))
            await self.send({"type": "http.response.body", "body": part, "more_body": more})


async def fetch(app: App, scope: Scope, receive: Receive, max_body: int, relay: Relay | None) -> Response:
    """Asks the app. Its body is gathered if it comes in one part, or if its length is known and within the limit."""
    start: Message = {}
    parts: list[bytes] = []
    why = ""
    size = 0
    ended = False

    async def take(message: Message) -> None:
        nonlocal start, why, size, ended
        if message["type"] == "http.response.start":
            start = {**message, "headers": list(message.get("headers", ()))}
            return
        if message["type"] != "http.response.body":
            # Before the start: early hints, a push, a test's template. After it: trailers, a file: not for the store.
            if start and not why:
                why = "streaming"
                if relay is not None:
                    await relay.start(start, why, parts, ended)
            if relay is not None:
                await relay.send(message)
            return
        body, more = message.get("body", b""), message.get("more_body", False)
        ended = not more
        if not why:
            length = header(start.get("headers", ()), "content-length")
            size += len(body)
            if size > max_body or (length.isdecimal() and int(length) > max_body):
                why = "too-large"
            elif more and not length.isdecimal():
                why = "streaming"
            if why and relay is not None:
                await relay.start(start, why, parts)
        if why:
            parts.clear()
            if relay is not None:
                await relay.send(message)
        else:
            parts.append(bytes(body))

    await app(scope, receive, take)
    if not start:
        raise NoAnswerError("the app ended without an answer")
    if not ended and not why:  # its client may have gone, and it stopped: this is not all (RFC 9111, 3.3)
        why = "incomplete"
        if relay is not None:
            await relay.start(start, why, parts)
    status = start["status"]
    headers = [(bytes(key), bytes(value)) for key, value in start.get("headers", ())]
    return Response(status, line_of(status), headers, None if why else b"".join(parts), why)


_SCOPE = ("type", "asgi", "http_version", "scheme", "path", "raw_path", "query_string", "root_path", "client", "server")
_NOT_COPIED = (b"content-length", b"transfer-encoding", b"if-none-match", b"if-modified-since", b"range", b"if-range")


def bare(scope: Scope) -> Scope:
    """A copy for another request: method, URL and headers, no body, nothing that frameworks put there."""
    copy: Scope = {name: scope[name] for name in _SCOPE if name in scope}
    copy["method"] = "GET"
    copy["headers"] = [(key, value) for key, value in scope.get("headers", ()) if key not in _NOT_COPIED]
    if "state" in scope:
        copy["state"] = dict(scope["state"])
    return copy


def asking(scope: Scope, fields: list[tuple[str, str]]) -> Scope:
    """The scope with the cache's conditions in place of the client's, which the cache answers itself."""
    headers = [(k, v) for k, v in scope["headers"] if k not in (b"if-none-match", b"if-modified-since")]
    headers += [(name.lower().encode(), value.encode("latin-1")) for name, value in fields]
    return {**scope, "headers": headers}


def no_body() -> Receive:
    done = False

    async def receive() -> Message:
        nonlocal done
        if not done:
            done = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await asyncio.Event().wait()  # a client that stays until the task ends
        return {"type": "http.disconnect"}

    return receive


async def deliver(response: Response, marks: list[tuple[bytes, bytes]], send: Send) -> None:
    """The app's own answer, with the cache's marks."""
    headers = with_marks(response.headers, marks)
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    await send({"type": "http.response.body", "body": response.body or b""})


def asgi_timeout() -> Response:
    headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(GATEWAY_TIMEOUT)).encode())]
    return Response(504, "504 Gateway Timeout", headers, GATEWAY_TIMEOUT)
