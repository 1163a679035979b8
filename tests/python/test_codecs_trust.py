"""Codecs and what cannot be trusted: broken payloads, signed pickles, codecs and types of the user.

Thread rule: none.
Refuses to know: tiers; that a damaged payload rarely gets here, because envelopes have a checksum.
"""

from __future__ import annotations

import datetime as dt
import decimal
import pickle
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from coding import (
    AT,
    BOTH,
    ITEM,
    OFFER,
    Foo,
    Item,
    Money,
    Offer,
    Point,
    Price,
    back,
    same,
)
from stillwarm import ConfigError, _tagged
from stillwarm.codecs import codec_for, register, signed_pickle
from stillwarm.errors import CodecError


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


def test_codecs_a_payload_nested_without_end_is_a_codec_error() -> None:
    in_tags, in_lists = b"\x90", b"\x91" * 100_000 + b"\x90"
    for _ in range(100_000 // 6):
        in_tags = b"\xc9" + len(in_tags).to_bytes(4, "big") + b"\x01" + in_tags
    for payload in (in_tags, in_lists):
        with pytest.raises(CodecError, match="RecursionError"):
            codec_for().decode(payload)
    for payload in (b"[" * 100_000 + b"]" * 100_000, b'{"$stillwarm":["tuple",' * 20_000 + b"[]" + b"]}" * 20_000):
        with pytest.raises(CodecError, match="RecursionError"):
            codec_for("json").decode(payload)


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


# ---------------------------------------------------------------------------------------- own codecs, registered types


@pytest.fixture
def money() -> Iterator[None]:
    register(Money, lambda m: {"cents": m.cents, "seen": (1, 2)}, lambda data: Money(data["cents"]), "test.money")
    yield
    del _tagged.by_type[Money], _tagged.by_name["test.money"]


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


@pytest.mark.parametrize("codec", ["pickle", "", "MSGPACK", None, 3, object()])
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
    with pytest.raises(CodecError, match=r"value\[0\]: a coding.Foo"):
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
    with pytest.raises(CodecError, match=r"value\['a'\]: a coding.Money cannot be stored: its encode raised Attr"):
        codec_for().encode({"a": money_without_cents})
