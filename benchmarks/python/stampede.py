"""Many callers at once for one cold key: how often it is loaded, and how long after the load the last caller has it.

Thread rule: starts its own threads and loops and ends them. Refuses to know: how the others are configured.

The load ends when every caller has called and had time to start waiting, so all but one do wait; a caller that is late
only makes the delay longer, never shorter.
"""

from __future__ import annotations

import asyncio
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from python.measure import Plan, Row, Section, attempt
from rivals import OURS, Rivals
from stillwarm import Cache

KEY = "dashboard"
LIMIT_MS = 50.0
LIMIT_AT = 1_000
PATIENCE = 60.0
STACK = 256 * 1024  # bytes; 10,000 threads with the usual 8 MB would not fit
RELAY = "bare locks in a relay"


@dataclass
class Crowd:
    """Callers of one key. Each enters, calls and leaves; the loads wait until all have entered."""

    size: int
    loads: int = 0
    loaded: float = 0.0
    # Appended to, which needs no lock: one would make the callers queue for the measuring, too.
    entered: list[None] = field(default_factory=list)
    left: list[float] = field(default_factory=list)

    @property
    def settle(self) -> float:
        """Time for callers to go from entering to waiting."""
        return 0.05 + self.size * 5e-5

    def enter(self) -> None:
        self.entered.append(None)

    def leave(self) -> None:
        self.left.append(time.perf_counter())

    def load(self, key: str = KEY) -> str:
        self.loads += 1
        deadline = time.perf_counter() + PATIENCE
        while len(self.entered) < self.size and time.perf_counter() < deadline:
            time.sleep(0.002)
        time.sleep(self.settle)
        self.loaded = time.perf_counter()
        return "value"

    async def aload(self, key: str = KEY) -> str:
        self.loads += 1
        deadline = time.perf_counter() + PATIENCE
        while len(self.entered) < self.size and time.perf_counter() < deadline:
            await asyncio.sleep(0.002)
        await asyncio.sleep(self.settle)
        self.loaded = time.perf_counter()
        return "value"

    @property
    def delay_ms(self) -> float:
        return (max(self.left) - self.loaded) * 1e3


