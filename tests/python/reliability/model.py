"""What a cache may do, in a few lines: entries, flights and floors of some keys. `Machine` holds a cache against it.

Thread rule: one thread; moves the process's clock.
Refuses to know: how the cache does it.

A key's source has a version. A load brings the version that it found when it began. `floor` is the oldest version that
a get which starts now may still see. The state of an entry, what a call must do, what is stored and every count follow
from the clock. Only what the byte cap evicts is not foreseen: after an eviction every entry is only `maybe` there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from reliability.subjects import ERRORS, FAILSAFE, FILLERS, KEEP, KEYS, NEGATIVE, SECOND, STALE, TTL, Ours
from stillwarm import NotFound, _core
from stillwarm._load import ABSENT, FOLLOW, LEAD, MISSING, REFRESH, RETURN, RETURN_STALE

START = 1_000 * SECOND
keys = st.sampled_from(KEYS)
directs = st.sampled_from([key for key in KEYS if key[0] == "d"])
kinds = st.sampled_from([*sorted(ERRORS), "transient"])
# Of the flights that there are. How many depends on what was evicted, and no draw may depend on that.
anyone = st.integers(0, 11)
ways = st.sampled_from(["own", "text", "tag", "type", "pattern", "all"])


@dataclass
class Entry:
    version: int
    fresh_until: int
    stale: int = 0
    failsafe: int = 0
    keep: int = 0
    negative: bool = False
    failures: int = 0
    pause: tuple[int, int] = (0, 0)  # the next attempt waits until some moment between these
    maybe: bool = False

    def state(self, now: int) -> str:
        if now < self.fresh_until:
            return "fresh"
        if self.negative:
            return "gone"
        if now < self.fresh_until + self.stale:
            return "stale"
        gone_at = self.fresh_until + max(self.stale, self.failsafe)
        if now < gone_at:
            return "failsafe"
        return "kept" if now < gone_at + self.keep else "gone"


@dataclass
class Flight:
    key: str
    version: int
    handle: Any
    background: bool
    attached: bool = True
    joinable: bool = True
    lost: bool = False
    soft_at: int | None = None


class Machine(RuleBasedStateMachine):
    """Random calls, loads that overlap them, invalidations of every kind, failures, a moved clock."""

    subject: type[Ours] = Ours

    def __init__(self) -> None:
        super().__init__()
        self.now = START
        _core.clock_set(self.now)
        self.cache = self.subject()
        while self.cache.stripes_collide():
            self.cache = self.subject()
        self.cache.clear()
        self.source = dict.fromkeys(KEYS, 0)
        self.floor = dict.fromkeys(KEYS, 0)
        self.entries: dict[str, Entry] = {}
        self.flights: list[Flight] = []
        self.counts = self.cache.counts()

    def teardown(self) -> None:
        self.cache.close()
        _core.clock_set(0)

    # --- what the model knows

    def entry(self, key: str) -> Entry | None:
        """What a call may get: not what is only kept."""
        entry = self.stored(key)
        return None if entry is not None and entry.state(self.now) == "kept" else entry

    def stored(self, key: str) -> Entry | None:
        entry = self.entries.get(key)
        if entry is not None and entry.state(self.now) == "gone":
            del self.entries[key]
            return None
        return entry

    def attached(self, key: str) -> Flight | None:
        for flight in self.flights:
            if flight.key == key and flight.attached:
                return flight
        return None

    def detach(self, key: str) -> None:
        flight = self.attached(key)
        if flight is not None:
            flight.attached = False

    def sees(self, key: str, version: int) -> None:
        assert version >= self.floor[key], f"{key}: an invalidated value came back"

    def absent(self, key: str) -> None:
        entry = self.entry(key)
        assert entry is None or entry.maybe, f"{key}: the entry is lost"
        self.entries.pop(key, None)

    # --- calls and loads

    @rule(key=keys)
    def call(self, key: str) -> None:
        step, value, handle = self.cache.begin(key)
        entry = self.entry(key)
        state = "gone" if entry is None else entry.state(self.now)
        flight = self.attached(key)
        if state != "fresh" and flight is not None and not flight.joinable:
            flight.attached, flight = False, None
        if state != "gone" and step in (LEAD, FOLLOW) and value is MISSING:
            self.absent(key)
            entry, state = None, "gone"
        if entry is None or state == "gone":
            assert step in (LEAD, FOLLOW), f"{key}: returned, and there is nothing"
            assert value is MISSING
        elif entry.negative:
            assert step == ABSENT
        else:
            assert value == entry.version
            self.sees(key, value)
            low, high = entry.pause
            pausing = {self.now < high, self.now < low}  # both where chance decides
            if state == "fresh":
                assert step == RETURN
            elif state == "stale":
                assert step in {RETURN_STALE if flight or waits else REFRESH for waits in pausing}, (
                    "one refresh, and only one"
                )
            else:
                assert step in {RETURN_STALE if waits else FOLLOW if flight else LEAD for waits in pausing}
        if step == FOLLOW:
            assert flight is not None, f"{key}: joined a load that must not be joined"
            assert handle is flight.handle, f"{key}: not the flight of this key"
            self.sees(key, flight.version)
            self.counts["joined"] += 1
        if step in (LEAD, REFRESH):
            assert flight is None, f"{key}: a second load beside one that could be joined"
            self.flights.append(Flight(key, self.source[key], handle, step == REFRESH))
            self.is_offered(key, self.cache.kept(handle))
        if step in (LEAD, FOLLOW):
            self.counts["misses"] += 1
        else:
            self.counts["hits" if state == "fresh" else "stale_hits"] += 1

    def is_offered(self, key: str, value: Any) -> None:
        entry = self.stored(key)
        if value is MISSING:
            assert entry is None or entry.negative or entry.maybe, f"{key}: what is kept is not offered"
            if entry is not None and entry.maybe:
                del self.entries[key]
            return
        assert entry is not None, f"{key}: offered, and there is nothing"
        assert value == entry.version
        self.sees(key, value)

    # Rules are chosen alike often, and an invalidation undoes much: these lead deeper into an entry's life.

    @rule(key=keys)
    def call_and_load(self, key: str) -> None:
        self.call(key)
        if self.flights:
            self.end_well(self.flights.pop())

    @rule(key=keys, seconds=st.sampled_from([6, 11, 16, 20, 32]), ends_as=st.sampled_from([None, *ERRORS, "transient"]))
    def call_later(self, key: str, seconds: int, ends_as: str | None) -> None:
        if key not in self.entries:
            self.call_and_load(key)
        self.move_the_clock(seconds)
        self.call(key)
        if self.flights and ends_as is not None:
            self.end_badly(self.flights.pop(), ends_as)
            self.call(key)

    @rule(key=directs)
    def get(self, key: str) -> None:
        value = self.cache.get(key)
        entry = self.entry(key)
        state = "gone" if entry is None else entry.state(self.now)
        if value is None and state in ("fresh", "stale"):
            self.absent(key)
        if value is None:
            self.counts["misses"] += 1
            return
        assert entry is not None
        assert state in ("fresh", "stale")
        assert value == entry.version
        self.sees(key, value)
        self.counts["hits" if state == "fresh" else "stale_hits"] += 1

    @rule(which=anyone)
    def load_succeeds(self, which: int) -> None:
        if self.flights:
            self.end_well(self.flights.pop(which % len(self.flights)))

    def end_well(self, flight: Flight) -> None:
        self.counts["loads"] += 1
        fresh_until = self.now + TTL * SECOND
        self.store(flight, Entry(flight.version, fresh_until, STALE * SECOND, FAILSAFE * SECOND, KEEP * SECOND))
        self.cache.commit(flight.key, flight.handle, flight.version)
        assert flight.handle.state == 1
        assert flight.handle.value == flight.version

    def store(self, flight: Flight, entry: Entry) -> None:
        if not flight.attached or flight.lost:
            self.counts["lost_fills"] += 1
            return
        if flight.soft_at is not None:
            entry.fresh_until = min(entry.fresh_until, flight.soft_at)
        self.entries[flight.key] = entry

    @rule(which=anyone, kind=kinds)
    def load_fails(self, which: int, kind: str) -> None:
        if self.flights:
            self.end_badly(self.flights.pop(which % len(self.flights)), kind)

    def end_badly(self, flight: Flight, kind: str) -> None:
        entry = self.entry(flight.key)
        self.counts["loads"] += 1
        self.counts["load_errors"] += 1
        result = self.cache.fail(flight.key, flight.handle, kind)
        old = entry is not None and not entry.negative and entry.state(self.now) in ("stale", "failsafe")
        if entry is not None and entry.maybe and isinstance(result, Exception) and old and kind == "transient":
            self.absent(flight.key)
            old = False
        if entry is not None and old and (kind == "transient" or (flight.background and kind == "fatal")):
            entry.failures += 1
            most = min(TTL, 5 << (entry.failures - 1)) * SECOND
            entry.pause = (self.now + most * 3 // 4, self.now + most)
        if entry is not None and old and kind == "transient":
            assert result == entry.version
            self.sees(flight.key, result)
            self.counts["stale_hits"] += not flight.background
            self.counts["misses"] -= not flight.background
        else:
            assert isinstance(result, NotFound if kind == "not_found" else type(ERRORS[kind]))
        if kind == "not_found":
            if flight.attached:
                self.entries.pop(flight.key, None)
            if flight.key[0] == "f":
                self.store(flight, Entry(flight.version, self.now + NEGATIVE * SECOND, negative=True))

    # --- changes

    @rule(key=keys)
    def change_the_source(self, key: str) -> None:
        self.source[key] += 1

    @rule(seconds=st.sampled_from([0.5, 2, 4, 9.5, 30]))
    def move_the_clock(self, seconds: float) -> None:
        self.now += int(seconds * SECOND)
        _core.clock_set(self.now)

    @rule(key=keys, way=ways, stale=st.booleans())
    def invalidate(self, key: str, way: str, stale: bool) -> None:
        self.source[key] += 1
        self.cache.invalidate(way, key, stale)
        group = {
            "own": lambda k: k == key,
            "text": lambda k: k == key,
            "tag": lambda k: k[0] == "f" and int(k[1]) % 2 == int(key[1]) % 2,
            "type": lambda k: k[0] == "f",
            "pattern": lambda k: k[0] == key[0],
            "all": lambda k: True,
        }[way]
        for flight in self.flights:
            concerned = group(flight.key)
            if way in ("own", "text"):
                if concerned:
                    flight.attached = False
            elif way == "pattern":
                flight.lost, flight.joinable = True, False  # the glob is matched against stored keys only
                entry = self.stored(flight.key)
                if concerned and entry is not None:  # and what is stored is invalidated by its key
                    flight.attached = flight.attached and entry.maybe and flight.handle.attached
            else:
                flight.joinable = flight.joinable and not (
                    concerned or way == "tag"
                )  # a load's tags are known at its end
                if concerned and stale:
                    flight.soft_at = self.now if flight.soft_at is None else flight.soft_at
                elif concerned:
                    flight.lost = True
        for k in filter(group, KEYS):
            if not stale:
                self.floor[k] = self.source[k]
                self.entries.pop(k, None)
            elif k in self.entries:
                self.entries[k].fresh_until = min(self.entries[k].fresh_until, self.now)

    @rule(only_function=st.booleans())
    def clear(self, only_function: bool) -> None:
        self.cache.clear_function() if only_function else self.cache.clear()
        for flight in self.flights:
            if not only_function or flight.key[0] == "f":
                flight.lost, flight.joinable = True, False
        for key in KEYS:
            if not only_function or key[0] == "f":
                self.floor[key] = self.source[key]
                self.entries.pop(key, None)

    @rule(key=directs, how=st.sampled_from(["set", "add", "delete", "touch", "incr"]))
    def verb(self, key: str, how: str) -> None:
        entry = self.entry(key)
        there = entry is not None and entry.state(self.now) in ("fresh", "stale")
        version = self.source[key] + 1
        if how == "set":
            self.cache.set(key, version)
        elif how == "add":
            added = self.cache.add(key, version)
            assert added or there
            assert not added or not there or (entry is not None and entry.maybe)
            if not added:
                return
        elif how == "delete":
            self.cache.delete(key)
        elif how == "touch":
            if self.cache.touch(key):
                assert there
                assert entry is not None
                entry.fresh_until = self.now + TTL * SECOND
            elif there:
                self.absent(key)
            return
        else:
            delta = version - entry.version if entry is not None else 1
            result = self.cache.incr(key, delta)
            assert result is None or (there and result == version)
            if result is None:
                if there:
                    self.absent(key)
                return
            assert entry is not None
            entry.version = version
        self.source[key] = self.floor[key] = version
        self.detach(key)
        if how in ("set", "add"):
            self.entries[key] = Entry(version, self.now + TTL * SECOND)
        elif how == "delete":
            self.entries.pop(key, None)

    @rule(number=st.integers(0, FILLERS - 1), size=st.integers(1, 1_300))
    def fill(self, number: int, size: int) -> None:
        self.cache.fill(number, size)

    # --- what holds after every step

    @invariant()
    def counts_are_exact(self) -> None:
        counts = self.cache.counts()  # checks the core's invariants and the byte cap
        if counts["evictions"] != self.counts["evictions"]:
            self.counts["evictions"] = counts["evictions"]
            for entry in self.entries.values():
                entry.maybe = True
        self.counts["flights"] = counts["flights"]
        assert counts == self.counts
        assert counts["flights"] <= len(self.flights)
