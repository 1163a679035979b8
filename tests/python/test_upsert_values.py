"""How Python values come into columns by `cache.upsert`, and how its row is found again by a key that was rounded.

Thread rule: one thread.
Refuses to know: outcomes as such (test_upsert.py).
"""

from __future__ import annotations

import enum
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from stillwarm import Cache, ConfigError
from stillwarm.errors import CodecError, TierRejected
from tiers import Ground
from upserts import Table


@pytest.fixture
def table(ground: Ground) -> Table:
    """(k, v) with a key that the server counts."""
    return Table(ground, "k int PRIMARY KEY, v text, id serial, note text DEFAULT 'new'")


@pytest.fixture
def cache(ground: Ground) -> Cache:
    return ground.cache()


class Colour(enum.Enum):
    RED = "red"


class Float(float):
    """As numpy.float64: one of its own, whose repr says more than the number."""

    def __repr__(self) -> str:
        return f"np.float64({float(self)})"


class Int(int):
    def __repr__(self) -> str:
        return "Int()"


AT = datetime(2026, 5, 4, 3, 2, 1, 7)
VALUES: list[tuple[str, Any, Any]] = [
    ("text", "a\"b\\c{},\n'", "a\"b\\c{},\n'"),
    ("text", "", ""),
    ("text", "NULL", "NULL"),
    ("text", Colour.RED, "red"),
    ("varchar(5)", "äöüß€", "äöüß€"),
    ("char(4)", "ab", "ab  "),
    ("smallint", -5, -5),
    ("bigint", 2**62, 2**62),
    ("numeric(10,2)", Decimal("3.14"), Decimal("3.14")),
    ("double precision", 1e300, 1e300),
    ("double precision", Float(1.5), 1.5),
    ("numeric", Float(2.5), Decimal("2.5")),
    ("real[]", [Float(0.5), Int(2)], [0.5, 2.0]),
    ("bigint", Int(7), 7),
    ("double precision", float("inf"), float("inf")),
    ("boolean", True, True),
    ("uuid", UUID(int=7), UUID(int=7)),
    ("bytea", b"\0\xff", b"\0\xff"),
    ("date", date(2026, 1, 2), date(2026, 1, 2)),
    ("timestamp", AT, AT),
    ("timestamptz", AT, AT.replace(tzinfo=timezone.utc)),
    ("timestamptz", AT.replace(tzinfo=timezone(timedelta(hours=2))), AT.replace(tzinfo=timezone(timedelta(hours=2)))),
    ("time", time(1, 2, 3), time(1, 2, 3)),
    ("interval", timedelta(days=1, microseconds=5), timedelta(days=1, microseconds=5)),
    ("jsonb", {"a": [1, {"b": None}], "c": "ü"}, {"a": [1, {"b": None}], "c": "ü"}),
    ("jsonb", "text", "text"),
    ("json", [1, 2], [1, 2]),
    ("int[]", [1, None, 3], [1, None, 3]),
    ("text[]", ['a"b', "c,d", "", None], ['a"b', "c,d", "", None]),
    ("int[]", [[1, 2], [3, 4]], [[1, 2], [3, 4]]),
    ("text", None, None),
]


@pytest.mark.parametrize(("sql_type", "value", "expected"), VALUES, ids=lambda v: repr(v)[:30])
def test_upsert_brings_values_into_columns(
    cache: Cache, ground: Ground, sql_type: str, value: Any, expected: Any
) -> None:
    table = Table(ground, f"k int PRIMARY KEY, v {sql_type}")
    assert cache.upsert(table.name, {"k": 1, "v": value}, unique="k").outcome == "inserted"
    assert table.rows("v", order="k") == [(expected,)]
    assert cache.upsert(table.name, [{"k": 1, "v": value}], unique="k")[0].outcome == "unchanged"


@pytest.mark.parametrize("sql_type", ["numeric(6,2)", "timestamp(0)", "varchar(20)", "char(9)", "citext", "text"])
def test_upsert_finds_its_row_by_keys_that_are_rounded(cache: Cache, ground: Ground, sql_type: str) -> None:
    """What comes back is compared with what was given as the column has it."""
    if sql_type == "citext":
        ground.sql("CREATE EXTENSION IF NOT EXISTS citext")
    given = {"numeric(6,2)": Decimal("1.239"), "timestamp(0)": AT}.get(sql_type, "Ab")
    table = Table(ground, f"k {sql_type} PRIMARY KEY, v int")
    for value, outcome in ((1, "inserted"), (1, "unchanged"), (2, "updated")):
        assert cache.upsert(table.name, {"k": given, "v": value}, unique="k").outcome == outcome
    if sql_type == "citext":
        assert cache.upsert(table.name, {"k": "aB", "v": 3}, unique="k").outcome == "updated"
        assert table.rows() == [("Ab", 3)]


