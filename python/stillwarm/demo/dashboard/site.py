"""Everything that the dashboard demo consists of, running on loopback ports: search server, cache, app, and, if asked
for, a Redis.

Thread rule: made, driven and closed by one thread; it serves on threads of its own.
Refuses to know: what is then done with it (`story`, or a person with a browser).
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack

from flask import Response, jsonify

from stillwarm import Cache
from stillwarm._redis_server import RedisServer
from stillwarm.demo.dashboard.app import create_app
from stillwarm.demo.dashboard.search import Search
from stillwarm.demo.dashboard.second import NAMESPACE, Second
from stillwarm.demo.lines import Lines
from stillwarm.demo.serving import AppServer
from stillwarm.demo.step import Step
from stillwarm.demo.upstream import SearchServer
from stillwarm.errors import ConfigError

ORDER = """'{"customer": "you", "product": "teapot", "country": "AT", "amount": 42}'"""


class Dashboard:
    """The demo.

    Args:
        fast: a tenth of the search server's latencies, a shorter ttl and fewer callers; for tests.
        port: of the app; 0 for any free one.
        token: of the operator's page; None: a new one.
        url: of the cache, "redis://host:6379/0"; None: memory.
        redis: True starts a private Redis for the cache, which the story kills.

    Raises:
        OSError: the port cannot be had.
        ServerMissing: a private Redis is wanted, and there is none installed.
        ConfigError: the url is not accepted, or there is one and a private Redis is wanted.
    """

    def __init__(
        self,
        fast: bool = False,
        port: int = 0,
        token: str | None = None,
        url: str | None = None,
        redis: bool = False,
    ) -> None:
        if redis and url is not None:
            raise ConfigError("redis=True: a private Redis, and there is a url, too; accepted: one of them")
        self.fast = fast
        self.ttl = 2.0 if fast else 3.0  # in place of 5 min: the story waits until it is over
        self.callers = 100 if fast else 1000
        self.token = token or secrets.token_urlsafe(18)
        self._second: Second | None = None
        with ExitStack() as undo:
            self.redis = undo.enter_context(RedisServer()) if redis else None
            self.url = url if self.redis is None else self.redis.url
            self.cache = Cache(self.url, namespace=NAMESPACE)
            undo.callback(self.cache.close)
            self.cache.define("dashboard", ttl=self.ttl)
            self.search = SearchServer(scale=0.1 if fast else 1.0).start()
            undo.callback(self.search.kill)
            # One failed load is worth an alert here: the story has few.
            self.app = create_app(Search(self.search.url), self.cache, self.token, {"errors": 0, "window": "1m"})

            @self.app.post("/demo/search-server/<any(start, kill):action>")
            def search_server(action: str) -> Response:
                self.search.start() if action == "start" else self.search.kill()
                return jsonify(status="success", running=self.search.running)

            self.server = AppServer(self.app, port)
            undo.callback(self.server.stop)
            undo.callback(self.search.release)
            self.warnings = Lines()
            undo.callback(self.warnings.end)
            self._close = undo.pop_all()

    def story(self, progress: Callable[[str, float, float], object] = lambda *_: None) -> Iterator[Step]:
        """The steps, each as soon as it is over. `progress` hears about the ones that take long."""
        from stillwarm.demo.dashboard.story import Story

        return Story(self, progress).steps()

    @property
    def tier_name(self) -> str:
        """What memory stands above; "" where it stands alone."""
        return "" if self.cache._tier is None else self.cache._tier.name

    def second(self) -> Second:
        """Another process of the same app, started when it is first asked for; it shares nothing but the tier.

        Raises:
            OSError: it did not start.
        """
        if self._second is None:
            self._second = Second(self.server.url, url=self.url, search=self.search.url, ttl=self.ttl, token=self.token)
        return self._second

    def written(self) -> None:
        """Until the tier has what was written behind the answers."""
        if self.cache._tier is not None:
            self.cache._tier.core.drain(5_000_000_000)

    def invitation(self) -> list[str]:
        """What a person can do with it now."""
        url, token = self.server.url, self.token
        return [
            f"The app is up: {url}/ (a page for the browser). Ctrl-C ends it.",
            f"The operator's page: {url}/api/cache/ with the token {token}",
            *([f"Its Redis: {self.redis.url}"] if self.redis is not None else []),
            "",
            f"  curl -i {url}/api/dashboard",
            f"  curl -i '{url}/api/search?q=teapot'",
            f"  curl -i -H 'Authorization: Bearer customer-7' {url}/api/account",
            f"  curl -X POST -H 'Content-Type: application/json' -d {ORDER} {url}/api/orders",
            f"  curl -H 'Authorization: Bearer {token}' {url}/api/cache/stats",
            f"  curl -H 'Authorization: Bearer {token}' -X POST {url}/api/cache/invalidate/search",
            f"  curl -X POST {url}/demo/search-server/kill",
            f"  curl -X POST {url}/demo/search-server/start",
        ]

    def close(self) -> None:
        if self._second is not None:
            self._second.close()
        self._close.close()

    def __enter__(self) -> Dashboard:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


__all__ = ["Dashboard"]
