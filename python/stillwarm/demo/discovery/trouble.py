"""The steps of the story where something is missing: results, tokens, the API; then the figures, and a whole day.

Thread rule: one thread runs a story.
Refuses to know: how it is shown, and the inside of the app.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from stillwarm import _core
from stillwarm.demo.client import Client
from stillwarm.demo.discovery.day import AROUND, PRODUCTS, REQUESTS, TIMES, WORKING, run_day
from stillwarm.demo.discovery.tables import DISCOVERY, SCORING
from stillwarm.demo.step import Progress, Step, text

if TYPE_CHECKING:
    from stillwarm.demo.discovery.site import Discovery

DISCOVER: Final = "/api/v1/products/discover"
SCORED: Final = "/api/v1/products/discover-with-scoring"
SCORE: Final = "/api/v1/products/score"
STATS: Final = "/api/v1/cache/stats"
HEALTH: Final = "/api/v1/health"
_HOUR: Final = 3_600_000_000_000
_BOOKS: Final[dict[str, Any]] = {"category": 283155, "bsr_max": 20_000}
_SPORTS: Final[dict[str, Any]] = {"category": 3375251, "bsr_max": 20_000}
_TOYS: Final[dict[str, Any]] = {"category": 165793011, "bsr_max": 20_000}


class Trouble:
    """Part of a Story."""

    site: Discovery
    progress: Progress
    client: Client

    def _nothing_found(self) -> Step:
        step = Step("Nothing fits, and nonsense")
        self.progress("a search that finds nothing", 0, 1)
        empty = {"category": _BOOKS["category"], "price_min": 1e6}
        first, calls = self.client.post(DISCOVER, empty), self.site.api.calls
        again, after = self.client.post(DISCOVER, empty), self.site.api.calls
        unknown = self.client.post(DISCOVER, {"category": 999})
        nonsense: list[Any] = [{"category": -1}, {"category": "books"}, {"bsr_min": 9, "bsr_max": 1}, {"domain": 0}, []]
        wrong = [self.client.post(DISCOVER, body) for body in nonsense]
        statuses = sorted({answer.status for answer in wrong})
        step.figures = {"refused": len(wrong)}
        step.seen = [
            f"nothing fits: {first.label} with {first.body['count']} ids, then {again.label}",
            f"unknown category: {unknown.status} with {unknown.body['count']} ids; nonsense: {statuses}",
        ]
        step.facts = {
            "an empty result is a result": first.status == 200 and first.body["asins"] == [],
            "it is kept too": again.label == "HIT" and after == calls,
            "an unknown category is an empty result": unknown.status == 200 and unknown.body["count"] == 0,
            "nonsense is refused with 422": statuses == [422],
        }
        return step

    def _no_tokens(self) -> Step:
        step = Step("No tokens left")
        self.site.api.drain()
        new, known = self.client.post(DISCOVER, _SPORTS), self.client.post(DISCOVER, _BOOKS)
        self.site.api.refill()
        self.progress("the same with tokens", 0, 1)
        later = self.client.post(DISCOVER, _SPORTS)
        wait = new.body.get("retry_after")
        step.figures = {"retry_after": wait or 0}
        step.seen = [
            f"a new search: {new.status}, try again in {wait} s; a known one: {known.label}, {text(known.seconds)}",
            f"with tokens again: {later.label}, {later.status}",
        ]
        step.facts = {
            "a new search is told when to come back": new.status == 503 and isinstance(wait, int) and wait > 0,
            "a known one is answered": known.status == 200 and known.label == "HIT",
            "the refusal was not kept": later.status == 200 and later.body["count"] > 0,
        }
        return step

    def _outage(self) -> Step:
        step = Step("The API is dead, the ids a day old")
        before = self.client.post(SCORED, _BOOKS).body["products"]
        start = _core.clock_now()
        try:
            _core.clock_set(
                start + 25 * _HOUR
            )  # the ids are over, for an hour; the scores for longer than they are kept
            self._age_rows(25)
            self.site.api.kill()
            ids = [self.client.post(DISCOVER, _BOOKS) for _ in range(20)]
            cold = self.client.post(DISCOVER, _TOYS)
            self.site.api.start()
            _core.clock_set(start + 26 * _HOUR)  # longer than any pause after a failed load
            self.progress("the API is back", 0, 1)
            back = self.client.post(SCORED, _BOOKS)
        finally:
            self.site.api.start()
            self.site.empty()  # what was kept in a time to come
            _core.clock_set(0)
            _core.settle(self.site.cache)
        failed = sum(answer.status != 200 for answer in ids)
        hits = sum(answer.body.get("cache_hit", False) for answer in ids)
        step.figures = {"requests": len(ids), "errors": failed, "cold_status": cold.status}
        step.seen = [
            f"{ids[0].label}: {len(ids)} searches of ids an hour over their time, {failed} errors, slowest "
            f"{text(max(answer.seconds for answer in ids))}",
            f"never searched before: {cold.status}, {cold.body.get('detail')!r}",
            f"the API is back: {back.label}, {back.body['total_count']} products",
            *(f"in the log: {line}" for line in self.site.warnings.lines[-1:]),
        ]
        step.facts = {
            "no known search fails": failed == 0,
            "every answer says that it is stale": all(answer.label == "STALE" for answer in ids),
            "the one that asked the API is no cache hit": hits < len(ids) and ids[0].body["cache_hit"] is False,
            "what is not cached is a clear 503": cold.status == 503 and "does not answer" in cold.body["detail"],
            "fresh again when the API is back": back.label == "MISS" and back.body["products"] == before,
        }
        return step

    def _age_rows(self, hours: int) -> None:
        """The clock of a database is its own: there the rows are made older."""
        tier = self.site.cache._tier
        if tier is None:
            return
        past = f"interval '{hours} hours'"
        for table in (DISCOVERY["table"], SCORING["table"]):
            times = f"created_at = created_at - {past}, expires_at = expires_at - {past}"
            tier.query(f'UPDATE "{table}" SET {times}')
        times = ", ".join(f"{name} = {name} - {past}" for name in ("created_at", "fresh_until", "expires_at"))
        tier.query(f'UPDATE "{tier.schema}".entries SET {times} WHERE namespace = $1', [tier.namespace])

    def _statistics(self) -> Step:
        step = Step("Statistics")
        self.progress("a search with scores", 0, 1)
        for _ in range(3):
            self.client.post(SCORED, _BOOKS)
        stats, health = self.client.get(STATS), self.client.get(HEALTH)
        self.site.empty()
        cleared = self.client.get(STATS).body
        body, searches = stats.body, stats.body["history"]["total"]
        step.figures = {
            "discovery_hit_ratio": round(body["discovery"]["hit_ratio"], 3),
            "scoring_hit_ratio": round(body["scoring"]["hit_ratio"], 3),
            "searches": searches,
        }
        step.seen = [
            f"hit ratio: ids {body['discovery']['hit_ratio']:.3f}, scores {body['scoring']['hit_ratio']:.3f}; "
            f"{body['scoring']['entries']} scores, used {body['scoring']['average_reuse']:g} times on average",
            f"{searches} searches on record: {body['history']['by_search_type']}; health: {health.body['status']}",
        ]
        step.facts = {
            "entries and their use are counted": body["scoring"]["entries"] == 20
            and body["scoring"]["total_hits"] == 40,
            "clearing the caches empties them": cleared["discovery"]["entries"] == cleared["scoring"]["entries"] == 0,
            "and leaves the search history": cleared["history"] == body["history"] and searches > 0,
        }
        return step

    def _day(self) -> Step:
        step = Step("A day on a moved clock")
        told = f"a day of {REQUESTS} requests"
        working = run_day(WORKING, lambda done, of: self.progress(told, done, 2 * of))
        around = run_day(AROUND, lambda done, of: self.progress(told, of + done, 2 * of))
        step.figures = {
            "requests": REQUESTS,
            "saved_at_5": round(working.saved_at(5), 1),
            "saved_at_50": round(working.saved_at(50), 1),
            "saved_of_all": round(working.saved, 1),
            "tokens": working.cached.charged,
            "tokens_without": working.control.charged,
            "around_the_clock_saved_at_5": round(around.saved_at(5), 1),
            "around_the_clock_saved_at_50": round(around.saved_at(50), 1),
            "around_the_clock_saved_of_all": round(around.saved, 1),
        }
        step.seen = [
            f"100 discoveries, {PRODUCTS} products x {TIMES} scorings: {working.control.discoveries} and "
            f"{working.control.scored_ids} at the API without the cache, {working.cached.discoveries} and "
            f"{working.cached.scored_ids} with it",
            f"tokens saved: {working.saved_at(5):.1f} % at 5 a discovery, {working.saved_at(50):.1f} % at 50, "
            f"{working.saved:.1f} % of all that was charged (goal 80 %)",
            f"the same around the clock: {around.saved_at(5):.1f} %, {around.saved_at(50):.1f} %, {around.saved:.1f} %",
        ]
        failed = working.cached.failed + working.control.failed + around.cached.failed + around.control.failed
        step.facts = {
            "every request is answered": failed == 0,
            "the goal of 80 % on a working day": min(working.saved_at(5), working.saved_at(50)) >= 80,
            "at least 70 % around the clock": min(around.saved_at(5), around.saved_at(50)) >= 70,
        }
        return step


__all__ = ["DISCOVER", "HEALTH", "SCORE", "SCORED", "STATS", "Trouble"]
