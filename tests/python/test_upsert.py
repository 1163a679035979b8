"""`cache.upsert`: one row per natural key, what became of it, and what is refused before anything is written.

Thread rule: one thread, but for the session that holds a lock.
Refuses to know: many callers at a time (test_upsert_concurrent.py) and broken connections (test_upsert_faults.py).
"""

from __future__ import annotations

import enum
import inspect
import itertools
import os
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import psycopg
import pytest

from stillwarm import Cache, ConfigError, State, Upserted
from stillwarm.errors import CodecError, TierRejected, TierTimeout
from tiers import Counted, Ground, function

_numbers = itertools.count(1)


class Table:
    """A table of its own in the ground's database."""

    def __init__(self, ground: Ground, columns: str) -> None:
        self.ground = ground
        self.name = f"u{next(_numbers)}"
        ground.sql(f"CREATE TABLE {self.name} ({columns})")

    def rows(self, columns: str = "*", order: str = "1") -> list[tuple[Any, ...]]:
        return self.ground.sql(f"SELECT {columns} FROM {self.name} ORDER BY {order}")


@pytest.fixture
def table(ground: Ground) -> Table:
    """(k, v) with a key that the server counts."""
    return Table(ground, "k int PRIMARY KEY, v text, id serial, note text DEFAULT 'new'")


@pytest.fixture
def cache(ground: Ground) -> Cache:
    return ground.cache()


def outcomes(done: list[Upserted]) -> list[str]:
    return [one.outcome for one in done]


# ------------------------------------------------------------------------------------------------------------ outcomes


def test_upsert_tells_the_three_apart(cache: Cache, table: Table) -> None:
    for value, outcome in (("a", "inserted"), ("a", "unchanged"), ("b", "updated"), ("b", "unchanged")):
        assert cache.upsert(table.name, {"k": 1, "v": value}, unique="k") == Upserted(outcome, {})
    assert table.rows("k, v") == [(1, "b")]


def test_upsert_tells_the_three_apart_in_one_call(cache: Cache, table: Table) -> None:
    cache.upsert(table.name, [{"k": k, "v": "old"} for k in range(0, 40, 2)], unique="k")
    rows = [{"k": k, "v": "new" if k % 4 == 0 else "old"} for k in reversed(range(40))]
    done = cache.upsert(table.name, rows, unique=("k",))
    expected = {0: "updated", 1: "inserted", 2: "unchanged", 3: "inserted"}
    assert outcomes(done) == [expected[row["k"] % 4] for row in rows], "in the order of the rows"
    assert len(table.rows()) == 40


def test_upsert_of_nothing_asks_nobody(cache: Cache) -> None:
    assert cache.upsert("there_is_no_such_table", [], unique="k") == []


def test_upsert_of_a_list_of_one_is_a_list(cache: Cache, table: Table) -> None:
    assert cache.upsert(table.name, [{"k": 1, "v": "a"}], unique="k") == [Upserted("inserted", {})]


def test_upsert_leaves_columns_that_are_not_given(cache: Cache, table: Table) -> None:
    assert cache.upsert(table.name, {"k": 1, "v": "a"}, unique="k", returning="note").row == {"note": "new"}
    cache.upsert(table.name, {"k": 1, "note": "mine"}, unique="k")
    assert cache.upsert(table.name, {"k": 1, "v": "b"}, unique="k").outcome == "updated"
    assert table.rows("k, v, note") == [(1, "b", "mine")]


def test_upsert_changes_the_columns_of_update_alone(cache: Cache, table: Table) -> None:
    cache.upsert(table.name, {"k": 1, "v": "a", "note": "n"}, unique="k")
    assert cache.upsert(table.name, {"k": 1, "v": "b", "note": "m"}, unique="k", update="v").outcome == "updated"
    assert cache.upsert(table.name, {"k": 1, "v": "b", "note": "x"}, unique="k", update=["v"]).outcome == "unchanged"
    assert table.rows("k, v, note") == [(1, "b", "n")]


def test_upsert_without_update_only_inserts(cache: Cache, table: Table) -> None:
    rows = [{"k": 1, "v": "a"}, {"k": 2, "v": "a"}]
    assert cache.upsert(table.name, rows[0], unique="k", update=()).outcome == "inserted"
    rows[0]["v"] = "b"
    assert outcomes(cache.upsert(table.name, rows, unique="k", update=())) == ["unchanged", "inserted"]
    assert table.rows("k, v") == [(1, "a"), (2, "a")]


