"""FastAPI and Starlette routes that run once per idempotency key: the request's facts, and answers as responses.

Thread rule: each call belongs to its request.
Refuses to know: when a route runs (idempotent).
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response as StarletteResponse
from starlette.responses import StreamingResponse

from stillwarm._cache import Cache
from stillwarm._idempotency import hashed
from stillwarm._idempotency_memory import store_of
from stillwarm.errors import ConfigError
from stillwarm.web._hands import TaskHands
from stillwarm.web._idempotent_steps import perform
from stillwarm.web.aidempotent import adrive
from stillwarm.web.facts import Response, header, line_of
from stillwarm.web.idempotent import SAFE, Facts, Made, Result, Rules, handler_in, key_in, made_headers, too_large
from stillwarm.web.rendering import Asked, Call, called, rendered


class _RouteHands(TaskHands):
    def __init__(self, cache: Cache, rules: Rules, call: Call) -> None:
        super().__init__(cache)
        self.rules, self.route_call = rules, call
        # What dependencies put into the headers is this request's own, and not kept.
        self.before = list(call.injected.raw_headers) if call.injected is not None else []

    async def call(self) -> Result:
        raised = False
        try:
            live = await rendered(self.route_call, await called(self.route_call), self.before)
        except Exception as error:  # what the app's error handlers make of it, is an answer
            live = await handled(self.route_call.request, error)
            raised = True
        sent = [(bytes(name), bytes(value)) for name, value in live.raw_headers]
        headers = [pair for pair in sent if pair not in self.before]  # a decorator below may have put them there
        if not raised:
            live.raw_headers = [*sent, *(pair for pair in self.before if pair not in sent)]
        size = header(headers, "content-length")
        body = getattr(live, "body", None)
        is_file = hasattr(live, "path") and hasattr(live, "stat_result")  # has a body that it does not send
        gathered = isinstance(body, (bytes, memoryview)) and not isinstance(live, StreamingResponse) and not is_file
        if size.isdecimal() and int(size) > self.rules.max_response:
            gathered = False
        data = bytes(body or b"") if gathered else None
        return Result(Response(live.status_code, line_of(live.status_code), headers, data, live=live), raised)

    async def connect(self) -> Any:
        rules, call = self.rules, self.route_call
        if isinstance(rules.transaction, str):
            if rules.transaction not in call.kwargs:
                has = ", ".join(map(repr, call.kwargs)) or "none"
                raise ConfigError(f"transaction={rules.transaction!r}: {rules.name} was called with: {has}")
            return call.kwargs[rules.transaction]
        connection = rules.transaction(call.request)
        return await connection if inspect.isawaitable(connection) else connection


async def handled(request: Request, error: Exception) -> StarletteResponse:
    """The answer of the app's own handler of this exception; raises it where there is none."""
    handlers = getattr(request.app, "exception_handlers", {})
    handler = handlers.get(getattr(error, "status_code", None))
    if handler is None:
        classes = [cls for cls in type(error).__mro__ if cls is not Exception and cls is not BaseException]
        handler = next((handlers[cls] for cls in classes if cls in handlers), None)
    if handler is None:
        raise error
    return await asked(handler, request, error)


async def asked(handler: Callable[..., Any], request: Request, error: Exception) -> StarletteResponse:
    if inspect.iscoroutinefunction(handler):
        return await handler(request, error)  # type: ignore[no-any-return]
    return await run_in_threadpool(handler, request, error)


def decorated(cache: Cache, route: Callable[..., Any], rules: Rules) -> Callable[..., Any]:
    """The route, which FastAPI gives the request as well."""
    if inspect.isasyncgenfunction(route) or inspect.isgeneratorfunction(route):
        raise ConfigError(f"idempotent of {rules.name}: a route that streams (yield) has no answer to keep")
    seen = Asked(route, "stillwarm_idempotent")

    @functools.wraps(route)
    async def idempotent_route(*args: Any, **kwargs: Any) -> Any:
        call = seen.call(args, kwargs)
        return await (called(call) if call.request is None else respond(cache, rules, call))

    idempotent_route.__signature__ = seen.signature  # type: ignore[attr-defined]
    return idempotent_route


async def respond(cache: Cache, rules: Rules, call: Call) -> Any:
    """One request to the route."""
    request, scope = call.request, call.request.scope
    if request.method in SAFE:
        return await called(call)
    key = key_in(rules, request.headers.getlist(rules.header))
    if key is None:
        return await called(call)
    if isinstance(key, Made):
        return finished(key)
    body = await _body(rules, request)
    if body is None:
        return finished(too_large(rules))
    user = rules.per_user(request) if rules.per_user is not None else None
    if inspect.isawaitable(user):
        user = await user
    facts = Facts(
        request.method,
        f"{request.method} {getattr(scope.get('route'), 'path', None) or rules.name}",
        scope["path"],
        scope.get("query_string", b""),
        body,
        key,
        user,
        request.headers.get("authorization", ""),
        "; ".join(request.headers.getlist("cookie")),
    )
    hands = _RouteHands(cache, rules, call)
    answer = await adrive(hands, perform(rules, store_of(cache), facts))
    if not isinstance(answer, Made):
        return answer.live
    if answer.error is not None:
        handler = handler_in(getattr(request.app, "exception_handlers", {}), answer.error)
        if handler is not None:
            return await asked(handler, request, answer.error)
    return finished(answer, hands.before)


async def _body(rules: Rules, request: Request) -> str | None:
    """The hash of the body; None: it is too large.

    Of a form that FastAPI has read, its fields and files: what stands between them differs from sending to sending.
    """
    size = request.headers.get("content-length", "")
    if size.isdecimal() and int(size) > rules.max_body:
        return None
    if getattr(request, "_form", None) is not None:
        return await _form(request)
    if not hasattr(request, "_body"):  # nobody has read it
        parts, length = [], 0
        async for part in request.stream():
            parts.append(part)
            length += len(part)
            if length > rules.max_body:
                return None
        request._body = b"".join(parts)
    data = await request.body()
    return None if len(data) > rules.max_body else hashed(data)


async def _form(request: Request) -> str:
    parts: list[str | bytes] = []
    for name, value in (await request.form()).multi_items():
        if isinstance(value, str):
            parts += ["field", name, value]
        else:
            parts += ["file", name, value.filename or "", await value.read()]
            await value.seek(0)
    return hashed(*parts)


def finished(made: Made, before: Sequence[tuple[bytes, bytes]] = ()) -> StarletteResponse:
    response = StarletteResponse(status_code=made.status)
    response.body = made.body
    response.raw_headers = [(k.lower().encode("latin-1"), v.encode("latin-1")) for k, v in made_headers(made)]
    response.raw_headers += before
    return response


__all__ = ["decorated"]
