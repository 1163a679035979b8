"""Compression dictionaries in the PostgreSQL tier: trained, shared, deleted, forged, and what is private.

Thread rule: each test's thread; the pool of a cache trains.
Refuses to know: what the core decides (tests/cpp/codec), real processes (test_dictionaries_processes).
"""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import flask
import pytest

from rows_alike import (
    ENOUGH,
    current,
    figures,
    has_dictionary,
    pass_pause,
    row,
    rows_of_dictionaries,
    settled,
    stored,
    trained,
)
from stillwarm import Cache, ConfigError, _core, _dictionaries
from stillwarm._tier import drive
from stillwarm.flask import Stillwarm
from tiers import Counted, Ground, eventually, function


def sealed(ground: Ground, where: _dictionaries.Place, body: bytes, codec: int = _core.DICTIONARY_CODEC) -> bytes:
    """What somebody may put where a dictionary is, with a checksum that is right."""
    return _core.seal(ground.namespace, where.sealed_as, body, codec, False, (10**15, 0, 0, 0), 1024)


def put(ground: Ground, where: _dictionaries.Place, payload: bytes) -> None:
    ground.sql(
        "UPDATE stillwarm.entries SET payload = %s WHERE namespace = %s AND key = %s",
        payload, ground.namespace, where.key,
    )  # fmt: skip


def delete_dictionaries(ground: Ground) -> None:
    ground.sql("DELETE FROM stillwarm.entries WHERE namespace = %s AND type = %s", ground.namespace, _dictionaries.TYPE)


def test_dictionaries_make_small_values_half_as_large(ground: Ground) -> None:
    cache = ground.cache()
    cache.set("k", row(10_000), ttl=100)
    before = stored(ground, "k")
    trained(cache)
    cache.set("k", row(10_000), ttl=100)
    after = stored(ground, "k")
    assert not has_dictionary(before)
    assert has_dictionary(after)
    assert len(after) - 32 < (len(before) - 32) / 2, "headers aside"
    assert ground.cache().get("k") == row(10_000)
    told = figures(cache)
    assert told["with_dictionary"] >= 1
    assert told["saved_bytes"] > 0
    assert told["ratio"] > 1
    assert told["compress_seconds"] > 0


def test_dictionaries_are_fetched_by_every_way_of_reading(ground: Ground) -> None:
    writer = ground.cache()
    trained(writer)
    writer.set_many({"a": row(1), "b": row(2)}, ttl=100)
    writer.set("n", {**row(3), "count": 1}, ttl=100)
    assert all(has_dictionary(stored(ground, key)) for key in "abn")
    ways: dict[str, Any] = {
        "get": lambda cache: cache.get("a"),
        "get_many": lambda cache: cache.get_many(["a", "b"])["a"],
        "aget": lambda cache: asyncio.run(cache.aget("a")),
        "find": lambda cache: next(one.value for one in cache.find(type="direct") if one.key == "a"),
        "get_or_set": lambda cache: cache.get_or_set("a", dict, ttl=1),
        "ttl_left": lambda cache: cache.ttl_left("a") > 0 and cache.get("a"),
        "contains": lambda cache: "a" in cache and cache.get("a"),
        "touch": lambda cache: cache.touch("a", ttl=100) and cache.get("a"),  # the last: it writes without one
    }
    for way, read in ways.items():
        cache = ground.cache()
        assert read(cache) == row(1), way
        assert figures(cache)["fetched"] == 1, way
        assert cache.stats().tier["undecodable"] == {}, way


def test_dictionaries_of_functions_are_their_types(ground: Ground) -> None:
    cache = ground.cache()
    cache.define("scores", ttl=100)
    source = Counted()
    source.value = row
    f = cache.cached("scores", name="f")(source.__call__)
    for n in range(ENOUGH):
        f(n)
    ground.written()
    settled(cache)
    assert current(cache, "scores")
    assert not current(cache, "direct")
    f(10_000)
    ground.written()
    assert has_dictionary(stored(ground, "f:10000"))
    other = ground.cache()
    other.define("scores", ttl=100)
    assert other.cached("scores", name="f")(source.__call__)(10_000) == row(10_000)
    assert source.calls[10_000] == 1, "it was read, not loaded"


def test_dictionaries_of_another_are_used_after_a_few_values(ground: Ground) -> None:
    number = trained(ground.cache())
    other = ground.cache()
    other.set_many({f"o{n}": row(20_000 + n) for n in range(40)}, ttl=100)
    settled(other)
    assert current(other) == number
    assert figures(other)["trained"] == 0


