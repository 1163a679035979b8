"""Management endpoints mounted in both frameworks, for the tests of them: `ask` sends a request the way a client would.

Thread rule: one thread.
Refuses to know: what is asked.
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import fastapi
import flask
import httpx
from werkzeug.test import EnvironBuilder, run_wsgi_app
from werkzeug.wrappers import Response

from stillwarm.web._blueprint import blueprint
from stillwarm.web._router import router
from stillwarm.web.management import Management

TOKEN = "correct-horse-battery-staple"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
CHANGE = {"X-Stillwarm": "1"}
SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
FRAMEWORKS = ("flask", "fastapi")


class Got(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


Ask = Callable[..., Got]


def flask_app(*managements: Management) -> flask.Flask:
    app = flask.Flask("app")
    for management in managements:
        app.register_blueprint(blueprint(management))
    return app


def fastapi_app(*managements: Management) -> fastapi.FastAPI:
    app = fastapi.FastAPI()
    for management in managements:
        app.include_router(router(management))
    return app


def client(framework: str, *managements: Management, app: Any = None) -> Ask:
    """`ask(method, path, headers, body, chunked=False)`: body as bytes, or something to send as JSON."""
    prefix = managements[0].prefix if managements else "/api/cache"
    if app is None:
        app = (flask_app if framework == "flask" else fastapi_app)(*managements)
    send = _flask_send if framework == "flask" else _fastapi_send

    def ask(
        method: str,
        path: str,
        headers: Mapping[str, str] | None = None,
        body: Any = None,
        *,
        chunked: bool = False,
        prefix: str = prefix,
    ) -> Got:
        headers = dict(headers or {})
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
            headers = {"Content-Type": "application/json", **headers}
        return send(app, method, prefix + path, headers, body or b"", chunked)

    return ask


def _flask_send(app: flask.Flask, method: str, path: str, headers: dict[str, str], body: bytes, chunked: bool) -> Got:
    builder = EnvironBuilder(path=path, method=method, headers=headers)
    environ = builder.get_environ()
    builder.close()
    environ["wsgi.input"] = io.BytesIO(body)
    if chunked:  # as gunicorn hands it over: no length, and the end of the stream is the end of the body
        environ["wsgi.input_terminated"] = True
        environ["HTTP_TRANSFER_ENCODING"] = "chunked"
        environ.pop("CONTENT_LENGTH", None)
    else:
        environ["CONTENT_LENGTH"] = headers.get("Content-Length", str(len(body)))
    # As the test client does, which however would count the body anew and send cookies of its own.
    response = Response(*run_wsgi_app(app, environ, buffered=True))
    return Got(response.status_code, {k.lower(): v for k, v in response.headers.items()}, response.data)


def _fastapi_send(app: Any, method: str, path: str, headers: dict[str, str], body: bytes, chunked: bool) -> Got:
    async def stream() -> Any:
        for start in range(0, len(body), 1000):
            yield body[start : start + 1000]

    async def send() -> Got:
        # Latin-1, as bytes come in from the wire.
        raw = {name: value.encode("latin-1") for name, value in headers.items()}
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as test_client:
            response = await test_client.request(method, path, headers=raw, content=stream() if chunked else body)
        return Got(response.status_code, dict(response.headers), response.content)

    return asyncio.run(send())


def lines(items: Iterator[Any] | list[Any]) -> str:
    """Everything that was logged, as one text."""
    return "\n".join(str(item.getMessage()) + str(item.exc_text or "") for item in items)
