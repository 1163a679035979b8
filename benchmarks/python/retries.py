"""What a retry costs a call that succeeds at once, plain and in a coroutine.

Thread rule: one thread. Refuses to know: how the others are configured (rivals) and how results look (report).
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from typing import Any

from python.measure import Plan, Row, Samples, Section, async_loop, compared, interleaved, loop, new_event_loop
from rivals import OURS, Rivals

BARE = "the function alone"


def plain(key: str) -> str:
    return "value"


async def coroutine(key: str) -> str:
    return "value"


def sections(plan: Plan, rivals: Rivals) -> Iterator[Section]:
    base = loop("pass", plan.slice)
    candidates = {BARE: loop("f(a)", plan.slice, f=plain, a="key")}
    for name, adapter in rivals.with_("retried").items():
        candidates[name] = loop("f(a)", plan.slice, f=adapter.retried(plain), a="key")
    yield added("retry, no failure: added to a call", interleaved(candidates, plan.rounds, base), 40)
    events, run = new_event_loop()
    candidates = {BARE: async_loop(run, "await f(a)", plan.slice, f=coroutine, a="key")}
    for name, adapter in rivals.with_("async_retried").items():
        candidates[name] = async_loop(run, "await f(a)", plan.slice, f=adapter.async_retried(coroutine), a="key")
    samples = interleaved(candidates, plan.rounds, async_loop(run, "pass", plan.slice))
    yield added("retry, no failure: added to a coroutine", samples, 100)
    events.run_until_complete(events.shutdown_asyncgens())
    events.close()


def added(question: str, samples: Samples, most: float) -> Section:
    """One row per library: what it adds to the bare function, as the median of the rounds' own differences."""
    section = Section(question, "ns")
    compared(section, samples, OURS)
    costs: dict[str, float] = {
        name: statistics.median(a - b for a, b in zip(values, samples.values[BARE], strict=True))
        for name, values in samples.values.items()
        if name != BARE
    }
    ours: Any = costs.pop(OURS)
    section.rows.append(Row(question, f"{ours:.1f} ns", "-", "-", f"<= {most:g} ns", ours <= most))
    for name, cost in sorted(costs.items(), key=lambda item: item[1]):
        section.rows.append(Row(question, f"{ours:.1f} ns", f"{name} {cost:.0f} ns", f"{ours / cost:.3g}", "-", None))
    return section
