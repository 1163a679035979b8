"""Requests per second of one worker under wrk, and CPU time of the worker for each request.

Thread rule: one thread. Refuses to know: what the apps do.

All servers of a section are up from the start and take turns, a second each; idle ones cost nothing. Requests per
second depend on what else the machine does, wrk included; CPU time per request hardly does, so both are shown.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from apps import PATH
from python.measure import Row, Samples, Section
from python.report import number
from servers import Server

CONNECTIONS = 16


@dataclass(frozen=True)
class Goal:
    """How many times the requests per second of `rival` `ours` must reach."""

    ours: str
    rival: str
    least: float


@dataclass(frozen=True)
class Field:
    """Candidates on one kind of server: the names shown and those of the apps."""

    title: str
    kind: str
    apps: dict[str, str]
    goals: Sequence[Goal]


FLASK = Field(
    "Flask, one gunicorn worker (sync)",
    "sync",
    {
        "bare WSGI app": "wsgi_bare",
        "stillwarm WSGI middleware": "flask_middleware",
        "stillwarm decorator": "flask_decorator",
        "empty Flask handler": "flask_empty",
        "Flask-Caching": "flask_caching",
    },
    (
        Goal("stillwarm WSGI middleware", "bare WSGI app", 0.85),
        Goal("stillwarm decorator", "empty Flask handler", 0.9),
        Goal("stillwarm decorator", "Flask-Caching", 1.0),
    ),
)
FASTAPI = Field(
    "FastAPI, one uvicorn worker (httptools, uvloop)",
    "uvicorn",
    {
        "bare ASGI app": "asgi_bare",
        "stillwarm ASGI middleware": "fastapi_middleware",
        "stillwarm decorator": "fastapi_decorator",
        "empty FastAPI handler": "fastapi_empty",
        "fastapi-cache": "fastapi_cache",
    },
    (
        Goal("stillwarm ASGI middleware", "bare ASGI app", 0.8),
        Goal("stillwarm decorator", "fastapi-cache", 1.0),
    ),
)
SHORT = ("bare", "stillwarm")


def sections(quick: bool) -> Iterator[Section]:
    for field in (FLASK, FASTAPI):
        apps = {name: app for name, app in field.apps.items() if not quick or name.startswith(SHORT)}
        yield measured(field, apps, 1 if quick else 15)


def measured(field: Field, apps: dict[str, str], rounds: int) -> Section:
    section = Section(f"{field.title}; more is better", "requests/s", columns="middle half | CPU per request, us")
    rates: dict[str, list[float]] = {name: [] for name in apps}
    costs: dict[str, list[float]] = {name: [] for name in apps}
    with contextlib.ExitStack() as stack:
        servers = {name: stack.enter_context(Server(field.kind, app)) for name, app in apps.items()}
        for name, server in servers.items():
            check(name, server)
        names = list(servers)
        for number_of_round in range(rounds):
            start = number_of_round % len(names)
            for name in names[start:] + names[:start]:
                rate, cost = load(servers[name])
                rates[name].append(rate)
                costs[name].append(cost)
    speeds, loads = Samples(rates), Samples(costs)
    for name in sorted(rates, key=speeds.median, reverse=True):
        spread = "{:,.0f} - {:,.0f}".format(*speeds.spread(name)) if rounds > 1 else "-"
        section.bars.append((name, speeds.median(name), f"{spread} | {loads.median(name):.1f}"))
    for goal in field.goals:
        if goal.ours in apps and goal.rival in apps:
            ratio, cheaper = speeds.ratio(goal.ours, goal.rival), loads.ratio(goal.rival, goal.ours)
            section.rows.append(
                Row(
                    f"{field.kind}: {goal.ours} hit",
                    f"{number(speeds.median(goal.ours))}/s",
                    f"{goal.rival} {number(speeds.median(goal.rival))}/s",
                    f"{ratio:.3g}; by CPU time {cheaper:.3g}",
                    f">= {goal.least:g}",
                    ratio >= goal.least,
                )
            )
    section.notes.append(f"wrk with {CONNECTIONS} connections and one thread; {rounds} rounds of a second each in turn")
    return section


def check(name: str, server: Server) -> None:
    """The app answers, and a cached one from the cache: what is measured is a hit."""
    for _ in range(2):
        status, headers, body = server.get(PATH)
    if status != 200:
        raise RuntimeError(f"{name} answers {status}: {body[:200]!r}")
    if name.startswith(SHORT) and headers.get("x-cache") != "HIT":
        raise RuntimeError(f"{name} does not answer from the cache: {headers}")


def load(server: Server, script: Path | None = None) -> tuple[float, float]:
    """Requests per second, and microseconds of the worker's CPU time for one. `script`: wrk's, says what is asked."""
    program = shutil.which("wrk") or "wrk"
    url = f"http://127.0.0.1:{server.port}{PATH}"
    before = server.cpu_seconds()
    scripted = [] if script is None else ["-s", str(script)]
    done = subprocess.run(
        [program, "-t1", f"-c{CONNECTIONS}", "-d1s", *scripted, url],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    used = server.cpu_seconds() - before
    rate = re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)
    total = re.search(r"(\d+) requests in", done.stdout)
    wrong = re.search(r"Non-2xx.*|Socket errors.*", done.stdout)
    if rate is None or total is None or wrong is not None or int(total[1]) == 0:
        raise RuntimeError(f"{server.app}: wrk says: {done.stdout}{done.stderr}")
    return float(rate[1]), used / int(total[1]) * 1e6
