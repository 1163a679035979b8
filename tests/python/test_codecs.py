"""Codecs: what goes into a payload comes back, and what cannot is named with the path to it.

Thread rule: one test uses a codec from several threads.
Refuses to know: tiers. Envelopes are tested where they are made (tests/cpp/codec); here only their way through Python.
"""

from __future__ import annotations

import collections
import dataclasses
import datetime as dt
import decimal
import enum
import inspect
import os
import pickle
import subprocess
import sys
import threading
import uuid
import zoneinfo
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple, Optional, TypedDict, Union

import msgspec
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stillwarm import ConfigError, _core, _tagged, codecs
from stillwarm.codecs import Codec, codec_for, register, signed_pickle
from stillwarm.errors import CodecError

PATHS = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
BOTH = pytest.mark.parametrize("name", ["msgpack", "json"])
PARIS = zoneinfo.ZoneInfo("Europe/Paris")
FIXED = settings(derandomize=True, max_examples=100, deadline=None)


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


@pytest.fixture
def money() -> Iterator[None]:
    register(Money, lambda m: {"cents": m.cents, "seen": (1, 2)}, lambda data: Money(data["cents"]), "test.money")
    yield
    del _tagged.by_type[Money], _tagged.by_name["test.money"]


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


# ---------------------------------------------------------------------------------------------- without a declared type

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(),
    st.text(),
    st.binary(max_size=20),
)
PLAIN = st.recursive(SCALARS, lambda s: st.lists(s, max_size=4) | st.dictionaries(st.text(max_size=5), s, max_size=4))
ZONES = st.sampled_from(
    [
        None,
        dt.timezone.utc,
        dt.timezone(dt.timedelta(hours=-3, minutes=7)),
        dt.timezone(dt.timedelta(hours=1), "X"),
        PARIS,
    ]
)
HASHABLE = st.one_of(
    SCALARS,
    st.integers(),
    st.text(st.characters(), max_size=5),
    st.decimals(allow_nan=False) | st.just(decimal.Decimal("NaN")),
    st.uuids(),
    st.datetimes(timezones=ZONES),
    st.dates(),
    st.times(timezones=ZONES),
    st.timedeltas(),
)


@st.composite
def frozen(draw: st.DrawFn, depth: int = 2) -> Any:
    if depth == 0:
        return draw(HASHABLE)
    part = frozen(depth - 1)
    return draw(st.one_of(HASHABLE, st.tuples(part, part), st.frozensets(part, max_size=3)))


@st.composite
def anything(draw: st.DrawFn, depth: int = 3) -> Any:
    if depth == 0:
        return draw(frozen())
    part = anything(depth - 1)
    return draw(
        st.one_of(
            frozen(),
            st.lists(part, max_size=3),
            st.tuples(part),
            st.dictionaries(frozen(), part, max_size=3),
            st.dictionaries(st.text(max_size=3) | st.just("$stillwarm"), part, max_size=3),
            st.sets(frozen(), max_size=3),
        )
    )


@BOTH
@FIXED
@given(value=PLAIN)
def test_codecs_plain_data_comes_back(name: str, value: Any) -> None:
    assert same(back(codec_for(name), value), value)


@BOTH
@FIXED
@given(value=anything())
def test_codecs_everything_untyped_comes_back_with_its_types(name: str, value: Any) -> None:
    assert same(back(codec_for(name), value), value)


def test_codecs_the_comparison_of_these_tests_would_notice() -> None:
    """The control of the two tests above."""
    utc = dt.datetime(2024, 1, 1, tzinfo=dt.timezone.utc)
    for a, b in [
        ((1,), [1]),
        (1, True),
        (1, 1.0),
        ({"a": (1,)}, {"a": [1]}),
        (utc, utc.astimezone(PARIS)),
        (decimal.Decimal("1.0"), decimal.Decimal("1.00")),
        ({1}, frozenset({1})),
        ({1: 2}, {"1": 2}),
    ]:
        assert not same(a, b)


