"""A stand-in for a product-data API: not the real service, and no data of it, but with its prices, manners and moods.

The real one cannot be reached from a demo. This one answers over real HTTP as it would: a key is asked for; each call
costs tokens (`/bestsellers` 50, `/product` 1 per id) of a quota that fills up by the minute; without enough of them the
answer is 429 with Retry-After; `/bestsellers` takes 3 s and `/product` 2 s for each 20 ids begun, times `scale`. It can
be killed and started again, be broken (500), be drained, and hold its answers back. It counts calls, tokens, seconds.

Thread rule: every method from any thread; each connection has its own thread.
Refuses to know: who asks, and that there are caches.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any, Final, cast
from urllib.parse import parse_qs, urlsplit

from stillwarm.demo.catalogue import Catalogue
from stillwarm.demo.standin import StandIn, StandInHandler

BESTSELLERS_COST: Final = 50
BESTSELLERS_SECONDS: Final = 3.0
BATCH: Final = 20
BATCH_SECONDS: Final = 2.0
MOST_IDS: Final = 100
KEY: Final = "a-key-of-the-demo"


class NoTokensError(Exception):
    """The quota does not cover the call: 429. `wait` says for how many seconds."""

    def __init__(self, wait: int) -> None:
        super().__init__(f"not enough tokens; the quota covers this call in {wait} s")
        self.wait = wait


class _Handler(StandInHandler):
    def do_GET(self) -> None:  # noqa: N802
        api = cast(ProductApi, self.server.owner)
        parts = urlsplit(self.path)
        fields = {name: values[0] for name, values in parse_qs(parts.query).items()}
        if fields.get("key") != api.key:
            return self.send_document(401, {"error": "the key is missing or wrong"})
        if api.broken:
            api.count("failed")
            return self.send_document(500, {"error": "something is broken here"})
        try:
            if parts.path == "/bestsellers":
                answer = api.bestsellers(int(fields.get("domain", "")), int(fields.get("category", "0")))
            elif parts.path == "/product":
                answer = api.product(int(fields.get("domain", "")), fields.get("asin", "").split(","))
            else:
                raise LookupError("accepted: /bestsellers, /product")
        except NoTokensError as error:
            document = {"error": str(error), **api.account()}
            return self.send_document(429, document, ("Retry-After", str(error.wait)))
        except LookupError as error:
            return self.send_document(404, {"error": str(error)})
        except ValueError as error:
            return self.send_document(400, {"error": str(error)})
        self.send_document(200, answer)


class ProductApi(StandIn):
    """The stand-in.

    Args:
        scale: factor on every latency; 0: none.
        port: 0 for any free one, kept over restarts.
        quota: tokens that it holds at most, and at first.
        per_minute: tokens that come back each minute.
        clock: seconds; the quota's time.
    """

    name = "product-api"
    handler = _Handler

    def __init__(
        self,
        scale: float = 1.0,
        port: int = 0,
        *,
        quota: float = 100_000,
        per_minute: float = 1_000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(scale, port)
        self.key = KEY
        self.catalogue = Catalogue()
        self.broken = False
        self.spent = 0
        self.seconds = 0.0  # that its answers took, were `scale` 1
        self._quota, self._per_minute, self._clock = quota, per_minute, clock
        self._tokens, self._filled_at = quota, clock()

    def account(self) -> dict[str, Any]:
        """What is in every answer: tokens left, and how many come back each minute."""
        with self.changed:
            self._fill()
            return {"tokensLeft": int(self._tokens), "refillRate": self._per_minute, "tokensSpent": self.spent}

    def drain(self) -> None:
        """Empties the quota, as another user of the key would."""
        with self.changed:
            self._fill()
            self._tokens = 0

    def refill(self) -> None:
        """Fills the quota, as time would."""
        with self.changed:
            self._fill()
            self._tokens = self._quota

    def bestsellers(self, domain: int, category: int) -> dict[str, Any]:
        """The ids of a category.

        Raises:
            NoTokensError: the quota does not cover it.
            LookupError: there is no such category; that costs nothing.
        """
        found = self.catalogue.bestsellers(domain, category)
        self._charge("bestsellers", BESTSELLERS_COST)
        self._take(BESTSELLERS_SECONDS)
        return {"asinList": found, **self.account()}

    def product(self, domain: int, asins: list[str]) -> dict[str, Any]:
        """The products of up to 100 ids; ids that there are not are left out, and cost the same.

        Raises:
            NoTokensError: the quota does not cover it.
            ValueError: no ids, or too many.
        """
        if not asins or not all(asins) or len(asins) > MOST_IDS:
            raise ValueError(f"asin: accepted: 1 to {MOST_IDS} ids, separated by commas")
        self._charge("product", len(asins))
        self._take(BATCH_SECONDS * math.ceil(len(asins) / BATCH))
        return {"products": self.catalogue.products(domain, asins), **self.account()}

    def _charge(self, call: str, cost: int) -> None:
        with self.changed:
            self._fill()
            if self._tokens < cost:
                missing = cost - self._tokens
                self.counts["refused"] += 1
                self.changed.notify_all()
                raise NoTokensError(max(1, math.ceil(missing * 60 / self._per_minute)))
            self._tokens -= cost
            self.spent += cost
        self.count(call)

    def _fill(self) -> None:
        now = self._clock()
        self._tokens = min(self._quota, self._tokens + (now - self._filled_at) * self._per_minute / 60)
        self._filled_at = now

    def _take(self, seconds: float) -> None:
        with self.changed:
            self.seconds += seconds
        if self.scale:
            time.sleep(seconds * self.scale)
        self.wait_released()


__all__ = ["BATCH", "BATCH_SECONDS", "BESTSELLERS_COST", "BESTSELLERS_SECONDS", "KEY", "NoTokensError", "ProductApi"]
