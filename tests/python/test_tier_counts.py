"""Hit counts in PostgreSQL: exact in the process at any moment and everywhere after one flush.

Thread rule: threads count beside flushes; the background thread that flushes every second is not waited for.
Refuses to know: how hits are noted (cpp/core/memory/hit_notes.hpp).
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from chaos import ChaosProxy
from fleet_child import Child
from stillwarm import Cache
from tiers import PATIENCE, Counted, Ground, eventually, function, with_port


def flushed(*caches: Cache) -> None:
    for cache in caches:
        assert cache._upkeep is not None
        assert cache._upkeep.flush()


def counts(ground: Ground) -> dict[str, int]:
    return dict(ground.rows("key, hit_count"))


@pytest.fixture
def switching() -> Iterator[None]:
    """Threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def test_counts_go_from_1_to_5_with_five_hits(ground: Ground) -> None:
    cache = ground.cache()
    f = function(cache, Counted())
    f("k")
    ground.written()
    assert counts(ground) == {"f:'k'": 0}
    for n in range(1, 6):
        f("k")
        flushed(cache)
        assert counts(ground) == {"f:'k'": n}
    assert cache.top(1)[0].hits == 5
    assert cache.find(type="default")[0].hit_count == 5


def test_counts_of_the_first_answer_from_the_tier_are_hits(ground: Ground) -> None:
    writer, reader = ground.cache(), ground.cache()
    function(writer, Counted())("k")
    ground.written()
    f = function(reader, Counted())
    f("k"), f("k")
    assert reader.get("k") is None
    writer.set("d", 1, ttl=10)
    assert [reader.get("d"), reader.get("d"), reader.get("d")] == [1, 1, 1]
    flushed(writer, reader)
    assert counts(ground) == {"d": 3, "f:'k'": 2}


def test_counts_of_what_is_written_behind_find_their_row(ground: Ground) -> None:
    """The hits come while the write is held up by another transaction."""
    import psycopg

    cache = ground.cache()
    f = function(cache, Counted())
    f("k")
    ground.written()
    with psycopg.connect(ground.url) as connection:
        connection.execute("LOCK TABLE stillwarm.entries IN SHARE MODE")
        f("l"), f("l"), f("l")
        with ThreadPoolExecutor(1) as pool:
            flush = pool.submit(flushed, cache)
            waiting = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
            eventually(lambda: ground.sql(waiting))
            connection.rollback()
            flush.result(PATIENCE)
    ground.written()
    flushed(cache)
    assert counts(ground) == {"f:'k'": 0, "f:'l'": 2}


@pytest.mark.usefixtures("switching")
def test_counts_are_exact_under_64_threads_and_several_caches(ground: Ground) -> None:
    caches = [ground.cache() for _ in range(3)]
    functions = [function(cache, Counted(), stale_if_error=0) for cache in caches]
    for f in functions:
        for key in range(5):
            f(key)
        ground.written()
    flushed(*caches)
    before = counts(ground)
    start = threading.Barrier(64)
    done = threading.Event()

    def work(i: int) -> int:
        start.wait(PATIENCE)
        for n in range(150):
            functions[i % 3]((i + n) % 5)
        return 150

    def flush() -> None:
        while not done.is_set():
            flushed(*caches)

    with ThreadPoolExecutor(65) as pool:
        other = pool.submit(flush)
        asked = sum(pool.map(work, range(64)))
        done.set()
        other.result(PATIENCE)
    flushed(*caches)
    after = counts(ground)
    assert sum(after.values()) - sum(before.values()) == asked
    assert sum(cache.stats().hits for cache in caches) == sum(after.values())


def test_counts_move_with_eviction_and_invalidation(ground: Ground) -> None:
    cache = ground.cache(max_entries=4)
    f = function(cache, Counted())
    for key in range(30):
        f(key), f(key), f(key)
    cache.stats()
    ground.written()
    flushed(cache)
    hits = cache.stats().hits
    assert sum(counts(ground).values()) == hits
    assert hits > 0


def test_counts_of_what_memory_does_not_keep(ground: Ground) -> None:
    function(ground.cache(), lambda key: "x" * 3000)("k")
    ground.written()
    cache = ground.cache(max_bytes=4096)
    f = function(cache, Counted())
    for _ in range(3):
        assert f("k") == "x" * 3000
    flushed(cache)
    assert counts(ground) == {"f:'k'": 3}


def test_counts_of_a_commit_in_doubt_are_not_counted_twice(ground: Ground, chaos: Callable[..., ChaosProxy]) -> None:
    proxy = chaos(int(str(ground.url).rpartition(":")[2].partition("/")[0]))
    cache = Cache(with_port(str(ground.url), proxy.port), namespace=ground.namespace, jitter=0.0, purge_every=None)
    ground.caches.append(cache)
    assert cache._upkeep is not None
    cache._upkeep._stop.set()  # nobody flushes but this test
    f = function(cache, Counted())
    f("k")
    eventually(lambda: ground.rows())
    for n in range(1, 4):
        f("k")
        eventually(cache._upkeep.flush)
        f("k")
        before = proxy.faults
        proxy.behave(cut_after=0)
        assert cache._upkeep.flush() is False
        proxy.behave()
        assert proxy.faults > before, "the fault did not happen"
        eventually(cache._upkeep.flush)
        assert counts(ground) == {"f:'k'": 2 * n}


def test_counts_a_kill_loses_at_most_what_was_not_flushed(ground: Ground) -> None:
    with Child(ground) as child:
        for _ in range(11):
            child.do("f", "k")
        eventually(lambda: counts(ground).get("f:'k'") == 10)  # by itself, every second
        for _ in range(5):
            child.do("f", "k")
        child.kill()
    assert 10 <= counts(ground)["f:'k'"] <= 15


def test_counts_are_flushed_by_close(ground: Ground) -> None:
    cache = ground.cache()
    f = function(cache, Counted())
    f("k")
    ground.written()
    f("k"), f("k")
    cache.close()
    assert counts(ground) == {"f:'k'": 2}


def test_counts_of_two_functions_and_a_verb_are_their_own(ground: Ground) -> None:
    cache = ground.cache()
    functions: list[Any] = [function(cache, Counted(), name=name) for name in ("f", "g")]
    for f in functions:
        f("k")
    cache.set("k", 1, ttl=10)
    ground.written()
    functions[0]("k")
    cache.get("k"), cache.get("k")
    flushed(cache)
    assert counts(ground) == {"k": 2, "f:'k'": 1, "g:'k'": 0}