def test_upsert_of_keys_alone(cache: Cache, ground: Ground) -> None:
    table = Table(ground, "a int, b int, PRIMARY KEY (a, b)")
    assert cache.upsert(table.name, {"a": 1, "b": 2}, unique=("b", "a")).outcome == "inserted"
    assert cache.upsert(table.name, {"a": 1, "b": 2}, unique=("a", "b")).outcome == "unchanged"


def test_upsert_returns_columns(cache: Cache, table: Table) -> None:
    first = cache.upsert(table.name, {"k": 1, "v": "a"}, unique="k", returning=("id", "v"))
    assert first.row == {"id": 1, "v": "a"}
    assert cache.upsert(table.name, {"k": 1, "v": "a"}, unique="k", returning="id") == Upserted("unchanged", {"id": 1})
    done = cache.upsert(table.name, [{"k": 1, "v": "b"}, {"k": 5, "v": "c"}], unique="k", returning="*")
    assert [one.row["v"] for one in done] == ["b", "c"]
    assert done[0].row["id"] == 1


def test_upsert_writes_what_is_equal_but_not_the_same(cache: Cache, ground: Ground) -> None:
    """1.0 and 1.00 are equal to the server, and somebody reads the difference; json has no equality at all."""
    table = Table(ground, "k int PRIMARY KEY, n numeric, j json, p point")
    row = {"k": 1, "n": Decimal("1.0"), "j": {"a": [1, None]}, "p": "(1,2)"}
    assert cache.upsert(table.name, row, unique="k").outcome == "inserted"
    assert cache.upsert(table.name, row, unique="k").outcome == "unchanged"
    assert cache.upsert(table.name, {**row, "n": Decimal("1.00")}, unique="k").outcome == "updated"
    assert table.rows("n::text") == [("1.00",)]
    assert cache.upsert(table.name, {**row, "n": Decimal("1.00"), "j": {"a": [1]}}, unique="k").outcome == "updated"


@pytest.mark.parametrize("lock", ["FOR KEY SHARE", "FOR SHARE", "FOR NO KEY UPDATE"])
def test_upsert_tells_right_beside_who_locked_the_row(cache: Cache, ground: Ground, table: Table, lock: str) -> None:
    """A lock stands in the row's own header, which others take for the sign of an update."""
    cache.upsert(table.name, [{"k": k, "v": "a"} for k in (1, 2)], unique="k")
    with psycopg.connect(str(ground.url)) as other:
        for round_ in range(2):
            other.execute(f"SELECT FROM {table.name} WHERE k IN (1, 2) {lock}")
            if lock != "FOR KEY SHARE":  # that one alone lets an update through
                other.rollback()
            rows = [{"k": 1, "v": "a"}, {"k": 2, "v": f"b{round_}"}, {"k": 10 + round_, "v": "c"}]
            assert outcomes(cache.upsert(table.name, rows, unique="k")) == ["unchanged", "updated", "inserted"]
            other.rollback()


def test_upsert_tells_right_beside_foreign_keys_and_triggers(cache: Cache, ground: Ground) -> None:
    table = Table(ground, "k int PRIMARY KEY, v int, parent int")
    ground.sql(f"ALTER TABLE {table.name} ADD FOREIGN KEY (parent) REFERENCES {table.name}")
    ground.sql(
        f"CREATE FUNCTION again_{table.name}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        f"UPDATE {table.name} SET v = v WHERE k = new.k; RETURN NULL; END $$"
    )
    ground.sql(f"CREATE TRIGGER again AFTER INSERT ON {table.name} FOR EACH ROW EXECUTE FUNCTION again_{table.name}()")
    rows = [{"k": 1, "v": 1, "parent": None}, {"k": 2, "v": 1, "parent": 1}, {"k": 3, "v": 1, "parent": 1}]
    assert outcomes(cache.upsert(table.name, rows, unique="k")) == ["inserted"] * 3
    rows = [{"k": 1, "v": 2, "parent": None}, {"k": 2, "v": 1, "parent": 1}, {"k": 4, "v": 1, "parent": 2}]
    assert outcomes(cache.upsert(table.name, rows, unique="k")) == ["updated", "unchanged", "inserted"]


