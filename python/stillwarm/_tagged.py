"""Values without a declared type: which of Python's types survive a payload, and how each is written.

Thread rule: pure functions, any thread; the register of types is written at import time by those who own the types.
Refuses to know: msgpack and JSON. A form says how plain data with a tag looks, and what is plain to it.

What comes back equals what went in, types included. Plain data (None, bool, int, float, str, bytes, list, dict with str
keys) stays as it is; whatever else is in KINDS becomes a tag and a body of plain data. Any other class is refused with
the path to it: what it would come back as, only a declared type can say.
"""

from __future__ import annotations

import base64
import datetime
import decimal
import uuid
import zoneinfo
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from stillwarm import _core
from stillwarm.errors import CodecError

# Stored values outlive a release: append only, and change no body. A tag is a name, or its place from 1 on.
KINDS: Final = (
    "tuple",
    "set",
    "frozenset",
    "dict",  # with keys that are not all str: [key, value, key, value ...]
    "Decimal",
    "UUID",
    "datetime",  # [ISO text without zone, fold, zone]; zone: None, key of a ZoneInfo, or [microseconds, name or None]
    "date",
    "time",  # like datetime
    "timedelta",  # [days, seconds, microseconds]
    "int",  # hexadecimal; beyond 64 bits
    "str",  # hexadecimal; with lone surrogates
    "bytes",  # base64; JSON only
    "float",  # as repr() writes it; NaN and the infinities in JSON only
    "object",  # [registered name, what its encode made]
)


class Form(NamedTuple):
    """How one wire format writes what is not plain to it."""

    tag: Callable[[str, Any], Any]
    is_json: bool = False
    escaped: str | None = None  # a key that no plain dict may have, because it looks like a tag


class Registered(NamedTuple):
    kind: type
    encode: Callable[[Any], Any]
    decode: Callable[[Any], Any]
    name: str


by_type: Final[dict[type, Registered]] = {}
by_name: Final[dict[str, Registered]] = {}


