"""The story of the dashboard demo: what a client does with the app, what it measured, and whether it was as promised.

Every figure is measured while the story runs. A step's facts are what stillwarm promises; figures are only reported.

Thread rule: one thread runs a story.
Refuses to know: how it is shown, and the inside of the app: it asks over HTTP, and the search server what reached it.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from threading import Thread
from typing import TYPE_CHECKING

from stillwarm.demo.client import Answer, Client
from stillwarm.demo.dashboard.levels import Levels
from stillwarm.demo.dashboard.patterns import ORDER, PAGE, age_of
from stillwarm.demo.dashboard.search import QUERIES
from stillwarm.demo.serving import allow_connections
from stillwarm.demo.step import Progress, Step, ms, text

if TYPE_CHECKING:
    from stillwarm.demo.dashboard.site import Dashboard


class Story(Levels):
    """The steps, acted out with a site."""

    def __init__(self, site: Dashboard, progress: Progress) -> None:
        self.site = site
        self.progress = progress
        self.client = Client(site.server.url)
        self.requests = 0  # of the dashboard, to which the search server would have been asked seven times each

    def steps(self) -> Iterator[Step]:
        try:
            self.site.cache.clear()  # a tier may have what the last story left
            miss = self._get()
            yield self._miss(miss)
            yield self._hits(miss)
            yield self._many()
            yield self._write()
            yield self._write_during_load()
            yield self._warm_up()
            yield self._users()
            yield self._not_kept()
            yield self._outage()
            yield self._recovery()
            yield self._operator()
            yield self._statistics()
            yield from self._levels()
            yield self._two_hours()
        finally:
            self.client.close()

    def _get(self) -> Answer:
        self.requests += 1
        return self.client.get(PAGE)

    def _miss(self, miss: Answer) -> Step:
        step = Step("First request")
        queries = self.site.search.queries
        step.figures = {"miss_ms": ms(miss.seconds), "queries": queries}
        step.seen = [f"{miss.label}: {text(miss.seconds)}, {queries} search queries"]
        step.facts = {
            "answered with the figures": miss.status == 200 and set(miss.body["figures"]) == set(QUERIES),
            "a miss, with one query for each figure": miss.label == "MISS" and queries == len(QUERIES),
        }
        return step

    def _hits(self, miss: Answer) -> Step:
        step = Step("The same again")
        before = self.site.search.queries
        hits: list[Answer] = []
        while len(hits) < 300 and miss.at + self.site.ttl / 2 > time.monotonic():
            hits.append(self._get())
        median = statistics.median(hit.seconds for hit in hits) if hits else 0.0
        factor = miss.seconds / median if median else 0.0
        step.figures = {"requests": len(hits), "hit_ms": ms(median), "factor": round(factor, 1)}
        step.seen = [f"HIT: {text(median)} (median of {len(hits)}), {factor:.0f} times as fast as the miss"]
        step.facts = {
            "every one is a hit": bool(hits) and all(hit.label == "HIT" for hit in hits),
            "the same figures": all(hit.body["figures"] == miss.body["figures"] for hit in hits),
            "no search query": self.site.search.queries == before,
        }
        return step

    def _many(self) -> Step:
        callers = allow_connections(self.site.callers)
        step = Step(f"{callers:,} requests at once, nothing cached")
        self.site.cache.clear()
        before, loads = self.site.search.queries, self._stats()["loads"]
        told = f"{callers:,} requests at once"
        answers = self.client.get_at_once(
            PAGE, callers, first="/", arrived=lambda done: self.progress(told, done, callers)
        )
        self.requests += callers
        queries, stats = self.site.search.queries - before, self._stats()
        loads = stats["loads"] - loads
        beyond = answers[-1].at - self.site.search.last_answer
        step.figures = {
            "requests": callers,
            "loads": loads,
            "queries": queries,
            "last_answer_beyond_load_ms": ms(beyond),
        }
        shared = sum(answer.label == "MISS" for answer in answers)
        step.seen = [
            f"{loads} load, {queries} search queries; {shared:,} of {callers:,} shared the load",
            f"the last of {callers:,} answers came {text(beyond)} after the load's last query",
        ]
        if callers < self.site.callers:
            step.seen.append(f"the limit on open files (ulimit -n) leaves no room for {self.site.callers:,}")
        step.facts = {
            "exactly one load": loads == 1,
            "one query for each figure": queries == len(QUERIES),
            "every request is answered, all alike": all(
                a.status == 200 and a.body["figures"] == answers[0].body["figures"] for a in answers
            ),
        }
        return step

    def _write(self) -> Step:
        step = Step("An order is written")
        old = self._get().body["figures"]["orders"]
        written = self.client.post("/api/orders", ORDER)
        answer = self._get()
        new = answer.body["figures"]["orders"]
        step.figures = {"write_ms": ms(written.seconds), "orders_before": old, "orders_after": new}
        step.seen = [f"next request: {answer.label}, {text(answer.seconds)}; orders {old} -> {new}"]
        step.facts = {
            "the write is accepted": written.status == 201,
            "the next request is a new load and shows the order": answer.label == "MISS" and new == old + 1,
        }
        return step

    def _write_during_load(self) -> Step:
        step = Step("An order is written while a load runs")
        old = self._get().body["figures"]["orders"]
        self.site.cache.clear()
        lost = self._stats()["lost_fills"]
        before = self.site.search.queries
        during: list[Answer] = []
        self.site.search.hold()  # the load has read the number of orders and waits for the rest until the write is over
        other = Client(self.site.server.url)
        loading = Thread(target=lambda: during.append(other.get(PAGE)))
        loading.start()
        try:
            self.site.search.wait_for_queries(before + 1)
            written = self.client.post("/api/orders", ORDER)
        finally:
            self.site.search.release()
            loading.join()
            other.close()
        answer = self._get()
        early = during[0].body["figures"]["orders"] if during else None
        new = answer.body["figures"]["orders"]
        lost = self._stats()["lost_fills"] - lost
        step.figures = {"orders_before": old, "orders_after": new, "lost_fills": lost}
        step.seen = [
            f"the load's own caller got orders {early}; loads not stored: {lost}",
            f"next request: {answer.label}, {text(answer.seconds)}; orders {old} -> {new}",
        ]
        step.facts = {
            "the write is accepted": written.status == 201,
            "the load that began before the write is not stored": lost == 1 and early == old,
            "the next request is a new load and shows the order": answer.label == "MISS" and new == old + 1,
        }
        return step

    def _outage(self) -> Step:
        step = Step("The search server is killed")
        last = self._get()
        errors = self._stats()["load_errors"]
        self.site.search.kill()
        # Its body says when it was made, and so when it is over; a little more, as the clock has steps.
        self._wait("until the ttl is over", time.monotonic() - age_of(last) + self.site.ttl + 0.1)
        answers = [self._get() for _ in range(100)]
        oldest, slowest = age_of(answers[-1]), max(a.seconds for a in answers)
        failed = sum(a.status != 200 for a in answers)
        attempts = self._stats()["load_errors"] - errors
        step.figures = {
            "requests": len(answers),
            "errors": failed,
            "age_seconds": round(oldest, 1),
            "slowest_ms": ms(slowest),
            "attempts_to_load": attempts,
        }
        step.seen = [
            f"{answers[-1].label}: {len(answers)} requests, {failed} errors, slowest {text(slowest)}",
            f"the figures are {oldest:.1f} s old (ttl {self.site.ttl:g} s); attempts to load: {attempts}",
        ]
        step.facts = {
            "no request fails": failed == 0,
            "every answer says that it is stale": all(a.label == "STALE" for a in answers),
            "the figures are the last good ones": all(a.body.get("figures") == last.body["figures"] for a in answers),
        }
        return step

    def _recovery(self) -> Step:
        step = Step("The search server is back")
        self.site.search.start()
        back, limit = time.monotonic(), 2 * self.site.ttl + 5
        answers = [self._get()]
        while answers[-1].label != "MISS" and time.monotonic() < back + limit:
            self.progress("until the next attempt to load", time.monotonic() - back, self.site.ttl)
            time.sleep(0.02)
            answers.append(self._get())
        took = answers[-1].at - back
        failed = sum(a.status != 200 for a in answers)
        step.figures = {"requests": len(answers), "errors": failed, "fresh_after_seconds": round(took, 2)}
        step.seen = [f"fresh figures {took:.1f} s after its return; {len(answers)} requests meanwhile, {failed} errors"]
        step.facts = {
            "fresh figures again": answers[-1].label == "MISS" and answers[-1].age == 0,
            "no request fails": failed == 0,
        }
        return step


__all__ = ["Story"]
