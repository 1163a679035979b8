"""The app: a FastAPI service that finds products and scores them, in front of a slow API that is paid by the token.

Where the cache is, is the business of the `Cache` that comes in: with a database it is another URL, and nothing here
changes.

Thread rule: `create_app` on any thread, in any number of apps; requests on their loops, the figures in threads.
Refuses to know: how values are found and kept (`service`), and who drives it.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from fastapi import APIRouter, FastAPI, Header, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse

from stillwarm import Cache
from stillwarm.demo.discovery import models
from stillwarm.demo.discovery.figures import Figures
from stillwarm.demo.discovery.history import History, history_of
from stillwarm.demo.discovery.page import page_routes
from stillwarm.demo.discovery.service import Found, Search, Service
from stillwarm.demo.discovery.source import Source, SourceError
from stillwarm.demo.discovery.tables import define_types
from stillwarm.demo.refusing import refused
from stillwarm.fastapi import Stillwarm

if TYPE_CHECKING:
    from stillwarm._types import Duration

_UserId = Annotated[str | None, Header(max_length=36, description="Who searches; goes into the search history.")]
_From = Annotated[
    Literal["frontend", "api", "manual"], Header(description="What searches; goes into the search history.")
]
_X_CACHE: Final = {
    "X-Cache": {
        "description": "HIT: the product API was not asked. STALE: a value is over its time, because the API does not "
        "answer. MISS: the rest.",
        "schema": {"type": "string", "enum": ["HIT", "STALE", "MISS"]},
    }
}
_RETRY: Final = {"Retry-After": {"description": "Seconds, where the API said so.", "schema": {"type": "integer"}}}
_SEARCH: Final[dict[int | str, dict[str, Any]]] = {
    200: {"description": "The answer.", "headers": _X_CACHE},
    422: {"model": models.InvalidBody, "description": "A field is not accepted."},
    503: {
        "model": models.ErrorBody,
        "description": "Nothing is cached, and the product API does not answer or has no tokens left.",
        "headers": _RETRY,
    },
}


def create_app(
    source: Source,
    cache: Cache,
    *,
    key_configured: bool = True,
    empty_ttl: Duration = "10m",
    history: History | None = None,
    alerts: Mapping[str, Any] | None = None,
    token: str | None = None,
) -> FastAPI:
    """The app, and everything that it has to be given.

    Args:
        source: its client of the product API.
        cache: where answers are kept. The types `discovery` and `scoring` are defined on it.
        key_configured: whether there is a key of the product API, for /health.
        empty_ttl: how long a search that found nothing is kept; 0: not at all.
        history: where searches are recorded; None: in the cache's database, in memory if it has none.
        alerts: thresholds other than the usual ones, see stillwarm.web.alerts.
        token: opens the operator's page, under /api/cache; None: there is none.

    Raises:
        ConfigError: an argument is not accepted.
    """
    define_types(cache, empty_ttl=empty_ttl)
    service = Service(source, cache, "memory" if cache._tier is None else "memory and PostgreSQL")
    history = history_of(cache) if history is None else history
    figures = Figures(service, history, alerts)
    app = FastAPI(
        title="Product discovery",
        version="1",
        summary="Finds products that fit, and says what they are worth to a reseller.",
        docs_url=None,  # these pages load scripts from elsewhere
        redoc_url=None,
    )
    app.state.service = service
    app.state.history = history
    app.include_router(_products(service, history))
    app.include_router(_operating(figures, key_configured))
    app.include_router(page_routes())
    if token is not None:
        app.include_router(Stillwarm(cache).management(auth=token))
    app.add_exception_handler(SourceError, _unavailable)
    app.add_exception_handler(RequestValidationError, refused)
    return app


def _products(service: Service, history: History) -> APIRouter:
    routes = APIRouter(prefix="/api/v1/products", tags=["products"])

    @routes.post("/discover", summary="Ids of products that fit", responses=_SEARCH)
    async def discover(
        filters: models.Filters, response: Response, x_search_source: _From = "api", x_user_id: _UserId = None
    ) -> models.DiscoverBody:
        """Cached for 24 h by the filters."""
        found = await service.discover(Search(**filters.model_dump()))
        _record(history, "discovery", filters, len(found.asins), x_search_source, x_user_id)
        response.headers["X-Cache"] = _label(found)
        return models.DiscoverBody(
            asins=found.asins,
            count=len(found.asins),
            cache_hit=found.cache_hit,
            metadata=models.Metadata(filters_applied=filters, timestamp=_now(), source=found.origin),
        )

    @routes.post("/discover-with-scoring", summary="Products that fit, scored", responses=_SEARCH)
    async def discover_with_scoring(
        filters: models.ScoringFilters, response: Response, x_search_source: _From = "api", x_user_id: _UserId = None
    ) -> models.ScoredBody:
        """Ids are cached for 24 h by the filters, each score for 6 h. What is missing is loaded in batches."""
        only = models.Filters(**filters.model_dump(exclude={"max_results"}))
        found = await service.discover_and_score(Search(**only.model_dump()), filters.max_results)
        _record(history, "discovery", only, len(found.scores), x_search_source, x_user_id)
        response.headers["X-Cache"] = _label(found)
        return models.ScoredBody(
            products=[models.ScoredProduct.model_validate(one) for one in found.scores],
            total_count=len(found.scores),
            cache_hit=found.cache_hit,
            metadata=models.Metadata(filters_applied=only, timestamp=_now(), source=found.origin),
        )

    @routes.post("/score", summary="Scores of a list of ids", responses=_SEARCH)
    async def score(
        wanted: models.ScoreRequest, response: Response, x_search_source: _From = "api", x_user_id: _UserId = None
    ) -> models.ScoresBody:
        """Scores that are cached are reused, the others are loaded in batches of 20. Unknown ids are not kept."""
        found = await service.score(wanted.asins, wanted.domain)
        _record(history, "scoring", wanted, len(found.scores), x_search_source, x_user_id)
        response.headers["X-Cache"] = _label(found)
        known = {one.asin for one in found.scores}
        return models.ScoresBody(
            products=[models.ScoredProduct.model_validate(one) for one in found.scores],
            total_count=len(found.scores),
            not_found=[asin for asin in found.asins if asin not in known],
            cache_hit=found.cache_hit,
            metadata=models.ScoreMetadata(filters_applied=wanted, timestamp=_now(), source=found.origin),
        )

    return routes


def _operating(figures: Figures, key_configured: bool) -> APIRouter:
    routes = APIRouter(prefix="/api/v1", tags=["operation"])

    @routes.get("/health", summary="Whether the service can do its work", response_description="The state.")
    def health() -> models.HealthBody:
        """200 also when degraded: the service answers what is cached."""
        return figures.health(key_configured)

    @routes.get("/cache/stats", summary="Figures of both caches", response_description="The figures.")
    def stats() -> models.StatsBody:
        """Reads every entry: for people and scrapers, not for every request.

        With a database the entries, their use and the history are those of all processes.
        """
        return figures.stats()

    return routes


def _record(history: History, kind: str, filters: models.Body, count: int, source: str, user: str | None) -> None:
    columns = {"user_id": user, "search_type": kind, "filters": filters.model_dump(), "results_count": count}
    history.record(**columns, source=source)


def _label(found: Found) -> str:
    return "STALE" if found.stale else "HIT" if found.cache_hit else "MISS"


def _now() -> datetime:
    return datetime.now(timezone.utc)


def _unavailable(_: Any, error: Exception) -> JSONResponse:
    wait = error.retry_after if isinstance(error, SourceError) else None
    headers = {} if wait is None else {"Retry-After": str(wait)}
    return JSONResponse({"detail": str(error), "retry_after": wait}, 503, headers)


__all__ = ["create_app"]
