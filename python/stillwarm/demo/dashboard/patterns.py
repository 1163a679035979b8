"""The steps of the story that show patterns: warm-up, one entry per user, conditional keeping, the operator, traffic.

Thread rule: one thread runs a story.
Refuses to know: how it is shown, and the inside of the app.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from stillwarm.demo.client import Answer, Client
from stillwarm.demo.dashboard.app import WARM_UP, warm_up
from stillwarm.demo.dashboard.replay import SECONDS, THEIRS, replay
from stillwarm.demo.dashboard.search import QUERIES
from stillwarm.demo.step import Progress, Step, text

if TYPE_CHECKING:
    from stillwarm.demo.dashboard.site import Dashboard

PAGE: Final = "/api/dashboard"
ORDER: Final = {"customer": "a-new-customer", "product": "teapot", "country": "AT", "amount": 42.0}
REFERENCE: Final = ("hits", "misses", "errors", "total_requests", "hit_rate", "is_available")


def age_of(answer: Answer) -> float:
    """Seconds since the answer's body was made, by what it says itself."""
    return max(0.0, time.time() - float(answer.body["made_at"]))


class Patterns:
    """Part of a Story."""

    site: Dashboard
    progress: Progress
    client: Client
    requests: int

    def _warm_up(self) -> Step:
        step = Step("Warm-up")
        site, states = self.site, set()
        site.cache.clear()

        def told(done: int, of: int) -> None:
            states.add(site.cache.state.value)
            self.progress("warming up", done, of)

        warmed = warm_up(site.app, site.server.url, told)
        before = site.search.queries
        answers = [self.client.get(path) for path in WARM_UP]
        states_after = site.cache.state.value
        step.figures = {"urls": len(WARM_UP), "failed": warmed.failed, "seconds": round(warmed.seconds, 3)}
        step.seen = [
            f"{warmed.done} URLs in {text(warmed.seconds)}, four at a time; state WARMING, then {states_after}",
            f"their first clients: {sum(a.label == 'HIT' for a in answers)} of {len(answers)} HIT",
        ]
        step.facts = {
            "all of them are warm": warmed.done == len(WARM_UP) and warmed.failed == 0,
            "WARMING meanwhile, HEALTHY afterwards": states == {"WARMING"} and states_after == "HEALTHY",
            "no client waits for a load": all(a.label == "HIT" for a in answers) and site.search.queries == before,
        }
        return step

    def _users(self) -> Step:
        step = Step("Two users, one URL")
        seen: dict[str, list[Answer]] = {}
        for _ in range(2):
            for name in ("customer-1", "customer-2", ""):
                seen.setdefault(name, []).append(self.client.get("/api/account", bearer=name))
        labels = [" then ".join(answer.label for answer in seen[name]) for name in ("customer-1", "customer-2")]
        own = [a.body["account"]["customer"] for name in ("customer-1", "customer-2") for a in seen[name]]
        refused = [answer.status for answer in seen[""]]
        step.figures = {"users": 2, "refused": refused.count(401)}
        step.seen = [f"customer-1: {labels[0]}; customer-2: {labels[1]}; nobody: {refused[0]}"]
        step.facts = {
            "each user sees their own account only": own == ["customer-1"] * 2 + ["customer-2"] * 2,
            "each has an entry of their own": all(label == "MISS then HIT" for label in labels),
            "who is nobody gets neither": refused == [401, 401],
        }
        return step

    def _not_kept(self) -> Step:
        step = Step("What is not kept")
        before = self.site.search.queries
        found = [self.client.get("/api/search?q=lamp+99") for _ in range(2)]
        asked = self.site.search.queries - before
        errors = [self.client.get(path) for path in ("/api/products/99999", "/api/search") for _ in range(2)]
        step.figures = {"empty_results_asked": asked}
        step.seen = [
            f"a search without results: {found[0].label} then {found[1].label}",
            f"no such product, no search text: {', '.join(str(a.status) for a in errors)}",
        ]
        step.facts = {
            "a search without results is asked again": asked == 2 and all(a.status == 200 for a in found),
            "no error is kept": [a.status for a in errors] == [404, 404, 400, 400]
            and all(a.label not in ("HIT", "STALE") for a in errors),
        }
        return step

    def _operator(self) -> Step:
        step = Step("The operator")
        path = "/api/search?q=teapot"
        first = [self.client.get(path).label for _ in range(2)][1]
        refused = self.client.post("/api/cache/invalidate/search", {})
        after_refused = self.client.get(path).label
        done = self._manage("POST", "/invalidate-pattern", {"pattern": "cache:search:*"})
        after = self.client.get(path).label
        health = [self._manage("GET", "/health").body for _ in range(3)][-1]
        raised = [alert for alert in health["alerts"] if alert["name"] == "errors"]
        lines = [line for line in self.site.warnings.lines if line.startswith("alert errors")]
        step.figures = {"invalidated": done.body.get("count", 0), "alerts": sum(a["active"] for a in health["alerts"])}
        step.seen = [
            f"without the token: {refused.status}; with it {done.body.get('count')} entries of cache:search:* go: "
            f"{first} -> {after}",
            f"after the outage {health['state']}, with one line in the log: {lines[0] if lines else 'none'}",
            f"{self.site.server.url}/api/cache/ is the operator's page; its token: {self.site.token}",
        ]
        step.facts = {
            "nothing without the token": refused.status == 401 and after_refused == "HIT",
            "what is invalidated is loaded anew": done.status == 200 and first == "HIT" and after == "MISS",
            "the alert is raised once": len(lines) == 1 and [a["crossings"] for a in raised] == [1],
            "the page is there": self.client.get("/api/cache/").status == 200,
        }
        return step

    def _statistics(self) -> Step:
        step = Step("Statistics")
        stats = self._stats()
        needed = self.requests * len(QUERIES)
        asked = stats["types"]["dashboard"]["loads"] * len(QUERIES)
        saved = 100 * (1 - asked / needed)
        counts = {name: value for name, value in stats.items() if isinstance(value, (int, float))}
        step.figures = {"page_requests": self.requests, "queries_saved_percent": round(saved, 2), **counts}
        step.seen = [
            ", ".join(f"{name} {stats[name]}" for name in REFERENCE),
            f"{self.requests:,} requests of the dashboard, at most {asked} search queries instead of {needed:,}: "
            f"{saved:.1f} % saved",
        ]
        step.facts = {
            "they add up": stats["hits"] + stats["misses"] == stats["total_requests"],
            "most search queries are saved": saved > 50,
        }
        return step

    def _two_hours(self) -> Step:
        count = 3_000 if self.site.fast else 20_000
        step = Step("Two hours of traffic")

        def told(done: int, of: int) -> None:
            self.progress(f"{count:,} requests on a moved clock", done, of)

        began = time.monotonic()
        seen = replay(count, told)
        rates = {name: round(seen.hit_rate(name), 1) for name in THEIRS}
        step.figures = {f"hit_rate_{name}": rate for name, rate in rates.items()}
        step.figures |= {"requests": count, "queries": seen.queries, "queries_saved_percent": round(seen.saved, 1)}
        step.figures["seconds"] = round(time.monotonic() - began, 2)
        step.seen = [
            f"{count:,} requests in {SECONDS // 3600} h on a moved clock, the types' own ttls; % hits (theirs): "
            + ", ".join(f"{name} {rates[name]} ({low}-{high})" for name, (low, high) in THEIRS.items()),
            f"search queries {seen.queries:,} instead of {seen.queries_without:,}: {seen.saved:.1f} % saved",
        ]
        step.facts = {"no request fails": seen.failed == 0, "some of every type are hits": all(rates.values())}
        if not self.site.fast:  # as many requests as a hit rate needs to mean something
            step.facts["every type at or above where theirs begins"] = all(rates[n] >= THEIRS[n][0] for n in THEIRS)
            step.facts["95 % of the search queries are saved"] = seen.saved >= 95
        return step

    # ------------------------------------------------------------------------------------------------------- helpers

    def _manage(self, method: str, path: str, document: Any = None) -> Answer:
        if method == "POST":
            return self.client.post(f"/api/cache{path}", document, bearer=self.site.token)
        return self.client.get(f"/api/cache{path}", bearer=self.site.token)

    def _wait(self, why: str, deadline: float) -> None:
        start = time.monotonic()
        while (now := time.monotonic()) < deadline:
            self.progress(why, now - start, deadline - start)
            time.sleep(min(0.1, deadline - now))

    def _stats(self, client: Client | None = None) -> dict[str, Any]:
        """Of this process, or of the client's."""
        answer = (client or self.client).get("/api/cache/stats", bearer=self.site.token)
        return answer.body["cache_stats"]  # type: ignore[no-any-return]


__all__ = ["ORDER", "PAGE", "REFERENCE", "Patterns", "age_of"]
