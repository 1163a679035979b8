"""Values on their way through the PostgreSQL tier: types come back as declared; what cannot be read is a counted miss.

Thread rule: one thread; what the tier holds is changed by SQL.
Refuses to know: codecs by themselves (test_codecs*.py), envelopes (tests/cpp/codec).
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any, TypedDict

import msgspec
import pydantic
import pytest

from stillwarm import Cache, ConfigError, _core, codecs
from stillwarm.errors import CodecError
from tiers import Counted, Ground, function


@dataclass
class Score:
    asin: str
    roi: Decimal
    at: datetime
    parts: tuple[int, ...] = ()


class Model(pydantic.BaseModel):
    id: uuid.UUID
    scores: list[Decimal]


class Struct(msgspec.Struct):
    name: str
    day: date


class Row(TypedDict):
    price: Decimal
    seen: datetime


AT = datetime(2025, 3, 4, 5, 6, 7, 89, tzinfo=timezone(timedelta(hours=2)))
ID = uuid.UUID(int=7)
DECLARED: dict[str, tuple[Any, Any]] = {
    "dataclass": (Score, Score("B0", Decimal("1.10"), AT, (1, 2))),
    "dataclasses": (list[Score], [Score("B0", Decimal("-0.5"), AT)] * 2),
    "pydantic": (Model, Model(id=ID, scores=[Decimal("1.0"), Decimal("1.00")])),
    "msgspec": (Struct, Struct("x", date(2024, 2, 29))),
    "TypedDict": (Row, {"price": Decimal("9.99"), "seen": AT}),
    "Decimal": (Decimal, Decimal("1.50")),
    "UUID": (uuid.UUID, ID),
    "datetime": (datetime, AT),
    "tuple": (tuple[int, str], (1, "x")),
    "dict": (dict[str, Score | None], {"a": None, "b": Score("", Decimal(0), AT)}),
    "optional": (Score | None, None),
    "any": (Any, {"mixed": (1, {2}, Decimal(3), ID, AT, b"\0", 1.5)}),
}


def declared(cache: Cache, kind: Any, value: Any, **options: Any) -> Callable[[], Any]:
    def f() -> Any:
        f.calls += 1  # type: ignore[attr-defined]
        return value

    f.calls = 0  # type: ignore[attr-defined]
    f.__annotations__["return"] = kind
    return cache.cached(ttl=100, name="f", **options)(f)


@pytest.mark.parametrize("codec", ["msgpack", "json"])
@pytest.mark.parametrize("name", DECLARED)
def test_values_come_back_as_declared(ground: Ground, name: str, codec: str) -> None:
    kind, value = DECLARED[name]
    assert declared(ground.cache(), kind, value, codec=codec)() == value
    ground.written()
    other = declared(ground.cache(), kind, object(), codec=codec)
    back = other()
    assert back == value
    assert type(back) is type(value)
    assert str(back) == str(value)  # 1.0 and 1.00, the zone's offset
    assert other.__wrapped__.calls == 0  # type: ignore[attr-defined]


def test_values_of_the_verbs_come_back_as_they_went(ground: Ground) -> None:
    value = [Decimal("1.10"), ID, AT, (1, 2), {3}, frozenset({4}), {5: 6}, b"7", None, True, 2**63, timedelta(1)]
    ground.cache().set("k", value, ttl=10)
    back = ground.cache().get("k")
    assert back == value
    assert [type(part) for part in back] == [type(part) for part in value]


def test_values_large_ones_are_compressed_and_whole(ground: Ground) -> None:
    text = "long " * 100_000
    ground.cache().set("k", text, ttl=10)
    assert ground.rows("octet_length(payload)")[0][0] < 10_000
    assert ground.cache().get("k") == text


# ----------------------------------------------------------------------------------------------- what cannot be read


def spoiled(ground: Ground, change: str, **options: Any) -> tuple[Any, Counted, Cache]:
    """A function whose stored value was changed by SQL after another cache had stored it."""
    function(ground.cache(), Counted())("k")
    ground.written()
    assert ground.sql(f"UPDATE stillwarm.entries SET {change} WHERE namespace = %s RETURNING 1", ground.namespace)
    cache, source = ground.cache(), Counted()
    return function(cache, source, **options), source, cache


BYTE = "payload = set_byte(payload, {}, get_byte(payload, {}) # {})"
SPOILED = {
    "another release's format": (BYTE.format(2, 2, 3), "unknown"),
    "not ours": (BYTE.format(0, 0, 1), "unknown"),
    "a flag of another release": (BYTE.format(3, 3, 64), "unknown"),
    "a damaged body": (BYTE.format("octet_length(payload) - 10", "octet_length(payload) - 10", 1), "damaged"),
    "cut": ("payload = substring(payload FROM 1 FOR octet_length(payload) - 3)", "damaged"),
    "nothing": ("payload = ''", "unknown"),
}


@pytest.mark.parametrize("name", SPOILED)
def test_values_that_cannot_be_read_are_counted_misses_and_loaded_anew(ground: Ground, name: str) -> None:
    change, why = SPOILED[name]
    f, source, cache = spoiled(ground, change)
    assert f("k") == "k#1"
    assert source.total == 1
    assert sum(cache.stats().tier["undecodable"].values()) == 1
    assert set(cache.stats().tier["undecodable"]) <= {why, "damaged", "unknown"}
    ground.written()
    again = Counted()
    assert function(ground.cache(), again)("k") == "k#1"  # the row is readable again
    assert again.total == 0


def test_values_of_another_codec_are_a_miss_both_ways(ground: Ground) -> None:
    caches = [ground.cache(), ground.cache()]
    sources = [Counted(), Counted()]
    key = "0123456789abcdef"
    f, g = (
        function(cache, source, codec=codec)
        for cache, source, codec in zip(caches, sources, ("msgpack", codecs.signed_pickle(key)), strict=True)
    )
    for _ in range(2):  # each finds the other's
        for i, of in enumerate((f, g)):
            ground.written()
            caches[i].confirm()
            of.cache_contains("k")
            with_miss = caches[i].stats().tier["undecodable"].get("codec", 0)
            of.refresh("k")
            assert caches[i].stats().tier["undecodable"].get("codec", 0) >= with_miss
    ground.written()
    fresh, source = ground.cache(), Counted()
    assert function(fresh, source, codec="json")("k") == "k#1"
    assert fresh.stats().tier["undecodable"] == {"codec": 1}


def test_values_sealed_by_a_later_release_are_left_to_it_until_loaded(ground: Ground) -> None:
    sealed = _core.seal(ground.namespace, "default\nf:'k'", b"\xa1x", 77, False, (10**11, 0, 0, 0), 0)
    f, source, cache = spoiled(ground, f"payload = '\\x{sealed.hex()}'")
    assert f("k") == "k#1"
    assert cache.stats().tier["undecodable"] == {"codec": 1}
    assert source.total == 1


def test_values_of_another_key_are_a_counted_miss(ground: Ground) -> None:
    writer, source = ground.cache(), Counted()
    f = function(writer, source)
    f("a"), f("b")
    ground.written()
    ground.sql(
        "UPDATE stillwarm.entries e SET payload = o.payload FROM stillwarm.entries o WHERE o.namespace = e.namespace "
        "AND e.namespace = %s AND e.key = 'f:''a''' AND o.key = 'f:''b'''",
        ground.namespace,
    )
    reader, own = ground.cache(), Counted()
    g = function(reader, own)
    assert (g("a"), g("b")) == ("a#1", "b#1")
    assert own.calls == {"a": 1}
    assert reader.stats().tier["undecodable"] == {"wrong_key": 1}


def test_values_that_no_longer_fit_the_type_are_a_miss(ground: Ground, caplog: pytest.LogCaptureFixture) -> None:
    declared(ground.cache(), dict, {"asin": 1})()
    ground.written()
    cache = ground.cache()
    value = Score("B0", Decimal(1), AT)
    assert declared(cache, Score, value)() == value
    assert sum(cache.stats().tier["undecodable"].values()) == 1


# ----------------------------------------------------------------------------------------------- what cannot be stored


def test_values_that_cannot_be_stored_stay_in_memory_said_once(
    ground: Ground, caplog: pytest.LogCaptureFixture
) -> None:
    cache, source = ground.cache(), Counted()
    bad = object()
    source.value = lambda key: {"rows": [1, {"bad": bad}]}
    f = function(cache, source)
    with caplog.at_level(logging.WARNING, "stillwarm"):
        assert f(1)["rows"][1]["bad"] is bad
        assert f(1)["rows"][1]["bad"] is bad
        f(2)
    assert source.calls == {1: 1, 2: 1}
    assert ground.rows() == []
    said = [record.getMessage() for record in caplog.records if "memory only" in record.getMessage()]
    assert len(said) == 1
    assert "value['rows'][1]['bad']" in said[0]


async def test_values_that_cannot_be_stored_are_an_error_of_set(ground: Ground) -> None:
    cache = ground.cache()
    cache.set("k", 1, ttl=10)
    with pytest.raises(CodecError, match=r"value\[0\]"):
        cache.set("k", [object()], ttl=10)
    with pytest.raises(CodecError, match=r"value\['x'\]"):
        await cache.aset_many({"l": 1, "k": {"x": object()}}, ttl=10)
    assert cache.get_many(["k", "l"]) == {"k": 1}


def test_values_above_max_value_are_returned_and_counted(ground: Ground) -> None:
    cache, source = ground.cache(max_value="1KB"), Counted()
    source.value = lambda key: "x" * key
    f = function(cache, source)
    assert len(f(5000)) == 5000
    assert len(f(5000)) == 5000
    assert len(f(10)) == 10
    ground.written()
    assert ground.rows() == [("f:10",)]
    assert cache.stats().tier["undecodable"] == {"too_large": 1}
    assert source.total == 2
    cache.set("k", "y" * 100, ttl=10)
    other = ground.cache()
    assert other.get("k") == "y" * 100
    cache.set("k", "y" * 5000, ttl=10)
    other.confirm()
    assert other.get("k") is None, "the older value must not stay where the newer one finds no room"
    assert cache.add("z", "z" * 5000, ttl=10)
    assert not cache.add("z", "y" * 5000, ttl=10)
    assert cache.get("z") == "z" * 5000


def test_values_above_max_value_of_the_reader_are_a_counted_miss(ground: Ground) -> None:
    function(ground.cache(), lambda key: "x" * 5000)("k")
    ground.written()
    cache, source = ground.cache(max_value="1KB"), Counted()
    assert function(cache, source)("k") == "k#1"
    assert cache.stats().tier["undecodable"] == {"too_large": 1}


# ------------------------------------------------------------------------------------------ functions without a place


def test_values_of_functions_in_functions_need_a_name(ground: Ground) -> None:
    cache = ground.cache()

    def local(x: int) -> int:
        return x

    with pytest.raises(ConfigError, match=r"<locals>.*name= or key="):
        cache.cached(ttl=1)(local)
    assert cache.cached(ttl=1, name="local")(local)(1) == 1
    assert cache.cached(ttl=1, key="local:{x}")(local)(2) == 2


def test_values_of_methods_need_to_leave_self_out(ground: Ground) -> None:
    cache = ground.cache()

    def method(self: object, x: int) -> int:
        return x

    with pytest.raises(ConfigError, match=r"self.*ignore=\('self',\) or key="):
        cache.cached(ttl=1, name="m")(method)
    assert cache.cached(ttl=1, name="m", ignore=("self",))(method)(object(), 1) == 1
    assert cache.cached(ttl=1, name="n", key="n:{x}")(method)(object(), 1) == 1


def test_values_of_keys_without_a_text_are_refused_by_name(ground: Ground) -> None:
    f = function(ground.cache(), lambda key: 1)
    with pytest.raises(TypeError, match=r"key in a remote tier.*key=.*ignore="):
        f(object())
