"""A process that reads one key all the time and says when it sees something else: for reliability/heard.py.

    hears.py URL ours|naive

A line a change: the value, and the moment by the clock that all processes share. So it says, too, when its own link to
the tier is "apart", and "whole" again.

Thread rule: a process of its own.
Refuses to know: who changes the value, and how soon it has to be seen.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

PAUSE = 0.0002  # s between two reads
LOOKS = 50  # reads between two looks at the link


def ours(url: str) -> tuple[Callable[[], Any], Callable[[], bool]]:
    from outages import eventually
    from stillwarm import Cache

    cache = Cache(url, namespace="heard", ttl=600)
    cache.get("value")
    assert cache._tier is not None
    core = cache._tier.core

    def whole() -> bool:
        health = core.health()
        return bool(health["linked"] and health["circuit"] == "closed" and health["connections"])

    eventually(whole)
    return lambda: cache.get("value"), whole


def naive(url: str) -> tuple[Callable[[], Any], Callable[[], bool]]:
    """What was read stays until a message comes; a subscription that broke is made again, and that is all."""
    from outages import eventually
    from served import RawRedis

    channel: list[Any] = []
    kept: list[Any] = []

    def value() -> Any:
        with RawRedis(url) as raw:
            return raw("GET", "heard:value")

    def subscribe() -> bool:
        try:
            channel[:] = [RawRedis(url)]
            channel[0]("SUBSCRIBE", "heard:changed")
            channel[0].connection.settimeout(PAUSE)
        except OSError:
            return False
        return True

    def read() -> Any:
        try:
            told = channel[0].connection.recv(65536)
        except TimeoutError:
            told = None
        except OSError:
            told = b""
        if told == b"":
            eventually(subscribe)
        if told or not kept:
            try:
                kept[:] = [value()]
            except OSError:
                pass
        return kept[0] if kept else None

    eventually(subscribe)
    return read, lambda: True


def main() -> None:
    read, whole = {"ours": ours, "naive": naive}[sys.argv[2]](sys.argv[1])
    seen, was_whole, number = read(), True, 0
    print("ready", repr(time.monotonic()), flush=True)
    while True:
        value = read()
        if value != seen:
            seen = value
            print(value, repr(time.monotonic()), flush=True)
        number += 1
        if number % LOOKS == 0 and whole() != was_whole:
            was_whole = not was_whole
            print("whole" if was_whole else "apart", repr(time.monotonic()), flush=True)
        time.sleep(PAUSE)


main()
