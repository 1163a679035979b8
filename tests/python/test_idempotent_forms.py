"""Idempotent routes as frameworks have them: forms and files, models, dependencies' headers, routers, caching beside.

Thread rule: one thread.
Refuses to know: keys and records (test_idempotent).
"""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import fastapi
import flask
import pydantic
import pytest

import stillwarm.fastapi
import stillwarm.flask
from fronts import Answer, ask_asgi, ask_wsgi
from stillwarm import Cache
from writing import KEY, code, replayed


def multipart(boundary: str, content: str = "rows") -> dict[str, Any]:
    lines = [
        f"--{boundary}", 'Content-Disposition: form-data; name="title"', "", "a title",
        f"--{boundary}", 'Content-Disposition: form-data; name="file"; filename="f.csv"', "Content-Type: text/csv", "",
        content, f"--{boundary}--", "",
    ]  # fmt: skip
    headers = {"content-type": f"multipart/form-data; boundary={boundary}", "idempotency-key": KEY}
    return {"method": "POST", "headers": headers, "body": "\r\n".join(lines).encode()}


def ask(app: Any, path: str, **request: Any) -> Answer:
    if isinstance(app, flask.Flask):
        environ = dict(request)
        kind = environ["headers"].pop("content-type", None)
        assert kind is not None
        return ask_wsgi(_WithType(app, kind), path, **environ)
    return asyncio.run(ask_asgi(app, path, **request))


class _WithType:
    """WSGI keeps the content type apart from the header fields."""

    def __init__(self, app: Any, kind: str) -> None:
        self.app, self.kind = app, kind

    def __call__(self, environ: Any, start_response: Any) -> Any:
        return self.app({**environ, "CONTENT_TYPE": self.kind}, start_response)


def app_with_upload(front: str) -> Any:
    if front == "flask":
        site = flask.Flask("upload")

        @site.before_request
        def reads_the_form_first() -> None:
            assert flask.request.form["title"] == "a title"

        @site.post("/upload")
        @stillwarm.flask.Stillwarm(Cache()).idempotent()
        def upload() -> bytes:
            return flask.request.files["file"].read()

        return site
    api = fastapi.FastAPI()

    @api.post("/upload")
    @stillwarm.fastapi.Stillwarm(Cache()).idempotent()
    async def aupload(title: Annotated[str, fastapi.Form()], file: fastapi.UploadFile) -> str:
        return (await file.read()).decode()

    return api


@pytest.mark.parametrize("front", ["flask", "fastapi"])
def test_idempotent_form_is_the_same_whatever_its_boundary(front: str) -> None:
    app = app_with_upload(front)
    first = ask(app, "/upload", **multipart("first"))
    assert first.status == 200
    assert b"rows" in first.body
    again = ask(app, "/upload", **multipart("second"))
    assert replayed(again)
    assert again.body == first.body
    assert code(ask(app, "/upload", **multipart("first", "other rows"))) == "key-reused"


class Order(pydantic.BaseModel):
    asin: str
    n: int = 1


def test_idempotent_fastapi_route_keeps_its_form() -> None:
    api = fastapi.FastAPI()
    router = fastapi.APIRouter(prefix="/shop")
    cache = Cache()
    warm = stillwarm.fastapi.Stillwarm(cache)
    orders: list[str] = []
    mailed: list[str] = []

    async def trace(response: fastapi.Response) -> str:
        response.headers["x-trace"] = f"request {len(orders)}"
        return "traced"

    @router.get("/orders")
    @warm.cache_response(ttl=60, tags=["orders"])
    async def listed() -> list[str]:
        return orders

    @router.post("/orders/{number}", status_code=201, response_model=Order)
    @warm.idempotent()
    @warm.cache_response(invalidates=["orders"])
    async def order(
        number: int, given: Order, response: fastapi.Response, later: fastapi.BackgroundTasks, request: fastapi.Request
    ) -> dict[str, Any]:
        orders.append(given.asin)
        response.headers["x-order"] = str(number)
        later.add_task(mailed.append, given.asin)
        return {"asin": given.asin, "secret": "not in the model"}

    api.include_router(router, dependencies=[fastapi.Depends(trace)])
    parameters = api.openapi()["paths"]["/shop/orders/{number}"]["post"]["parameters"]
    assert [parameter["name"] for parameter in parameters] == ["number"]
    assert asyncio.run(ask_asgi(api, "/shop/orders")).body == b"[]"
    request: dict[str, Any] = {"method": "POST", "body": b'{"asin": "B07"}'}
    request["headers"] = {"content-type": "application/json", "idempotency-key": KEY}
    first, again = (asyncio.run(ask_asgi(api, "/shop/orders/1", **request)) for _ in range(2))
    assert (first.status, first.body, first["x-order"]) == (201, b'{"asin":"B07","n":1}', "1")
    assert first["x-trace"] == "request 0"
    assert (again.status, again.body, again["x-order"]) == (201, b'{"asin":"B07","n":1}', "1")
    assert replayed(again)
    assert again["x-trace"] == "request 1", "what a dependency says of one request is not kept for another"
    assert (orders, mailed) == (["B07"], ["B07"])
    assert asyncio.run(ask_asgi(api, "/shop/orders")).body == b'["B07"]'
    invalid = {**request, "body": b'{"n": 1}', "headers": {**request["headers"], "idempotency-key": "other"}}
    assert asyncio.run(ask_asgi(api, "/shop/orders/1", **invalid)).status == 422
    valid = {**invalid, "body": b'{"asin": "B08"}'}
    assert asyncio.run(ask_asgi(api, "/shop/orders/1", **valid)).status == 201, "what was refused unread used no key up"


def test_idempotent_flask_handlers_and_async_views() -> None:
    app = flask.Flask("handlers")
    warm = stillwarm.flask.Stillwarm()
    executed: list[str] = []

    class TakenError(Exception):
        pass

    @app.errorhandler(TakenError)
    def taken(error: TakenError) -> tuple[str, int]:
        return "taken", 409

    @app.post("/taken")
    @warm.idempotent()
    def fails() -> None:
        executed.append("taken")
        raise TakenError

    @app.post("/async")
    @warm.idempotent()
    async def waits() -> tuple[str, int]:
        executed.append("async")
        return "waited", 202

    warm.init_app(app, Cache())
    client = app.test_client()
    for path, status, text in (("/taken", 409, "taken"), ("/async", 202, "waited")):
        answers = [client.post(path, headers={"Idempotency-Key": KEY}) for _ in range(2)]
        assert [(answer.status_code, answer.text) for answer in answers] == [(status, text)] * 2
        assert [answer.headers.get("Idempotency-Replayed") for answer in answers] == [None, "true"]
    assert executed == ["taken", "async"]
