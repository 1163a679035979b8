"""The management endpoints as a FastAPI router, each with its own route, so that the OpenAPI schema is complete.

Thread rule: routes run on the event loop; what reads every entry, and a plain `auth` callable, in a thread.
Refuses to know: what is asked and answered (`management`), and to check a body with FastAPI: it would be read and
parsed before its size and its sender were known.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final

from fastapi import APIRouter, Request, Response, Security
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse
from fastapi.security import HTTPBearer
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from stillwarm.web import _schema as schema
from stillwarm.web._exchange import BODY_LIMIT, METHODS, Asked, too_large
from stillwarm.web.management import MOST_KEYS, SLOW

if TYPE_CHECKING:
    from stillwarm.web.management import Management

    Endpoint = Callable[[Request], Coroutine[Any, Any, Response]]

_ERRORS: Final = {
    400: "A field is not accepted.",
    404: "There is no such type, entry or unknown key.",
    409: "This webhook-id was delivered already.",
    413: f"The body is over {BODY_LIMIT} bytes.",
    415: "The body is not application/json.",
    501: "prometheus_client is not installed.",
    503: "DOWN, too many deliveries, or the database is away.",
}
_CHANGE: Final = (400, 413, 415)
_SAME_SITE: Final = schema.parameter("X-Stillwarm", "header", required=True, enum=["1"])


def router(management: Management) -> APIRouter:
    """A router for `app.include_router`, with the prefix of `management`."""
    access = management.access
    routes = APIRouter(prefix=management.prefix, tags=["cache"])
    bearer = [Security(HTTPBearer(auto_error=False, scheme_name="stillwarm"))] if access.by_token else []
    refusals = {401: "The token is missing or wrong."} if access.by_token else {403: "auth does not allow it."}

    def add(
        method: str,
        path: str,
        summary: str,
        model: Any,
        errors: tuple[int, ...] = (),
        extra: dict[str, Any] | None = None,
        response_class: type[Response] = JSONResponse,
    ) -> None:
        signed = path == "/webhook"
        texts = {**({403: "The signature is not accepted."} if signed else refusals)}
        texts.update({status: _ERRORS[status] for status in errors})
        extra = dict(extra or {})
        if method == "POST" and not signed and not access.by_token:
            extra["parameters"] = [*extra.get("parameters", []), _SAME_SITE]
        routes.add_api_route(
            path,
            endpoint_of(management, path),
            methods=[method],
            summary=summary,
            operation_id="stillwarm_" + path.partition("{")[0].strip("/").replace("-", "_").replace("/", "_")
            if management.prefix == "/api/cache"
            else None,
            response_model=model,
            response_class=response_class,
            responses={status: {"model": schema.ErrorBody, "description": text} for status, text in texts.items()},
            openapi_extra=extra,
            dependencies=[] if signed else bearer,
        )

    count, many = (
        schema.parameter("n", "query", required=False, type="integer", minimum=1, maximum=MOST_KEYS, default=default)
        for default in (20, 100)
    )
    named = schema.parameter("type", "path", required=True)
    add("GET", "/stats", "Counts in all and by type", schema.StatsBody)
    add("GET", "/health", "State and active alerts", schema.HealthBody, (503,))
    add("GET", "/alerts", "The alerts", schema.AlertsBody)
    add("GET", "/hot-keys", "The most used entries", schema.HotKeysBody, (400,), {"parameters": [count]})
    add("GET", "/metrics", "Figures for Prometheus", None, (501,), response_class=PlainTextResponse)
    if management.shows_values:
        key = schema.parameter("key", "query", required=True)
        add("GET", "/entry", "What is stored", schema.EntryBody, (400, 404), {"parameters": [key]})
    of_type = {**schema.body_schema(), "parameters": [named]}
    add("POST", "/invalidate/{type:path}", "All of a type", schema.DoneBody, (*_CHANGE, 404), of_type)
    for name in ("key", "tag", "pattern"):
        add("POST", f"/invalidate-{name}", f"By {name}", schema.DoneBody, _CHANGE, schema.body_schema(name))
    add("POST", "/clear-all", "Everything in this cache", schema.DoneBody, _CHANGE, schema.body_schema())
    keys = "Idempotency keys whose outcome is unknown"
    add("GET", "/idempotency-unknown", keys, schema.UnknownBody, (400, 503), {"parameters": [many]})
    frees, errors = "Frees one: its next request runs the handler", (*_CHANGE, 404, 503)
    add("POST", "/idempotency-release", frees, schema.ReleasedBody, errors, schema.record_schema())
    if management.has_webhook:
        errors = (*_CHANGE, 409, 503)
        add("POST", "/webhook", "A signed delivery", schema.DeliveredBody, errors, schema.delivery_schema())
    page = endpoint_of(management, "/")
    routes.add_api_route(
        "/", page, methods=["GET"], response_class=HTMLResponse, response_model=None, include_in_schema=False
    )
    # Last: every other path and method, so that the answers are of one kind.
    routes.add_api_route(
        "/{path:path}", endpoint_of(management, None), methods=[*METHODS], response_model=None, include_in_schema=False
    )
    return routes


def endpoint_of(management: Management, template: str | None) -> Endpoint:
    """The route of one path of `management`; None: of the path that is asked for."""
    access = management.access

    async def endpoint(request: Request) -> Response:
        if template is None:
            path = f"/{request.path_params['path']}"
        else:
            path = template.replace("{type:path}", request.path_params.get("type", ""))
        headers = {key.lower(): value for key, value in request.headers.items()}
        allowed = False
        if path != "/webhook" and not access.by_token:
            allowed = await access.aallows(request, run_in_threadpool)
        body = await _body(request, headers)
        asked = Asked(request.method, path, request.scope["query_string"].decode("latin-1"), headers, body, allowed)
        if path in SLOW:
            answer = await run_in_threadpool(management.handle, asked)
        else:
            answer = management.handle(asked)
        response = Response(b"" if request.method == "HEAD" else answer.body, answer.status)
        for name, value in answer.headers:
            response.headers[name] = value
        response.headers["Content-Length"] = str(len(answer.body))
        return response

    return endpoint


async def _body(request: Request, headers: dict[str, str]) -> bytes:
    """At most about one chunk over the limit; whoever says that there is more is not read at all."""
    body = bytearray()
    if request.method == "POST" and not too_large(headers):
        try:
            async for chunk in request.stream():
                body += chunk
                if len(body) > BODY_LIMIT:
                    break
        except ClientDisconnect:
            return b"{"  # half a body is not none: it is refused
    return bytes(body)
