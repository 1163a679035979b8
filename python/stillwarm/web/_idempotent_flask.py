"""Flask views that run once per idempotency key: the request's facts, and answers as Flask responses.

Thread rule: each call belongs to its request.
Refuses to know: when a view runs (idempotent).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from flask import current_app, request
from werkzeug.wrappers import Response as FlaskResponse

from stillwarm._cache import Cache
from stillwarm._idempotency import hashed
from stillwarm._idempotency_memory import store_of
from stillwarm.errors import ConfigError
from stillwarm.web._hands import SyncHands
from stillwarm.web._idempotent_steps import drive, perform
from stillwarm.web.facts import Response, header
from stillwarm.web.idempotent import SAFE, Facts, Made, Result, Rules, handler_in, key_in, made_headers, too_large


class _ViewHands(SyncHands):
    def __init__(
        self, cache: Cache, rules: Rules, view: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        super().__init__(cache)
        self.rules, self.view, self.args, self.kwargs = rules, view, args, kwargs

    def call(self) -> Result:
        raised = False
        try:
            live = called(self.view, self.args, self.kwargs)
        except Exception as error:  # what the app's error handlers make of it, is an answer
            live = current_app.make_response(current_app.handle_user_exception(error))
            raised = True
        headers = list(live.headers)
        size = header(headers, "content-length")
        too_long = size.isdecimal() and int(size) > self.rules.max_response
        gathered = not (live.is_streamed or live.direct_passthrough or too_long)
        body = live.get_data() if gathered else None
        return Result(Response(live.status_code, live.status, headers, body, live=live), raised)

    def connect(self) -> Any:
        if isinstance(self.rules.transaction, str):
            return argument(self.rules, self.kwargs)
        return self.rules.transaction()


def argument(rules: Rules, kwargs: dict[str, Any]) -> Any:
    if rules.transaction not in kwargs:
        has = ", ".join(map(repr, kwargs)) or "none"
        raise ConfigError(f"transaction={rules.transaction!r}: {rules.name} was called with the arguments: {has}")
    return kwargs[rules.transaction]


def called(view: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> FlaskResponse:
    return current_app.make_response(current_app.ensure_sync(view)(*args, **kwargs))


def respond(
    cache: Cache, rules: Rules, view: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> FlaskResponse:
    """One request to the view."""
    if request.method in SAFE:
        return called(view, args, kwargs)
    key = key_in(rules, request.headers.getlist(rules.header))
    if key is None:
        return called(view, args, kwargs)
    if isinstance(key, Made):
        return finished(key)
    body = _body(rules)
    if body is None:
        return finished(too_large(rules))
    environ = request.environ
    facts = Facts(
        request.method,
        f"{request.method} {request.url_rule.rule if request.url_rule is not None else rules.name}",
        environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", ""),
        request.query_string,
        body,
        key,
        rules.per_user() if rules.per_user is not None else None,
        environ.get("HTTP_AUTHORIZATION", ""),
        environ.get("HTTP_COOKIE", ""),
    )
    hands = _ViewHands(cache, rules, view, args, kwargs)
    answer = drive(hands, perform(rules, store_of(cache), facts))
    return finished(answer) if isinstance(answer, Made) else answer.live


def _body(rules: Rules) -> str | None:
    """The hash of the body; None: it is too large.

    Of a form its fields and files: what stands between them differs from one sending to the next.
    """
    if (request.content_length or 0) > rules.max_body:
        return None
    if request.mimetype in ("multipart/form-data", "application/x-www-form-urlencoded"):
        return hashed(*_parts())
    data = request.get_data()
    return None if len(data) > rules.max_body else hashed(data)


def _parts() -> Iterator[str | bytes]:
    for name, value in request.form.items(multi=True):
        yield from ("field", name, value)
    for name, file in request.files.items(multi=True):
        yield from ("file", name, file.filename or "", file.stream.read())
        file.stream.seek(0)


def finished(made: Made) -> FlaskResponse:
    """The answer; or that of the app's own handler of its error."""
    if made.error is not None:
        for name in (*request.blueprints, None):
            handler = handler_in(current_app.error_handler_spec.get(name, {}).get(None, {}), made.error)
            if handler is not None:
                return called(handler, (made.error,), {})
    response: FlaskResponse = current_app.response_class(made.body, status=made.status)
    response.headers.clear()
    for name, value in made_headers(made):
        response.headers.add(name, value)
    return response


__all__ = ["respond"]
