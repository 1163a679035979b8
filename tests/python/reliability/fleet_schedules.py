"""Random schedules over two caches and one source: loads that overlap invalidations, transactions that end late, sets,
purges. A few numbers say what may be seen; subjects are our caches, and a naive one that resurrects.

Thread rule: each load runs on a thread of its own, held at a gate once it has read the source.
Refuses to know: how the fence works.

The source has a version. `floor[i]` is the oldest that a call through cache i, which begins now, may bring: what was
invalidated through i counts at once, what was invalidated elsewhere once i has asked.
"""

from __future__ import annotations

import contextlib
import random
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol

import psycopg

from tiers import PATIENCE, Ground

CACHES = 2


class Subject(Protocol):
    """Two caches of one namespace."""

    def call(self, i: int, load: Any) -> int: ...
    def invalidate(self, i: int, how: str, connection: Any = None) -> None: ...
    def ask(self, i: int) -> None: ...
    def purge(self, i: int) -> None: ...
    def set(self, i: int, value: int) -> None: ...
    def get(self, i: int) -> int | None: ...


class Ours:
    """The product."""

    def __init__(self, ground: Ground, scope: str) -> None:
        self.caches = [ground.cache() for _ in range(CACHES)]
        self.local = threading.local()
        self.functions = [self._function(cache, scope) for cache in self.caches]

    def _function(self, cache: Any, scope: str) -> Any:
        @cache.cached(ttl=100, name="f", tags=["t"], scope=scope)
        def f(key: str) -> int:
            return self.local.load()  # type: ignore[no-any-return]

        return f

    def call(self, i: int, load: Any) -> int:
        self.local.load = load
        return self.functions[i]("k")  # type: ignore[no-any-return]

    def invalidate(self, i: int, how: str, connection: Any = None) -> None:
        ways: dict[str, dict[str, Any]] = {
            "key": {"key": "f:'k'"},
            "tag": {"tag": "t"},
            "type": {"type": "default"},
            "all": {"all": True},
            "pattern": {"pattern": "f:*"},
        }
        if connection is not None and how == "pattern":
            how = "tag"
        self.caches[i].invalidate(**ways[how], connection=connection)

    def ask(self, i: int) -> None:
        assert self.caches[i].confirm()

    def purge(self, i: int) -> None:
        self.caches[i].purge()

    def set(self, i: int, value: int) -> None:
        self.caches[i].set("d", value, ttl=100)

    def get(self, i: int) -> int | None:
        return self.caches[i].get("d")  # type: ignore[no-any-return]


class Naive:
    """Deletes what is there, here and in the shared store; what is being loaded comes back."""

    def __init__(self) -> None:
        self.shared: dict[str, int] = {}
        self.own: list[dict[str, int]] = [{} for _ in range(CACHES)]

    def call(self, i: int, load: Any) -> int:
        for place in (self.own[i], self.shared):
            if "k" in place:
                return place["k"]
        value: int = load()
        self.own[i]["k"] = self.shared["k"] = value
        return value

    def invalidate(self, i: int, how: str, connection: Any = None) -> None:
        self.own[i].pop("k", None)
        self.shared.pop("k", None)

    def ask(self, i: int) -> None:
        self.own[i].clear()

    def purge(self, i: int) -> None:
        pass

    def set(self, i: int, value: int) -> None:
        self.own[i]["d"] = self.shared["d"] = value

    def get(self, i: int) -> int | None:
        return self.own[i].get("d", self.shared.get("d"))


class Held:
    """A call in the air: its load has read the source and waits, or it was answered without a load."""

    def __init__(self, floor: int) -> None:
        self.floor = floor
        self.gate = threading.Event()
        self.settled = threading.Event()  # it waits at the gate, or is over
        self.future: Future[int] | None = None


