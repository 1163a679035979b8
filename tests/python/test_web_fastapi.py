"""`cache_response` in FastAPI and Starlette: every kind of route, what FastAPI makes of its value, and what is refused.

Thread rule: one thread; requests run on loops of their own.
Refuses to know: privacy (test_web_privacy, test_web_users), refreshes, crowds.
"""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any

import fastapi
import fastapi.responses
import pydantic
import pytest
import starlette.applications
import starlette.responses
import starlette.routing
import uvloop

from fronts import Answer, ask_asgi
from stillwarm import Cache, ConfigError
from stillwarm.fastapi import CacheType, ResponseCache, Stillwarm

Calls = list[Any]


class Item(pydantic.BaseModel):
    name: str
    price: float = 1.5


class Public(pydantic.BaseModel):
    name: str


@pytest.fixture(name="warm")
def new_warm(warm_cache: Cache) -> Stillwarm:
    return Stillwarm(warm_cache)


@pytest.fixture(name="app")
def new_app() -> fastapi.FastAPI:
    app = fastapi.FastAPI()
    app.state.calls = []
    return app


def ask(app: Any, path: str = "/", **request: Any) -> Answer:
    return asyncio.run(ask_asgi(app, path, **request))


def bodies(app: Any, *paths: str, **request: Any) -> list[str]:
    return [ask(app, path, **request).body.decode() for path in paths]


# ----------------------------------------------------------------------------------------------------- kinds of routes


@pytest.mark.parametrize("kind", ["async", "plain"])
def test_web_fastapi_routes_of_both_kinds_are_cached(app: fastapi.FastAPI, warm: Stillwarm, kind: str) -> None:
    calls: Calls = app.state.calls

    async def route(number: int, q: str = "-") -> dict[str, Any]:
        calls.append((number, q))
        return {"number": number, "q": q}

    def plain(number: int, q: str = "-") -> dict[str, Any]:
        calls.append((number, q))
        return {"number": number, "q": q}

    app.get("/{number}")(warm.cache_response(ttl=60)(route if kind == "async" else plain))
    got = bodies(app, "/1", "/1", "/2", "/1?q=x", "/1?q=x")
    assert got[0] == got[1] == '{"number":1,"q":"-"}'
    assert got[3] == got[4] == '{"number":1,"q":"x"}'
    assert calls == [(1, "-"), (2, "-"), (1, "x")]
    assert ask(app, "/word").status == 422


def test_web_fastapi_a_hit_is_what_the_response_model_made(app: fastapi.FastAPI, warm: Stillwarm) -> None:
    dumped: Calls = []

    class Secretive(Public):
        @pydantic.model_serializer(mode="wrap")
        def count(self, handler: Any) -> Any:
            dumped.append(1)
            return handler(self)

    @warm.cache_response(ttl=60)
    async def route() -> Any:
        return Item(name="x", price=2.5)

    app.add_api_route("/", route, response_model=Secretive, status_code=203)
    answers = [ask(app) for _ in range(3)]
    assert [(a.status, a.body, a["content-type"]) for a in answers] == [(203, b'{"name":"x"}', "application/json")] * 3
    assert [a.cache for a in answers] == ["MISS", "HIT", "HIT"]
    assert len(dumped) == 1  # a hit validates and encodes nothing


def test_web_fastapi_a_value_that_the_model_refuses_is_an_error_as_without(
    app: fastapi.FastAPI, warm: Stillwarm
) -> None:
    @app.get("/", response_model=Public)
    @warm.cache_response(ttl=60)
    async def route() -> Any:
        return {"wrong": 1}

    assert [ask(app).status for _ in range(2)] == [500, 500]


@pytest.mark.parametrize("options", [{"response_model_exclude_unset": True}, {"response_model_include": {"name"}}])
def test_web_fastapi_response_model_options_hold(app: fastapi.FastAPI, warm: Stillwarm, options: Any) -> None:
    @app.get("/", response_model=Item, **options)
    @warm.cache_response(ttl=60)
    async def route() -> Any:
        return Item(name="x")

    assert bodies(app, "/", "/") == ['{"name":"x"}'] * 2


