"""A stand-in for a search server: no search engine, but as slow as one, with figures from a list of orders in memory.

It answers seven fixed queries over real HTTP, each after a fixed latency, 610 ms together; it counts what it answers,
takes new orders, and can be killed and started again on the same port, or told to hold its answers back.

Thread rule: every method from any thread; each connection has its own thread.
Refuses to know: who asks, and that there are caches.
"""

from __future__ import annotations

import contextlib
import json
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

Order = dict[str, Any]

LATENCY_MS: Final[dict[str, int]] = {
    "orders": 130,
    "revenue": 110,
    "customers": 95,
    "average_order": 85,
    "top_product": 75,
    "countries": 65,
    "largest_order": 50,
}
_PRODUCTS: Final = ("kettle", "lamp", "scarf", "teapot", "blanket", "mug")
_COUNTRIES: Final = ("AT", "DE", "DK", "ES", "FR", "IT", "NL", "PL", "SE")


def _top_product(orders: list[Order]) -> str:
    return Counter(order["product"] for order in orders).most_common(1)[0][0] if orders else ""


_ANSWERS: Final[dict[str, Callable[[list[Order]], Any]]] = {
    "orders": len,
    "revenue": lambda orders: round(sum(order["amount"] for order in orders), 2),
    "customers": lambda orders: len({order["customer"] for order in orders}),
    "average_order": lambda orders: round(sum(order["amount"] for order in orders) / max(1, len(orders)), 2),
    "top_product": _top_product,
    "countries": lambda orders: len({order["country"] for order in orders}),
    "largest_order": lambda orders: max((order["amount"] for order in orders), default=0),
}


class SearchServer:
    """The stand-in. Orders outlive a kill, as documents on a disk would.

    Args:
        scale: factor on every latency; tests use a small one.
        port: 0 for any free one, kept over restarts.
    """

    def __init__(self, scale: float = 1.0, port: int = 0) -> None:
        self.scale = scale
        self.port = port
        self.last_answer = 0.0  # time.monotonic() of the last query that was answered
        self._seed_orders()
        self._changed = threading.Condition()
        self._counts: Counter[str] = Counter()
        self._released = threading.Event()
        self._released.set()
        self._server: _Server | None = None

    def _seed_orders(self) -> None:
        draw = random.Random(610)
        self.orders: list[Order] = [
            {
                "customer": f"customer-{draw.randrange(200)}",
                "product": draw.choice(_PRODUCTS),
                "country": draw.choice(_COUNTRIES),
                "amount": round(draw.uniform(5, 250), 2),
            }
            for _ in range(500)
        ]

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

    def answer(self, query: str) -> Any:
        """Counts the query, takes its time, and returns its figure."""
        with self._changed:
            self._counts[query] += 1
            self._changed.notify_all()
        figure = _ANSWERS[query](list(self.orders))  # as of now: what is written while it works is not in it
        time.sleep(LATENCY_MS[query] * self.scale / 1000)
        self._released.wait()
        return figure

    def add(self, order: Order) -> int:
        """Takes an order; how many there are then."""
        self.orders.append(order)
        return len(self.orders)


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
        path, _, query = self.path.partition("?query=")
        if path != "/orders/_search" or query not in LATENCY_MS:
            return self._send(404, {"error": f"accepted: /orders/_search?query= with one of {', '.join(LATENCY_MS)}"})
        figure = self.server.owner.answer(query)
        self._send(200, {"query": query, "figure": figure})
        self.server.owner.last_answer = time.monotonic()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path != "/orders/_doc":
            return self._send(404, {"error": "accepted: POST /orders/_doc"})
        self._send(201, {"orders": self.server.owner.add(json.loads(body))})

    def _send(self, status: int, document: dict[str, Any]) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing is printed: the demo says what happened."""


__all__ = ["LATENCY_MS", "SearchServer"]
