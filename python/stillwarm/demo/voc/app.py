"""The app: which window is current, which is next, which come in 48 hours. The windows change rarely, and the database
hiccups; whoever asks notices neither.

Thread rule: `create_app` on any thread; requests on one loop, the webhook and the metrics in threads.
Refuses to know: how values are read and kept (`windows`, `service`), and who drives it.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final, Literal

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.concurrency import run_in_threadpool

from stillwarm import Cache, State
from stillwarm.demo.refusing import refused
from stillwarm.demo.voc import models
from stillwarm.demo.voc.service import CURRENT, STATUS, TTL, Given, Service, UnavailableError
from stillwarm.web._router import endpoint_of, router
from stillwarm.web.management import Management

PREFIX: Final = "/api/lunar/voc"
EVERY: Final = "15s"  # how often it is looked whether a value is about to expire
_AGAIN: Final = 5  # s, for Retry-After
_X_CACHE: Final = {
    "X-Cache": {
        "description": "HIT: the database was not asked. STALE: the value is over its time, because the database does "
        "not answer. MISS: the rest.",
        "schema": {"type": "string", "enum": ["HIT", "STALE", "MISS"]},
    },
    "Age": {"description": "Seconds since it was read.", "schema": {"type": "integer"}},
}
_AWAY: Final[dict[int | str, dict[str, Any]]] = {
    503: {
        "model": models.Problem,
        "description": "The database does not answer.",
        "headers": {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}}},
    }
}
_READ: Final[dict[int | str, dict[str, Any]]] = {200: {"description": "The answer.", "headers": _X_CACHE}, **_AWAY}
_WRITE: Final[dict[int | str, dict[str, Any]]] = {
    422: {"model": models.InvalidBody, "description": "A field is not accepted."},
    **_AWAY,
}
_UP: Final = (State.HEALTHY, State.WARMING)


def create_app(
    service: Service, *, webhook_secret: str | None = None, token: str | None = None, prefetch: bool = True
) -> FastAPI:
    """The app. Its lifespan warms both caches up and prefetches them; neither delays the start.

    Args:
        service: what it answers with; its windows are closed with the lifespan, its cache is the caller's.
        webhook_secret: "whsec_..." of the data provider, who may then invalidate; None: there is no webhook.
        token: opens the operator's page, under /api/cache; None: there is none.
        prefetch: False: values are read when somebody asks.

    Raises:
        ConfigError: an argument is not accepted.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        cache = service.cache
        if not prefetch:
            try:
                yield
            finally:
                await service.windows.close()
            return
        warming = asyncio.ensure_future(cache.awarm([service.status, service.current]))
        schedule = await cache.aprefetch([service.status, service.current], every=EVERY)
        try:
            yield
        finally:
            schedule.stop()
            warming.cancel()
            await asyncio.gather(warming, return_exceptions=True)
            await service.windows.close()

    app = FastAPI(
        title="Void of course",
        version="1",
        summary="Which window is current, which is next, and which come in 48 hours.",
        docs_url=None,  # these pages load scripts from elsewhere
        redoc_url=None,
        lifespan=lifespan,
    )
    app.state.service = service
    app.include_router(_windows(service))
    app.include_router(_operating(service.cache))
    management = Management(service.cache, auth=token or secrets.token_urlsafe(32), webhook_secret=webhook_secret)
    if webhook_secret is not None:
        app.add_api_route(
            f"{PREFIX}/webhook",
            endpoint_of(management, "/webhook"),
            methods=["POST"],
            summary="The data provider invalidates: signed as Standard Webhooks are",
            tags=["windows"],
            response_class=Response,
        )
    if token is not None:
        app.include_router(router(management))
    app.add_exception_handler(UnavailableError, _unavailable)
    app.add_exception_handler(RequestValidationError, refused)
    return app


def _windows(service: Service) -> APIRouter:
    routes = APIRouter(prefix=PREFIX, tags=["windows"])

    @routes.get("/status", summary="Current, next and upcoming windows", responses=_READ)
    async def status(response: Response) -> models.StatusBody:
        """Three queries at once, cached for 2 minutes."""
        given = _labelled(await service.get_status(), response)
        return models.StatusBody(**_body(given, "current", "next", "upcoming"))

    @routes.get("/current", summary="The current window", responses=_READ)
    async def current(response: Response) -> models.CurrentBody:
        """Cached for 1 minute."""
        given = _labelled(await service.get_current(), response)
        return models.CurrentBody(**_body(given, "current"))

    @routes.post("", summary="Save a window", responses=_WRITE)
    async def save(window: models.NewWindow) -> models.SavedBody:
        """One row for each start_at and end_at; what is there gets the new source. Both caches then forget."""
        done = await service.save(window.start_at, window.end_at, window.source)
        return models.SavedBody(outcome=done.outcome, id=done.row.get("id"))

    @routes.get("/cache_stats", summary="What is cached", response_description="The figures.")
    async def cache_stats() -> models.StatsBody:
        """As this process sees it."""
        return models.StatsBody(status=_figures(service, STATUS), current=_figures(service, CURRENT))

    return routes


def _operating(cache: Cache) -> APIRouter:
    routes = APIRouter(tags=["operation"])

    @routes.get("/api/v1/health", summary="Whether the service can do its work", response_description="The state.")
    async def health() -> models.HealthBody:
        """200 also when degraded: the service answers what is cached."""
        state = cache.state
        database: Literal["none", "up", "down"] = "none" if cache._tier is None else "up" if state in _UP else "down"
        healthy = database != "down" and state in _UP
        return models.HealthBody(status="healthy" if healthy else "degraded", database=database, cache_state=state)

    @routes.get("/metrics", summary="Figures for Prometheus", response_class=Response)
    async def metrics(request: Request) -> Response:
        """Text of Prometheus, or OpenMetrics for whoever asks for it."""
        from stillwarm.metrics import render

        body, kind = await run_in_threadpool(render, cache, request.headers.get("accept", ""))
        return Response(body, headers={"Content-Type": kind})

    return routes


def _labelled(given: Given, response: Response) -> Given:
    response.headers["X-Cache"] = given.label
    response.headers["Age"] = str(int(given.age))
    return given


def _body(given: Given, *names: str) -> dict[str, Any]:
    fields = {name: given.value[name] for name in names}
    return {**fields, "cache_hit": given.cache_hit, "age_seconds": round(given.age, 3), "stale": given.stale}


def _figures(service: Service, name: str) -> models.CacheFigures:
    call = service.status if name == STATUS else service.current
    there = call.cache_contains()
    age = service.age_of(name)
    return models.CacheFigures(has_data=there, age_seconds=None if age is None else round(age, 3), ttl=TTL[name])


def _unavailable(_: Any, error: Exception) -> Response:
    problem = models.Problem(type="about:blank", title="Service Unavailable", status=503, detail=str(error))
    headers = {"Retry-After": str(_AGAIN)}
    return Response(problem.model_dump_json(), 503, headers, media_type="application/problem+json")


__all__ = ["EVERY", "PREFIX", "create_app"]
