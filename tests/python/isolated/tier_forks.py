"""Forks while threads use a cache with a PostgreSQL tier; each child uses it too and must end. Prints how many did not.

    tier_forks.py COUNT [naive]

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

import psycopg

from outages import Shared, eventually, is_of
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


def naive_child(connection: psycopg.Connection[object]) -> None:
    """Uses its parent's connection, and closes it properly."""
    try:
        connection.execute("SELECT 1")
        connection.close()
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


def naive(server: PostgresServer, count: int) -> int:
    bad = 0
    for _ in range(count):
        connection = psycopg.connect(server.url, autocommit=True)
        pid = os.fork()
        if pid == 0:
            naive_child(connection)
        ends(pid)
        try:
            connection.execute("SELECT 1")
        except psycopg.Error:
            bad += 1
    return bad


def main() -> None:
    count = int(sys.argv[1])
    with PostgresServer() as server:
        if sys.argv[2:] == ["naive"]:
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
