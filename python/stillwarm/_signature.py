"""From a function's signature to its key: its name, which arguments the key leaves out, and what `key=` makes of them.

Thread rule: runs once, at import; the callables it makes run on any thread and keep nothing.
Refuses to know: caches and scopes. Keys without `key=` are rows of items, made by cpp/bindings/call_key.cpp.
"""

from __future__ import annotations

import functools
import inspect
import string
from collections.abc import Callable, Iterable
from typing import Any

from stillwarm import _keys
from stillwarm._durations import shown
from stillwarm.errors import ConfigError, KeyTypeError


def signature_of(function: Callable[..., Any]) -> inspect.Signature:
    """Its signature; where nobody knows it (parts of C modules), anything goes."""
    try:
        return inspect.signature(function)
    except (TypeError, ValueError):
        return inspect.Signature(
            [
                inspect.Parameter("args", inspect.Parameter.VAR_POSITIONAL),
                inspect.Parameter("kwargs", inspect.Parameter.VAR_KEYWORD),
            ]
        )


def name_of(function: Any, name: object) -> str:
    if name is not None:
        if not isinstance(name, str) or not name:
            raise ConfigError(f"name={shown(name)}: accepted: a str that is not empty")
        return name
    inner = function.func if isinstance(function, functools.partial) else function
    qualname = getattr(inner, "__qualname__", type(inner).__qualname__)
    return f"{getattr(inner, '__module__', None) or '?'}.{qualname}"


def ignore_flags(ignore: object, parameters: list[inspect.Parameter], name: str) -> tuple[bool, ...]:
    """For each named parameter, then *args, then **kwargs: is it left out of the key?"""
    if isinstance(ignore, str) or not isinstance(ignore, Iterable):
        raise ConfigError(f"ignore={shown(ignore)}: accepted: a sequence of argument names of {name}()")
    left_out = list(ignore)
    for one in left_out:
        if one not in [p.name for p in parameters]:
            raise ConfigError(
                f"ignore={shown(one)}: {name}() has no such argument; accepted: "
                f"{', '.join(p.name for p in parameters) or 'none'}"
            )
    named = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    special = [
        any(p.kind is kind and p.name in left_out for p in parameters)
        for kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    ]
    return (*(p.name in left_out for p in named), *special)


def compile_key(key: object, signature: inspect.Signature, name: str, version: object) -> Callable[..., str] | None:
    """The callable that makes the text of a `key=` template or callable."""
    if key is None:
        return None
    suffix = "" if version == 0 else f"@{_keys.escape(str(version))}"
    if callable(key):
        given = key

        def from_callable(*args: Any, **kwargs: Any) -> str:
            text = given(*args, **kwargs)
            if not isinstance(text, str):
                raise KeyTypeError(f"key= of {name}() returned a {type(text).__qualname__}; accepted: a str")
            return _keys.shorten(str(text) + suffix)

        return from_callable
    if not isinstance(key, str) or not key:
        raise ConfigError(
            f'key={shown(key)}: accepted: a template such as "scoring:{{asin}}:{{domain}}", or a callable'
        )
    pieces: list[tuple[str, str | None]] = []
    try:
        for literal, field, spec, conversion in string.Formatter().parse(key):
            if field is not None and field not in signature.parameters:
                known = ", ".join(signature.parameters) or "none"
                raise ConfigError(f"key={shown(key)}: {name}() has no argument {field!r}; accepted: {known}")
            if spec or conversion:
                raise ConfigError(f"key={shown(key)}: accepted: plain fields like {{{field}}}, without ! or : in them")
            pieces.append((literal, field))
    except ValueError as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(
            f"key={shown(key)}: {error}; accepted: a template such as 'scoring:{{asin}}:{{domain}}'"
        ) from None

    def from_template(*args: Any, **kwargs: Any) -> str:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        values = bound.arguments
        text = "".join(t if f is None else t + _keys.escape(str(values[f])) for t, f in pieces)
        return _keys.shorten(text + suffix)

    return from_template
