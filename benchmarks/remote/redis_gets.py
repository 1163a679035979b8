"""Gets and sets per second from Redis: one caller, threads, tasks, many keys; beside hiredis, redis-py, other caches.

    python benchmarks/remote/redis_gets.py [--quick]

Every get asks the server: what memory knows of the key is dropped before. One value of 1 KB under each of 1,000 keys.
Rounds of all subjects take turns; the median and the spread of the middle half are shown, and the CPU time of both
sides per operation. The value travels as bytes for the clients; ours is found, checked for marks, opened, decoded and
kept in memory. A backend that costs nothing: the same cache without a tier, with a loader that has the value. redis-py
parses with hiredis. The caches of others run with their Redis backend and their own recommended serializer.

Thread rule: starts threads of its own. Refuses to know: how the tier works.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import redis
import redis.asyncio
from aiocache.serializers import PickleSerializer
from flask import Flask

from aiocache import Cache as Aiocache
from aiocache import cached
from cashews import Cache as Cashews
from flask_caching import Cache as FlaskCaching
from stillwarm import Cache, _core
from stillwarm._redis_server import RedisServer
from work import QUESTIONS, Figures, compared, in_cpp, measured, tasks, threads

KEYS = [f"key:{i}" for i in range(1000)]
VALUE = "x" * 1000
COMPARED: list[tuple[str, str, str, float | None]] = [
    ("get, 1 caller", "get, 1 caller: cache.get", "get, 1 caller: redis-py", None),
    ("get, 8 threads", "get, 8 threads: cache.get", "get, 8 threads: redis-py", None),
    ("get, 64 threads", "get, 64 threads: cache.get", "get, 64 threads: redis-py", 4),
    ("get, 64 threads", "get, 64 threads: cache.get", "get, 64 threads: a backend that costs nothing", 0.7),
    ("get, 64 tasks", "get, 64 tasks: cache.aget", "get, 64 tasks: redis.asyncio", 4),
    ("get, 1,000 tasks", "get, 1,000 tasks: cache.aget", "get, 1,000 tasks: redis.asyncio, pool of 16", None),
    ("get_many of 100", "get_many of 100: cache", "get_many of 100: redis-py MGET", None),
    ("set, 1 caller", "set, 1 caller: cache.set", "set, 1 caller: redis-py", None),
    ("set, 64 threads", "set, 64 threads: cache.set", "set, 64 threads: redis-py", None),
    ("decorated remote hit", "decorated remote hit: ours", "decorated remote hit: aiocache", 1),
    ("decorated remote hit", "decorated remote hit: ours", "decorated remote hit: cashews", 1),
    ("decorated remote hit", "decorated remote hit: ours", "decorated remote hit: Flask-Caching", 1),
]
ROOT = Path(__file__).resolve().parents[2]


def one_caller(port: int, calls: int) -> list[list[float]]:
    """Microseconds of hiredis and of the tier for one get, both without Python, five times in turn."""
    command = [ROOT / "build/bench/one_redis_caller", str(port), KEYS[0], "5", str(calls)]
    out = subprocess.run(command, capture_output=True, text=True, check=True)
    return [[float(us) for us in line.split()] for line in out.stdout.splitlines()]


def ours(cache: Cache) -> dict[str, Callable[[int, int], None]]:
    memory = Cache(ttl=3600, jitter=0.0)
    tier = cache._tier
    assert tier is not None

    @cache.cached(ttl=3600, name="page")
    def page(i: int) -> str:
        return VALUE

    def get(_: int, i: int) -> None:
        key = KEYS[i % 1000]
        _core.invalidate_key(cache, 0, key, False)
        assert cache.get(key) is not None

    def free(_: int, i: int) -> None:
        key = KEYS[i % 1000]
        _core.invalidate_key(memory, 0, key, False)
        assert memory.get_or_set(key, lambda: VALUE) is not None

    def tier_get(_: int, i: int) -> None:
        assert tier.core.run(_core.look_up(0, [KEYS[i % 1000]], ["direct"])) is None

    def put(_: int, i: int) -> None:
        cache.set(KEYS[i % 1000], VALUE)

    def many(_: int, i: int) -> None:
        keys = [KEYS[(i + k) % 1000] for k in range(100)]
        for key in keys:
            _core.invalidate_key(cache, 0, key, False)
        assert len(cache.get_many(keys)) == 100

    scope = next(number for number, of in cache._scopes.items() if of.name == "page")

    def decorated(_: int, i: int) -> None:
        _core.invalidate_key(cache, scope, i % 100, False)
        page(i % 100)

    return {"tier": tier_get, "get": get, "free": free, "set": put, "many": many, "decorated": decorated}


def rivals_decorated(url: str, loop: asyncio.AbstractEventLoop) -> dict[str, Any]:
    """A decorated function of one argument on each rival's Redis backend, filled by its first round."""
    port = int(url.split(":")[2].split("/")[0])
    cashews = Cashews()
    cashews.setup(f"{url.rpartition('/')[0]}/1")

    @cashews(ttl="1h", key="page:{i}")
    async def of_cashews(i: int) -> str:
        return VALUE

    @cached(
        ttl=3600,
        cache=Aiocache.REDIS,
        endpoint="127.0.0.1",
        port=port,
        db=2,
        serializer=PickleSerializer(),
        key_builder=lambda f, i: f"page:{i}",
    )
    async def of_aiocache(i: int) -> str:
        return VALUE

    app = Flask("bench")
    app.config.update(CACHE_TYPE="RedisCache", CACHE_REDIS_URL=f"{url.rpartition('/')[0]}/3")
    flask_caching = FlaskCaching(app)

    @flask_caching.memoize(timeout=3600)
    def of_flask_caching(i: int) -> str:
        return VALUE

    context = app.app_context()
    context.push()
    return {"cashews": of_cashews, "aiocache": of_aiocache, "Flask-Caching": of_flask_caching}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    rounds, seconds = (3, 0.15) if options.quick else (7, 0.5)
    for step in (["--preset", "bench"], ["--build", "--preset", "bench", "--target", "one_redis_caller"]):
        subprocess.run(["cmake", *step], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    with RedisServer() as server:
        run(server, rounds, seconds)


def run(server: RedisServer, rounds: int, seconds: float) -> None:
    url = server.url
    cache = Cache(url, ttl=3600, compress_above=0, jitter=0.0)
    cache.set_many(dict.fromkeys(KEYS, VALUE))
    mine = ours(cache)
    client = redis.Redis(host=server.host, port=server.port)
    client.mset(dict.fromkeys(KEYS, VALUE.encode()))
    loop = asyncio.new_event_loop()
    aclient = redis.asyncio.Redis(host=server.host, port=server.port)
    pooled = redis.asyncio.Redis(
        connection_pool=redis.asyncio.BlockingConnectionPool(max_connections=16, port=server.port)
    )
    rivals = rivals_decorated(url, loop)

    async def aget(i: int) -> None:
        key = KEYS[i % 1000]
        _core.invalidate_key(cache, 0, key, False)
        assert await cache.aget(key) is not None

    def of_redis(aclient: Any) -> Any:
        async def call(i: int) -> None:
            assert await aclient.get(KEYS[i % 1000])

        return call

    def redis_get(_: int, i: int) -> None:
        assert client.get(KEYS[i % 1000])

    def redis_many(_: int, i: int) -> None:
        assert len(client.mget([KEYS[(i + k) % 1000] for k in range(100)])) == 100

    def redis_set(_: int, i: int) -> None:
        client.set(KEYS[i % 1000], VALUE.encode(), ex=3600)

    def one_task(function: Any) -> Callable[[float], int]:
        async def call(i: int) -> None:
            await function(i % 100)

        return tasks(1, loop, call)

    subjects: dict[str, Callable[[float], int]] = {
        "get, 1 caller: the tier alone": threads(1, mine["tier"]),
        "get, 1 caller: cache.get": threads(1, mine["get"]),
        "get, 1 caller: redis-py": threads(1, redis_get),
        "get, 8 threads: cache.get": threads(8, mine["get"]),
        "get, 8 threads: redis-py": threads(8, redis_get),
        "get, 64 threads: cache.get": threads(64, mine["get"]),
        "get, 64 threads: a backend that costs nothing": threads(64, mine["free"]),
        "get, 64 threads: redis-py": threads(64, redis_get),
        "get, 64 tasks: cache.aget": tasks(64, loop, aget),
        "get, 64 tasks: redis.asyncio": tasks(64, loop, of_redis(aclient)),
        "get, 64 tasks: redis.asyncio, pool of 16": tasks(64, loop, of_redis(pooled)),
        "get, 1,000 tasks: cache.aget": tasks(1000, loop, aget),
        "get, 1,000 tasks: redis.asyncio, pool of 16": tasks(1000, loop, of_redis(pooled)),
        "get_many of 100: cache": threads(1, mine["many"]),
        "get_many of 100: redis-py MGET": threads(1, redis_many),
        "set, 1 caller: cache.set": threads(1, mine["set"]),
        "set, 1 caller: redis-py": threads(1, redis_set),
        "set, 64 threads: cache.set": threads(64, mine["set"]),
        "set, 64 threads: redis-py": threads(64, redis_set),
        "decorated remote hit: ours": threads(1, mine["decorated"]),
        "decorated remote hit: Flask-Caching": threads(1, lambda _, i: rivals["Flask-Caching"](i % 100)),
        "decorated remote hit: aiocache": one_task(rivals["aiocache"]),
        "decorated remote hit: cashews": one_task(rivals["cashews"]),
    }
    figures = {name: Figures() for name in subjects}
    alone: list[list[float]] = []
    for round_number in range(rounds):
        print(f"round {round_number + 1} of {rounds}", file=sys.stderr)
        alone.extend(one_caller(server.port, max(300, int(5000 * seconds))))
        for name, work in subjects.items():
            measured(server, figures[name], work, seconds)
    packages = ", ".join(
        f"{name} {version(name)}" for name in ("redis", "hiredis", "aiocache", "cashews", "Flask-Caching")
    )
    print(
        f"# Redis: {os.cpu_count()} CPUs, Python {sys.version.split()[0]}, {rounds} rounds of {seconds:g} s; "
        f"{packages}\n"
    )
    ours_us, theirs_us = [us[1] for us in alone], [us[0] for us in alone]
    print(QUESTIONS)
    print(in_cpp("hiredis", ours_us, theirs_us, 1.1))
    print("\n".join(compared(figures, COMPARED)), end="\n\n")
    print("| what | per second | middle half | us each | client CPU us | server CPU us |\n|---|---|---|---|---|---|")
    for i, name in enumerate(("hiredis, in C", "the tier through its queue, in C++")):
        us = sorted(f[i] for f in alone)
        median = statistics.median(us)
        print(f"| get, 1 caller: {name} | {1e6 / median:,.0f} | | {median:.1f} (best {us[0]:.1f}) | | |")
    for name, figure in figures.items():
        print(f"| {name} | {figure.row()} |")
    figures_of_tier = cache.stats().tier
    print(f"\nmerged: {figures_of_tier['served']:,} requests in {figures_of_tier['round_trips']:,} round trips")
    cache.close()
    loop.run_until_complete(aclient.aclose())
    loop.run_until_complete(pooled.aclose())
    loop.close()


if __name__ == "__main__":
    main()
