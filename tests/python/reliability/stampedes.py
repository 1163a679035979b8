"""One cold key in scope "fleet", asked for by several processes of 64 threads: how many loads there are, and how many
more when the process that loads is killed.

Thread rule: one thread; one more for each child reads its lines.
Refuses to know: limits (trust.py), pytest.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
import time
from typing import NamedTuple

from reliability import children
from served import Served
from stillwarm import Cache

PROCESSES = 4
PATIENCE = 90.0  # s; above every hard timeout


class Outcome(NamedTuple):
    """What was seen."""

    loads: int  # in all; the one of a killed owner is one of them
    wrong: list[str]  # values and errors that callers got
    slowest: float  # s that a caller waited
    again: float | None  # s from the owner's death until the next load began; None: nobody was killed, or no load came

    def __str__(self) -> str:
        told = f"{self.loads} loads, {len(self.wrong)} wrong, slowest caller {self.slowest:.2f} s"
        told += "" if self.again is None else f", the next load {self.again:.2f} s after the owner's death"
        return "; ".join([told, *self.wrong[:3]])


class _Child:
    def __init__(self, url: str, seconds: float, kind: str) -> None:
        paths = os.pathsep.join([str(children.PACKAGE), str(children.TESTS)])
        self.program = subprocess.Popen(
            [sys.executable, str(children.TESTS / "isolated" / "loads_once.py"), url, str(seconds), kind],
            env=dict(os.environ, PYTHONPATH=paths, PYTHONFAULTHANDLER="1"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.began: list[float] = []  # moments of its loads
        self.loading = threading.Event()
        self._said: queue.Queue[str] = queue.Queue()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self.program.stdout is not None
        for line in self.program.stdout:
            if line.startswith("loading "):
                self.began.append(float(line.split()[1]))
                self.loading.set()
            else:
                self._said.put(line)
        self._said.put("")

    def said(self) -> str:
        return self._said.get(timeout=PATIENCE)

    def go(self) -> None:
        assert self.program.stdin is not None
        self.program.stdin.write("\n")
        self.program.stdin.flush()

    def close(self) -> None:
        self.program.kill()
        self.program.wait()
        self._thread.join()
        for pipe in (self.program.stdin, self.program.stdout):
            assert pipe is not None
            pipe.close()


def run(
    server: Served, seconds: float, kill_after: float | None = None, kind: str = "ours", processes: int = PROCESSES
) -> Outcome:
    """A loader that takes so long; its process is killed so long after it began, or never."""
    url = server.new_database()
    if server.kind == "postgres":
        with Cache(url, timeout="20s", connect_timeout="20s") as cache:
            cache.migrate()
    those = [_Child(url, seconds, kind) for _ in range(processes)]
    died: float | None = None
    killed: _Child | None = None
    try:
        for child in those:
            assert child.said() == "ready\n", "a child did not start"
        for child in those:
            child.go()
        if kill_after is not None:
            deadline = time.monotonic() + PATIENCE
            while not (owners := [child for child in those if child.loading.is_set()]):
                assert time.monotonic() < deadline, "nobody loads"
                time.sleep(0.005)
            killed = owners[0]
            time.sleep(kill_after)
            died = time.monotonic()
            killed.program.kill()
        told = [json.loads(child.said()) for child in those if child is not killed]
        moments = sorted(moment for child in those for moment in child.began)
    finally:
        for child in those:
            child.close()
    after = [moment for moment in moments if died is not None and moment > died]
    again = after[0] - died if died is not None and after else None
    wrong = [text for one in told for text in one["wrong"]]
    return Outcome(len(moments), wrong, max(one["slowest"] for one in told), again)


__all__ = ["PROCESSES", "Outcome", "run"]
