"""Stillwarm for FastAPI and Starlette: `cache_response` for routes, management endpoints, and the ASGI middleware.

Dependencies run for every request, so that whoever may not see an answer does not get it from the cache either; they
are no part of the key. A hit sends stored bytes: nothing is validated or encoded again.

Thread rule: each request on its own loop; any number of loops.
Refuses to know: the rules of HTTP (cpp/core/http), and how a request waits for a load (aserve).
"""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any, Literal, TypeVar

try:
    from starlette.exceptions import HTTPException
    from starlette.responses import Response as StarletteResponse
    from starlette.responses import StreamingResponse
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"stillwarm.fastapi needs FastAPI: pip install 'stillwarm[fastapi]' ({error})", name=error.name
    ) from None

from stillwarm import _aload, _core
from stillwarm._cache import Cache
from stillwarm._default import default_cache
from stillwarm._durations import shown
from stillwarm._off import passing
from stillwarm.errors import ConfigError
from stillwarm.web.aserve import AsyncAsk, respond
from stillwarm.web.asgi import REFRESH, ResponseCache, bare, no_body, spawn
from stillwarm.web.facts import Response, Unstored, header, line_of, with_marks
from stillwarm.web.options import CacheType, define_types
from stillwarm.web.plan import Plan
from stillwarm.web.rendering import Asked, Call, Watched, called, handled, rendered
from stillwarm.web.serve import passed

if TYPE_CHECKING:
    from fastapi import APIRouter
    from typing_extensions import Unpack

    from stillwarm._types import Duration
    from stillwarm.web.options import RouteOptions

V = TypeVar("V", bound=Callable[..., Any])

_SHARED = frozenset({404, 405, 410})  # the others below 500 judge this request's fields, rights or rate
_OF_CACHES = frozenset({b"cache-control", b"vary"})
_WRITES = frozenset({"POST", "PUT", "PATCH", "DELETE"})


