"""ResponseCache for WSGI apps (PEP 3333): `app.wsgi_app = ResponseCache(app.wsgi_app, cache)`.

It obeys what the app's own answers say: Cache-Control, Vary, ETag, Last-Modified, Expires.

Thread rule: any thread.
Refuses to know: frameworks, and the rules of HTTP (cpp/core/http).
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from stillwarm import _core, _load
from stillwarm.web.facts import Response, header, with_marks
from stillwarm.web.front import Front
from stillwarm.web.options import middleware_rules
from stillwarm.web.serve import GATEWAY_TIMEOUT, Ask, in_pool, passed, refresh_ended, respond, stored_only

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment
    from typing_extensions import Unpack

    from stillwarm._cache import Cache
    from stillwarm.web.options import MiddlewareOptions

REFRESH = "stillwarm.refresh"  # environ of a background refresh: who answers it, and for which flight


class ResponseCache:
    """A WSGI app in front of a WSGI app, which answers from the cache what may be answered from there.

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

    def __init__(self, app: WSGIApplication, cache: Cache, **options: Unpack[MiddlewareOptions]) -> None:
        self.app = app
        self.front = Front(cache, middleware_rules(cache, options), "ResponseCache", asgi=False)
        self._look = self.front.core.look

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if REFRESH in environ:
            return self.app(environ, start_response)
        try:
            found = self._look(environ)
        except Exception as error:  # not an environ as PEP 3333 has it
            self.front.warn("internal", repr(error))
            return self.app(environ, start_response)
        if type(found) is tuple:
            start_response(found[0], found[1])
            return (found[2],)
        return self._ask(environ, start_response, found)

    def _ask(self, environ: WSGIEnvironment, start_response: StartResponse, question: Any) -> Iterable[bytes]:
        front = self.front
        opened: list[Response] = []

        def ask_app(fields: list[tuple[str, str]]) -> Response:
            opened.append(fetch(self.app, asking(environ, fields), front.rules.max_body))
            return opened[-1]

        ask = Ask(front, environ, question, ask_app)
        ask.again = self._refresh
        kind, what = stored_only(ask, wsgi_timeout) if question.only_if_cached else respond(front, ask)
        for one in opened:  # a body that nobody sends: a stale answer stands in for it
            if one.close is not None and not (kind == "response" and what[0].live is one.live):
                one.close()
        if kind == "answer":
            start_response(what[0], what[1])
            return (what[2],)
        if kind == "response":
            response, marks = what
            return deliver(response, marks, start_response)
        return self._pass(environ, start_response, question, what)

    def _pass(self, environ: Any, start_response: Any, question: Any, reason: str) -> Iterable[bytes]:
        front = self.front
        if reason == "off":
            return self.app(environ, start_response)
        marks = passed(front, question, reason)

        def started(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            if question.invalidates and status[:1] in "23":
                _core.invalidate_key(front.cache, front.scope, question.primary, False)
            return start_response(status, with_marks(headers, marks), *((exc_info,) if exc_info else ()))

        return self.app(environ, started)

    def _refresh(self, ask: Ask, flight: Any) -> None:
        """A new request, from a copy of this one, on a thread of the load pool."""
        environ = bare(ask.raw)
        question: Any = self._look(environ, None, None, False)  # a GET of all of it, whatever this request is
        question.key = flight.key
        fresh = Ask(ask.front, environ, question, lambda fields: self._fetch_again(environ, fields))

        def run() -> None:
            try:
                _load.run_detached(fresh, flight)
            finally:
                refresh_ended(flight)

        in_pool(fresh, flight, run)

    def _fetch_again(self, environ: Any, fields: list[tuple[str, str]]) -> Response:
        response = fetch(self.app, asking(environ, fields), self.front.rules.max_body)
        if response.close is not None:
            response.close()
        return response


def bare(environ: WSGIEnvironment) -> WSGIEnvironment:
    """A copy for another request: method, URL and headers, no body, nothing that frameworks put there."""
    copy: dict[str, Any] = {key: value for key, value in environ.items() if isinstance(value, str) and "." not in key}
    for name in _NOT_COPIED:
        copy.pop(name, None)
    copy["REQUEST_METHOD"] = "GET"
    for name in ("wsgi.version", "wsgi.url_scheme", "wsgi.multithread", "wsgi.multiprocess", "wsgi.run_once"):
        if name in environ:
            copy[name] = environ[name]
    copy["wsgi.input"], copy["wsgi.errors"] = io.BytesIO(), environ.get("wsgi.errors")
    return copy


_CONDITIONS = ("HTTP_IF_NONE_MATCH", "HTTP_IF_MODIFIED_SINCE")
_NOT_COPIED = (*_CONDITIONS, "CONTENT_LENGTH", "HTTP_TRANSFER_ENCODING", "HTTP_RANGE", "HTTP_IF_RANGE")


def asking(environ: WSGIEnvironment, fields: list[tuple[str, str]]) -> WSGIEnvironment:
    """The environ with the cache's conditions in place of the client's, which the cache answers itself."""
    asked = environ.copy()
    for name in _CONDITIONS:
        asked.pop(name, None)
    for name, value in fields:
        asked["HTTP_" + name.upper().replace("-", "_")] = value
    return asked


def fetch(app: WSGIApplication, environ: WSGIEnvironment, max_body: int) -> Response:
    """Asks the app. Its body is gathered if its length is known and within the limit."""
    started: list[Any] = []
    written: list[bytes] = []

    def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Callable[[bytes], object]:
        started[:] = [status, headers]
        return written.append

    body = app(environ, start_response)
    close = getattr(body, "close", None)
    try:
        chunks = iter(body)
        first = None
        if not started:  # a generator starts with its first part
            first = next(chunks, b"")
        line, headers = started
        size = header(headers, "content-length")
        known = isinstance(body, (list, tuple)) or (size.isdecimal() and int(size) <= max_body)
        if environ["REQUEST_METHOD"] == "HEAD" or line[:3] in ("204", "304"):
            known = True
        if known:
            parts = written + ([first] if first is not None else []) + list(chunks)
            whole = b"".join(parts)
            if len(whole) <= max_body:
                ended, close = close, None  # once, even if it raises
                if ended is not None:
                    ended()
                return Response(int(line[:3]), line, headers, whole)
            chunks, first, written = iter([whole]), None, []
        why = "too-large" if known or size else "streaming"
        live = _chain(written, first, chunks)
        return Response(int(line[:3]), line, headers, None, why, live, close)
    except BaseException:
        if close is not None:
            close()
        raise


def _chain(written: list[bytes], first: bytes | None, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield from written
    if first is not None:
        yield first
    yield from rest


class _Closing:
    """The rest of a body, which is closed with it."""

    def __init__(self, parts: Iterator[bytes], close: Callable[[], None]) -> None:
        self._parts, self.close = parts, close

    def __iter__(self) -> Iterator[bytes]:
        return self._parts


def deliver(response: Response, marks: list[tuple[str, str]], start_response: StartResponse) -> Iterable[bytes]:
    """The app's own answer, with the cache's marks."""
    start_response(response.line, with_marks(response.headers, marks))
    if response.body is not None:
        return (response.body,)
    return _Closing(response.live, response.close) if response.close is not None else response.live


def wsgi_timeout() -> Response:
    headers = [("Content-Type", "text/plain"), ("Content-Length", str(len(GATEWAY_TIMEOUT)))]
    return Response(504, "504 Gateway Timeout", headers, GATEWAY_TIMEOUT)