@FIXED
@given(value=anything())
def test_codecs_is_plain_agrees_with_msgspec(value: Any) -> None:
    try:
        kept = same(msgspec.msgpack.decode(msgspec.msgpack.encode(value)), value)
    except (TypeError, ValueError, OverflowError, msgspec.MsgspecError):
        kept = False
    plain = _core.is_plain(value)
    assert not plain or kept
    # msgspec keeps a few things more: keys that are no text, and its own timestamps.
    if kept and not plain:
        assert type(value) in (dict, list, dt.datetime)


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (2**64 - 1, True),
        (2**64, False),
        (-(2**63), True),
        (-(2**63) - 1, False),
        ("\ud800", False),
        ("日本😀", True),
        ({"\udfff": 1}, False),
        ({1: 1}, False),
        (Level.LOW, False),
        ((), False),
        (bytearray(b"x"), False),
        (collections.OrderedDict(a=1), False),
        (Point(1), False),
        (float("nan"), True),
    ],
)
def test_codecs_is_plain_takes_exact_types_only(value: Any, plain: bool) -> None:
    assert _core.is_plain(value) is plain
    assert _core.is_plain([{"deep": [value]}]) is plain


def test_codecs_is_plain_runs_no_python_code() -> None:
    class Loud(str):
        def __hash__(self) -> int:
            raise AssertionError

        def __eq__(self, other: object) -> bool:
            raise AssertionError

    assert not _core.is_plain([Loud("x")])


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


@BOTH
def test_codecs_depth_is_bounded(name: str) -> None:
    codec = codec_for(name)
    assert _core.is_plain(nested(99))
    assert not _core.is_plain(nested(100))
    assert back(codec, nested(200)) == nested(200)
    loop: list[Any] = []
    loop.append(loop)
    for value in (nested(100_000), loop):
        with pytest.raises(CodecError, match="nested too deeply, or contains itself"):
            codec.encode(value)


@BOTH
@pytest.mark.parametrize(
    ("value", "path", "thing"),
    [
        (Foo(), "value", "a test_codecs.Foo"),
        ({"items": [1, 2, 3, Foo()]}, "value['items'][3]", "a test_codecs.Foo"),
        ((1, [Offer]), "value[1][0]", "a type"),
        ({"a": {("k", 1): {Colour.RED}}}, "value['a'][('k', 1)]{...}", "a test_codecs.Colour"),
        ({"a": {Level.LOW: 1}}, "value['a'].keys()[0]", "a test_codecs.Level"),
        ({"p": Price(decimal.Decimal(1))}, "value['p']", "a test_codecs.Price"),
        ([Point(1)], "value[0]", "a test_codecs.Point"),
        ({"o": collections.OrderedDict()}, "value['o']", "a collections.OrderedDict"),
        ([3j], "value[0]", "a complex"),
    ],
)
def test_codecs_an_unknown_class_is_named_with_its_path(name: str, value: Any, path: str, thing: str) -> None:
    with pytest.raises(CodecError) as caught:
        codec_for(name).encode(value)
    assert str(caught.value) == (
        f"{path}: {thing} cannot be stored in a remote tier; give the function a return annotation or decode_as=..."
    )


@BOTH
def test_codecs_numbers_that_equal_nothing_come_back(name: str) -> None:
    for text in ("sNaN", "-NaN123", "-0", "1E+999999", "-Infinity"):
        assert str(back(codec_for(name), decimal.Decimal(text))) == text
    assert [repr(x) for x in back(codec_for(name), [float("nan"), float("-inf"), -0.0])] == ["nan", "-inf", "-0.0"]


def test_codecs_an_unknown_time_zone_is_named() -> None:
    class Zone(dt.tzinfo):
        def utcoffset(self, at: dt.datetime | None) -> dt.timedelta:
            return dt.timedelta(0)

    with pytest.raises(CodecError, match=r"value\['at'\]: a time whose tzinfo is a .*Zone cannot be stored"):
        codec_for().encode({"at": dt.datetime(2024, 1, 1, tzinfo=Zone())})


def test_codecs_a_repeated_hour_keeps_its_fold_and_its_zone() -> None:
    for fold in (0, 1):
        at = dt.datetime(2024, 10, 27, 2, 30, tzinfo=PARIS, fold=fold)
        got = back(codec_for(), at)
        assert (got.utcoffset(), got.fold, got.tzinfo) == (at.utcoffset(), fold, PARIS)


# ------------------------------------------------------------------------------------------------- with a declared type

