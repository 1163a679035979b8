"""Find, top, figures and invalidation by SQL, on a real server.

Thread rule: a second session holds locks or transactions open; nothing waits for time to pass.
Refuses to know: the purge (test_admin_purge), and how entries get there; rows are written here by plain SQL.
"""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

import pytest

from postgres_here import Database
from reference_tables import HISTORY, discovery, scoring
from stillwarm import ConfigError
from stillwarm._admin import find, stats, top
from stillwarm._invalidate_sql import invalidate
from stillwarm._place import Place
from stillwarm._purge import purge
from stillwarm._schema import migrate
from stillwarm._tables import typed_table
from stillwarm._where import condition, where_sql
from stillwarm.journal import Journal
from storing import TABLES, keys, put, score


@pytest.fixture
def place(database: Database) -> Place:
    migrate(database.query, [discovery(), scoring()])
    return Place(database.query, "shop", "stillwarm", TABLES)


# ------------------------------------------------------------------------------------------------------------ find


def test_admin_find_by_type_and_tag(database: Database, place: Place) -> None:
    put(database, "a", tags=["red", "big"], payload=b"\x00\xff", hits=3)
    put(database, "b", tags=["red"], expires="-1 second")
    put(database, "c", type="other", tags=["red"])
    put(database, "d", namespace="elsewhere", tags=["red"])
    key = score(database, "B1", 31.5, tags=["red"], hits=2)
    assert [one.key for one in find(place, tag="red")] == ["a", "c", key]
    assert [one.key for one in find(place, type="plain")] == ["a"]
    assert [one.key for one in find(place, limit=1)] == ["a"]
    assert find(place, tag="blue") == []
    (one,) = find(place, type="plain", tag="big")
    assert (one.value, one.hit_count, one.tags) == (b"\x00\xff", 3, ("red", "big"))
    assert one.created_at is not None
    assert abs((datetime.now(timezone.utc) - one.created_at).total_seconds()) < 60
    (row,) = find(place, type="scoring")
    assert isinstance(row.value, dict)
    assert (row.value["roi_percent"], row.value["title"], row.hit_count, row.tags) == (31.5, None, 2, ("red",))


def test_admin_find_by_condition_with_parameters(database: Database, place: Place) -> None:
    for asin, roi in [("B1", 10), ("B2", 30), ("B3", 50)]:
        score(database, asin, roi, entry=asin != "B2")

    def asins(where: str, **params: Any) -> list[str]:
        return [one.value["asin"] for one in find(place, type="scoring", where=where, params=params)]  # type: ignore[index]

    assert asins("roi_percent > :least AND roi_percent < :most", least=20, most=40.5) == ["B2"]
    assert asins("roi_percent > :x OR roi_percent = :x - 20 -- comment", x=30) == ["B1", "B3"]
    assert asins("asin = ANY (:some)", some=["B1", "B3", "x'; DROP TABLE product_scoring_cache"]) == ["B1", "B3"]
    assert asins("asin = :a", a="' OR true --") == []
    assert asins("recommendation <> ':least' AND roi_percent::int = 30") == ["B2"]
    assert asins("title IS NOT DISTINCT FROM :t::varchar AND roi_percent < 20", t=None) == ["B1"]


def test_admin_find_gives_the_payload_of_a_typed_row_that_has_one(database: Database) -> None:
    table = typed_table("t", table="t", columns={"a": "int"})
    migrate(database.query, [table])
    database.sql("INSERT INTO t VALUES ('k', 5, '\\x00ff', now(), now() + interval '1 h', 0)")
    (found,) = find(Place(database.query, "shop", "stillwarm", {"t": table}), type="t", where="a = :a", params={"a": 5})
    assert found.value == {"a": 5, "payload": b"\x00\xff"}


def test_admin_find_does_not_see_what_was_invalidated(database: Database, place: Place) -> None:
    put(database, "a", tags=["red"])
    put(database, "b")
    entry, foreign = score(database, "B1", 1), score(database, "B2", 1, entry=False)
    assert invalidate(place, tag="red") is None
    assert [one.key for one in find(place)] == ["b", entry, foreign]
    invalidate(place, type="scoring")
    assert [one.key for one in find(place)] == ["b"]
    put(database, "c", tags=["red"])  # loaded after the mark
    assert [one.key for one in find(place)] == ["b", "c"]
    invalidate(place, all=True, stale=True)
    assert [one.key for one in find(place)] == ["b", "c"]
    invalidate(place, all=True)
    assert find(place) == []


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"where": "true"}, "type=None: where= needs a type with a table"),
        ({"where": "true", "type": "plain"}, "accepted: discovery, scoring"),
        ({"where": "a = :b", "type": "scoring"}, "params has no 'b'"),
        ({"where": "true", "params": {"b": 1}, "type": "scoring"}, "does not use it"),
        ({"where": "true; DROP TABLE x", "type": "scoring"}, "without a semicolon"),
        ({"where": "asin = $1", "type": "scoring"}, "parameters are written as :name"),
        ({"where": " ", "type": "scoring"}, "where=' '"),
        ({"limit": 0}, "limit=0"),
    ],
)
def test_admin_find_names_a_wrong_argument(place: Place, arguments: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named.replace("$", r"\$")):
        find(place, **arguments)


