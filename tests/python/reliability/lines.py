"""What the parts of the long run are given and what they say, and the report that is made of it.

Thread rule: one thread.
Refuses to know: what is checked.
"""

from __future__ import annotations

import datetime
import os
import platform
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from reliability import children


class Line(NamedTuple):
    """One line of the report."""

    ok: bool
    what: str
    figures: str

    @property
    def is_control(self) -> bool:
        return "control" in self.what


class Plan(NamedTuple):
    seed: int
    minutes: float | None  # how long the random parts go on; None: as long as their counts say


class Part(NamedTuple):
    """One part, over."""

    name: str
    seconds: float
    lines: list[Line]

    @property
    def ok(self) -> bool:
        return all(line.ok for line in self.lines)


def told(ended: children.Ended, figures: str) -> str:
    return figures if ended.ok else str(ended)


def written(path: Path, plan: Plan, parts: Iterable[Part], seconds: float) -> None:
    """The report, as Markdown; `seconds` of the whole run."""
    parts = list(parts)
    lines = [line for part in parts for line in part.lines]
    broken = sum(not line.ok for line in lines)
    begun = f"{datetime.datetime.now():%Y-%m-%d %H:%M}"
    text = [
        "# The long reliability run",
        "",
        f"{begun}; Python {platform.python_version()}, {os.cpu_count()} cores, at the end a load of"
        f" {os.getloadavg()[0]:.1f}. Seed {plan.seed}: `python tests/python/trust.py --seed {plan.seed}`"
        + ("" if plan.minutes is None else f" `--minutes {plan.minutes:g}`"),
        "",
        f"**{len(lines)} checks, {broken} broken, {seconds / 60:.1f} minutes.** A control is a cache with a known"
        " mistake: it is right when the check catches it.",
        "",
        "| part | verdict | controls | checks | seconds |",
        "|---|---|---|---|---|",
    ]
    for part in parts:
        controls = [line for line in part.lines if line.is_control]
        caught = "none" if not controls else f"{sum(line.ok for line in controls)} of {len(controls)} caught"
        checks = [line for line in part.lines if not line.is_control]
        held = sum(line.ok for line in checks)
        verdict = "ok" if part.ok else "BROKEN"
        text.append(f"| {part.name} | {verdict} | {caught} | {held} of {len(checks)} | {part.seconds:.0f} |")
    for part in parts:
        text += ["", f"## {part.name}", ""]
        for line in part.lines:
            first, *more = line.figures.strip().splitlines() or [""]
            text.append(f"- {'ok' if line.ok else '**BROKEN**'}: {line.what}: {first}")
            text += [f"    {one.strip()}" for one in more[:40]]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(text) + "\n")


__all__ = ["Line", "Part", "Plan", "told", "written"]
