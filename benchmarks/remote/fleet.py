"""Several processes on one PostgreSQL: loads per key in scope "fleet", how late an invalidation is seen, connections.

    python benchmarks/remote/fleet.py [--quick]

Each process is a fresh interpreter that runs this file with a role; they meet at a moment that the parent names.

Thread rule: one thread; the children start 64 each.
Refuses to know: how leases and messages work.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "python"))

from stillwarm import Cache
from stillwarm._servers import PostgresServer

THREADS = 64


def child_load(url: str, seconds: str, start: str) -> None:
    """64 threads ask for one cold key; says how many loads ran here, and how long the slowest caller waited."""
    cache = Cache(url, ttl=600, timeout="2s", connect_timeout="5s")
    loads: list[int] = []

    @cache.cached(name=f"slow{seconds}", scope="fleet", hard_timeout="60s")
    def slow(x: int) -> int:
        loads.append(x)
        time.sleep(float(seconds))
        return x

    cache.check()
    waits: list[float] = []
    wrong: list[Any] = []

    def ask() -> None:
        time.sleep(max(0.0, float(start) - time.time()))
        began = time.perf_counter()
        value = slow(7)
        waits.append(time.perf_counter() - began)
        if value != 7:
            wrong.append(value)

    workers = [threading.Thread(target=ask) for _ in range(THREADS)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    print(json.dumps({"loads": len(loads), "slowest": max(waits), "wrong": len(wrong)}))
    cache.close()


def child_watch(url: str, pooler: str, rounds: str) -> None:
    """Says when it saw each value that the parent set: one line per value, with its moment."""
    cache = Cache(url, ttl=600, pooler=pooler == "yes", timeout="2s")
    cache.get("value")
    print("ready", flush=True)
    seen = -1
    until = time.monotonic() + 600
    while seen < int(rounds) - 1 and time.monotonic() < until:
        value = cache.get("value")
        if value is not None and value > seen:
            seen = value
            print(f"{seen} {time.time():.6f}", flush=True)
        time.sleep(0.0002)
    cache.close()


def child_busy(url: str, seconds: str) -> None:
    """A worker under load: 16 threads read and write."""
    cache = Cache(url, ttl=600, timeout="2s")
    until = time.monotonic() + float(seconds)

    def work(n: int) -> None:
        i = 0
        while time.monotonic() < until:
            i += 1
            cache.set(f"k{n}:{i % 50}", i)
            cache.get(f"k{(n + 1) % 16}:{i % 50}")

    workers = [threading.Thread(target=work, args=(n,)) for n in range(16)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    cache.close()


def spawn(role: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, __file__, role, *arguments], stdout=subprocess.PIPE, text=True)


def loads(server: PostgresServer, processes: int, seconds: float) -> str:
    url = server.new_database()
    with Cache(url, ttl=1) as cache:
        cache.migrate()
    start = str(time.time() + 3 + processes)
    children = [spawn("load", url, str(seconds), start) for _ in range(processes)]
    told = [json.loads(child.communicate()[0]) for child in children]
    total, slowest = sum(t["loads"] for t in told), max(t["slowest"] for t in told)
    wrong = sum(t["wrong"] for t in told)
    asked = f"{processes} processes x {THREADS} threads, loader of {seconds:g} s"
    return f"| {asked} | {total} loads, slowest caller {slowest:.2f} s, {wrong} wrong |"


def lag(server: PostgresServer, url: str, rounds: int, pooler: bool) -> str:
    with Cache(url, ttl=600, timeout="2s", pooler=pooler) as cache:
        cache.migrate()
        watchers = [spawn("watch", url, "yes" if pooler else "no", str(rounds)) for _ in range(3)]
        for watcher in watchers:
            assert watcher.stdout is not None
            watcher.stdout.readline()
        sent: list[float] = []
        for i in range(rounds):
            cache.set("value", i)
            sent.append(time.time())
            time.sleep(0.02)
        cache.set("value", rounds)
        late: list[float] = []
        for watcher in watchers:
            out, _ = watcher.communicate()
            seen = dict(line.split() for line in out.splitlines() if line[:1].isdigit())
            moments = sorted((int(n), float(at)) for n, at in seen.items())
            for i in range(rounds):
                at = next((at for n, at in moments if n >= i), None)
                if at is not None:
                    late.append(max(0.0, at - sent[i]))
    late.sort()
    via = "through PgBouncer, polls only" if pooler else "direct, NOTIFY and polls"
    return (
        f"| a set seen by 3 other processes, {via} | p50 {statistics.median(late) * 1e3:.1f} ms, "
        f"p99 {late[int(len(late) * 0.99)] * 1e3:.1f} ms, worst {late[-1] * 1e3:.1f} ms, of {len(late)} |"
    )


def connections(server: PostgresServer, seconds: float) -> str:
    url = server.new_database()
    with Cache(url, ttl=1) as cache:
        cache.migrate()
    name = url.rpartition("/")[2].partition("?")[0]
    children = [spawn("busy", url, str(seconds)) for _ in range(4)]
    most = 0
    while any(child.poll() is None for child in children):
        most = max(most, sum(backend.database == name for backend in server.backends()))
        time.sleep(0.05)
    return f"| connections of 4 workers x 16 threads under load | at most {most} (limit 12) |"


def main() -> None:
    roles = {"load": child_load, "watch": child_watch, "busy": child_busy}
    if len(sys.argv) > 1 and sys.argv[1] in roles:
        roles[sys.argv[1]](*sys.argv[2:])
        return
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    with PostgresServer() as server:
        rows = [loads(server, 2, 0.2)]
        if not quick:
            rows += [loads(server, 4, 0.2), loads(server, 2, 12), loads(server, 4, 12)]
        rows.append(lag(server, server.new_database(), 20 if quick else 300, False))
        if not quick:
            from pooling import PgBouncer

            bouncer = PgBouncer(server.port, size=12)
            try:
                database = server.new_database().rpartition("/")[2].partition("?")[0]
                rows.append(lag(server, bouncer.url(database), 100, True))
            finally:
                bouncer.close()
        rows.append(connections(server, 1 if quick else 8))
    print("| what | seen |\n|---|---|")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
