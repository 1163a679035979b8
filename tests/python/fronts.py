"""One app behind four fronts: Flask and FastAPI, by decorator and by middleware, asked without sockets.

A test says what the app answers (`Reply` for what it has `Seen`), and sends requests; `Server` hides the framework.

Thread rule: a Server belongs to its test; `race` has its requests in flight at once, on threads or as tasks.
Refuses to know: what is tested.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple
from urllib.parse import unquote_to_bytes

import fastapi
import flask
import pytest

import stillwarm.fastapi
import stillwarm.flask
from stillwarm import Cache

FRONTS = ("flask", "wsgi", "fastapi", "asgi")
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
LIMIT = 20.0  # s after which a test gives up on what should have happened

each_front = pytest.mark.parametrize("front", FRONTS)
each_decorator = pytest.mark.parametrize("front", ["flask", "fastapi"])
each_middleware = pytest.mark.parametrize("front", ["wsgi", "asgi"])

Headers = Iterable[tuple[str, str]]


class Seen(NamedTuple):
    """A request as the app sees it."""

    method: str
    host: str
    path: str
    query: str
    headers: dict[str, str]
    number: int  # the first request is 1


class Reply(NamedTuple):
    status: int = 200
    headers: Headers = ()
    body: bytes = b"body"


@dataclass
class Answer:
    """What the client got. Names of headers in lower case."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes
    chunks: list[bytes]

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key == name]

    def __getitem__(self, name: str) -> Any:
        """The only field of a name, or None."""
        values = self.all(name)
        assert len(values) < 2, f"{name} came {len(values)} times"
        return values[0] if values else None

    @property
    def cache(self) -> str:
        return str(self["x-cache"])

    @property
    def cache_status(self) -> str:
        return str(self["cache-status"])


Handler = Callable[[Seen], Reply]


def until(condition: Callable[[], Any], what: str = "") -> None:
    """Waits for another thread."""
    deadline = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < deadline, f"it did not happen: {what}"
        threading.Event().wait(0.001)


# ------------------------------------------------------------------------------------------------------------ clients


def environ_of(
    path: str, method: str = "GET", host: str = "app.test", scheme: str = "http", headers: Any = (), body: bytes = b""
) -> dict[str, Any]:
    path, _, query = path.partition("?")
    environ: dict[str, Any] = {
        "REQUEST_METHOD": method,
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(path).decode("latin-1"),
        "QUERY_STRING": query,
        "SERVER_NAME": "app.test",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_HOST": host,
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scheme,
        "wsgi.input": io.BytesIO(body),
        "wsgi.errors": io.StringIO(),
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
    if body:
        environ["CONTENT_LENGTH"] = str(len(body))
    for name, value in dict(headers).items():
        environ["HTTP_" + name.upper().replace("-", "_")] = value
    return environ


def scope_of(
    path: str, method: str = "GET", host: str = "app.test", scheme: str = "http", headers: Any = (), body: bytes = b""
) -> dict[str, Any]:
    path, _, query = path.partition("?")
    fields = [("host", host), *dict(headers).items(), *([("content-length", str(len(body)))] if body else [])]
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": scheme,
        "path": unquote_to_bytes(path).decode(),
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in fields],
        "client": ("192.0.2.1", 50000),
        "server": ("app.test", 80),
    }


def ask_wsgi(app: Any, path: str = "/", **request: Any) -> Answer:
    """As a server does: headers when the first part is there, and `close` at the end."""
    started: list[Any] = []
    written: list[bytes] = []

    def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        started[:] = [status, headers]
        return written.append

    result = app(environ_of(path, **request), start_response)
    try:
        chunks = [chunk for chunk in result if chunk]
    finally:
        getattr(result, "close", lambda: None)()
    status, headers = started
    chunks = written + chunks
    return Answer(int(status[:3]), [(k.lower(), v) for k, v in headers], b"".join(chunks), chunks)


