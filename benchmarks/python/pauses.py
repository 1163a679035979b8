"""The longest that one call takes, in CPU time of its thread, while everything that a full cache holds expires.

Thread rule: one thread, since the clock that is moved belongs to the whole process.
Refuses to know: how the others are configured.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from typing import Any

from python.hits import one
from python.measure import Plan, Row, Section
from rivals import OURS, Rivals
from stillwarm import _core

LIMIT_MS = 1.0
RIVAL_CALLS = 1_000


def sections(plan: Plan, rivals: Rivals) -> Iterator[Section]:
    section = Section(f"worst pause of one call while {plan.entries:,} entries expire", "ms", columns="what was called")
    try:
        repeats = [of_ours(plan.entries) for _ in range(1 if plan.quick else 3)]
    finally:
        _core.clock_set(0)
    worst, calls, most = max(repeats, key=lambda found: max(found[0].values()))
    for kind, ns in worst.items():
        section.bars.append((f"{OURS}, {kind}", ns / 1e6, f"worst of {calls:,} calls"))
    others: dict[str, float] = {}
    for name, adapter in rivals.with_("expiring").items():
        if name != OURS and not (plan.quick and name == "cachebox"):  # its clock cannot be moved: 10 s
            others[name] = of_rival(adapter, plan.entries) / 1e6
            section.bars.append((name, others[name], f"worst of {RIVAL_CALLS:,} writes of a new key"))
    section.bars.sort(key=lambda bar: bar[1])
    pause = max(worst.values()) / 1e6
    rival, ratio = "-", "-"
    if others:
        best = min(others, key=lambda name: others[name])
        rival, ratio = f"{best} {others[best]:.1f} ms", f"{pause / others[best]:.2g}"
    section.rows.append(Row(section.title, f"{pause:.3f} ms", rival, ratio, f"<= {LIMIT_MS:g} ms", pause <= LIMIT_MS))
    section.rows.append(Row("most entries removed by one call meanwhile", f"{most}", "-", "-", "a bound", most < 1_000))
    section.notes.append("time.thread_time_ns around each call, the collector of cycles off")
    yield section


def of_ours(entries: int) -> tuple[dict[str, int], int, int]:
    """Worst nanoseconds by kind of call, how many calls it took until all were gone, and the core's own bound."""
    store, expire = fill_ours(entries)
    cached = store.cached(ttl=60)(one)
    cpu = time.thread_time_ns
    worst: dict[str, int] = {}
    number = calls = 0

    def timed(kind: str, call: Callable[[str], Any], key: str) -> None:
        start = cpu()
        call(key)
        took = cpu() - start
        if took > worst.get(kind, -1):
            worst[kind] = took

    gc.collect()
    gc.disable()
    try:
        for warm in range(1_000):
            timed("hit", cached, "warm")
            timed("miss", cached, f"warm:{warm}")
            timed("set", lambda key: store.set(key, 1, 60), f"warm:{warm}")
            timed("get of a key that is gone", store.get, f"nothing:{warm}")
        worst.clear()
        expire()
        while _core.totals(store)["entries"] > 4 * number + 4_096 or number < 1_000:
            for _ in range(250):
                timed("hit", cached, "live")
                timed("miss", cached, f"new:{number}")
                timed("set", lambda key: store.set(key, 1, 60), f"new:{number}")
                timed("get of a key that is gone", store.get, f"product:{number}")
                number += 1
                calls += 4
    finally:
        gc.enable()
    most = _core.totals(store)["most_removed_per_call"]
    store.close()
    return worst, calls, most


def fill_ours(entries: int) -> tuple[Any, Callable[[], None]]:
    from rivals import ours

    store, expire = ours.expiring(entries * 2)
    for number in range(entries):
        store.set(f"product:{number}", number, 60)
    return store, expire


def of_rival(adapter: Any, entries: int) -> int:
    """Worst nanoseconds of the first writes after everything expired."""
    store, expire = adapter.expiring(entries * 2)
    for number in range(entries):
        adapter.put(store, f"product:{number}", number)
    expire()
    cpu, worst = time.thread_time_ns, 0
    gc.collect()
    gc.disable()
    try:
        for number in range(RIVAL_CALLS):
            start = cpu()
            adapter.put(store, f"new:{number}", number)
            worst = max(worst, cpu() - start)
    finally:
        gc.enable()
    return worst
