"""The story of the discovery demo: what a client does with the app, what it measured, and whether it was as promised.

Every figure is measured while the story runs. A step's facts are what stillwarm promises; figures are only reported.

Thread rule: one thread runs a story.
Refuses to know: how it is shown, and the inside of the app: it asks over HTTP, and the product API what reached it.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from stillwarm.demo.client import Answer, Client
from stillwarm.demo.discovery.trouble import DISCOVER, SCORE, SCORED, Trouble
from stillwarm.demo.serving import allow_connections
from stillwarm.demo.step import Progress, Step, ms, text

if TYPE_CHECKING:
    from stillwarm.demo.discovery.site import Discovery

BOOKS: Final[dict[str, Any]] = {"category": 283155, "bsr_max": 20_000}
TOOLS: Final[dict[str, Any]] = {"category": 228013, "bsr_max": 20_000}
_WAITED: Final = "none of those who waited calls it a cache hit"  # all do wait if they ask before the load ends
TIMED: Final = frozenset({"below 10 ms", "below 20 ms", "at least 10 times as fast", _WAITED})  # facts about times
_HITS: Final = 200


class Story(Trouble):
    """The steps, acted out with a site."""

    def __init__(self, site: Discovery, progress: Progress) -> None:
        self.site = site
        self.progress = progress
        self.client = Client(site.server.url)

    def steps(self) -> Iterator[Step]:
        try:
            self.site.empty()
            self.progress("the first search", 0, 1)
            miss = self.client.post(DISCOVER, BOOKS)
            yield self._miss(miss)
            yield self._hits(miss)
            self.progress("scoring 20 products", 0, 1)
            scored = self.client.post(SCORED, BOOKS)
            yield self._scored(scored)
            yield self._scored_hits(miss, scored)
            yield self._some_scores(miss)
            yield self._many()
            yield self._nothing_found()
            yield self._no_tokens()
            yield self._outage()
            yield self._statistics()
            yield self._day()
        finally:
            self.client.close()

    def _miss(self, miss: Answer) -> Step:
        step = Step("First search")
        calls, spent = self.site.api.calls, self.site.api.spent
        step.figures = {"miss_ms": ms(miss.seconds), "calls": calls, "tokens": spent}
        step.seen = [f"{miss.label}: {text(miss.seconds)}, {calls} calls of the product API, {spent} tokens"]
        step.facts = {
            "answered with ids": miss.status == 200 and miss.body["count"] == len(miss.body["asins"]) > 0,
            "says that it comes from upstream": miss.body["metadata"]["source"] == "upstream",
            "is no cache hit": miss.label == "MISS" and miss.body["cache_hit"] is False,
        }
        return step

    def _hits(self, miss: Answer) -> Step:
        step = Step("The same search again")
        calls = self.site.api.calls
        hits = [self.client.post(DISCOVER, BOOKS) for _ in range(_HITS)]
        median = statistics.median(hit.seconds for hit in hits)
        factor = miss.seconds / median
        step.figures = {"requests": len(hits), "hit_ms": ms(median), "factor": round(factor, 1)}
        step.seen = [f"HIT: {text(median)} (median of {len(hits)}), {factor:.0f} times as fast as the miss"]
        step.facts = {
            "every one is a hit and says so": all(hit.label == "HIT" and _from_cache(hit) for hit in hits),
            "the same ids": all(hit.body["asins"] == miss.body["asins"] for hit in hits),
            "no call of the product API": self.site.api.calls == calls,
            "below 10 ms": median < 0.010,
            "at least 10 times as fast": factor >= 10,
        }
        return step

    def _scored(self, scored: Answer) -> Step:
        step = Step("The search with scores")
        body = scored.body
        step.figures = {"miss_ms": ms(scored.seconds), "products": body["total_count"]}
        best = [f"{one['title']}: {one['roi_percent']:.0f} %, {one['recommendation']}" for one in body["products"][:3]]
        source = body["metadata"]["source"]
        step.seen = [f"{scored.label}: {text(scored.seconds)}, source {source}; the top 3:", *best]
        step.facts = {
            "20 products, scored": scored.status == 200 and body["total_count"] == len(body["products"]) == 20,
            "ids from the cache, scores from upstream: mixed, no cache hit": source == "mixed"
            and body["cache_hit"] is False,
        }
        return step

    def _scored_hits(self, miss: Answer, scored: Answer) -> Step:
        step = Step("The same with scores again")
        calls = self.site.api.calls
        hits = [self.client.post(SCORED, BOOKS) for _ in range(_HITS)]
        median = statistics.median(hit.seconds for hit in hits)
        factor = (miss.seconds + scored.seconds) / median
        step.figures = {"requests": len(hits), "hit_ms": ms(median), "factor": round(factor, 1)}
        step.seen = [f"HIT: {text(median)} for ids and 20 scores, {factor:.0f} times as fast as both loads"]
        step.facts = {
            "every one is a hit and says so": all(hit.label == "HIT" and _from_cache(hit) for hit in hits),
            "the same products": all(hit.body["products"] == scored.body["products"] for hit in hits),
            "no call of the product API": self.site.api.calls == calls,
            "below 20 ms": median < 0.020,
            "at least 10 times as fast": factor >= 10,
        }
        return step

    def _some_scores(self, miss: Answer) -> Step:
        step = Step("Scores, half of them cached")
        known = miss.body["asins"][:10]
        new = self.site.api.catalogue.bestsellers(1, TOOLS["category"])[:10]
        calls, spent = self.site.api.calls, self.site.api.spent
        self.progress("scoring 10 new products", 0, 1)
        answer = self.client.post(SCORE, {"asins": [*known, *new]})
        calls, spent = self.site.api.calls - calls, self.site.api.spent - spent
        step.figures = {"ids": 20, "calls": calls, "tokens": spent}
        step.seen = [f"20 ids: {calls} call, {spent} tokens; source {answer.body['metadata']['source']}"]
        step.facts = {
            "all are scored": answer.status == 200 and answer.body["total_count"] == 20,
            "the missing ones in one call, for one token each": calls == 1 and spent == len(new),
            "says mixed, and no cache hit": answer.body["metadata"]["source"] == "mixed"
            and answer.body["cache_hit"] is False,
        }
        return step

    def _many(self) -> Step:
        callers = allow_connections(self.site.callers)
        step = Step(f"{callers:,} searches at once, nothing cached")
        calls = self.site.api.counts["bestsellers"]
        told = f"{callers:,} searches at once"
        answers = self.client.get_at_once(
            DISCOVER,
            callers,
            first="/page.css",
            arrived=lambda done: self.progress(told, done, callers),
            document=TOOLS,
        )
        calls = self.site.api.counts["bestsellers"] - calls
        truthful = sum(answer.body.get("cache_hit") is False for answer in answers)
        step.figures = {"requests": callers, "searches_upstream": calls}
        step.seen = [f"{calls} search reached the product API; {truthful:,} of {callers:,} waited for it and say so"]
        step.facts = {
            "exactly one load": calls == 1,
            "every request is answered, all alike": all(
                a.status == 200 and a.body["asins"] == answers[0].body["asins"] for a in answers
            ),
            _WAITED: truthful == callers,
        }
        return step


def _from_cache(answer: Answer) -> bool:
    return answer.status == 200 and answer.body["cache_hit"] is True and answer.body["metadata"]["source"] == "cache"


__all__ = ["BOOKS", "TIMED", "TOOLS", "Story"]
