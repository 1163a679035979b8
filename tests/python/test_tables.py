"""Typed tables: which declarations are accepted, and how a value becomes a row and comes back.

Thread rule: one thread.
Refuses to know: the server; that the layouts are made as declared is test_schema.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from postgres_here import Database
from reference_tables import discovery, scoring
from stillwarm import ConfigError
from stillwarm._column_text import array_text, from_text, to_text
from stillwarm._sql_types import column, literal, quoted, same_default
from stillwarm._tables import declared_table, typed_table
from stillwarm.errors import CodecError
from stillwarm.tables import Step


@pytest.mark.parametrize(
    ("text", "type", "not_null", "default"),
    [
        ("int", "integer", False, None),
        ("VARCHAR(20) NOT NULL", "character varying(20)", True, None),
        ("numeric(10, 2)", "numeric(10,2)", False, None),
        ("decimal(5)", "numeric(5,0)", False, None),
        ("float", "double precision", False, None),
        ("float(24) not null", "real", True, None),
        ("double  precision", "double precision", False, None),
        ("timestamp", "timestamp without time zone", False, None),
        ("timestamptz(3)", "timestamp(3) with time zone", False, None),
        ("char", "character(1)", False, None),
        ("text[]", "text[]", False, None),
        ("int default 0 not null", "integer", True, "0"),
        ("text not null default 'it is'", "text", True, "'it is'"),
        ("bool default TRUE", "boolean", False, "true"),
        ("varchar(36) default gen_random_uuid()", "character varying(36)", False, "gen_random_uuid()"),
    ],
)
def test_tables_column_type_is_read(text: str, type: str, not_null: bool, default: str | None) -> None:
    made = column("x", text)
    assert (made.type, made.not_null, made.default) == (type, not_null, default)


@pytest.mark.parametrize(
    "text",
    [
        "int; drop table users",
        "int) ; --",
        "text default 'a'; select 1; --'",
        "text default (select 1)",
        "text default 'it''s'",
        "int primary key",
        "int check (x > 0)",
        "int not null not null x",
        'text collate "de"',
        "varchar(20",
        "int(5)",
        "serial",
        "",
        5,
        None,
    ],
)
def test_tables_column_type_beyond_the_grammar_is_refused(text: Any) -> None:
    with pytest.raises(ConfigError, match=r"columns\['x'\]"):
        column("x", text)


@pytest.mark.parametrize("name", ['a"b', "a b", "1a", "", "a;b", "ä", "x" * 64, "a.b", None])
@pytest.mark.parametrize("option", ["table", "key_column"])
def test_tables_identifier_with_a_quote_is_refused(option: str, name: Any) -> None:
    with pytest.raises(ConfigError, match=option):
        typed_table("t", **{"table": "t", "columns": {"a": "int"}, option: name})
    with pytest.raises(ConfigError, match="columns"):
        typed_table("t", table="t", columns={name: "int"})


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"columns": {}}, "columns={}"),
        ({"columns": ["a"]}, "columns="),
        ({"columns": {"hit_count": "int"}}, "hit_count"),
        ({"columns": {"cache_key": "text"}}, "cache_key"),
        ({"indexes": ["b"]}, "there is no column 'b'; accepted: cache_key, a, created_at, expires_at, hit_count"),
        ({"indexes": "a"}, "indexes='a'"),
        ({"indexes": {"i x": "a"}}, "indexes: name"),
        ({"indexes": {"i": []}}, r"indexes\['i'\]"),
        ({"value": "b"}, "value='b'"),
        ({"project": 5}, "project=5"),
        ({"unlogged": 1}, "unlogged=1"),
        ({"history": [1]}, "history="),
    ],
)
def test_tables_wrong_option_is_named(options: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        typed_table("t", **{"table": "t", "columns": {"a": "int"}, **options})


def test_tables_step_wants_a_list_of_statements() -> None:
    with pytest.raises(ConfigError, match="sql="):
        Step(when="a", sql="DROP TABLE x")
    with pytest.raises(ConfigError, match="when"):
        Step(when='a"', sql=["SELECT 1"])


def test_tables_index_names_follow_table_and_column() -> None:
    table = typed_table("t", table="t", columns={"a": "int", "b": "int"}, indexes=["a"])
    assert [index.name for index in table.layout().indexes] == ["t_a_idx", "t_expires_at_idx"]
    both = typed_table("t", table="t", columns={"a": "int", "b": "int"}, indexes={"i": ["a", "b"], "e": "expires_at"})
    assert [(index.name, index.columns) for index in both.layout().indexes] == [
        ("i", ("a", "b")),
        ("e", ("expires_at",)),
    ]


def test_tables_row_comes_from_project_value_and_arguments() -> None:
    arguments = {"domain": 1, "category": None, "bsr_min": 5, "bsr_max": 9, "price_min": 10.0, "price_max": None}
    table = discovery()
    row = table.row_of(["B1", "B2"], arguments)
    assert row == ["1", None, "5", "9", "10.0", None, '["B1", "B2"]', "2"]
    assert table.value_of(row) == ["B1", "B2"]


def test_tables_row_comes_from_fields_and_attributes() -> None:
    @dataclass
    class Score:
        asin: str
        roi_percent: float
        velocity_score: float = 0.5
        recommendation: str = "BUY"

    as_dict = {"asin": "B1", "roi_percent": 31.5, "velocity_score": 0.5, "recommendation": "BUY"}
    expected = ["B1", "31.5", "0.5", "BUY", None, None, "7"]
    assert scoring().row_of(Score("B1", 31.5), {"bsr": 7, "domain": 1}) == expected
    assert scoring().row_of(as_dict, {"bsr": 7}) == expected
    back = scoring().value_of(expected)
    assert back == {**as_dict, "title": None, "price": None, "bsr": 7}


def test_tables_error_of_a_row_names_type_and_column() -> None:
    with pytest.raises(
        CodecError, match=r"type 'scoring': column 'asin' .*neither project, the value nor the arguments"
    ):
        scoring().row_of({}, {})
    good = {"asin": "B1", "roi_percent": 1.0, "velocity_score": 1.0, "recommendation": "BUY"}
    for change, named in [
        ({"asin": "B" * 21}, "column 'asin'.*longer than 20"),
        ({"roi_percent": "much"}, "column 'roi_percent'.*not a number"),
        ({"bsr": 2**31}, "column 'bsr'.*out of range"),
        ({"bsr": 1.5}, "column 'bsr'.*not a whole number"),
        ({"title": "a\0b"}, "column 'title'.*NUL"),
        ({"title": "\ud800"}, "column 'title'.*surrogate"),
        ({"recommendation": None}, "column 'recommendation'.*NOT NULL"),
    ]:
        with pytest.raises(CodecError, match=named):
            scoring().row_of({**good, **change}, {})
    bad = typed_table("t", table="t", columns={"a": "int"}, project=lambda value, **_: {"b": 1})
    with pytest.raises(CodecError, match="project returned the column 'b'; accepted: a"):
        bad.row_of(1, {})


def test_tables_missing_value_has_the_default_of_its_column() -> None:
    columns = {"a": "int not null default 7", "b": "text default 'x'", "c": "varchar(36) default gen_random_uuid()"}
    row = typed_table("t", table="t", columns=columns).row_of(object(), {})
    assert row[:2] == ["7", "x"]
    assert UUID(str(row[2]))


class Color(str, enum.Enum):
    RED = "red"


ZONE = timezone(timedelta(hours=2))
ROUND_TRIPS = [
    ("int", 5, 5),
    ("bigint", -(2**63), -(2**63)),
    ("float", 0.1, 0.1),
    ("float", float("inf"), float("inf")),
    ("real", 0.5, 0.5),
    ("numeric(10,2)", Decimal("12.30"), Decimal("12.30")),
    ("bool", True, True),
    ("bool", False, False),
    ("text", "a'b\\c\n\u65e5", "a'b\\c\n\u65e5"),
    ("varchar(3)", Color.RED, "red"),
    ("json", {"a": [1, None, "x"]}, {"a": [1, None, "x"]}),
    ("json", "plain text", "plain text"),
    ("jsonb", [], []),
    ("bytea", b"\x00\xff'", b"\x00\xff'"),
    ("uuid", UUID(int=5), UUID(int=5)),
    ("date", date(2026, 2, 28), date(2026, 2, 28)),
    ("timestamp", datetime(2026, 1, 2, 3, 4, 5, 670000), datetime(2026, 1, 2, 3, 4, 5, 670000)),
    ("timestamp", datetime(2026, 1, 2, 3, tzinfo=ZONE), datetime(2026, 1, 2, 1)),
    ("timestamptz", datetime(2026, 1, 2, 3, tzinfo=ZONE), datetime(2026, 1, 2, 3, tzinfo=ZONE)),
    ("timestamptz", datetime(2026, 1, 2, 3), datetime(2026, 1, 2, 3, tzinfo=timezone.utc)),
    ("text[]", ["a", None, 'q"\\', "x,y", "", "NULL"], ["a", None, 'q"\\', "x,y", "", "NULL"]),
    ("int[]", [[1, 2], [3, 4]], [[1, 2], [3, 4]]),
    ("text", None, None),
]


def test_tables_values_come_back_from_the_server_as_they_went(database: Database) -> None:
    for text, value, expected in ROUND_TRIPS:
        one = column("x", text)
        ((back,),) = database.query(f"SELECT ($1::text)::{one.type}", [to_text(value, one)])
        assert from_text(back, one) == expected, (text, value)


def test_tables_text_that_is_none_of_the_type_names_the_column() -> None:
    for text, type in [("x", "int"), ("{1", "int[]"), ("{", "json"), ("2026", "date"), ("x", "bytea"), ("x", "uuid")]:
        with pytest.raises(CodecError, match="column 'c'"):
            from_text(text, column("c", type))


def test_tables_nan_is_no_json() -> None:
    with pytest.raises(CodecError, match="column 'c'"):
        to_text([float("nan")], column("c", "json"))


def test_tables_declared_layout_is_read_again() -> None:
    for table in (discovery(), scoring()):
        again = declared_table(table.declared())
        assert again.layout() == table.layout()
        assert again.declared() == table.declared().replace('"(callable)"', '"(callable)"')
    with pytest.raises(ConfigError, match="declared layout"):
        declared_table("{}")


def test_tables_literals_and_names_are_quoted() -> None:
    assert quoted("a") == '"a"'
    assert literal("a'b") == "'a''b'"
    assert literal("a\\'b") == "E'a\\\\''b'"
    assert array_text(["a", None]) == '{"a",NULL}'
    assert same_default("'x'::character varying", "'x'")
    assert same_default("0", "0")
    assert same_default("CURRENT_TIMESTAMP", "now()")
    assert not same_default("'a'", "'b'")
    assert not same_default(None, "0")
