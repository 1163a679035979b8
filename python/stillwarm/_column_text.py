"""Values to the text of a column and back, by the column's type.

Thread rule: pure functions, any thread. They may run a value's own code.
Refuses to know: tables, and where a value comes from.

Times without a zone are UTC, in both directions; so is an aware time that goes into a column without one.
"""

from __future__ import annotations

import dataclasses
import enum
import json
import re
from collections.abc import Iterator, Mapping
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any, Final
from uuid import UUID, uuid4

from stillwarm._durations import shown
from stillwarm._sql_types import Column
from stillwarm.errors import CodecError

_INTEGERS: Final = {"smallint": 2**15, "integer": 2**31, "bigint": 2**63}
_FLOATS: Final = ("real", "double precision")
_JSON: Final = ("json", "jsonb")
_TEXTS: Final = ("text", "character varying", "character", "citext")
_TIME: Final = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)(?:[ T](\d\d):(\d\d):(\d\d)(?:\.(\d{1,6}))?)?(?:([+-])(\d\d)(?::?(\d\d))?(?::?(\d\d))?)?"
)


def to_text(value: Any, column: Column) -> str | None:
    """What is sent for the value; None is NULL.

    Raises:
        CodecError: the value cannot be had by a column of this type; names the column, the value and the type.
    """
    if value is None:
        if column.not_null:
            raise _refuse(value, column, "the column is NOT NULL")
        return None
    try:
        if column.base in _JSON and not column.array:
            text = json_text(value)
        elif column.array:
            text = array_text(value, dataclasses.replace(column, type=column.type[:-2], not_null=False))
        else:
            text = _one(value, column)
    except (TypeError, ValueError, RecursionError) as error:
        if isinstance(error, CodecError):
            raise
        raise _refuse(value, column, str(error)) from None
    if "\0" in text:
        raise _refuse(value, column, "PostgreSQL has no NUL in a text")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise _refuse(value, column, "a lone surrogate is no text") from None
    return text


def _refuse(value: object, column: Column, reason: str) -> CodecError:
    return CodecError(f"column {column.name!r} ({column.type}): {shown(value)}: {reason}")


def _one(value: Any, column: Column) -> str:
    if isinstance(value, enum.Enum):
        value = value.value
    text = plain_text(value, zone=column.base.endswith("with time zone"))
    if column.base in _INTEGERS:
        try:
            number = int(text)
        except ValueError:
            raise _refuse(value, column, "not a whole number") from None
        if not -_INTEGERS[column.base] <= number < _INTEGERS[column.base]:
            raise _refuse(value, column, "out of range")
    elif column.base in _FLOATS or column.base == "numeric":
        try:
            float(text)
        except ValueError:
            raise _refuse(value, column, "not a number") from None
    elif column.base == "boolean" and text not in ("true", "false"):
        raise _refuse(value, column, "accepted: True or False")
    elif column.length is not None and len(text) > column.length:
        raise _refuse(value, column, f"longer than {column.length} characters")
    return text