def test_upsert_into_partitions(cache: Cache, ground: Ground) -> None:
    table = Table(ground, "k int PRIMARY KEY, v int) PARTITION BY RANGE (k")
    ground.sql(f"CREATE TABLE {table.name}_a PARTITION OF {table.name} FOR VALUES FROM (0) TO (10)")
    ground.sql(f"CREATE TABLE {table.name}_b (v int, gone int, k int NOT NULL)")  # laid out otherwise
    ground.sql(f"ALTER TABLE {table.name}_b DROP COLUMN gone")
    ground.sql(f"ALTER TABLE {table.name} ATTACH PARTITION {table.name}_b FOR VALUES FROM (10) TO (20)")
    with pytest.raises(psycopg.errors.FeatureNotSupported):  # what others tell the two apart by
        ground.sql(f"INSERT INTO {table.name} VALUES (9, 9) RETURNING xmax")
    assert outcomes(cache.upsert(table.name, [{"k": k, "v": 1} for k in (1, 11)], unique="k")) == ["inserted"] * 2
    rows = [{"k": 1, "v": 1}, {"k": 2, "v": 1}, {"k": 11, "v": 2}, {"k": 12, "v": 1}]
    assert outcomes(cache.upsert(table.name, rows, unique="k")) == ["unchanged", "inserted", "updated", "inserted"]


def test_upsert_says_when_a_trigger_changed_the_key(cache: Cache, ground: Ground) -> None:
    from stillwarm.errors import TierError

    table = Table(ground, "k text PRIMARY KEY, v int")
    ground.sql(
        f"CREATE FUNCTION low_{table.name}() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN new.k := lower(new.k); RETURN new; END $$"
    )
    ground.sql(f"CREATE TRIGGER low BEFORE INSERT ON {table.name} FOR EACH ROW EXECUTE FUNCTION low_{table.name}()")
    assert cache.upsert(table.name, {"k": "a", "v": 1}, unique="k").outcome == "inserted"
    with pytest.raises(TierError, match="a trigger"):
        cache.upsert(table.name, {"k": "B", "v": 1}, unique="k")
    assert table.rows() == [("a", 1), ("b", 1)]


# -------------------------------------------------------------------------------------------------------------- values


class Colour(enum.Enum):
    RED = "red"


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


# ------------------------------------------------------------------------------------------------------------- refusals


def test_upsert_wants_the_unique_index(cache: Cache, ground: Ground) -> None:
    table = Table(ground, "a int, b int, v int, updated_at timestamptz")
    row = {"a": 1, "b": 2, "v": 3}
    name = table.name
    for index in (
        f"CREATE UNIQUE INDEX partial ON {name} (a, b) WHERE v > 0",
        f"CREATE UNIQUE INDEX expressed ON {name} (a, (b + 0))",
        f"CREATE UNIQUE INDEX wider ON {name} (a, b, v)",
        f"CREATE UNIQUE INDEX narrower ON {name} (a)",
        f"CREATE INDEX plain ON {name} (a, b)",
        f"ALTER TABLE {name} ADD CONSTRAINT late UNIQUE (a, b) DEFERRABLE",
    ):
        ground.sql(index)
        with pytest.raises(ConfigError, match="no valid unique index over exactly these columns"):
            cache.upsert(name, row, unique=("a", "b"))
    assert table.rows() == []
    ground.sql("DROP INDEX narrower; DROP INDEX expressed; DROP INDEX partial")
    ground.sql(f"ALTER TABLE {name} DROP CONSTRAINT late")
    ground.sql(f"INSERT INTO {name} VALUES (1, 2, 0, '2026-01-02'), (1, 2, 9, '2026-01-03'), (1, 2, 5, '2026-01-01')")
    with pytest.raises(ConfigError) as caught:
        cache.upsert(name, row, unique=("a", "b"))
    # What it says is what helps.
    said = str(caught.value)
    make = said[said.index("CREATE UNIQUE INDEX") : said.index("; if rows")]
    keep = said[said.index("DELETE FROM") :]
    with pytest.raises(psycopg.errors.UniqueViolation):
        ground.sql(make)
    ground.sql(f'DROP INDEX "{make.split(chr(34))[1]}"')
    with pytest.raises(ConfigError, match="no valid unique index"):
        cache.upsert(name, row, unique=("a", "b"))
    ground.sql(keep)
    ground.sql(make)
    assert table.rows("v") == [(9,)], "the newest"
    assert cache.upsert(name, row, unique=("b", "a")).outcome == "updated"


def test_upsert_refuses_null_keys(cache: Cache, ground: Ground) -> None:
    table = Table(ground, "a int, b int, v int, UNIQUE (a, b)")
    with pytest.raises(ConfigError, match=r"row 1: a=2, b=None: a NULL"):
        cache.upsert(table.name, [{"a": 1, "b": 1, "v": 1}, {"a": 2, "b": None, "v": 1}], unique=("a", "b"))
    assert table.rows() == []


