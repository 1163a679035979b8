"""The apps that are compared, by name: each answers GET /page with the same page of about 1 KB, or with nothing.

Thread rule: made once in a server's process.
Refuses to know: which server runs them, and what is measured.

A bare app sends, from a constant, byte for byte what our middleware sends for a hit: nothing that a server can run
does less. An empty handler returns nothing from a route of the framework. The others are configured as their own
manuals advise, in memory.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Callable
from typing import Any

PATH = "/page"
TTL = 300
LOAD = 0.61  # s: seven search queries of the reference dashboard, one after the other
QUERIES = 7
PAGE = {f"figure_{n}": {"name": f"orders of region {n}", "value": 1234.5 * n, "change": -0.5} for n in range(14)}
TEXT = json.dumps(PAGE, separators=(",", ":"))
MAX_AGE = {"Cache-Control": f"max-age={TTL}"}
QUICK_FROM = 100
KEEP = 4_096  # entries of the reference page: each query string is a page of its own


def wsgi_environ(path: str = PATH) -> dict[str, Any]:
    """What gunicorn makes of wrk's request."""
    import io
    import sys

    return {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": path,
        "QUERY_STRING": "",
        "RAW_URI": path,
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "8000",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "SERVER_SOFTWARE": "gunicorn",
        "HTTP_HOST": "127.0.0.1:8000",
        "REMOTE_ADDR": "127.0.0.1",
        "REMOTE_PORT": "40000",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": False,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }


def asgi_scope(path: str = PATH) -> dict[str, Any]:
    """What uvicorn makes of wrk's request."""
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "server": ("127.0.0.1", 8000),
        "client": ("127.0.0.1", 40000),
        "scheme": "http",
        "method": "GET",
        "root_path": "",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [(b"host", b"127.0.0.1:8000")],
        "state": {},
    }


async def receive() -> dict[str, Any]:
    return {"type": "http.request", "body": b"", "more_body": False}


def wsgi_bare() -> Any:
    app = flask_middleware()
    started: list[Any] = []
    for _ in range(2):
        started.clear()
        body = app(wsgi_environ(), lambda status, headers, exc_info=None: started.extend((status, headers)))
    status, headers = started
    whole = b"".join(body)

    def bare(environ: Any, start_response: Any) -> tuple[bytes]:
        start_response(status, headers)
        return (whole,)

    return bare


def flask_empty() -> Any:
    from flask import Flask

    app = Flask("benchmark")

    @app.get(PATH)
    def page() -> str:
        return ""

    return app


def flask_caching() -> Any:
    from flask import Flask, Response

    from flask_caching import Cache

    app = Flask("benchmark")
    cache = Cache(app, config={"CACHE_TYPE": "SimpleCache", "CACHE_DEFAULT_TIMEOUT": TTL})

    @app.get(PATH)
    @cache.cached(timeout=TTL)
    def page() -> Response:
        return Response(TEXT, mimetype="application/json")

    return app


def flask_decorator() -> Any:
    from flask import Flask, Response

    from stillwarm import Cache
    from stillwarm.flask import Stillwarm

    app = Flask("benchmark")
    warm = Stillwarm(Cache(), app)

    @app.get(PATH)
    @warm.cache_response(ttl=TTL)
    def page() -> Response:
        return Response(TEXT, mimetype="application/json")

    return app


def flask_middleware() -> Any:
    from flask import Flask, Response

    from stillwarm import Cache
    from stillwarm.flask import ResponseCache

    app = Flask("benchmark")

    @app.get(PATH)
    def page() -> Response:
        return Response(TEXT, mimetype="application/json", headers=MAX_AGE)

    return ResponseCache(app.wsgi_app, Cache())


def flask_dashboard() -> Any:
    """The reference page: 610 ms. /loads says how often it was made."""
    from flask import Flask, Response, jsonify

    from stillwarm import Cache
    from stillwarm.flask import Stillwarm

    app = Flask("benchmark")
    warm = Stillwarm(Cache(max_entries=KEEP), app)
    loads = [0]

    @app.get(PATH)
    @warm.cache_response("dashboard")
    def page() -> Response:
        loads[0] += 1
        start = time.perf_counter()
        for _ in range(QUERIES):
            time.sleep(LOAD / QUERIES)
        return jsonify([time.perf_counter() - start, PAGE])

    @app.get("/loads")
    def count() -> str:
        return str(loads[0])

    return app


def flask_tiered(**limits: Any) -> Any:
    """The reference page over the Redis of $BENCHMARK_URL; `?n=` from QUICK_FROM on is made at once.

    /figures: loads, and hits from Redis.
    """
    from flask import Flask, Response, jsonify, request

    from stillwarm import Cache
    from stillwarm.flask import Stillwarm

    app = Flask("benchmark")
    cache = Cache(os.environ["BENCHMARK_URL"], namespace="bench_flask", **limits)
    warm = Stillwarm(cache, app)
    loads = [0]

    @app.get(PATH)
    @warm.cache_response("dashboard")
    def page() -> Response:
        loads[0] += 1
        if request.args.get("n", 0, type=int) < QUICK_FROM:
            for _ in range(QUERIES):
                time.sleep(LOAD / QUERIES)
        return jsonify(PAGE)

    @app.get("/figures")
    def figures() -> Response:
        return jsonify(loads=loads[0], remote_hits=cache.stats().remote_hits)

    return app


