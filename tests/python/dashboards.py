"""The dashboard's app in several workers over one Redis, with a search server without latencies, for tests.

Thread rule: one client each. Apps with caches of their own stand for workers; they know each other through Redis.
Refuses to know: what is tested.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from stillwarm import Cache
from stillwarm.demo.client import Answer, Client
from stillwarm.demo.dashboard import create_app
from stillwarm.demo.dashboard.patterns import PAGE
from stillwarm.demo.dashboard.search import Search
from stillwarm.demo.serving import AppServer
from stillwarm.demo.upstream import SearchServer
from tiers import Ground

TOKEN = "a-token-of-the-tests"
NAME = "shop.example"
TEAPOT = "/api/search?q=teapot"
PATHS = {"dashboard": PAGE, "search": TEAPOT, "product": "/api/products/7", "analytics": "/api/analytics?orders=10"}


class Worker:
    """The app over one cache."""

    def __init__(self, cache: Cache, search: SearchServer) -> None:
        self.cache = cache
        self.app = create_app(Search(search.url), cache, TOKEN)
        self.server = AppServer(self.app)
        self.client = Client(self.server.url, host=NAME)

    def get(self, path: str, user: str = "") -> Answer:
        return self.client.get(path, user)

    def label(self, path: str, user: str = "") -> str:
        return self.get(path, user).label

    def manage(self, path: str, document: Any = None, status: int = 200) -> Any:
        path = f"/api/cache{path}"
        answer = self.client.get(path, TOKEN) if document is None else self.client.post(path, document, TOKEN)
        assert answer.status == status, answer
        return answer.body

    def stats(self) -> dict[str, Any]:
        return self.manage("/stats")["cache_stats"]  # type: ignore[no-any-return]

    def close(self) -> None:
        self.client.close()
        self.server.stop()


class Site:
    """Workers over one Redis, and a search server without latencies."""

    def __init__(self, ground: Ground) -> None:
        self.ground = ground
        self.search = SearchServer(scale=0).start()
        self.workers: list[Worker] = []

    def worker(self, **options: Any) -> Worker:
        self.workers.append(Worker(self.ground.cache(**options), self.search))
        return self.workers[-1]

    def stored(self) -> dict[str, bytes]:
        """What Redis has of entries, by key."""
        self.ground.written()
        start = f"stillwarm:{{{self.ground.namespace}}}:e:"
        keys = self.ground.redis("KEYS", f"{start}*")
        return {key.removeprefix(start): self.ground.redis("GET", key).encode("latin-1") for key in keys}

    def close(self) -> None:
        for worker in self.workers:
            worker.close()
        self.search.kill()


@pytest.fixture
def site(redis_ground: Ground) -> Iterator[Site]:
    site = Site(redis_ground)
    yield site
    site.close()
