"""Readable keys: one injective, typed text for any key, for logs, globs, `cache_key()` and remote tiers.

Thread rule: pure functions, any thread. They may run a model's or an object's own code.
Refuses to know: caches. In memory, keys of exact built-in types are never encoded (cpp/bindings/py_traits.hpp).

A key reads `scope:arg:arg`. Arguments are written like literals, typed (1, 1.0, True and '1' are four texts) and
percent-escaped, so that two different keys never read the same.
"""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import hashlib
import re
import urllib.parse
import uuid
from typing import Any, Final

from stillwarm import _core
from stillwarm.errors import KeyTypeError

MAX_BYTES: Final = 200
_KEPT_BYTES: Final = 150


class Content(str):
    """The text of an item that is keyed by its content. Never equal to a str in a key: types are compared exactly."""

    __slots__ = ()


# Equal where keys must differ: Decimal("1.0") and Decimal("1.00"), an instant in two zones, frozenset({1}) and ({1.0}).
_BY_CONTENT: Final = frozenset({decimal.Decimal, datetime.datetime, datetime.time, frozenset})

_UNSAFE: Final = re.compile(r"[^\w .@+/?&#|!$<>-]", re.ASCII)


def escape(text: str) -> str:
    """Percent-escapes what has a meaning in a readable key; letters beyond ASCII stay as they are."""
    return _UNSAFE.sub(_escape_one, text)


def _escape_one(match: re.Match[str]) -> str:
    c = match.group()
    if c.isalnum():
        return c
    return "".join(f"%{byte:02X}" for byte in c.encode("utf-8", "surrogatepass"))


def encode(item: Any, *, strict: bool = True) -> str:
    """The text of one argument. With `strict=False` an object of any type gets some text, good enough to read.

    Raises:
        TypeError: strict, and the item (or something in it) is of a type that has no canonical text.
        RecursionError: the item contains itself.
    """
    kind = type(item)
    if item is None or kind is bool or kind is int or kind is float:
        return hex(item) if kind is int and abs(item) >= 1 << 256 else repr(item)
    if kind is str:
        return f"'{escape(item)}'"
    if kind is bytes:
        return f"b'{escape(item.decode('latin-1'))}'"
    if kind is Content:
        return str(item)
    if kind is tuple:
        inner = ",".join(encode(i, strict=strict) for i in item)
        return f"({inner},)" if len(item) == 1 else f"({inner})"
    if kind is list:
        return f"[{','.join(encode(i, strict=strict) for i in item)}]"
    if kind is dict:
        pairs = sorted(f"{encode(k, strict=strict)}={encode(v, strict=strict)}" for k, v in item.items())
        return "{" + ",".join(pairs) + "}"
    if kind is set or kind is frozenset:
        return kind.__name__ + "{" + ",".join(sorted(encode(i, strict=strict) for i in item)) + "}"
    return _encode_object(item, strict)


def _encode_object(item: Any, strict: bool) -> str:
    kind = type(item)
    name = f"{kind.__module__}.{kind.__qualname__}"
    if isinstance(item, enum.Enum):
        member: Any = item._name_
        if member is None:  # a combination of flags
            return f"{name}({encode(item.value, strict=strict)})"
        return f"{name}.{member}"
    if kind is decimal.Decimal or kind is uuid.UUID or kind is datetime.date:
        return f"{kind.__name__}({item})"
    if kind is datetime.datetime or kind is datetime.time:
        zone = getattr(item.tzinfo, "key", None)
        at = f"@{escape(zone)}" if isinstance(zone, str) else ""
        iso = item.isoformat().replace(":", "")  # the basic format: a colon separates arguments
        return f"{kind.__name__}({iso}{';fold' * item.fold}{at})"
    if kind is datetime.timedelta:
        return f"timedelta({item.days},{item.seconds},{item.microseconds})"
    fields = _fields_of(item, kind)
    if fields is not None:
        return name + "{" + ",".join(f"{f}={encode(getattr(item, f), strict=strict)}" for f in fields) + "}"
    if strict:
        raise TypeError(f"{name} has no canonical text")
    return f"{name}({escape(_short_repr(item))})"


