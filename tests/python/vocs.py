"""The voc app on a loopback port and a database, without latencies and with short waits between retries, for tests.

Thread rule: one thread; `in_thread` for a second client. `Turnstile` stops queries on the app's loop.
Refuses to know: what a test is about.
"""

from __future__ import annotations

import asyncio
import base64
import threading
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import psycopg
import pytest

from stillwarm import Cache, Retried, Retry, transient
from stillwarm.demo.aserving import AsgiServer
from stillwarm.demo.client import Answer, Client
from stillwarm.demo.voc.app import PREFIX, create_app
from stillwarm.demo.voc.service import Service
from stillwarm.demo.voc.site import Clock, Queries
from stillwarm.demo.voc.windows import Windows
from stillwarm.testing import PostgresServer

STATUS, CURRENT, FIGURES, WEBHOOK = (f"{PREFIX}/{name}" for name in ("status", "current", "cache_stats", "webhook"))
HEALTH = "/api/v1/health"
SECRET = "whsec_" + base64.b64encode(b"s" * 32).decode()
HOUR = datetime.now(timezone.utc).replace(minute=0, second=0, microsecond=0)


def window(hours: float, source: str = "almanac") -> dict[str, str]:
    """Four hours, so many from this hour on."""
    start, end = (HOUR + timedelta(hours=hours + more) for more in (0, 4))
    return {"start_at": start.isoformat(), "end_at": end.isoformat(), "source": source}


class Site:
    """Windows, cache, app and a client. `shared`: the cache has the database too, as writing needs."""

    def __init__(
        self,
        url: str,
        *,
        shared: bool = True,
        prefetch: bool = False,
        waits: dict[str, str] | None = None,
        **options: Any,
    ) -> None:
        self.url, self.clock, self.retried = url, Clock(), list[Any]()
        self.cache = Cache(url if shared else None, namespace="voc_test", **options)
        self.windows = Windows(url)
        self.queries = Queries(self.windows)
        self.retry = Retry(on=transient, base=0.001, cap=0.004, budget=None, name="voc", hook=self.retried.append)
        # No value stands in because a machine is busy.
        waits = waits or {"attempt": "20s", "soft": "60s", "hard": "60s"}
        self.service = Service(self.windows, self.cache, self.retry, clock=self.clock, **waits)
        app: Any = create_app(self.service, webhook_secret=SECRET, token="a-token-of-the-tests", prefetch=prefetch)
        self.app = app
        self.server = AsgiServer(app, lifespan=True)
        self.client = Client(self.server.url)

    @property
    def delays(self) -> int:
        return sum(isinstance(one, Retried) for one in self.retried)

    def status(self) -> Answer:
        return self.client.get(STATUS)

    def save(self, hours: float, source: str = "almanac") -> Answer:
        return self.client.post(PREFIX, window(hours, source))

    def sources(self) -> list[str]:
        """Of the windows that come, as the status says."""
        answer = self.status()
        assert answer.status == 200, answer
        return [one["source"] for one in answer.body["upcoming"]]

    def sql(self, text: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.url, autocommit=True) as connection:
            cursor = connection.execute(text)  # type: ignore[call-overload]
            return cursor.fetchall() if cursor.description else []

    def rows(self) -> list[tuple[Any, ...]]:
        return self.sql("SELECT source FROM voc_periods ORDER BY id")

    def close(self) -> None:
        self.client.close()
        self.server.stop()
        self.cache.close()
        self.clock.back()


class Turnstile:
    """Stops each reading of `site` before its query until `open`; `wait(n)` returns when n of them stand there."""

    def __init__(self, site: Site) -> None:
        self.there, self._changed = list[str](), threading.Condition()
        self._site, self._open = site, asyncio.Event()
        site.windows.before = self._stop

    async def _stop(self, name: str) -> None:
        with self._changed:
            self.there.append(name)
            self._changed.notify_all()
        await self._open.wait()

    def wait(self, count: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.there) >= count, 30)

    def open(self) -> None:
        async def go() -> None:
            self._open.set()

        self._site.server.run(go())


def failing(site: Site, times: int) -> None:
    """The next `times` readings find their connection broken."""
    left = times

    async def before(_: str) -> None:
        nonlocal left
        left -= 1
        if left >= 0:
            raise ConnectionResetError("the connection was reset")

    site.windows.before = before


def in_thread(site: Site, path: str = STATUS) -> Callable[[], Answer]:
    """Sends a request from another client; the answer when called."""
    result: list[Answer] = []

    def work() -> None:
        client = Client(site.server.url)
        result.append(client.get(path))
        client.close()

    thread = threading.Thread(target=work)
    thread.start()

    def answer() -> Answer:
        thread.join(30)
        return result[0]

    return answer


@pytest.fixture
def make_site(warm_postgres: PostgresServer) -> Iterator[Callable[..., Site]]:
    """Sites, all on one new database."""
    url, sites = warm_postgres.new_database(), list[Site]()
    with Cache(url, timeout="20s", connect_timeout="20s") as cache:
        cache.migrate()  # a write has 3 s, and a busy machine may take that for the tables alone

    def make(**options: Any) -> Site:
        sites.append(Site(url, **options))
        return sites[-1]

    yield make
    for site in sites:
        site.close()


@pytest.fixture
def site(make_site: Callable[..., Site]) -> Site:
    return make_site()


@pytest.fixture
def alone(make_site: Callable[..., Site]) -> Site:
    """Its cache is in memory: nothing but its own clock decides what is fresh."""
    return make_site(shared=False)
