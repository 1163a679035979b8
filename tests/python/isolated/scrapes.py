"""A process among several whose figures prometheus_client adds up. The first argument says which.

    scrapes.py forked | spawned HITS | executed | alone | idle | pooled

Thread rule: a process of its own, with PROMETHEUS_MULTIPROC_DIR set.
Refuses to know: pytest. What it prints is for the test that started it.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import struct
import sys
import time
import warnings
from collections.abc import Callable

from prometheus_client import CollectorRegistry
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from stillwarm import Cache, metrics

warnings.simplefilter("ignore", DeprecationWarning)  # of Python 3.12: fork with threads is what is tested

cache = Cache(namespace="shop", ttl=None)


@cache.cached
def score(asin: int) -> int:
    return asin


def hit(count: int) -> None:
    for _ in range(count):
        score(1)


def figures() -> dict[str, float]:
    """What an app's own endpoint would show now, of the figures that matter here."""
    registry = CollectorRegistry()
    MultiProcessCollector(registry)
    shown = {}
    for metric in registry.collect():
        for sample in metric.samples:
            of_type = sample.labels.get("type", "default") == "default"
            if of_type and sample.labels.get("state", "HEALTHY") == "HEALTHY":
                shown[sample.name.removeprefix("stillwarm_")] = sample.value
    names = ("hits_total", "misses_total", "entries", "flights", "state", "max_bytes")
    return {name: shown[name] for name in names if name in shown}


def fork(work: Callable[[], None]) -> int:
    pid = os.fork()
    if pid == 0:
        work()
        sys.exit()  # through atexit, as the workers of most servers end
    return pid


def forked() -> None:
    """Workers after fork: what the parent counted is counted once, whatever ends them; dead ones stay in counters."""
    hit(101)  # of the parent: 1 miss, 100 hits
    metrics.register(cache, None)
    hit(20)  # not written yet
    done_r, done_w = os.pipe()

    def killed() -> None:
        hit(4000)
        metrics.flush()
        hit(7)  # lost with the process
        os.write(done_w, b"x")
        signal.pause()

    def leaving() -> None:
        hit(30_000)
        metrics.flush()
        os._exit(0)

    def filling() -> None:
        hit(200_000)
        score(2)  # a second entry, 1 miss

    pids = [fork(killed), fork(leaving), fork(filling)]
    os.read(done_r, 1)
    os.kill(pids[0], signal.SIGKILL)
    for pid in pids:
        os.waitpid(pid, 0)
    metrics.flush()
    shown = [figures()]
    for pid in pids:
        mark_process_dead(pid)
    shown.append(figures())
    hit(1)
    metrics.flush()
    shown.append(figures())
    print(json.dumps(shown))


def spawned() -> None:
    metrics.register(cache, None)
    hit(int(sys.argv[2]))


def executed() -> None:
    """A process that has the number of a dead one goes on from its figures."""
    metrics.register(cache, None)
    hit(11)
    metrics.flush()
    if len(sys.argv) == 2:
        os.execv(sys.executable, [sys.executable, __file__, "executed", "again"])
    print(json.dumps(figures()))


def alone() -> None:
    """A worker writes by itself, without being asked and before it ends."""
    metrics.register(cache, None)
    done_r, done_w = os.pipe()

    def worker() -> None:
        os.close(done_w)
        hit(51)
        os.read(done_r, 1)  # until the parent is gone or content
        os._exit(0)

    pid = fork(worker)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            if figures().get("hits_total") == 50:
                break
        except struct.error:
            pass  # prometheus_client reads a file that another process is just making: a scrape that fails once
        time.sleep(0.02)
    os.close(done_w)
    os.waitpid(pid, 0)
    print(json.dumps(figures()))


def idle() -> None:
    """A child that does not use the cache leaves no files."""
    hit(3)
    metrics.register(cache, None)
    pid = fork(metrics.flush)
    os.waitpid(pid, 0)
    names = sorted(os.listdir(os.environ["PROMETHEUS_MULTIPROC_DIR"]))
    print(json.dumps([[name for name in names if name.endswith(f"_{pid}.db")], len(names), figures()]))


def pooled() -> None:
    """Processes of multiprocessing, which end without atexit."""
    hit(6)
    metrics.register(cache, None)
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=hit, args=(count,)) for count in (100, 2000)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    print(json.dumps(figures()))


if __name__ == "__main__":
    {f.__name__: f for f in (forked, spawned, executed, alone, idle, pooled)}[sys.argv[1]]()
