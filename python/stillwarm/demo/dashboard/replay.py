"""Two hours of a shop's traffic on a moved clock: what the types' own ttls make of it.

Keys are drawn by Zipf's law with exponent 1, the n-th most asked for 1/n as often as the first; requests come evenly
spread over the time; one in 500 is a new order, and one in 1,000 a new price, which invalidate what they touch. Types
have the ttls of `CacheType`, from 5 minutes to 2 hours.

Thread rule: one thread, alone with the clock: while a replay runs, time is moved for every cache of the process.
Refuses to know: HTTP servers and latencies. Requests go into the app as a server would put them there.
"""

from __future__ import annotations

import io
import itertools
import json
import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from stillwarm import Cache, _core
from stillwarm.demo.dashboard.app import create_app
from stillwarm.demo.dashboard.search import QUERIES, NoSuchDocumentError, Search
from stillwarm.demo.documents import CUSTOMERS, PRODUCTS, Documents

SECONDS: Final = 7200
THEIRS: Final = {
    "dashboard": (85, 95),
    "search": (70, 85),
    "user": (80, 90),
    "product": (90, 95),
    "analytics": (75, 85),
}
_SHARES: Final = {"dashboard": 40, "search": 15, "user": 15, "product": 20, "analytics": 10}  # percent of the requests
_KEYS: Final = {"dashboard": 1, "search": 200, "user": CUSTOMERS, "product": PRODUCTS, "analytics": 12}


class Request(NamedTuple):
    """One request; `type` is empty for a write."""

    at: float
    type: str
    method: str
    path: str
    query: str = ""
    user: str = ""
    body: str = ""


@dataclass
class Replayed:
    """Requests and hits by type, and the search queries with the cache and as they would have been without it."""

    requests: Counter[str] = field(default_factory=Counter)
    hits: Counter[str] = field(default_factory=Counter)
    failed: int = 0
    queries: int = 0
    queries_without: int = 0

    def add(self, request: Request, status: str, label: str) -> None:
        """What came of a request."""
        self.failed += status >= "4"
        if request.type:
            self.requests[request.type] += 1
            self.hits[request.type] += label == "HIT"
            self.queries_without += len(QUERIES) if request.type == "dashboard" else 1

    def hit_rate(self, type: str) -> float:
        """Percent."""
        return 100 * self.hits[type] / self.requests[type]

    @property
    def saved(self) -> float:
        """Percent of the search queries."""
        return 100 * (1 - self.queries / self.queries_without)


def traffic(count: int, seed: int = 203) -> Iterator[Request]:
    """`count` requests in order of time, the same ones for the same seed."""
    draw = random.Random(seed)
    weights = {name: list(itertools.accumulate(1 / n for n in range(1, keys + 1))) for name, keys in _KEYS.items()}
    names, shares = list(_SHARES), list(_SHARES.values())
    for number in range(count):
        at = number * SECONDS / count
        if number % 500 == 499:
            order = {"customer": _customer(draw, weights["user"]), "product": "teapot", "country": "AT", "amount": 9}
            yield Request(at, "", "POST", "/api/orders", body=json.dumps(order))
            continue
        if number % 1000 == 250:
            path = f"/api/products/{_rank(draw, weights['product'])}/price"
            yield Request(at, "", "PUT", path, body=json.dumps({"price": draw.randrange(5, 250)}))
            continue
        name = draw.choices(names, shares)[0]
        rank = _rank(draw, weights[name])
        if name == "dashboard":
            yield Request(at, name, "GET", "/api/dashboard")
        elif name == "search":
            document = Documents.name_of(rank)
            yield Request(at, name, "GET", "/api/search", "q=" + document.replace(" ", "+"))
        elif name == "user":
            yield Request(at, name, "GET", "/api/account", user=f"customer-{rank}")
        elif name == "product":
            yield Request(at, name, "GET", f"/api/products/{rank}")
        else:
            yield Request(at, name, "GET", "/api/analytics", f"orders={(rank + 1) * 100}")


def _rank(draw: random.Random, weights: list[float]) -> int:
    return draw.choices(range(len(weights)), cum_weights=weights)[0]


def _customer(draw: random.Random, weights: list[float]) -> str:
    return f"customer-{_rank(draw, weights)}"


class Counting(Search):
    """The search server's documents without the server: counts the queries."""

    def __init__(self) -> None:
        self.documents = Documents()
        self.queries = 0

    def figures(self) -> dict[str, Any]:
        return {query: self.ask(query) for query in QUERIES}

    def ask(self, query: str, of: object = "") -> Any:
        self.queries += 1
        try:
            return self.documents.answer(query, str(of))
        except LookupError as error:
            raise NoSuchDocumentError(str(error)) from None

    def add_order(self, order: dict[str, Any]) -> None:
        self.documents.add(order)

    def set_price(self, product: int, price: float) -> None:
        self.documents.set_price(product, price)


def replay(count: int, progress: Callable[[int, int], object] = lambda done, of: None) -> Replayed:
    """Puts `count` requests through an app and a cache of their own."""
    search, seen = Counting(), Replayed()
    start = _core.clock_now()
    with Cache(namespace="replay") as cache:
        app = create_app(search, cache, token="nobody-asks-for-this")
        try:
            for number, request in enumerate(traffic(count)):
                _core.clock_set(start + int(request.at * 1e9))
                seen.add(request, *put(app, request))
                progress(number + 1, count)
        finally:
            _core.clock_set(0)
    seen.queries = search.queries
    return seen


def put(app: Any, request: Request) -> tuple[str, str]:
    """Puts a request into the app as a server would; the status and X-Cache of its answer."""
    body = request.body.encode()
    environ = {
        "REQUEST_METHOD": request.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": request.path,
        "QUERY_STRING": request.query,
        "SERVER_NAME": "shop.example",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "CONTENT_TYPE": "application/json" if body else "",
        "CONTENT_LENGTH": str(len(body)),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(body),
        "wsgi.errors": None,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
    if request.user:
        environ["HTTP_AUTHORIZATION"] = f"Bearer {request.user}"
    started: list[Any] = []
    answer = app(environ, lambda status, headers, exc_info=None: started.extend((status, headers)))
    for _ in answer:
        pass
    getattr(answer, "close", lambda: None)()
    label = next((value for name, value in started[1] if name == "X-Cache"), "")
    return started[0], label


__all__ = ["SECONDS", "THEIRS", "Counting", "Replayed", "put", "replay", "traffic"]
