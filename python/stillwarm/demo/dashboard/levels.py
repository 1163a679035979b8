"""The steps of the story that need a Redis: two levels, memory above Redis; and what happens while Redis is down.

Thread rule: one thread runs a story.
Refuses to know: how it is shown, and the inside of the app.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Iterator
from typing import Any, Final

from stillwarm.demo.client import Answer
from stillwarm.demo.dashboard.app import WARM_UP
from stillwarm.demo.dashboard.patterns import ORDER, PAGE, Patterns, age_of
from stillwarm.demo.step import Step, ms, text

_PAGES: Final = (*(path for path in WARM_UP if path != PAGE), PAGE)  # last: it is over first
_numbers = itertools.count(2000)
_PATIENCE: Final = 15.0  # s, for a Redis that comes back: its breaker waits up to 2 s at first


def _new_page() -> str:
    """A path that nobody has asked for yet."""
    return f"/api/analytics?orders={next(_numbers) % 98_000 + 1}"


class Levels(Patterns):
    """Part of a Story."""

    def _levels(self) -> Iterator[Step]:
        """What the site's tier allows: none without a URL; a Redis of somebody else's is not killed."""
        if self.site.url is None:
            return
        yield self._two_levels()
        if self.site.redis is not None:
            yield self._redis_killed()
            yield self._redis_back()

    def _two_levels(self) -> Step:
        step = Step("Two levels, two processes")
        site, other = self.site, self.site.second().client
        other.get("/")  # it is up, and the connection is there
        site.cache.clear()
        here = {path: self.client.get(path) for path in _PAGES}
        made = here[PAGE]
        site.written()
        before, remote = site.search.queries, self._stats(other)["remote_hits"]
        below = {path: other.get(path) for path in reversed(_PAGES)}
        from_below = self._stats(other)["remote_hits"] - remote
        above = [other.get(path) for _ in range(5) for path in _PAGES[:-1]]
        asked = site.search.queries - before
        from_above = self._stats(other)["remote_hits"] - remote - from_below
        # A write in one process, and the other one a moment later.
        old = other.get(PAGE).body["figures"]["orders"]
        self.client.post("/api/orders", ORDER)
        written = time.monotonic()
        seen = other.get(PAGE)
        while seen.body["figures"]["orders"] == old and time.monotonic() < written + _PATIENCE:
            time.sleep(0.001)
            seen = other.get(PAGE)
        lag = seen.at - seen.seconds - written
        redis, memory = (statistics.median(a.seconds for a in answers) for answers in (below.values(), above))
        step.figures = {
            "made_ms": ms(made.seconds),
            "redis_hit_ms": ms(redis),
            "memory_hit_ms": ms(memory),
            "redis_factor": round(made.seconds / redis, 1),
            "memory_factor": round(made.seconds / memory, 1),
            "queries": asked,
            "invalidated_after_ms": ms(max(0.0, lag)),
        }
        step.seen = [
            f"a second process asks for {len(_PAGES)} pages that the first has made: {from_below} from "
            f"{site.tier_name}, "
            f"{asked} search queries",
            f"median {text(redis)} from {site.tier_name}, {text(memory)} once in its memory; the dashboard takes "
            f"{text(made.seconds)} to make: {made.seconds / redis:.0f} and {made.seconds / memory:.0f} times as fast",
            f"an order written in the first: the second asks anew {text(max(0.0, lag))} later",
        ]
        step.facts = {
            "the second process loads nothing": asked == 0 and all(a.label == "HIT" for a in [*below.values(), *above]),
            "from Redis once, then from memory": (from_below, from_above) == (len(_PAGES), 0),
            "the same answers": all(below[path].body == here[path].body for path in _PAGES),
            "a write in one process is seen in the other": seen.body["figures"]["orders"] == old + 1,
        }
        return step

    def _redis_killed(self) -> Step:
        step = Step("Redis is killed")
        site, other = self.site, self.site.second().client
        assert site.redis is not None
        old = self.client.get(PAGE).body["figures"]["orders"]
        other.get(PAGE)
        site.written()
        errors, lines = self._stats()["remote_errors"], len(site.warnings.lines)
        site.redis.kill()
        answers: list[Answer] = []
        for _ in range(20):
            for client in (self.client, other):
                answers += [client.get(PAGE), client.get(_new_page())]
        written = self.client.post("/api/orders", ORDER)
        after = self.client.get(PAGE)
        site.search.kill()  # the source, too: what is left is what memory has
        self._wait("until the ttl is over", time.monotonic() - age_of(after) + site.ttl + 0.1)
        stale = [self.client.get(PAGE) for _ in range(20)]
        site.search.start()
        stats = self._stats()
        alerts = {alert["name"]: alert for alert in self._manage("GET", "/health").body["alerts"]}
        said = [line for line in site.warnings.lines[lines:] if "Redis" in line]
        errors = stats["remote_errors"] - errors
        every = [*answers, after, *stale]
        failed = sum(a.status != 200 for a in every)
        labels = ", ".join(f"{sum(a.label == label for a in every)} {label}" for label in ("HIT", "MISS", "STALE"))
        step.figures = {
            "requests": len(every),
            "failed": failed,
            "remote_errors": errors,
            "slowest_ms": ms(max(a.seconds for a in every)),
        }
        step.seen = [
            f"{len(every)} requests of two processes, {failed} errors: {labels}; the STALE ones with the search server "
            "dead, too",
            f"{errors} failed requests to Redis counted; state {stats['state']}; one line in the log: "
            f"{said[0] if said else 'none'}",
        ]
        step.facts = {
            "no request fails": failed == 0,
            "what is not in memory is made": {a.label for a in answers[1::2]} == {"MISS"},
            "without the search server it is stale": all(a.label == "STALE" for a in stale),
            "the errors are counted and logged": errors > 0 and bool(said),
            "the state and the alert say so": stats["state"] == "DOWN" and alerts["tier_down"]["active"],
            "a write is still seen at once": written.status == 201 and after.body["figures"]["orders"] == old + 1,
        }
        return step

    def _redis_back(self) -> Step:
        step = Step("Redis is back")
        site, other = self.site, self.site.second().client
        assert site.redis is not None
        site.redis.start()
        back = time.monotonic()
        self._until(lambda: self._stats()["is_available"], back)
        self._until(lambda: self._stats(other)["is_available"], back)
        took = time.monotonic() - back
        # It is a new one and empty: it fills again, and the processes share again.
        path, shared = "", False
        for number in range(20):
            path = _new_page()
            made = self.client.get(path)
            site.written()
            before = site.search.queries
            answer = other.get(path)
            shared = made.status == answer.status == 200 and answer.label == "HIT" and site.search.queries == before
            if shared:
                break
            self.progress("until both have Redis again", number, 20)
            time.sleep(0.1)
        state = self._stats()["state"]
        step.figures = {"available_after_seconds": round(took, 2)}
        step.seen = [f"both processes have it again after {took:.1f} s, by themselves; state {state}"]
        step.facts = {
            "the state says so": state != "DOWN",
            "what one process makes the other has": shared,
        }
        return step

    def _until(self, condition: Any, began: float) -> None:
        while not condition() and time.monotonic() < began + _PATIENCE:
            self.progress("until Redis is noticed", time.monotonic() - began, 2.0)
            time.sleep(0.02)


__all__ = ["Levels"]