def _fields_of(item: Any, kind: type) -> list[str] | None:
    """Names of the fields of a dataclass or a pydantic model (v2, v1); None for anything else."""
    if dataclasses.is_dataclass(kind):
        return [f.name for f in dataclasses.fields(kind) if f.compare]
    for attribute in ("__pydantic_fields__", "__fields__"):
        fields = getattr(kind, attribute, None)
        if isinstance(fields, dict) and hasattr(
            kind, "__pydantic_validator__" if "py" in attribute else "__validators__"
        ):
            extra = getattr(item, "__pydantic_extra__", None)
            return [*fields, *sorted(extra)] if isinstance(extra, dict) else list(fields)
    return None


def _short_repr(item: object) -> str:
    try:
        return repr(item)[:80]
    except Exception:
        return f"at {id(item):#x}"


def readable(scope: str, items: tuple[object, ...], *, strict: bool = False) -> str:
    """`scope:arg:arg`, at most 200 bytes: what is longer is cut and gets a 128-bit BLAKE2b."""
    text = ":".join([scope, *(encode(i, strict=strict) for i in items)])
    return shorten(text)


def parse(text: str) -> tuple[object, ...]:
    """The items behind the arguments of a readable key (what follows `scope:`), where all are plain literals.

    Raises:
        ValueError: an item is not a plain literal, or the text was shortened: look for the key by its text then.
    """
    return tuple(_parse_one(part) for part in text.split(":"))


_NUMBER: Final = re.compile(r"-?\d+|-?0x[0-9a-f]+")


def _parse_one(text: str) -> object:
    if text in ("None", "True", "False"):
        return {"None": None, "True": True, "False": False}[text]
    if _NUMBER.fullmatch(text):
        return int(text, 0)
    if text[:1] == "'" and text[-1:] == "'" and len(text) >= 2:
        return urllib.parse.unquote(text[1:-1], errors="surrogatepass")
    item = float(text)
    if repr(item) != text:
        raise ValueError(f"not as this library writes a float: {text}")
    return item


def shorten(text: str) -> str:
    """The text itself up to 200 bytes of UTF-8, else the first 150 + `~` + a 128-bit BLAKE2b of all of it."""
    return text if len(text.encode("utf-8", "surrogatepass")) <= MAX_BYTES else digested(text)


def digested(text: str) -> str:
    """The first 150 bytes of the text, without what no database takes (NUL, surrogates), + `~` + its BLAKE2b."""
    data = text.encode("utf-8", "surrogatepass")
    digest = hashlib.blake2b(data, digest_size=16).hexdigest()
    return data[:_KEPT_BYTES].decode("utf-8", "ignore").replace("\0", "") + "~" + digest


_DIGESTED: Final = re.compile(r".{0,150}~[0-9a-f]{32}", re.DOTALL)


def is_digested(text: str) -> bool:
    """Whether it may be what `digested` made."""
    return _DIGESTED.fullmatch(text) is not None


def glob_escaped(text: str) -> str:
    """A glob that matches exactly the text."""
    return re.sub(r"([*?[])", r"[\1]", text)


def freeze(call: Any, place: int, item: object) -> Content:
    """What stands in a key for an argument that has no usable hash: its content.

    Raises:
        KeyTypeError: names the argument and the ways out.
    """
    try:
        return Content(encode(item))
    except RecursionError:
        reason = "it contains itself"
    except TypeError as error:
        reason = str(error)
    names = call._names
    name = names[place] if place < len(names) else "*args or **kwargs"
    raise KeyTypeError(
        f"argument {name!r} of {getattr(call, '__qualname__', 'this function')}() is a {type(item).__qualname__} and "
        f"cannot be part of a key ({reason}); accepted: hashable objects, and by content list, dict, set, dataclasses "
        f"and pydantic models; or give key=, or leave it out with ignore=({name!r},)"
    )


_core.set_content_types(Content, set(_BY_CONTENT))
_core.set_freeze(freeze)
