"""Everything that the discovery demo consists of, running on loopback ports: product API, cache, app.

Thread rule: made, driven and closed by one thread; it serves on threads of its own.
Refuses to know: what is then done with it (`story`, or a person with a browser).
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from typing import Any, Final

from stillwarm import Cache
from stillwarm.demo.aserving import AsgiServer
from stillwarm.demo.discovery.app import create_app
from stillwarm.demo.discovery.history import History
from stillwarm.demo.discovery.source import ProductSource
from stillwarm.demo.lines import Lines
from stillwarm.demo.product_api import ProductApi
from stillwarm.demo.step import Step

_BODY: Final = """'{"category": 283155, "bsr_max": 20000}'"""


class Discovery:
    """The demo.

    Args:
        fast: a tenth of the API's latencies and fewer callers; for tests.
        port: of the app; 0 for any free one.
        token: of the operator's page; None: a new one.
        url: of the cache's database, whose tables are made; None: memory.

    Raises:
        OSError: the port cannot be had.
        ConfigError: the url is not accepted.
    """

    def __init__(self, fast: bool = False, port: int = 0, token: str | None = None, url: str | None = None) -> None:
        self.callers = 50 if fast else 200
        self.token = token or secrets.token_urlsafe(18)
        self.cache = Cache(url, namespace="discovery_demo")
        self.api = ProductApi(scale=0.1 if fast else 1.0).start()
        self.source = ProductSource(self.api.url, self.api.key)
        try:
            self.app: Any = create_app(self.source, self.cache, token=self.token)
            self.history: History = self.app.state.history
            self.server = AsgiServer(self.app, port)
        except BaseException:
            self.api.kill()
            self.cache.close()
            raise
        self.warnings = Lines()

    def story(self, progress: Callable[[str, float, float], object] = lambda *_: None) -> Iterator[Step]:
        """The steps, each as soon as it is over. `progress` hears about the ones that take long."""
        from stillwarm.demo.discovery.story import Story

        return Story(self, progress).steps()

    def empty(self) -> None:
        """Empties both caches, in the database down to the rows."""
        self.cache.clear()
        if self.cache._tier is not None:
            self.cache.purge()

    def invitation(self) -> list[str]:
        """What a person can do with it now."""
        url, token = self.server.url, self.token
        post = "curl -i -H 'Content-Type: application/json' -d"
        return [
            f"The app is up: {url}/ (a page for the browser). Ctrl-C ends it.",
            f"The operator's page: {url}/api/cache/ with the token {token}",
            "",
            f"  {post} {_BODY} {url}/api/v1/products/discover",
            f"  {post} {_BODY} {url}/api/v1/products/discover-with-scoring",
            f"  curl {url}/api/v1/cache/stats",
            f"  curl {url}/api/v1/health",
            f"  curl {url}/openapi.json",
            f"  curl -H 'Authorization: Bearer {token}' -X POST {url}/api/cache/invalidate/discovery",
        ]

    def close(self) -> None:
        self.warnings.end()
        self.api.release()
        self.server.stop()
        self.api.kill()
        self.history.close()
        self.cache.close()

    def __enter__(self) -> Discovery:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


__all__ = ["Discovery"]