def test_upsert_takes_null_keys_where_they_are_equal(cache: Cache, ground: Ground) -> None:
    table = Table(ground, "a int, b int, v int, UNIQUE NULLS NOT DISTINCT (a, b)")
    row = {"a": 1, "b": None, "v": 1}
    for value, outcome in ((1, "inserted"), (1, "unchanged"), (2, "updated")):
        assert cache.upsert(table.name, {**row, "v": value}, unique=("a", "b"), returning="v") == Upserted(
            outcome, {"v": value}
        )
    assert table.rows() == [(1, None, 2)]


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"row": {"k": 1, "z": 1}}, "has no column 'z'; accepted: k, v, id, note"),
    ({"row": {"k": 1}, "returning": "z"}, "returning: the table .* has no column 'z'"),
    ({"row": {"v": "a"}}, r"unique=\('k',\): row has no 'k'"),
    ({"row": {}}, "a mapping of columns to values that is not empty"),
    ({"row": "k"}, "row='k'"),
    ({"row": 5}, "row=5"),
    ({"row": [{"k": 1}, {"k": 2, "v": 1}]}, r"row 1 has the columns \['k', 'v'\], row 0 has \['k'\]"),
    ({"row": [{"k": 1}, {"k": 1}]}, "row 0 and row 1 have the same key, k=1"),
    ({"row": [{"k": 1}, {"k": "01"}]}, "the same to the server"),
    ({"row": [{"k": 1, "v": "a"}, {"k": "01", "v": "b"}]}, "the same to the server"),
    ({"row": [{"k": 1}, 5]}, "row 1=5"),
    ({"row": {"k": 1}, "unique": ()}, "at least one"),
    ({"row": {"k": 1}, "unique": ("k", "k")}, "each once"),
    ({"row": {"k": 1}, "unique": 5}, "unique=5"),
    ({"row": {"k": 1, "v": "a"}, "update": "k"}, "update=.*'k'"),
    ({"row": {"k": 1, "v": "a"}, "update": "note"}, "update=.*'note': accepted: columns of the row .*: v"),
    ({"row": {"k": 1}, "timeout": "soon"}, "timeout="),
    ({"row": {"k": 1}, "table": "no_such_table"}, "there is no such table"),
    ({"row": {"k": 1}, "table": "a.b.c"}, "table='a.b.c'"),
    ({"row": {"k": 1}, "table": "x; DROP TABLE y"}, "table="),
    ({"row": {"k": 1}, "table": "pg_catalog.pg_tables"}, "no view"),
    ({"row": {"k": 1}, "invalidates": {"tag": "t"}}, "invalidates="),
    ({"row": {"k": 1}, "invalidates": [{"pattern": "*"}]}, "invalidates: {'pattern'"),
    ({"row": {"k": 1}, "invalidates": [{"tag": "t", "key": "k"}]}, "exactly one of"),
    ({"row": {"k": 1}, "invalidates": [{"type": "unheard"}]}, "type='unheard'"),
    ({"row": {"k": 1}, "invalidates": ["t"]}, "invalidates: 't'"),
]


@pytest.mark.parametrize(("arguments", "said"), REFUSED, ids=lambda a: str(a)[:50])
def test_upsert_refuses_what_it_cannot_do(cache: Cache, table: Table, arguments: dict[str, Any], said: str) -> None:
    given: dict[str, Any] = {"table": table.name, "unique": "k", **arguments}
    with pytest.raises(ConfigError, match=said):
        cache.upsert(given.pop("table"), given.pop("row"), **given)
    assert table.rows() == []


def test_upsert_refuses_columns_that_the_server_makes(cache: Cache, ground: Ground) -> None:
    table = Table(ground, "k int PRIMARY KEY, i int GENERATED ALWAYS AS IDENTITY, d int GENERATED ALWAYS AS (k) STORED")
    for name in ("i", "d"):
        with pytest.raises(ConfigError, match=f"'{name}' is generated by the server"):
            cache.upsert(table.name, {"k": 1, name: 1}, unique="k")
    assert cache.upsert(table.name, {"k": 1}, unique="k", returning=("i", "d")).row == {"i": 1, "d": 1}


