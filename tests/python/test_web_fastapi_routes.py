"""`cache_response` in FastAPI: parameters, the schema, what a route may declare, and what is refused.

Thread rule: one thread; requests run on loops of their own.
Refuses to know: privacy (test_web_privacy, test_web_users), refreshes, crowds.
"""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import fastapi
import fastapi.responses
import pydantic
import pytest

from fronts import Answer, ask_asgi
from stillwarm import Cache, ConfigError
from stillwarm.fastapi import Stillwarm

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


def described(app: fastapi.FastAPI, decorate: Any) -> None:
    async def item(
        number: Annotated[int, fastapi.Path(ge=1)],
        request: fastapi.Request,
        tasks: fastapi.BackgroundTasks,
        q: str | None = None,
        agent: Annotated[str | None, fastapi.Header()] = None,
    ) -> Any:
        """What it says."""

    def create(item: Item, response: fastapi.Response) -> Public:
        response.headers["X-Own"] = "1"
        return Public(name=item.name)

    async def nothing(q: str = None) -> None:  # type: ignore[assignment]  # noqa: RUF013
        ...

    async def unknown(response: fastapi.Response, request: fastapi.Request) -> Unknown:  # type: ignore[name-defined]  # noqa: F821
        response.headers["X-Own"] = "1"

    app.get("/items/{number}", response_model=Item, summary="An item", tags=["items"])(decorate(item))
    app.post("/items")(decorate(create))
    app.get("/nothing", status_code=204)(decorate(nothing))
    app.get("/unknown", response_model=None)(decorate(unknown))


def test_web_fastapi_routes_the_schema_is_that_of_the_route_without_a_cache(warm: Stillwarm) -> None:
    plain, cached = fastapi.FastAPI(), fastapi.FastAPI()
    described(plain, lambda route: route)
    described(cached, warm.cache_response(ttl=60, invalidates=[]))
    assert cached.openapi() == plain.openapi()
    json = {"content-type": "application/json"}
    assert ask(cached, "/items", method="POST", body=b'{"name":"x"}', headers=json)["x-own"] == "1"
    for app in (plain, cached):
        assert ask(app, "/nothing").status == 204
        assert (ask(app, "/unknown").status, ask(app, "/unknown")["x-own"]) == (200, "1")


def test_web_fastapi_routes_bodies_are_read_and_writes_invalidate(app: fastapi.FastAPI, warm: Stillwarm) -> None:
    calls: Calls = app.state.calls

    @app.get("/items/{name}")
    @warm.cache_response(ttl=60, tags=lambda name: [f"item:{name}"])
    async def get(name: str) -> int:
        calls.append(name)
        return len(calls)

    @app.post("/items/{name}", status_code=201)
    @warm.cache_response(invalidates=lambda name: [f"item:{name}"])
    async def post(name: str, item: Item) -> Public:
        if item.price < 0:
            raise fastapi.HTTPException(400)
        return Public(name=item.name)

    json = {"content-type": "application/json"}
    assert bodies(app, "/items/a", "/items/b", "/items/a") == ["1", "2", "1"]
    assert ask(app, "/items/a", method="POST", body=b'{"name":"x","price":-1}', headers=json).status == 400
    assert bodies(app, "/items/a") == ["1"]
    answer = ask(app, "/items/a", method="POST", body=b'{"name":"x"}', headers=json)
    assert (answer.status, answer.body) == (201, b'{"name":"x"}')
    assert bodies(app, "/items/a", "/items/b") == ["3", "2"]
    assert ask(app, "/items/a", method="POST", body=b"{}", headers=json).status == 422


def test_web_fastapi_routes_keys_users_and_variants_from_the_request(app: fastapi.FastAPI, warm: Stillwarm) -> None:
    calls: Calls = app.state.calls

    async def user(request: fastapi.Request) -> str | None:
        return request.headers.get("x-user")

    def route(kind: str) -> Any:
        async def endpoint(a: str, b: str) -> str:
            calls.append((a, b))
            return f"{kind} {len(calls)}"

        return endpoint

    app.get("/k/{a}/{b}")(warm.cache_response("product", key="{a}:{b}")(route("key")))
    app.get("/u/{a}/{b}")(warm.cache_response(ttl=60, per_user=user)(route("user")))
    app.get("/v/{a}/{b}")(warm.cache_response(ttl=60, vary_on=lambda r: r.headers.get("x-v"))(route("vary")))
    paths = ["/k/x:y/z", "/k/x/y:z", "/k/x~y/z", "/k/x%257Ey/z", "/k/%C3%A9/z", "/k/%25C3%25A9/z"]
    assert len(set(bodies(app, *paths))) == len(paths)
    assert ask(app, paths[0] + "?utm=1", host="other.test").cache == "HIT"
    for path, header in (("/u/1/2", "x-user"), ("/v/1/2", "x-v")):
        got = [ask(app, path, headers={header: value}).body for value in ("a", "b", "a", "b")]
        assert got[0] == got[2] != got[1] == got[3]


def test_web_fastapi_routes_absence_is_kept_for_absent_ttl(app: fastapi.FastAPI, warm: Stillwarm) -> None:
    calls: Calls = app.state.calls

    async def handler(request: fastapi.Request, error: Any) -> fastapi.Response:
        return fastapi.Response(f"handled {len(calls)}", 404)

    app.add_exception_handler(404, handler)

    @app.get("/kept")
    @warm.cache_response(ttl=60, absent_ttl=5)
    async def kept() -> None:
        calls.append(1)
        raise fastapi.HTTPException(404)

    @app.get("/not")
    @warm.cache_response(ttl=60)
    async def not_kept() -> None:
        calls.append(1)
        raise fastapi.HTTPException(404)

    assert bodies(app, "/kept", "/kept") == ["handled 1"] * 2
    assert bodies(app, "/not", "/not") == ["handled 2", "handled 3"]


@pytest.mark.parametrize(
    ("args", "options", "message"),
    [
        (("unknown",), {}, "unknown"),
        ((), {}, "ttl"),
        ((), {"ttl": 60, "colour": 1}, "colour"),
        ((), {"ttl": 60, "per_user": 5}, "per_user"),
        ((), {"ttl": lambda value: 5}, "ttl"),
    ],
)
def test_web_fastapi_routes_what_is_wrong_is_said_when_decorating(
    warm: Stillwarm, args: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        warm.cache_response(*args, **options)(lambda: "x")
    with pytest.raises(ConfigError, match="parentheses"):
        warm.cache_response(lambda: "x")
