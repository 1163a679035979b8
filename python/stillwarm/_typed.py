"""Values with a declared type: whether msgspec or pydantic can bring them back, and the parts of the type that decide.

Thread rule: pure functions, any thread.
Refuses to know: payloads, and functions. It is given a resolved annotation, not the function that has it.

Three answers for an annotation:
  untyped    all of it is what _tagged keeps exactly, and typing it would lose something (dict[str, Any], str | UUID)
  typed      msgspec decodes into it
  pydantic   there is a pydantic model in it: pydantic does all of it. It is never imported here: who has a model has it
"""

from __future__ import annotations

import collections.abc
import datetime
import decimal
import enum
import inspect
import sys
import types
import typing
import uuid
from collections.abc import Iterator
from typing import Any, Final, Literal, NamedTuple

from stillwarm import _tagged
from stillwarm.errors import ConfigError


class Plan(NamedTuple):
    way: Literal["untyped", "typed", "pydantic"]
    has_any: bool = False  # parts of it are open: there a value may change on its way
    has_moments: bool = False
    has_floats: bool = False


UNTYPED: Final = Plan("untyped")

_EXACT: Final = frozenset(
    {
        *(type(None), bool, int, float, str, bytes, list, dict, tuple, set, frozenset),
        *(decimal.Decimal, uuid.UUID, datetime.datetime, datetime.date, datetime.time, datetime.timedelta),
    }
)
_EXACT_ORIGINS: Final = frozenset(
    {
        *(list, dict, tuple, set, frozenset, typing.Union, types.UnionType),
        *(collections.abc.Sequence, collections.abc.Collection, collections.abc.Mapping, collections.abc.Set),
        *(collections.abc.MutableSequence, collections.abc.MutableMapping, collections.abc.MutableSet),
    }
)


def plan(annotation: Any) -> Plan:
    """How values of this type travel.

    Raises:
        ConfigError: they cannot; the text names the type and the ways out.
    """
    if annotation in (None, type(None), Any, object, inspect.Parameter.empty):
        return UNTYPED
    if any(_is_model(part) for part in _parts(annotation)):
        return Plan("pydantic")
    exact = _is_exact(annotation, set())
    import msgspec.inspect

    try:
        found = list(_infos(msgspec.inspect.type_info(annotation), set()))
    except Exception as error:
        if exact:
            return UNTYPED
        raise refusal(annotation, str(error)) from error
    classes = [info.cls for info in found if isinstance(info, msgspec.inspect.CustomType)]
    if any(_is_model(cls) for cls in classes):
        return Plan("pydantic")
    has_any = object in classes or any(isinstance(info, msgspec.inspect.AnyType) for info in found)
    foreign = [cls for cls in classes if cls is not object]
    if exact and (has_any or foreign):
        return UNTYPED  # what is foreign to msgspec is registered here, else it were not exact
    if object in classes:
        raise refusal(annotation, "msgspec does not decode into object: write Any")
    for cls in foreign:
        raise refusal(annotation, f"{_tagged.a_thing(cls)} is neither plain data nor a class with declared fields")
    moments = (msgspec.inspect.DateTimeType, msgspec.inspect.TimeType)
    return Plan(
        "typed",
        has_any,
        has_moments=any(isinstance(info, moments) for info in found),
        has_floats=any(isinstance(info, msgspec.inspect.FloatType) for info in found),
    )


def refusal(annotation: Any, reason: str) -> ConfigError:
    name = annotation.__qualname__ if isinstance(annotation, type) else repr(annotation)
    return ConfigError(
        f"decode_as={name} cannot be stored in a remote tier ({reason}); accepted: plain data, dataclasses, TypedDict, "
        "NamedTuple, Enum, msgspec and pydantic types and containers of them; or give another decode_as= (Any: "
        "whatever plain data comes), codecs.register() the class, or codec=codecs.signed_pickle(key)"
    )


def _is_model(part: Any) -> bool:
    pydantic: Any = sys.modules.get("pydantic")
    model = getattr(pydantic, "BaseModel", None)
    return model is not None and isinstance(part, type) and issubclass(part, model)


def _parts(annotation: Any) -> Iterator[Any]:
    """Every class that the annotation itself names; not those of its fields."""
    yield annotation
    for part in typing.get_args(_bare(annotation)):
        yield from _parts(part)


def _bare(annotation: Any) -> Any:
    """Without Annotated, NewType and named aliases."""
    while True:
        if typing.get_origin(annotation) is typing.Annotated:
            annotation = annotation.__origin__
        elif hasattr(annotation, "__supertype__"):
            annotation = annotation.__supertype__
        elif type(annotation).__name__ == "TypeAliasType":
            annotation = annotation.__value__
        else:
            return annotation


def _is_exact(annotation: Any, seen: set[int]) -> bool:
    """Whether _tagged keeps every value of this type exactly."""
    annotation = _bare(annotation)
    if annotation in (None, Any, object, Ellipsis) or isinstance(annotation, typing.TypeVar):
        return True
    origin = typing.get_origin(annotation)
    if origin is typing.Literal:
        return not any(isinstance(value, enum.Enum) for value in typing.get_args(annotation))
    if origin in _EXACT_ORIGINS:
        return all(_is_exact(part, seen) for part in typing.get_args(annotation))
    if typing.is_typeddict(annotation):
        if id(annotation) in seen:
            return True
        seen.add(id(annotation))
        try:
            return all(_is_exact(part, seen) for part in typing.get_type_hints(annotation).values())
        except NameError:
            return False
    return isinstance(annotation, type) and (annotation in _EXACT or annotation in _tagged.by_type)


def _infos(info: Any, seen: set[int]) -> Iterator[Any]:
    """Every node of what msgspec knows about a type, which may be recursive."""
    import msgspec.inspect

    if id(info) in seen:
        return
    seen.add(id(info))
    yield info
    for field in info.__struct_fields__:
        value = getattr(info, field)
        for part in value if isinstance(value, tuple) else (value,):
            inner = part.type if isinstance(part, msgspec.inspect.Field) else part
            if isinstance(inner, msgspec.inspect.Type):
                yield from _infos(inner, seen)
