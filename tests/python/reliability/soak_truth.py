"""What was true when, and which reads of the soak cannot have been.

Versions of a key go up by one. A write is in the source before its invalidation is asked for, so that of a read it can
be said which versions it may see at all, and which are too old:

    same      the invalidation returned in this very process before the read began: never older, whatever is away (I4)
    other     ... in another process, and the tier was there all the while: not older after `max_lag` (I4)
    away      ... and it was not: not older 10 s and `max_lag` after the tier had what it was owed (I4, E6), unless the
              process that owed it was killed: then the next line alone is promised
    ttl       not older than the ttl, whatever happened
    strange   not yet written when the read ended, or another key's value: never

Thread rule: `wrote`, `invalidated`, `read` and `disturbed` from any thread; `judge` when all of them have ended.
Refuses to know: how it was read, and what disturbed.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import NamedTuple

GRACE = 10.0  # s that a value is served which was loaded while the tier was away
COARSE = 0.02  # s; the steps of the clock that hits are compared with
COMMIT = 1.0  # s from the write in the source until the last load that did not see it has stored its value
SETTLED = 0.5  # s between the driver's looks at what is owed
RULES = ("same", "other", "away", "ttl")


class Read(NamedTuple):
    began: float
    ended: float
    pid: int
    tier: str
    key: str
    version: int  # -1: no value of this key


class Invalidation(NamedTuple):
    asked: float
    returned: float
    pid: int
    version: int
    owed: bool


class Wrong(NamedTuple):
    rule: str
    read: Read
    least: int
    due: float

    def __str__(self) -> str:
        late = self.read.began - self.due
        return (
            f"{self.rule}: {self.read.tier} {self.read.key}, process {self.read.pid}, read at {self.read.began:.3f} "
            f"has version {self.read.version}, {self.least} was due {late:.3f} s before"
        )


@dataclass
class Verdict:
    checked: Counter[str] = field(default_factory=Counter)  # reads that a rule forbade something, by rule
    wrong: list[Wrong] = field(default_factory=list)

    def __str__(self) -> str:
        checked = ", ".join(f"{self.checked[rule]:,} by {rule}" for rule in RULES)
        broken = Counter(one.rule for one in self.wrong)
        by_rule = "".join(f", {count} by {rule}" for rule, count in sorted(broken.items()))
        return f"{self.checked['reads']:,} reads, bound {checked}; {len(self.wrong)} wrong{by_rule}"


class Truth:
    """The history of a run."""

    def __init__(self, max_lag: float, ttl: float) -> None:
        self._max_lag, self._ttl = max_lag, ttl
        self._writes: dict[tuple[str, str], list[float]] = defaultdict(list)  # moments; the first is of version 1
        self._invalidations: dict[tuple[str, str], list[Invalidation]] = defaultdict(list)
        self._reads: list[Read] = []
        self._disturbed: dict[str, list[tuple[float, float]]] = defaultdict(list)
        self._killed: dict[int, float] = {}
        self._told: dict[tuple[str, str], list[Invalidation]] = {}  # in the order of their return

    def wrote(self, tier: str, key: str, moment: float) -> int:
        """`moment`: before the source has it. The version."""
        writes = self._writes[tier, key]
        writes.append(moment)
        return len(writes)

    def invalidated(self, tier: str, key: str, what: Invalidation) -> None:
        self._invalidations[tier, key].append(what)

    def read(self, what: Read) -> None:
        self._reads.append(what)

    def disturbed(self, tier: str, began: float, ended: float) -> None:
        """The tier was not there for everybody, or not all that it was owed had been delivered."""
        self._disturbed[tier].append((began, ended))

    def killed(self, pid: int, moment: float) -> None:
        self._killed[pid] = moment

    def judge(self) -> Verdict:
        verdict = Verdict()
        spans = {tier: _joined(spans) for tier, spans in self._disturbed.items()}
        self._told = {of: sorted(all_, key=lambda one: one.returned) for of, all_ in self._invalidations.items()}
        for read in self._reads:
            verdict.checked["reads"] += 1
            writes = self._writes[read.tier, read.key]
            newest = bisect_right(writes, read.ended)
            if not 0 <= read.version <= newest:
                verdict.wrong.append(Wrong("strange", read, newest, read.began))
                continue
            due = self._due(read, spans.get(read.tier, []))
            for rule, (least, moment) in due.items():
                verdict.checked[rule] += least > 0
                if read.version < least:
                    verdict.wrong.append(Wrong(rule, read, least, moment))
                    break
        return verdict

    def _due(self, read: Read, spans: list[tuple[float, float]]) -> dict[str, tuple[int, float]]:
        """The least version by rule, and since when."""
        due = dict.fromkeys(RULES, (0, 0.0))
        told = self._told.get((read.tier, read.key), [])
        for at in range(bisect_left(told, read.began, key=lambda one: one.returned) - 1, -1, -1):
            one = told[at]
            if one.returned < read.began - self._ttl - COMMIT:
                break  # the ttl forbids whatever it forbids
            if one.pid == read.pid:
                rule, moment = "same", one.returned
            elif not one.owed and not _meets(spans, one.asked, read.began):
                rule, moment = "other", one.returned + self._max_lag + COARSE
            else:
                delivered = self._delivered(one, spans)
                if delivered is None:
                    continue
                rule, moment = "away", delivered + GRACE + self._max_lag + COARSE
            if moment < read.began and one.version > due[rule][0]:
                due[rule] = (one.version, moment)
        writes = self._writes[read.tier, read.key]
        expired = read.began - self._ttl - COMMIT
        due["ttl"] = (bisect_left(writes, expired), expired)
        return due

    def _delivered(self, one: Invalidation, spans: list[tuple[float, float]]) -> float | None:
        """When the tier had it; None: perhaps never."""
        until = one.returned
        for began, ended in spans:
            if began <= until and ended >= one.asked:
                until = max(until, ended)
        if one.owed:
            until = max(until, one.returned + SETTLED)
        uncertain = one.owed or until > one.returned
        return None if uncertain and self._killed.get(one.pid, until + 1) <= until else until


def _joined(spans: list[tuple[float, float]]) -> list[tuple[float, float]]:
    joined: list[tuple[float, float]] = []
    for began, ended in sorted(spans):
        if joined and began <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(joined[-1][1], ended))
        else:
            joined.append((began, ended))
    return joined


def _meets(spans: list[tuple[float, float]], began: float, ended: float) -> bool:
    """Whether any of these joined spans has a moment of this time."""
    at = bisect_right(spans, (ended, float("inf")))
    return at > 0 and spans[at - 1][1] >= began
