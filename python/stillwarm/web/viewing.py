"""Flask responses from what the core made, and what a Flask view does besides answering.

Thread rule: each call belongs to its request.
Refuses to know: caching.
"""

from __future__ import annotations

import functools
from typing import Any

from flask import current_app, request
from flask.globals import request_ctx
from werkzeug.datastructures import Headers
from werkzeug.wrappers import Response as FlaskResponse

from stillwarm.web.facts import with_marks
from stillwarm.web.plan import Plan

_TAKES_A_LIST = type(getattr(Headers(), "_list", None)) is list  # Werkzeug's own, in all versions so far
_LOCATIONS = ("location", "content-location")  # Werkzeug rewrites them


def close(responses: list[FlaskResponse]) -> None:
    """What `call_on_close` asked for still happens."""
    for response in responses:
        response.close()


def finished(found: tuple[Any, ...]) -> FlaskResponse:
    """A Flask response from what the core made."""
    line, headers, body = found
    kind: Any = current_app.response_class
    # A list: of bytes Werkzeug would count the length anew, and that of HEAD's answer is the length of GET's.
    if not _TAKES_A_LIST:
        response: FlaskResponse = kind(response=[body], status=line, headers=Headers(headers))
    else:  # else every field is checked once more: half of a hit's time in Flask
        fields = Headers()
        fields._list = headers
        response = as_made(kind)(response=[body], status=line, headers=fields)
        if isinstance(response, AsMade):
            response._made, response._sent = headers.copy(), [body]
    if line[:3] == "304":
        response.headers.pop("Content-Type", None)
        response.headers.pop("Content-Length", None)
    return response


class AsMade:
    """Sends an answer of the cache as the core made it, unless somebody changed it since."""

    _made: list[tuple[str, str]] = []  # noqa: RUF012 (of each answer; none here)
    _sent: list[bytes] = []  # noqa: RUF012

    def __call__(self: Any, environ: Any, start_response: Any) -> Any:
        if (
            self.headers._list != self._made
            or self.response != self._sent
            or self.status != "200 OK"
            or self._on_close
            or environ["REQUEST_METHOD"] != "GET"
            or any(name.lower() in _LOCATIONS for name, _ in self._made)
        ):
            return super().__call__(environ, start_response)  # type: ignore[misc]
        start_response("200 OK", self._made)
        return self._sent


@functools.lru_cache(maxsize=64)
def as_made(kind: Any) -> Any:
    """The app's response class, for answers that are sent as they are: Werkzeug copies and checks every field again."""
    parts = ("__call__", "get_wsgi_response", "get_wsgi_headers", "get_app_iter", "iter_encoded", "close")
    if any(getattr(kind, name, None) is not getattr(FlaskResponse, name) for name in parts):
        return kind
    try:
        return type(kind.__name__, (AsMade, kind), {"__module__": kind.__module__})
    except Exception:  # a class that is particular about its children
        return kind


def marked(response: FlaskResponse, marks: list[tuple[str, str]]) -> FlaskResponse:
    fields = with_marks(list(response.headers), marks)[len(response.headers) :]
    for name, value in fields:
        response.headers.add(name, value)
    return response


class Watched:
    """Sees what a view does besides answering: reads or writes the session, or arranges to change its response later.

    What Flask's own hooks did to the session before is not the view's doing, and stays noted.
    """

    def __init__(self) -> None:
        self._context: Any = request_ctx._get_current_object()  # type: ignore[attr-defined]
        # Not by the proxy, nor by the property of newer versions: asking them counts as reading the session.
        self._session = self._context.__dict__.get("_session", self._context.__dict__.get("session"))
        # Older versions leave the noting to the session, and not every kind of session does it.
        notes = "_session" in self._context.__dict__ or getattr(type(self._session), "accessed", True) is False
        self._blind = self._session is not None and not notes
        self._later = len(getattr(self._context, "_after_request_functions", ()))
        self._before = [getattr(self._session, name, False) for name in ("accessed", "modified")]
        self._note(False, False)

    def _note(self, accessed: bool, modified: bool) -> None:
        for name, value in (("accessed", accessed), ("modified", modified)):
            if hasattr(self._session, name):
                setattr(self._session, name, value)

    def personal(self, plan: Plan) -> bool:
        """Whether the answer belongs to one session: it was written, or read and the key does not name a user."""
        accessed, modified = (getattr(self._session, name, False) for name in ("accessed", "modified"))
        self._note(accessed or self._before[0], modified or self._before[1])
        has_cookie = current_app.config["SESSION_COOKIE_NAME"] in request.cookies
        later = len(getattr(self._context, "_after_request_functions", ())) > self._later
        read = (accessed and has_cookie) or (self._blind and (has_cookie or self._session))
        return bool(modified or later or (read and plan.per_user is None))
