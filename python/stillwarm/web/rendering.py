"""What FastAPI makes of a route's value, and how it sees the route: response model and class, signature, session.

Thread rule: each call belongs to its request.
Refuses to know: caching.
"""

from __future__ import annotations

import contextlib
import contextvars
import inspect
import types
import typing
from collections.abc import Callable
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response as StarletteResponse

_given: contextvars.ContextVar[Any] = contextvars.ContextVar("stillwarm_given")


class Call(typing.NamedTuple):
    """One call of a route by the framework."""

    route: Callable[..., Any]
    is_async: bool
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    request: Request
    injected: Any  # the Response whose headers and status the route may set; None in Starlette

    def arguments(self) -> dict[str, Any]:
        """Those of path and query, as far as the URL gives them."""
        params = {**self.request.query_params, **self.request.path_params}
        return {**params, **{k: v for k, v in self.kwargs.items() if k in params}}


class Asked:
    """A route as FastAPI is to see and call it: it is given the request as well, and the response whose headers it may
    set, under names of the decorator's own where the route has no parameters for them."""

    def __init__(self, route: Callable[..., Any], prefix: str) -> None:
        self.route = route
        of_object = None if inspect.isroutine(route) or inspect.isclass(route) else route.__class__.__call__
        self.is_async = inspect.iscoroutinefunction(route) or inspect.iscoroutinefunction(of_object)
        signature = resolved(route)
        own = {f"{prefix}_request": Request, f"{prefix}_response": StarletteResponse}
        self._request, self._response = (named(signature, kind) or name for name, kind in own.items())
        self._added = [name for name in own if name in (self._request, self._response)]
        added = [inspect.Parameter(n, inspect.Parameter.KEYWORD_ONLY, annotation=own[n]) for n in self._added]
        given = list(signature.parameters.values())
        last = [p for p in given if p.kind is inspect.Parameter.VAR_KEYWORD]
        first = [p for p in given if p.kind is not inspect.Parameter.VAR_KEYWORD]
        self.signature = signature.replace(parameters=[*first, *added, *last])

    def call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
        """One call, without what the route itself did not ask for. `request` None: by the app itself, for no client."""
        request = kwargs.get(self._request)
        if request is None:  # Starlette calls a route with the request alone
            request = next((one for one in args if isinstance(one, Request)), None)
        injected = kwargs.get(self._response)
        for name in self._added:
            kwargs.pop(name, None)
        return Call(self.route, self.is_async, args, kwargs, request, injected)  # type: ignore[arg-type]


async def called(call: Call) -> Any:
    """What the route returns."""
    if call.is_async:
        return await call.route(*call.args, **call.kwargs)
    return await run_in_threadpool(call.route, *call.args, **call.kwargs)


async def rendered(call: Call, value: Any, before: list[tuple[bytes, bytes]]) -> StarletteResponse:
    """The route's value as the response that FastAPI makes of it: response model, response class, status.

    With the headers that the route itself gave; not with those of its dependencies (`before`): they are not stored.
    """
    injected = call.injected
    if not isinstance(value, StarletteResponse):
        value = await by_fastapi(call, value)
        if injected is not None:
            own = list(injected.raw_headers)
            for pair in before:
                if pair in own:
                    own.remove(pair)
            value.raw_headers = [*value.raw_headers, *own]
    response: StarletteResponse = value
    return response


async def by_fastapi(call: Call, value: Any) -> StarletteResponse:
    handler = handler_of(call.request.scope.get("route"))
    if handler is None:
        raise TypeError(f"the route answered {type(value).__name__}, and Starlette takes only a Response")
    token = _given.set(value)
    try:
        response: StarletteResponse = await handler(call.request)
    finally:
        _given.reset(token)
    status = getattr(call.injected, "status_code", None)
    if status:
        response.status_code = status
    return response


async def give() -> Any:
    """An endpoint that answers what the decorated route already answered."""
    return _given.get()