UTC_1 = dt.timezone(dt.timedelta(hours=1))
AT = dt.datetime(2024, 5, 6, 7, 8, 9, 123456, tzinfo=UTC_1)
OFFER = Offer(uuid.UUID(int=5), Price(decimal.Decimal("1.50")), AT, Colour.RED, frozenset({"a"}), (Level.HIGH,))


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
        (dict[uuid.UUID, float], {uuid.UUID(int=1): 0.25}),
        (int | str | None, "a"),
        (int | float, 1),
        (Literal["a", "b"], "a"),
        (Sequence[int], [1, 2]),
        (Mapping[str, set[int]], {"a": {1}}),
        (Annotated[list[int], "a note"], [1]),
    ],
    ids=str,
)
def test_codecs_typed_values_come_back(name: str, kind: Any, value: Any) -> None:
    assert same(back(codec_for(name, kind), value), value)


ITEM = Item(name="a", price=decimal.Decimal("1.50"), at=AT, ratio=float("inf"))


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
    ids=str,
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
    ids=str,
)
def test_codecs_types_that_say_less_than_the_value_lose_nothing(name: str, kind: Any, value: Any) -> None:
    codec = codec_for(name, kind)
    assert codec.id == codec_for(name).id
    assert same(back(codec, value), value)


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
        (Basket, Basket([1, {"price": Foo()}]), "value.items[1]['price']", "a test_codecs.Foo"),
        (
            dict[str, list[Price]],
            {"items": [Price(decimal.Decimal(1)), Price(Foo())]},
            "value['items'][1].amount",
            "a test_codecs.Foo",
        ),  # type: ignore[arg-type]
        (list[Point], [Point(1), Foo()], "value[1]", "a test_codecs.Foo"),
        (Item, Item.model_construct(name="a", price=Foo(), at=AT), "value.price", "a test_codecs.Foo"),  # type: ignore[arg-type]
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


# ------------------------------------------------------------------------------------------------------ broken payloads


@BOTH
@pytest.mark.parametrize("kind", [None, Offer, Item], ids=str)
def test_codecs_every_broken_payload_is_a_codec_error(name: str, kind: Any) -> None:
    codec = codec_for(name, kind)
    payload = codec.encode({None: {"a": (1, AT)}, Offer: OFFER, Item: ITEM}[kind])
    for size in range(len(payload)):
        with pytest.raises(CodecError):
            codec.decode(payload[:size])
    for place in range(len(payload)):
        for flip in (1, 0x80, 0xFF):
            broken = bytearray(payload)
            broken[place] ^= flip
            try:
                codec.decode(bytes(broken))  # the envelope's checksum is what sees a change of a letter
            except CodecError:
                pass


@BOTH
def test_codecs_old_data_of_another_type_is_a_codec_error(name: str) -> None:
    payload = codec_for(name, Price).encode(Price(decimal.Decimal(1)))
    with pytest.raises(CodecError, match=f"a payload of {name} cannot be decoded: ValidationError"):
        codec_for(name, Point).decode(payload)


def test_codecs_unknown_tags_are_codec_errors() -> None:
    for payload in (b'{"$stillwarm":["no such kind",1]}', b'{"$stillwarm":1}', b'{"$stillwarm":["object",["gone",1]]}'):
        with pytest.raises(CodecError):
            codec_for("json").decode(payload)
    with pytest.raises(CodecError, match="unknown extension type 99"):
        codec_for().decode(msgspec.msgpack.encode(msgspec.msgpack.Ext(99, b"\xc0")))
    with pytest.raises(CodecError, match="registered under the name 'gone'"):
        codec_for("json").decode(b'{"$stillwarm":["object",["gone",1]]}')


def test_codecs_the_bytes_of_tags_stay_the_same() -> None:
    """Stored values outlive a release."""
    value = [(1,), {2}, decimal.Decimal("1.0"), dt.datetime(2024, 1, 2, tzinfo=dt.timezone.utc), 2**64]
    assert codec_for("json").encode(value) == (
        b'[{"$stillwarm":["tuple",[1]]},{"$stillwarm":["set",[2]]},{"$stillwarm":["Decimal","1.0"]},'
        b'{"$stillwarm":["datetime",["2024-01-02T00:00:00",0,[0,null]]]},{"$stillwarm":["int","0x10000000000000000"]}]'
    )
    assert codec_for().encode((1, frozenset())) == b"\xc7\x05\x01\x92\x01\xd4\x03\x90"
    assert _tagged.KINDS.index("object") == 14


