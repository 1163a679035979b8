"""Gets and sets per second from PostgreSQL: one caller, threads, tasks; beside libpq, libpqxx, psycopg, asyncpg.

    python benchmarks/remote/gets.py [--quick] [--url postgresql://...]

Every get asks the server: what memory knows of the key is dropped before. One value of 1 KB under each of 1,000 keys.
Rounds of all subjects take turns; the median and the spread of the middle half are shown, and the CPU time of both
sides per operation. The value travels as bytes for the rivals; ours is found, checked for marks, opened, decoded and
kept in memory. A backend that costs nothing: the same cache without a tier, with a loader that has the value.

Thread rule: starts threads of its own. Refuses to know: how the tier works.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import asyncpg
import psycopg
import psycopg_pool

from stillwarm import Cache, _core, _url
from stillwarm._servers import PostgresServer
from work import QUESTIONS, Figures, compared, in_cpp, measured, tasks, threads

KEYS = [f"key:{i}" for i in range(1000)]
VALUE = "x" * 1000
SELECT = "SELECT payload FROM bench WHERE key = %s AND expires_at > now()"
UPSERT = (
    "INSERT INTO bench VALUES (%s, %s, now() + interval '1 day') "
    "ON CONFLICT (key) DO UPDATE SET payload = excluded.payload, expires_at = excluded.expires_at"
)
COMPARED: list[tuple[str, str, str, float | None]] = [
    ("get, 1 caller", "get, 1 caller: cache.get", "get, 1 caller: psycopg", None),
    ("get, 8 threads", "get, 8 threads: cache.get", "get, 8 threads: psycopg_pool of 2", None),
    ("get, 64 threads", "get, 64 threads: cache.get", "get, 64 threads: psycopg_pool of 2", 4),
    ("get, 64 threads", "get, 64 threads: cache.get", "get, 64 threads: psycopg_pool of 16", 4),
    ("get, 64 threads", "get, 64 threads: cache.get", "get, 64 threads: a backend that costs nothing", None),
    ("get, 64 tasks", "get, 64 tasks: cache.aget", "get, 64 tasks: asyncpg pool of 2", 3),
    ("get, 64 tasks", "get, 64 tasks: cache.aget", "get, 64 tasks: asyncpg pool of 16", 3),
    ("set, 1 caller", "set, 1 caller: cache.set", "set, 1 caller: psycopg", None),
    ("set, 64 threads", "set, 64 threads: cache.set", "set, 64 threads: psycopg_pool of 16", None),
]
ROOT = Path(__file__).resolve().parents[2]


async def _pool(url: str, size: int) -> Any:
    return await asyncpg.create_pool(url, min_size=size, max_size=size)


def one_caller(url: str, calls: int) -> list[list[float]]:
    """Microseconds of libpq, of libpqxx and of the tier for one get, all without Python, five times in turn."""
    ours = _url.connection_string(url, connect_timeout=2, statement_timeout=250)  # the same session for all three
    command = [ROOT / "build/bench/one_caller", ours, "bench", KEYS[0], "5", str(calls)]
    out = subprocess.run(command, capture_output=True, text=True, check=True)
    return [[float(us) for us in line.split()] for line in out.stdout.splitlines()]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    rounds, seconds = (3, 0.15) if options.quick else (7, 0.5)
    for step in (["cmake", "--preset", "bench"], ["cmake", "--build", "--preset", "bench", "--target", "one_caller"]):
        subprocess.run(step, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    with PostgresServer() as server:
        run(server, server.new_database(), rounds, seconds)


def run(server: PostgresServer, url: str, rounds: int, seconds: float) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TABLE bench (key text PRIMARY KEY, payload bytea, expires_at timestamptz)")
        for key in KEYS:
            connection.execute(UPSERT, (key, VALUE.encode()))
        connection.execute("ANALYZE bench")
    cache = Cache(url, ttl=3600, compress_above=0, jitter=0.0)
    cache.set_many(dict.fromkeys(KEYS, VALUE))
    cache.query("ANALYZE stillwarm.entries")  # autovacuum would, within a minute
    cache.query("ANALYZE stillwarm.invalidations")
    one = psycopg.connect(url, autocommit=True)
    pool = psycopg_pool.ConnectionPool(url, min_size=2, max_size=2, kwargs={"autocommit": True}, open=True)
    big = psycopg_pool.ConnectionPool(url, min_size=16, max_size=16, kwargs={"autocommit": True}, open=True)
    loop = asyncio.new_event_loop()
    apool = loop.run_until_complete(_pool(url, 2))
    abig = loop.run_until_complete(_pool(url, 16))
    cursor = one.cursor(binary=True)

    def get(_: int, i: int) -> None:
        key = KEYS[i % 1000]
        _core.invalidate_key(cache, 0, key, False)
        assert cache.get(key) is not None

    memory = Cache(ttl=3600, jitter=0.0)

    def free(_: int, i: int) -> None:
        key = KEYS[i % 1000]
        _core.invalidate_key(memory, 0, key, False)
        assert memory.get_or_set(key, lambda: VALUE) is not None

    def tier_get(_: int, i: int) -> None:
        assert cache._tier.core.run(_core.look_up(0, [KEYS[i % 1000]], ["direct"])) is None

    def put(_: int, i: int) -> None:
        cache.set(KEYS[i % 1000], VALUE)

    def psycopg_get(_: int, i: int) -> None:
        cursor.execute(SELECT, (KEYS[i % 1000],), prepare=True)
        assert cursor.fetchone()

    def psycopg_set(_: int, i: int) -> None:
        cursor.execute(UPSERT, (KEYS[i % 1000], VALUE.encode()), prepare=True)

    def pooled(pool: Any, text: str, *more: bytes) -> Callable[[int, int], None]:
        def call(_: int, i: int) -> None:
            with pool.connection() as connection:
                connection.execute(text, (KEYS[i % 1000], *more), prepare=True, binary=True)

        return call

    async def aget(i: int) -> None:
        key = KEYS[i % 1000]
        _core.invalidate_key(cache, 0, key, False)
        assert await cache.aget(key) is not None

    def of_asyncpg(pool: Any) -> Callable[[int], Awaitable[Any]]:
        text = SELECT.replace("%s", "$1")

        async def call(i: int) -> None:
            assert await pool.fetchval(text, KEYS[i % 1000])

        return call

    subjects: dict[str, Callable[[float], int]] = {
        "get, 1 caller: the tier alone": threads(1, tier_get),
        "get, 1 caller: cache.get": threads(1, get),
        "get, 1 caller: psycopg": threads(1, psycopg_get),
        "get, 8 threads: cache.get": threads(8, get),
        "get, 8 threads: psycopg_pool of 2": threads(8, pooled(pool, SELECT)),
        "get, 64 threads: cache.get": threads(64, get),
        "get, 64 threads: a backend that costs nothing": threads(64, free),
        "get, 64 threads: psycopg_pool of 2": threads(64, pooled(pool, SELECT)),
        "get, 64 threads: psycopg_pool of 16": threads(64, pooled(big, SELECT)),
        "get, 64 tasks: cache.aget": tasks(64, loop, aget),
        "get, 64 tasks: asyncpg pool of 2": tasks(64, loop, of_asyncpg(apool)),
        "get, 64 tasks: asyncpg pool of 16": tasks(64, loop, of_asyncpg(abig)),
        "set, 1 caller: cache.set": threads(1, put),
        "set, 1 caller: psycopg": threads(1, psycopg_set),
        "set, 64 threads: cache.set": threads(64, put),
        "set, 64 threads: psycopg_pool of 16": threads(64, pooled(big, UPSERT, VALUE.encode())),
    }
    figures = {name: Figures() for name in subjects}
    alone: list[list[float]] = []
    for round_number in range(rounds):
        print(f"round {round_number + 1} of {rounds}", file=sys.stderr)
        alone.extend(one_caller(url, max(300, int(5000 * seconds))))
        for name, work in subjects.items():
            measured(server, figures[name], work, seconds)
    print(f"# PostgreSQL: {os.cpu_count()} CPUs, Python {sys.version.split()[0]}, {rounds} rounds of {seconds:g} s\n")
    print(QUESTIONS)
    print(in_cpp("libpqxx nontransaction", [us[2] for us in alone], [us[1] for us in alone], 1.2))
    print("\n".join(compared(figures, COMPARED)), end="\n\n")
    print("| what | per second | middle half | us each | client CPU us | server CPU us |\n|---|---|---|---|---|---|")
    for i, name in enumerate(("libpq, in C", "libpqxx nontransaction, in C++", "the tier through its queue, in C++")):
        us = sorted(f[i] for f in alone)
        median = statistics.median(us)
        print(f"| get, 1 caller: {name} | {1e6 / median:,.0f} | | {median:.1f} (best {us[0]:.1f}) | | |")
    for name, figure in figures.items():
        print(f"| {name} | {figure.row()} |")
    figures_of_tier = cache.stats().tier
    print(f"\nmerged: {figures_of_tier['served']:,} requests in {figures_of_tier['round_trips']:,} round trips")
    cache.close()
    pool.close()
    big.close()
    loop.run_until_complete(apool.close())
    loop.run_until_complete(abig.close())
    loop.close()
    one.close()


if __name__ == "__main__":
    main()
