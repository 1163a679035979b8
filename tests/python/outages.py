"""What the fault tests of the PostgreSQL tier share: caches whose values carry their keys, conditions with deadlines.

Thread rule: any thread.
Refuses to know: which fault happens.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import psycopg

from stillwarm import Cache

DEADLINE = 0.25  # s; the tier's timeout, the default of a Cache
WITHIN = 30.0  # s; how long a condition may take to come true on a busy machine
SECRET = "hush-hush-7"


def eventually(condition: Callable[[], Any], within: float = WITHIN, what: str = "") -> float:
    """Waits until it is true; how long it took."""
    begun = time.monotonic()
    while not condition():
        waited = time.monotonic() - begun
        assert waited < within, f"not within {within:g} s: {what or condition}"
        time.sleep(0.005)
    return time.monotonic() - begun


_loads = iter(range(1, 10**9))


class Loader:
    """Makes the value of a key, which carries it and is made once; counts, and fails on demand."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.fails = False

    def __call__(self, key: str) -> str:
        self.calls.append(key)
        if self.fails:
            raise ConnectionError("the source is away")
        return value_of(key, next(_loads))


def value_of(key: str, n: int = 0) -> str:
    return f"{key}|{n}|{key * 20}"


def is_of(value: object, key: str) -> bool:
    """Whether a value is whole and this key's."""
    text = str(value)
    return text.startswith(f"{key}|") and text.endswith(f"|{key * 20}")


class Shared:
    """A cache with a tier, and one function of it."""

    def __init__(self, url: str, **options: Any) -> None:
        self.load = Loader()
        options.setdefault("jitter", 0.0)
        options.setdefault("purge_every", None)
        self.cache = Cache(url, **{"ttl": 600, **options})
        self.get: Any = self.cache.cached(name="get")(self.load)

    def fresh(self, key: str) -> str:
        """As the tier has it: memory forgets it first."""
        forget(self.cache)
        return str(self.get(key))

    @property
    def health(self) -> dict[str, Any]:
        assert self.cache._tier is not None
        health: dict[str, Any] = self.cache._tier.core.health()
        return health

    def written(self) -> None:
        """Until nothing is on its way to the tier."""
        assert self.cache._tier is not None
        assert self.cache._tier.core.drain(int(WITHIN * 1e9)), self.health


_asked = iter(range(10**9))


def answers(one: Shared) -> bool:
    """Whether the tier takes a value and gives it back."""
    key = f"answers{next(_asked)}"
    one.get(key)
    assert one.cache._tier is not None
    one.cache._tier.core.drain(500_000_000)
    one.fresh(key)
    return one.load.calls.count(key) == 1


def forget(cache: Cache) -> None:
    """Memory forgets everything, and the tier hears nothing of it."""
    from stillwarm import _core

    _core.clear(cache, -1)


@contextlib.contextmanager
def shared(url: str, **options: Any) -> Iterator[Shared]:
    one = Shared(url, **options)
    try:
        yield one
    finally:
        one.cache.close()


def patient(url: str, **options: Any) -> contextlib.AbstractContextManager[Shared]:
    """`shared` for what is about no deadline: the machine may be busy."""
    return shared(url, **{"timeout": "10s", **options})


def in_child(work: Callable[[], bool]) -> bool:
    """Whether it was true in the child of a fork, which ends without a word."""
    pid = os.fork()
    if pid == 0:
        signal.alarm(60)
        try:
            os._exit(0 if work() else 1)
        finally:
            os._exit(2)
    return os.waitpid(pid, 0)[1] == 0


@contextlib.contextmanager
def connecting(url: str, threads: int) -> Iterator[None]:
    """Connections are made all the time."""
    stop = threading.Event()

    def connect() -> None:
        while not stop.is_set():
            with Cache(url, timeout="20s", connect_timeout="20s", ttl=60) as cache:
                cache.get("k")

    running = [threading.Thread(target=connect) for _ in range(threads)]
    for thread in running:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in running:
            thread.join()


def timed(call: Callable[..., Any], *args: Any) -> tuple[Any, float]:
    """What it returns or raises, and its seconds."""
    begun = time.monotonic()
    try:
        outcome = call(*args)
    except Exception as error:
        outcome = error
    return outcome, time.monotonic() - begun


def at_once(calls: list[Callable[[], Any]]) -> list[Any]:
    """Performs them on a thread each; what they return or raise."""
    outcomes: list[Any] = [None] * len(calls)
    barrier = threading.Barrier(len(calls))

    def one(i: int) -> None:
        barrier.wait()
        outcomes[i] = timed(calls[i])[0]

    threads = [threading.Thread(target=one, args=(i,)) for i in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WITHIN)
        assert not thread.is_alive(), "a call hangs"
    return outcomes


class Raw:
    """A client that is not prepared for faults: the naive control."""

    def __init__(self, url: str) -> None:
        self.connection = psycopg.connect(url, autocommit=True, connect_timeout=2)

    def __call__(self, sql: str, *values: Any) -> Any:
        cursor = self.connection.execute(sql, values or None)  # type: ignore[call-overload]
        return cursor.fetchall() if cursor.description else []

    def __enter__(self) -> Raw:
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()


def told_once(caplog: Any, part: str) -> bool:
    """Whether the log says it, and once."""
    return sum(part in record.getMessage() for record in caplog.records) == 1


def silent_about_secrets(caplog: Any, *texts: object) -> None:
    for text in (*(record.getMessage() for record in caplog.records), *texts):
        assert SECRET not in str(text)
