"""Everything that the voc demo consists of: a PostgreSQL of its own unless there is a URL, cache, app.

Thread rule: made, driven and closed by one thread; it serves on a thread of its own.
Refuses to know: what is then done with it (`story`, or a person with a browser).
"""

from __future__ import annotations

import asyncio
import base64
import logging
import secrets
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack
from typing import Any, Final

from sqlalchemy import event

from stillwarm import Cache, Retry, _core, transient
from stillwarm._servers import PostgresServer
from stillwarm.demo.aserving import AsgiServer
from stillwarm.demo.lines import Lines
from stillwarm.demo.step import Step
from stillwarm.demo.voc.app import PREFIX, create_app
from stillwarm.demo.voc.service import Service
from stillwarm.demo.voc.windows import Windows

_LATENCY: Final = 0.05  # s, of each query


class Clock:
    """The time of day, and a way to move it with that of every cache of the process."""

    def __init__(self) -> None:
        self._offset = 0.0
        self._stands: float | None = None

    def __call__(self) -> float:
        return (time.time() if self._stands is None else self._stands) + self._offset

    def move(self, seconds: float) -> None:
        """Stands still from the first time on, so that only this moves it."""
        if self._stands is None:
            self._stands, self._core = time.time(), _core.clock_now()
        self._offset += seconds
        _core.clock_set(self._core + int(self._offset * 1e9))

    def back(self) -> None:
        """The real time again."""
        self._offset, self._stands = 0.0, None
        _core.clock_set(0)


class Queries:
    """Counts what the engine of `windows` runs of the readings, and makes each take `latency` seconds."""

    def __init__(self, windows: Windows, latency: float = 0.0) -> None:
        self.count, self.latency = 0, latency
        windows.before = self._before
        event.listen(windows.engine.sync_engine, "before_cursor_execute", self._count)

    def _count(self, _connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        self.count += "FROM voc_periods" in statement

    async def _before(self, _: str) -> None:
        if self.latency:
            await asyncio.sleep(self.latency)


class Voc:
    """The demo.

    Args:
        fast: a tenth of the latencies and fewer callers; for tests.
        port: of the app; 0 for any free one.
        token: of the operator's page; None: a new one.
        url: of the database; None: a private server, which the story stops.

    Raises:
        OSError: the port cannot be had.
        ServerMissing: there is no url, and PostgreSQL is not installed.
        ConfigError: the url is not accepted.
    """

    def __init__(self, fast: bool = False, port: int = 0, token: str | None = None, url: str | None = None) -> None:
        self.fast, self.callers = fast, 30 if fast else 100
        self.token = token or secrets.token_urlsafe(18)
        self.secret = "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
        self.clock = Clock()
        with ExitStack() as undo:
            self.database = PostgresServer() if url is None else None
            if self.database is not None:
                undo.callback(self.database.close)
            self.url = self.database.url if self.database is not None else str(url)
            self.cache = Cache(self.url, namespace="voc_demo")
            undo.callback(self.cache.close)
            self.windows = Windows(self.url)
            self.queries = Queries(self.windows, _LATENCY / 10 if fast else _LATENCY)
            quick = Retry(on=transient, base=0.02, cap=0.2, budget=None, name="voc")
            waits: dict[str, Any] = {"retry": quick, "attempt": "200ms"} if fast else {}
            self.service = Service(self.windows, self.cache, clock=self.clock, **waits)
            # The story shows misses: nothing is read before somebody asks.
            app: Any = create_app(self.service, webhook_secret=self.secret, token=self.token, prefetch=False)
            self.server = AsgiServer(app, port, lifespan=True)
            undo.callback(self.server.stop)
            logging.getLogger("psycopg").addHandler(logging.NullHandler())  # what the story shows is enough
            self.log = Lines()
            undo.callback(self.log.end)
            self._close = undo.pop_all()

    def story(self, progress: Callable[[str, float, float], object] = lambda *_: None) -> Iterator[Step]:
        """The steps, each as soon as it is over. `progress` hears about the ones that take long."""
        from stillwarm.demo.voc.story import Story

        steps: Iterator[Step] = Story(self, progress).steps()
        return steps

    def empty(self) -> None:
        """Empties both caches; the windows stay."""
        self.cache.clear()

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """The result of a coroutine on the app's loop."""
        return self.server.run(work)

    def invitation(self) -> list[str]:
        """What a person can do with it now."""
        url, post = f"{self.server.url}{PREFIX}", "curl -i -H 'Content-Type: application/json' -d"
        window = """'{"start_at": "2031-03-01T10:00Z", "end_at": "2031-03-01T14:00Z", "source": "me"}'"""
        return [
            f"The app is up: {url}/status. Ctrl-C ends it.",
            f"The operator's page: {self.server.url}/api/cache/ with the token {self.token}",
            f"Its database: {'the one of --url' if self.database is None else self.url}",
            "",
            f"  curl -i {url}/status",
            f"  curl -i {url}/current",
            f"  {post} {window} {url}",
            f"  curl {url}/cache_stats",
            f"  curl {self.server.url}/metrics",
            f"  curl {self.server.url}/api/v1/health",
        ]

    def close(self) -> None:
        self.clock.back()
        self._close.close()

    def __enter__(self) -> Voc:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


__all__ = ["Clock", "Queries", "Voc"]
