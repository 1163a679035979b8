"""The management endpoints as a Flask blueprint.

Thread rule: registration once per app, in any number of apps; requests from any thread.
Refuses to know: what is asked and answered (`management`).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import flask
from werkzeug.exceptions import HTTPException

from stillwarm.errors import ConfigError
from stillwarm.web._exchange import BODY_LIMIT, METHODS, Asked, too_large

if TYPE_CHECKING:
    from stillwarm.web.management import Management


def blueprint(management: Management, name: str | None = None) -> flask.Blueprint:
    """A blueprint for `app.register_blueprint`, with the prefix of `management`.

    Args:
        management: what is asked.
        name: of the blueprint, unique in an app; by default "stillwarm", with the prefix in it where that is another
            than /api/cache, so that the endpoints of several caches have several names.

    Raises:
        ConfigError: `auth` is a coroutine function, which nobody would await here.
    """
    access = management.access
    if access.is_async:
        raise ConfigError("auth is a coroutine function; accepted in Flask: a plain callable, or a token")
    if name is None:
        name = "stillwarm"
        if management.prefix != "/api/cache":
            name += re.sub(r"[^A-Za-z0-9]+", "_", management.prefix)

    def view(path: str = "") -> flask.Response:
        request = flask.request
        headers = {key.lower(): value for key, value in request.headers.items()}
        asked = Asked(
            method=request.method,
            path=f"/{path}",
            query=request.query_string.decode("latin-1"),
            headers=headers,
            body=_body(request, headers),
            allowed=path != "webhook" and access.allows(request),
        )
        answer = management.handle(asked)
        return flask.Response(answer.body, answer.status, answer.headers)

    mounted = flask.Blueprint(name, __name__, url_prefix=management.prefix)
    for rule in ("/", "/<path:path>"):
        mounted.add_url_rule(
            rule,
            "management",
            view,
            methods=METHODS,
            provide_automatic_options=False,
            merge_slashes=False,  # a type may have any name
        )
    return mounted


def _body(request: flask.Request, headers: dict[str, str]) -> bytes:
    """At most one byte over the limit; whoever says that there is more is not read at all."""
    if request.method != "POST" or too_large(headers):
        return b""
    try:
        if request.content_length is not None:
            return request.get_data()  # what a before_request function may have read already
        return request.stream.read(BODY_LIMIT + 1) or request.get_data()
    except HTTPException:  # the app's own limit, MAX_CONTENT_LENGTH, is below ours
        return b" " * (BODY_LIMIT + 1)
