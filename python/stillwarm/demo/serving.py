"""Serves a WSGI app on a loopback port: a thread per connection, connections stay open, a thousand may come at once.

The servers that come with Flask and Python close the connection after every answer, which costs more than a cache hit.

Thread rule: start and stop from any thread.
Refuses to know: which app it serves. For a demo, not for production: bodies are read and written whole.
"""

from __future__ import annotations

import io
import resource
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

_MOST_BODY = 1_000_000


class AppServer(ThreadingHTTPServer):
    """The app, answering from construction on at `url`.

    Args:
        port: 0 for any free one.

    Raises:
        OSError: the port cannot be had.
    """

    daemon_threads = True
    block_on_close = False
    request_queue_size = 1024

    def __init__(self, app: WSGIApplication, port: int = 0) -> None:
        self.app = app
        super().__init__(("127.0.0.1", port), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, args=(0.02,), name="demo-app", daemon=True).start()

    def stop(self) -> None:
        self.shutdown()
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no news; everything else is."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: AppServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def _answer(self) -> None:
        length = self.headers.get("Content-Length", "0")
        if not length.isdecimal() or int(length) > _MOST_BODY or "Transfer-Encoding" in self.headers:
            self.close_connection = True
            self.send_error(413 if length.isdecimal() else 400)
            return
        chunks: list[bytes] = []

        def start_response(status: str, headers: list[tuple[str, str]], exc_info: object = None) -> Any:
            code, _, reason = status.partition(" ")
            self.send_response(int(code), reason)
            for name, value in headers:
                self.send_header(name, value)
            return chunks.append

        answer = self.server.app(self._environ(self.rfile.read(int(length))), start_response)
        try:
            chunks.extend(answer)
        finally:
            getattr(answer, "close", lambda: None)()
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(b"".join(chunks))

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_OPTIONS = _answer  # noqa: N815

    def _environ(self, body: bytes) -> dict[str, Any]:
        path, _, query = self.path.partition("?")
        environ: dict[str, Any] = {
            "REQUEST_METHOD": self.command,
            "SCRIPT_NAME": "",
            "PATH_INFO": unquote(path, "latin-1"),
            "QUERY_STRING": query,
            "SERVER_NAME": "127.0.0.1",
            "SERVER_PORT": str(self.server.server_port),
            "SERVER_PROTOCOL": self.request_version,
            "REMOTE_ADDR": self.client_address[0],
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "http",
            "wsgi.input": io.BytesIO(body),
            "wsgi.errors": sys.stderr,
            "wsgi.multithread": True,
            "wsgi.multiprocess": False,
            "wsgi.run_once": False,
        }
        for name, value in self.headers.items():
            environ.setdefault("HTTP_" + name.upper().replace("-", "_"), value)
        return environ

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing is printed: the demo says what happened."""


def allow_connections(count: int) -> int:
    """Makes room for `count` connections that have both ends in this process; how many of them there is room for."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * count + 256
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return count if soft == resource.RLIM_INFINITY else min(count, max(1, (soft - 256) // 2))


__all__ = ["AppServer", "allow_connections"]
