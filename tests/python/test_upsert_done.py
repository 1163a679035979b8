"""What `cache.upsert` says when it was done and something else went wrong: never "unchanged", never "nothing was done".

Thread rule: one thread, but for the session that holds a lock.
Refuses to know: lost answers (test_upsert_faults.py), what is refused beforehand (test_upsert_refused.py).
"""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from stillwarm import Cache, Upserted, _upsert
from stillwarm.errors import CodecError, TierError, TierUnavailable
from tiers import Ground
from upserts import Table, outcomes


@pytest.fixture
def cache(ground: Ground) -> Cache:
    return ground.cache()


def drops(ground: Ground, table: Table, when: str, condition: str = "true") -> None:
    """A trigger that silently keeps rows out."""
    ground.sql(
        f"CREATE FUNCTION drop_{table.name}() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN IF {condition} THEN RETURN null; END IF; RETURN new; END $$"
    )
    ground.sql(f"CREATE TRIGGER out BEFORE {when} ON {table.name} FOR EACH ROW EXECUTE FUNCTION drop_{table.name}()")


@pytest.mark.parametrize("when", ["INSERT", "UPDATE"])
def test_upsert_a_row_that_a_trigger_kept_out_is_not_called_unchanged(cache: Cache, ground: Ground, when: str) -> None:
    table = Table(ground, "k int PRIMARY KEY, v int")
    if when == "UPDATE":
        cache.upsert(table.name, {"k": 1, "v": 1}, unique="k")
    before = table.rows()
    drops(ground, table, when)
    with pytest.raises(TierError, match="a trigger must have kept rows out"):
        cache.upsert(table.name, {"k": 1, "v": 2}, unique="k")
    assert table.rows() == before, "it is not as given"
    if when == "UPDATE":
        assert cache.upsert(table.name, {"k": 1, "v": 1}, unique="k").outcome == "unchanged"


def test_upsert_says_so_when_a_trigger_kept_out_one_of_many(cache: Cache, ground: Ground) -> None:
    table = Table(ground, "k int PRIMARY KEY, v int")
    cache.upsert(table.name, [{"k": k, "v": 1} for k in range(4)], unique="k")
    drops(ground, table, "INSERT OR UPDATE", "new.k = 5")
    rows = [{"k": k, "v": 1 if k % 2 else 2} for k in range(5)]
    assert outcomes(cache.upsert(table.name, rows, unique="k")) == ["updated", "unchanged"] * 2 + ["inserted"]
    with pytest.raises(TierError, match="it was done, but a trigger"):
        cache.upsert(table.name, [{"k": k, "v": 3} for k in range(6)], unique="k")
    assert table.rows("v") == [(3,)] * 5


@pytest.mark.parametrize("default", ["date '0044-03-15 BC'", "timestamptz '20000-01-01'"])
def test_upsert_says_that_it_was_done_when_python_cannot_have_what_it_returns(
    cache: Cache, ground: Ground, default: str
) -> None:
    table = Table(ground, f"k int PRIMARY KEY, v int, at {default.split()[0]} DEFAULT {default}")
    for value in (1, 1, 2):  # inserted, unchanged, updated
        with pytest.raises(CodecError, match=f"upsert of {table.name}: it was done, but .*column 'at'"):
            cache.upsert(table.name, {"k": 1, "v": value}, unique="k", returning="at")
        assert table.rows("v", order="k") == [(value,)]


def test_upsert_says_that_it_was_done_when_what_is_unchanged_cannot_be_read(
    cache: Cache, ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = Table(ground, "k int PRIMARY KEY, v int, id serial")
    cache.upsert(table.name, {"k": 1, "v": 1}, unique="k")
    reread = _upsert._reread
    with psycopg.connect(str(ground.url)) as other:

        def locked(*arguments: Any) -> Any:
            other.execute(f"LOCK TABLE {table.name} IN ACCESS EXCLUSIVE MODE")
            return reread(*arguments)

        monkeypatch.setattr(_upsert, "_reread", locked)
        monkeypatch.setattr(_upsert, "_AT_LEAST", 100_000_000)
        with pytest.raises(TierUnavailable, match="it was done, but the rows that were unchanged could not be read"):
            cache.upsert(table.name, [{"k": 1, "v": 1}, {"k": 2, "v": 2}], unique="k", returning="id")
    monkeypatch.undo()
    assert table.rows("k, v") == [(1, 1), (2, 2)]
    assert cache.upsert(table.name, {"k": 2, "v": 2}, unique="k", returning="k") == Upserted("unchanged", {"k": 2})
