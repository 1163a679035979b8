"""A hit of a decorated Flask view is sent as it was made, but what the app's hooks did to it is sent too.

Thread rule: one thread.
Refuses to know: what is stored.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flask
import pytest

from stillwarm import Cache
from stillwarm.flask import Stillwarm

PAGE = b"page"
Hook = Callable[[flask.Response], flask.Response]


def hit(hook: Hook | None = None, kind: type[flask.Response] = flask.Response, **request: Any) -> Any:
    """The second answer of a view; `hook` is an after_request function of the app."""
    app = flask.Flask(__name__)
    app.response_class = kind
    warm = Stillwarm(Cache(ttl=60), app)

    @app.get("/")
    @warm.cache_response()
    def view() -> flask.Response:
        return flask.make_response(PAGE)

    client = app.test_client()
    assert client.get("/").headers["X-Cache"] == "MISS"
    if hook is not None:
        app._got_first_request = False
        app.after_request(hook)
    return client.open("/", **request)


def test_web_flask_hit_is_what_was_stored_and_can_be_asked_like_any_response() -> None:
    seen: list[flask.Response] = []

    def hook(response: flask.Response) -> flask.Response:
        seen.append(response)
        return response

    answer = hit(hook)
    assert (answer.status, answer.data, answer.headers["X-Cache"]) == ("200 OK", PAGE, "HIT")
    assert isinstance(seen[0], flask.Response)
    assert (seen[0].get_data(), seen[0].content_length, seen[0].mimetype) == (PAGE, 4, "text/html")


def changed_header(response: flask.Response) -> flask.Response:
    response.headers["X-More"] = "1"
    return response


def changed_body(response: flask.Response) -> flask.Response:
    response.set_data("other, longer")
    return response


def replaced_body(response: flask.Response) -> flask.Response:
    response.response = ["p\N{LATIN SMALL LETTER E WITH ACUTE}"]  # as long, in UTF-8, and text
    response.headers["Content-Length"] = "3"
    return response


def changed_status(response: flask.Response) -> flask.Response:
    response.status_code = 304
    return response


def located(response: flask.Response) -> flask.Response:
    response.headers["Content-Location"] = "/\N{LATIN SMALL LETTER E WITH ACUTE}"
    return response


@pytest.mark.parametrize(
    ("hook", "status", "body", "field", "value"),
    [
        (changed_header, 200, PAGE, "X-More", "1"),
        (changed_body, 200, b"other, longer", "Content-Length", "13"),
        (replaced_body, 200, "p\N{LATIN SMALL LETTER E WITH ACUTE}".encode(), "Content-Length", "3"),
        (changed_status, 304, b"", "Content-Length", None),
        (located, 200, PAGE, "Content-Location", "/%C3%A9"),
    ],
)
def test_web_flask_hit_is_sent_as_the_apps_hooks_left_it(
    hook: Hook, status: int, body: bytes, field: str, value: str | None
) -> None:
    answer = hit(hook)
    assert (answer.status_code, answer.data, answer.headers.get(field)) == (status, body, value)


def test_web_flask_hit_is_closed_where_someone_waits_for_it() -> None:
    closed: list[str] = []

    def hook(response: flask.Response) -> flask.Response:
        response.call_on_close(lambda: closed.append("closed"))
        return response

    hit(hook, buffered=True)
    assert closed == ["closed"]


def test_web_flask_hit_of_head_has_the_length_of_the_page_and_no_body() -> None:
    answer = hit(method="HEAD")
    assert (answer.data, answer.headers["Content-Length"], answer.headers["X-Cache"]) == (b"", "4", "HIT")


def test_web_flask_hit_goes_through_the_apps_own_response_class() -> None:
    class Own(flask.Response):
        def get_wsgi_headers(self, environ: Any) -> Any:
            headers = super().get_wsgi_headers(environ)
            headers["X-Own"] = "1"
            return headers

    assert hit(kind=Own).headers["X-Own"] == "1"


def test_web_flask_hit_is_an_instance_of_the_apps_response_class() -> None:
    class Own(flask.Response):
        default_mimetype = "text/plain"

    seen: list[bool] = []

    def hook(response: flask.Response) -> flask.Response:
        seen.append(isinstance(response, Own))
        return response

    hit(hook, kind=Own)
    assert seen == [True]
