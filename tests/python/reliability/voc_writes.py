"""The same window, saved by a hundred clients at once through four workers of the voc app, some of which are killed.

Each round has a number, which is the source of its window: what a read shows tells whether it is of before. Windows are
made so that the last one saved is the current one; every second round saves the one of the round before again, with its
own number. A read is judged by when it began:

    same worker      after an answer of this worker: never the state before
    other workers    max_lag after any answer: never the state before

So that there are others, one worker is left out in each fifth round, and only read from.

Thread rule: one event loop in the caller's thread; the workers are processes. Times are those of this process alone.
Refuses to know: limits (trust.py), pytest.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from datetime import datetime, timedelta, timezone
from typing import Any, NamedTuple

import psycopg

from reliability import children
from reliability.wire import Wire
from stillwarm import Cache
from stillwarm._servers import PostgresServer
from stillwarm.demo.voc.app import PREFIX

WORKERS = 4
POSTS = 100
MAX_LAG = 1.0  # s, the default of a Cache
NAMESPACE = "voc_writes"
FAULTS = ("none", "kill", "session")
_AFTER = 0.3  # s of reads after the last moment at which the state before may be seen
_BASE = datetime.now(timezone.utc).replace(microsecond=0) - timedelta(hours=4)

# One session of the workers: one that saves a window if there is one, else any.
_END_ONE = """
SELECT query LIKE 'WITH%%voc_periods%%' AND state = 'active', pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid() AND (%s OR
  (query LIKE 'WITH%%voc_periods%%' AND state = 'active')) ORDER BY 1 DESC, random() LIMIT 1
