"""Codecs with a declared type: every family of types comes back, open parts lose nothing, others are refused at once.

Thread rule: none.
Refuses to know: tiers and functions.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import inspect
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

import pytest

from coding import (
    AT,
    BOTH,
    ITEM,
    OFFER,
    PARIS,
    Basket,
    Colour,
    Foo,
    Item,
    Level,
    Offer,
    Old,
    Open,
    Packed,
    Point,
    Price,
    Renamed,
    Row,
    Strict,
    Tree,
    back,
    same,
)
from stillwarm import ConfigError
from stillwarm.codecs import codec_for
from stillwarm.errors import CodecError


@BOTH
@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (Price, Price(decimal.Decimal("1.50"))),
        (Offer, OFFER),
        (list[Offer], [OFFER, OFFER]),
        (dict[str, Offer | None], {"a": OFFER, "b": None}),
        (Tree, Tree("a", [Tree("b", [Tree("c")])])),
        (Open, Open("a", [1, {"b": None}])),
        (Old, Old(decimal.Decimal(1), "a")),
        (Row, {"asin": "B0", "price": decimal.Decimal("2.50")}),
        (list[Row], [{"asin": "B0", "price": decimal.Decimal("2.50")}]),
        (Point, Point(1, 2.5)),
        (tuple[Point, ...], (Point(1), Point(2))),
        (Packed, Packed("a", AT)),
        (Packed | None, None),
        (decimal.Decimal, decimal.Decimal("1.10")),
        (uuid.UUID, uuid.UUID(int=7)),
        (dt.datetime, AT),
        (dt.datetime, AT.replace(tzinfo=None)),
        (dt.datetime, AT.astimezone(dt.timezone.utc)),
        (dt.date, AT.date()),
        (dt.time, dt.time(1, 2, 3, 4)),
        (dt.timedelta, dt.timedelta(days=-1, microseconds=5)),
        (Colour, Colour.BLUE),
        (Level, Level.HIGH),
        (dict[Colour, list[Level]], {Colour.RED: [Level.LOW]}),
        (set[int], {1, 2}),
        (frozenset[str], frozenset({"a"})),
        (tuple[int, str, bytes], (1, "a", b"\xff")),
        (dict[int, str], {1: "a"}),
        (dict[dt.datetime, set[dt.date]], {AT: {AT.date()}}),
        (dict[uuid.UUID, float], {uuid.UUID(int=1): 0.25}),
        (int | str | None, "a"),
        (int | float, 1),
        (Literal["a", "b"], "a"),
        (Sequence[int], [1, 2]),
        (Mapping[str, set[int]], {"a": {1}}),
        (Annotated[list[int], "a note"], [1]),
    ],
)
def test_codecs_typed_values_come_back(name: str, kind: Any, value: Any) -> None:
    assert same(back(codec_for(name, kind), value), value)


@BOTH
@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (Item, ITEM),
        (list[Item], [ITEM]),
        (dict[str, Item], {"a": ITEM}),
        (Item | None, None),
        (Item | Strict, Strict(day=AT.date(), tags={"b", "a"})),
        (tuple[Item, int], (ITEM, 1)),
        (Strict, Strict(day=AT.date(), tags={"a"})),
        (Renamed, Renamed.model_validate({"in": "x"})),
    ],
)
def test_codecs_pydantic_models_come_back(name: str, kind: Any, value: Any) -> None:
    codec = codec_for(name, kind)
    assert codec.name == "pydantic"
    assert same(back(codec, value), value)


def test_codecs_a_dataclass_around_a_model_is_pydantics() -> None:
    @dataclasses.dataclass
    class Around:
        item: Item

    Around.__annotations__["item"] = Item
    codec = codec_for("msgpack", Around)
    assert codec.name == "pydantic"
    assert back(codec, Around(ITEM)) == Around(ITEM)


@BOTH
@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (dict[str, Any], {"at": AT, "price": decimal.Decimal("1.0"), "t": (1, {2})}),
        (dict, {1: (2,)}),
        (list, [(1,), {2}]),
        (tuple, (1, [2])),
        (object, (1, 2)),
        (uuid.UUID | str, uuid.UUID(int=1)),
        (dt.datetime | dt.date | None, AT.date()),
        (list[decimal.Decimal | str], [decimal.Decimal(1), "1"]),
        (None, {1}),
        (type(None), None),
        (Any, AT.replace(tzinfo=PARIS)),
        (inspect.Signature.empty, frozenset({1})),
    ],
)
def test_codecs_types_that_say_less_than_the_value_lose_nothing(name: str, kind: Any, value: Any) -> None:
    codec = codec_for(name, kind)
    assert codec.id == codec_for(name).id
    assert same(back(codec, value), value)


def test_codecs_floats_that_json_cannot_write_are_refused() -> None:
    for kind, value in [
        (float, float("nan")),
        (list[float | None], [1.0, float("inf")]),
        (Point, Point(1, -float("inf"))),
    ]:
        assert same(back(codec_for("msgpack", kind), value), value)
        with pytest.raises(CodecError):
            codec_for("json", kind).encode(value)
    with pytest.raises(CodecError, match="a float that is NaN or infinite"):
        codec_for("json", list[float | None]).encode([None, float("nan")])
    assert back(codec_for("json", list[float | None]), [None, 1.5]) == [None, 1.5]


@BOTH
def test_codecs_an_open_part_that_would_change_is_refused(name: str) -> None:
    codec = codec_for(name, Open)
    assert back(codec, Open("a", {"b": 1})) == Open("a", {"b": 1})
    for extra in (decimal.Decimal(1), (1,), {1}, AT):
        with pytest.raises(CodecError, match="leaves parts of it open"):
            codec.encode(Open("a", extra))


@BOTH
@pytest.mark.parametrize(
    ("kind", "value", "path", "thing"),
    [
        (Basket, Basket([1, {"price": Foo()}]), "value.items[1]['price']", "a coding.Foo"),
        (
            dict[str, list[Price]],
            {"items": [Price(decimal.Decimal(1)), Price(Foo())]},
            "value['items'][1].amount",
            "a coding.Foo",
        ),  # type: ignore[arg-type]
        (list[Point], [Point(1), Foo()], "value[1]", "a coding.Foo"),
        (Item, Item.model_construct(name="a", price=Foo(), at=AT), "value.price", "a coding.Foo"),  # type: ignore[arg-type]
    ],
    ids=["basket", "prices", "points", "model"],
)
def test_codecs_a_typed_value_that_does_not_go_is_named_with_its_path(
    name: str, kind: Any, value: Any, path: str, thing: str
) -> None:
    with pytest.raises(CodecError) as caught:
        codec_for(name, kind).encode(value)
    assert str(caught.value).startswith(f"{path}: {thing} cannot be stored in a remote tier: ")


def test_codecs_an_int_beyond_64_bits_is_named_where_msgpack_has_none() -> None:
    with pytest.raises(CodecError, match=r"value\[0\]\.x: an int cannot be stored in a remote tier: "):
        codec_for("msgpack", list[Point]).encode([Point(2**70)])
    assert back(codec_for("json", list[Point]), [Point(2**70)]) == [Point(2**70)]


@BOTH
@pytest.mark.parametrize("kind", [Foo, list[Foo], dict[str, Foo], Iterator[int], complex, "Offer", Foo | Item], ids=str)
def test_codecs_a_type_that_cannot_come_back_is_refused_at_once(name: str, kind: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        codec_for(name, kind)
    named = kind.__qualname__ if isinstance(kind, type) else repr(kind)
    assert str(caught.value).startswith(f"decode_as={named} cannot be stored in a remote tier (")
    assert "signed_pickle" in str(caught.value)
