"""The soak: two gunicorn workers, two tiers, a fault every few seconds, and readers who know what may be true.

Readers ask both workers over HTTP. Writers change the source, then invalidate through either worker: a key, a tag, a
pattern or all. `soak_truth` judges every read when the run is over; `soak_faults` deals faults from the seed.

Thread rule: `run` is one thread's; readers, writers, the sampler and a watcher of each fault have their own.
Refuses to know: limits (trust.py), pytest.
"""

from __future__ import annotations

import contextlib
import random
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from reliability.lateness import Lateness
from reliability.soak_app import (
    KEYS,
    LOAD,
    MAX_LAG,
    PATTERN_TIMEOUT,
    TAGS,
    TIERS,
    TIMEOUT,
    TTL,
    Source,
    tag_of,
)
from reliability.soak_faults import Fault, Ground, dealt, kill
from reliability.soak_report import Recovery, Report, Wait
from reliability.soak_truth import Invalidation, Read, Truth
from reliability.soak_workers import Gone, Workers
from stillwarm import Cache
from stillwarm._purge import purge
from stillwarm._servers import ServerError
from stillwarm.errors import TierError

WORKERS = 2
READERS = 4
WRITERS = 2  # of each tier
READ_EVERY, WRITE_EVERY = 0.02, 0.3  # s of a thread
BETWEEN = (3.0, 8.0)  # s from fault to fault
FIRST, LAST = 2.0, 4.0  # s without a fault at the beginning and at the end
WATCHED = 25.0  # s until a tier counts as not recovered
SAMPLED = 0.5  # s
PURGED, RETENTION = 5.0, "20s"  # how often, and how long marks stay
NAMES = [f"k{n}" for n in range(KEYS)]