def test_codecs_ids_tell_payloads_apart() -> None:
    key = b"k" * 16
    made = [
        codec_for(),
        codec_for(decode_as=Price),
        codec_for("json"),
        codec_for("json", Price),
        codec_for(decode_as=Item),
    ]
    made.append(signed_pickle(key))
    assert [codec.id for codec in made] == [1, 2, 3, 4, 5, 6]
    for codec in made:
        assert [other.id for other in made if codec.matches(other.id)] == [codec.id]
    assert codec_for(made[0]) is made[0]
    assert codec_for(made[5], Price) is made[5]


# ------------------------------------------------------------------------------------------------------- signed pickles


class Bomb:
    exploded = False

    def __reduce__(self) -> tuple[Any, ...]:
        return (explode, ())


def explode() -> None:
    Bomb.exploded = True


def test_codecs_signed_pickle_keeps_anything_that_pickles() -> None:
    codec = codec_for(signed_pickle("a key of 16 byte"), decode_as=Foo)
    assert back(codec, OFFER) == OFFER
    assert isinstance(back(codec, [Foo()])[0], Foo)
    with pytest.raises(CodecError, match="value: a function cannot be pickled"):
        codec.encode(lambda: 1)


def test_codecs_nothing_is_unpickled_before_the_signature_is_checked() -> None:
    codec = signed_pickle(b"k" * 16)
    naive = pickle.dumps(Bomb())
    pickle.loads(naive)
    assert Bomb.exploded, "the control: without a signature it goes off"
    Bomb.exploded = False
    for payload in (naive, b"\0" * 32 + naive, signed_pickle(b"x" * 16).encode(Bomb()), b"", b"short"):
        with pytest.raises(CodecError, match="wrong signature"):
            codec.decode(payload)
    assert not Bomb.exploded


def test_codecs_every_change_of_a_signed_pickle_is_seen() -> None:
    codec = signed_pickle(b"k" * 16)
    payload = codec.encode({"a": [1, 2, 3]})
    for place in range(len(payload)):
        for bit in range(8):
            broken = bytearray(payload)
            broken[place] ^= 1 << bit
            with pytest.raises(CodecError, match="wrong signature"):
                codec.decode(bytes(broken))
    for size in range(len(payload)):
        with pytest.raises(CodecError, match="wrong signature"):
            codec.decode(payload[:size])


def test_codecs_keys_rotate() -> None:
    old, new = b"old key of 16 by", "new key of 16 by"
    rotated = signed_pickle([new, old])
    assert rotated.decode(signed_pickle(old).encode(1)) == 1
    assert signed_pickle(new).decode(rotated.encode(2)) == 2
    with pytest.raises(CodecError):
        signed_pickle(old).decode(rotated.encode(2))


@pytest.mark.parametrize("keys", [b"", "short", b"k" * 15, [], ["k" * 16, "short"]], ids=str)
def test_codecs_short_keys_are_refused(keys: Any) -> None:
    with pytest.raises(ConfigError, match=r"signed_pickle\(key\).*16 bytes") as caught:
        signed_pickle(keys)
    assert "short'" not in str(caught.value), "no part of a key in a message"


# ------------------------------------------------------------------------------------------ own codecs, registered types


class Upper:
    id = 200
    name = "upper"

    def encode(self, value: Any) -> bytes:
        return value.upper().encode()

    def decode(self, payload: bytes) -> Any:
        return payload.decode().lower()


def test_codecs_an_own_codec_is_used_and_its_errors_are_ours() -> None:
    codec = codec_for(Upper(), decode_as=Foo)
    assert (codec.id, codec.name, codec.encode("ab"), codec.decode(b"AB")) == (200, "upper", b"AB", "ab")
    assert codec.matches(200)
    assert not codec.matches(1)
    with pytest.raises(CodecError, match="codec 'upper' raised AttributeError"):
        codec.encode(1)
    with pytest.raises(CodecError, match="a payload of upper cannot be decoded: UnicodeDecodeError"):
        codec.decode(b"\xff")


def test_codecs_an_own_codec_makes_bytes() -> None:
    class Texts(Upper):
        def encode(self, value: Any) -> Any:
            return "text"

    with pytest.raises(CodecError, match="made a str and not bytes"):
        codec_for(Texts()).encode(1)


@pytest.mark.parametrize("codec_id", [0, 1, 127, 256, -1, "200", None, True, 128.0])
def test_codecs_ids_below_128_are_ours(codec_id: Any) -> None:
    own = Upper()
    own.id = codec_id
    with pytest.raises(ConfigError, match="accepted: 128 to 255"):
        codec_for(own)


