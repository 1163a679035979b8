"""What `cache.upsert` refuses, before anything is written or by what the server says of it.

Thread rule: one thread, but for the session that holds a lock.
Refuses to know: outcomes (test_upsert.py) and broken connections (test_upsert_faults.py).
"""

from __future__ import annotations

import time
from datetime import datetime, timedelta, timezone
from typing import Any

import psycopg
import pytest

from stillwarm import Cache, ConfigError, State, Upserted, _upsert, _upsert_rows
from stillwarm.errors import CodecError, TierRejected, TierTimeout
from tiers import Ground
from upserts import Table, marks


@pytest.fixture
def table(ground: Ground) -> Table:
    """(k, v) with a key that the server counts."""
    return Table(ground, "k int PRIMARY KEY, v text, id serial, note text DEFAULT 'new'")


@pytest.fixture
def cache(ground: Ground) -> Cache:
    return ground.cache()


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
    ({"row": {"k": 1}, "invalidates": [{"tag": "t", "key": "k"}]}, "exactly one of key, type, tag, all"),
    ({"row": {"k": 1}, "invalidates": [{}]}, "exactly one of key, type, tag, all"),
    ({"row": {"k": 1}, "invalidates": [{"tag": "a\0b"}]}, r"'tag': 'a\\x00b'.* without NUL"),
    ({"row": {"k": 1}, "invalidates": [{"tag": "\ud800"}]}, r"'tag': '\\ud800'.* without NUL and lone surrogates"),
    ({"row": {1: 2}}, r"row has no 'k'; it has: 1"),
    ({"row": {"k": 1, 2: 3}, "update": "z"}, "update=.*'z': accepted: .*: 2"),
    ({"row": {"k": 1}, "invalidates": [{"type": "unheard"}]}, "type='unheard'"),
    ({"row": {"k": 1}, "invalidates": ["t"]}, "invalidates: 't'"),
]


@pytest.mark.parametrize(("arguments", "said"), REFUSED, ids=lambda a: str(a)[:50])
def test_upsert_refuses_what_it_cannot_do(cache: Cache, table: Table, arguments: dict[str, Any], said: str) -> None:
    given: dict[str, Any] = {"table": table.name, "unique": "k", **arguments}
    with pytest.raises(ConfigError, match=said):
        cache.upsert(given.pop("table"), given.pop("row"), **given)
    assert table.rows() == []


@pytest.mark.parametrize("first", [1, 3])
@pytest.mark.parametrize("update", [None, ()])
def test_upsert_refuses_two_rows_of_one_key_whatever_is_there(
    cache: Cache, ground: Ground, first: int, update: Any
) -> None:
    """Two times of one moment are two texts. The first may be equal to the row that is there, and is not written."""
    table = Table(ground, "k timestamptz PRIMARY KEY, v int")
    noon = datetime(2026, 1, 1, 12, tzinfo=timezone.utc)
    cache.upsert(table.name, {"k": noon, "v": 1}, unique="k")
    rows = [{"k": noon, "v": first}, {"k": noon.astimezone(timezone(timedelta(hours=2))), "v": 2}]
    with pytest.raises(ConfigError, match="two of the rows have a key that is the same to the server; nothing"):
        cache.upsert(table.name, rows, unique="k", update=update)
    assert table.rows("v") == [(1,)]


ANY_CASE = "CREATE COLLATION IF NOT EXISTS any_case (provider = icu, locale = 'und-u-ks-level2', deterministic = false)"


@pytest.mark.parametrize("keys", ["aA", "Aa"])
@pytest.mark.parametrize("update", [None, ()])
def test_upsert_refuses_two_rows_of_one_key_that_only_the_column_knows(
    cache: Cache, ground: Ground, update: Any, keys: str
) -> None:
    ground.sql(ANY_CASE)
    table = Table(ground, "k text COLLATE any_case PRIMARY KEY, v int")
    for there in ([], [("a", 1)]):  # whichever comes first, one of the two is equal to it and would not be written
        assert table.rows() == there
        with pytest.raises(ConfigError, match="two of the rows have a key that is the same to the server; nothing"):
            cache.upsert(table.name, [{"k": k, "v": v} for v, k in enumerate(keys, 1)], unique="k", update=update)
        assert table.rows() == there
        cache.upsert(table.name, {"k": "a", "v": 1}, unique="k")
    assert cache.upsert(table.name, {"k": "A", "v": 2}, unique="k").outcome == "updated"


