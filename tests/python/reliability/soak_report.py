"""What the soak has seen, and the figures that say whether anything grew.

Thread rule: lists that several threads append to; read when they have ended.
Refuses to know: limits of time (trust.py).
"""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from dataclasses import dataclass, field

from reliability.soak_truth import Verdict

# Beside 5 %: what the middle third of a run may have less than its last one.
ROOM = {
    "rss": 2 * 2**20,
    "descriptors": 4,
    "threads": 4,
    "rows of entries": 20,
    "rows of invalidations": 200,
    "keys in Redis": 20,
}


@dataclass(frozen=True)
class Recovery:
    """How one fault passed; seconds from its end."""

    moment: float
    tier: str
    fault: str
    used: float | None  # until both workers used the tier again; None: not before the watch ended
    healthy: float | None  # until both said HEALTHY; None: not before the next fault of this tier
    machine: float  # of `used`, what the machine was late
    watched: float  # how long it was looked whether they say HEALTHY


@dataclass(frozen=True)
class Wait:
    """One that was longer than its deadline."""

    moment: float
    verb: str
    tier: str
    over: float  # s
    late: float  # s of it that the worker's threads were late in waking up

    def __str__(self) -> str:
        return (
            f"{self.verb} of {self.tier} at {self.moment:.3f}: {self.over * 1e3:+.0f} ms, {self.late * 1e3:.0f} ms late"
        )


@dataclass
class Report:
    """Of one run."""

    seed: int
    began: float = 0.0
    calls: Counter[str] = field(default_factory=Counter)
    faults: list[tuple[float, str, str]] = field(default_factory=list)  # moment, tier, name
    recoveries: list[Recovery] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    gone: int = 0  # requests whose worker was killed
    waits: list[Wait] = field(default_factory=list)
    samples: dict[str, list[tuple[float, float]]] = field(default_factory=lambda: defaultdict(list))
    verdict: Verdict = field(default_factory=Verdict)

    def long_waits(self, most: float) -> list[Wait]:
        """Those that the machine does not explain."""
        return [wait for wait in self.waits if wait.over - wait.late > most]

    def errors_told(self) -> str:
        told = f"{len(self.errors)}; {self.gone} requests ended with their worker"
        return "\n        ".join([told, *self.errors[:10]])

    def wrong_told(self) -> str:
        return "\n        ".join([str(self.verdict), *map(str, self.verdict.wrong[:10])])

    def waits_told(self, most: float) -> str:
        worst = max(self.waits, key=lambda wait: wait.over, default=None)
        net = max((wait.over - wait.late for wait in self.waits), default=0.0)
        raw = sum(wait.over > most for wait in self.waits)
        bad = self.long_waits(most)
        text = (
            f"{self.calls['read']:,} reads, {self.calls['invalidate']:,} invalidations; past their deadline by more "
            f"than {most * 1e3:.0f} ms: {raw}, and {len(bad)} without what the machine was late; "
            f"at most {net * 1e3:+.0f} ms"
        )
        if worst is not None:
            text += f" ({worst.over * 1e3:+.0f} ms with it)"
        return "\n        ".join([text, *(f"{wait}, {self._during(wait.moment)}" for wait in bad[:10])])

    def recovery_told(self, most: float) -> str:
        known = [one.used for one in self.recoveries if one.used is not None]
        slow = self.slow_recoveries(most)
        text = f"{len(self.recoveries)} faults"
        if known:
            text += f", used again after p50 {statistics.median(known):.2f} s, at most {max(known):.2f} s"
        lines = [
            f"{one.tier} {one.fault}: {'never' if one.used is None else f'{one.used:.2f} s'}"
            f" at {one.moment - self.began:.1f} s of the run, machine late {one.machine:.2f} s"
            for one in slow[:10]
        ]
        return "\n        ".join([text, *lines])

    def late_states(self, most: float) -> list[Recovery]:
        """Those after which somebody called the tier unhealthy for longer than this."""
        return [one for one in self.recoveries if one.used is not None and (one.healthy or one.watched) > most]

    def states_told(self, most: float) -> str:
        healthy = [one.healthy for one in self.recoveries if one.healthy is not None]
        text = f"{len(self.recoveries)} faults, HEALTHY before the tier's next one in {len(healthy)}"
        if healthy:
            text += f", after p50 {statistics.median(healthy):.2f} s, at most {max(healthy):.2f} s"
        lines = [
            f"{one.tier} {one.fault}: not {one.watched:.2f} s after its end" for one in self.late_states(most)[:10]
        ]
        return "\n        ".join([text, *lines])

    def slow_recoveries(self, most: float) -> list[Recovery]:
        """Those that the machine does not explain."""
        return [one for one in self.recoveries if one.used is None or one.used - one.machine > most]

    def faults_told(self) -> str:
        kinds = Counter(f"{tier} {name}" for _, tier, name in self.faults)
        return f"{len(self.faults)}: " + ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))

    def grown(self) -> dict[str, tuple[float, float, float]]:
        """By figure: median of the middle third, of the last third, and slope per minute over both."""
        told = {}
        for name, points in sorted(self.samples.items()):
            third = len(points) // 3
            if third == 0:
                continue
            middle = statistics.median(value for _, value in points[third : 2 * third])
            last = statistics.median(value for _, value in points[2 * third :])
            told[name] = (middle, last, _slope(points[third:]) * 60)
        return told

    def growing(self) -> list[str]:
        """Figures that are not flat."""
        return [name for name, (middle, last, _) in self.grown().items() if last - middle > 0.05 * middle + ROOM[name]]

    def grown_told(self) -> str:
        return "; ".join(
            f"{name} {middle:,.0f} -> {last:,.0f} ({slope:+,.1f} a minute)"
            for name, (middle, last, slope) in self.grown().items()
        )

    def _during(self, moment: float) -> str:
        """The last fault that had begun."""
        before = [one for one in self.faults if one[0] <= moment]
        return "before any fault" if not before else f"{moment - before[-1][0]:.2f} s after {' '.join(before[-1][1:])}"


def _slope(points: list[tuple[float, float]]) -> float:
    """Of the least squares, a second."""
    if len(points) < 2 or points[0][0] == points[-1][0]:
        return 0.0
    return statistics.linear_regression([x for x, _ in points], [y for _, y in points]).slope
