"""A day of a reseller's team on a moved clock: what both caches save of the tokens.

100 discoveries and 50 products scored 10 times each, by one request each, come in random order and at random times
(evenly spread, the same ones for the same seed). A discovery is one of twelve searches, drawn by Zipf's law with
exponent 1: the n-th most frequent 1/n as often as the first. The 50 products are the best sellers of all categories
and of the books. The day is a working day, 8:00 to 20:00; the same requests are also spread around the clock, which is
harder: more of the repetitions come after a score's six hours.

The control is the same day with the cache switched off. Tokens are counted in three ways: all that the API charged
(50 a discovery, 1 for each id that it then looks at, 1 for each scored id), and as the reference system does, 5 or 50
for a discovery as a whole and 1 for each scored id.

Thread rule: one thread, alone with the clock: while a day runs, time is moved for every cache of the process.
Refuses to know: HTTP servers and latencies. Requests go into the app as a server would put them there.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from stillwarm import Cache, _core
from stillwarm.demo.catalogue import CATEGORIES
from stillwarm.demo.discovery.app import create_app
from stillwarm.demo.discovery.scoring import Product
from stillwarm.demo.discovery.source import BATCH, parsed
from stillwarm.demo.product_api import ProductApi

DISCOVERIES: Final = 100
PRODUCTS: Final = 50
TIMES: Final = 10
REQUESTS: Final = DISCOVERIES + PRODUCTS * TIMES
WORKING: Final = (8, 20)
AROUND: Final = (0, 24)
SEARCHES: Final[list[dict[str, Any]]] = [
    *({"category": category, "bsr_max": 20_000} for category in CATEGORIES),
    *({"category": category, "bsr_max": 30_000, "price_max": 50.0} for category in CATEGORIES),
]
_PATH: Final = "/api/v1/products/"


class Request(NamedTuple):
    """One request: seconds since midnight, the endpoint, the body."""

    at: float
    path: str
    body: dict[str, Any]


@dataclass
class Tokens:
    """What a day cost."""

    failed: int = 0
    discoveries: int = 0  # that reached the API
    scored_ids: int = 0  # that the API was asked for to score them
    charged: int = 0  # in all

    def at(self, price: int) -> int:
        """Tokens, with a price for a discovery as a whole and 1 for a scored id."""
        return self.discoveries * price + self.scored_ids


@dataclass
class Day:
    """The same day with and without the cache."""

    cached: Tokens
    control: Tokens

    def saved_at(self, price: int) -> float:
        """Percent of the tokens, see `Tokens.at`."""
        return 100 * (1 - self.cached.at(price) / self.control.at(price))

    @property
    def saved(self) -> float:
        """Percent of all that the API charged."""
        return 100 * (1 - self.cached.charged / self.control.charged)


class Direct:
    """The product API without HTTP."""

    def __init__(self) -> None:
        self.api = ProductApi(scale=0, quota=10**9)
        self.calls = 0

    def bestsellers(self, domain: int, category: int) -> list[str]:
        self.calls += 1
        return self.api.bestsellers(domain, category)["asinList"]  # type: ignore[no-any-return]

    def products(self, domain: int, asins: list[str]) -> dict[str, Product]:
        found: dict[str, Product] = {}
        for start in range(0, len(asins), BATCH):
            self.calls += 1
            answer = self.api.product(domain, asins[start : start + BATCH])
            found.update((one["asin"], parsed(one)) for one in answer["products"])
        return found


def requests(hours: tuple[int, int], seed: int = 24) -> Iterator[Request]:
    """The day's requests in order of time."""
    draw = random.Random(seed)
    catalogue = ProductApi(scale=0).catalogue
    books = next(iter(CATEGORIES))
    asins = list(dict.fromkeys([*catalogue.bestsellers(1, 0), *catalogue.bestsellers(1, books)]))[:PRODUCTS]
    weights = list(itertools.accumulate(1 / n for n in range(1, len(SEARCHES) + 1)))
    wanted = [("discover", search) for search in draw.choices(SEARCHES, cum_weights=weights, k=DISCOVERIES)]
    wanted += [("score", {"asins": [asin]}) for asin in asins for _ in range(TIMES)]
    draw.shuffle(wanted)
    times = sorted(draw.uniform(hours[0], hours[1]) * 3600 for _ in wanted)
    return (Request(at, _PATH + path, body) for at, (path, body) in zip(times, wanted, strict=True))


def run_day(hours: tuple[int, int], progress: Callable[[int, int], object] = lambda done, of: None) -> Day:
    """Puts a day's requests through an app with a cache, and through one whose cache is off."""
    with Cache(namespace="day") as cache, Cache(namespace="control", enabled=False) as off:
        cached = asyncio.run(_run(cache, hours, lambda done: progress(done, 2 * REQUESTS)))
        control = asyncio.run(_run(off, hours, lambda done: progress(REQUESTS + done, 2 * REQUESTS)))
    return Day(cached, control)


async def _run(cache: Cache, hours: tuple[int, int], progress: Callable[[int], object]) -> Tokens:
    source, tokens = Direct(), Tokens()
    app = create_app(source, cache)
    midnight = _core.clock_now()
    try:
        for number, request in enumerate(requests(hours)):
            _core.clock_set(midnight + int(request.at * 1e9))
            before = source.api.spent
            status = await _put(app, request)
            tokens.failed += status != 200
            if request.path.endswith("/score"):
                tokens.scored_ids += source.api.spent - before
            progress(number + 1)
    finally:
        _core.clock_set(0)
    tokens.discoveries = source.api.counts["bestsellers"]
    tokens.charged = source.api.spent
    return tokens


async def _put(app: Any, request: Request) -> int:
    body = json.dumps(request.body).encode()
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": request.path,
        "raw_path": request.path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))],
        "client": ("127.0.0.1", 0),
        "server": ("127.0.0.1", 80),
    }
    status = 0

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        nonlocal status
        status = message.get("status", status)

    await app(scope, receive, send)
    return status


__all__ = ["AROUND", "DISCOVERIES", "PRODUCTS", "REQUESTS", "TIMES", "WORKING", "Day", "Tokens", "requests", "run_day"]