class Schedule:
    """One run with one seed."""

    def __init__(self, subject: Subject, url: str, seed: int) -> None:
        self.subject = subject
        self.random = random.Random(seed)
        self.url = url
        self.version = 0  # committed
        self.newest = 0  # of a transaction, perhaps rolled back
        self.floor = [0] * CACHES
        self.elsewhere = [0] * CACHES  # the floor once it has asked
        self.sets = 0
        self.set_floor = [0] * CACHES
        self.held: list[Held] = []
        self.open: list[tuple[Any, int, int]] = []  # connection, cache, version

    def run(self, steps: int = 60) -> None:
        with ThreadPoolExecutor(64) as self.pool, contextlib.ExitStack() as self.stack:
            try:
                for _ in range(steps):
                    getattr(self, self.random.choice(OPERATIONS))()
                while self.open:
                    self.end_transaction()
                while self.held:
                    self.land()
                for i in range(CACHES):
                    self.ask(i)
                    self.call_at_once(i)
            finally:
                for held in self.held:
                    held.gate.set()

    # --- operations

    def call(self) -> None:
        if len(self.held) >= 4:
            return self.land()
        i = self.random.randrange(CACHES)
        held = Held(self.floor[i])

        def load() -> int:
            value = self.version
            held.settled.set()
            assert held.gate.wait(PATIENCE)
            return value

        def work() -> int:
            try:
                return self.subject.call(i, load)
            finally:
                held.settled.set()

        held.future = self.pool.submit(work)
        self.held.append(held)
        # One that follows another's load, or waits for its lease, neither waits at a gate nor ends.
        held.settled.wait(0.05)

    def land(self) -> None:
        if not self.held:
            return
        held = self.held.pop(self.random.randrange(len(self.held)))
        held.gate.set()
        assert held.future is not None
        if not held.settled.is_set():  # a follower: those before it go first
            for other in self.held:
                other.gate.set()
        value = held.future.result(PATIENCE)
        assert value >= held.floor, f"{value} came back, and {held.floor} was there when the call began"

    def call_at_once(self, i: int | None = None) -> None:
        if self.held:
            return
        i = self.random.randrange(CACHES) if i is None else i
        value = self.subject.call(i, lambda: self.version)
        assert value >= self.floor[i], f"cache {i}: {value} came back, and it is {self.floor[i]} by now"
        assert value <= self.version

    def invalidate(self) -> None:
        i = self.random.randrange(CACHES)
        self.newest += 1
        self.version = self.newest
        self.subject.invalidate(i, self.random.choice(["key", "tag", "type", "all", "pattern"]))
        self.changed(i, self.version)

    def changed(self, i: int, version: int) -> None:
        self.floor[i] = max(self.floor[i], version)
        self.elsewhere = [max(one, version) for one in self.elsewhere]

    def begin_transaction(self) -> None:
        if len(self.open) >= 2:
            return self.end_transaction()
        i = self.random.randrange(CACHES)
        connection = self.stack.enter_context(psycopg.connect(self.url))
        self.newest += 1
        self.subject.invalidate(i, self.random.choice(["key", "tag", "type", "all"]), connection)
        self.open.append((connection, i, self.newest))

    def end_transaction(self) -> None:
        if not self.open:
            return
        connection, i, version = self.open.pop(self.random.randrange(len(self.open)))
        if self.random.random() < 0.4:
            connection.rollback()
        else:
            # The source and the marks change in one step: loads read the source before the commit or after it.
            if version > self.version:
                self.version = version
            connection.commit()
            self.changed(i, version)
        connection.close()

    def ask(self, i: int | None = None) -> None:
        i = self.random.randrange(CACHES) if i is None else i
        self.subject.ask(i)
        self.floor[i] = max(self.floor[i], self.elsewhere[i])
        self.set_floor[i] = self.sets

    def purge(self) -> None:
        self.subject.purge(self.random.randrange(CACHES))

    def set(self) -> None:
        i = self.random.randrange(CACHES)
        self.sets += 1
        self.subject.set(i, self.sets)
        self.set_floor[i] = self.sets

    def get(self) -> None:
        i = self.random.randrange(CACHES)
        value = self.subject.get(i)
        assert value is None or value >= self.set_floor[i], f"cache {i}: set {value} came back"


OPERATIONS = (
    ["call"] * 4
    + ["land"] * 4
    + ["call_at_once"] * 2
    + ["invalidate"] * 3
    + ["begin_transaction"] * 2
    + ["end_transaction"] * 2
    + ["ask"] * 2
    + ["purge", "set", "get", "get"]
)
