"""The same apps called in this process, without a server: what the code itself costs.

Thread rule: one thread, one event loop. Refuses to know: what the apps do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

from apps import MAKERS, asgi_scope, receive, wsgi_environ
from python.measure import Row, Section, async_loop, compared, interleaved, loop
from throughput import FASTAPI, FLASK, SHORT

LEAST = 3.0  # times the speed of the empty Flask handler
EMPTY = ("empty Flask handler", "empty FastAPI handler")


def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> None:
    return None


def wsgi_turn(app: Any, environ: dict[str, Any]) -> None:
    """One request as a server handles it; `environ` is copied, for an app may change its own."""
    body = app(environ.copy(), start_response)
    for _ in body:
        pass
    if hasattr(body, "close"):
        body.close()


async def send(message: dict[str, Any]) -> None:
    return None


async def asgi_turn(app: Any, scope: dict[str, Any]) -> None:
    await app(scope.copy(), receive, send)


def wsgi_nothing(environ: dict[str, Any], start_response: Any) -> tuple[bytes, ...]:
    return ()


async def asgi_nothing(scope: Any, receive: Any, send: Any) -> None:
    return None


def sections(quick: bool) -> Iterator[Section]:
    rounds, seconds = (3, 0.005) if quick else (21, 0.03)
    yield flask(rounds, seconds, quick)
    yield fastapi(rounds, seconds, quick)


def chosen(names: dict[str, str], quick: bool) -> dict[str, Any]:
    return {name: MAKERS[app]() for name, app in names.items() if not quick or name.startswith((*SHORT, *EMPTY))}


def flask(rounds: int, seconds: float, quick: bool) -> Section:
    section = Section("WSGI, called in process", "ns")
    environ = wsgi_environ()

    def timed(app: Any) -> Any:
        for _ in range(2):
            wsgi_turn(app, environ)
        return loop("turn(app, environ)", seconds, turn=wsgi_turn, app=app, environ=environ)

    apps = {name: timed(app) for name, app in chosen(FLASK.apps, quick).items()}
    samples = interleaved(apps, rounds, timed(wsgi_nothing))
    ours, rival = "stillwarm WSGI middleware", EMPTY[0]
    compared(section, samples, ours)
    ratio = 1 / samples.ratio(ours, rival)
    section.rows.append(
        Row(
            "in process: WSGI middleware hit",
            f"{samples.median(ours) / 1e3:.2f} us",
            f"{rival} {samples.median(rival) / 1e3:.1f} us",
            f"{ratio:.3g} x as fast",
            f">= {LEAST:g} x",
            ratio >= LEAST,
        )
    )
    return section


def fastapi(rounds: int, seconds: float, quick: bool) -> Section:
    section = Section("ASGI, called in process", "ns")
    events = asyncio.new_event_loop()
    scope = asgi_scope()

    async def warm(app: Any) -> None:
        for _ in range(2):
            await asgi_turn(app, scope)

    def timed(app: Any) -> Any:
        events.run_until_complete(warm(app))
        run = events.run_until_complete
        return async_loop(run, "await turn(app, scope)", seconds, turn=asgi_turn, app=app, scope=scope)

    names = {name: app for name, app in FASTAPI.apps.items() if app != "fastapi_cache"}  # it needs a lifespan
    try:
        apps = {name: timed(app) for name, app in chosen(names, quick).items()}
        compared(section, interleaved(apps, rounds, timed(asgi_nothing)), "stillwarm ASGI middleware")
    finally:
        events.run_until_complete(events.shutdown_asyncgens())
        events.close()
    return section