@pytest.mark.parametrize(("name", "value"), [("k", "x"), ("k", 2**40), ("k", None), ("v", "a\0b"), ("v", object())])
def test_upsert_names_the_value_that_no_column_takes(cache: Cache, table: Table, name: str, value: Any) -> None:
    rows = [{"k": 1, "v": "a"}, {"k": 2, "v": "b", name: value}]
    with pytest.raises(CodecError, match=f"row 1: column '{name}'"):
        cache.upsert(table.name, rows, unique="k")
    assert table.rows() == []


def test_upsert_raises_what_the_server_says_and_writes_nothing(cache: Cache, ground: Ground) -> None:
    table = Table(ground, "k int PRIMARY KEY, v int CHECK (v > 0)")
    with pytest.raises(TierRejected) as caught:
        cache.upsert(table.name, [{"k": 1, "v": 1}, {"k": 2, "v": -1}], unique="k", invalidates=[{"tag": table.name}])
    assert caught.value.sqlstate == "23514"
    assert table.rows() == []
    assert marks(ground) == []


def test_upsert_waits_for_locks_until_its_timeout(cache: Cache, ground: Ground, table: Table) -> None:
    cache.upsert(table.name, {"k": 1, "v": "a"}, unique="k")
    with psycopg.connect(str(ground.url)) as other:
        other.execute(f"UPDATE {table.name} SET v = 'theirs'")
        with pytest.raises(TierTimeout):
            cache.upsert(table.name, {"k": 1, "v": "b"}, unique="k", timeout=0.5)
        other.commit()
    assert table.rows("v") == [("theirs",)], "it is over: nothing comes later"
    assert cache.upsert(table.name, {"k": 1, "v": "theirs"}, unique="k").outcome == "unchanged"


def test_upsert_that_is_refused_says_nothing_of_the_tier(cache: Cache, ground: Ground, caplog: Any) -> None:
    table = Table(ground, "k int PRIMARY KEY, v int CHECK (v > 0)")
    cache.upsert(table.name, {"k": 1, "v": 1}, unique="k")
    with psycopg.connect(str(ground.url)) as other:
        other.execute(f"UPDATE {table.name} SET v = 2")
        for _ in range(6):
            with pytest.raises(TierRejected):
                cache.upsert(table.name, {"k": 2, "v": 0}, unique="k")
            with pytest.raises(TierTimeout):
                cache.upsert(table.name, {"k": 1, "v": 3}, unique="k", timeout=0.1)
    assert cache.state == State.HEALTHY
    assert cache._tier is not None
    assert cache._tier.core.health()["circuit"] == "closed"
    assert caplog.records == []


def test_upsert_needs_a_tier() -> None:
    with Cache() as cache, pytest.raises(ConfigError, match="upsert needs the PostgreSQL tier"):
        cache.upsert("t", {"k": 1}, unique="k")
    with Cache(enabled=False) as cache, pytest.raises(ConfigError, match="upsert needs the PostgreSQL tier"):
        cache.upsert("t", {"k": 1}, unique="k")


