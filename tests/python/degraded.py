"""What callers get while Redis is of no use, verb by verb: made to happen, observed, and told as a table.

    python tests/python/degraded.py     prints the table of python/docs/redis.md

Thread rule: one thread, a server of its own for each kind of trouble.
Refuses to know: what the page says (test_redis_degraded).
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from outages import Shared, eventually, forget
from served import RawRedis
from stillwarm import State
from stillwarm._redis_server import RedisServer
from stillwarm.errors import TierError

TROUBLES = ("absent at start", "killed", "frozen", "full", "read-only", "asks for a password")
INTENTS = ("key", "tag", "type", "pattern", "all")
_TTL = 600


@contextlib.contextmanager
def trouble(kind: str, server: RedisServer) -> Iterator[None]:
    if kind in ("absent at start", "killed"):
        server.kill()
        yield
        return server.start()
    if kind == "frozen":
        server.freeze()
        yield
        return server.thaw()
    with RawRedis(server.url) as admin:
        if kind == "full":
            admin("CONFIG", "SET", "maxmemory-policy", "noeviction")
            admin("CONFIG", "SET", "maxmemory", 1)
            yield
            admin("CONFIG", "SET", "maxmemory", 0)
        elif kind == "read-only":
            admin("CONFIG", "SET", "min-replicas-to-write", 1)
            yield
            admin("CONFIG", "SET", "min-replicas-to-write", 0)
        else:
            admin("CONFIG", "SET", "requirepass", "secret")
            admin("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            admin("CLIENT", "KILL", "TYPE", "pubsub")
            yield
            admin("CONFIG", "SET", "requirepass", "")


class Setter(Shared):
    """For sets alone: to Redis, one that comes after an owed invalidation of everything is as old as that."""

    def fresh_direct(self, key: str) -> Any:
        forget(self.cache)
        return self.cache.get(key)


class Observation:
    """One kind of trouble: the same calls, before, meanwhile and after."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.cells: dict[str, str] = {}
        self.late = kind == "absent at start"
        options: dict[str, Any] = {"timeout": "1s" if kind == "frozen" else "10s", "tags": ["t"]}
        with RedisServer() as server:
            self.other = Shared(server.url, timeout="10s", connect_timeout="10s", tags=["t"])
            seed = Shared(server.url, timeout="10s", tags=["t"])
            self.setter = Setter(server.url, namespace="sets", timeout="1s")  # where nothing is invalidated meanwhile
            if not self.late:
                self.setter.cache.set("late", "old", ttl=_TTL)
            self._prepare(seed)
            if self.late:
                seed.cache.close()
                with trouble(kind, server):
                    self.one = Shared(server.url, **options)
                    self._meanwhile()
            else:
                self.one = seed
                self.one = Shared(server.url, **options)
                self._warm()
                with trouble(kind, server):
                    self._meanwhile()
                seed.cache.close()
            self._after()
            self.one.cache.close()
            self.other.cache.close()
            self.setter.cache.close()

    # ------------------------------------------------------------------------------------------------------- before

    def _prepare(self, seed: Shared) -> None:
        for key in ("memory", "redis", "set", "touch", "delete"):
            seed.cache.set(key, "old", ttl=_TTL)
        seed.cache.set("n", 1, ttl=_TTL)
        seed.written()

    def _functions(self, one: Shared) -> None:
        self.loads = 0

        def load(key: str) -> str:
            self.loads += 1
            return f"{key}#{self.loads}"

        cache = one.cache
        self.fresh = cache.cached(name="fresh", ttl=_TTL)(load)
        self.stale = cache.cached(name="stale", ttl=_TTL, stale_while_revalidate=_TTL)(load)
        self.absent = cache.cached(name="absent", ttl=_TTL)(load)
        self.fleet = cache.cached(name="fleet", ttl=_TTL, scope="fleet")(load)

    def _warm(self) -> None:
        cache = self.one.cache
        self._functions(self.one)
        assert cache.get("memory") is not None
        eventually(lambda: self.one.health["linked"] and cache.confirm())
        for key in ("memory", "set", "touch", "delete", "n"):
            assert cache.get(key) is not None
        self.fresh("k"), self.stale("k")
        self.one.written()  # what is invalidated on its way to the tier is refused there, and leaves memory, too
        cache.invalidate(key="stale:'k'", stale=True)
        self.one.written()

    # ---------------------------------------------------------------------------------------------------- meanwhile

    def _meanwhile(self) -> None:
        cache = self.one.cache
        if self.late:
            self._functions(self.one)
        assert cache._tier is not None
        cache._tier.core.lost()  # longer ago than max_lag: nothing in memory is confirmed
        cell = self.cells
        cell["get, in memory"] = "—" if self.late else told(lambda: cache.get("memory"), old="the value")
        cell["get, in Redis alone"] = told(lambda: cache.get("redis", "none"), old="the value", none="the default")
        cell["get_or_set"] = told(lambda: cache.get_or_set("made", lambda: "new"), new="loads")
        cell["cached, fresh"] = "—" if self.late else self._called(self.fresh)
        cell["cached, stale"] = "—" if self.late else self._called(self.stale)
        cell["cached, absent"] = self._called(self.absent)
        cell["cached, fleet, absent"] = self._called(self.fleet)
        self.set = told(lambda: cache.set("set", "new", ttl=_TTL) and cache.get("set"), new="True, kept here")
        self.add = told(lambda: str([cache.add("add", "new", ttl=_TTL) for _ in range(2)]), {
            "[True, False]": "True, once in this process", "[False, False]": "False", "[True, True]": "True, twice",
        })  # fmt: skip
        cell["incr"] = told(lambda: cache.incr("n"), {2: "counts"})
        cell["touch"] = told(lambda: cache.touch("touch", _TTL * 2))
        self.delete = told(lambda: (cache.delete("delete"), cache.get("delete", "gone"))[1], gone="gone here at once")
        self.state = eventually_state(self.one)
        for intent in INTENTS:
            self._invalidate(intent)
        self.setter.cache.set("late", "new", ttl=_TTL)
        if self.kind in ("read-only", "asks for a password"):  # it answers, and says no to what is owed, too
            said = self.setter.health["failures"]
            eventually(lambda: self.setter.health["failures"] > said + 1)

    def _called(self, function: Callable[[str], str]) -> str:
        before = self.loads
        value = told(lambda: function("k"), old="")
        loaded = value in {f"k#{n}" for n in range(before + 1, self.loads + 1)}  # a refresh may have loaded since
        if function is self.stale and not loaded:
            return "the stale value at once"
        return "loads" if loaded else "the value"

    def _invalidate(self, intent: str) -> None:
        """Something of its own for each intent, in memory here, and read by the other process before."""
        cache = self.one.cache
        what: Any = {"key": "v", "tag": "t", "type": "default", "pattern": "v*", "all": True}[intent]
        cache.set("v", f"{intent}", ttl=_TTL, tags=["t"])
        here = told(lambda: (cache.invalidate(**{intent: what}), cache.get("v", "gone"))[1], gone="here at once")
        owed = self.one.health["owed_invalidations"]
        self.cells[f"invalidate({intent}=)"] = f"{here}, {'for others later' if owed else 'and for others'}"

    # -------------------------------------------------------------------------------------------------------- after

    def _after(self) -> None:
        one, cell = self.one, self.cells
        eventually(lambda: one.cache.confirm() and one.health["circuit"] == "closed", what=str(one.health))
        eventually(lambda: one.health["owed_invalidations"] == one.health["owed_writes"] == 0, what=str(one.health))
        setter = self.setter
        eventually(lambda: setter.cache.confirm() and setter.health["owed_writes"] == 0, what=str(setter.health))
        lands = setter.fresh_direct("late") == "new"
        cell["set"] = f"{self.set}, {'in Redis later' if lands else 'not in Redis'}"
        cell["add"] = self.add
        cell["delete"] = self.delete
        one.cache._tier._recent.clear()  # type: ignore[union-attr]
        one.cache.set("after", 1, ttl=_TTL)
        one.written()
        eventually(lambda: one.cache.confirm() and one.cache.state is State.HEALTHY, what=str(one.health))
        cell["state"] = f"{self.state}, then HEALTHY"
        eventually(self.other.cache.confirm)
        forget(self.other.cache)
        assert self.other.cache.get("v") is None, "an invalidation that was owed has reached the others"
        assert self.other.cache.get("after") == 1


def told(call: Callable[[], Any], words: dict[Any, str] | None = None, **more: str) -> str:
    """What the call did, in words."""
    try:
        value = call()
    except TierError:
        return "raises TierError"
    except KeyError:
        return "raises KeyError"
    return {**(words or {}), **more}.get(value, str(value))


def eventually_state(one: Shared) -> str:
    eventually(lambda: one.cache.state is not State.HEALTHY)
    if one.health["circuit"] == "closed" and one.health["connections"] > 0:
        return "DEGRADED"
    eventually(lambda: one.cache.state is State.DOWN)
    return "DOWN"


def table() -> str:
    """As the page has it."""
    seen = [Observation(kind).cells for kind in TROUBLES]
    rows = [f"| | {' | '.join(TROUBLES)} |", f"|---|{'---|' * len(TROUBLES)}"]
    rows += [f"| {name} | {' | '.join(cells[name] for cells in seen)} |" for name in seen[0]]
    return "\n".join(rows)


if __name__ == "__main__":
    print(table())