class Stillwarm:
    """Caches the routes of a FastAPI or Starlette app: `warm = Stillwarm(cache)`.

    Args:
        cache: what the routes use; None: the process's own (`stillwarm.default_cache`, from the environment).
        app: calls `init_app(app)` at once.
    """

    def __init__(self, cache: Cache | None = None, app: Any = None) -> None:
        if cache is not None and not isinstance(cache, Cache):
            raise ConfigError(f"cache={shown(cache)}: accepted: a stillwarm.Cache, or None")
        self._cache = default_cache() if cache is None else cache
        define_types(self._cache)
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Any) -> None:
        """Makes the cache known as `app.state.stillwarm`. Decorated routes work without it."""
        app.state.stillwarm = self._cache

    async def cache(self) -> Cache:
        """The cache, as a dependency: `cache: Annotated[Cache, Depends(warm.cache)]`."""
        return self._cache

    @contextlib.asynccontextmanager
    async def lifespan(self, app: Any) -> AsyncIterator[None]:
        """`FastAPI(lifespan=warm.lifespan)`: closes the cache when the app ends."""
        self.init_app(app)
        try:
            yield
        finally:
            self._cache.close()

    def cache_response(self, type: str | None = None, /, **options: Unpack[RouteOptions]) -> Callable[[V], V]:
        """Keeps what a route answers: `@warm.cache_response("dashboard", ttl=300)`, below `@app.get(...)`.

        Only GET is kept (HEAD is answered from it), never 4xx and 5xx (see `absent_ttl`), nothing with `no-store`,
        `private` or Set-Cookie. A request with a cookie or with credentials goes straight to the route, unless it says
        what its answer depends on: `per_user=` or `vary_on=`.

        Args:
            type: name of a type (`cache.define`, `CacheType`) whose settings hold where none is given here.

        Keyword Args:
            ttl: how long an answer is fresh; a duration.
            key: template or callable of the path's and query's arguments, in place of host, path and query.
            per_user: a callable of the Request that returns who asks (it may be a coroutine function), or True: whoever
                has this Authorization and Cookie header.
            vary_on: request headers ("accept-language", "cookie:theme") that the answer depends on, or a callable of
                the Request; `()` says that it depends on no cookie.
            unless: a callable of the response: what satisfies it is not stored.
            tags: for `cache.invalidate(tag=)`: a list, or a callable of the route's arguments.
            invalidates: what a successful write through this route makes invalid: tags, or {"type": ...}, {"key": ...},
                {"pattern": ...}; a list, or a callable of the route's arguments.
            stale_while_revalidate: as of a cached function; so are stale_if_error, early_refresh, jitter, classify and
                stale_on.
            absent_ttl: how long a 404 or 410 is kept; not given: it is not.
            max_body: of an answer, 8 MB; a larger one is not stored.
            ignore_cookies: names ("*" at the end) of cookies that say nothing of the answer.
            debug_token: 16 characters or more; a request that sends it in `Stillwarm-Debug` sees the key.

        Raises:
            ConfigError: an option does not exist or its value is not accepted, the type is unknown, there is no ttl.
        """
        if callable(type):
            raise ConfigError("@warm.cache_response needs parentheses: @warm.cache_response(ttl=60)")

        def decorate(route: V) -> V:
            return decorated(self._cache, route, type, dict(options))  # type: ignore[return-value]

        return decorate

    def idempotent(
        self,
        *,
        required: bool = True,
        ttl: Duration = "24h",
        per_user: Callable[..., Any] | None = None,
        max_body: int | str = "1MB",
        max_response: int | str = "1MB",
        lease: Duration = "30s",
        transaction: str | Callable[..., Any] | None = None,
        on_crash: Literal["unknown", "rerun"] = "unknown",
        header: str = "Idempotency-Key",
    ) -> Callable[[V], V]:
        """Runs a write once per idempotency key: `@warm.idempotent()`, below `@app.post(...)`.

        A client sends `Idempotency-Key: "..."`, a new one for each write and the same one when it repeats it. The first
        request runs. A repetition gets the same answer, marked `Idempotency-Replayed: true`; 409 while the first one
        runs (with Retry-After) or when nobody knows what became of it; 422 if the request is another one. 400: the key
        is missing or no key. 503: it cannot be recorded, and nothing was done; or, with transaction=, the connection
        ended in the commit: a repetition tells. The draft is draft-ietf-httpapi-idempotency-key-header.

        Args:
            required: whether a request without a key is refused (400); else it simply runs.
            ttl: how long an answer is kept; a duration, 1 s at least.
            per_user: a callable of the Request that returns who asks (it may be a coroutine function); None: whoever
                has this Authorization header. Give it where that header changes from login to login, or users are known
                by a cookie: a key is its user's.
            max_body: of a request; a larger one is refused (413).
            max_response: of an answer; a larger one is given and not kept: its repetition gets 409, and does not run.
            lease: for how long a key is taken at a time; it is renewed while the request runs. 3 s at least.
            transaction: the handler's own connection or session, by a callable of the Request or by the name of the
                handler's argument: of psycopg, psycopg2 or SQLAlchemy. Key, effects and answer are committed together
                by this decorator: exactly once, and after a crash the key is free at once.
            on_crash: without transaction=, after a crash, an exception or a 5xx: "unknown" keeps the key (409, or the
                same error) until it expires; "rerun" lets the next request run: at least once.
            header: the name of the header field.

        Raises:
            ConfigError: names the option, its value and what is accepted.
        """
        from stillwarm.web import _idempotent_fastapi
        from stillwarm.web.idempotent import checked, store_for

        def decorate(route: V) -> V:
            name = f"{getattr(route, '__module__', '?')}.{getattr(route, '__qualname__', '?')}"
            rules = checked(name, required, ttl, per_user, max_body, max_response, lease, transaction, on_crash, header)
            store_for(self._cache, rules)
            return _idempotent_fastapi.decorated(self._cache, route, rules)  # type: ignore[return-value]

        return decorate

    def release_idempotent(self, route: str, key: str, *, user: object = None, authorization: str = "") -> bool:
        """Frees a key whose outcome is unknown, after somebody has looked what it did; the next request runs.

        Args:
            route: method and path of the route, as declared: "POST /orders/{number}".
            key: as the client sent it, without quotes.
            user: what `per_user=` returned for the client; without it `authorization`, its header.

        Returns:
            False: there is no such key, or it is running, or done.

        Raises:
            TierError: the database does not answer.
        """
        from stillwarm.web._unknown import release

        return release(self._cache, route, key, user, authorization)

    def management(self, *, auth: Any = None, **options: Any) -> APIRouter:
        """The management endpoints and the operator's page as a router; see `stillwarm.web.management`."""
        from stillwarm.web._router import router
        from stillwarm.web.management import Management

        return router(Management(self._cache, auth=auth, **options))


def decorated(cache: Cache, route: Callable[..., Any], type: Any, options: dict[str, Any]) -> Callable[..., Any]:
    name = f"{getattr(route, '__module__', '?')}.{getattr(route, '__qualname__', '?')}"
    if inspect.isasyncgenfunction(route) or inspect.isgeneratorfunction(route):
        raise ConfigError(f"cache_response of {name}: a route that streams (yield) cannot be cached")
    if hasattr(route, "uncached"):
        raise ConfigError(f"cache_response of {name}: it is cached already")
    plan = Plan(name, type, options, asgi=True)
    front = plan.front(cache, [])  # kept by the route itself
    asked = Asked(route, "stillwarm")

    @functools.wraps(route)
    async def cached_route(*args: Any, **kwargs: Any) -> Any:
        call = asked.call(args, kwargs)
        return await (called(call) if call.request is None else answer(plan, front, call))

    cached_route.__signature__ = asked.signature  # type: ignore[attr-defined]
    cached_route.uncached = route  # type: ignore[attr-defined]
    return cached_route


