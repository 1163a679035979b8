"""The demo page at /: its three files, with headers that let it load nothing else.

Thread rule: constants.
Refuses to know: what the page asks for.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from importlib.resources import files
from typing import Final

from fastapi import APIRouter, Response

_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS: Final = {
    "Content-Security-Policy": _POLICY,
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_FILES: Final = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
}


def page_routes() -> APIRouter:
    """The routes of the page; they are no part of the OpenAPI schema."""
    routes = APIRouter()
    for path, (name, kind) in _FILES.items():
        content = (files(__package__) / "page" / name).read_bytes()
        routes.add_api_route(path, _file(content, kind), methods=["GET"], include_in_schema=False)
    return routes


def _file(content: bytes, kind: str) -> Callable[[], Awaitable[Response]]:
    async def send() -> Response:
        return Response(content, media_type=kind, headers=_HEADERS)

    return send


__all__ = ["page_routes"]
