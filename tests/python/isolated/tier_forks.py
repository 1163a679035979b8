"""Forks while threads use a cache with a tier; each child uses it too and must end. Prints how many did not.

    tier_forks.py COUNT postgres|redis [naive]

Thread rule: a process of its own, with a server of its own.
Refuses to know: pytest.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
import time
import warnings

from outages import Raw, Shared, eventually, is_of
from served import RawRedis, Served
from stillwarm._redis_server import RedisServer
from stillwarm._servers import PostgresServer

WATCHDOG = 20.0  # s; a child takes milliseconds, but the machine may be busy
warnings.simplefilter("ignore", DeprecationWarning)  # of Python 3.12: fork with threads is what is tested


def use(one: Shared, key: str) -> None:
    assert is_of(one.get(key), key), key
    assert one.cache.get_or_set(f"s{key}", lambda: key) == key
    value = one.cache.get(f"d{key}")
    assert value is None or value == key
    assert one.cache.set(f"d{key}", key)
    if key.endswith("5"):
        one.cache.invalidate(tag="all")


def load(one: Shared) -> None:
    rng = random.Random(threading.get_ident())
    while True:
        use(one, f"k{rng.randrange(50)}")


def child(one: Shared) -> None:
    """Loads through the tier on connections of its own."""
    try:
        for n in range(5):
            use(one, f"k{n}")
        one.get(f"c{os.getpid()}")
        one.cache.set("from a child", os.getpid())
        assert one.cache._check_invariants()
        os._exit(0)
    except BaseException as error:
        os.write(2, f"{error!r}\n".encode())
        os._exit(1)


def naive_child(client: Raw | RawRedis) -> None:
    """Uses its parent's connection, and closes it properly."""
    try:
        if isinstance(client, RawRedis):
            client("ECHO", "child")
            client("QUIT")
        else:
            client("SELECT 1")
            client.connection.close()
    finally:
        os._exit(0)


def ends(pid: int) -> bool:
    deadline = time.monotonic() + WATCHDOG
    while time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return status == 0
        time.sleep(0.001)
    os.kill(pid, signal.SIGABRT)
    os.waitpid(pid, 0)
    return False


def naive(server: Served, count: int) -> int:
    bad = 0
    for _ in range(count):
        with server.naive() as client:
            pid = os.fork()
            if pid == 0:
                naive_child(client)
            ends(pid)
            try:
                client(server.ask)
            except server.naive_error:
                bad += 1
    return bad


def main() -> None:
    count = int(sys.argv[1])
    made = PostgresServer() if sys.argv[2] == "postgres" else RedisServer()
    with made:
        server = Served(sys.argv[2], made)  # type: ignore[arg-type]
        if sys.argv[3:] == ["naive"]:
            print(f"stuck or failed: {naive(server, count)}")
            return
        one = Shared(server.url, tags=["all"], timeout="10s")
        one.cache.check()
        one.get("warm")
        failures = one.cache.stats().remote_errors
        sys.setswitchinterval(1e-5)
        for _ in range(4):
            threading.Thread(target=load, args=(one,), daemon=True).start()
        bad = 0
        for _ in range(count):
            pid = os.fork()
            if pid == 0:
                child(one)
            bad += not ends(pid)
        eventually(one.cache.confirm)
        assert isinstance(one.cache.get("from a child"), int), "the parent hears of its children"
        assert one.health["reconnects"] == 0, one.health
        print(f"stuck or failed: {bad}")
        print(f"errors of the parent: {one.cache.stats().remote_errors - failures}", flush=True)
    os._exit(0)


main()
