"""Ctrl-C while the main thread waits for a frozen server: `tier_interrupts.py postgres|redis`. Prints how long it took.

Thread rule: a process of its own, with a server of its own.
Refuses to know: pytest.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from outages import Shared, eventually, is_of
from reliability.lateness import Lateness
from stillwarm._redis_server import RedisServer
from stillwarm._servers import PostgresServer

lateness = Lateness()


def interrupted(action: Callable[[], Any], after: float) -> tuple[float, float]:
    """Seconds from Ctrl-C, which comes while `action` waits, until it raised; and those that the machine was late."""
    sent: list[float] = []

    def ctrl_c() -> None:
        sent.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)

    timer = threading.Timer(after, ctrl_c)
    try:
        timer.start()
        while True:  # calls that end before do not count
            action()
    except KeyboardInterrupt:
        now = time.monotonic()
        return now - sent[0], lateness.during(sent[0], now)


def main() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # shells switch it off for what runs in the background
    redis = sys.argv[1] == "redis"
    with RedisServer() if redis else PostgresServer() as server:
        for timeout in ("250ms", "20s"):
            for verb in ("load", "get", "set", "invalidate", "incr", "command" if redis else "query"):
                one = Shared(server.url, timeout=timeout)
                one.get("warm")
                one.cache.set("n", 1)
                one.written()
                server.freeze()
                actions: dict[str, Callable[[], Any]] = {
                    "load": lambda one=one: one.fresh("k"),  # type: ignore[misc]
                    "get": lambda one=one: one.cache.get("other"),  # type: ignore[misc]
                    "set": lambda one=one: one.cache.set("s", 1),  # type: ignore[misc]
                    "invalidate": lambda one=one: one.cache.invalidate(tag="t"),  # type: ignore[misc]
                    "incr": lambda one=one: _quiet(lambda: one.cache.incr("n")),  # type: ignore[misc]
                    "query": lambda one=one: _quiet(lambda: one.cache.query("SELECT 1", timeout=20.0)),  # type: ignore[misc]
                    "command": lambda one=one: _quiet(lambda: one.cache._tier.command("GET", "k", timeout=20.0)),  # type: ignore[misc]
                }
                print("took", *interrupted(actions[verb], 0.1), timeout, verb)
                server.thaw()
                eventually(one.cache.confirm)
                assert is_of(one.get("k"), "k")
                assert one.cache.stats().flights == 0
                one.cache.close()


def _quiet(action: Callable[[], Any]) -> None:
    from stillwarm.errors import TierError

    try:
        action()
    except TierError:
        pass


main()
