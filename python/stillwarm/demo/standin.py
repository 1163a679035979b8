"""What stand-ins for somebody else's server share: a loopback port that survives a kill, held answers, counted calls.

Thread rule: every method from any thread; each connection has its own thread.
Refuses to know: what is asked and answered (`upstream`, `product_api`).
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from typing_extensions import Self


class StandIn:
    """A server that is not there until `start`, and can be killed and started again on the same port.

    Args:
        scale: factor on every latency; tests use a small one.
        port: 0 for any free one, kept over restarts.
    """

    name: ClassVar[str] = "stand-in"
    handler: ClassVar[type[StandInHandler]]

    def __init__(self, scale: float = 1.0, port: int = 0) -> None:
        self.scale = scale
        self.port = port
        self.changed = threading.Condition()
        self.counts: Counter[str] = Counter()
        self._released = threading.Event()
        self._released.set()
        self._server: _Server | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def running(self) -> bool:
        return self._server is not None

    @property
    def calls(self) -> int:
        """Calls that reached it so far."""
        with self.changed:
            return self.counts.total()

    def start(self) -> Self:
        """Listens; the port stays the same ever after."""
        if self._server is None:
            self._server = _Server(("127.0.0.1", self.port), self)
            self.port = self._server.server_port
            threading.Thread(target=self._server.serve_forever, args=(0.02,), name=self.name, daemon=True).start()
        return self

    def kill(self) -> None:
        """The port refuses, and open connections break off, also in the middle of an answer."""
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()
            server.break_connections()

    def hold(self) -> None:
        """From now on calls arrive and are counted, but wait for `release` before they are answered."""
        self._released.clear()

    def release(self) -> None:
        self._released.set()

    def wait_released(self) -> None:
        self._released.wait()

    def count(self, what: str) -> None:
        with self.changed:
            self.counts[what] += 1
            self.changed.notify_all()

    def wait_for_calls(self, count: int, timeout: float = 30.0) -> bool:
        """Waits until `calls` is at least `count`; False after `timeout` seconds."""
        with self.changed:
            return self.changed.wait_for(lambda: self.counts.total() >= count, timeout)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], owner: StandIn) -> None:
        self.owner = owner
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        super().__init__(address, owner.handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._open.discard(request)
        super().shutdown_request(request)

    def break_connections(self) -> None:
        with self._lock:
            connections = list(self._open)
        for connection in connections:
            with contextlib.suppress(OSError):  # the other side was quicker
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that broke off is this server's daily bread: nothing is printed."""


class StandInHandler(BaseHTTPRequestHandler):
    """One connection to a stand-in."""

    server: _Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def send_document(self, status: int, document: dict[str, Any], *headers: tuple[str, str]) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        for name, value in (("Content-Type", "application/json"), ("Content-Length", str(len(body))), *headers):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing is printed: the demo says what happened."""


__all__ = ["StandIn", "StandInHandler"]
