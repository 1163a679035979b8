"""The reference system's concurrency test as they wrote it, beside the same work on stillwarm, on one durable server.

    pip install 'stillwarm[bench]'
    python benchmarks/remote/reference.py [--quick] [--out FOLDER] [--rounds N]

Theirs: 10 threads on different keys; each round inserts a row, reads it, adds 1 to its hit_count and commits, with
SQLAlchemy and psycopg. Ours: 64 threads; each round asks a cached function twice: the first call loads and stores, the
second is a hit, which is counted. On different keys both leave the same rows behind: one per round, hit_count 1. Then
ours on overlapping keys (each of four threads') and all on the same key.

The server has fsync and synchronous_commit on. Theirs ends with the last commit. The clock of ours stops when a session
of its own sees every row with its hit_count, so what is written behind the callers is in it. The factor is of rounds
per second; the median of interleaved runs. Prints the table; a full run keeps it in benchmarks/results/reference.md.
Exits with 1 if a row or a count is missing, which no busy machine excuses; a missed goal is only reported.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import threading
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

BENCHMARKS = Path(__file__).resolve().parents[1]
sys.path.append(
    str(BENCHMARKS)
)  # last: this folder's name is nobody's, but those beside it are packages of Python's own

import psycopg  # noqa: E402
import sqlalchemy  # noqa: E402

import stillwarm  # noqa: E402
from python import report  # noqa: E402
from stillwarm import Cache  # noqa: E402
from stillwarm.demo.discovery.tables import DISCOVERY, discovery_key  # noqa: E402
from stillwarm.testing import PostgresServer  # noqa: E402

THEIR_THREADS, OUR_THREADS = 10, 64
GOAL = 5.0
LIMIT = 60.0  # s, until every row is seen
ASINS = [f"B{n:09}" for n in range(20)]
INSERT = sqlalchemy.text(
    "INSERT INTO product_discovery_cache (cache_key, domain, category, bsr_min, bsr_max, price_min, price_max, asins, "
    "count, expires_at) VALUES (:key, 1, 283155, 1, 50000, NULL, NULL, :asins, 20, now() + interval '24 hours')"
)
SELECT = sqlalchemy.text("SELECT asins FROM product_discovery_cache WHERE cache_key = :key AND expires_at > now()")
UPDATE = sqlalchemy.text("UPDATE product_discovery_cache SET hit_count = hit_count + 1 WHERE cache_key = :key")


class Missing(Exception):
    """A row or a count is not there."""


def at_once(threads: int, work: Callable[[int], None]) -> float:
    """The monotonic time at which work(0) to work(threads - 1) began."""
    errors: list[BaseException] = []
    began: list[float] = []
    barrier = threading.Barrier(threads, lambda: began.append(time.perf_counter()))

    def run(number: int) -> None:
        try:
            barrier.wait()
            work(number)
        except BaseException as error:
            errors.append(error)

    running = [threading.Thread(target=run, args=(number,)) for number in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    if errors:
        raise errors[0]
    return began[0]


def empty(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as session:
        session.execute("TRUNCATE product_discovery_cache, stillwarm.entries")
        session.execute("CHECKPOINT")


def theirs(url: str, rounds: int) -> float:
    """Rounds per second."""
    engine = sqlalchemy.create_engine(
        url.replace("postgresql://", "postgresql+psycopg://"), pool_size=THEIR_THREADS, max_overflow=0
    )

    def work(number: int) -> None:
        for step in range(rounds):
            key = f"discovery:{number}:{step}"
            with engine.connect() as connection:
                connection.execute(INSERT, {"key": key, "asins": json.dumps(ASINS)})
                (found,) = connection.execute(SELECT, {"key": key}).one()
                connection.execute(UPDATE, {"key": key})
                connection.commit()
            if found != ASINS:
                raise Missing(key)

    connections = [engine.connect() for _ in range(THEIR_THREADS)]  # opened before the clock runs
    for connection in connections:
        connection.close()
    began = at_once(THEIR_THREADS, work)
    took = time.perf_counter() - began
    seen(url, THEIR_THREADS * rounds, lambda: THEIR_THREADS * rounds)
    engine.dispose()
    return THEIR_THREADS * rounds / took


def ours(url: str, rounds: int, key_of: Callable[[int, int], int], keys: int) -> float:
    """Rounds per second, until everything is in the tables. `key_of(thread, step)` is one of `keys`."""
    # Callers here do nothing but ask, more than the server can take: with the usual timeout and queue the cache would
    # go on without it, and rows would be missing.
    with Cache(url, namespace="reference", max_bytes="512MB", queue=1_000_000, timeout="10s") as cache:
        cache.define("discovery", ttl="24h", **DISCOVERY)

        @cache.cached("discovery", key=discovery_key, name="discover")
        def discover(
            domain: int, category: int, bsr_min: int, bsr_max: int, price_min: float | None, price_max: float | None
        ) -> list[str]:
            return ASINS

        def work(number: int) -> None:
            for step in range(rounds):
                price = float(key_of(number, step))
                first = discover(1, 283155, 1, 50_000, None, price)
                if discover(1, 283155, 1, 50_000, None, price) != first:
                    raise Missing(str(price))

        cache.check()
        began = at_once(OUR_THREADS, work)
        try:
            ended = seen(url, keys, lambda: cache.stats().types["discovery"].hits)
        except Missing as error:
            raise Missing(f"{error}; {cache.stats().tier}") from None
        stats = cache.stats().types["discovery"]
        if stats.hits + stats.misses != 2 * OUR_THREADS * rounds:
            raise Missing(f"{stats.hits} hits and {stats.misses} misses of {2 * OUR_THREADS * rounds} calls")
        return OUR_THREADS * rounds / (ended - began)


def seen(url: str, rows: int, hits: Callable[[], int]) -> float:
    """When a session of its own sees so many rows and hits."""
    until = time.perf_counter() + LIMIT
    found = None
    with psycopg.connect(url, autocommit=True) as session:
        while time.perf_counter() < until:
            found = session.execute(
                "SELECT count(*), coalesce(sum(hit_count), 0) FROM product_discovery_cache"
            ).fetchone()
            now = time.perf_counter()
            if found == (rows, hits()):
                return now
            time.sleep(0.01)
    raise Missing(f"seen (rows, hits): {found}, expected: {(rows, hits())}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a smoke run of some seconds")
    parser.add_argument("--rounds", type=int, default=0, help="rounds of one thread; 0: 200, quick 20")
    parser.add_argument("--out", type=Path, help="folder for reference.md")
    args = parser.parse_args()
    rounds = args.rounds or (20 if args.quick else 200)
    names = ("theirs", "different keys", "overlapping keys", "the same key")
    rates: dict[str, list[float]] = {name: [] for name in names}
    with PostgresServer(durable=True) as server:
        settings = server.sql("SELECT current_setting('fsync'), current_setting('synchronous_commit')")
        if settings != [("on", "on")]:
            raise SystemExit(f"the server is not durable: {settings}")
        url = server.new_database()
        with Cache(url, namespace="reference") as cache:
            cache.define("discovery", ttl="24h", **DISCOVERY)
            cache.migrate()
        kinds: dict[str, Callable[[], float]] = {
            "theirs": lambda: theirs(url, rounds),
            "different keys": lambda: ours(url, rounds, lambda t, s: t * rounds + s, OUR_THREADS * rounds),
            "overlapping keys": lambda: ours(url, rounds, lambda t, s: t % 16 * rounds + s, 16 * rounds),
            "the same key": lambda: ours(url, rounds, lambda t, s: 0, 1),
        }
        try:
            for _ in range(1 if args.quick else 3):
                for name in names:
                    empty(url)
                    rates[name].append(kinds[name]())
        except Missing as error:
            print(f"missing: {error}", file=sys.stderr)
            return 1
        database = (server.sql("SHOW server_version")[0][0] or "").partition(" ")[0]
    packages = {"stillwarm": stillwarm.__version__, "SQLAlchemy": version("SQLAlchemy"), "psycopg": version("psycopg")}
    command = f"python benchmarks/remote/reference.py {' '.join(sys.argv[1:])}".rstrip()
    known = report.facts({"PostgreSQL": database, **packages}, command)
    text = table(rates, rounds) + "\n" + "\n".join(f"- {name}: {value}" for name, value in known.items()) + "\n"
    print(text)
    out = args.out or (None if args.quick or args.rounds else BENCHMARKS / "results")
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        (out / "reference.md").write_text(f"# The reference system's concurrency test\n\n{intro()}\n\n{text}")
        print(f"written: {out / 'reference.md'}", file=sys.stderr)
    return 0


def intro() -> str:
    parts = (__doc__ or "").split("\n\n")
    return "\n\n".join(" ".join(part.split()) for part in (parts[2], parts[3].partition(" Prints")[0]))


def table(rates: dict[str, list[float]], rounds: int) -> str:
    theirs = f"theirs, {THEIR_THREADS} threads, {THEIR_THREADS * rounds:,} rounds: "
    theirs += f"{statistics.median(rates['theirs']):,.0f}/s"
    lines = list(report.summary([]))
    for name, of in rates.items():
        if name == "theirs":
            continue
        factor = statistics.median(mine / his for mine, his in zip(of, rates["theirs"], strict=True))
        rate = f"{statistics.median(of):,.0f} rounds/s"
        question = (
            f"insert, read, count with full durability, {OUR_THREADS} threads, {OUR_THREADS * rounds:,} rounds, {name}"
        )
        reached = "yes" if factor >= GOAL else "**no**"
        lines.append(f"| {question} | {rate} | {theirs} | {factor:.1f} x | >= {GOAL:g} x | {reached} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
