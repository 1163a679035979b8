"""The story of the dashboard demo: what a client does with the app, what it measured, and whether it was as promised.

Every figure is measured while the story runs. A step's facts are what stillwarm promises; figures are only reported.

Thread rule: one thread runs a story.
Refuses to know: how it is shown, and the inside of the app: it asks over HTTP, and the search server what reached it.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from threading import Thread
from typing import Any

from flask import Response, jsonify

from stillwarm import Cache
from stillwarm.demo.client import Answer, Client
from stillwarm.demo.dashboard.app import QUERIES, create_app
from stillwarm.demo.serving import AppServer, allow_connections
from stillwarm.demo.upstream import SearchServer

PAGE = "/api/dashboard"
ORDER = {"customer": "a-new-customer", "product": "teapot", "country": "AT", "amount": 42.0}


@dataclass
class Step:
    """One step: its title, what was seen (a sentence each), what was measured, and which promises held."""

    title: str
    seen: list[str] = field(default_factory=list)
    figures: dict[str, float | int] = field(default_factory=dict)
    facts: dict[str, bool] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        return all(self.facts.values())


Progress = Callable[[str, float, float], object]  # what is going on, how much is done, of how much


class Dashboard:
    """The search server, the app and its cache, running on loopback ports.

    Args:
        fast: a tenth of the search server's latencies, a shorter ttl and fewer callers; for tests.
        port: of the app; 0 for any free one.

    Raises:
        OSError: the port cannot be had.
    """

    def __init__(self, fast: bool = False, port: int = 0) -> None:
        self.ttl = 2.0 if fast else 5.0
        self.callers = 100 if fast else 1000
        self.search = SearchServer(scale=0.1 if fast else 1.0).start()
        self.cache = Cache()
        app = create_app(self.search.url, self.cache, ttl=self.ttl, stale_if_error="10m")

        @app.post("/demo/search-server/<any(start, kill):action>")
        def search_server(action: str) -> Response:
            self.search.start() if action == "start" else self.search.kill()
            return jsonify(status="success", running=self.search.running)

        try:
            self.server = AppServer(app, port)
        except OSError:
            self.search.kill()
            raise

    def close(self) -> None:
        self.server.stop()
        self.search.release()
        self.search.kill()
        self.cache.close()

    def __enter__(self) -> Dashboard:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ------------------------------------------------------------------------------------------------ the story

    def story(self, progress: Progress = lambda *_: None) -> Iterator[Step]:
        """The steps, each as soon as it is over. `progress` hears about the ones that take long."""
        self._progress = progress
        self._requests = 0
        client = Client(self.server.url)
        try:
            miss = self._get(client)
            yield self._miss(miss)
            yield self._hits(client, miss)
            yield self._many(client)
            yield self._write(client)
            yield self._write_during_load(client)
            yield self._outage(client)
            yield self._recovery(client)
            yield self._statistics(client)
        finally:
            client.close()

    def _get(self, client: Client) -> Answer:
        self._requests += 1
        return client.get(PAGE)

    def _miss(self, miss: Answer) -> Step:
        step = Step("First request")
        queries = self.search.queries
        step.figures = {"miss_ms": _ms(miss.seconds), "queries": queries}
        step.seen = [f"{miss.label}: {_text(miss.seconds)}, {queries} search queries"]
        step.facts = {
            "answered with the figures": miss.status == 200 and set(miss.body["figures"]) == set(QUERIES),
            "a miss, with one query for each figure": miss.label == "MISS" and queries == len(QUERIES),
        }
        return step

    def _hits(self, client: Client, miss: Answer) -> Step:
        step = Step("The same again")
        before = self.search.queries
        hits: list[Answer] = []
        while len(hits) < 300 and miss.at + self.ttl / 2 > time.monotonic():
            hits.append(self._get(client))
        median = statistics.median(hit.seconds for hit in hits) if hits else 0.0
        factor = miss.seconds / median if median else 0.0
        step.figures = {"requests": len(hits), "hit_ms": _ms(median), "factor": round(factor, 1)}
        step.seen = [f"HIT: {_text(median)} (median of {len(hits)}), {factor:.0f} times as fast as the miss"]
        step.facts = {
            "every one is a hit": bool(hits) and all(hit.label == "HIT" for hit in hits),
            "the same figures": all(hit.body["figures"] == miss.body["figures"] for hit in hits),
            "no search query": self.search.queries == before,
        }
        return step

    def _many(self, client: Client) -> Step:
        callers = allow_connections(self.callers)
        step = Step(f"{callers:,} requests at once, nothing cached")
        self.cache.clear()
        before, loads = self.search.queries, self._stats(client)["loads"]
        told = f"{callers:,} requests at once"
        answers = client.get_at_once(
            PAGE, callers, first="/api/cache/stats", arrived=lambda done: self._progress(told, done, callers)
        )
        self._requests += callers
        queries, stats = self.search.queries - before, self._stats(client)
        loads = stats["loads"] - loads
        beyond = answers[-1].at - self.search.last_answer
        step.figures = {
            "requests": callers,
            "loads": loads,
            "queries": queries,
            "last_answer_beyond_load_ms": _ms(beyond),
        }
        shared = sum(answer.label == "MISS" for answer in answers)
        step.seen = [
            f"{loads} load, {queries} search queries; {shared:,} of {callers:,} shared the load",
            f"the last of {callers:,} answers came {_text(beyond)} after the load's last query",
        ]
        if callers < self.callers:
            step.seen.append(f"the limit on open files (ulimit -n) leaves no room for {self.callers:,}")
        step.facts = {
            "exactly one load": loads == 1,
            "one query for each figure": queries == len(QUERIES),
            "every request is answered, all alike": all(
                a.status == 200 and a.body["figures"] == answers[0].body["figures"] for a in answers
            ),
        }
        return step

    def _write(self, client: Client) -> Step:
        step = Step("An order is written")
        old = self._get(client).body["figures"]["orders"]
        written = client.post("/api/orders", ORDER)
        answer = self._get(client)
        new = answer.body["figures"]["orders"]
        step.figures = {"write_ms": _ms(written.seconds), "orders_before": old, "orders_after": new}
        step.seen = [f"next request: {answer.label}, {_text(answer.seconds)}; orders {old} -> {new}"]
        step.facts = {
            "the write is accepted": written.status == 201,
            "the next request is a new load and shows the order": answer.label == "MISS" and new == old + 1,
        }
        return step

    def _write_during_load(self, client: Client) -> Step:
        step = Step("An order is written while a load runs")
        old = self._get(client).body["figures"]["orders"]
        self.cache.clear()
        lost = self._stats(client)["lost_fills"]
        before = self.search.queries
        during: list[Answer] = []
        self.search.hold()  # the load has read the number of orders and waits for the rest until the write is over
        other = Client(self.server.url)
        loading = Thread(target=lambda: during.append(self._get(other)))
        loading.start()
        try:
            self.search.wait_for_queries(before + 1)
            written = client.post("/api/orders", ORDER)
        finally:
            self.search.release()
            loading.join()
            other.close()
        answer = self._get(client)
        early = during[0].body["figures"]["orders"] if during else None
        new = answer.body["figures"]["orders"]
        lost = self._stats(client)["lost_fills"] - lost
        step.figures = {"orders_before": old, "orders_after": new, "lost_fills": lost}
        step.seen = [
            f"the load's own caller got orders {early}; loads not stored: {lost}",
            f"next request: {answer.label}, {_text(answer.seconds)}; orders {old} -> {new}",
        ]
        step.facts = {
            "the write is accepted": written.status == 201,
            "the load that began before the write is not stored": lost == 1 and early == old,
            "the next request is a new load and shows the order": answer.label == "MISS" and new == old + 1,
        }
        return step

    def _outage(self, client: Client) -> Step:
        step = Step("The search server is killed")
        last = self._get(client)
        errors = self._stats(client)["load_errors"]
        self.search.kill()
        # The age that came with the last answer says when its value is over; a little more, as the clock has steps.
        self._wait("until the ttl is over", last.at - last.body["age_seconds"] + self.ttl + 0.1)
        answers = [self._get(client) for _ in range(100)]
        oldest, slowest = max(a.body.get("age_seconds", 0.0) for a in answers), max(a.seconds for a in answers)
        failed = sum(a.status != 200 for a in answers)
        attempts = self._stats(client)["load_errors"] - errors
        step.figures = {
            "requests": len(answers),
            "errors": failed,
            "age_seconds": round(oldest, 1),
            "slowest_ms": _ms(slowest),
            "attempts_to_load": attempts,
        }
        step.seen = [
            f"{answers[-1].label}: {len(answers)} requests, {failed} errors, slowest {_text(slowest)}",
            f"the figures are {oldest:.1f} s old (ttl {self.ttl:g} s); attempts to load: {attempts}",
        ]
        step.facts = {
            "no request fails": failed == 0,
            "every answer says that it is stale": all(a.label == "STALE" for a in answers),
            "the figures are the last good ones": all(a.body.get("figures") == last.body["figures"] for a in answers),
        }
        return step

    def _recovery(self, client: Client) -> Step:
        step = Step("The search server is back")
        self.search.start()
        back, limit = time.monotonic(), 2 * self.ttl + 5
        answers = [self._get(client)]
        while answers[-1].label != "MISS" and time.monotonic() < back + limit:
            self._progress("until the next attempt to load", time.monotonic() - back, self.ttl)
            time.sleep(0.02)
            answers.append(self._get(client))
        took = answers[-1].at - back
        failed = sum(a.status != 200 for a in answers)
        step.figures = {"requests": len(answers), "errors": failed, "fresh_after_seconds": round(took, 2)}
        step.seen = [f"fresh figures {took:.1f} s after its return; {len(answers)} requests meanwhile, {failed} errors"]
        step.facts = {
            "fresh figures again": answers[-1].label == "MISS" and answers[-1].age == 0,
            "no request fails": failed == 0,
        }
        return step

    def _statistics(self, client: Client) -> Step:
        step = Step("Statistics")
        stats = self._stats(client)
        needed, asked = self._requests * len(QUERIES), self.search.queries
        saved = 100 * (1 - asked / needed)
        counts = {name: value for name, value in stats.items() if isinstance(value, (int, float))}
        step.figures = {
            "page_requests": self._requests,
            "queries": asked,
            "queries_saved_percent": round(saved, 2),
            **counts,
        }
        step.seen = [
            f"{self._requests:,} requests of the page, {stats['loads']} loads ({stats['load_errors']} failed); "
            f"hits {stats['hits']:,}, stale {stats['stale_hits']:,}, joined {stats['joined']:,}",
            f"search queries {asked} instead of {needed:,}: {saved:.1f} % saved",
        ]
        step.facts = {"most search queries are saved": saved > 50}
        return step

    # -------------------------------------------------------------------------------------------------- helpers

    def _stats(self, client: Client) -> dict[str, Any]:
        return client.get("/api/cache/stats").body["cache_stats"]  # type: ignore[no-any-return]

    def _wait(self, why: str, deadline: float) -> None:
        start = time.monotonic()
        while (now := time.monotonic()) < deadline:
            self._progress(why, now - start, deadline - start)
            time.sleep(min(0.1, deadline - now))


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)


def _text(seconds: float) -> str:
    ms = seconds * 1000
    return f"{ms:.0f} ms" if ms >= 10 else f"{ms:.2f} ms"


__all__ = ["Dashboard", "Step"]