def test_admin_condition_leaves_quotes_casts_and_comments_alone() -> None:
    text, values = condition("a = :x AND b = ':y' AND c::int = :z -- :w\n AND \"d:e\" = $q$:v$q$ AND f = :x",
                             {"x": 1, "z": True}, 2)  # fmt: skip
    assert text == "(a = $3 AND b = ':y' AND c::int = $4 -- :w\n AND \"d:e\" = $q$:v$q$ AND f = $3\n)"
    assert values == ["1", "true"]


# ---------------------------------------------------------------------------------------------------- figures


def test_admin_top_and_stats_count_shared_and_typed(database: Database, place: Place) -> None:
    put(database, "a", hits=5, payload=b"12345")
    put(database, "b", hits=1, expires="-1 second")
    put(database, "u", type="unknown")
    score(database, "B1", 1, hits=9)
    score(database, "B2", 1, expires="-1 second", hits=50)
    assert [(hot.key, hot.type, hot.hits) for hot in top(place, 2)] == [
        ("scoring:B1:1", "scoring", 9),
        ("a", "plain", 5),
    ]
    figures = stats(place)
    plain, typed = figures.types["plain"], figures.types["scoring"]
    assert (plain.entries, plain.hits, plain.average_hits, plain.expired, plain.bytes) == (2, 6, 3.0, 1, 6)
    assert (typed.entries, typed.hits, typed.expired, typed.table) == (2, 59, 1, "product_scoring_cache")
    assert typed.bytes > 8192
    assert figures.types["discovery"].entries == 0
    assert figures.types["unknown"].entries == 1
    assert (figures.entries, figures.expired) == (5, 2)
    assert figures.shared_table_bytes > 0
    with pytest.raises(ConfigError, match="n=0"):
        top(place, 0)


# ------------------------------------------------------------------------------------------------ invalidation


def test_admin_where_invalidation_deletes_marks_and_returns_keys(database: Database, place: Place) -> None:
    low, high = score(database, "B1", 10), score(database, "B2", 30)
    foreign = score(database, "B3", 40, entry=False)
    sql, values = where_sql(place, "scoring", "roi_percent > :least", {"least": 20}, origin="me")
    assert [row[0] for row in place.query(sql, values)] == [high, foreign]
    assert keys(database, "product_scoring_cache", "cache_key") == [low]
    assert keys(database) == [low]
    assert database.sql('SELECT name, soft, origin FROM stillwarm.invalidations ORDER BY name COLLATE "C"') == [
        ("fence", False, "me"), (f"key:{high}", False, "me"), (f"key:{foreign}", False, "me"),
    ]  # fmt: skip
    assert invalidate(place, type="scoring", where="false") == 0  # the fence all the same
    assert database.sql("SELECT count(seen) FROM stillwarm.invalidations WHERE name = 'fence'") == [(2,)]


def test_admin_where_invalidation_may_leave_rows_stale(database: Database, place: Place) -> None:
    key = score(database, "B1", 10)
    assert invalidate(place, type="scoring", where="asin = :a", params={"a": "B1"}, stale=True) == 1
    assert keys(database, "product_scoring_cache", "cache_key") == [key]
    assert database.sql('SELECT name, soft FROM stillwarm.invalidations ORDER BY name COLLATE "C"') == [
        ("fence", False), (f"key:{key}", True),
    ]  # fmt: skip
    (found,) = find(place, type="scoring")
    assert found.fresh_until is not None
    assert found.fresh_until <= datetime.now(timezone.utc)


def test_admin_invalidation_by_key_and_glob(database: Database, place: Place) -> None:
    for key in ("cache:search:1", "cache:search:22", "cache:user:1", "a.c", "abc", "a_c", "日本:1"):
        put(database, key)
    score(database, "B1", 1)
    assert invalidate(place, pattern="cache:search:?") == 1
    assert invalidate(place, pattern="cache:*") == 2
    assert invalidate(place, pattern="a.c") == 1
    assert invalidate(place, pattern="a[!x-z]c") == 2
    assert invalidate(place, pattern="日本*") == 1
    assert invalidate(place, pattern="scoring:*") == 1
    assert keys(database) == []
    assert keys(database, "product_scoring_cache", "cache_key") == []
    assert invalidate(place, key="not there") == 0
    names = keys(database, "stillwarm.invalidations", "name")
    assert names == ["fence"] * 6 + ["key:not there"] + [
        f"pattern:{glob}" for glob in ("a.c", "a[!x-z]c", "cache:*", "cache:search:?", "scoring:*", "日本*")
    ]  # fmt: skip


@pytest.mark.parametrize("intent", [{}, {"key": "a", "tag": "b"}, {"where": "true"}, {"key": "a", "type": "b"}])
def test_admin_invalidation_wants_one_intent(place: Place, intent: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="exactly one"):
        invalidate(place, **intent)


def test_admin_clearing_the_caches_leaves_the_journal(database: Database, place: Place) -> None:
    with Journal(database.query, "search_history", HISTORY) as journal:
        migrate(database.query, [journal])
        journal.record(search_type="discovery", filters={}, results_count=1)
        journal.flush()
        score(database, "B1", 1)
        invalidate(place, all=True)
        purge(place, retention=0)
        assert journal.count_by("search_type") == {"discovery": 1}
        assert keys(database, "product_scoring_cache", "cache_key") == []
