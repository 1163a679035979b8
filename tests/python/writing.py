"""A write route behind Flask or FastAPI that counts its executions, asked without sockets.

Thread rule: `ask` from any thread; each call of FastAPI runs a loop of its own.
Refuses to know: what is tested.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import fastapi
import flask
import pytest
from starlette.responses import Response as StarletteResponse

import stillwarm.fastapi
import stillwarm.flask
from fronts import Answer, ask_asgi, ask_wsgi
from stillwarm import Cache

KEY = "8e03978e-40d5-43dd-bc93-6894a57f9324"
each_front = pytest.mark.parametrize("front", ["flask", "fastapi", "fastapi-def"])

Reply = tuple[int, list[tuple[str, str]], bytes]


class Writes:
    """POST and GET /orders/{number}; `handler` says what the n-th execution answers: (status, headers, body)."""

    def __init__(
        self,
        front: str,
        cache: Cache,
        handler: Callable[[int], Reply] | None = None,
        *,
        decorated: bool = True,
        app: Any = None,
        **options: Any,
    ) -> None:
        self.front = front
        self.executed = 0
        self.handler = handler or (lambda n: (201, [("X-Order", str(n))], b"order %d" % n))
        made: Any = stillwarm.flask if front == "flask" else stillwarm.fastapi
        self.warm: Any = made.Stillwarm(cache)
        decorate = self.warm.idempotent(**options) if decorated else lambda handler: handler
        self.app: Any = (self._flask if front == "flask" else self._fastapi)(decorate)

    def _run(self) -> Reply:
        self.executed += 1
        return self.handler(self.executed)

    def _flask(self, decorate: Any) -> flask.Flask:
        app = flask.Flask("writes")

        def order(number: int) -> flask.Response:
            status, headers, body = self._run()
            response = flask.Response(body, status)
            for name, value in headers:
                response.headers.add(name, value)
            return response

        app.add_url_rule("/orders/<int:number>", "order", decorate(order), methods=["GET", "POST"])
        return app

    def _fastapi(self, decorate: Any) -> fastapi.FastAPI:
        app = fastapi.FastAPI()

        def order(number: int) -> StarletteResponse:
            status, headers, body = self._run()
            response = StarletteResponse(body, status)
            for name, value in headers:
                response.headers.append(name, value)
            return response

        async def aorder(number: int) -> StarletteResponse:
            return order(number)

        route = decorate(order if self.front == "fastapi-def" else aorder)
        app.api_route("/orders/{number}", methods=["GET", "POST"])(route)
        return app

    def ask(self, key: str | None = KEY, path: str = "/orders/1", body: bytes = b"{}", **more: Any) -> Answer:
        headers = {"content-type": "application/json", **more.pop("headers", {})}
        if key is not None:
            headers["idempotency-key"] = key
        request = {"method": "POST", "headers": headers, "body": body, **more}
        if self.front == "flask":
            return ask_wsgi(self.app, path, **request)
        return asyncio.run(ask_asgi(self.app, path, **request))


def code(answer: Answer) -> str:
    """What a problem says it is."""
    assert answer["content-type"] == "application/problem+json", answer
    told = json.loads(answer.body)
    assert told["status"] == answer.status
    assert told["title"]
    assert told["detail"]
    return str(told["code"]).removeprefix("idempotency-")


def replayed(answer: Answer) -> bool:
    return bool(answer["idempotency-replayed"] == "true")