def flask_tiered_only() -> Any:
    """With room for one entry in memory: who asks for pages in turn has each from Redis."""
    return flask_tiered(max_entries=1)


def flask_caching_redis() -> Any:
    from flask import Flask, Response

    from flask_caching import Cache

    app = Flask("benchmark")
    config = {"CACHE_TYPE": "RedisCache", "CACHE_REDIS_URL": os.environ["BENCHMARK_URL"], "CACHE_DEFAULT_TIMEOUT": TTL}
    cache = Cache(app, config=config)

    @app.get(PATH)
    @cache.cached(timeout=TTL, query_string=True)
    def page() -> Response:
        return Response(TEXT, mimetype="application/json")

    return app


def asgi_bare() -> Any:
    app = fastapi_middleware()
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    async def twice() -> None:
        for _ in range(2):
            sent.clear()
            await app(asgi_scope(), receive, send)

    asyncio.run(twice())
    start, rest = sent

    async def bare(scope: Any, receive: Any, send: Any) -> None:
        await send(start)
        await send(rest)

    return bare


def fastapi_empty() -> Any:
    from fastapi import FastAPI

    app = FastAPI()

    @app.get(PATH)
    async def page() -> None:
        return None

    return app


def fastapi_cache() -> Any:
    from collections.abc import AsyncIterator
    from contextlib import asynccontextmanager

    from fastapi import FastAPI
    from fastapi_cache import FastAPICache
    from fastapi_cache.backends.inmemory import InMemoryBackend
    from fastapi_cache.decorator import cache

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        FastAPICache.init(InMemoryBackend())
        yield

    app = FastAPI(lifespan=lifespan)

    @app.get(PATH)
    @cache(expire=TTL)
    async def page() -> dict[str, Any]:
        return PAGE

    return app


def fastapi_decorator() -> Any:
    from fastapi import FastAPI

    from stillwarm import Cache
    from stillwarm.fastapi import Stillwarm

    app = FastAPI()
    warm = Stillwarm(Cache())

    @app.get(PATH)
    @warm.cache_response(ttl=TTL)
    async def page() -> dict[str, Any]:
        return PAGE

    return app


def fastapi_middleware() -> Any:
    from fastapi import FastAPI
    from fastapi.responses import JSONResponse

    from stillwarm import Cache
    from stillwarm.fastapi import ResponseCache

    app = FastAPI()

    @app.get(PATH)
    async def page() -> JSONResponse:
        return JSONResponse(PAGE, headers=MAX_AGE)

    return ResponseCache(app, cache=Cache())


def fastapi_dashboard() -> Any:
    """The reference page: 610 ms. /loads says how often it was made."""
    from fastapi import FastAPI

    from stillwarm import Cache
    from stillwarm.fastapi import Stillwarm

    app = FastAPI()
    warm = Stillwarm(Cache(max_entries=KEEP))
    loads = [0]

    @app.get(PATH)
    @warm.cache_response("dashboard")
    async def page() -> list[Any]:
        loads[0] += 1
        start = time.perf_counter()
        for _ in range(QUERIES):
            await asyncio.sleep(LOAD / QUERIES)
        return [time.perf_counter() - start, PAGE]

    @app.get("/loads")
    async def count() -> int:
        return loads[0]

    return app


def fastapi_tiered(**limits: Any) -> Any:
    """`flask_tiered` on FastAPI."""
    from fastapi import FastAPI

    from stillwarm import Cache
    from stillwarm.fastapi import Stillwarm

    app = FastAPI()
    cache = Cache(os.environ["BENCHMARK_URL"], namespace="bench_fastapi", **limits)
    warm = Stillwarm(cache)
    loads = [0]

    @app.get(PATH)
    @warm.cache_response("dashboard")
    async def page(n: int = 0) -> dict[str, Any]:
        loads[0] += 1
        if n < QUICK_FROM:
            for _ in range(QUERIES):
                await asyncio.sleep(LOAD / QUERIES)
        return PAGE

    @app.get("/figures")
    async def figures() -> dict[str, int]:
        return {"loads": loads[0], "remote_hits": cache.stats().remote_hits}

    return app


def fastapi_tiered_only() -> Any:
    return fastapi_tiered(max_entries=1)


MAKERS: dict[str, Callable[[], Any]] = {
    make.__name__: make
    for make in (
        *(wsgi_bare, flask_empty, flask_caching, flask_decorator, flask_middleware, flask_dashboard),
        *(flask_tiered, flask_tiered_only, flask_caching_redis, fastapi_tiered, fastapi_tiered_only),
        *(asgi_bare, fastapi_empty, fastapi_cache, fastapi_decorator, fastapi_middleware, fastapi_dashboard),
    )
}
