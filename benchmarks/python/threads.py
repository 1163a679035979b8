"""Hits from several threads at once: what all of them together get done must not fall when there are more of them.

Thread rule: starts its own threads and joins them. Refuses to know: how the others are configured.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Iterator
from typing import Any

from python.hits import ENTRIES, KEY, TTL, one
from python.measure import Plan, Row, Section
from rivals import OURS, Rivals

THREADS = (1, 2, 8)
WHOLE = 0.8  # of one thread's throughput: with less we would speak of a collapse


def sections(plan: Plan, rivals: Rivals) -> Iterator[Section]:
    section = Section("hits from several threads, in all; more is better", "million/s")
    functions = {name: adapter.decorated(one, ENTRIES, TTL) for name, adapter in rivals.with_("decorated").items()}
    found: dict[tuple[str, int], list[float]] = {(name, n): [] for name in functions for n in THREADS}
    sizes = {name: calls_in(f, plan.slice * 5) for name, f in functions.items()}
    for _ in range(max(3, plan.rounds // 2)):
        for name, threads in found:
            found[name, threads].append(throughput(functions[name], threads, sizes[name]))
    kept: dict[tuple[str, int], float] = {}
    for (name, threads), values in found.items():
        kept[name, threads] = statistics.median(a / b for a, b in zip(values, found[name, 1], strict=True))
        section.bars.append(
            (f"{name}, {threads} thread{'s' * (threads > 1)}", statistics.median(values), f"{kept[name, threads]:.2f}")
        )
    section.columns = "share of one thread's, same round"
    for threads in THREADS[1:]:
        ours, lru = kept[OURS, threads], kept["lru_cache", threads]
        title = f"hits from {threads} threads, share of one thread's throughput"
        rival, goal = f"lru_cache {lru:.2f}", f"no collapse (>= {WHOLE})"
        section.rows.append(Row(title, f"{ours:.2f}", rival, f"{ours / lru:.2f}", goal, ours >= WHOLE))
    yield section


def calls_in(f: Any, seconds: float) -> int:
    """How many calls one thread makes in `seconds`, roughly."""
    count = 64
    while (rate := throughput(f, 1, count)) * 1e6 * seconds > count * 4:
        count *= 2
    return int(rate * 1e6 * seconds)


def throughput(f: Any, threads: int, count: int) -> float:
    """Million calls per second of all threads together; `count` calls in all."""
    barrier = threading.Barrier(threads + 1)
    each = range(count // threads)
    f(KEY)

    def work() -> None:
        key = KEY
        barrier.wait()
        for _ in each:
            f(key)
        barrier.wait()

    workers = [threading.Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    barrier.wait()
    start = time.perf_counter()
    barrier.wait()
    took = time.perf_counter() - start
    for worker in workers:
        worker.join()
    return len(each) * threads / took / 1e6
