"""Many callers at a time upsert the same keys: one row each, one of them inserted it, and no deadlock reaches anybody.

Thread rule: callers start together behind a barrier; who waits for whom is read from the server.
Refuses to know: broken connections (test_upsert_faults.py).
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

from outages import at_once
from stillwarm import Cache
from stillwarm.errors import TierRejected, TierTimeout
from tiers import PATIENCE, Counted, Ground, eventually, function


@pytest.fixture
def name(ground: Ground) -> Iterator[str]:
    name = f"c_{ground.namespace}"
    ground.sql(f"CREATE TABLE {name} (k int PRIMARY KEY, v int, n int DEFAULT 0)")
    yield name
    ground.sql(f"DROP TABLE {name}")


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(20) as pool:
        yield pool


def waiting(ground: Ground, name: str) -> bool:
    """Whether an upsert of the table waits for a lock."""
    found = ground.sql(
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE %s", f'%INTO "{name}"%'
    )
    return bool(found[0][0])


def calls(caches: list[Cache], count: int, one: Callable[[Cache, int], Any]) -> list[Any]:
    """So many at once, each on a thread; what they returned. None of them raised."""
    done = at_once([lambda i=i: one(caches[i % len(caches)], i) for i in range(count)])  # type: ignore[misc]
    assert [outcome for outcome in done if isinstance(outcome, BaseException)] == []
    return done


def test_upsert_concurrent_callers_of_one_row_insert_it_once(ground: Ground, name: str) -> None:
    caches = [ground.cache(connections=8) for _ in range(4)]
    for k in range(5):
        done = calls(caches, 64, lambda cache, _, k=k: cache.upsert(name, {"k": k, "v": 1}, unique="k"))
        assert Counter(one.outcome for one in done) == {"inserted": 1, "unchanged": 63}
    assert ground.sql(f"SELECT k, v FROM {name} ORDER BY k") == [(k, 1) for k in range(5)]


def test_upsert_concurrent_callers_with_their_own_values_update(ground: Ground, name: str) -> None:
    caches = [ground.cache(connections=8) for _ in range(4)]
    done = calls(caches, 64, lambda cache, i: cache.upsert(name, {"k": 1, "v": i}, unique="k"))
    assert Counter(one.outcome for one in done) == {"inserted": 1, "updated": 63}


def test_upsert_concurrent_insert_only_callers(ground: Ground, name: str) -> None:
    caches = [ground.cache(connections=8) for _ in range(4)]
    done = calls(caches, 64, lambda cache, i: cache.upsert(name, {"k": 1, "v": i}, unique="k", update=()))
    assert Counter(one.outcome for one in done) == {"inserted": 1, "unchanged": 63}
    winner = next(i for i, one in enumerate(done) if one.outcome == "inserted")
    assert ground.sql(f"SELECT v FROM {name}") == [(winner,)]


@pytest.mark.parametrize(("end", "outcome"), [("commit", "updated"), ("rollback", "inserted")])
def test_upsert_concurrent_waits_for_who_inserts_the_key(
    ground: Ground, name: str, pool: ThreadPoolExecutor, end: str, outcome: str
) -> None:
    cache = ground.cache()
    with psycopg.connect(str(ground.url)) as other:
        other.execute(f"INSERT INTO {name} VALUES (1, 7)")
        running = pool.submit(cache.upsert, name, {"k": 1, "v": 8}, unique="k", timeout=PATIENCE)
        eventually(lambda: waiting(ground, name))
        naive = "inserted" if ground.sql(f"SELECT 1 FROM {name}") == [] else "updated"
        assert naive == "inserted", "who looks before takes it for new, whatever comes of it"
        getattr(other, end)()
        assert running.result(PATIENCE).outcome == outcome
    assert ground.sql(f"SELECT k, v FROM {name}") == [(1, 8)]


def test_upsert_concurrent_is_overtaken_at_another_unique_index(
    ground: Ground, name: str, pool: ThreadPoolExecutor
) -> None:
    """Who writes the same row is met at whichever index the server comes to first, after it has looked for the key."""
    cache = ground.cache()
    ground.sql(f"CREATE UNIQUE INDEX ON {name} (v)")
    ground.sql(f"ALTER TABLE {name} DROP CONSTRAINT {name}_pkey, ADD UNIQUE (k)")  # it comes to the other one first
    with psycopg.connect(str(ground.url)) as other:
        other.execute(f"INSERT INTO {name} VALUES (2, 7)")
        running = pool.submit(cache.upsert, name, {"k": 1, "v": 7, "n": 1}, unique="k", timeout=PATIENCE)
        eventually(lambda: waiting(ground, name))
        other.execute(f"UPDATE {name} SET k = 1")
        other.commit()
        assert running.result(PATIENCE).outcome == "updated"
    assert ground.sql(f"SELECT k, v, n FROM {name}") == [(1, 7, 1)]
    with pytest.raises(TierRejected) as caught:  # another row has it, and keeps it
        cache.upsert(name, {"k": 5, "v": 7}, unique="k")
    assert caught.value.sqlstate == "23505"


def test_upsert_concurrent_with_who_deletes_the_row(ground: Ground, name: str, pool: ThreadPoolExecutor) -> None:
    cache = ground.cache()
    cache.upsert(name, {"k": 1, "v": 1}, unique="k")
    with psycopg.connect(str(ground.url)) as other:
        other.execute(f"DELETE FROM {name}")
        running = pool.submit(cache.upsert, name, {"k": 1, "v": 1}, unique="k", timeout=PATIENCE)
        eventually(lambda: waiting(ground, name))
        other.commit()
        assert running.result(PATIENCE).outcome == "inserted"


def test_upsert_concurrent_batches_in_opposite_orders(ground: Ground, name: str) -> None:
    caches = [ground.cache(connections=8) for _ in range(2)]
    keys = list(range(60))
    inserted: Counter[int] = Counter()
    lock = threading.Lock()

    def some(cache: Cache, i: int) -> None:
        shuffled = random.Random(i)
        for round_ in range(12):
            mine = keys[::-1] if i % 2 else keys[:]
            if round_ % 3 == 0:
                shuffled.shuffle(mine)
            done = cache.upsert(name, [{"k": k, "v": i * 100 + round_} for k in mine], unique="k", timeout=PATIENCE)
            with lock:
                inserted.update(k for k, one in zip(mine, done, strict=True) if one.outcome == "inserted")

    calls(caches, 16, some)
    assert inserted == dict.fromkeys(keys, 1)
    ((before,),) = ground.sql("SELECT count(DISTINCT v) FROM " + name)
    assert before == 1, "the last batch wrote all of its rows"


def test_upsert_concurrent_naive_batches_deadlock(ground: Ground, name: str, pool: ThreadPoolExecutor) -> None:
    write = f"INSERT INTO {name} VALUES (%s, 1) ON CONFLICT (k) DO UPDATE SET v = 2"
    with psycopg.connect(str(ground.url)) as a, psycopg.connect(str(ground.url)) as b:
        a.execute(write, [1])
        b.execute(write, [2])
        running = pool.submit(a.execute, write, [2])
        outcomes = [_error_of(lambda: b.execute(write, [1])), _error_of(lambda: running.result(PATIENCE))]
    assert psycopg.errors.DeadlockDetected in outcomes


def _error_of(call: Callable[[], Any]) -> type[BaseException] | None:
    try:
        call()
    except psycopg.Error as error:
        return type(error)
    return None


def collide(ground: Ground, name: str, times: int) -> None:
    """The first so many writes of the table fail as if others had been in their way."""
    ground.sql(f"CREATE SEQUENCE met_{name}")
    ground.sql(
        f"CREATE FUNCTION met_{name}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        f"IF nextval('met_{name}') <= {times} THEN RAISE SQLSTATE '40001'; END IF; RETURN new; END $$"
    )
    ground.sql(f"CREATE TRIGGER met BEFORE INSERT ON {name} FOR EACH ROW EXECUTE FUNCTION met_{name}()")


@pytest.mark.parametrize("times", [1, 9])
def test_upsert_concurrent_collisions_are_tried_again(ground: Ground, name: str, times: int) -> None:
    collide(ground, name, times)
    cache = ground.cache()
    assert cache.upsert(name, {"k": 1, "v": 1}, unique="k", timeout=PATIENCE).outcome == "inserted"
    assert ground.sql(f"SELECT last_value FROM met_{name}") == [(times + 1,)]


def test_upsert_concurrent_collisions_end_with_the_timeout(ground: Ground, name: str) -> None:
    collide(ground, name, 10**9)
    with pytest.raises((TierRejected, TierTimeout)) as caught:  # its last attempt may be cut off by the timeout
        ground.cache().upsert(name, {"k": 1, "v": 1}, unique="k", timeout=0.5)
    assert not isinstance(caught.value, TierRejected) or caught.value.sqlstate == "40001"
    assert ground.sql(f"SELECT 1 FROM {name}") == []


CHILD = """
import json, sys
from stillwarm import Cache
url, name, me = sys.argv[1:]
with Cache(url, namespace="children", timeout="20s", connect_timeout="20s") as cache:
    cache.check()
    print("ready", flush=True)
    sys.stdin.readline()
    done = [cache.upsert(name, {"k": k, "v": 1}, unique="k", timeout="20s").outcome for k in range(200)]
    done += [one.outcome for one in cache.upsert(
        name, [{"k": k, "v": 1} for k in (range(200, 400) if int(me) % 2 else range(399, 199, -1))],
        unique="k", timeout="20s")]
    if int(me) % 2 == 0:
        done[200:] = reversed(done[200:])
    print(json.dumps(done), flush=True)
