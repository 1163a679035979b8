"""The discovery app on a loopback port with its stand-in product API, without latencies, for tests.

Thread rule: one thread; `in_thread` for a second client.
Refuses to know: what a test is about.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from typing import Any

import pytest

from stillwarm import Cache, _core, hooks
from stillwarm.demo.aserving import AsgiServer
from stillwarm.demo.client import Answer, Client
from stillwarm.demo.discovery.app import create_app
from stillwarm.demo.discovery.source import ProductSource
from stillwarm.demo.product_api import KEY, ProductApi

BOOKS = {"category": 283155, "bsr_max": 20_000}
HOUR = 3600
DISCOVER, SCORED, SCORE = (f"/api/v1/products/{name}" for name in ("discover", "discover-with-scoring", "score"))
STATS, HEALTH = "/api/v1/cache/stats", "/api/v1/health"


class Site:
    """Product API, cache, app and a client. `options` go to `create_app`."""

    def __init__(self, *, key: str = KEY, cache: Cache | None = None, **options: Any) -> None:
        self.api = ProductApi(scale=0).start()
        self.cache = Cache(namespace="discovery") if cache is None else cache
        self.source = ProductSource(self.api.url, key)
        self.app = create_app(self.source, self.cache, key_configured=bool(key), **options)
        self.service = self.app.state.service
        self.server = AsgiServer(self.app)
        self.client = Client(self.server.url)
        self._changed = threading.Condition()
        self._missed = 0
        self.cache.subscribe(self._count)

    def _count(self, event: hooks.Event) -> None:
        if isinstance(event, hooks.Missed):
            with self._changed:
                self._missed += 1
                self._changed.notify_all()

    def wait_for_missed(self, count: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: self._missed >= count, 30)

    def discover(self, **filters: Any) -> Answer:
        return self.client.post(DISCOVER, filters or BOOKS)

    def scored(self, **filters: Any) -> Answer:
        return self.client.post(SCORED, filters or BOOKS)

    def score(self, asins: list[str], **more: Any) -> Answer:
        return self.client.post(SCORE, {"asins": asins, **more})

    def stats(self) -> Any:
        answer = self.client.get(STATS)
        assert answer.status == 200
        return answer.body

    def ids(self, count: int, category: int = 0) -> list[str]:
        return self.api.catalogue.bestsellers(1, category)[:count]

    def ask(self, method: str, path: str, document: Any = None, **headers: str) -> tuple[int, dict[str, str], bytes]:
        """A request with its answer's headers, by lower-case name."""
        connection = HTTPConnection("127.0.0.1", self.server.server_port, timeout=30)
        try:
            body = None if document is None else json.dumps(document)
            sent = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body, {"Content-Type": "application/json", **sent})
            answer = connection.getresponse()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    def close(self) -> None:
        self.client.close()
        self.api.release()
        self.server.stop()
        self.api.kill()
        self.app.state.history.close()
        self.cache.close()


def in_thread(site: Site, path: str, document: Any) -> Callable[[], Answer]:
    """Sends a request from another client; the answer when called."""
    result: list[Answer] = []

    def work() -> None:
        client = Client(site.server.url)
        result.append(client.post(path, document))
        client.close()

    thread = threading.Thread(target=work)
    thread.start()

    def answer() -> Answer:
        thread.join(30)
        return result[0]

    return answer


def made(answer: Answer) -> tuple[int, str, bool, str]:
    """Status, X-Cache, cache_hit and source."""
    return answer.status, answer.label, answer.body["cache_hit"], answer.body["metadata"]["source"]


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()
    yield site
    site.close()


@pytest.fixture
def make_site() -> Iterator[Callable[..., Site]]:
    sites: list[Site] = []

    def make(**options: Any) -> Site:
        sites.append(Site(**options))
        return sites[-1]

    yield make
    for site in sites:
        site.close()


@pytest.fixture
def move() -> Iterator[Callable[[float], None]]:
    """Moves the clock of the caches by seconds; it stands still."""
    now = _core.clock_now()

    def move(seconds: float) -> None:
        nonlocal now
        now += int(seconds * 1e9)
        _core.clock_set(now)

    move(0)
    yield move
    _core.clock_set(0)