async def ask_asgi(app: Any, path: str = "/", **request: Any) -> Answer:
    messages: list[Any] = []
    body = [{"type": "http.request", "body": request.get("body", b""), "more_body": False}]

    async def receive() -> Any:
        if body:
            return body.pop()
        await asyncio.Event().wait()  # the client stays

    async def send(message: Any) -> None:
        messages.append(message)

    try:
        await app(scope_of(path, **request), receive, send)
    except Exception:
        if not messages:
            raise  # a server would answer 500; where there is an answer, the app only wants it logged
    start, *parts = [m for m in messages if m["type"].startswith("http.response.")]
    chunks = [part["body"] for part in parts if part.get("body")]
    headers = [(k.decode("latin-1").lower(), v.decode("latin-1")) for k, v in start["headers"]]
    return Answer(start["status"], headers, b"".join(chunks), chunks)


# ------------------------------------------------------------------------------------------------------------- the app


class Server:
    """An app that answers every path and method by `handler`, behind one of the fronts.

    Options are those of `cache_response` or of `ResponseCache`.
    """

    def __init__(self, front: str, cache: Cache, handler: Handler, app: Any = None, **options: Any) -> None:
        """`app`: a test's own app of that framework, in place of one that `handler` answers for."""
        self.front, self.cache, self.handler = front, cache, handler
        self.is_async = front in ("fastapi", "asgi")
        self.seen: list[Seen] = []
        self.inside = 0
        self._gate = threading.Event()
        self._gate.set()
        self._loop = asyncio.new_event_loop() if self.is_async else None
        self._held: asyncio.Event | None = None
        self.app: Any = getattr(self, f"_{front}")(options) if app is None else app

    def close(self) -> None:
        if self._loop is not None:
            self._loop.run_until_complete(self._loop.shutdown_default_executor())
            self._loop.close()

    @property
    def loads(self) -> int:
        return len(self.seen)

    def ask(self, path: str = "/", **request: Any) -> Answer:
        """One request: method, host, scheme, headers, body."""
        if self._loop is None:
            return ask_wsgi(self.app, path, **request)
        return self._loop.run_until_complete(ask_asgi(self.app, path, **request))

    def race(self, *requests: dict[str, Any]) -> list[Answer]:
        """All at once: the app answers nobody before every request is inside of it, or waits for another's answer."""
        before = self.inside + self.cache.stats().joined

        def there() -> bool:
            return self.inside + self.cache.stats().joined >= before + len(requests)

        if self._loop is not None:
            return self._loop.run_until_complete(self._tasks(requests, there))
        answers: list[Any] = [None] * len(requests)

        def one(index: int) -> None:
            answers[index] = ask_wsgi(self.app, **{"path": "/", **requests[index]})

        self._gate.clear()
        threads = [threading.Thread(target=one, args=(i,), daemon=True) for i in range(len(requests))]
        try:
            for thread in threads:
                thread.start()
                if thread is threads[0]:  # the first one leads
                    until(lambda: self.inside + self.cache.stats().joined > before, "the first request")
            until(there, "every request waits")
        finally:
            self._gate.set()
        for thread in threads:
            thread.join(LIMIT)
        return answers

    async def _tasks(self, requests: Iterable[dict[str, Any]], there: Callable[[], bool]) -> list[Answer]:
        self._held = asyncio.Event()
        tasks = [asyncio.ensure_future(ask_asgi(self.app, **{"path": "/", **request})) for request in requests]
        deadline = time.monotonic() + LIMIT
        while not there():
            assert time.monotonic() < deadline, "not every request waits"
            await asyncio.sleep(0)
        self._held.set()
        return await asyncio.gather(*tasks)

    def settle(self) -> None:
        """Until background refreshes have ended."""
        if self._loop is not None:
            self._loop.run_until_complete(self._others())
        until(lambda: self.cache.stats().flights == 0, "the refreshes end")

    @staticmethod
    async def _others() -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        if others:
            await asyncio.wait(others, timeout=LIMIT)

    def enter(self) -> None:
        """A view is inside of the app; where requests race it waits for the others."""
        self.inside += 1
        assert self._gate.wait(LIMIT)

    async def aenter(self) -> None:
        """`enter` for coroutines."""
        self.inside += 1
        if self._held is not None:
            await self._held.wait()

    def _saw(self, method: str, host: str, path: str, query: str, headers: dict[str, str]) -> Seen:
        seen = Seen(method, host, path, query, headers, len(self.seen) + 1)
        self.seen.append(seen)
        return seen

    # -------------------------------------------------------------------------------------------- of each framework

    def _flask(self, options: dict[str, Any]) -> flask.Flask:
        return self._flask_app(stillwarm.flask.Stillwarm(self.cache).cache_response(**{"ttl": 60, **options}))

    def _wsgi(self, options: dict[str, Any]) -> flask.Flask:
        app = self._flask_app(lambda view: view)
        app.wsgi_app = stillwarm.flask.ResponseCache(app.wsgi_app, self.cache, **options)  # type: ignore[method-assign]
        return app

    def _flask_app(self, decorate: Callable[[Any], Any]) -> flask.Flask:
        app = flask.Flask("app", static_folder=None)
        app.secret_key = "of the tests"
        app.url_map.merge_slashes = False

        def view(path: str) -> flask.Response:
            request = flask.request
            headers = {name.lower(): value for name, value in request.headers.items()}
            query = request.query_string.decode("latin-1")
            seen = self._saw(request.method, request.host, request.path, query, headers)
            self.enter()
            reply = self.handler(seen)
            response = flask.Response(reply.body, reply.status)
            for name, value in reply.headers:
                if name.lower() in ("content-type", "content-length"):
                    response.headers.remove(name)
                response.headers.add(name, value)
            return response

        wrapped = decorate(view)
        for rule, defaults in (("/", {"path": ""}), ("/<path:path>", None)):
            app.add_url_rule(rule, "view", wrapped, defaults=defaults, methods=METHODS, provide_automatic_options=False)
        return app

    def _fastapi(self, options: dict[str, Any]) -> fastapi.FastAPI:
        return self._fastapi_app(stillwarm.fastapi.Stillwarm(self.cache).cache_response(**{"ttl": 60, **options}))

    def _asgi(self, options: dict[str, Any]) -> fastapi.FastAPI:
        app = self._fastapi_app(lambda route: route)
        app.add_middleware(stillwarm.fastapi.ResponseCache, cache=self.cache, **options)  # type: ignore[arg-type]
        return app

    def _fastapi_app(self, decorate: Callable[[Any], Any]) -> fastapi.FastAPI:
        app = fastapi.FastAPI(openapi_url=None)

        async def route(request: fastapi.Request) -> fastapi.Response:
            url = request.url
            seen = self._saw(request.method, url.netloc, url.path, url.query, dict(request.headers))
            await self.aenter()
            reply = self.handler(seen)
            response = fastapi.Response(reply.body, reply.status)
            for name, value in reply.headers:
                if name.lower() in ("content-type", "content-length"):
                    response.headers[name] = value
                else:
                    response.headers.append(name, value)
            return response

        route.__annotations__ = {"request": fastapi.Request, "return": None}
        app.add_api_route("/{path:path}", decorate(route), methods=METHODS, response_model=None)
        return app


Serve = Callable[..., Server]


@contextlib.contextmanager
def serving(cache: Cache) -> Iterator[Serve]:
    """Gives `serve(front, handler, **options)`, which makes Servers on this cache and closes them at the end."""
    servers: list[Server] = []

    def serve(front: str, handler: Handler, **options: Any) -> Server:
        servers.append(Server(front, options.pop("cache", cache), handler, **options))
        return servers[-1]

    try:
        yield serve
    finally:
        for server in servers:
            server.close()


def numbered(*headers: tuple[str, str], status: int = 200) -> Handler:
    """An app whose answers are numbered, so that one can tell a new one from a stored one."""
    return lambda seen: Reply(status, headers, b"%d" % seen.number)