def test_upsert_whose_answer_is_lost_takes_no_other_text_for_the_one_that_was_given(
    cache: Cache, ground: Ground
) -> None:
    """What the look afterwards asks, where the collation of the column takes both for one."""
    ground.sql(ANY_CASE)
    table = Table(ground, "k int PRIMARY KEY, v text COLLATE any_case")
    cache.upsert(table.name, {"k": 1, "v": "A"}, unique="k")
    assert cache._tier is not None
    for given, as_given in (("A", "t"), ("a", "f")):
        asked = _upsert_rows.asked(table.name, {"k": 1, "v": given}, "k", None, ())
        ready = _upsert_rows.job(asked, cache._tier.targets[table.name], "")
        assert cache._tier.query(ready.plan.reread_text, ready.arrays) == [("1", as_given)]


def test_upsert_leaves_a_triggers_error_its_own(cache: Cache, ground: Ground) -> None:
    """Of the SQLSTATE that a row which is written twice has."""
    table = Table(ground, "k int PRIMARY KEY, v int")
    ground.sql(
        f"CREATE FUNCTION two_{table.name}() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN PERFORM (SELECT 1 UNION SELECT 2); RETURN new; END $$"
    )
    ground.sql(f"CREATE TRIGGER two BEFORE INSERT ON {table.name} FOR EACH ROW EXECUTE FUNCTION two_{table.name}()")
    with pytest.raises(TierRejected, match="more than one row returned by a subquery"):
        cache.upsert(table.name, {"k": 1, "v": 1}, unique="k")


def test_upsert_takes_columns_of_any_name_and_says_what_they_lack(cache: Cache, ground: Ground) -> None:
    table = Table(ground, '"Größe in m" int, "a ""b""" int UNIQUE')
    assert cache.upsert(table.name, {"Größe in m": 1, 'a "b"': 2}, unique='a "b"', returning="*").row == {
        "Größe in m": 1,
        'a "b"': 2,
    }
    with pytest.raises(ConfigError, match=r"unique=\('Größe in m',\): the table .* has no valid unique index"):
        cache.upsert(table.name, {"Größe in m": 1}, unique="Größe in m")


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


def test_upsert_whose_time_is_over_before_it_is_sent_is_not_sent(
    cache: Cache, table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.upsert(table.name, {"k": 0, "v": "a"}, unique="k")  # from now on the server need not be asked of the table
    before, ready = table.rows(), _upsert._ready

    def slow(*arguments: Any) -> Any:
        job = yield from ready(*arguments)
        until = time.monotonic() + 0.05
        while time.monotonic() < until:
            yield 0.01
        return job

    monkeypatch.setattr(_upsert, "_ready", slow)
    for _ in range(3):
        with pytest.raises(TierTimeout, match=r"timeout='50ms' was over before it was sent"):
            cache.upsert(table.name, {"k": 1, "v": "a"}, unique="k", timeout="50ms")
    assert table.rows() == before


def test_upsert_that_is_refused_says_nothing_of_the_tier(cache: Cache, ground: Ground, caplog: Any) -> None:
    table = Table(ground, "k int PRIMARY KEY, v int CHECK (v > 0)")
    cache.upsert(table.name, {"k": 1, "v": 1}, unique="k")
    with psycopg.connect(str(ground.url)) as other:
        other.execute(f"UPDATE {table.name} SET v = 2")
        for _ in range(6):
            with pytest.raises(TierRejected):
                cache.upsert(table.name, {"k": 2, "v": 0}, unique="k")
            with pytest.raises(TierTimeout):
                cache.upsert(table.name, {"k": 1, "v": 3}, unique="k", timeout=0.5)  # else the watchdog may be first
    assert cache.state == State.HEALTHY
    assert cache._tier is not None
    assert cache._tier.core.health()["circuit"] == "closed"
    assert caplog.records == []
