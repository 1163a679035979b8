"""The app of the soak: one gunicorn worker with one cache on PostgreSQL and one on Redis, over one source of truth.

    python -m reliability.soak_app <job as JSON>      fd, source, urls, ours or naive

    GET  /<tier>/<key>             what the cache says, which process said it, and how long it took in here
    POST /<tier>/<intent>/<what>   invalidates; answers when that returned, with the invalidations that are owed
    GET  /state                    state, connection and error figures of both tiers; memory, descriptors, threads

The source is a file of numbers, one a key and tier, which the driver changes. A load reads its number, and then takes
some milliseconds until it has its value: long enough for an invalidation to come between.

Thread rule: gunicorn's threads.
Refuses to know: faults, and what is right (soak_truth).
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import random
import signal
import struct
import sys
import time
from collections.abc import Callable
from typing import Any

import flask

from reliability.lateness import Lateness
from stillwarm import Cache

TIERS = ("pg", "redis")
KEYS = 40  # of each tier
TAGS = 5
TTL = 15.0  # s; the last limit of what was lost with a process that owed it
TIMEOUT = 0.25  # s; the default of a Cache
PATTERN_TIMEOUT = 30.0  # s; of invalidate(pattern=), which looks at every key
MAX_LAG = 1.0  # s; as well
LOAD = 0.004  # s at most
THREADS = 16
PR_SET_PDEATHSIG = 1


def number_of(key: str) -> int:
    return int(key[1:])


def tag_of(key: str) -> str:
    return f"tag{number_of(key) % TAGS}"


class Source:
    """Numbers in a file that several processes have mapped; what is written is there for all of them at once."""

    def __init__(self, path: str) -> None:
        with open(path, "r+b") as file:
            self._map = mmap.mmap(file.fileno(), 8 * KEYS * len(TIERS))

    def read(self, tier: str, key: str) -> int:
        return int(struct.unpack_from("q", self._map, self._at(tier, key))[0])

    def write(self, tier: str, key: str, version: int) -> None:
        struct.pack_into("q", self._map, self._at(tier, key), version)

    def close(self) -> None:
        self._map.close()

    def _at(self, tier: str, key: str) -> int:
        return 8 * (TIERS.index(tier) * KEYS + number_of(key))


class Ours:
    """stillwarm, with its defaults."""

    def __init__(self, tier: str, url: str, load: Callable[[str], str]) -> None:
        self._cache = Cache(url, namespace="soak", ttl=TTL, jitter=0.0, purge_every="10s")

        @self._cache.cached(name="value", tags=lambda key: [tag_of(key)])
        def value(key: str) -> str:
            return load(key)

        self.get = value

    def invalidate(self, intent: str, what: str) -> None:
        if intent == "key":
            self.get.cache_invalidate(what)
        elif intent == "tag":
            self._cache.invalidate(tag=what)
        elif intent == "pattern":
            self._cache.invalidate(pattern="value:*")
        else:
            self._cache.invalidate(all=True)

    def told(self) -> dict[str, Any]:
        assert self._cache._tier is not None
        health = self._cache._tier.core.health()
        usable = health["circuit"] == "closed" and health["linked"] and health["connections"] > 0
        owed = health["owed_invalidations"]
        used = bool(usable and not owed and self._cache.confirm())
        trouble = self._cache._tier.errors + health["failures"] + health["reconnects"]
        return {"state": self._cache.state.value, "used": used, "owed": owed, "trouble": trouble}

    def owed(self) -> int:
        assert self._cache._tier is not None
        return int(self._cache._tier.core.health()["owed_invalidations"])


class Naive:
    """A dict per process: it stores whatever a load brings, whenever, and tells nobody. The control."""

    def __init__(self, tier: str, url: str, load: Callable[[str], str]) -> None:
        self._load, self._known = load, dict[str, str]()

    def get(self, key: str) -> str:
        if key not in self._known:
            self._known[key] = self._load(key)
        return self._known[key]

    def invalidate(self, intent: str, what: str) -> None:
        for key in list(self._known):
            if intent in ("all", "pattern") or what in (key, tag_of(key)):
                self._known.pop(key, None)

    def told(self) -> dict[str, Any]:
        return {"state": "HEALTHY", "used": True, "owed": 0, "trouble": 0}

    def owed(self) -> int:
        return 0


def app_of(job: dict[str, Any]) -> flask.Flask:
    app, source, lateness = flask.Flask("soak"), Source(job["source"]), Lateness()

    def loader(tier: str) -> Callable[[str], str]:
        def load(key: str) -> str:
            version = source.read(tier, key)
            time.sleep(random.random() * LOAD)
            return f"{tier}|{key}|{version}|{key * 20}"

        return load

    kind = Naive if job["naive"] else Ours
    caches = {tier: kind(tier, job["urls"][tier], loader(tier)) for tier in TIERS}

    def timed(call: Callable[..., Any], *arguments: str) -> dict[str, Any]:
        began = time.monotonic()
        try:
            told = {"value": call(*arguments)}
        except Exception as error:
            told = {"error": f"{type(error).__name__}: {error}"}
        ended = time.monotonic()
        took = ended - began
        late = lateness.during(began, ended) if took > TIMEOUT else 0.0
        return {**told, "pid": os.getpid(), "took": took, "late": late}

    @app.get("/<tier>/<key>")
    def read(tier: str, key: str) -> dict[str, Any]:
        return timed(caches[tier].get, key)

    @app.post("/<tier>/<intent>/<what>")
    def invalidate(tier: str, intent: str, what: str) -> dict[str, Any]:
        told = timed(caches[tier].invalidate, intent, what)
        return {**told, "owed": caches[tier].owed()}

    @app.get("/state")
    def state() -> dict[str, Any]:
        with open("/proc/self/statm") as file:
            pages = int(file.read().split()[1])
        figures = {
            "rss": pages * os.sysconf("SC_PAGE_SIZE"),
            "descriptors": len(os.listdir("/proc/self/fd")),
            "threads": len(os.listdir("/proc/self/task")),
        }
        return {"pid": os.getpid(), "figures": figures, **{tier: caches[tier].told() for tier in TIERS}}

    return app


def main() -> None:
    from gunicorn.app.base import BaseApplication

    job = json.loads(sys.argv[1])
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)

    class One(BaseApplication):  # type: ignore[misc]
        def load_config(self) -> None:
            options = {
                "bind": f"fd://{job['fd']}",
                "workers": 1,
                "worker_class": "gthread",
                "threads": THREADS,
                "keepalive": 60,
                "graceful_timeout": 1,
                "loglevel": "critical",
                "control_socket_disable": True,
            }
            for name, value in options.items():
                if name in self.cfg.settings:
                    self.cfg.set(name, value)

        def load(self) -> Any:
            return app_of(job)

    One().run()


if __name__ == "__main__":
    main()
