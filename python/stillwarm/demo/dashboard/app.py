"""The app: a Flask page of figures that needs seven search queries, one after the other, and a route that writes.

What stillwarm does for it are the three lines with `cache` in them: `@cache.cached`, `cache.invalidate`, `cache.stats`.

Thread rule: requests on any thread.
Refuses to know: who drives it, and that its search server is a stand-in.
"""

from __future__ import annotations

import json
import time
from http.client import HTTPConnection
from importlib.resources import files
from typing import Any
from urllib.parse import urlsplit

from flask import Flask, Response, jsonify, request

from stillwarm import Cache

QUERIES = ("orders", "revenue", "customers", "average_order", "top_product", "countries", "largest_order")


def create_app(search_url: str, cache: Cache, ttl: float | str = "5m", stale_if_error: float | str = "1h") -> Flask:
    """The app in front of the search server at `search_url`.

    Args:
        ttl: how long the figures are fresh; a duration.
        stale_if_error: how long after that they may stand in when the search server does not answer.
    """
    app = Flask(__name__)
    search = SearchClient(search_url)

    @cache.cached(ttl=ttl, stale_if_error=stale_if_error, jitter=0, tags=["orders"])
    def figures() -> dict[str, Any]:
        found = search.figures(QUERIES)
        return {"figures": found, "loaded": time.monotonic()}

    @app.get("/api/dashboard")
    def dashboard() -> Response:
        start = time.monotonic()
        value = figures()
        age = time.monotonic() - value["loaded"]
        # Whoever waited for a load, one's own or another's, has a value that is newer than the request.
        label = "MISS" if value["loaded"] >= start else "HIT" if age <= fresh_for else "STALE"
        answer = jsonify(status="success", figures=value["figures"], age_seconds=round(age, 3))
        answer.headers["X-Cache"] = label
        answer.headers["Age"] = str(int(age))
        return answer

    fresh_for = figures.cache_parameters()["ttl"]

    @app.post("/api/orders")
    def add_order() -> tuple[Response, int]:
        try:
            order = checked_order(request.get_json(silent=True))
        except ValueError as error:
            return jsonify(status="error", message=str(error)), 400
        search.add(order)
        cache.invalidate(tag="orders")
        return jsonify(status="success"), 201

    @app.get("/api/cache/stats")
    def stats() -> Response:
        now = cache.stats()
        names = ("hits", "stale_hits", "misses", "joined", "loads", "load_errors", "lost_fills", "entries", "bytes")
        counts = {name: getattr(now, name) for name in names}
        counts["hit_rate"] = round(100 * now.hit_rate, 2)
        return jsonify(status="success", cache_stats={**counts, "state": now.state})

    @app.get("/")
    def page() -> Response:
        return Response(files(__package__).joinpath("page.html").read_text("utf-8"), mimetype="text/html")

    @app.errorhandler(OSError)
    def unavailable(error: OSError) -> tuple[Response, int]:
        return jsonify(status="error", message="the search server does not answer"), 503

    return app


class SearchClient:
    """Asks the search server: a connection per call, five seconds for an answer, OSError when there is none."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "", parts.port

    def figures(self, queries: tuple[str, ...]) -> dict[str, Any]:
        """The figure of each query, asked one after the other."""
        connection = HTTPConnection(self._host, self._port, timeout=5)
        try:
            answers = [self._ask(connection, "GET", f"/orders/_search?query={query}") for query in queries]
        finally:
            connection.close()
        return {answer["query"]: answer["figure"] for answer in answers}

    def add(self, order: dict[str, Any]) -> None:
        connection = HTTPConnection(self._host, self._port, timeout=5)
        try:
            self._ask(connection, "POST", "/orders/_doc", json.dumps(order))
        finally:
            connection.close()

    def _ask(self, connection: HTTPConnection, method: str, path: str, body: str | None = None) -> Any:
        connection.request(method, path, body)
        answer = connection.getresponse()
        document = answer.read()
        if answer.status >= 400:
            raise ConnectionError(f"the search server answered {answer.status} to {method} {path}")
        return json.loads(document)


def checked_order(document: Any) -> dict[str, Any]:
    """The order in a request's body.

    Raises:
        ValueError: says what keeps it from being stored, and what is accepted.
    """
    if not isinstance(document, dict):
        raise ValueError("the body is not a JSON object; accepted: customer, product, country, amount")
    for name in ("customer", "product", "country"):
        if not isinstance(document.get(name), str) or not document[name]:
            raise ValueError(f"{name}={document.get(name)!r}: accepted: text that is not empty")
    amount = document.get("amount")
    if isinstance(amount, bool) or not isinstance(amount, (int, float)) or not 0 < amount < 1e9:
        raise ValueError(f"amount={amount!r}: accepted: a number above 0 and below 1e9")
    return {name: document[name] for name in ("customer", "product", "country", "amount")}


__all__ = ["QUERIES", "create_app"]