async def answer(plan: Plan, front: Any, call: Call) -> Any:
    """One request to a decorated route."""
    request = call.request
    scope: Any = request.scope
    own_key = plan.own_key(call.arguments(), call.kwargs)
    user = plan.per_user(request) if callable(plan.per_user) else None
    if inspect.isawaitable(user):
        user = await user
    part = plan.part(front, scope, user, plan.vary_call(request) if plan.vary_call is not None else None)
    refresh = scope.get(REFRESH)
    ours = refresh is not None and refresh[0] is front
    found: Any = front.core.look(scope, own_key, part, not ours)
    before = list(call.injected.raw_headers) if call.injected is not None else []  # of dependencies: this request's own
    if type(found) is tuple:
        return finished(found, before)

    background: Any = None  # tasks of the route's own response, whose bytes are sent in another one

    async def fetch(_: list[tuple[str, str]]) -> Response | Unstored:
        nonlocal background
        response = await fetched(front, call, before)
        if isinstance(response, Response):
            background = response.live.background
        return response

    ask = AsyncAsk(front, scope, found, fetch)
    ask.tag_names = plan.tag_names(call.arguments())
    ask.result = lambda response: response.live
    ask.looked = (own_key, part)
    if ours:
        if plan.is_key_of(refresh[1].key, found):
            ask.question.key = refresh[1].key
            await _aload.run_load(ask, refresh[1])
        return StarletteResponse(status_code=204, background=background)
    ask.again = again
    kind, what = await respond(front, ask)
    if kind == "answer":
        sent = finished(what, before)
        sent.background = background
        return sent
    if kind == "response":
        response, marks = what
        stored = {"status": response.status, "headers": response.headers}, {"body": response.body}
        return marked(response.live or finished(stored, before), marks)
    with passing(ask):
        value = await called(call)
    if what == "off":
        return value
    response = await rendered(call, value, before)
    response.raw_headers = [*response.raw_headers, *before]
    if request.method in _WRITES and response.status_code < 400:
        _core.invalidate_key(front.cache, front.scope, found.primary, False)
        for intent in plan.invalidates(**call.arguments()):
            front.cache.invalidate(**intent)
    return marked(response, passed(front, found, what))


def finished(found: tuple[Any, ...], before: list[tuple[bytes, bytes]]) -> StarletteResponse:
    """A response from what the core made. Its headers are the stored ones: Starlette adds none of its own."""
    start, rest = found
    response = StarletteResponse(status_code=start["status"])
    response.body = rest["body"]
    response.raw_headers = [*start["headers"], *(pair for pair in before if pair not in start["headers"])]
    return response


def marked(response: StarletteResponse, marks: list[tuple[bytes, bytes]]) -> StarletteResponse:
    response.raw_headers = with_marks(response.raw_headers, marks)
    return response


async def fetched(front: Any, call: Call, before: list[tuple[bytes, bytes]]) -> Response | Unstored:
    """Calls the route. What only concerns who asked is not shared."""
    watched = Watched(call.request)
    try:
        value = await called(call)
        response = await rendered(call, value, before)
    except HTTPException as error:
        if error.status_code in (404, 410) and front.rules.absent_ttl:
            response = await handled(call.request, error)
        elif (
            error.status_code < 500
        ):  # says what is so: no failure, which would be counted, and a stale answer stand in
            return Unstored(None, error.status_code in _SHARED, "status", error)
        else:
            raise
    finally:
        personal = watched.personal(front.rules.per_user)
    headers = [(bytes(key), bytes(value)) for key, value in response.raw_headers]
    headers += [pair for pair in before if pair[0].lower() in _OF_CACHES]  # a dependency may forbid it
    if personal:
        headers.append((b"set-cookie", b"the session's, which its middleware is about to write"))
    size = header(headers, "content-length")
    body = None if isinstance(response, StreamingResponse) else getattr(response, "body", None)
    why = (
        ""
        if isinstance(body, (bytes, memoryview)) and hasattr(response, "render") and not _is_file(response)
        else "streaming"
    )
    if (size.isdecimal() and int(size) > front.rules.max_body) or (not why and len(body or b"") > front.rules.max_body):
        why = "too-large"
    if before:
        response.raw_headers = [*response.raw_headers, *before]
    line = line_of(response.status_code)
    return Response(response.status_code, line, headers, None if why else bytes(body or b""), why, response)


def _is_file(response: StarletteResponse) -> bool:
    return hasattr(response, "path") and hasattr(response, "stat_result")  # FileResponse has a body it does not send


def again(ask: Any, flight: Any) -> None:
    """A background refresh: a new request through the whole app, from a copy of this one (rule H6)."""
    app = ask.raw["app"]
    scope = bare(ask.raw)
    scope[REFRESH] = (ask.front, flight)

    async def nobody(message: Any) -> None:
        """Nobody waits for this answer."""

    async def run() -> None:
        try:
            await app(scope, no_body(), nobody)
        except Exception as error:
            ask.front.warn("refresh failed", repr(error))

    spawn(run(), flight)


__all__ = ["CacheType", "ResponseCache", "Stillwarm"]
