"""What each item of the menu does: one or more steps, each on a cache as the last one left it.

Thread rule: one thread.
Refuses to know: the menu (`menu`), and how steps are shown.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from typing import Any, Final

from stillwarm.demo.dashboard.patterns import ORDER, PAGE, REFERENCE
from stillwarm.demo.dashboard.search import QUERIES
from stillwarm.demo.dashboard.story import Story
from stillwarm.demo.step import Step, ms, text

_TEAPOT: Final = "/api/search?q=teapot"
_MUG: Final = "/api/search?q=mug"
_PRODUCT: Final = "/api/products/7"
_SHOWN: Final = (_TEAPOT, _MUG, _PRODUCT, PAGE)  # the last is over first
# What is sent to /api/cache, and which of the pages are made anew then; a write goes to the app itself.
WAYS: Final[dict[str, tuple[str, Any, tuple[str, ...]]]] = {
    "type": ("/invalidate/search", {}, (_TEAPOT, _MUG)),
    "pattern": ("/invalidate-pattern", {"pattern": "cache:search:*teapot*"}, (_TEAPOT,)),
    "key": ("/invalidate-key", {"key": "cache:product:product:7"}, (_PRODUCT,)),
    "write": ("", ORDER, (PAGE,)),
}


class Acts(Story):
    """The steps, acted out with a site."""

    def miss_and_hit(self) -> Step:
        step = Step("Miss against hit")
        site = self.site
        site.cache.clear()
        before = site.search.queries
        miss = self._get()
        asked = site.search.queries - before
        hits = [self._get() for _ in range(50)]
        again = site.search.queries - before - asked
        median = statistics.median(a.seconds for a in hits)
        step.figures = {"miss_ms": ms(miss.seconds), "hit_ms": ms(median), "queries": asked}
        step.seen = [
            f"{miss.label}: {text(miss.seconds)}, {asked} search queries",
            f"{hits[0].label}: {text(median)} (median of {len(hits)}), {again} search queries, "
            f"{miss.seconds / median:.0f} times as fast",
        ]
        if site.tier_name:
            step.seen.append(self._elsewhere())
        step.facts = {
            "a miss, with one query for each figure": miss.label == "MISS" and asked == len(QUERIES),
            "then hits, without any": {a.label for a in hits} == {"HIT"} and again == 0,
        }
        return step

    def _elsewhere(self) -> str:
        """What another process has of it, whose memory is cold."""
        other, site = self.site.second().client, self.site
        other.get("/")
        site.written()
        before, remote = site.search.queries, self._stats(other)["remote_hits"]
        answer = other.get(PAGE)
        asked = site.search.queries - before
        from_tier = self._stats(other)["remote_hits"] > remote
        where = f"from {site.tier_name}" if from_tier else "made anew" if asked else "from its memory"
        return f"{answer.label} in a second process: {text(answer.seconds)}, {asked} search queries, {where}"

    def invalidate(self, way: str) -> Step:
        path, document, expected = WAYS[way]
        step = Step(f"Invalidation by {way}" if path else "Invalidation after a write")
        for page in _SHOWN:
            self.client.get(page)
        before = [self.client.get(page) for page in _SHOWN]
        if path:
            done = self._manage("POST", path, document)
            told = f"POST /api/cache{path}" + (f" {document}" if document else "")
        else:
            done = self.client.post("/api/orders", document)
            told = "POST /api/orders"
        after = {page: self.client.get(page) for page in reversed(_SHOWN)}
        step.figures = {"status": done.status}
        step.seen = [
            f"{told}: {done.status}",
            *(f"{page}: {a.label} -> {after[page].label}" for page, a in zip(_SHOWN, before, strict=True)),
        ]
        missed = {page for page, answer in after.items() if answer.label == "MISS"}
        step.facts = {
            "all of them were stored": all(a.label == "HIT" for a in before),
            "what is meant is made anew, and nothing else": done.status in (200, 201) and missed == {*expected},
        }
        return step

    def statistics(self) -> Step:
        step = Step("Statistics")
        stats = self._stats()
        step.figures = {name: stats[name] for name in REFERENCE if not isinstance(stats[name], bool)}
        types = {name: one for name, one in stats["types"].items() if one["total_requests"]}
        step.seen = [
            ", ".join(f"{name} {stats[name]}" for name in REFERENCE),
            *(f"{name}: {one['hit_rate']} % of {one['total_requests']} are hits" for name, one in types.items()),
            f"{stats['entries']} entries in memory, {stats['bytes']:,} bytes"
            + (f", above {self.site.tier_name}: {stats['remote_hits']} hits from there" if self.site.tier_name else ""),
            f"state {stats['state']}; {self.site.search.queries:,} search queries so far",
        ]
        step.facts = {"they add up": stats["hits"] + stats["misses"] == stats["total_requests"]}
        return step

    def workflow(self) -> Iterator[Step]:
        """From an empty cache to an outage and back."""
        yield self.miss_and_hit()
        yield self._write()
        if self.site.tier_name:
            yield self._two_levels()
        yield self._outage()
        yield self._recovery()
        if self.site.redis is not None:
            yield self._redis_killed()
            yield self._redis_back()
        yield self.statistics()

    def close(self) -> None:
        self.client.close()


__all__ = ["WAYS", "Acts"]