def test_web_fastapi_response_classes_and_responses(app: fastapi.FastAPI, warm: Stillwarm) -> None:
    calls: Calls = app.state.calls

    @app.get("/text", response_class=fastapi.responses.PlainTextResponse)
    @warm.cache_response(ttl=60)
    async def text() -> str:
        calls.append(1)
        return "text"

    @app.get("/own")
    @warm.cache_response(ttl=60)
    async def own() -> fastapi.Response:
        calls.append(1)
        return fastapi.Response(b"\x00", 203, {"X-Own": "1"}, "image/png")

    @app.get("/set")
    @warm.cache_response(ttl=60)
    async def set_(response: fastapi.Response) -> int:
        calls.append(1)
        response.status_code = 203
        response.headers["X-Own"] = "1"
        return 1

    @app.get("/none", status_code=204)
    @warm.cache_response(ttl=60)
    async def none() -> None:
        calls.append(1)

    expected = {
        "/text": (200, b"text", "text/plain; charset=utf-8", None),
        "/own": (203, b"\x00", "image/png", "1"),
        "/set": (203, b"1", "application/json", "1"),
        "/none": (204, b"", "application/json", None),
    }
    for path, (status, body, kind, header) in expected.items():
        for label in ("MISS", "HIT"):
            answer = ask(app, path)
            assert (answer.status, answer.body, answer["content-type"]) == (status, body, kind), path
            assert (answer["x-own"], answer.cache) == (header, label), path
    assert len(calls) == 4


def test_web_fastapi_streams_and_files_pass_through(app: fastapi.FastAPI, warm: Stillwarm, tmp_path: Any) -> None:
    (tmp_path / "f.txt").write_bytes(b"file")

    async def parts() -> AsyncIterator[bytes]:
        yield b"a"
        yield b"b"

    @app.get("/stream")
    @warm.cache_response(ttl=60)
    async def stream() -> fastapi.responses.StreamingResponse:
        return fastapi.responses.StreamingResponse(parts())

    @app.get("/file")
    @warm.cache_response(ttl=60)
    async def file() -> fastapi.responses.FileResponse:
        return fastapi.responses.FileResponse(tmp_path / "f.txt")

    for path, body in (("/stream", b"ab"), ("/file", b"file")):
        for _ in range(2):
            answer = ask(app, path)
            assert (answer.body, answer.cache) == (body, "BYPASS")


def test_web_fastapi_routes_that_yield_are_refused(warm: Stillwarm) -> None:
    async def a() -> AsyncIterator[int]:
        yield 1

    def b() -> Iterator[int]:
        yield 1

    for route in (a, b):
        with pytest.raises(ConfigError, match="yield"):
            warm.cache_response(ttl=60)(route)


def test_web_fastapi_background_tasks_run_once_for_each_load(app: fastapi.FastAPI, warm: Stillwarm) -> None:
    calls: Calls = app.state.calls

    @app.get("/injected")
    @warm.cache_response(ttl=60)
    async def injected(tasks: fastapi.BackgroundTasks) -> int:
        tasks.add_task(calls.append, "injected")
        return 1

    @app.get("/own")
    @warm.cache_response(ttl=60)
    async def own() -> fastapi.Response:
        task = starlette.background.BackgroundTask(calls.append, "own")
        return fastapi.Response(b"x", background=task)

    for path in ("/injected", "/own"):
        assert [ask(app, path).cache for _ in range(2)] == ["MISS", "HIT"]
    assert calls == ["injected", "own"]


