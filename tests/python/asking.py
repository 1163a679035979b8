"""Requests to an app without sockets and without a framework's client, one message at a time.

Thread rule: a request belongs to its test.
Refuses to know: what is asked.
"""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import quote


def scope_of(path: str = "/", headers: Any = (), **more: Any) -> dict[str, Any]:
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "raw_path": quote(path, errors="surrogatepass").encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"app.test"), *headers],
        "client": ("192.0.2.1", 50000),
        "server": ("app.test", 80),
        **more,
    }


def environ_of(path: str = "/", **more: Any) -> dict[str, Any]:
    return {
        "REQUEST_METHOD": "GET",
        "HTTP_HOST": "app.test",
        "SCRIPT_NAME": "",
        "PATH_INFO": path,
        "QUERY_STRING": "",
        "wsgi.url_scheme": "http",
        **more,
    }


async def asked(app: Any, scope: dict[str, Any]) -> tuple[int, dict[bytes, bytes], bytes]:
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, receive, send)
    body = b"".join(message.get("body", b"") for message in sent[1:])
    return sent[0]["status"], dict(sent[0]["headers"]), body


def ask(app: Any, *args: Any, **kwargs: Any) -> tuple[int, dict[bytes, bytes], bytes]:
    return asyncio.run(asked(app, scope_of(*args, **kwargs)))