@pytest.mark.parametrize("how", ["argument", "environment", "later"])
def test_upsert_writes_while_the_cache_is_off(
    ground: Ground, table: Table, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = ground.cache()
    source = Counted()
    f = function(other, source, tags=["t"])
    assert f("k") == "k#1"
    if how == "environment":
        monkeypatch.setenv("STILLWARM_DISABLED", "1")
    cache = ground.cache(enabled=how != "argument")
    if how == "later":
        cache._switch_off()
    g = function(cache, Counted())
    for value, outcome in (("a", "inserted"), ("a", "unchanged"), ("b", "updated")):
        done = cache.upsert(table.name, {"k": 1, "v": value}, unique="k", invalidates=[{"tag": "t"}])
        assert done.outcome == outcome
    assert (g("k"), g("k")) == ("k#1", "k#2"), "still off"
    assert other.confirm()
    assert f("k") == "k#2", "the others hear of it"


def test_upsert_in_the_child_of_a_fork_while_the_cache_is_off(ground: Ground, table: Table) -> None:
    cache = ground.cache(enabled=False)
    cache.upsert(table.name, {"k": 1, "v": "a"}, unique="k")
    child = os.fork()
    if child == 0:
        done = False
        try:
            done = cache.upsert(table.name, {"k": 2, "v": "b"}, unique="k").outcome == "inserted"
        finally:
            os._exit(0 if done else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert cache.upsert(table.name, {"k": 3, "v": "c"}, unique="k").outcome == "inserted", "its connection is unharmed"
    assert table.rows("k") == [(1,), (2,), (3,)]


# --------------------------------------------------------------------------------------------------------- invalidation


def marks(ground: Ground) -> list[tuple[Any, ...]]:
    return ground.sql(
        "SELECT name, soft FROM stillwarm.invalidations WHERE namespace = %s ORDER BY 1", ground.namespace
    )


@pytest.mark.parametrize("intent", [{"key": "f:'k'"}, {"tag": "t"}, {"type": "default"}, {"all": True}], ids=str)
def test_upsert_invalidates(ground: Ground, table: Table, intent: dict[str, Any]) -> None:
    a, b = ground.cache(), ground.cache()
    source = Counted()
    f, g = (function(cache, source, tags=["t"]) for cache in (a, b))
    assert f("k") == "k#1"
    ground.written()
    assert g("k") == "k#1"
    a.upsert(table.name, {"k": 1, "v": "a"}, unique="k", invalidates=[intent])
    assert f("k") == "k#2", "when it returns, memory has forgotten"
    ground.written()
    assert b.confirm()
    assert g("k") == "k#2"
    assert source.total == 2


def test_upsert_that_changes_nothing_invalidates_nothing(ground: Ground, cache: Cache, table: Table) -> None:
    source = Counted()
    f = function(cache, source, tags=["t"])
    row = {"k": 1, "v": "a"}
    cache.upsert(table.name, row, unique="k")
    assert f("k") == "k#1"
    assert cache.upsert(table.name, row, unique="k", invalidates=[{"tag": "t"}]).outcome == "unchanged"
    assert marks(ground) == []
    assert f("k") == "k#1"
    cache.upsert(table.name, [row, {"k": 2, "v": "b"}], unique="k", invalidates=[{"tag": "t"}])
    assert marks(ground) == [("tag:t", False)]
    assert f("k") == "k#2"


def test_upsert_makes_stale_what_may_be_served_stale(ground: Ground, cache: Cache, table: Table) -> None:
    f = function(cache, Counted(), tags=["t"], stale_while_revalidate=100)
    assert f("k") == "k#1"
    intents = [{"tag": "t", "stale": True}, {"key": "other"}]
    cache.upsert(table.name, {"k": 1, "v": "a"}, unique="k", invalidates=intents)
    assert marks(ground) == [("key:other", False), ("tag:t", True)]
    assert f("k") == "k#1", "stale, and refreshed behind"


def test_upsert_makes_the_tables_of_marks(warm_postgres: Any) -> None:
    url = warm_postgres.new_database()
    ground = Ground(url)
    try:
        table = Table(ground, "k int PRIMARY KEY, v int")
        done = ground.cache().upsert(table.name, {"k": 1, "v": 1}, unique="k", invalidates=[{"tag": "t"}])
        assert done.outcome == "inserted"
        assert marks(ground) == [("tag:t", False)]
    finally:
        ground.close()


# ---------------------------------------------------------------------------------------------------------------- async


async def test_upsert_for_coroutines(ground: Ground, table: Table) -> None:
    async with ground.cache() as cache:
        f = function(cache, Counted(), tags=["t"])
        assert f("k") == "k#1"
        for value, outcome in (("a", "inserted"), ("a", "unchanged"), ("b", "updated")):
            done = await cache.aupsert(
                table.name, {"k": 1, "v": value}, unique="k", returning="id", invalidates=[{"tag": "t"}]
            )
            assert done == Upserted(outcome, {"id": 1})
        assert f("k") == "k#2"
        many = await cache.aupsert(table.name, [{"k": 1, "v": "b"}, {"k": 2, "v": "b"}], unique="k")
        assert outcomes(many) == ["unchanged", "inserted"]
        assert await cache.aupsert(table.name, [], unique="k") == []
        with pytest.raises(ConfigError):
            await cache.aupsert(table.name, {"z": 1}, unique="z")


def test_upsert_twins_take_the_same_arguments() -> None:
    plain, twin = (inspect.signature(f).parameters for f in (Cache.upsert, Cache.aupsert))
    assert plain == twin


def test_upsert_behind_a_pooler(pgbouncer: str) -> None:
    ground = Ground(pgbouncer, pooler=True)
    try:
        table = Table(ground, "k int PRIMARY KEY, v int")
        cache = ground.cache()
        for value, outcome in ((1, "inserted"), (1, "unchanged"), (2, "updated")):
            row = [{"k": 1, "v": value}]
            assert outcomes(cache.upsert(table.name, row, unique="k", invalidates=[{"tag": "t"}])) == [outcome]
    finally:
        ground.close()
