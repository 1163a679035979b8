"""Which part of a typed value could not be encoded: asked only after an encoder has failed.

Thread rule: pure functions, any thread; they run the encoder again, on parts of the value.
Refuses to know: encoders. It is given one as a function that raises.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, Final

from stillwarm._tagged import a_thing
from stillwarm.errors import CodecError

_DEEPEST: Final = 100


def find(value: Any, encode: Callable[[Any], Any], error: Exception) -> CodecError:
    """An error with the path to the innermost part that `encode` refuses, and why it does."""
    path = "value"
    for _ in range(_DEEPEST):
        for step, part in _children(value):
            failed = _failure(part, encode)
            if failed is not None:
                path, value, error = path + step, part, failed
                break
        else:
            break
    if isinstance(error, RecursionError):
        return CodecError("value: it is nested too deeply, or contains itself")
    return CodecError(f"{path}: {a_thing(type(value))} cannot be stored in a remote tier: {error}")


def _failure(part: Any, encode: Callable[[Any], Any]) -> Exception | None:
    try:
        encode(part)
    except Exception as error:
        return error
    return None


def _children(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for place, (key, part) in enumerate(value.items()):
            yield f".keys()[{place}]", key
            yield f"[{key!r:.80}]", part
        return
    names = _fields(value)
    if names:
        for name in names:
            if hasattr(value, name):
                yield f".{name}", getattr(value, name)
    elif isinstance(value, (list, tuple)):
        for place, part in enumerate(value):
            yield f"[{place}]", part
    elif isinstance(value, (set, frozenset)):
        for part in value:
            yield "{...}", part


def _fields(value: Any) -> list[str]:
    """Of a dataclass, a NamedTuple, a msgspec Struct, a pydantic model or an attrs class."""
    kind = type(value)
    if dataclasses.is_dataclass(kind):
        return [field.name for field in dataclasses.fields(kind)]
    for attribute in ("_fields", "__struct_fields__", "__pydantic_fields__", "__match_args__"):
        names = getattr(kind, attribute, None)
        if names and not isinstance(value, (str, bytes)):
            return list(names)
    return []