def handler_of(route: Any) -> Any:
    """FastAPI's own handler of a route, with `give` as its endpoint and without its dependencies and body."""
    if route is None:
        return None
    from fastapi import routing
    from fastapi.dependencies.utils import get_dependant

    # A route of an included router is described by a context of its own in newer versions.
    variable = getattr(routing, "_effective_route_context_var", None)
    context = variable.get() if variable is not None else None
    source = context if context is not None and context.original_route is route else route
    cached = getattr(source, "__dict__", {}).get("_stillwarm_handler")
    if cached is not None:
        return cached
    own: dict[str, Any] = {
        "dependant": get_dependant(path="/", call=give),
        "body_field": None,
        "embed_body_fields": False,
    }
    if hasattr(source, "secure_cloned_response_field"):
        own["response_field"] = source.secure_cloned_response_field
    arguments: dict[str, Any] = {}
    for name, parameter in inspect.signature(routing.get_request_handler).parameters.items():
        if name in own:
            arguments[name] = own[name]
        elif hasattr(source, name):
            arguments[name] = getattr(source, name)
        elif parameter.default is inspect.Parameter.empty:
            raise TypeError(f"this version of FastAPI asks for {name}")
    handler = routing.get_request_handler(**arguments)
    with contextlib.suppress(AttributeError, TypeError):
        source._stillwarm_handler = handler
    return handler


async def handled(request: Request, error: HTTPException) -> StarletteResponse:
    """What the app's own handler makes of the error, or what Starlette does."""
    handlers = getattr(request.app, "exception_handlers", {})
    handler = handlers.get(type(error)) or handlers.get(error.status_code) or handlers.get(HTTPException)
    if handler is None:
        raise error
    response = handler(request, error)
    return await response if inspect.isawaitable(response) else response  # type: ignore[no-any-return]


class Watched:
    """Sees whether a route reads or writes Starlette's session, whose cookie is written after the route has answered.

    What dependencies did to it before is not the route's doing, and stays noted.
    """

    def __init__(self, request: Request) -> None:
        self._session = request.scope.get("session")
        self._copy = dict(self._session) if isinstance(self._session, dict) else None
        self._before = [getattr(self._session, name, None) for name in ("accessed", "modified")]
        self._note(False, False)

    def _note(self, accessed: bool | None, modified: bool | None) -> None:
        for name, value in (("accessed", accessed), ("modified", modified)):
            if hasattr(self._session, name):
                setattr(self._session, name, value)

    def personal(self, per_user: bool) -> bool:
        """Whether the answer belongs to one session: it was written, or read and the key does not name a user."""
        if self._copy is None:
            return self._session is not None
        accessed, modified = (getattr(self._session, name, None) for name in ("accessed", "modified"))
        self._note(accessed or self._before[0], modified or self._before[1])
        read = accessed or accessed is None  # older versions do not say
        return bool(modified or self._session != self._copy or (self._copy and read and not per_user))


def resolved(route: Callable[..., Any]) -> inspect.Signature:
    """The signature with its annotations evaluated where they were written, each for itself.

    One that cannot be (a name that only type checkers see) stays a text: FastAPI makes of it what it does anyway.
    """
    signature = inspect.signature(route)
    names = getattr(inspect.unwrap(route), "__globals__", {})

    def evaluated(annotation: Any) -> Any:
        if not isinstance(annotation, str):
            return annotation
        alone = types.SimpleNamespace(__annotations__={"it": annotation})
        try:
            found = typing.get_type_hints(alone, names, include_extras=True)["it"]
        except Exception:
            return annotation
        return None if found is type(None) else found

    parameters = [p.replace(annotation=evaluated(p.annotation)) for p in signature.parameters.values()]
    return signature.replace(parameters=parameters, return_annotation=evaluated(signature.return_annotation))


def named(signature: inspect.Signature, kind: type) -> str | None:
    """The parameter that is annotated with this class."""
    for parameter in signature.parameters.values():
        annotation = parameter.annotation
        if typing.get_origin(annotation) is typing.Annotated:
            annotation = typing.get_args(annotation)[0]
        # On Python 3.10 `dict[str, int]` passes for a class.
        if typing.get_origin(annotation) is None and inspect.isclass(annotation) and issubclass(annotation, kind):
            return parameter.name
    return None