def test_upsert_does_not_cut_texts(cache: Cache, ground: Ground) -> None:
    """A cast would: also one to a domain."""
    ground.sql("CREATE DOMAIN short AS varchar(3)")
    table = Table(ground, "k int PRIMARY KEY, v varchar(3), d short, b bit(3)")
    for name, value in (("v", "abcd"), ("d", "abcd"), ("b", "1010")):
        with pytest.raises((CodecError, TierRejected)):
            cache.upsert(table.name, {"k": 1, name: value}, unique="k")
    assert table.rows() == []
    assert cache.upsert(table.name, {"k": 1, "v": "abc", "d": "abc", "b": "101"}, unique="k").outcome == "inserted"


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (iter([1, 2]), "an iterator gives its items once"),
        ((n for n in (1, 2)), "an iterator gives its items once"),
        ({1: 2}, "not a list"),
        (bytearray(b"ab"), "not a list"),
        (memoryview(b"ab"), "not a list"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_upsert_takes_no_array_from_what_is_no_list(cache: Cache, ground: Ground, value: Any, said: str) -> None:
    """An iterator above all: a statement that is sent again would write an empty array."""
    table = Table(ground, "k int PRIMARY KEY, v int[]")
    with pytest.raises(CodecError, match=rf"row: column 'v' \(integer\[\]\): .*: {said}"):
        cache.upsert(table.name, {"k": 1, "v": value}, unique="k")
    assert table.rows() == []
    assert cache.upsert(table.name, {"k": 1, "v": range(3)}, unique="k", returning="v").row == {"v": [0, 1, 2]}


def test_upsert_into_enums_and_other_schemas(cache: Cache, ground: Ground) -> None:
    ground.sql('CREATE SCHEMA "Other"')
    ground.sql("CREATE TYPE \"Other\".colour AS ENUM ('red', 'blue')")
    ground.sql('CREATE TABLE "Other"."Order" ("select" int PRIMARY KEY, "Colour" "Other".colour)')
    row = {"select": 1, "Colour": Colour.RED}
    assert cache.upsert("Other.Order", row, unique="select", returning="Colour").row == {"Colour": "red"}
    with pytest.raises(TierRejected) as caught:
        cache.upsert("Other.Order", {"select": 1, "Colour": "green"}, unique="select")
    assert caught.value.sqlstate == "22P02"
    assert cache.upsert("Other.Order", row, unique="select").outcome == "unchanged"


def test_upsert_sees_a_table_that_changed(cache: Cache, ground: Ground, table: Table) -> None:
    cache.upsert(table.name, {"k": 1, "v": "a"}, unique="k")
    ground.sql(f"ALTER TABLE {table.name} ADD COLUMN more jsonb")
    assert cache.upsert(table.name, {"k": 1, "more": [1]}, unique="k").outcome == "updated"
    ground.sql(f"ALTER TABLE {table.name} ALTER COLUMN v TYPE int USING 0")
    assert cache.upsert(table.name, {"k": 1, "v": 7}, unique="k", returning="v").row["v"] == 7
    ground.sql(f"ALTER TABLE {table.name} DROP COLUMN more")
    with pytest.raises(ConfigError, match="has no column 'more'; accepted: k, v, id, note"):
        cache.upsert(table.name, {"k": 1, "more": [1]}, unique="k")
    ground.sql(f"ALTER TABLE {table.name} DROP CONSTRAINT {table.name}_pkey")
    with pytest.raises(ConfigError, match="no valid unique index"):
        cache.upsert(table.name, {"k": 1, "v": 8}, unique="k")
    assert table.rows("v") == [(7,)]


def test_upsert_sees_a_type_that_became_wider(cache: Cache, ground: Ground) -> None:
    """It was looked at before: what it knows of the column must neither refuse a value nor round it."""
    table = Table(ground, "k int PRIMARY KEY, s varchar(3), n numeric(6,2), t timestamp(0), a numeric(6,1)[]")
    at = AT.replace(microsecond=250_000)
    row = {"k": 1, "s": "abc", "n": Decimal("1.239"), "t": at, "a": [Decimal("0.25")]}
    cache.upsert(table.name, row, unique="k")
    assert table.rows("s, n, a") == [("abc", Decimal("1.24"), [Decimal("0.3")])]
    ground.sql(
        f"ALTER TABLE {table.name} ALTER s TYPE varchar(10), ALTER n TYPE numeric(8,3), ALTER t TYPE timestamp(3), "
        "ALTER a TYPE numeric(6,2)[]"
    )
    assert cache.upsert(table.name, row, unique="k").outcome == "updated"
    assert table.rows("n, t, a") == [(Decimal("1.239"), at, [Decimal("0.25")])]
    assert cache.upsert(table.name, {**row, "s": "abcdef"}, unique="k").outcome == "updated"
    assert table.rows("s") == [("abcdef",)]
