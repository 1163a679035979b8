"""A stand-in for a search server: no search engine, but as slow as one, with answers from documents in memory.

It answers its queries over real HTTP, each after a fixed latency, the dashboard's seven in 610 ms together; it counts
what it answers, takes new orders and prices, and can be killed and started again on the same port, or told to hold its
answers back.

Thread rule: every method from any thread; each connection has its own thread.
Refuses to know: who asks, and that there are caches.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from stillwarm.demo.documents import LATENCY_MS, PAGE_LATENCY_MS, Document, Documents

_LATENCIES: Final = {**LATENCY_MS, **PAGE_LATENCY_MS}


class SearchServer:
    """The stand-in. Its documents outlive a kill, as those on a disk would.

    Args:
        scale: factor on every latency; tests use a small one.
        port: 0 for any free one, kept over restarts.
    """

    def __init__(self, scale: float = 1.0, port: int = 0) -> None:
        self.scale = scale
        self.port = port
        self.last_answer = 0.0  # time.monotonic() of the last query that was answered
        self.documents = Documents()
        self._changed = threading.Condition()
        self._counts: Counter[str] = Counter()
        self._released = threading.Event()
        self._released.set()
        self._server: _Server | None = None

    @property
    def orders(self) -> list[Document]:
        return self.documents.orders

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def running(self) -> bool:
        return self._server is not None

    @property
    def queries(self) -> int:
        """Queries that reached it so far."""
        with self._changed:
            return self._counts.total()

    def start(self) -> SearchServer:
        """Listens; the port stays the same ever after."""
        if self._server is None:
            self._server = _Server(("127.0.0.1", self.port), self)
            self.port = self._server.server_port
            loop = threading.Thread(target=self._server.serve_forever, args=(0.02,), name="search-server", daemon=True)
            loop.start()
        return self

    def kill(self) -> None:
        """The port refuses, and open connections break off, also in the middle of an answer."""
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()
            server.break_connections()

    def hold(self) -> None:
        """From now on queries arrive and are counted, but wait for `release` before they are answered."""
        self._released.clear()

    def release(self) -> None:
        self._released.set()

    def wait_for_queries(self, count: int, timeout: float = 30.0) -> bool:
        """Waits until `queries` is at least `count`; False after `timeout` seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: self._counts.total() >= count, timeout)

    def answer(self, query: str, of: str = "") -> Any:
        """Counts the query, takes its time, and returns its answer.

        Raises:
            LookupError: there is no such query, or nothing of that id.
        """
        with self._changed:
            self._counts[query] += 1
            self._changed.notify_all()
        found = self.documents.answer(query, of)  # as of now: what is written while it works is not in it
        time.sleep(_LATENCIES[query] * self.scale / 1000)
        self._released.wait()
        return found

    def add(self, order: Document) -> int:
        """Takes an order; how many there are then."""
        return self.documents.add(order)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], owner: SearchServer) -> None:
        self.owner = owner
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        super().__init__(address, _Handler)

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


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        fields = {name: values[0] for name, values in parse_qs(parts.query).items()}
        if parts.path != "/_search" or "query" not in fields:
            return self._send(404, {"error": f"accepted: /_search?query= with one of {', '.join(_LATENCIES)}"})
        try:
            found = self.server.owner.answer(fields["query"], fields.get("of", ""))
        except LookupError as error:
            return self._send(404, {"error": str(error)})
        self._send(200, {"query": fields["query"], "answer": found})
        self.server.owner.last_answer = time.monotonic()

    def do_POST(self) -> None:
        document = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))))
        try:
            if self.path == "/orders/_doc":
                self.server.owner.add(document)
            elif self.path == "/products/_price":
                self.server.owner.documents.set_price(document["product"], document["price"])
            else:
                raise LookupError("accepted: POST /orders/_doc, /products/_price")
        except LookupError as error:
            return self._send(404, {"error": str(error)})
        self._send(201, {"result": "created"})

    def _send(self, status: int, document: dict[str, Any]) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing is printed: the demo says what happened."""


__all__ = ["SearchServer"]
