"""The app's client of the search server.

Thread rule: any thread; each call has a connection of its own.
Refuses to know: that the server is a stand-in, and that its answers are cached.
"""

from __future__ import annotations

import json
from http.client import HTTPConnection
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

QUERIES: Final = ("orders", "revenue", "customers", "average_order", "top_product", "countries", "largest_order")


class NoSuchDocumentError(Exception):
    """The search server has nothing of that id."""


class Search:
    """Asks the search server at `url`.

    Raises:
        OSError: each method, when there is no answer within five seconds, or an error of the server's own.
        NoSuchDocumentError: each method, when the server has nothing of that id.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "", parts.port

    def figures(self) -> dict[str, Any]:
        """The seven figures of the dashboard, asked one after the other."""
        connection = self._connect()
        try:
            return {query: self._ask(connection, "GET", f"/_search?query={query}")["answer"] for query in QUERIES}
        finally:
            connection.close()

    def ask(self, query: str, of: object = "") -> Any:
        """The answer to one query."""
        return self._once("GET", f"/_search?{urlencode({'query': query, 'of': of})}")["answer"]

    def add_order(self, order: dict[str, Any]) -> None:
        self._once("POST", "/orders/_doc", order)

    def set_price(self, product: int, price: float) -> None:
        self._once("POST", "/products/_price", {"product": product, "price": price})

    def _connect(self) -> HTTPConnection:
        return HTTPConnection(self._host, self._port, timeout=5)

    def _once(self, method: str, path: str, document: dict[str, Any] | None = None) -> Any:
        connection = self._connect()
        try:
            return self._ask(connection, method, path, None if document is None else json.dumps(document))
        finally:
            connection.close()

    def _ask(self, connection: HTTPConnection, method: str, path: str, body: str | None = None) -> Any:
        connection.request(method, path, body)
        answer = connection.getresponse()
        document = json.loads(answer.read())
        if answer.status == 404:
            raise NoSuchDocumentError(document["error"])
        if answer.status >= 400:
            raise ConnectionError(f"the search server answered {answer.status} to {method} {path}")
        return document


__all__ = ["QUERIES", "NoSuchDocumentError", "Search"]
