"""Forks while threads use the cache in every way; each child uses it too and must end. Prints how many did not.

    forks.py COUNT [naive]

Thread rule: a process of its own.
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

from stillwarm import Cache

WATCHDOG = 10.0  # s; a child takes milliseconds, but the machine may be busy
warnings.simplefilter("ignore", DeprecationWarning)  # of Python 3.12: fork with threads is what is tested

cache = Cache(ttl="10ms", stale_while_revalidate="10ms", jitter=0.0, max_entries=200)
lock = threading.Lock()
naive = sys.argv[2:] == ["naive"]


@cache.cached
def plain(key: int) -> int:
    return key + 1


@cache.cached(hard_timeout="5s", tags=["all"])
def pooled(key: int) -> int:
    return key + 2


def use(key: int) -> None:
    if naive:  # a cache guarded by a plain mutex
        with lock:
            sum(range(50))
        return
    assert plain(key) == key + 1
    assert pooled(key % 7) == key % 7 + 2
    assert cache.get_or_set(f"k{key}", lambda: key) == key
    cache.invalidate(tag="all")
    if key % 5 == 0:
        cache.invalidate(pattern="k1*")


def load() -> None:
    rng = random.Random(threading.get_ident())
    while True:
        use(rng.randrange(300))


def child() -> None:
    try:
        for key in range(20):
            use(key)
        assert naive or cache._check_invariants()
        os._exit(0)
    except BaseException as error:
        os.write(2, f"{error!r}\n".encode())
        os._exit(1)


def ends(pid: int, within: float) -> bool:
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return status == 0
        time.sleep(0.001)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return False


def main() -> None:
    sys.setswitchinterval(1e-5)
    for _ in range(4):
        threading.Thread(target=load, daemon=True).start()
    bad = 0
    for _ in range(int(sys.argv[1])):
        pid = os.fork()
        if pid == 0:
            child()
        bad += not ends(pid, 0.2 if naive else WATCHDOG)
    print(f"stuck or failed: {bad}")


main()
