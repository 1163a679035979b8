"""Ends while a tier is being used: `tier_exits.py HOW URL`. The last line tells when the end began.

Thread rule: a process of its own. It asks whoever started it to freeze the server, through stdout and stdin.
Refuses to know: pytest, and the server's life.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from outages import Shared

URL = sys.argv[2]
logging.getLogger("stillwarm").setLevel(logging.ERROR)  # that the tier is away is said; here only what is wrong
begun = threading.Semaphore(0)


def in_thread(target: Callable[..., Any], *args: Any) -> None:
    threading.Thread(target=target, args=args, daemon=True).start()


def busy(one: Shared, number: int) -> None:
    n = 0
    while True:
        n += 1
        one.get(f"{number}-{n}")
        one.cache.set(f"s{number}-{n % 10}", n)
        if n == 3:
            begun.release()


def frozen() -> None:
    """The other side stops the server now, and says so."""
    print("freeze", flush=True)
    sys.stdin.readline()


def calls() -> None:
    one = Shared(URL)
    for number in range(8):
        in_thread(busy, one, number)
    for _ in range(8):
        begun.acquire()
    kept.append(one)


def calls_frozen() -> None:
    """In flight at a server that answers nobody; hits, writes and invalidations are owed."""
    calls()
    for _ in range(100):
        kept[0].get("0-1")
    frozen()
    in_thread(lambda: kept[0].cache.invalidate(tag="t"))


def many_frozen() -> None:
    """Several caches, each with something to write at the end."""
    for number in range(6):
        one = Shared(URL, namespace=f"n{number}")
        one.get("k")
        one.written()
        for _ in range(10):
            one.get("k")
        one.cache.set("s", 1)
        kept.append(one)
    frozen()
    for one in kept:
        for _ in range(10):
            one.get("k")


def owed() -> None:
    """The server is away: what is owed is not waited for."""
    one = Shared(URL)
    one.get("k")
    one.written()
    frozen()
    for n in range(30):
        one.cache.set(f"s{n}", n)
        one.cache.invalidate(tag=f"t{n}")
    kept.append(one)


def tasks() -> None:
    """A loop in a daemon thread whose tasks wait for the tier."""
    one = Shared(URL)

    async def task(number: int) -> None:
        n = 0
        while True:
            n += 1
            await one.cache.aset(f"{number}-{n % 9}", n)
            await one.cache.aget(f"{number}-{n % 7}")
            if n == 3:
                begun.release()

    async def main() -> None:
        await asyncio.gather(*(task(n) for n in range(8)))

    in_thread(asyncio.run, main())
    for _ in range(8):
        begun.acquire()
    kept.append(one)


def idle() -> None:
    """Its hits are known to nobody else yet."""
    one = Shared(URL)
    one.get("k")
    one.written()  # the end waits 0.2 s for it, which a busy machine may need for something else
    for _ in range(7):
        one.get("k")
    one.cache.set("last", "word")
    kept.append(one)


kept: list[Any] = []
HOW = {
    "calls": calls,
    "calls_frozen": calls_frozen,
    "many_frozen": many_frozen,
    "owed": owed,
    "tasks": tasks,
    "idle": idle,
}
HOW[sys.argv[1]]()
print("end", time.monotonic(), flush=True)
