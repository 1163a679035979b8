"""The app's client of the product API.

Thread rule: any thread; each call has a connection of its own.
Refuses to know: that the server is a stand-in, and that its answers are cached.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from http.client import HTTPConnection, HTTPException
from typing import Any, Final, Protocol
from urllib.parse import urlencode, urlsplit

from stillwarm.demo.discovery.scoring import Product

BATCH: Final = 20
_TIMEOUT: Final = 30.0


class SourceError(ConnectionError):
    """The product API gave no answer. It may do so later: stillwarm takes it for transient, as every ConnectionError.

    Attributes:
        headers: of its answer, if there was one, by lower-case name; stillwarm reads Retry-After there.
    """

    def __init__(self, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.headers = {name.lower(): value for name, value in (headers or {}).items()}

    @property
    def retry_after(self) -> int | None:
        """Seconds, where the API said so."""
        text = self.headers.get("retry-after", "")
        return int(text) if text.isdecimal() else None


class Source(Protocol):
    """Where ids and products come from. Both methods raise SourceError."""

    calls: int

    def bestsellers(self, domain: int, category: int) -> list[str]:
        """Ids of a category, the best first; none where there is no such category."""

    def products(self, domain: int, asins: list[str]) -> dict[str, Product]:
        """Products by id, as many as there are, asked for in batches of 20."""


class ProductSource:
    """Asks the product API at `url` with a key."""

    def __init__(self, url: str, key: str) -> None:
        parts = urlsplit(url)
        self._host, self._port, self.key = parts.hostname or "", parts.port, key
        self._lock = threading.Lock()
        self.calls = 0

    def bestsellers(self, domain: int, category: int) -> list[str]:
        answer = self._ask("/bestsellers", {"domain": domain, "category": category})
        return [] if answer is None else answer["asinList"]

    def products(self, domain: int, asins: list[str]) -> dict[str, Product]:
        found: dict[str, Product] = {}
        for start in range(0, len(asins), BATCH):
            batch = ",".join(asins[start : start + BATCH])
            answer = self._ask("/product", {"domain": domain, "asin": batch, "stats": 1, "history": 1})
            found.update((one["asin"], parsed(one)) for one in (answer or {"products": []})["products"])
        return found

    def _ask(self, path: str, fields: dict[str, Any]) -> Any:
        """The answer; None for 404."""
        if not self.key:
            raise SourceError("no key of the product API is configured")
        with self._lock:
            self.calls += 1
        connection = HTTPConnection(self._host, self._port, timeout=_TIMEOUT)
        try:
            connection.request("GET", f"{path}?{urlencode({'key': self.key, **fields}, safe=',')}")
            answer = connection.getresponse()
            body = answer.read()
        except (OSError, HTTPException) as error:
            raise SourceError(f"the product API does not answer ({type(error).__name__})") from error
        finally:
            connection.close()
        if answer.status == 404:
            return None
        if answer.status == 429:
            raise SourceError("the product API has no tokens left for this key", dict(answer.getheaders()))
        if answer.status != 200:
            raise SourceError(f"the product API answered {answer.status}", dict(answer.getheaders()))
        return json.loads(body)


def parsed(document: dict[str, Any]) -> Product:
    """A product from the API's JSON."""
    average = document.get("stats", {}).get("avg90")
    history = tuple(document.get("bsr_history", ()))
    return Product(document["asin"], document["title"], document["price"], document["bsr"], average, history)


__all__ = ["BATCH", "ProductSource", "Source", "SourceError", "parsed"]
