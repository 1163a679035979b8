"""The story of the voc demo: what a client does with the app, what it measured, and whether it was as promised.

Every figure is measured while the story runs. A step's facts are what stillwarm promises; figures are only reported.

Thread rule: one thread runs a story.
Refuses to know: how it is shown, and the inside of the app: it asks over HTTP, and the database what reached it.
"""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from stillwarm.demo.client import Answer, Client
from stillwarm.demo.serving import allow_connections
from stillwarm.demo.step import Progress, Step, ms, text
from stillwarm.demo.voc.minutes import run_minutes
from stillwarm.demo.voc.outage import HANDLER, MISS, SOFT_BOUND, TIMED, Outage
from stillwarm.demo.voc.windows import periods

if TYPE_CHECKING:
    from stillwarm.demo.voc.site import Voc

PATH: Final = "/api/lunar/voc"
_HITS: Final = 200
_CALLS: Final = 2_000


class Story(Outage):
    """The steps, acted out with a site."""

    def __init__(self, site: Voc, progress: Progress) -> None:
        self.site = site
        self.progress = progress
        self.client = Client(site.server.url)

    def steps(self) -> Iterator[Step]:
        try:
            self._prepare()
            self.progress("the first status", 0, 1)
            miss = self.client.get(f"{PATH}/status")
            yield self._miss(miss)
            yield self._hits(miss)
            yield self._clients()
            yield self._saved()
            yield self._at_once()
            if self.site.database is not None:  # another one is not ours to stop
                yield self._killed(self.site.database)
                yield self._frozen(self.site.database)
            yield self._statistics()
        finally:
            self.client.close()

    def _prepare(self) -> None:
        """Windows to show, the engine's connections open, and nothing cached."""
        for number in range(3):
            self.client.post(PATH, self._window(-1 + number * 20))
        self.client.get(f"{PATH}/status")
        self.site.empty()
        self.site.queries.count = 0

    def _window(self, hours: float, source: str = "almanac") -> dict[str, str]:
        """Four hours, that many from this hour on."""
        hour = datetime.now(timezone.utc).replace(minute=0, second=0, microsecond=0)
        start, end = (hour + timedelta(hours=hours + more) for more in (0, 4))
        return {"start_at": start.isoformat(), "end_at": end.isoformat(), "source": source}

    def _miss(self, miss: Answer) -> Step:
        step = Step("First status")
        queries, each = self.site.queries.count, self.site.queries.latency
        step.figures = {"miss_ms": ms(miss.seconds), "queries": queries, "query_ms": ms(each)}
        step.seen = [f"{miss.label}: {text(miss.seconds)}; {queries} queries at once, each made to take {text(each)}"]
        step.facts = {
            "current, next and upcoming": miss.status == 200
            and all(miss.body[name] for name in ("current", "next", "upcoming")),
            "three queries, and says so": queries == 3 and miss.label == "MISS" and not miss.body["cache_hit"],
            MISS: miss.seconds <= each + 0.025,
        }
        return step

    def _hits(self, miss: Answer) -> Step:
        step = Step("The same again")
        hits = [self.client.get(f"{PATH}/status") for _ in range(_HITS)]
        median = statistics.median(hit.seconds for hit in hits)
        inside = sorted(self.site.run(self._in_the_handler()))
        half, most = inside[len(inside) // 2], inside[len(inside) * 99 // 100]
        step.figures = {"requests": len(hits), "hit_ms": ms(median)}
        step.figures |= {"handler_us": round(half * 1e6, 2), "handler_p99_us": round(most * 1e6, 2)}
        step.seen = [
            f"HIT: {text(median)} at the client (median of {len(hits)}); in the handler {half * 1e6:.1f} us, "
            f"99 % below {most * 1e6:.1f} us"
        ]
        step.facts = {
            "every one is a hit and says so": all(hit.label == "HIT" and hit.body.get("cache_hit") for hit in hits),
            "the same windows": all(hit.body.get("upcoming") == miss.body["upcoming"] for hit in hits),
            "no query": self.site.queries.count == 3,
            HANDLER: half < 50e-6 and most < 1e-3,
        }
        return step

    async def _in_the_handler(self) -> list[float]:
        times = []
        for _ in range(_CALLS):
            begun = time.perf_counter()
            await self.site.service.get_status()
            times.append(time.perf_counter() - begun)
        return times

    def _clients(self) -> Step:
        step = Step("60 clients a minute, and 600")
        self.progress("ten minutes of 60 clients", 0, 2)
        few = run_minutes(self.site.url, 60)
        self.progress("ten minutes of 600 clients", 1, 2)
        many = run_minutes(self.site.url, 600)
        step.figures = {"refreshes_60": few.refreshes, "queries_60": few.queries}
        step.figures |= {"refreshes_600": many.refreshes, "queries_600": many.queries}
        step.seen = [
            f"{load.requests:.0f} requests a minute: {load.refreshes:g} refreshes, {load.queries:g} queries; "
            f"without a cache {load.requests * 3:.0f} queries"
            for load in (few, many)
        ]
        step.facts = {
            "one refresh per TTL": few.refreshes == 0.5 and few.queries == 1.5,
            "ten times the clients add no query": many[1:] == few[1:],
        }
        return step

    def _saved(self) -> Step:
        step = Step("A window is saved, and again")
        window = self._window(30)
        before = self.client.get(f"{PATH}/status").body["upcoming"]
        first = self.client.post(PATH, window)
        read = self.client.get(f"{PATH}/status")
        second = self.client.post(PATH, window)
        third = self.client.post(PATH, self._window(30, "observatory"))
        again = self.client.get(f"{PATH}/status")
        outcomes = [answer.body.get("outcome") for answer in (first, second, third)]
        naive = self.client.post(PATH, {**window, "start_at": "2031-03-01T10:00"})
        found = [
            [one["source"] for one in seen.body["upcoming"] if one["id"] == first.body["id"]] for seen in (read, again)
        ]
        step.figures = {"save_ms": ms(first.seconds), "rows": self._rows(window)}
        step.seen = [f"{', '.join(map(str, outcomes))}; a time without an offset: {naive.status}"]
        step.facts = {
            "inserted or there, unchanged, updated": outcomes[0] in ("inserted", "updated", "unchanged")
            and outcomes[1:] == ["unchanged", "updated"],
            "read after the answer, each is what was saved": found == [["almanac"], ["observatory"]]
            and len(again.body["upcoming"]) >= len(before),
            "one row": self._rows(window) == 1,
            "a time without an offset is refused": naive.status == 422,
        }
        return step

    def _at_once(self) -> Step:
        callers = allow_connections(self.site.callers)
        step = Step(f"{callers} identical POSTs at once")
        window = self._window(40, f"at once {time.time_ns()}")
        told = f"{callers} POSTs at once"
        answers = self.client.get_at_once(
            PATH, callers, first="/api/v1/health", document=window,
            arrived=lambda done: self.progress(told, done, callers),
        )  # fmt: skip
        read = self.client.get(f"{PATH}/status").body["upcoming"]
        outcomes = Counter(answer.body.get("outcome") for answer in answers)
        changed = callers - outcomes["unchanged"]
        step.figures = {"requests": callers, "rows": self._rows(window), "changed": changed}
        step.seen = [f"{self._rows(window)} row; {', '.join(f'{n} {name}' for name, n in outcomes.items())}"]
        step.facts = {
            "every one is answered": all(answer.status == 200 for answer in answers),
            "exactly one row": self._rows(window) == 1,
            "one of them wrote it": changed == 1,
            "read afterwards, it is there": window["source"] in [one["source"] for one in read],
        }
        return step

    def _statistics(self) -> Step:
        step = Step("Statistics")

        def kept() -> bool:
            for name in ("status", "current"):
                self.client.get(f"{PATH}/{name}")
            return all(one["has_data"] for one in self.client.get(f"{PATH}/cache_stats").body.values())

        self._wait(lambda: self.client.get("/api/v1/health").body["status"] == "healthy")
        self._wait(kept)
        stats, health = self.client.get(f"{PATH}/cache_stats").body, self.client.get("/api/v1/health").body
        metrics = self.client.get("/metrics").body
        lines = [line for line in metrics.splitlines() if line.startswith("stillwarm_")]
        step.figures = {"metrics": len(lines), "age_seconds": stats["status"]["age_seconds"] or 0}
        step.seen = [
            f"status: {stats['status']}; current: {stats['current']}",
            f"health: {health['status']}; {len(lines)} metrics for Prometheus",
        ]
        step.facts = {
            "both caches have a value": stats["status"]["has_data"] and stats["current"]["has_data"],
            "healthy": health == {"status": "healthy", "database": "up", "cache_state": "HEALTHY"},
            "2 minutes and 1": (stats["status"]["ttl"], stats["current"]["ttl"]) == (120, 60),
            "the metrics name both types": all(f'"{name}"' in metrics for name in ("voc_status", "voc_current")),
        }
        return step

    def _rows(self, window: dict[str, str]) -> int:
        start = datetime.fromisoformat(window["start_at"])
        end = datetime.fromisoformat(window["end_at"])

        async def count() -> Any:
            async with self.site.windows.engine.connect() as connection:
                query = sa.select(sa.func.count()).select_from(periods)
                return await connection.scalar(query.where(periods.c.start_at == start, periods.c.end_at == end))

        return int(self.site.run(count()))


__all__ = ["PATH", "SOFT_BOUND", "TIMED", "Story"]
