"""Ctrl-C: `interrupts.py leader|follower` while it loads or waits; `interrupts.py everywhere` at each line of the path.

Thread rule: a process of its own.
Refuses to know: pytest.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from types import FrameType
from typing import Any

from stillwarm import Cache, Retry, _load, current_load

SECOND = 1_000_000_000


def waiting(cache: Cache, callers: int) -> None:
    while cache.stats().joined < callers:
        time.sleep(0.001)
    time.sleep(0.05)  # counted before it sleeps on its lock


def interrupted(action: Any) -> float:
    """Runs `action` on the main thread, and returns the seconds from Ctrl-C until it raised."""
    try:
        action()
    except KeyboardInterrupt:
        return time.monotonic() - sent[0]
    raise AssertionError("no KeyboardInterrupt")


sent: list[float] = []


def ctrl_c() -> None:
    sent[:] = [time.monotonic()]
    os.kill(os.getpid(), signal.SIGINT)


def leader(**options: Any) -> None:
    """The leader is interrupted: it gets KeyboardInterrupt at once, and one of two followers leads."""
    cache = Cache(ttl=60)
    loads: list[str] = []
    results: list[int] = []

    @cache.cached(**options)
    def load(key: int) -> int:
        loads.append(threading.current_thread().name)
        if len(loads) == 1:
            time.sleep(30)
        return key

    def follow() -> None:
        results.append(load(1))

    followers = [threading.Thread(target=follow, daemon=True) for _ in range(2)]

    def interrupt() -> None:
        while not loads:
            time.sleep(0.001)
        for thread in followers:
            thread.start()
        waiting(cache, 2)
        ctrl_c()

    threading.Thread(target=interrupt, daemon=True).start()
    took = interrupted(lambda: load(1))
    for thread in followers:
        thread.join(5)
    assert results == [1, 1], results
    assert len(loads) == 2, loads
    assert load(1) == 1
    assert cache.stats().flights == 0
    print("took", took)


def follower(**options: Any) -> None:
    """A follower is interrupted: the load goes on, and its value is stored."""
    cache = Cache(ttl=60)
    begun, go_on = threading.Event(), threading.Event()

    @cache.cached(**options)
    def load(key: int) -> int:
        begun.set()
        assert go_on.wait(30)
        return key

    loading = threading.Thread(target=load, args=(1,), daemon=True)
    loading.start()
    assert begun.wait(10)

    def interrupt() -> None:
        waiting(cache, 1)
        ctrl_c()

    threading.Thread(target=interrupt, daemon=True).start()
    took = interrupted(lambda: load(1))
    go_on.set()
    loading.join(10)
    assert load(1) == 1
    assert cache.stats().loads == 1
    print("took", took)


PATH = ("_load.py", "_target.py", "_landing.py", "_cached.py", "_many.py", "_observed.py", "_cache.py")


class Interrupt:
    """Raises KeyboardInterrupt at the n-th call or line of stillwarm's path on this thread.

    Not in the pool: a tracer also raises between the end of a `with` block and its __exit__, where no signal comes.
    """

    def __init__(self, n: int) -> None:
        self.left = n
        self.where = ""

    def __call__(self, frame: FrameType, event: str, _: Any) -> Any:
        if os.path.basename(frame.f_code.co_filename) not in PATH:
            return None
        self.left -= 1
        if self.left == 0:
            self.where = f"{frame.f_code.co_filename}:{frame.f_lineno} {event}"
            raise KeyboardInterrupt
        return self


def everywhere() -> None:
    """With another caller waiting, at each place: afterwards nobody is stuck, and the key can be loaded."""
    _load.FOLLOWER_LIMIT = 5.0
    for name, options in (
        ("retry", {"retry": Retry(on=OSError, retries=1)}),
        ("tags", {"tags": ["a"]}),
        ("pool", {"hard_timeout": 5}),
        ("speaks", {}),
        ("fails", {}),
    ):
        n = 0
        while True:
            n += 1
            if not once(name, options, n):
                break
        print(name, n - 1, "places")


def once(name: str, options: dict[str, Any], n: int) -> bool:
    cache = Cache(ttl=60, **options)
    outcome: list[Any] = []
    loads: list[int] = []

    @cache.cached
    def load(key: int) -> int:
        loads.append(key)
        if len(loads) == 1 and threading.current_thread() is not thread:
            tracing = sys.gettrace()
            sys.settrace(None)
            if start():
                waiting_one(cache)
            sys.settrace(tracing)
            if name == "fails":
                raise ValueError("fails")
        if name == "speaks":
            current_load().ttl = 50
        return key

    def follow() -> None:
        try:
            outcome.append(load(1))
        except ValueError as error:
            outcome.append(error)
        except BaseException as error:
            outcome.append(repr(error))

    thread = threading.Thread(target=follow, daemon=True)
    interrupt = Interrupt(n)
    one = threading.Lock()

    def start() -> bool:
        """True for the first: the loader, or the end of the interrupted call."""
        if not one.acquire(blocking=False):
            return False
        thread.start()
        return True

    sys.settrace(interrupt)
    try:
        load(1)
    except (KeyboardInterrupt, ValueError):
        pass
    finally:
        sys.settrace(None)
    begun = not start()
    while thread.ident is None:  # a load in the pool is about to start it
        time.sleep(0)
    thread.join(10)
    at = f"{name}, interrupted at {interrupt.where}, follower {'waiting' if begun else 'later'}"
    assert not thread.is_alive(), f"stuck: {at}"
    assert outcome[0] == 1 or isinstance(outcome[0], ValueError), f"{outcome[0]}: {at}"
    assert load(1) == 1, at
    assert cache.stats().flights == 0, at
    assert cache._check_invariants(), at
    assert _load.innermost() is None, f"a load seems to run: {at}"
    cache.close()
    return interrupt.left <= 0


def waiting_one(cache: Cache) -> None:
    while cache.stats().joined < 1:
        time.sleep(0)
    while not any(f.f_code.co_name == "acquire" for f in sys._current_frames().values()):
        time.sleep(0)


if sys.argv[1] == "everywhere":
    everywhere()
else:
    for options in ({}, {"tags": ["a"]}, {"retry": Retry(on=OSError, retries=1)}):
        {"leader": leader, "follower": follower}[sys.argv[1]](**options)