@pytest.mark.parametrize("codec", ["pickle", "", "MSGPACK", None, 3, object()], ids=str)
def test_codecs_other_codecs_are_refused(codec: Any) -> None:
    with pytest.raises(ConfigError, match="accepted: "):
        codec_for(codec)


@BOTH
@pytest.mark.usefixtures("money")
def test_codecs_a_registered_type_travels_anywhere(name: str) -> None:
    value = {"a": [Money(5)], ("k",): (Money(6), {Money(7)})}
    assert same(back(codec_for(name), value), value)
    for kind in (Money, list[Money], Money | None):
        codec = codec_for(name, kind)
        assert codec.id == codec_for(name).id, kind
    with pytest.raises(CodecError, match=r"value\[0\]: a test_codecs.Foo"):
        codec_for(name).encode([Foo()])


@pytest.mark.usefixtures("money")
def test_codecs_registering_again_is_only_for_the_same_type() -> None:
    def encode(m: Any) -> Any:
        return m.cents

    register(Money, encode, Money, "test.money")
    assert back(codec_for(), Money(3)) == Money(3)
    for kind, name in [(Foo, "test.money"), (Money, "another")]:
        with pytest.raises(ConfigError, match=r"is registered as 'test\.money'"):
            register(kind, encode, Money, name)
    for kind, name in [(dict, "x"), (decimal.Decimal, "x"), (Foo, ""), (3, "x")]:
        with pytest.raises(ConfigError, match="accepted: "):
            register(kind, encode, Money, name)  # type: ignore[arg-type]


@pytest.mark.usefixtures("money")
def test_codecs_a_registered_encode_that_raises_is_named() -> None:
    money_without_cents = Money(1)
    del money_without_cents.cents
    with pytest.raises(CodecError, match=r"value\['a'\]: a test_codecs.Money cannot be stored: its encode raised Attr"):
        codec_for().encode({"a": money_without_cents})


# ------------------------------------------------------------------------------------------------------------- the rest


def test_codecs_are_used_by_many_threads() -> None:
    value = {"a": (1, {"b": AT}), "c": [OFFER.id] * 5}
    wrong: list[object] = []

    def work(codec: Codec) -> None:
        for _ in range(300):
            got = back(codec, value)
            if not same(got, value):
                wrong.append(got)

    threads = [threading.Thread(target=work, args=(codec_for(name),)) for name in ("msgpack", "json") * 3]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_codecs_an_envelope_comes_through_python() -> None:
    payload = codec_for().encode([1] * 3000)
    durations = (5_000_000_000, 1_000_000, 0, _core.FOREVER)
    stored = _core.seal("app", "score:1", payload, 1, True, durations, 1024)
    assert len(stored) < len(payload)
    assert _core.open_envelope("app", "score:1", stored, 1 << 26) == (0, 1, True, durations, payload)
    for space, key, text, most, status in [
        ("app", "score:2", stored, 1 << 26, "wrong_key"),
        ("app2", "score:1", stored, 1 << 26, "wrong_key"),
        ("app", "score:1", stored[:-1], 1 << 26, "damaged"),
        ("app", "score:1", b"{}", 1 << 26, "unknown"),
        ("app", "score:1", stored, 100, "too_large"),
    ]:
        answer = _core.open_envelope(space, key, text, most)
        assert (_core.OPENED[answer[0]], *answer[1:]) == (status, 0, False, (0, 0, 0, 0), b"")


def test_codecs_are_imported_only_by_those_who_use_them() -> None:
    code = (
        "import sys, stillwarm\n"
        "print([m for m in ('msgspec', 'pydantic', 'stillwarm.codecs') if m in sys.modules])\n"
        "from stillwarm import codecs\n"
        "print([m for m in ('msgspec', 'pydantic') if m in sys.modules])\n"
        "codecs.codec_for('msgpack', dict[str, int])\n"
        "print('pydantic' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=PATHS, check=False)
    assert (done.stdout, done.stderr) == ("[]\n[]\nFalse\n", "")


def test_codecs_a_missing_msgspec_is_named_with_the_way_to_get_it() -> None:
    code = "import sys; sys.modules['msgspec'] = None\nfrom stillwarm import codecs\ncodecs.codec_for()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=PATHS, check=False)
    assert "pip install 'stillwarm[postgres]'" in done.stderr.splitlines()[-1]


def test_codecs_public_names() -> None:
    assert codecs.__all__ == ["Codec", "OwnCodec", "codec_for", "register", "signed_pickle"]
