"""The page that takes 610 ms to make, with Redis below memory: hits of a fresh worker, requests per second, traffic.

Thread rule: one thread. Refuses to know: how it is cached.

One worker makes the pages; a fresh one, whose memory is cold, has each from Redis once, and then from its memory. Under
wrk the worker that has Redis as its only warm tier has room for one entry in memory and is asked for 200 pages in turn.
The traffic is that of the dashboard demo, two hours of it at many times the speed, with ttls shortened as much, through
two apps that share a Redis.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

from apps import PATH, QUICK_FROM
from page import LEAST, MOST_MS, timed
from python.measure import Row, Samples, Section
from python.report import number
from servers import Server
from stillwarm import Cache
from stillwarm._redis_server import RedisServer
from stillwarm.demo.dashboard.app import create_app
from stillwarm.demo.dashboard.replay import SECONDS, THEIRS, Counting, Replayed, put, traffic
from stillwarm.flask import CacheType
from throughput import CONNECTIONS, load

COUNT = 200  # pages, as pages.lua has it
SCRIPT = Path(__file__).with_name("pages.lua")
LEAST_RATE = 1_000  # requests/s of one worker: "thousands"; the reference system has 333
SAVED = 95.0  # % of the search queries
SPEED = 100  # of the traffic
KINDS = {"Flask, gunicorn gthread": ("gthread", "flask"), "FastAPI, uvicorn": ("uvicorn", "fastapi")}
FIELDS = {
    "Flask, one gunicorn worker (sync)": (
        "sync",
        {"stillwarm, memory above Redis": "flask_tiered", "stillwarm, Redis only": "flask_tiered_only"}
        | {"Flask-Caching on Redis": "flask_caching_redis"},
    ),
    "FastAPI, one uvicorn worker (httptools, uvloop)": (
        "uvicorn",
        {"stillwarm, memory above Redis": "fastapi_tiered", "stillwarm, Redis only": "fastapi_tiered_only"},
    ),
}


def sections(quick: bool) -> Iterator[Section]:
    with RedisServer() as redis:
        os.environ["BENCHMARK_URL"] = redis.new_database()  # the servers' processes read it
        yield pages(quick)
        for title, (kind, apps) in FIELDS.items():
            os.environ["BENCHMARK_URL"] = redis.new_database()
            yield throughput(title, kind, apps, 1 if quick else 15)
        yield replayed(redis.new_database(), 2_000 if quick else 20_000, SPEED * (10 if quick else 1))


def pages(quick: bool) -> Section:
    section = Section("the 610 ms page at the client", "ms", columns="middle half")
    count = 50 if quick else COUNT
    names = [f"{PATH}?n={QUICK_FROM + n}" for n in range(count)]
    for name, (kind, framework) in KINDS.items():
        with Server(kind, f"{framework}_tiered") as first:
            first.get("/figures")
            with contextlib.closing(first.connect()) as connection:
                made = [timed(connection, f"{PATH}?n={n}", "MISS") for n in range(1 if quick else 5)]
                for path in names:
                    timed(connection, path, "MISS")
            with Server(kind, f"{framework}_tiered") as fresh:
                fresh.get("/figures")
                with contextlib.closing(fresh.connect()) as connection:
                    connection.connect()
                    # It is known by the first one's name: a page's key has its host.
                    host = {"Host": f"127.0.0.1:{first.port}"}
                    cold = [timed(connection, path, "HIT", host) for path in names]
                    warm = [timed(connection, path, "HIT", host) for _ in range(1 if quick else 10) for path in names]
                figures = json.loads(fresh.get("/figures")[2])
        if figures != {"loads": 0, "remote_hits": count}:
            raise RuntimeError(f"{name}: {count} pages from Redis and no load were expected: {figures}")
        miss = statistics.median(made)
        section.bars.append((f"{kind}, made", miss, "-"))
        for what, hits in (("from Redis, memory cold", cold), ("memory above Redis", warm)):
            hit = statistics.median(hits)
            low, _, high = statistics.quantiles(hits, n=4, method="inclusive")
            section.bars.append((f"stillwarm, {kind}, {what}", hit, f"{low:.3f} - {high:.3f}"))
            section.rows.append(
                Row(
                    f"610 ms page, {name}, {what}",
                    f"{hit:.3f} ms",
                    f"made {miss:.0f} ms",
                    f"{miss / hit:,.0f} x",
                    f"<= {MOST_MS:g} ms, >= {LEAST:g} x",
                    hit <= MOST_MS and miss / hit >= LEAST,
                )
            )
    section.notes.append(f"{count} pages that another worker has made; a fresh worker has none loaded")
    return section


def throughput(title: str, kind: str, apps: dict[str, str], rounds: int) -> Section:
    section = Section(f"{title}; more is better", "requests/s", columns="middle half | CPU per request, us")
    rates: dict[str, list[float]] = {name: [] for name in apps}
    costs: dict[str, list[float]] = {name: [] for name in apps}
    with contextlib.ExitStack() as stack:
        servers = {name: stack.enter_context(Server(kind, app)) for name, app in apps.items()}
        for server in servers.values():
            for n in range(COUNT):
                server.get(f"{PATH}?n={QUICK_FROM + n}")
        names = list(servers)
        for turn in range(rounds):
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                before = remote_hits(name, servers[name])
                rate, cost = load(servers[name], SCRIPT)
                hits = remote_hits(name, servers[name]) - before
                # What is measured is what is said: about a second of requests, nearly all or nearly none from Redis.
                if name.startswith("stillwarm") and not (hits > 0.9 * rate if "only" in name else hits < 0.1 * rate):
                    raise RuntimeError(f"{name}: {hits} hits from Redis at {rate} requests/s")
                rates[name].append(rate)
                costs[name].append(cost)
    speeds, loads = Samples(rates), Samples(costs)
    for name in sorted(rates, key=speeds.median, reverse=True):
        spread = "{:,.0f} - {:,.0f}".format(*speeds.spread(name)) if rounds > 1 else "-"
        section.bars.append((name, speeds.median(name), f"{spread} | {loads.median(name):.1f}"))
        if name.startswith("stillwarm"):
            rate = speeds.median(name)
            section.rows.append(
                Row(
                    f"{kind}: {name}, hits",
                    f"{number(rate)}/s",
                    "the reference system 333/s",
                    f"{rate / 333:.3g} x",
                    f">= {LEAST_RATE:,}/s",
                    rate >= LEAST_RATE,
                )
            )
    rival, ours = "Flask-Caching on Redis", "stillwarm, Redis only"
    if rival in apps:
        ratio, cheaper = speeds.ratio(ours, rival), loads.ratio(rival, ours)
        section.rows.append(
            Row(
                f"{kind}: {ours}, hits",
                f"{number(speeds.median(ours))}/s",
                f"{rival} {number(speeds.median(rival))}/s",
                f"{ratio:.3g}; by CPU time {cheaper:.3g}",
                ">= 1",
                ratio >= 1,
            )
        )
    section.notes.append(
        f"wrk with {CONNECTIONS} connections and one thread, {COUNT} pages in turn; {rounds} rounds of a second each "
        "in turn"
    )
    return section


def remote_hits(name: str, server: Server) -> int:
    return int(json.loads(server.get("/figures")[2])["remote_hits"]) if name.startswith("stillwarm") else 0


def replayed(url: str, count: int, speed: int) -> Section:
    search, seen, draw = Counting(), Replayed(), random.Random(2)
    with contextlib.ExitStack() as stack:
        caches = [stack.enter_context(Cache(url, namespace="replay")) for _ in range(2)]
        for cache in caches:
            for kind in CacheType:
                cache.define(kind.value, ttl=kind.ttl / speed)
        apps = [create_app(search, cache, token="nobody-asks-for-this") for cache in caches]
        began = time.monotonic()
        latest = 0.0
        for request in traffic(count):
            ahead = began + request.at / speed - time.monotonic()
            if ahead > 0:
                time.sleep(ahead)
            latest = max(latest, -ahead)
            seen.add(request, *put(draw.choice(apps), request))
        seen.queries = search.queries
        from_redis = sum(cache.stats().remote_hits for cache in caches)
    if seen.failed:
        raise RuntimeError(f"{seen.failed} requests of the traffic failed")
    section = Section(f"{count:,} requests of {SECONDS // 3600} h of traffic, two workers", "% hits", columns="theirs")
    for name, (low, high) in THEIRS.items():
        rate = seen.hit_rate(name)
        section.bars.append((name, rate, f"{low} - {high}"))
        section.rows.append(
            Row(
                f"hit rate of {name}",
                f"{rate:.1f} %",
                f"theirs {low}-{high} %",
                f"{rate - low:+.1f}",
                f">= {low} %",
                rate >= low if count >= 20_000 else None,
            )
        )
    section.rows.append(
        Row(
            "search queries",
            number(seen.queries),
            f"{number(seen.queries_without)} without a cache",
            f"{seen.saved:.1f} % saved",
            f">= {SAVED:g} %",
            seen.saved >= SAVED if count >= 20_000 else None,
        )
    )
    section.notes.append(
        f"in {SECONDS / speed:.0f} s, ttls {speed} times as short; {from_redis:,} of the hits came from Redis; "
        f"a request was {latest * 1e3:.0f} ms late at most"
    )
    return section
