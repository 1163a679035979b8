"""What random schedules drive: a cache taken apart into begin, commit and fail, so that loads overlap in one thread.

Thread rule: one thread.
Refuses to know: what is right. The model in test_promises.py judges.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from stillwarm import Cache, NotFound, _core, _landing, _load
from stillwarm._verbs import KeyTarget

SECOND = 1_000_000_000
TTL, STALE, FAILSAFE, KEEP = 10, 5, 20, 15  # s
NEGATIVE = 3
CAP = 6_000  # bytes

KEYS = ("f0", "f1", "f2", "d0")
FILLERS = 5
LOST = _landing.STORED.index("lost")

ERRORS = {"fatal": ValueError("fatal"), "transient": ConnectionError("transient"), "not_found": NotFound("nothing")}


class Ours:
    """stillwarm. Keys "f0", "f1".. are calls of a cached function, "d0".. direct keys."""

    def __init__(self) -> None:
        self.cache = Cache(max_bytes=CAP)
        self.cache.define("numbers")

        @self.cache.cached(
            "numbers",
            ttl=TTL,
            stale_while_revalidate=STALE,
            stale_if_error=FAILSAFE,
            keep=KEEP,
            negative_ttl=NEGATIVE,
            jitter=0.0,
            tags=lambda number: [f"tag{number % 2}"],
            name="f",
        )
        def function(number: int) -> Any:
            raise AssertionError("loads are driven by hand")

        self.function = function
        self.settings = replace(
            self.cache._direct_settings(TTL),
            stale_while_revalidate=STALE * SECOND,
            stale_if_error=FAILSAFE * SECOND,
            keep=KEEP * SECOND,
            jitter=0.0,
        )

    def target(self, key: str) -> Any:
        if key[0] == "f":
            return _load.Target(self.function, (int(key[1:]),), None)
        return KeyTarget(self.cache, key, lambda: None, self.settings)

    def begin(self, key: str) -> tuple[int, Any, Any]:
        return self.target(key).begin(True)

    def kept(self, flight: Any) -> Any:
        """What is offered to the load."""
        return _core.kept(flight)

    def commit(self, key: str, flight: Any, value: Any) -> None:
        """A load whose source has not changed since what it is offered revives that."""
        _core.count_load(flight, 0, False)
        if _core.kept(flight) == value:
            flight.load = _load.Load(flight)
            flight.load.not_modified()
            value = "forgotten"
        self.finish(key, flight, value)

    def finish(self, key: str, flight: Any, value: Any) -> None:
        target = self.target(key)
        _load.committed(target, flight, value, 0, _load.planned(target, flight, value))

    def fail(self, key: str, flight: Any, kind: str) -> Any:
        """What the caller gets: a stale value, or the error that it raises."""
        target, error = self.target(key), ERRORS[kind]
        _core.count_load(flight, 0, True)
        try:
            value = _load.failed(target, flight, error, _load.kind_of(target.settings, error))
            if not flight.background:
                _load.count_stale(target, flight)
            return value
        except Exception as raised:
            return raised

    def invalidate(self, way: str, key: str, stale: bool) -> None:
        number = int(key[1:])
        if way == "own":
            if key[0] == "f":
                self.function.cache_invalidate(number, stale=stale)
            else:
                self.cache.invalidate(key=key, stale=stale)
        elif way == "text":
            self.cache.invalidate(key=self.function.cache_key(number) if key[0] == "f" else key, stale=stale)
        elif way == "tag":
            self.cache.invalidate(tag=f"tag{number % 2}", stale=stale)
        elif way == "type":
            self.cache.invalidate(type="numbers", stale=stale)
        elif way == "pattern":
            self.cache.invalidate(pattern=f"{key[0]}*", stale=stale)
        else:
            self.cache.invalidate(all=True, stale=stale)

    def clear(self) -> None:
        self.cache.clear()

    def clear_function(self) -> None:
        _core.clear(self.cache, self.function._scope)  # cache_clear() without resetting the counts

    def set(self, key: str, value: Any) -> None:
        self.cache.set(key, value, TTL)

    def add(self, key: str, value: Any) -> bool:
        return self.cache.add(key, value, TTL)

    def delete(self, key: str) -> bool:
        return self.cache.delete(key)

    def touch(self, key: str) -> bool:
        return self.cache.touch(key, TTL)

    def incr(self, key: str, delta: int) -> int | None:
        try:
            return self.cache.incr(key, delta)
        except KeyError:
            return None

    def get(self, key: str) -> Any:
        return self.cache.get(key)

    def fill(self, number: int, size: int) -> None:
        self.cache.set(f"filler{number}", b"x" * size, TTL)

    def counts(self) -> dict[str, Any]:
        stats = self.cache.stats()
        assert self.cache._check_invariants()
        assert stats.bytes <= CAP, "over the byte cap"
        names = ("hits", "stale_hits", "misses", "joined", "loads", "load_errors", "lost_fills", "flights")
        return {name: getattr(stats, name) for name in names} | {"evictions": stats.evictions["size"]}

    def close(self) -> None:
        self.cache.close()

    def stripes_collide(self) -> bool:
        """Two of these keys share one of the core's 4,096 fences, by the luck of the seed: a fill is lost there."""
        for key in KEYS:
            flight = self.begin(key)[2]
            for other in KEYS:
                if other != key:
                    self.invalidate("own", other, True)
                    self.invalidate("text", other, True)
            for number in range(FILLERS):
                self.cache.delete(f"filler{number}")
            lost = _core.commit(flight, 0, None, [], 0, False) == LOST
            _load.finish(flight, _load.ABANDONED, None)
            if lost:
                return True
        return False


class NaiveSubject(Ours):
    """The same cache with one mistake: what was loaded is always stored, whatever was invalidated meanwhile."""

    def commit(self, key: str, flight: Any, value: Any) -> None:
        super().commit(key, flight, value)
        again = self.target(key).begin(False)
        if again[0] == _load.LEAD:  # not stored: so store it, as others do
            self.finish(key, again[2], value)


class LoadsTwice(Ours):
    """The same cache with another mistake: who finds a load running starts one more."""

    def begin(self, key: str) -> tuple[int, Any, Any]:
        found = super().begin(key)
        if found[0] != _load.FOLLOW:
            return found
        _core.detach_all(self.cache)
        return super().begin(key)


class ServesTooOld(Ours):
    """The same cache with a third one: a failed load makes what is stored last for ever."""

    def fail(self, key: str, flight: Any, kind: str) -> Any:
        target = self.target(key)
        _core.touch(self.cache, *target.key(), _core.FOREVER)
        return super().fail(key, flight, kind)


class OffersInvalidated(Ours):
    """The same cache with a fourth one: what was stored is offered to its load, also when it was invalidated."""

    def __init__(self) -> None:
        super().__init__()
        self.last: dict[str, Any] = {}

    def commit(self, key: str, flight: Any, value: Any) -> None:
        super().commit(key, flight, value)
        self.last[key] = value

    def kept(self, flight: Any) -> Any:
        key = f"f{flight.key}" if flight.scope == self.function._scope else flight.key
        offered = super().kept(flight)
        return self.last.get(key, offered) if offered is _core.MISSING else offered
