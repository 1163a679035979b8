"""The middle of the voc story: the database is killed, comes back, and freezes.

Thread rule: the story's.
Refuses to know: what the story has seen before.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from stillwarm.demo.client import Answer, Client
from stillwarm.demo.step import Progress, Step, ms, text
from stillwarm.demo.voc.service import TTL

if TYPE_CHECKING:
    from stillwarm._servers import PostgresServer
    from stillwarm.demo.voc.site import Voc

MISS: Final = "at most half as long again as one query"
HANDLER: Final = "in the handler below 50 us, 99 % below 1 ms"
SOFT_BOUND: Final = "nobody who has an older value waits longer than 0.7 s"
HARD_BOUND: Final = "nobody waits longer than 7 s"
TIMED: Final = frozenset({MISS, HANDLER, SOFT_BOUND, HARD_BOUND})  # facts about times
_STATUS: Final = "/api/lunar/voc/status"
_PATIENCE: Final = 20.0  # s, for what happens in the background
_SECOND: Final = 10**9  # ns


class Outage:
    """The steps with a database that is away. Its server is the demo's own."""

    site: Voc
    progress: Progress
    client: Client

    def _window(self, hours: float, source: str = "almanac") -> dict[str, str]:
        raise NotImplementedError

    def _killed(self, database: PostgresServer) -> Step:
        step = Step("The database is killed")
        known = self.client.get(_STATUS).body
        self._expire()
        self.site.log.lines.clear()
        database.kill()
        try:
            self.progress("the database is dead", 0, 3)
            stale = [self.client.get(_STATUS) for _ in range(3)]
            self._wait(lambda: any("retry 3/3" in line for line in self.site.log.lines))
            retries = [line[:40] for line in self.site.log.lines if line.startswith("retry ")]
            refused = self.client.post("/api/lunar/voc", self._window(44))
            health = self.client.get("/api/v1/health").body
            self.progress("the database is dead, nothing cached", 1, 3)
            self.site.cache.clear()
            cold = self.client.get(_STATUS)
        finally:
            self.progress("the database is back", 2, 3)
            database.start()
        back, again = self._recovered()
        step.figures = {"requests": len(stale), "retries": len(retries), "slowest_stale_ms": _slowest(stale)}
        step.figures |= {"error_ms": ms(cold.seconds), "refused_ms": ms(refused.seconds)}
        step.seen = [
            f"{stale[0].label}: {len(stale)} requests, the slowest "
            f"{_slowest(stale):.0f} ms; {len(retries)} retries: {retries[0] if retries else 'none'}...",
            f"without any value: {cold.status} after {text(cold.seconds)}; a POST: {refused.status}",
            f"the database is back: {back.label}, {back.status}",
        ]
        step.facts = {
            "the known status is served, and says that it is stale": all(
                one.status == 200 and one.label == "STALE" and one.body["stale"] for one in stale
            )
            and stale[0].body["upcoming"] == known["upcoming"],
            "three retries for each read": any("retry 3/3" in line for line in retries),
            "a window is refused, not lost": refused.status == 503,
            "health says degraded": health["status"] == "degraded" and health["database"] == "down",
            "only without any value an error": cold.status == 503,
            "fresh when the database is back": back.status == 200 and again.label == "HIT",
            SOFT_BOUND: _slowest(stale) < 700,
            HARD_BOUND: max(cold.seconds, refused.seconds) < 7,
        }
        return step

    def _frozen(self, database: PostgresServer) -> Step:
        step = Step("The database is frozen")
        self._expire()
        database.freeze()
        try:
            self.progress("the database is frozen", 0, 2)
            stale = [self.client.get(_STATUS) for _ in range(5)]
            self.site.cache.clear()
            cold = self.client.get(_STATUS)
        finally:
            self.progress("the database is back", 1, 2)
            database.thaw()
        back, _ = self._recovered()
        step.figures = {"requests": len(stale), "slowest_stale_ms": _slowest(stale), "error_ms": ms(cold.seconds)}
        step.seen = [
            f"{stale[0].label}: {len(stale)} requests, the slowest {_slowest(stale):.0f} ms",
            f"without any value: {cold.status} after {text(cold.seconds)}; thawed: {back.label}, {back.status}",
        ]
        step.facts = {
            "the known status is served": all(one.status == 200 and one.label == "STALE" for one in stale),
            "without any value a clear 503": cold.status == 503 and "does not answer" in cold.body["detail"],
            "fresh when it answers again": back.status == 200 and not back.body["stale"],
            SOFT_BOUND: _slowest(stale) < 700,
            HARD_BOUND: cold.seconds < 7,
        }
        return step

    def _expire(self) -> None:
        """What the provider's webhook can do: the values are out of date, and may stand in until there are others."""
        self._in_memory()
        for name in TTL:
            self.site.cache.invalidate(type=name, stale=True)

    def _in_memory(self) -> None:
        """Waits until a status is kept here for good: the cache hears of invalidations, and no write is on its way.

        A write that the database refuses takes its value out of memory.
        """
        tier = self.site.cache._tier
        assert tier is not None

        def kept() -> bool:
            written = tier.core.drain(_SECOND)
            hits = {self.client.get(_STATUS).label for _ in range(3)} == {"HIT"}
            return written and hits and tier.core.drain(0) and bool(self.site.service.status.cache_contains())

        self._wait(lambda: tier.core.health()["linked"])
        self._wait(kept)

    def _recovered(self) -> tuple[Answer, Answer]:
        """The first answer that is neither an error nor stale, and the first hit.

        A value is not kept before the database has heard what was invalidated while it was away.
        """
        last: list[Answer] = []

        def fresh() -> bool:
            last[:] = [self.client.get(_STATUS)]
            return last[0].status == 200 and not last[0].body["stale"]

        self._wait(fresh)
        back = last[0]
        self._wait(lambda: fresh() and last[0].label == "HIT")
        return back, last[0]

    def _wait(self, over: object) -> None:
        assert callable(over)
        until = time.monotonic() + _PATIENCE
        while not over() and time.monotonic() < until:
            time.sleep(0.02)


def _slowest(answers: list[Answer]) -> float:
    return ms(max(answer.seconds for answer in answers))


__all__ = ["HANDLER", "HARD_BOUND", "MISS", "SOFT_BOUND", "TIMED", "Outage"]
