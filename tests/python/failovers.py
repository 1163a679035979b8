"""Load on two caches while their server is replaced by another: what callers see, and when it is as before.

Thread rule: a Load has threads of its own; its test calls it from one.
Refuses to know: how the server fails.

The truth of a key is a number that only grows. A writer makes it larger and then invalidates the key in the first
cache; from then on a caller of that cache must never get a smaller one. The second cache stands for another process:
at the end, when everything that was owed is told and max_lag has passed, both must have the truth in memory and in the
tier.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import Any

from stillwarm import Cache

KEYS = [f"k{n}" for n in range(30)]
MAX_LAG = 0.5
WITHIN = 60.0


class Load:
    def __init__(self, url: str, namespace: str) -> None:
        options: dict[str, Any] = {
            "namespace": namespace, "jitter": 0.0, "purge_every": None, "max_lag": f"{int(MAX_LAG * 1000)}ms",
            "ttl": 600, "timeout": "500ms", "connect_timeout": "1s",
        }  # fmt: skip
        self.caches = [Cache(url, **options), Cache(url, **options)]
        self.functions = [cache.cached(name="truth", tags=["truth"])(self._load) for cache in self.caches]
        self.truth = dict.fromkeys(KEYS, 1)
        self.told = dict.fromkeys(KEYS, 1)  # what callers of the first cache must get at least
        self.calls = self.writes = 0
        self.errors: list[str] = []
        self.wrong: list[str] = []  # values
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._guarded, args=(body, i), daemon=True)
            for i, body in enumerate([self._write, self._read, self._read, self._read_other, self._verbs])
        ]

    def _load(self, key: str) -> int:
        return self.truth[key]

    # ------------------------------------------------------------------------------------------------------ threads

    def _guarded(self, body: Any, i: int) -> None:
        n = i * 7
        while not self._stop.wait(0.001):
            n += 1
            try:
                body(KEYS[n % len(KEYS)], n)
            except Exception as error:
                self.errors.append(f"{type(error).__name__}: {error}")
            with self._lock:
                self.calls += 1

    def _write(self, key: str, n: int) -> None:
        self.truth[key] = value = self.truth[key] + 1
        function = self.functions[0]
        if n % 50 == 0:
            now = dict(self.truth)
            self.caches[0].invalidate(tag="truth")
            self.told.update(now)
        else:
            function.cache_invalidate(key)
            self.told[key] = value
        self.writes += 1
        self._stop.wait(0.002)

    def _read(self, key: str, n: int) -> None:
        least = self.told[key]
        begun = time.monotonic()
        value = self.functions[0](key)
        if value < least:
            self.wrong.append(f"{key} is {value}, told {least}, {self._when(begun)}")

    def _read_other(self, key: str, n: int) -> None:
        value = self.functions[1](key)
        if not 1 <= value <= self.truth[key]:
            self.wrong.append(f"{key} is {value} in the other cache")

    def _verbs(self, key: str, n: int) -> None:
        """Writes of its own: a set that returned is what this cache has."""
        own = f"own-{key}"
        self.caches[0].set(own, n, ttl=600)
        begun = time.monotonic()
        value = self.caches[0].get(own, n)
        if value < n:
            self.wrong.append(f"{own} is {value}, set to {n}, {self._when(begun)}")
        self.caches[0].get_many([own, key, "nothing"])

    def _when(self, begun: float) -> str:
        assert self.caches[0]._tier is not None
        return f"begun at {begun:.4f}, now {time.monotonic():.4f}, {self.caches[0]._tier.core.health()}"

    # --------------------------------------------------------------------------------------------------------- facts

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def healthy(self) -> bool:
        """Whether both caches are linked to a server that answers, owe nothing, and their writes get there."""
        for cache in self.caches:
            tier = cache._tier
            assert tier is not None
            health = tier.core.health()
            if health["circuit"] != "closed" or not health["linked"] or health["owed_invalidations"]:
                return False
            if not cache.confirm():
                return False
        return True

    def until_healthy(self) -> float:
        begun = time.monotonic()
        while not self.healthy():
            assert time.monotonic() < begun + WITHIN, [cache._tier.core.health() for cache in self.caches]  # type: ignore[union-attr]
            time.sleep(0.01)
        return time.monotonic() - begun

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(WITHIN)
            assert not thread.is_alive(), "a call hangs"

    def settle(self) -> None:
        """Until nothing is owed, and the second cache has had the time that it may take."""
        self.stop()
        for cache in self.caches:
            assert cache._tier is not None
            assert cache._tier.core.drain(int(WITHIN * 1e9)), cache._tier.core.health()
        time.sleep(MAX_LAG)
        assert all(cache.confirm() for cache in self.caches)

    def __str__(self) -> str:
        done = f"{self.calls} calls, {self.writes} writes"
        return f"{done}, {len(self.wrong)} wrong values, {len(self.errors)} exceptions"

    def outdated(self) -> list[str]:
        """Keys of which a cache's memory, or the tier behind it, has something else than the truth."""
        from stillwarm import _core

        wrong = []
        for memory in (True, False):
            for cache, function in zip(self.caches, self.functions, strict=True):
                if not memory:
                    _core.clear(cache, -1)  # the tier hears nothing of it
                wrong += [key for key in KEYS if function(key) != self.truth[key]]
        return wrong


@contextlib.contextmanager
def load(url: str, namespace: str) -> Iterator[Load]:
    one = Load(url, namespace)
    try:
        yield one
    finally:
        one._stop.set()
        for cache in one.caches:
            cache.close()


def naive(command: Any) -> str:
    """What a client gets that knows one address: its error."""
    try:
        command()
    except Exception as error:
        return str(error)
    raise AssertionError("nothing happened: the fault is none")


__all__ = ["KEYS", "Load", "load", "naive"]