def test_web_fastapi_included_routers_and_mounted_apps(app: fastapi.FastAPI, warm: Stillwarm, warm_clock: Any) -> None:
    calls: Calls = app.state.calls
    options = {"ttl": 10, "stale_while_revalidate": 60}
    router, sub = fastapi.APIRouter(), fastapi.FastAPI()

    @router.get("/x")
    @sub.get("/x")
    @warm.cache_response(**options)
    async def route(request: fastapi.Request) -> str:
        calls.append(request.url.path)
        return request.url.path

    app.include_router(router, prefix="/one")
    app.include_router(router, prefix="/two")
    app.mount("/sub", sub)
    paths = ["/one/x", "/two/x", "/sub/x"]
    assert bodies(app, *paths, *paths) == [f'"{path}"' for path in paths] * 2
    assert calls == paths
    warm_clock.move(15)

    async def stale() -> None:
        for path in paths:
            assert (await ask_asgi(app, path)).cache == "STALE"
        while len(calls) < 6 or warm.__dict__["_cache"].stats().flights:
            await asyncio.sleep(0)

    asyncio.run(asyncio.wait_for(stale(), 20))
    assert sorted(calls[3:]) == sorted(paths)  # each refreshed by its own path
    assert [ask(app, path).cache for path in paths] == ["HIT"] * 3


def test_web_fastapi_starlette_routes_are_cached(warm: Stillwarm) -> None:
    calls: Calls = []

    @warm.cache_response(ttl=60)
    async def route(request: starlette.requests.Request) -> starlette.responses.Response:
        calls.append(1)
        return starlette.responses.PlainTextResponse(f"{request.path_params['a']} {len(calls)}")

    app = starlette.applications.Starlette(routes=[starlette.routing.Route("/{a}", route)])
    assert bodies(app, "/1", "/1", "/2") == ["1 1", "1 1", "2 2"]
    assert ask(app, "/1", method="HEAD").body == b""


def test_web_fastapi_a_route_can_be_called_as_the_function_it_is(warm: Stillwarm) -> None:
    @warm.cache_response(ttl=60)
    async def route(number: int) -> int:
        return number + 1

    assert asyncio.run(route(1)) == 2
    assert asyncio.run(route.uncached(2)) == 3  # type: ignore[attr-defined]


# ------------------------------------------------------------------------------------------------ the app and its loop


def test_web_fastapi_the_cache_is_a_dependency_and_lifespan_closes_it() -> None:
    cache = Cache()
    warm = Stillwarm(cache)
    app = fastapi.FastAPI(lifespan=warm.lifespan)

    async def route(found: Annotated[Cache, fastapi.Depends(warm.cache)]) -> bool:
        return found is cache

    route.__annotations__["found"] = Annotated[Cache, fastapi.Depends(warm.cache)]
    app.get("/")(route)

    async def run() -> None:
        async with app.router.lifespan_context(app):
            assert app.state.stillwarm is cache
            assert (await ask_asgi(app)).body == b"true"

    asyncio.run(run())
    assert cache._pool._closed


def test_web_fastapi_websockets_go_through_the_middleware(app: fastapi.FastAPI, warm_cache: Cache) -> None:
    @app.websocket("/ws")
    async def socket(websocket: fastapi.WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text("hello")
        await websocket.close()

    sent: list[str] = []
    wrapped = ResponseCache(app, cache=warm_cache, ttl=60)

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message["type"])

    scope = {"type": "websocket", "path": "/ws", "headers": [], "query_string": b"", "subprotocols": [], "scheme": "ws"}
    asyncio.run(wrapped(scope, receive, send))
    assert sent == ["websocket.accept", "websocket.send", "websocket.close"]


def test_web_fastapi_works_on_uvloop_with_refreshes(app: fastapi.FastAPI, warm: Stillwarm, warm_clock: Any) -> None:
    calls: Calls = app.state.calls

    @app.get("/")
    @warm.cache_response(CacheType.USER, ttl=10, stale_while_revalidate=60, jitter=0)
    async def route() -> int:
        calls.append(1)
        await asyncio.sleep(0)
        return len(calls)

    async def run() -> None:
        crowd = await asyncio.gather(*(ask_asgi(app) for _ in range(20)))
        assert {answer.body for answer in crowd} == {b"1"}
        warm_clock.move(15)
        assert (await ask_asgi(app)).cache == "STALE"
        while (await ask_asgi(app)).body != b"2":
            await asyncio.sleep(0)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of uvloop's about the loop policy
        loop = uvloop.new_event_loop()
    try:
        loop.run_until_complete(asyncio.wait_for(run(), 20))
    finally:
        loop.close()
    assert len(calls) == 2
