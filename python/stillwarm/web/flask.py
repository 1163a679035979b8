"""Stillwarm for Flask: `cache_response` for views, management endpoints, and the WSGI middleware.

Thread rule: any thread.
Refuses to know: the rules of HTTP (cpp/core/http), and how a request waits for a load (serve).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal, TypeVar

try:
    from flask import Flask, current_app, request
    from werkzeug.exceptions import HTTPException
    from werkzeug.wrappers import Response as FlaskResponse
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"stillwarm.flask needs Flask: pip install 'stillwarm[flask]' ({error})", name=error.name
    ) from None

from stillwarm import _core, _load
from stillwarm._cache import Cache
from stillwarm._durations import shown
from stillwarm._off import passing
from stillwarm.errors import ConfigError
from stillwarm.web.facts import Response, Unstored, header
from stillwarm.web.front import Front
from stillwarm.web.options import CacheType, define_types
from stillwarm.web.plan import Plan
from stillwarm.web.serve import Ask, in_pool, passed, refresh_ended, respond
from stillwarm.web.viewing import Watched, close, finished, marked
from stillwarm.web.wsgi import REFRESH, ResponseCache, bare

if TYPE_CHECKING:
    from flask import Blueprint
    from typing_extensions import Unpack

    from stillwarm._types import Duration
    from stillwarm._warm import Progress, Warmed
    from stillwarm.web.options import RouteOptions

V = TypeVar("V", bound=Callable[..., Any])

_SETTINGS = ("url", "namespace", "max_bytes", "max_entries", "ttl", "load_threads", "enabled")
_SHARED = frozenset({404, 405, 410})  # the others below 500 judge this request's fields, rights or rate
_WRITES = frozenset({"POST", "PUT", "PATCH", "DELETE"})


class Stillwarm:
    """The Flask extension: `warm = Stillwarm(cache)`, or `warm = Stillwarm()` and `warm.init_app(app)`.

    Args:
        cache: what the routes use; None: each app gets a cache of its own from its STILLWARM_* settings.
        app: calls `init_app(app)` at once.
    """

    def __init__(self, cache: Cache | None = None, app: Flask | None = None) -> None:
        if cache is not None and not isinstance(cache, Cache):
            raise ConfigError(f"cache={shown(cache)}: accepted: a stillwarm.Cache, or None")
        self._cache = cache
        self._plans: list[Plan] = []
        self._fronts: list[Front] = []
        self._idempotent: list[Any] = []  # the rules of its routes
        if cache is not None:
            define_types(cache)
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask, cache: Cache | None = None) -> None:
        """Ties the app to a cache: the one given here or to Stillwarm, or one made from `app.config`.

        STILLWARM_NAMESPACE, STILLWARM_MAX_BYTES, STILLWARM_MAX_ENTRIES, STILLWARM_TTL, STILLWARM_LOAD_THREADS,
        STILLWARM_ENABLED and STILLWARM_URL are the arguments of `Cache`.

        Raises:
            ConfigError: names the setting, its value and what is accepted; or the route whose type is unknown.
        """
        cache = cache or self._cache
        if cache is None:
            given = {
                name: app.config[f"STILLWARM_{name.upper()}"]
                for name in _SETTINGS
                if f"STILLWARM_{name.upper()}" in app.config
            }
            if not isinstance(given.get("enabled", True), bool):
                raise ConfigError(f"STILLWARM_ENABLED={shown(given['enabled'])}: accepted: True or False")
            try:
                cache = Cache(**given)
            except ConfigError as error:
                name = str(error).partition("=")[0]
                raise ConfigError(f"STILLWARM_{name.upper()}: {error}" if name in given else str(error)) from None
        define_types(cache)
        app.extensions.setdefault("stillwarm", {})[self] = cache
        for plan in self._plans:
            plan.front(cache, self._keep(app))
        if self._idempotent:
            from stillwarm.web.idempotent import store_for

            for rules in self._idempotent:
                store_for(cache, rules)

    def cache(self) -> Cache:
        """The cache of the app that runs now; outside of one, that of Stillwarm.

        Raises:
            RuntimeError: there is none: `init_app` was not called for this app.
        """
        app = current_app._get_current_object() if current_app else None  # type: ignore[attr-defined]
        found = app.extensions.get("stillwarm", {}).get(self) if app is not None else None
        cache = found or self._cache
        if cache is None:
            raise RuntimeError("this app has no cache: call warm.init_app(app), or give Stillwarm a Cache")
        return cache

    def _keep(self, app: Any) -> list[Front]:
        """Who keeps the fronts of an app: the app, if its cache is its own."""
        found = app.extensions.get("stillwarm", {}).get(self)
        if found is None or found is self._cache:
            return self._fronts
        return app.extensions.setdefault("stillwarm.fronts", [])  # type: ignore[no-any-return]

    def cache_response(self, type: str | None = None, /, **options: Unpack[RouteOptions]) -> Callable[[V], V]:
        """Keeps what a view answers: `@warm.cache_response("dashboard", ttl=300)`, below `@app.get(...)`.

        Only GET is kept (HEAD is answered from it), never 4xx and 5xx (see `absent_ttl`), nothing with `no-store`,
        `private` or Set-Cookie. A request with a cookie or with credentials goes straight to the view, unless the route
        says what its answer depends on: `per_user=` or `vary_on=`.

        Args:
            type: name of a type (`cache.define`, `CacheType`) whose settings hold where none is given here.

        Keyword Args:
            ttl: how long an answer is fresh; a duration.
            key: template or callable of the view's arguments, in place of host, path and query.
            per_user: a callable that returns who asks, or True: whoever has this Authorization and Cookie header.
            vary_on: request headers ("accept-language", "cookie:theme") that the answer depends on, or a callable;
                `()` says that it depends on no cookie.
            unless: a callable of the response: what satisfies it is not stored.
            tags: for `cache.invalidate(tag=)`: a list, or a callable of the view's arguments.
            invalidates: what a successful write through this view makes invalid: tags, or {"type": ...}, {"key": ...},
                {"pattern": ...}; a list, or a callable of the view's arguments.
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

        def decorate(view: V) -> V:
            if hasattr(view, "uncached"):
                raise ConfigError(f"cache_response of {view.__qualname__}: it is cached already")
            name = f"{getattr(view, '__module__', '?')}.{getattr(view, '__qualname__', '?')}"
            plan = Plan(name, type, dict(options), asgi=False)
            plan.check_key(view)
            self._plans.append(plan)
            if self._cache is not None:
                plan.front(self._cache, self._fronts)

            @functools.wraps(view)
            def cached_view(*args: Any, **kwargs: Any) -> Any:
                return answer(self, plan, view, args, kwargs)

            cached_view.uncached = view  # type: ignore[attr-defined]
            return cached_view  # type: ignore[return-value]

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
            per_user: a callable that returns who asks; None: whoever has this Authorization header. Give
                it where that header changes from login to login, or users are known by a cookie: a key is its user's.
            max_body: of a request; a larger one is refused (413).
            max_response: of an answer; a larger one is given and not kept: its repetition gets 409, and does not run.
            lease: for how long a key is taken at a time; it is renewed while the request runs. 3 s at least.
            transaction: the handler's own connection or session, by a callable or by the name of the
                handler's argument: of psycopg, psycopg2 or SQLAlchemy. Key, effects and answer are committed together
                by this decorator: exactly once, and after a crash the key is free at once.
            on_crash: without transaction=, after a crash, an exception or a 5xx: "unknown" keeps the key (409, or the
                same error) until it expires; "rerun" lets the next request run: at least once.
            header: the name of the header field.

        Raises:
            ConfigError: names the option, its value and what is accepted.
        """
        from stillwarm.web._idempotent_flask import respond
        from stillwarm.web.idempotent import checked, store_for

        def decorate(view: V) -> V:
            name = f"{getattr(view, '__module__', '?')}.{getattr(view, '__qualname__', '?')}"
            rules = checked(name, required, ttl, per_user, max_body, max_response, lease, transaction, on_crash, header)
            self._idempotent.append(rules)
            if self._cache is not None:
                store_for(self._cache, rules)

            @functools.wraps(view)
            def idempotent_view(*args: Any, **kwargs: Any) -> Any:
                return respond(self.cache(), rules, view, args, kwargs)

            return idempotent_view  # type: ignore[return-value]

        return decorate

    def release_idempotent(self, route: str, key: str, *, user: object = None, authorization: str = "") -> bool:
        """Frees a key whose outcome is unknown, after somebody has looked what it did; the next request runs.

        Args:
            route: method and path of the route, as declared: "POST /orders/<int:number>".
            key: as the client sent it, without quotes.
            user: what `per_user=` returned for the client; without it `authorization`, its header.

        Returns:
            False: there is no such key, or it is running, or done.

        Raises:
            TierError: the database does not answer.
        """
        from stillwarm.web._unknown import release

        return release(self.cache(), route, key, user, authorization)

    def warm_up(
        self,
        app: Flask,
        urls: Iterable[str],
        *,
        headers: Mapping[str, str] | None = None,
        at_once: int = 4,
        progress: Progress | None = None,
    ) -> Warmed:
        """Asks the app for each URL, in this process, so that what its routes keep is there before the first client.

        `cache.state` is WARMING meanwhile. It returns when it is done: call it on a thread of its own, or before
        the app is served. An error is logged and counted; see `Cache.warm`.

        Args:
            urls: as clients will ask for them, with scheme and host; or paths, where the app has a SERVER_NAME.
            headers: for each request, such as an Accept-Language or a customer's Authorization.
            at_once: how many requests at a time.
            progress: called with how many are done, and of how many, after each.

        Raises:
            ConfigError: a URL has no host.
        """
        from stillwarm.web.warming import warm_up

        with app.app_context():
            cache = self.cache()
        return warm_up(cache, app, urls, headers, at_once, progress)

    def management(self, *, auth: Any = None, **options: Any) -> Blueprint:
        """The management endpoints and the operator's page as a Blueprint; see `stillwarm.web.management`."""
        from stillwarm.web._blueprint import blueprint
        from stillwarm.web.management import Management

        name = options.pop("name", None)  # of the Blueprint
        return blueprint(Management(self._cache or self.cache(), auth=auth, **options), name=name)