def run(crowd: Crowd, call: Callable[[], Any] | None, acall: Callable[[], Any] | None) -> None:
    """Threads for `call`, tasks for `acall`, half of each if both are given."""
    tasks = 0 if acall is None else crowd.size if call is None else crowd.size // 2
    errors: list[BaseException] = []

    def thread() -> None:
        crowd.enter()
        try:
            call()  # type: ignore[misc]
        except BaseException as error:
            errors.append(error)
        crowd.leave()

    async def task() -> None:
        crowd.enter()
        await acall()  # type: ignore[misc]
        crowd.leave()

    async def all_tasks() -> None:
        await asyncio.gather(*(task() for _ in range(tasks)))

    def loop_thread() -> None:
        try:
            asyncio.run(all_tasks())
        except BaseException as error:
            errors.append(error)

    before = threading.stack_size(STACK)
    try:
        threads = [threading.Thread(target=thread) for _ in range(crowd.size - tasks)]
        if tasks:
            threads.insert(len(threads) // 2, threading.Thread(target=loop_thread))
        started = []
        try:
            for one in threads:
                one.start()
                started.append(one)
        finally:
            crowd.size = crowd.size if len(started) == len(threads) else len(crowd.entered)  # so that the load ends
            for one in started:
                one.join()
    finally:
        threading.stack_size(before)
    if errors:
        raise errors[0]


def ours(kind: str, size: int) -> Crowd:
    crowd = Crowd(size)
    with Cache(ttl=300) as cache:
        threads = (lambda: cache.get_or_set(KEY, crowd.load)) if kind == "mixed" else cache.cached(crowd_load(crowd))
        tasks = (lambda: cache.aget_or_set(KEY, crowd.aload)) if kind == "mixed" else cache.cached(crowd_aload(crowd))
        run(crowd, None if kind == "tasks" else threads, None if kind == "threads" else tasks)
        stats = cache.stats()
    if (crowd.loads, stats.joined) != (1, size - 1):
        print(f"stampede of {size} {kind}: {crowd.loads} loads, {stats.joined} callers joined")
    return crowd


def relay(size: int) -> float:
    """The floor: threads that wait on bare locks, each releasing the next. Milliseconds until the last one runs."""
    waiting: list[Any] = []
    left: list[float] = []

    def thread() -> None:
        lock = threading.Lock()
        lock.acquire()
        waiting.append(lock)
        lock.acquire(timeout=PATIENCE)
        if waiting:
            waiting.pop().release()
        left.append(time.perf_counter())

    before = threading.stack_size(STACK)
    try:
        threads = [threading.Thread(target=thread) for _ in range(size)]
        for one in threads:
            one.start()
    finally:
        threading.stack_size(before)
    while len(waiting) < size:
        time.sleep(0.002)
    time.sleep(Crowd(size).settle)
    start = time.perf_counter()
    waiting.pop().release()
    for one in threads:
        one.join()
    return (max(left) - start) * 1e3


def crowd_load(crowd: Crowd) -> Callable[[], str]:
    def load() -> str:
        return crowd.load()

    return load


def crowd_aload(crowd: Crowd) -> Callable[[], Any]:
    async def load() -> str:
        return await crowd.aload()

    return load


def sections(plan: Plan, rivals: Rivals) -> Iterator[Section]:
    section = Section("stampede: the last caller after the load", "ms", columns="loads")
    for size in plan.callers:
        repeats = 1 if plan.quick or size > 5_000 else 3
        floor = statistics.median(relay(size) for _ in range(repeats))
        section.bars.append((f"{RELAY}, {size:,} threads", floor, "-"))
        for kind in ("threads", "tasks", "mixed"):
            crowds = [ours(kind, size) for _ in range(repeats)]
            loads = max(crowd.loads for crowd in crowds)
            delay = statistics.median(crowd.delay_ms for crowd in crowds)
            section.bars.append((f"{OURS}, {size:,} {kind}", delay, f"{loads}"))
            goal, reached = "1 load", loads == 1
            if size == LIMIT_AT:
                goal, reached = f"1 load, <= {LIMIT_MS:g} ms", reached and delay <= LIMIT_MS
            answer = f"{loads} load{'s' * (loads != 1)}, {delay:.1f} ms"
            rival = (f"{RELAY} {floor:.1f} ms", f"{delay / floor:.3g}") if kind == "threads" else ("-", "-")
            section.rows.append(Row(f"stampede of {size:,} {kind}", answer, *rival, goal, reached))
    size = min(LIMIT_AT, max(plan.callers))
    for kind, plain, sharing in (("threads", "decorated", "shared"), ("tasks", "async_decorated", "async_shared")):
        for name, adapter in rivals.with_(plain).items():
            if name == OURS:
                continue
            label = f"{name}, {size:,} {kind}"
            crowd = attempt(section, label, lambda a=adapter, p=plain, s=sharing: theirs(a, p, s, size))
            if crowd is not None and crowd.loads == 1:
                section.bars.append((label, crowd.delay_ms, "1"))
            elif crowd is not None:  # nobody waited for another's load, so there is no delay to compare
                section.notes.append(f"{label}: {crowd.loads:,} loads")
    section.notes.append("one run with 10,000 callers, else the median of three")
    yield section


def theirs(adapter: Any, plain: str, sharing: str, size: int) -> Crowd:
    crowd = Crowd(size)
    decorate = getattr(adapter, sharing, None) or getattr(adapter, plain)
    if plain == "decorated":

        def load(key: str) -> str:
            return crowd.load()

        f = decorate(load, 100, 300)
        run(crowd, lambda: f(KEY), None)
    else:

        async def aload(key: str) -> str:
            return await crowd.aload()

        g = decorate(aload, 100, 300)
        run(crowd, None, lambda: g(KEY))
    return crowd
