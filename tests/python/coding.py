"""What the tests of codecs share: classes of every kind that can be declared, values of them, and an exact comparison.

Thread rule: pure functions.
Refuses to know: what any test wants to show.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import uuid
import zoneinfo
from typing import Any, NamedTuple, Optional, TypedDict, Union

import msgspec
import pydantic
import pytest

from stillwarm.codecs import Codec

BOTH = pytest.mark.parametrize("name", ["msgpack", "json"])
PARIS = zoneinfo.ZoneInfo("Europe/Paris")


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Foo:
    pass


@dataclasses.dataclass
class Price:
    amount: decimal.Decimal
    currency: str = "EUR"


@dataclasses.dataclass(frozen=True)
class Offer:
    id: uuid.UUID
    price: Price | None
    seen: dt.datetime
    colour: Colour
    tags: frozenset[str] = frozenset()
    levels: tuple[Level, ...] = ()


@dataclasses.dataclass
class Tree:
    name: str
    children: list[Tree] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Old:
    maybe: Optional[decimal.Decimal]  # noqa: UP045 -- as many write it
    either: Union[int, str]  # noqa: UP007


@dataclasses.dataclass
class Open:
    name: str
    extra: Any = None


@dataclasses.dataclass
class Basket:
    items: list[Any]


class Row(TypedDict):
    asin: str
    price: decimal.Decimal


class Point(NamedTuple):
    x: int
    y: float = 0.5


class Packed(msgspec.Struct):
    name: str
    at: dt.datetime


class Item(pydantic.BaseModel):
    name: str = pydantic.Field(alias="itemName")
    price: decimal.Decimal
    at: dt.datetime
    ratio: float = 0.0

    model_config = pydantic.ConfigDict(populate_by_name=True)


class Strict(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(strict=True)
    day: dt.date
    tags: set[str]


class Renamed(pydantic.BaseModel):
    name: str = pydantic.Field(serialization_alias="out", validation_alias="in")


class Money:
    def __init__(self, cents: int) -> None:
        self.cents = cents

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Money) and other.cents == self.cents

    def __hash__(self) -> int:
        return self.cents


def back(codec: Codec, value: Any) -> Any:
    payload = codec.encode(value)
    assert type(payload) is bytes
    return codec.decode(payload)


def same(a: Any, b: Any) -> bool:
    """Equal, in every type and zone, with NaN equal to itself."""
    if type(a) is not type(b):
        return False
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return len(a) == len(b) and all(
            same(k, m) and same(v, w) for (k, v), (m, w) in zip(a.items(), b.items(), strict=True)
        )
    if isinstance(a, (set, frozenset)):
        return len(a) == len(b) and all(any(same(x, y) for y in b) for x in a)
    if isinstance(a, (dt.datetime, dt.time, decimal.Decimal, float)):
        return repr(a) == repr(b)
    return bool(a == b)


UTC_1 = dt.timezone(dt.timedelta(hours=1))
AT = dt.datetime(2024, 5, 6, 7, 8, 9, 123456, tzinfo=UTC_1)
OFFER = Offer(uuid.UUID(int=5), Price(decimal.Decimal("1.50")), AT, Colour.RED, frozenset({"a"}), (Level.HIGH,))


ITEM = Item(name="a", price=decimal.Decimal("1.50"), at=AT, ratio=float("inf"))
