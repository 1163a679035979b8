"""Interleaved rounds: every candidate is timed in every round, so that what the machine does meanwhile hits them all.

Thread rule: one thread. Refuses to know: what the candidates are.

The unit of a sample is nanoseconds of CPU time per operation with the loop itself subtracted: an empty loop (`base`)
runs in the same round. A ratio is the median of the rounds' own ratios, not the ratio of two medians.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import statistics
import time
import timeit
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

Candidate = Callable[[], float]

# CPU time of this thread: what other programs on the machine run meanwhile is not ours.
CLOCK = time.thread_time


@dataclass(frozen=True)
class Plan:
    """How much to do."""

    quick: bool
    rounds: int  # of each comparison
    slice: float  # seconds of one sample
    entries: int  # where a full cache is measured
    callers: tuple[int, ...]  # of a stampede


FULL = Plan(False, 21, 0.02, 1_000_000, (10, 100, 1_000, 10_000))
QUICK = Plan(True, 3, 0.004, 50_000, (10, 100))


@dataclass
class Samples:
    """What the rounds brought, by candidate."""

    values: dict[str, list[float]]

    def median(self, name: str) -> float:
        return statistics.median(self.values[name])

    def spread(self, name: str) -> tuple[float, float]:
        """First and third quartile."""
        low, _, high = statistics.quantiles(self.values[name], n=4, method="inclusive")
        return low, high

    def ratio(self, ours: str, rival: str) -> float:
        return statistics.median(a / b for a, b in zip(self.values[ours], self.values[rival], strict=True))


@dataclass(frozen=True)
class Row:
    """One question with its answer. `reached` is None where there is no goal."""

    question: str
    ours: str
    rival: str
    ratio: str
    goal: str
    reached: bool | None


@dataclass
class Section:
    """A question in full: the rows of the summary, and every candidate as a bar of the picture."""

    title: str
    unit: str
    rows: list[Row] = field(default_factory=list)
    bars: list[tuple[str, float, str]] = field(default_factory=list)  # name, value, further columns
    columns: str = ""  # heads of the further columns, as the bars' own, divided by " | "
    notes: list[str] = field(default_factory=list)


def interleaved(candidates: Mapping[str, Candidate], rounds: int, base: Candidate) -> Samples:
    """`rounds` samples of each, in an order that moves on with every round; one more, first, only warms up."""
    names = list(candidates)
    values: dict[str, list[float]] = {name: [] for name in names}
    for number in range(-1, rounds):
        start = number % len(names)
        empty = base()
        for name in names[start:] + names[:start]:
            sample = candidates[name]() - empty
            if number >= 0:
                values[name].append(max(sample, 0.1))
    return Samples(values)


def loop(statement: str, seconds: float, **names: Any) -> Candidate:
    """`statement` in timeit's loop, its names as locals, as often as fits into `seconds`."""
    setup = "; ".join(f"{name} = _{name}" for name in names) or "pass"
    timer = timeit.Timer(statement, setup, CLOCK, {f"_{name}": value for name, value in names.items()})
    count = fitting(timer.timeit, seconds)
    return lambda: timer.timeit(count) / count * 1e9


def async_loop(run: Callable[[Any], float], statement: str, seconds: float, **names: Any) -> Candidate:
    """The same inside one coroutine, which `run` drives.

    Compiled anew for each, as timeit does: the interpreter specialises code for what it calls.
    """
    lines = [
        f"async def turn(clock, repeat, {', '.join(names)}):",
        "    start = clock()",
        "    for _ in repeat:",
        f"        {statement}",
        "    return clock() - start",
    ]
    compiled: dict[str, Any] = {}
    exec("\n".join(lines), compiled)
    turn = compiled["turn"]

    def timed(count: int) -> float:
        collecting = gc.isenabled()
        gc.disable()
        try:
            return run(turn(CLOCK, itertools.repeat(None, count), **names))
        finally:
            if collecting:
                gc.enable()

    count = fitting(timed, seconds)
    return lambda: timed(count) / count * 1e9


def fitting(timed: Callable[[int], float], seconds: float) -> int:
    """How often to repeat so that it takes about `seconds`."""
    timed(1)  # a first call may import and load
    count = 1
    while (took := timed(count)) < seconds / 4:
        count *= 2
    return max(1, int(count * seconds / took))


def new_event_loop() -> tuple[asyncio.AbstractEventLoop, Callable[[Any], float]]:
    events = asyncio.new_event_loop()
    return events, events.run_until_complete


def compared(section: Section, samples: Samples, ours: str) -> None:
    """Every candidate as a bar, fastest first, with its spread and our ratio to it."""
    section.columns = f"middle half | {ours} / this"
    for name in sorted(samples.values, key=samples.median):
        low, high = samples.spread(name)
        section.bars.append((name, samples.median(name), f"{low:.1f} - {high:.1f} | {samples.ratio(ours, name):.3g}"))


def versus(section: Section, question: str, samples: Samples, ours: str, rival: str, goal: float | None) -> None:
    """A row of the summary: our ratio to one rival, and the most it may be."""
    ratio = samples.ratio(ours, rival)
    section.rows.append(
        Row(
            question,
            f"{samples.median(ours):.1f} {section.unit}",
            f"{rival} {samples.median(rival):.1f} {section.unit}",
            f"{ratio:.3g}",
            "-" if goal is None else f"<= {goal:.3g}",
            None if goal is None else ratio <= goal,
        )
    )


def attempt(section: Section, name: str, make: Callable[[], Any]) -> Any:
    """What `make` returns; if that library cannot, the section says so and None comes back."""
    try:
        return make()
    except Exception as error:  # whatever another library raises, the rest goes on
        section.notes.append(f"{name}: {type(error).__name__}: {error}")
        return None