"""


def test_upsert_concurrent_processes_insert_each_row_once(ground: Ground, name: str) -> None:
    children = [
        subprocess.Popen(
            [sys.executable, "-c", CHILD, str(ground.url), name, str(i)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for i in range(4)
    ]  # fmt: skip
    try:
        for child in children:
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n"
        for child in children:
            assert child.stdin is not None
            child.stdin.write("\n")
            child.stdin.flush()
        done = [json.loads(child.communicate(timeout=60)[0]) for child in children]
    finally:
        for child in children:
            child.kill()
            child.wait()
    for k in range(400):
        assert Counter(one[k] for one in done) == {"inserted": 1, "unchanged": 3}
    assert ground.sql(f"SELECT count(*) FROM {name}") == [(400,)]


# --------------------------------------------------------------------------------------------------------- invalidation


def reader(ground: Ground, name: str) -> Counted:
    """Reads the row, before its gate opens."""
    source = Counted()
    source.value = lambda key: ground.sql(f"SELECT v FROM {name} WHERE k = %s", key)[0][0]
    return source


@pytest.mark.parametrize("scope", ["process", "fleet"])
@pytest.mark.parametrize("where", ["here", "elsewhere"])
def test_upsert_concurrent_overtakes_a_load_that_runs(
    ground: Ground, name: str, pool: ThreadPoolExecutor, scope: str, where: str
) -> None:
    a = ground.cache()
    b = a if where == "here" else ground.cache()
    source = reader(ground, name)
    f, g = (function(cache, source, tags=["t"], scope=scope) for cache in (a, b))
    a.upsert(name, {"k": 1, "v": 1}, unique="k")
    source.gate.clear()
    running = pool.submit(g, 1)
    assert source.begun.acquire(timeout=PATIENCE)  # it has read the old row
    a.upsert(name, {"k": 1, "v": 2}, unique="k", invalidates=[{"tag": "t"}])
    source.gate.set()
    assert running.result(PATIENCE) == 1, "who asked before gets what was true then"
    assert b.confirm()
    assert (f(1), g(1)) == (2, 2), "and it is stored nowhere"
    ground.written()
    assert function(ground.cache(), source, tags=["t"], scope=scope)(1) == 2


def test_upsert_concurrent_naive_order_keeps_the_old_row(ground: Ground, name: str) -> None:
    cache = ground.cache()
    source = reader(ground, name)
    f = function(cache, source, tags=["t"])
    cache.upsert(name, {"k": 1, "v": 1}, unique="k")
    cache.invalidate(tag="t")  # before the write, as it is so easily done
    assert f(1) == 1
    cache.upsert(name, {"k": 1, "v": 2}, unique="k")
    assert f(1) == 1, "stale until its ttl"


def test_upsert_concurrent_readers_never_see_the_row_before(ground: Ground, name: str) -> None:
    cache = ground.cache(connections=8)
    source = reader(ground, name)
    f = function(cache, source, tags=["t"])
    cache.upsert(name, {"k": 1, "v": 0}, unique="k")
    stop, low, wrong = threading.Event(), [0], []

    def read() -> None:
        while not stop.is_set():
            least = low[0]  # what an upsert that has returned wrote
            if (seen := f(1)) < least:
                wrong.append((seen, least))

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for version in range(1, 60):
            cache.upsert(name, {"k": 1, "v": version}, unique="k", invalidates=[{"tag": "t"}], timeout=PATIENCE)
            low[0] = version
            assert f(1) >= version
    finally:
        stop.set()
        for thread in threads:
            thread.join(PATIENCE)
    assert wrong == []


async def test_upsert_concurrent_tasks_insert_it_once(ground: Ground, name: str) -> None:
    import asyncio

    cache = ground.cache(connections=8)
    done = await asyncio.gather(*(cache.aupsert(name, {"k": 1, "v": 1}, unique="k") for _ in range(64)))
    assert Counter(one.outcome for one in done) == {"inserted": 1, "unchanged": 63}