"""


class Read(NamedTuple):
    worker: int
    begun: float
    shown: int  # the number of a round; -1: no window


class Round(NamedTuple):
    """What was done and seen in a round."""

    number: int
    killed: int | None  # the worker
    ended: str  # which session was: "", "saving", "any"
    answers: list[tuple[int, float]]  # worker, and when the answer was there
    lost: int  # requests to the killed worker that had no answer
    failed: list[str]  # all others that had none, or not 200
    reads: list[Read]
    rows: list[str]  # the sources of the rows with this start and end

    def judged(self) -> tuple[list[Read], list[Read]]:
        """Reads that must not show the state before: on the same worker, on others."""
        first = min((at for _, at in self.answers), default=float("inf"))
        of_worker = {w: min(at for worker, at in self.answers if worker == w) for w, _ in self.answers}
        same = [read for read in self.reads if read.begun >= of_worker.get(read.worker, float("inf"))]
        others = [read for read in self.reads if read.worker not in of_worker and read.begun >= first + MAX_LAG]
        return same, others


class Outcome(NamedTuple):
    """All rounds."""

    rounds: list[Round]

    @property
    def rows_wrong(self) -> list[Round]:
        return [one for one in self.rounds if one.rows != [str(one.number)]]

    def older(self) -> tuple[int, int]:
        """How many reads show the state before and must not: on the same worker, on others."""
        shown = [0, 0]
        for one in self.rounds:
            for kind, reads in enumerate(one.judged()):
                shown[kind] += sum(read.shown < one.number for read in reads)
        return shown[0], shown[1]

    @property
    def failed(self) -> list[str]:
        return [failure for one in self.rounds for failure in one.failed]

    @property
    def kills(self) -> int:
        return sum(one.killed is not None for one in self.rounds)

    @property
    def ended(self) -> int:
        return sum(one.ended != "" for one in self.rounds)

    def __str__(self) -> str:
        judged = [one.judged() for one in self.rounds]
        same, others = (sum(len(reads[kind]) for reads in judged) for kind in (0, 1))
        older_same, older_others = self.older()
        answered, lost = (sum(counts) for counts in zip(*((len(r.answers), r.lost) for r in self.rounds), strict=True))
        saving = sum(one.ended == "saving" for one in self.rounds)
        most = max(len(one.rows) for one in self.rounds)
        return (
            f"{len(self.rounds)} rounds, {answered:,} POSTs answered, {lost} lost with {self.kills} workers killed, "
            f"{len(self.failed)} failed otherwise; {self.ended} sessions ended, {saving} while saving; "
            f"{len(self.rows_wrong)} rounds with other than one row, most rows {most}; {same:,} reads after an answer "
            f"of the same worker, {older_same} of them older; {others:,} on others after max_lag, {older_others} older"
        )


class Worker(NamedTuple):
    """A process with the app."""

    pid: int
    url: str

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)


class Program:
    """What the workers are forks of, and end with."""

    def __init__(self, url: str, kind: str) -> None:
        paths = os.pathsep.join([str(children.PACKAGE), str(children.TESTS)])
        self._kind = kind
        self._program = subprocess.Popen(
            [sys.executable, "-m", "reliability.voc_worker", url, NAMESPACE],
            env=dict(os.environ, PYTHONPATH=paths, PYTHONFAULTHANDLER="1"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def worker(self) -> Worker:
        assert self._program.stdin is not None
        assert self._program.stdout is not None
        self._program.stdin.write(f"{self._kind}\n")
        self._program.stdin.flush()
        pid, url = self._program.stdout.readline().split()
        return Worker(int(pid), url)

    def close(self) -> None:
        for pipe in (self._program.stdin, self._program.stdout):
            assert pipe is not None
            pipe.close()
        self._program.wait()


def run(server: PostgresServer, rounds: int, seed: int, kind: str = "ours") -> Outcome:
    """So many rounds with all workers, and those with one left out. Each third one kills a worker, or ends a session.

    `kind` "naive": the control.
    """
    url = server.new_database()
    with Cache(url, timeout="20s", connect_timeout="20s") as cache:
        cache.migrate()
    program = Program(url, kind)
    try:
        return asyncio.run(_run(url, program, rounds, random.Random(seed), kind))
    finally:
        program.close()


async def _run(url: str, program: Program, rounds: int, rng: random.Random, kind: str) -> Outcome:
    workers = [program.worker() for _ in range(WORKERS)]
    wire = Wire(workers[0].url)
    assert (await wire.ask("GET", f"{PREFIX}/status"))[0] == 200  # the table is there
    wire.close()
    if kind == "naive":  # whose table is as its author thinks that he needs it
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("ALTER TABLE voc_periods DROP CONSTRAINT voc_periods_natural_key")
    done, first = [], rng.randrange(len(FAULTS))
    for number in range(rounds + -(-rounds // 4)):
        one = _Round(url, workers, number, FAULTS[(first + number) % len(FAULTS)], rng)
        done.append(await one.run())
        if one.killed is not None:
            workers[one.killed] = program.worker()
    return Outcome(done)


class _Round:
    def __init__(self, url: str, workers: list[Worker], number: int, fault: str, rng: random.Random) -> None:
        start = _BASE + timedelta(seconds=10 * (number // 2))
        self.window = {"start_at": start, "end_at": start + timedelta(days=1)}
        self.url, self.workers, self.number = url, workers, number
        self.answers: list[tuple[int, float]] = []
        self.reads: list[Read] = []
        self.failed: list[str] = []
        self.lost = 0
        self.killed: int | None = None
        self.fault = fault
        self.after = rng.randrange(POSTS // 2 if fault == "kill" else 10)  # answers that are there when it happens
        self.posted = list(range(WORKERS))
        if number % 5 == 1:
            self.posted.remove(rng.randrange(WORKERS))
        self.victim = rng.choice(self.posted)
        self.middle, self.over = asyncio.Event(), asyncio.Event()

    async def run(self) -> Round:
        readers = [asyncio.ensure_future(self._read_on(worker)) for worker in range(WORKERS)]
        turns = [self.posted[n % len(self.posted)] for n in range(POSTS)]
        wires = [(worker, Wire(self.workers[worker].url)) for worker in turns]
        await asyncio.gather(*(self._read(worker, wire, f"{PREFIX}/status") for worker, wire in wires))  # all have it
        if self.after == 0:
            self.middle.set()
        hurting = asyncio.ensure_future(self._hurt())
        await asyncio.gather(*(self._post(worker, wire) for worker, wire in wires))
        self.middle.set()
        ended = await hurting
        first = min((at for _, at in self.answers), default=time.monotonic())
        await asyncio.sleep(max(0.0, first + MAX_LAG + _AFTER - time.monotonic()))
        self.over.set()
        await asyncio.gather(*readers)
        for _, wire in wires:
            wire.close()
        rows = await asyncio.to_thread(self._rows)
        return Round(
            self.number, self.killed, ended, self.answers, self.lost, self.failed, self.reads, [row[0] for row in rows]
        )

    async def _post(self, worker: int, wire: Wire) -> None:
        body = {name: at.isoformat() for name, at in self.window.items()}
        try:
            status, answer = await wire.ask("POST", PREFIX, {**body, "source": str(self.number)})
            if status == 200:
                self.answers.append((worker, time.monotonic()))
            else:
                self.failed.append(f"round {self.number}, {self.fault}: {status} {answer}")
            if len(self.answers) == self.after:
                self.middle.set()
            await self._read(worker, wire, f"{PREFIX}/status")
        except OSError as error:
            if worker == self.killed:
                self.lost += 1
            else:
                self.failed.append(f"round {self.number}, {self.fault}: {error}")

    async def _read(self, worker: int, wire: Wire, path: str) -> None:
        begun = time.monotonic()
        status, body = await wire.ask("GET", path)
        if status != 200:
            self.failed.append(f"round {self.number}, {self.fault}: GET {status} {body}")
            return
        self.reads.append(Read(worker, begun, int(body["current"]["source"]) if body["current"] else -1))

    async def _read_on(self, worker: int) -> None:
        wire, paths = Wire(self.workers[worker].url), ("status", "current")
        try:
            while not self.over.is_set():
                await self._read(worker, wire, f"{PREFIX}/{paths[len(self.reads) % 2]}")
                await asyncio.sleep(0.004)
        except OSError:
            if worker != self.killed:
                self.failed.append(f"round {self.number}, {self.fault}: a read had no answer")
        finally:
            wire.close()

    async def _hurt(self) -> str:
        """In the middle: which session was ended."""
        await self.middle.wait()
        if self.fault == "kill":
            self.killed = self.victim
            self.workers[self.victim].kill()
        if self.fault == "session":
            return await asyncio.to_thread(self._end_session)
        return ""

    def _end_session(self) -> str:
        with psycopg.connect(self.url, autocommit=True) as connection:
            for last in [False] * 50 + [True]:
                row = connection.execute(_END_ONE, [last]).fetchone()
                if row is not None:
                    return "saving" if row[0] else "any"
        return ""

    def _rows(self) -> list[tuple[Any, ...]]:
        query = "SELECT source FROM voc_periods WHERE start_at = %(start_at)s AND end_at = %(end_at)s ORDER BY id"
        with psycopg.connect(self.url, autocommit=True) as connection:
            return connection.execute(query, self.window).fetchall()


__all__ = ["Outcome", "Round", "run"]