def plain_text(value: Any, *, zone: bool = False) -> str:
    """The text of a value whatever its column: bool, numbers, dates, bytes as `\\x` hex; everything else as JSON."""
    if isinstance(value, str):
        return str(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return int.__repr__(value)
    if isinstance(value, float):
        return float.__repr__(value)  # its own: that of numpy.float64 says more than the number
    if isinstance(value, (Decimal, UUID)):
        return str(value)
    if isinstance(value, datetime):
        if zone:
            return (value if value.tzinfo else value.replace(tzinfo=timezone.utc)).isoformat()
        return (value.astimezone(timezone.utc).replace(tzinfo=None) if value.tzinfo else value).isoformat()
    if isinstance(value, (date, time)):
        return value.isoformat()
    if isinstance(value, timedelta):
        return f"{value // timedelta(microseconds=1)} microseconds"
    if isinstance(value, (bytes, bytearray, memoryview)):
        return "\\x" + bytes(value).hex()
    return json_text(value)


def json_text(value: Any) -> str:
    """JSON as PostgreSQL reads it: no NaN, no infinity; dataclasses and models by their fields, the rest by its str."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, default=_json_default)


def _json_default(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, (set, frozenset)):
        return sorted(value, key=repr)
    if isinstance(value, Mapping):
        return dict(value)
    dump = getattr(value, "model_dump", None)
    if callable(dump):
        return dump(mode="json")
    if isinstance(value, (datetime, date, time)):
        return value.isoformat()
    if isinstance(value, (Decimal, UUID)):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no JSON")


def array_text(values: Any, element: Column | None = None) -> str:
    """The array literal of a list; the elements are quoted, so that any text may be in them."""
    if isinstance(values, (str, bytes, bytearray, memoryview, Mapping)) or not hasattr(values, "__iter__"):
        raise TypeError("not a list")
    if isinstance(values, Iterator):  # where it is sent again there would be nothing left
        raise TypeError("not a list: an iterator gives its items once")
    parts = []
    for item in values:
        if item is None:
            parts.append("NULL")
        elif isinstance(item, (list, tuple)):
            parts.append(array_text(item, element))
        else:
            text = plain_text(item) if element is None else to_text(item, element)
            parts.append('"' + str(text).replace("\\", "\\\\").replace('"', '\\"') + '"')
    return "{" + ",".join(parts) + "}"


def from_text(text: str | None, column: Column) -> Any:
    """The value that a text of the column stands for.

    Raises:
        CodecError: the text is none of this type; names the column.
    """
    if text is None:
        return None
    try:
        if column.array:
            return _array(text, dataclasses.replace(column, type=column.type[:-2]))
        return _value(text, column.base)
    except (ValueError, ArithmeticError, StopIteration, IndexError):
        raise CodecError(f"column {column.name!r}: {shown(text)} is no {column.type}") from None


def _value(text: str, base: str) -> Any:
    if base in _TEXTS:
        return text
    if base in _INTEGERS:
        return int(text)
    if base in _FLOATS:
        return float(text)
    if base == "numeric":
        return Decimal(text)
    if base == "boolean":
        return text in ("t", "true")
    if base in _JSON:
        return json.loads(text)
    if base == "bytea":
        if not text.startswith("\\x"):
            raise ValueError(text)
        return bytes.fromhex(text[2:])
    if base == "uuid":
        return UUID(text)
    if base == "date" or base.startswith("timestamp"):
        return _moment(text, base)
    return text


def _moment(text: str, base: str) -> date | datetime:
    aware = base.endswith("with time zone")
    if text in ("infinity", "-infinity"):
        edge = datetime.max if text == "infinity" else datetime.min
        return edge.date() if base == "date" else edge.replace(tzinfo=timezone.utc) if aware else edge
    found = _TIME.fullmatch(text)
    if found is None:
        raise ValueError(text)
    year, month, day, hour, minute, second, fraction, sign, hours, minutes, seconds = found.groups(default="0")
    if base == "date":
        return date(int(year), int(month), int(day))
    micro = int(fraction.ljust(6, "0")) if found[7] else 0
    at = datetime(int(year), int(month), int(day), int(hour), int(minute), int(second), micro)
    if not aware:
        return at
    offset = timedelta(hours=int(hours), minutes=int(minutes), seconds=int(seconds))
    return at.replace(tzinfo=timezone(-offset if sign == "-" else offset))


def _array(text: str, element: Column) -> list[Any]:
    if not text.startswith("{") or not text.endswith("}"):
        raise ValueError(text)
    tokens = iter(re.findall(r'[{},]|"(?:[^"\\]|\\.)*"|[^{},"]+', text, re.DOTALL))
    next(tokens)
    return _items(tokens, element)


def _items(tokens: Iterator[str], element: Column) -> list[Any]:
    items: list[Any] = []
    for token in tokens:
        if token == "}":
            return items
        if token == "{":
            items.append(_items(tokens, element))
        elif token.startswith('"'):
            items.append(_value(re.sub(r"\\(.)", r"\1", token[1:-1], flags=re.DOTALL), element.base))
        elif token != ",":
            items.append(None if token == "NULL" else _value(token, element.base))
    raise ValueError("the array does not end")


def default_of(column: Column) -> str | None:
    """The text that the column's default gives, for a statement that names every column."""
    default = column.default
    if default is None:
        return None
    if default == "gen_random_uuid()":
        return str(uuid4())
    if default in ("now()", "current_timestamp"):
        return plain_text(datetime.now(timezone.utc), zone=column.base.endswith("with time zone"))
    return default[1:-1] if default.startswith("'") else default