class Unstorable(Exception):
    """Something in the value cannot be stored. The steps to it are added while the calls return, innermost first."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.steps: list[str] = []

    def told(self) -> CodecError:
        return CodecError(f"value{''.join(reversed(self.steps))}: {self.reason}")


def a_thing(kind: type) -> str:
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    return f"{'an' if name[0] in 'aeiouAEIOU' else 'a'} {name}"


def pack(value: Any, form: Form) -> Any:
    """Plain data of one form.

    Raises:
        CodecError: names the path to what cannot be stored.
    """
    try:
        return _pack(value, form)
    except Unstorable as error:
        raise error.told() from error.__cause__
    except RecursionError:
        raise CodecError("value: it is nested too deeply, or contains itself") from None


def _pack(value: Any, form: Form) -> Any:
    kind = type(value)
    if _core.is_plain(value, form.is_json):
        return value  # a part that is plain is not walked again: rows of a table, in a tuple
    if kind is str:
        return form.tag("str", value.encode("utf-8", "surrogatepass").hex())
    if kind is int:
        return form.tag("int", hex(value))
    if kind is float:
        return form.tag("float", repr(value))
    if kind is bytes:
        return form.tag("bytes", base64.b64encode(value).decode())
    if kind is list:
        return _pack_row(value, form)
    if kind is tuple:
        return form.tag("tuple", _pack_row(value, form))
    if kind is dict:
        return _pack_dict(value, form)
    if kind is set or kind is frozenset:
        return form.tag(kind.__name__, _pack_set(value, form))
    scalar = _SCALARS.get(kind)
    if scalar is not None:
        return form.tag(kind.__name__, scalar(value))
    return _pack_registered(value, kind, form)


def _pack_row(items: list[Any] | tuple[Any, ...], form: Form) -> list[Any]:
    packed: list[Any] = []
    try:
        for item in items:
            packed.append(_pack(item, form))  # noqa: PERF401 -- its length is the index of what cannot be stored
    except Unstorable as error:
        error.steps.append(f"[{len(packed)}]")
        raise
    return packed


def _pack_set(items: set[Any] | frozenset[Any], form: Form) -> list[Any]:
    try:
        return [_pack(item, form) for item in items]
    except Unstorable as error:
        error.steps.append("{...}")
        raise


def _pack_dict(items: dict[Any, Any], form: Form) -> Any:
    key: Any = None
    if all(type(key) is str and _is_utf8(key) and key != form.escaped for key in items):
        packed: dict[str, Any] = {}
        try:
            for key, item in items.items():
                packed[key] = _pack(item, form)
        except Unstorable as error:
            error.steps.append(f"[{key!r}]")
            raise
        return packed
    flat: list[Any] = []
    step = ""
    try:
        for place, (key, item) in enumerate(items.items()):
            step = f".keys()[{place}]"
            flat.append(_pack(key, form))
            step = f"[{key!r:.80}]"
            flat.append(_pack(item, form))
    except Unstorable as error:
        error.steps.append(step)
        raise
    return form.tag("dict", flat)


def _pack_registered(value: Any, kind: type, form: Form) -> Any:
    registered = by_type.get(kind)
    if registered is None:
        raise Unstorable(
            f"{a_thing(kind)} cannot be stored in a remote tier; give the function a return annotation or decode_as=..."
        )
    try:
        body = registered.encode(value)
    except Exception as error:
        raise Unstorable(f"{a_thing(kind)} cannot be stored: its encode raised {error!r}") from error
    return form.tag("object", [registered.name, _pack(body, form)])


def _is_utf8(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _zone(zone: datetime.tzinfo | None) -> Any:
    if zone is None:
        return None
    kind = type(zone)
    if kind is datetime.timezone:
        offset = zone.utcoffset(None)
        assert offset is not None
        name = zone.tzname(None)
        own = name if name != datetime.timezone(offset).tzname(None) else None
        return [offset // datetime.timedelta(microseconds=1), own]
    key = getattr(zone, "key", None)
    if kind is zoneinfo.ZoneInfo and isinstance(key, str):
        return key
    raise Unstorable(
        f"a time whose tzinfo is {a_thing(kind)} cannot be stored in a remote tier; "
        "accepted: datetime.timezone and zoneinfo.ZoneInfo with a key"
    )


def _moment(value: datetime.datetime | datetime.time) -> list[Any]:
    return [value.replace(tzinfo=None, fold=0).isoformat(), value.fold, _zone(value.tzinfo)]


_SCALARS: Final[dict[type, Callable[[Any], Any]]] = {
    decimal.Decimal: str,
    uuid.UUID: lambda value: value.hex,
    datetime.datetime: _moment,
    datetime.date: datetime.date.isoformat,
    datetime.time: _moment,
    datetime.timedelta: lambda value: [value.days, value.seconds, value.microseconds],
}


def _zone_back(told: Any) -> datetime.tzinfo | None:
    if told is None:
        return None
    if isinstance(told, str):
        return zoneinfo.ZoneInfo(told)
    offset = datetime.timedelta(microseconds=told[0])
    if told[1] is not None:
        return datetime.timezone(offset, told[1])
    return datetime.timezone(offset) if offset else datetime.timezone.utc


def _moment_back(kind: type[Any]) -> Callable[[Any], Any]:
    def back(body: Any) -> Any:
        return kind.fromisoformat(body[0]).replace(tzinfo=_zone_back(body[2]), fold=body[1])

    return back


def _object_back(body: Any) -> Any:
    registered = by_name.get(body[0])
    if registered is None:
        raise CodecError(f"no type is registered under the name {body[0]!r}")
    return registered.decode(body[1])


_BACK: Final[dict[str, Callable[[Any], Any]]] = {
    "tuple": tuple,
    "set": set,
    "frozenset": frozenset,
    "dict": lambda body: dict(zip(body[::2], body[1::2], strict=True)),
    "Decimal": decimal.Decimal,
    "UUID": lambda body: uuid.UUID(hex=body),
    "datetime": _moment_back(datetime.datetime),
    "date": datetime.date.fromisoformat,
    "time": _moment_back(datetime.time),
    "timedelta": lambda body: datetime.timedelta(*body),
    "int": lambda body: int(body, 16),
    "str": lambda body: bytes.fromhex(body).decode("utf-8", "surrogatepass"),
    "bytes": lambda body: base64.b64decode(body, validate=True),
    "float": float,
    "object": _object_back,
}


def unpack(kind: str, body: Any) -> Any:
    """What a tag stands for; everything in `body` is a value already. May raise anything on what nobody packed."""
    return _BACK[kind](body)