class Soak:
    """One run."""

    def __init__(self, seed: int, naive: bool, folder: str) -> None:
        self.report = Report(seed)
        self.truth = Truth(MAX_LAG, TTL)
        self._seed = seed
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self._source_locks = {tier: threading.Lock() for tier in TIERS}
        self._dying: list[tuple[float, float]] = []  # when the second worker was killed, and answered again
        self._watchers: dict[str, threading.Thread] = {}
        self._next = {tier: threading.Event() for tier in TIERS}  # the tier's next fault is due
        path, self._log = Path(folder, "source"), Path(folder, "log")
        path.write_bytes(bytes(8 * KEYS * len(TIERS)))
        self._source = Source(str(path))
        self._lateness = Lateness()
        self._ground = Ground()
        try:
            with Cache(self._ground.urls["pg"], connect_timeout="20s", timeout="20s") as cache:
                cache.migrate()
            self._workers = Workers(
                {"source": str(path), "urls": self._ground.urls, "naive": naive}, self._log, WORKERS
            )
        except BaseException:
            self._ground.close()
            raise

    def close(self) -> None:
        self._stop.set()
        for event in self._next.values():
            event.set()
        for thread in [*self._threads, *self._watchers.values()]:
            thread.join()
        self._workers.close()
        self._ground.close()
        self._source.close()
        self._lateness.close()

    # --------------------------------------------------------------------------------------------------- the run

    def run(self, seconds: float, faults: bool = True) -> Report:
        self.report.began = time.monotonic()
        ends = self.report.began + seconds
        for number in range(READERS):
            self._start(self._read_on, number)
        for number, tier in enumerate(TIERS * WRITERS):
            self._start(self._write_on, number, tier)
        self._start(self._sample_on)
        self._start(self._purge_on)
        rng = random.Random(self._seed)
        deck = dealt(self._ground, self._kill_worker, rng)
        due = time.monotonic() + FIRST
        while faults and due + LAST < ends:
            self._stop.wait(max(0.0, due - time.monotonic()))
            tier, fault, lasts = next(deck)
            self._make(tier, fault, lasts)
            due = max(time.monotonic(), due + rng.uniform(*BETWEEN))
        self._stop.wait(max(0.0, ends - time.monotonic()))
        self.close()
        self.report.verdict = self.truth.judge()
        log = self._log.read_text(errors="replace")
        if "Traceback" in log or "Fatal" in log:
            self.report.errors.append(f"logged by a worker: {log[-2_000:]}")
        return self.report

    def _start(self, target: Any, *arguments: Any) -> None:
        def run() -> None:
            try:
                target(*arguments)
            except Exception as error:  # a thread that ended would only make the run easier
                self.report.errors.append(f"of the driver: {error!r}")
            finally:
                self._workers.let_go()

        self._threads.append(threading.Thread(target=run, daemon=True))
        self._threads[-1].start()

    def _make(self, tier: str, fault: Fault, lasts: float) -> None:
        before = self._watchers.get(tier)
        if before is not None:
            self._next[tier].set()
            before.join()
            self._next[tier].clear()
        began = time.monotonic()
        self.report.faults.append((began, tier, fault.name))
        fault.begin()
        self._stop.wait(lasts)
        if fault.end is not None:
            fault.end()
        watcher = threading.Thread(target=self._watch, args=(tier, fault, began, time.monotonic()), daemon=True)
        self._watchers[tier] = watcher
        watcher.start()

    def _kill_worker(self) -> None:
        worker = WORKERS - 1
        pid = self._workers.wait(worker)["pid"]
        began = time.monotonic()
        span = (began, float("inf"))
        self._dying.append(span)
        self.truth.killed(pid, began)
        kill(pid)
        self._workers.born_again(worker, pid)
        self._dying[self._dying.index(span)] = (began, time.monotonic())

    # --------------------------------------------------------------------------------------------------- its threads

    def _watch(self, tier: str, fault: Fault, began: float, ended: float) -> None:
        """Until both workers use the tier, and then until both call it HEALTHY or its next fault is due."""
        used: float | None = None
        healthy: float | None = None
        while time.monotonic() - ended < WATCHED and not self._stop.is_set():
            states = [self._state(worker) for worker in range(WORKERS)]
            now = time.monotonic()
            if used is None and all(state is not None and state[tier]["used"] for state in states):
                used = now - ended
                self.truth.disturbed(tier, began, now)
            if used is not None and all(state is not None and state[tier]["state"] == "HEALTHY" for state in states):
                healthy = now - ended
                break
            if self._next[tier].wait(0.05) and used is not None:
                break
        if used is None:
            self.truth.disturbed(tier, began, float("inf"))
        if used is not None or not self._stop.is_set():
            late = self._lateness.during(ended, ended + (used or 0.0))
            watched = time.monotonic() - ended
            self.report.recoveries.append(Recovery(began, tier, fault.name, used, healthy, late, watched))
        self._workers.let_go()

    def _state(self, worker: int) -> dict[str, Any] | None:
        try:
            state: dict[str, Any] = self._workers.ask(worker, "GET", "/state")
        except Gone:
            return None
        return state

    def _purge_on(self) -> None:
        """As the workers do it, but marks go after seconds: after 15 minutes, their default, the run is over."""
        with Cache(self._ground.postgres.url, namespace="soak", timeout="2s", purge_every=None) as cache:
            while not self._stop.wait(PURGED):
                with contextlib.suppress(TierError):  # it is away just now
                    purge(cache._place(), retention=RETENTION)

    def _sample_on(self) -> None:
        """What the processes have, what is stored, and who met an error of its tier without any fault of ours."""
        known: dict[tuple[int, str], int] = {}  # (pid, tier) -> errors
        last = time.monotonic()
        while not self._stop.wait(SAMPLED):
            began = time.monotonic()
            for worker in range(WORKERS):
                state = self._state(worker)
                for tier in TIERS if state is not None else ():
                    assert state is not None
                    before = known.setdefault((state["pid"], tier), state[tier]["trouble"])
                    if state[tier]["trouble"] != before or state[tier]["owed"]:
                        self.truth.disturbed(tier, last, time.monotonic())
                    known[state["pid"], tier] = state[tier]["trouble"]
                if worker == 0 and state is not None:
                    for name, figure in state["figures"].items():
                        self.report.samples[name].append((began, figure))
            last = began
            try:
                counts = self._ground.counts()
            except (ServerError, OSError):
                continue  # it is away just now
            for name, count in counts.items():
                self.report.samples[name].append((began, count))

    def _read_on(self, number: int) -> None:
        rng = random.Random(self._seed * 1_000 + number)
        while not self._stop.wait(READ_EVERY * rng.random() * 2):
            tier, worker = rng.choice(TIERS), rng.randrange(WORKERS)
            key = NAMES[int(len(NAMES) * rng.random() ** 2)]
            began = time.monotonic()
            told = self._asked(worker, "GET", f"/{tier}/{key}", "read", "", tier)
            if told is not None:
                version = _version_of(told["value"], tier, key)
                self.truth.read(Read(began, time.monotonic(), told["pid"], tier, key, version))

    def _write_on(self, number: int, tier: str) -> None:
        rng = random.Random(self._seed * 1_000 + 500 + number)
        while not self._stop.wait(WRITE_EVERY * rng.random() * 2):
            intent = rng.choices(["key", "tag", "pattern", "all"], [14, 4, 1, 1])[0]
            what = rng.choice(NAMES) if intent == "key" else f"tag{rng.randrange(TAGS)}" if intent == "tag" else "-"
            meant = [key for key in NAMES if what in (key, tag_of(key), "-")]
            versions = {}
            with self._source_locks[tier]:
                for key in meant:
                    versions[key] = self.truth.wrote(tier, key, time.monotonic())
                    self._source.write(tier, key, versions[key])
            asked = time.monotonic()
            told = self._asked(rng.randrange(WORKERS), "POST", f"/{tier}/{intent}/{what}", "invalidate", intent, tier)
            if told is not None:
                returned = time.monotonic()
                for key, version in versions.items():
                    one = Invalidation(asked, returned, told["pid"], version, told["owed"] > 0)
                    self.truth.invalidated(tier, key, one)

    def _asked(self, worker: int, method: str, path: str, verb: str, what: str, tier: str) -> dict[str, Any] | None:
        """What the worker said; None where it was killed meanwhile, or raised, which is noted."""
        began = time.monotonic()
        try:
            told: dict[str, Any] = self._workers.ask(worker, method, path)
        except Gone as error:
            now = time.monotonic()
            if worker == WORKERS - 1 and any(dies <= now and back >= began for dies, back in self._dying):
                self.report.gone += 1
            else:
                self.report.errors.append(f"{verb} of {tier}, worker {worker}, at {now:.3f}: {error!r}")
            return None
        except ValueError as error:
            self.report.errors.append(f"{verb} of {tier}, worker {worker}: {error}")
            return None
        self.report.calls[verb] += 1
        if "error" in told:
            self.report.errors.append(f"{verb} of {tier}: {told['error']}")
            return None
        deadline = PATTERN_TIMEOUT if what == "pattern" else TIMEOUT
        over = told["took"] - deadline - (LOAD if verb == "read" else 0.0)
        if over > 0:
            self.report.waits.append(Wait(began, f"{verb} {what}".rstrip(), tier, over, told["late"]))
        return told


def _version_of(value: object, tier: str, key: str) -> int:
    """-1 for what is not this key's, or not whole."""
    parts = str(value).split("|")
    if len(parts) != 4 or parts[:2] != [tier, key] or parts[3] != key * 20 or not parts[2].isdigit():
        return -1
    return int(parts[2])


def least_faults(seconds: float) -> float:
    """Where all of them are as far from each other as they may be."""
    return (seconds - FIRST - LAST) / BETWEEN[1]


def run(seconds: float, seed: int, naive: bool = False, faults: bool = True) -> Report:
    with tempfile.TemporaryDirectory() as folder:
        soak = Soak(seed, naive, folder)
        try:
            return soak.run(seconds, faults)
        finally:
            if not soak._stop.is_set():
                soak.close()