def test_dictionaries_of_two_that_train_at_once_are_both_right(ground: Ground) -> None:
    pair = [ground.cache(purge_every=None), ground.cache(purge_every=None)]
    studies = []
    for i, cache in enumerate(pair):
        cache.set_many({f"c{i}-{n}": row(50_000 * i + n) for n in range(ENOUGH)}, ttl=100)
        tier = cache._tier
        assert tier is not None
        eventually(lambda tier=tier: not tier.dictionary_work.busy.locked())
        study = tier.dictionaries.begin("direct")
        if study is not None:  # else the background was quicker
            study.run()
            studies.append((tier, study))
    for tier, study in studies:
        published = drive(tier, _dictionaries._published(tier, study))
        assert published
        tier.dictionaries.end(study, published, tier.dictionaries.doubts)
    numbers = {current(cache) for cache in pair}
    assert 0 not in numbers
    for i, cache in enumerate(pair):
        cache.set(f"of{i}", row(i), ttl=100)
        assert has_dictionary(stored(ground, f"of{i}"))
    reader = ground.cache()
    assert [cache.get(f"of{i}") for i, cache in enumerate([reader, reader])] == [row(0), row(1)]
    assert [pair[1 - i].get(f"of{i}") for i in range(2)] == [row(0), row(1)]


def test_dictionaries_are_there_again_after_everything_was_invalidated(ground: Ground) -> None:
    cache = ground.cache()
    number = trained(cache)
    cache.invalidate(all=True)
    settled(cache)
    assert current(cache) == number
    cache.set("k", row(1), ttl=100)
    assert has_dictionary(stored(ground, "k"))
    assert ground.cache().get("k") == row(1)


def test_dictionaries_are_not_doubted_for_what_leaves_them_alone(ground: Ground) -> None:
    cache = ground.cache()
    trained(cache)
    doubts = cache._tier.dictionaries.doubts  # type: ignore[union-attr]
    cache.invalidate(pattern="*score:*")
    cache.invalidate(key="k")
    cache.invalidate(tag="t")
    assert cache._tier.dictionaries.doubts == doubts  # type: ignore[union-attr]
    cache.set("k", row(1), ttl=100)
    assert has_dictionary(stored(ground, "k"))


@pytest.mark.parametrize("how", ["all", "pattern"])
def test_dictionaries_are_not_written_with_while_they_may_be_gone(ground: Ground, how: str) -> None:
    cache = ground.cache()
    trained(cache)
    tier = cache._tier
    assert tier is not None
    with tier.dictionary_work.busy:  # the background does not come to it
        cache.invalidate(**({"all": True} if how == "all" else {"pattern": "*"}))
        cache.set("k", row(1), ttl=100)
        assert not has_dictionary(stored(ground, "k"))
        assert ground.cache().get("k") == row(1)
    settled(cache)
    cache.set("k", row(1), ttl=100)
    assert has_dictionary(stored(ground, "k"))


def test_dictionaries_of_those_who_hear_of_it_are_there_again(ground: Ground) -> None:
    cache, other = ground.cache(), ground.cache()
    number = trained(cache)
    other.invalidate(all=True)
    doubts = cache._tier.dictionaries  # type: ignore[union-attr]

    def heard() -> bool:
        cache.get("nothing")
        return doubts.doubts > 0

    eventually(heard)
    settled(cache)
    cache.set("k", row(1), ttl=100)
    assert has_dictionary(stored(ground, "k"))
    assert current(cache) == number
    assert ground.cache().get("k") == row(1)


def test_dictionaries_that_are_gone_make_counted_misses(ground: Ground) -> None:
    cache = ground.cache()
    source = Counted()
    source.value = row
    cache.define("scores", ttl=100)
    f = cache.cached("scores", name="f")(source.__call__)
    for n in range(ENOUGH):
        f(n)
    ground.written()
    settled(cache)
    f(7_000)
    ground.written()
    assert has_dictionary(stored(ground, "f:7000"))
    delete_dictionaries(ground)

    other = ground.cache()
    other.define("scores", ttl=100)
    g = other.cached("scores", name="f")(source.__call__)
    assert g(7_000) == row(7_000)
    assert source.calls[7_000] == 2, "a load, no error"
    assert other.stats().tier["undecodable"] == {"no_dictionary": 1}
    ground.written()
    assert not has_dictionary(stored(ground, "f:7000")), "and written so that it can be read"
    before = figures(other)["missing"]
    assert [g(n) for n in range(20)] == [row(n) for n in range(20)]
    assert figures(other)["missing"] == before, "it is not asked for again at once"


def test_dictionaries_that_are_gone_are_written_again(ground: Ground) -> None:
    cache = ground.cache()
    number = trained(cache)
    cache.set("k", row(1), ttl=10_000)
    delete_dictionaries(ground)
    other = ground.cache()
    assert other.get("k") is None
    _core.clock_set(_core.clock_now() + 61_000_000_000)  # it is looked for once a minute
    cache.set("l", row(2), ttl=10_000)
    settled(cache)
    assert len(rows_of_dictionaries(ground)) == 2, "the dictionary, and which is the newest"
    assert current(cache) == number
    assert other.get("k") == row(1)
    assert ground.cache().get("k") == row(1)


