"""Discovery and scoring, cached: which ids fit the filters (24 h), and what each of them is worth (6 h).

The two cached functions are coroutine functions. A plain function with the same type and key shares their entries:
that is what `discover_now` and `score_now` are, for scripts and other code without an event loop.

Thread rule: coroutines on any loop, `..._now` on any thread; the source is asked from threads.
Refuses to know: HTTP; where the cache keeps its entries.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

from starlette.concurrency import run_in_threadpool

from stillwarm import Cache, hooks
from stillwarm.demo.discovery.ledger import Ledger, Watch
from stillwarm.demo.discovery.scoring import Product, Score, score_of
from stillwarm.demo.discovery.source import Source
from stillwarm.demo.discovery.tables import DISCOVERY_TTL, SCORING_KEY, SCORING_TTL, discovery_key

Origin = Literal["cache", "mixed", "upstream"]
Item = tuple[str, int]  # of get_many: id and domain

_SHOWN: Final = 48
_log = logging.getLogger("stillwarm.demo.discovery")


class Search(NamedTuple):
    """The filters, in the order of the key. None: not filtered by it."""

    domain: int = 1
    category: int | None = None
    bsr_min: int | None = None
    bsr_max: int | None = None
    price_min: float | None = None
    price_max: float | None = None

    def fits(self, product: Product) -> bool:
        """A product without a rank or a price fits no filter by it."""
        return _between(product.bsr, self.bsr_min, self.bsr_max) and _between(
            product.price, self.price_min, self.price_max
        )


@dataclass
class Found:
    """An answer and where it comes from.

    Attributes:
        asins: what fits the filters, or what was asked for.
        scores: of those of `asins` that there are, in the same order.
        cache_hit: the source was not asked, neither for this request nor by one whose load it shared.
        origin: of the values: all from the cache, some, none.
        stale: values of which some are over their time, because the source does not answer.
    """

    asins: list[str]
    scores: list[Score]
    cache_hit: bool
    origin: Origin
    stale: bool


class Service:
    """The two caches on a `Cache` whose types `tables.define_types` has defined."""

    def __init__(self, source: Source, cache: Cache, where: str = "memory") -> None:
        self.source, self.cache, self.ledger = source, cache, Ledger()
        self.enabled = cache._enabled  # by enabled=False or STILLWARM_DISABLED
        cache.subscribe(_tell)

        # A remote tier decodes values as the return annotations say, and a table's columns have the arguments' names.
        async def ids(
            domain: int,
            category: int | None,
            bsr_min: int | None,
            bsr_max: int | None,
            price_min: float | None,
            price_max: float | None,
        ) -> list[str]:
            search = Search(domain, category, bsr_min, bsr_max, price_min, price_max)
            return await run_in_threadpool(self._find, search)

        def ids_now(
            domain: int,
            category: int | None,
            bsr_min: int | None,
            bsr_max: int | None,
            price_min: float | None,
            price_max: float | None,
        ) -> list[str]:
            return self._find(Search(domain, category, bsr_min, bsr_max, price_min, price_max))

        async def scores(asin: str, domain: int) -> Score | None:
            return (await run_in_threadpool(self._score, [(asin, domain)]))[0]

        def scores_now(asin: str, domain: int) -> Score | None:
            return self._score([(asin, domain)])[0]

        async def many(items: list[Item]) -> list[Score | None]:
            return await run_in_threadpool(self._score, items)

        self._ids: Any = cache.cached("discovery", key=discovery_key)(ids)
        self._ids_now: Any = cache.cached("discovery", key=discovery_key)(ids_now)
        self._scores: Any = cache.cached("scoring", key=SCORING_KEY, loader_many=many)(scores)
        self._scores_now: Any = cache.cached("scoring", key=SCORING_KEY, loader_many=self._score)(scores_now)
        if self.enabled:
            _log.info("cache enabled: %s; discovery %s, scoring %s", where, DISCOVERY_TTL, SCORING_TTL)
        else:
            _log.debug("cache disabled: every request asks the product API")

    async def discover(self, search: Search) -> Found:
        """The ids that fit.

        Raises:
            SourceError: nothing is cached, and the source does not answer.
        """
        with self.ledger.watch() as watch:
            return self._discovered(search, await self._ids(*search), watch)

    def discover_now(self, search: Search) -> Found:
        """`discover` without an event loop."""
        with self.ledger.watch() as watch:
            return self._discovered(search, self._ids_now(*search), watch)

    async def score(self, asins: Iterable[str], domain: int) -> Found:
        """The scores of these ids: what is cached, and the rest in one load.

        Raises:
            SourceError: one of them is not cached, and the source does not answer.
        """
        items = _items(asins, domain)
        with self.ledger.watch() as watch:
            return self._scored(items, await self._scores.get_many(items), watch)

    def score_now(self, asins: Iterable[str], domain: int) -> Found:
        """`score` without an event loop."""
        items = _items(asins, domain)
        with self.ledger.watch() as watch:
            return self._scored(items, self._scores_now.get_many(items), watch)

    async def discover_and_score(self, search: Search, most: int) -> Found:
        """The ids that fit, and the scores of the first `most` of them, the best first."""
        found = await self.discover(search)
        scored = await self.score(found.asins[:most], search.domain)
        scored.scores.sort(key=lambda one: (-one.roi_percent, -one.velocity_score, one.asin))
        origins = {found.origin, scored.origin} if scored.asins else {found.origin}
        origin: Origin = origins.pop() if len(origins) == 1 else "mixed"
        hit, stale = found.cache_hit and scored.cache_hit, found.stale or scored.stale
        return Found(found.asins, scored.scores, hit, origin, stale)

    # --------------------------------------------------------------------------------------------- where it comes from

    def _discovered(self, search: Search, asins: list[str], watch: Watch) -> Found:
        key = discovery_key(*search)
        self.ledger.given(watch, [key])
        hit = not watch.waited(key)
        if hit:
            _log.info("discovery hit: %d ids: %s", len(asins), short(key))
        return Found(asins, [], hit, "cache" if hit or watch.any_stale else "upstream", watch.any_stale)

    def _scored(self, items: list[Item], scores: list[Score | None], watch: Watch) -> Found:
        keys = [_score_key(item) for item in items]
        self.ledger.given(watch, keys)
        asked = [key for key in keys if watch.waited(key)]
        cached = len(keys) - len(asked)
        if items:
            rate = 100 * cached / len(items)
            _log.info("scoring: %d of %d from the cache (%.1f %%)", cached, len(items), rate)
        fresh = [key for key in asked if not watch.is_stale(key)]
        origin: Origin = "cache" if not fresh else "mixed" if len(fresh) < len(keys) else "upstream"
        known = [score for score in scores if score is not None]
        return Found([asin for asin, _ in items], known, not asked, origin, watch.any_stale)

    # --------------------------------------------------------------------------------------------------- the two loads

    def _find(self, search: Search) -> list[str]:
        key = discovery_key(*search)
        _log.debug("discovery miss: %s", short(key))
        with self.ledger.load([key]):
            asins = self.source.bestsellers(search.domain, search.category or 0)
            products = self.source.products(search.domain, asins)
        return [asin for asin in asins if asin in products and search.fits(products[asin])]

    def _score(self, items: list[Item]) -> list[Score | None]:
        """Scores in the same order; None for an id that there is not, which is not kept."""
        keys = [_score_key(item) for item in items]
        for key in keys:
            _log.debug("scoring miss: %s", short(key))
        products: dict[Item, Product] = {}
        with self.ledger.load(keys):
            for domain in sorted({domain for _, domain in items}):
                asked = [asin for asin, of in items if of == domain]
                products |= {(asin, domain): one for asin, one in self.source.products(domain, asked).items()}
        return [score_of(products[item]) if item in products else None for item in items]


def short(key: str) -> str:
    """A key as it stands in a log line."""
    return key if len(key) <= _SHOWN else f"{key[: _SHOWN - 3]}..."


def _items(asins: Iterable[str], domain: int) -> list[Item]:
    return [(asin, domain) for asin in dict.fromkeys(asins)]


def _score_key(item: Item) -> str:
    return SCORING_KEY.format(asin=item[0], domain=item[1])


def _between(value: float | None, low: float | None, high: float | None) -> bool:
    if low is None and high is None:
        return True
    return value is not None and (low is None or value >= low) and (high is None or value <= high)


def _tell(event: hooks.Event) -> None:
    if event.type not in ("discovery", "scoring"):
        return
    if isinstance(event, hooks.Loaded) and event.stored == "stored":
        _log.debug("%s stored: %s", event.type, short(event.key))
    elif isinstance(event, hooks.LoadFailed):
        _log.warning("%s: no fresh value of %s: %s", event.type, short(event.key), event.error)


__all__ = ["Found", "Search", "Service", "short"]
