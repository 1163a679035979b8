"""Serves an ASGI app on a loopback port, on an event loop in a thread of its own; connections stay open.

`serving` for coroutines: a demo needs no server package. In production it is uvicorn, hypercorn or another one.

Thread rule: start and stop from any thread that is not the loop's.
Refuses to know: which app it serves. For a demo, not for production: bodies are read and written whole.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Awaitable, Callable, Coroutine, MutableMapping
from http import HTTPStatus
from typing import Any, TypeVar
from urllib.parse import unquote

App = Callable[
    [MutableMapping[str, Any], Callable[[], Awaitable[Any]], Callable[[Any], Awaitable[None]]], Awaitable[None]
]

T = TypeVar("T")

_MOST_BODY = 1_000_000
_MOST_HEAD = 65_536


class BadRequestError(Exception):
    """What came is no request that this server reads; the argument is the status to answer."""


class AsgiServer:
    """The app, answering from construction on at `url`.

    Args:
        port: 0 for any free one.
        lifespan: the app hears of its start, before the first request, and of its end.

    Raises:
        OSError: the port cannot be had.
        RuntimeError: the app says that it cannot start.
    """

    def __init__(self, app: App, port: int = 0, *, lifespan: bool = False) -> None:
        self.app = app
        self._lifespan = Lifespan(app) if lifespan else None
        self._socket = socket.create_server(("127.0.0.1", port), backlog=1024)
        self.server_port: int = self._socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.server_port}"
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="demo-app", daemon=True)
        self._thread.start()
        try:
            self._server = asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(30)
        except BaseException:
            self._socket.close()
            self._halt()
            raise

    async def _start(self) -> asyncio.Server:
        if self._lifespan is not None:
            await self._lifespan.tell("startup")
        return await asyncio.start_server(self._connection, sock=self._socket, limit=_MOST_HEAD)

    def run(self, work: Coroutine[Any, Any, T], timeout: float = 60.0) -> T:
        """The result of a coroutine that runs on the app's loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout)

    def stop(self) -> None:
        """Ends every connection. May be called twice."""
        if self._loop.is_closed():
            return
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(30)
        self._halt()

    def _halt(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(30)
        self._loop.close()

    async def _end(self) -> None:
        self._server.close()
        if self._lifespan is not None:
            await self._lifespan.tell("shutdown")
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await self._loop.shutdown_asyncgens()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await self._exchange(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # a client that went away is no news, and `stop` has the last word
        finally:
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request and its answer; whether the connection stays."""
        try:
            scope, length = _scope((await reader.readuntil(b"\r\n\r\n")).decode("latin-1"), self.server_port)
        except asyncio.LimitOverrunError:
            return await _refuse(writer, 431)
        except BadRequestError as error:
            return await _refuse(writer, error.args[0])
        body = await reader.readexactly(length)
        received = False

        async def receive() -> dict[str, Any]:
            nonlocal received
            if received:
                return {"type": "http.disconnect"}
            received = True
            return {"type": "http.request", "body": body, "more_body": False}

        start: dict[str, Any] = {}
        chunks: list[bytes] = []

        async def send(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                start.update(message)
            elif message["type"] == "http.response.body":
                chunks.append(message.get("body", b""))

        try:
            await self.app(scope, receive, send)
        except Exception:
            if not start:  # the app has answered already, as Starlette does before it raises
                return await _refuse(writer, 500)
        keep = b"close" not in dict(scope["headers"]).get(b"connection", b"").lower()
        writer.write(_answer(start["status"], start.get("headers", ()), b"".join(chunks), scope["method"] == "HEAD"))
        await writer.drain()
        return keep


class Lifespan:
    """An app's start and end, as ASGI has them: one call of the app, which ends with it."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._told: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._said: asyncio.Queue[MutableMapping[str, Any]] = asyncio.Queue()
        self._task: asyncio.Future[None] | None = None

    async def tell(self, what: str) -> None:
        """ "startup" or "shutdown", and waits until the app has done it.

        Raises:
            RuntimeError: it failed.
        """
        if self._task is None:
            scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": {}}
            self._task = asyncio.ensure_future(self._app(scope, self._told.get, self._said.put))
        self._told.put_nowait({"type": f"lifespan.{what}"})
        said = asyncio.ensure_future(self._said.get())
        both: set[asyncio.Future[Any]] = {said, self._task}
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        if not said.done() or said.result()["type"] != f"lifespan.{what}.complete":
            said.cancel()
            raise RuntimeError(f"the app's {what} failed")


def _scope(head: str, port: int) -> tuple[dict[str, Any], int]:
    """The ASGI scope of a request, and the length of its body.

    Raises:
        BadRequestError: with the status to answer.
    """
    first, *lines = head[:-4].split("\r\n")
    words = first.split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1.") or not words[1].startswith("/"):
        raise BadRequestError(400)
    headers = []
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name or name != name.strip():
            raise BadRequestError(400)
        headers.append((name.lower().encode("latin-1"), value.strip().encode("latin-1")))
    by_name = dict(headers)
    length = by_name.get(b"content-length", b"0")
    if b"transfer-encoding" in by_name or not length.isdigit():
        raise BadRequestError(400)
    if int(length[:18]) > _MOST_BODY:
        raise BadRequestError(413)
    path, _, query = words[1].partition("?")
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": words[0],
        "scheme": "http",
        "path": unquote(path),
        "raw_path": path.encode("latin-1"),
        "query_string": query.encode("latin-1"),
        "root_path": "",
        "headers": headers,
        "client": ("127.0.0.1", 0),
        "server": ("127.0.0.1", port),
    }, int(length)


def _answer(status: int, headers: Any, body: bytes, head_only: bool) -> bytes:
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = ""
    lines = [f"HTTP/1.1 {status} {phrase}".encode()]
    lines += [name + b": " + value for name, value in headers]
    if not any(name.lower() == b"content-length" for name, _ in headers) and status not in (204, 304):
        lines.append(b"content-length: %d" % len(body))
    return b"\r\n".join(lines) + b"\r\n\r\n" + (b"" if head_only else body)


async def _refuse(writer: asyncio.StreamWriter, status: int) -> bool:
    writer.write(_answer(status, [(b"connection", b"close")], b"", False))
    await writer.drain()
    return False


__all__ = ["AsgiServer"]