def answer(warm: Stillwarm, plan: Plan, view: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """One request to a decorated view."""
    cache = warm.cache()
    front = plan.found(cache) or plan.front(cache, warm._keep(current_app))
    environ = request.environ
    own_key = plan.own_key(kwargs)
    user = plan.per_user() if callable(plan.per_user) else None
    part = plan.part(front, environ, user, plan.vary_call() if plan.vary_call is not None else None)
    refresh: Any = environ.get(REFRESH)
    ours = refresh is not None and refresh[0] is front
    found: Any = front.core.look(environ, own_key, part, not ours)
    if type(found) is tuple:
        return finished(found)

    made: list[FlaskResponse] = []

    def fetch(_: list[tuple[str, str]]) -> Response | Unstored:
        response = fetched(plan, front, view, args, kwargs)
        if isinstance(response, Response):
            made.append(response.live)
        return response

    ask = Ask(front, environ, found, fetch)
    ask.tag_names = plan.tag_names(kwargs)
    ask.result = lambda response: response.live
    ask.looked = (own_key, part)
    if ours:
        if plan.is_key_of(refresh[1].key, found):
            ask.question.key = refresh[1].key
            _load.run_detached(ask, refresh[1])
            close(made)
        return FlaskResponse(status=204)
    app = current_app._get_current_object()  # type: ignore[attr-defined]
    ask.again = lambda ask, flight: again(app, ask, flight)
    kind, what = respond(front, ask)
    if kind != "response":
        close(made)  # its bytes are stored, or a stale answer stands in: nobody sends it
    if kind == "answer":
        return finished(what)
    if kind == "response":
        response, marks = what
        live = response.live or finished((response.line, list(response.headers), response.body))
        return marked(live, marks)
    with passing(ask):
        response = current_app.make_response(current_app.ensure_sync(view)(*args, **kwargs))
    if what == "off":
        return response
    if request.method in _WRITES and response.status_code < 400:
        _core.invalidate_key(front.cache, front.scope, found.primary, False)
        for intent in plan.invalidates(**kwargs):
            front.cache.invalidate(**intent)
    return marked(response, passed(front, found, what))


def fetched(
    plan: Plan, front: Any, view: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Response | Unstored:
    """Calls the view. What only concerns who asked is not shared."""
    watched = Watched()
    try:
        response = current_app.make_response(current_app.ensure_sync(view)(*args, **kwargs))
    except HTTPException as error:
        code = error.code or (500 if error.response is None else error.response.status_code)
        if code in (404, 410) and front.rules.absent_ttl:
            response = current_app.make_response(current_app.handle_user_exception(error))
        elif code < 500:  # says what is so: no failure, which would be counted, and a stale answer stand in for
            return Unstored(None, code in _SHARED, "status", error)
        else:
            raise
    finally:
        personal = watched.personal(plan)
    headers = list(response.headers)
    if personal:
        headers.append(("Set-Cookie", "the session's, which Flask is about to write"))
    size = header(headers, "content-length")
    if response.is_streamed or response.direct_passthrough or (size.isdecimal() and int(size) > front.rules.max_body):
        why = "too-large" if size.isdecimal() and int(size) > front.rules.max_body else "streaming"
        return Response(response.status_code, response.status, headers, None, why, response)
    body = response.get_data()
    if len(body) > front.rules.max_body:
        return Response(response.status_code, response.status, headers, None, "too-large", response)
    return Response(response.status_code, response.status, headers, body, "", response)


def again(app: Any, ask: Ask, flight: Any) -> None:
    """A background refresh: a new request through the whole app, from a copy of this one (rule H6)."""
    environ = bare(ask.raw)
    environ[REFRESH] = (ask.front, flight)

    def run() -> None:
        try:
            body = app.wsgi_app(environ, lambda status, headers, exc_info=None: lambda data: None)
            try:
                for _ in body:
                    pass
            finally:
                getattr(body, "close", lambda: None)()
        except Exception as error:
            ask.front.warn("refresh failed", repr(error))
        finally:
            refresh_ended(flight)

    in_pool(ask, flight, run)


__all__ = ["CacheType", "ResponseCache", "Stillwarm"]
