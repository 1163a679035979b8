"""64 threads of one process ask for one cold key in scope "fleet": for reliability/stampedes.py.

    loads_once.py URL SECONDS ours|naive

Says "ready", waits for a line, says "loading MOMENT" where a load begins, and at the end a line of JSON. The naive one
has a lock of its own process, and asks the server whether there is a value.

Thread rule: a process of its own.
Refuses to know: how many other processes there are, and which of them is killed.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable

THREADS = 64
URL, SECONDS, KIND = sys.argv[1], float(sys.argv[2]), sys.argv[3]
lock = threading.Lock()
loads: list[int] = []


def load() -> int:
    with lock:
        loads.append(1)
        print("loading", repr(time.monotonic()), flush=True)
    time.sleep(SECONDS)
    return 7


def ours() -> Callable[[], int]:
    from stillwarm import Cache

    cache = Cache(URL, namespace="once", ttl=600, timeout="2s", connect_timeout="5s")
    cache.check()
    return cache.cached(name="slow", scope="fleet", hard_timeout="60s")(load)


def naive() -> Callable[[], int]:
    from served import RawRedis

    raw, own = RawRedis(URL), threading.Lock()

    def slow() -> int:
        with own:
            if (there := raw("GET", "once")) is not None:
                return int(there)
            value = load()
            raw("SET", "once", value)
            return value

    return slow


def main() -> None:
    slow = {"ours": ours, "naive": naive}[KIND]()
    waits: list[float] = []
    wrong: list[str] = []
    start = threading.Barrier(THREADS + 1)

    def ask() -> None:
        start.wait()
        began = time.monotonic()
        try:
            value = slow()
        except Exception as error:
            wrong.append(repr(error))
            return
        waits.append(time.monotonic() - began)
        if value != 7:
            wrong.append(str(value))

    threads = [threading.Thread(target=ask) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    print("ready", flush=True)
    sys.stdin.readline()
    start.wait()
    for thread in threads:
        thread.join()
    print(json.dumps({"loads": len(loads), "slowest": max(waits, default=0.0), "wrong": wrong}), flush=True)


main()
