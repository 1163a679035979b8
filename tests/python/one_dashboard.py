"""The dashboard's app in one process without Redis, on a loopback port, and a clock that moves, for tests.

Thread rule: one client.
Refuses to know: what is tested; several workers over one Redis are in `dashboards`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from stillwarm import Cache, _core
from stillwarm.demo.client import Answer, Client
from stillwarm.demo.dashboard import create_app
from stillwarm.demo.dashboard.patterns import PAGE
from stillwarm.demo.dashboard.search import Search
from stillwarm.demo.serving import AppServer
from stillwarm.demo.upstream import SearchServer

TOKEN = "a-token-of-the-tests"
PATHS = {
    "dashboard": PAGE,
    "search": "/api/search?q=teapot",
    "product": "/api/products/7",
    "analytics": "/api/analytics?orders=10",
}


class Site:
    """The app on a loopback port, with a search server without latencies."""

    def __init__(self) -> None:
        self.search = SearchServer(scale=0).start()
        self.cache = Cache(namespace="reference")
        self.app = create_app(Search(self.search.url), self.cache, TOKEN)
        self.server = AppServer(self.app)
        self.client = Client(self.server.url)

    def get(self, path: str, user: str = "") -> Answer:
        return self.client.get(path, user)

    def label(self, path: str, user: str = "") -> str:
        return self.get(path, user).label

    def manage(self, path: str, document: Any = None) -> Any:
        path = f"/api/cache{path}"
        answer = self.client.get(path, TOKEN) if document is None else self.client.post(path, document, TOKEN)
        assert answer.status == 200
        return answer.body

    def stats(self) -> dict[str, Any]:
        return self.manage("/stats")["cache_stats"]  # type: ignore[no-any-return]

    def alert(self, name: str) -> dict[str, Any]:
        (alert,) = [alert for alert in self.manage("/alerts")["alerts"] if alert["name"] == name]
        return alert  # type: ignore[no-any-return]

    def close(self) -> None:
        self.client.close()
        self.search.release()
        self.server.stop()
        self.search.kill()
        self.cache.close()


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()
    yield site
    site.close()


@pytest.fixture
def move() -> Iterator[Any]:
    now = _core.clock_now()

    def move(seconds: float) -> None:
        nonlocal now
        now += int(seconds * 1e9)
        _core.clock_set(now)

    move(0)
    yield move
    _core.clock_set(0)