def test_dictionaries_forged_are_refused(ground: Ground) -> None:
    cache = ground.cache()
    number = trained(cache)
    cache.set("k", row(1), ttl=10_000)
    where = _dictionaries.place("direct", number)
    good = stored(ground, where.key)
    other = _dictionaries.place("direct", number + 1)
    forged = {
        "garbage": b"garbage",
        "cut": good[: len(good) // 2],
        "another key's": sealed(ground, other, b"x" * 1000),
        "no dictionary": sealed(ground, where, b"x" * 1000),
        "a value": sealed(ground, where, b"x" * 1000, 1),
        "large": sealed(ground, where, b"x" * 200_000),
        "a bomb": sealed(ground, where, b"\0" * (1 << 20)),
    }
    assert len(forged["a bomb"]) < 200
    reader = ground.cache()
    for name, payload in forged.items():
        put(ground, where, payload)
        assert reader.get("k") is None, name
        assert reader.get("k") is None, name
        assert figures(reader)["refused"] == list(forged).index(name) + 1, "asked for once"
        pass_pause()
    put(ground, where, good)
    assert reader.get("k") == row(1)


def test_dictionaries_forged_are_replaced_by_those_who_have_them(ground: Ground) -> None:
    cache = ground.cache()
    where = _dictionaries.place("direct", trained(cache))
    put(ground, where, b"garbage")
    cache.set("k", row(1), ttl=10_000)
    _core.clock_set(_core.clock_now() + 61_000_000_000)
    cache.set("k", row(1), ttl=10_000)
    settled(cache)
    assert ground.cache().get("k") == row(1)


def test_dictionaries_are_not_trained_on_private_types(ground: Ground) -> None:
    cache = ground.cache()
    cache.define("secrets", ttl=100, private=True)
    cache.define("scores", ttl=100)
    for type_name in ("secrets", "scores"):
        f = cache.cached(type_name, name=type_name)(row)
        for n in range(ENOUGH):
            f(n)
    ground.written()
    settled(cache)
    assert current(cache, "scores"), "the control"
    assert not current(cache, "secrets")
    types = {key.split(":")[1] for key in rows_of_dictionaries(ground)}
    assert types == {"scores"}
    cache.cached("scores", name="one", private=True)(row)(1)
    ground.written()
    assert not has_dictionary(stored(ground, "one:1")), "one function of a type"


def test_dictionaries_are_not_trained_where_all_is_private(ground: Ground) -> None:
    cache = ground.cache(private=True)
    cache.set_many({f"k{n}": row(n) for n in range(ENOUGH)}, ttl=100)
    f = function(cache, row)
    for n in range(ENOUGH):
        f(n)
    ground.written()
    settled(cache)
    assert rows_of_dictionaries(ground) == []
    assert figures(cache)["sample_bytes"] == 0


def test_dictionaries_are_not_trained_on_what_a_route_keeps_per_user(ground: Ground) -> None:
    cache = ground.cache()
    app = flask.Flask(__name__)
    warm = Stillwarm(cache, app)
    cache.define("mine", ttl=100)
    cache.define("everybodys", ttl=100)

    @app.get("/mine")
    @warm.cache_response("mine", per_user=lambda: flask.request.headers["x-user"])
    def mine() -> Any:
        return flask.jsonify(row(int(flask.request.headers["x-user"])))

    @app.get("/rows/<int:n>")
    @warm.cache_response("everybodys")
    def everybodys(n: int) -> Any:
        return flask.jsonify(row(n))

    client = app.test_client()
    for n in range(ENOUGH):
        client.get("/mine", headers={"x-user": str(n)})
        client.get(f"/rows/{n}")
    ground.written()
    settled(cache)
    assert current(cache, "everybodys"), "the control"
    assert {key.split(":")[1] for key in rows_of_dictionaries(ground)} == {"everybodys"}
    assert figures(cache)["types"]["mine"]["values"] >= ENOUGH


def test_dictionaries_are_off_with_compression(ground: Ground) -> None:
    cache = ground.cache(compress_above=0)
    cache.set_many({f"k{n}": row(n) for n in range(ENOUGH)}, ttl=100)
    settled(cache)
    assert rows_of_dictionaries(ground) == []


@pytest.mark.parametrize("value", [None, 1, "yes"])
def test_dictionaries_private_is_true_or_false(value: object) -> None:
    with pytest.raises(ConfigError, match=f"private={value!r}.*accepted: True or False"):
        Cache().define("secrets", ttl=1, private=value)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="compression dictionaries"):
        Cache().define(_dictionaries.TYPE, ttl=1)


def test_dictionaries_are_nobodys_values(ground: Ground) -> None:
    cache = ground.cache()
    trained(cache)
    cache._flush_hits()
    assert len(rows_of_dictionaries(ground)) == 2
    assert _dictionaries.TYPE not in cache.shared_stats().types
    assert all(one.type != _dictionaries.TYPE for one in cache.find(limit=1000))
    assert all(one.type != _dictionaries.TYPE for one in cache.top(1000))
    cache.trim(max_rows=0)
    assert len(rows_of_dictionaries(ground)) == 2
    assert _dictionaries.TYPE not in cache.purge()


def test_dictionaries_do_not_make_a_caller_wait_for_training(ground: Ground) -> None:
    cache = ground.cache()
    threads: set[str] = set()
    steps = _dictionaries.studied

    def watched(*arguments: Any) -> Any:
        threads.add(threading.current_thread().name)
        return steps(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_dictionaries, "studied", watched)
        trained(cache)
    assert threads
    assert all(name.startswith("stillwarm-load-") for name in threads)
