"""How soon another process sees a change: by this package, by a foreign writer, beside a cut of its link.

A child reads one key all the time (isolated/hears.py). Here the value is changed, and the clock that both share says
how much later the child saw it. The naive child hears of its own kind's messages alone, and makes nothing up for those
that it missed.

Thread rule: one thread; one more reads the child's lines.
Refuses to know: limits (trust.py), pytest.
"""

from __future__ import annotations

import contextlib
import os
import queue
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

from chaos import ChaosProxy
from outages import eventually
from reliability import children
from reliability.lateness import Lateness
from served import RawRedis, Served
from stillwarm import Cache

MISSED = 3.0  # s after which a change counts as never seen; far above every limit
ENTRIES = "stillwarm:{heard}:e:*"
CUTS = ("fin", "reset", "silence", "refused")
REFUSED = 0.2  # s that nobody gets through
SETTLES = 0.05  # s until the other has said that its link is apart


class Lag(NamedTuple):
    """Seconds from the end of a change until the other process saw it, and how many of them the machine was late."""

    seconds: float
    late: float


class Lags(NamedTuple):
    """Of many changes."""

    all: list[Lag]
    missed: int = 0

    @property
    def worst(self) -> float:
        return float("inf") if self.missed else max((lag.seconds for lag in self.all), default=float("inf"))

    @property
    def net(self) -> float:
        """The worst without what the machine was late."""
        worst = max((lag.seconds - lag.late for lag in self.all), default=float("inf"))
        return float("inf") if self.missed else worst

    def __str__(self) -> str:
        if not self.all:
            return f"{self.missed} never seen"
        ordered = sorted(lag.seconds for lag in self.all)
        told = f"p50 {ordered[len(ordered) // 2] * 1e3:.1f} ms, p99 {ordered[len(ordered) * 99 // 100] * 1e3:.1f} ms"
        return f"{told}, worst {ordered[-1] * 1e3:.1f} ms of {len(ordered):,}, {self.missed} never seen"


class Hearing:
    """The other process."""

    def __init__(self, url: str, kind: str = "ours") -> None:
        paths = os.pathsep.join([str(children.PACKAGE), str(children.TESTS)])
        self._child = subprocess.Popen(
            [sys.executable, str(children.TESTS / "isolated" / "hears.py"), url, kind],
            env=dict(os.environ, PYTHONPATH=paths, PYTHONFAULTHANDLER="1"),
            stdout=subprocess.PIPE,
            text=True,
        )
        self.whole = True  # its link to the tier
        self._lines: queue.Queue[str] = queue.Queue()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()
        self._lateness = Lateness()
        assert self.sees("ready", 60) is not None, "the child did not start"

    def _read(self) -> None:
        assert self._child.stdout is not None
        for line in self._child.stdout:
            if line.startswith(("whole", "apart")):
                self.whole = line.startswith("whole")
            else:
                self._lines.put(line)

    def sees(self, what: object, patience: float = MISSED) -> float | None:
        """The moment at which it saw this; None: it did not."""
        deadline = time.monotonic() + patience
        while True:
            try:
                value, moment = self._lines.get(timeout=max(0.0, deadline - time.monotonic())).split()
            except queue.Empty:
                return None
            if value == str(what):
                return float(moment)

    def lag(self, what: object) -> Lag | None:
        """Of what has just been changed to this."""
        changed = time.monotonic()
        seen = self.sees(what)
        return None if seen is None else Lag(max(0.0, seen - changed), self._lateness.during(changed, seen))

    def close(self) -> None:
        self._lateness.close()
        self._child.kill()
        self._child.wait()
        self._thread.join()
        assert self._child.stdout is not None
        self._child.stdout.close()


@contextlib.contextmanager
def _writer(url: str, kind: str) -> Iterator[Callable[[int], object]]:
    """What sets the value, and tells the others as its kind does."""
    if kind == "naive":
        with RawRedis(url) as raw:
            yield lambda n: (raw("SET", "heard:value", n), raw("PUBLISH", "heard:changed", "value"))
        return
    with Cache(url, namespace="heard", ttl=600, timeout="10s", connect_timeout="10s") as cache:
        yield lambda n: cache.set("value", n)


def _gathered(lags: list[Lag | None]) -> Lags:
    return Lags([lag for lag in lags if lag is not None], lags.count(None))


def of_ours(server: Served, rounds: int, kind: str = "ours") -> Lags:
    """Changes by this package."""
    url = server.new_database()
    with _writer(url, kind) as write, _hearing(url, kind) as other:
        lags = []
        for n in range(rounds):
            write(n)
            lags.append(other.lag(n))
        return _gathered(lags)


def of_foreign(server: Served, rounds: int, kind: str = "ours") -> Lags:
    """Changes by whoever deletes or overwrites the key in Redis, and knows nothing of this package."""
    url = server.new_database()
    with _writer(url, kind) as write, _hearing(url, kind) as other, RawRedis(url) as raw:
        lags = []
        for n in range(rounds):
            write(n)
            assert other.sees(n) is not None, "an own change was not seen"
            name = "heard:value" if kind == "naive" else raw("KEYS", ENTRIES)[0]
            if n % 2 or kind == "naive":
                raw("DEL", name)
            else:
                raw("SET", name, "by hand")
            lags.append(other.lag(None))
            if lags[-1] is None and kind == "naive":
                break  # and so on
        return _gathered(lags)


def of_cuts(server: Served, rounds: int, seed: int, kind: str = "ours") -> dict[str, Lags]:
    """By how it was cut: changes beside the moment at which all of the other's connections ended.

    `silence` leaves them half open: whoever does not look waits for ever. `refused`: there are no new ones for a while,
    and the time counts from when there are.
    """
    rng = random.Random(seed)
    url = server.new_database()
    lags: dict[str, list[Lag | None]] = {how: [] for how in CUTS}
    with ChaosProxy(server.port) as proxy, _writer(url, kind) as write:
        with _hearing(server.through(proxy, url), kind) as other:
            for n in range(rounds):
                how = CUTS[n % len(CUTS)]
                proxy.behave()
                write(f"{n}:before")
                assert kind == "naive" or other.sees(f"{n}:before", 60) is not None, "it does not come back"
                threading.Event().wait(SETTLES + rng.random() * 0.05)
                eventually(lambda: other.whole)  # of the round before there is nothing left
                if how == "refused":
                    proxy.behave(refuse=True)
                proxy.end_all("fin" if how == "refused" else how)  # type: ignore[arg-type]
                threading.Event().wait(rng.choice((0.0, rng.random() * 0.03)))
                write(f"{n}:after")
                if how == "refused":
                    threading.Event().wait(REFUSED)
                    proxy.behave()
                lags[how].append(other.lag(f"{n}:after"))
                if how == "silence":  # what is half open by now is of no use to anybody
                    proxy.end_all("reset")
    return {how: _gathered(of) for how, of in lags.items()}


@contextlib.contextmanager
def _hearing(url: str, kind: str) -> Iterator[Hearing]:
    if kind == "ours" and url.startswith("postgres"):
        with Cache(url, timeout="20s", connect_timeout="20s") as cache:
            cache.migrate()
    other = Hearing(url, kind)
    try:
        yield other
    finally:
        other.close()


__all__ = ["CUTS", "Hearing", "Lag", "Lags", "of_cuts", "of_foreign", "of_ours"]
