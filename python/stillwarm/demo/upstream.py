"""A stand-in for a search server: no search engine, but as slow as one, with answers from documents in memory.

It answers its queries over real HTTP, each after a fixed latency, the dashboard's seven in 610 ms together; it counts
what it answers, takes new orders and prices, and can be killed and started again on the same port, or told to hold its
answers back.

Thread rule: every method from any thread; each connection has its own thread.
Refuses to know: who asks, and that there are caches.
"""

from __future__ import annotations

import json
import time
from typing import Any, Final, cast
from urllib.parse import parse_qs, urlsplit

from stillwarm.demo.documents import LATENCY_MS, PAGE_LATENCY_MS, Document, Documents
from stillwarm.demo.standin import StandIn, StandInHandler

_LATENCIES: Final = {**LATENCY_MS, **PAGE_LATENCY_MS}


class _Handler(StandInHandler):
    @property
    def owner(self) -> SearchServer:
        return cast(SearchServer, self.server.owner)

    def do_GET(self) -> None:  # noqa: N802
        parts = urlsplit(self.path)
        fields = {name: values[0] for name, values in parse_qs(parts.query).items()}
        if parts.path != "/_search" or "query" not in fields:
            return self.send_document(404, {"error": f"accepted: /_search?query= with one of {', '.join(_LATENCIES)}"})
        try:
            found = self.owner.answer(fields["query"], fields.get("of", ""))
        except LookupError as error:
            return self.send_document(404, {"error": str(error)})
        self.send_document(200, {"query": fields["query"], "answer": found})
        self.owner.last_answer = time.monotonic()

    def do_POST(self) -> None:  # noqa: N802
        document = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))))
        try:
            if self.path == "/orders/_doc":
                self.owner.add(document)
            elif self.path == "/products/_price":
                self.owner.documents.set_price(document["product"], document["price"])
            else:
                raise LookupError("accepted: POST /orders/_doc, /products/_price")
        except LookupError as error:
            return self.send_document(404, {"error": str(error)})
        self.send_document(201, {"result": "created"})


class SearchServer(StandIn):
    """The stand-in. Its documents outlive a kill, as those on a disk would."""

    name = "search-server"
    handler = _Handler

    def __init__(self, scale: float = 1.0, port: int = 0) -> None:
        super().__init__(scale, port)
        self.last_answer = 0.0  # time.monotonic() of the last query that was answered
        self.documents = Documents()

    @property
    def orders(self) -> list[Document]:
        return self.documents.orders

    @property
    def queries(self) -> int:
        """Queries that reached it so far."""
        return self.calls

    def wait_for_queries(self, count: int, timeout: float = 30.0) -> bool:
        """Waits until `queries` is at least `count`; False after `timeout` seconds."""
        return self.wait_for_calls(count, timeout)

    def answer(self, query: str, of: str = "") -> Any:
        """Counts the query, takes its time, and returns its answer.

        Raises:
            LookupError: there is no such query, or nothing of that id.
        """
        self.count(query)
        found = self.documents.answer(query, of)  # as of now: what is written while it works is not in it
        time.sleep(_LATENCIES[query] * self.scale / 1000)
        self.wait_released()
        return found

    def add(self, order: Document) -> int:
        """Takes an order; how many there are then."""
        return self.documents.add(order)


__all__ = ["SearchServer"]
