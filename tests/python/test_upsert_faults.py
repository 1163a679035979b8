"""The connection breaks under an upsert: it is never done twice, and what it says is so.

Thread rule: each test has a proxy of its own, and a connection that is not made anew behind its back.
Refuses to know: SQL. A second effect is counted by a trigger of the server.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

from chaos import ChaosProxy
from outages import Raw, Shared, eventually, shared, timed
from stillwarm import Upserted
from stillwarm._servers import PostgresServer
from stillwarm.errors import TierError, TierTimeout, TierUnavailable
from tiers import PATIENCE

pytestmark = pytest.mark.servers
Make = Callable[..., ChaosProxy]
COUNTING = """
CREATE TABLE t (k int PRIMARY KEY, v int, n int NOT NULL DEFAULT 0, id serial);
CREATE TABLE effects (k int);
CREATE FUNCTION counted() RETURNS trigger LANGUAGE plpgsql AS
  $$ BEGIN INSERT INTO effects VALUES (new.k); RETURN null; END $$;
CREATE FUNCTION once_more() RETURNS trigger LANGUAGE plpgsql AS
  $$ BEGIN new.n := old.n + 1; RETURN new; END $$;
CREATE TRIGGER once_more BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION once_more();
CREATE TRIGGER counted AFTER INSERT OR UPDATE ON t FOR EACH ROW EXECUTE FUNCTION counted();
"""


class Ground:
    """A database that is asked directly, and a cache that goes through the proxy."""

    def __init__(self, proxy: ChaosProxy, server: PostgresServer) -> None:
        self.proxy = proxy
        self.direct = server.new_database()
        self.url = proxy.url(self.direct.rpartition("/")[2])
        self.sql(COUNTING)

    def sql(self, text: str, *params: object) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.direct, autocommit=True) as connection:
            cursor = connection.execute(text, params or None)  # type: ignore[arg-type]
            return cursor.fetchall() if cursor.description else []

    def effects(self, key: int = 1) -> int:
        return int(self.sql("SELECT count(*) FROM effects WHERE k = %s", key)[0][0])

    def value(self, key: int = 1) -> int | None:
        rows = self.sql("SELECT v FROM t WHERE k = %s", key)
        return rows[0][0] if rows else None

    def cut(self, **behaviour: Any) -> None:
        """The connections that there are; new ones are whole."""
        for connection in list(self.proxy.connections):
            connection.behave(**behaviour)

    def settled(self) -> bool:
        """Whether the server has done with everybody whose connection has ended."""
        ((there,),) = self.sql(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() "
            "AND backend_type = 'client backend'"
        )
        return bool(there == sum(connection.open for connection in list(self.proxy.connections)))

    def waiting(self) -> bool:
        return bool(
            self.sql("SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE %s", '%INTO "t"%')
        )


@pytest.fixture
def ground(warm_postgres: PostgresServer, chaos: Make) -> Ground:
    return Ground(chaos(warm_postgres.port), warm_postgres)


@pytest.fixture
def one(ground: Ground) -> Iterator[Shared]:
    with shared(ground.url, connections=1, timeout="10s", connect_timeout="10s") as one:
        one.cache.migrate()
        yield one


@pytest.fixture
def two(ground: Ground) -> Iterator[Shared]:
    """With a second connection, for loads beside an upsert that waits."""
    with shared(ground.url, connections=2, timeout="10s", connect_timeout="10s") as two:
        two.cache.migrate()
        yield two


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as pool:
        yield pool


def upsert(one: Shared, value: int, key: int = 1, **options: Any) -> Upserted:
    """With n= in the options it changes the row each time it is done, since a trigger makes it another."""
    row = {"k": key, "v": value, **({"n": options.pop("n")} if "n" in options else {})}
    return one.cache.upsert("t", row, unique="k", **{"timeout": "20s", **options})


def outcome_of(one: Shared, value: int, key: int = 1, **options: Any) -> str:
    """Or "unknown", where it says so."""
    done = timed(lambda: upsert(one, value, key, **options))[0]
    if isinstance(done, Upserted):
        return done.outcome
    assert isinstance(done, TierUnavailable), done
    assert "not repeated" in str(done)
    return "unknown"


def closed_circuit(one: Shared) -> None:
    eventually(lambda: one.cache.confirm() and one.health["circuit"] == "closed")


def reply_size(ground: Ground, one: Shared) -> int:
    sizes = []
    for value in (-1, -2, -3):  # one of them may be on a new connection, whose greeting counts
        before = {id(c): c.bytes_from_server for c in ground.proxy.connections}
        upsert(one, value)
        sizes.append(max(c.bytes_from_server - before.get(id(c), 0) for c in ground.proxy.connections))
    return min(sizes)


@pytest.mark.parametrize(
    ("kind", "end"), [("update", "fin"), ("update", "reset"), ("insert", "fin"), ("never the same", "reset")]
)
def test_upsert_faults_a_reply_cut_at_every_byte(ground: Ground, one: Shared, kind: str, end: str) -> None:
    upsert(one, 0)
    size = reply_size(ground, one)
    assert size > 60
    told = set()
    for after in range(size + 1):
        closed_circuit(one)
        key = 100 + after if kind == "insert" else 1
        before = ground.effects(key)
        ground.cut(cut_after=after, end=end)
        outcome = outcome_of(one, after, key, **({"n": 0} if kind == "never the same" else {}))
        ground.cut()
        eventually(ground.settled)
        told.add(outcome)
        there = ground.value(key) == after
        assert ground.effects(key) - before == there, f"cut after {after} bytes: {outcome}"
        assert there or outcome == "unknown"
    known = "inserted" if kind == "insert" else "updated"
    assert told <= {known, "written", "unknown"}
    assert {known, "unknown" if kind == "never the same" else "written"} <= told


def test_upsert_faults_a_naive_repeat_has_a_second_effect(ground: Ground) -> None:
    write = "INSERT INTO t (k, v) VALUES (1, 5) ON CONFLICT (k) DO UPDATE SET v = 5"
    with Raw(ground.url) as raw:
        ground.cut(cut_after=0)
        for _ in range(2):  # a retry decorator around it
            try:
                raw(write)
                break
            except psycopg.OperationalError:
                eventually(lambda: ground.value() == 5)
                raw.connection = psycopg.connect(ground.url, autocommit=True)
    assert ground.effects() == 2


def test_upsert_faults_an_idle_connection_that_broke_is_no_doubt(ground: Ground, one: Shared) -> None:
    """It shows before the statement is sent."""
    for value in range(6):
        closed_circuit(one)
        ground.proxy.end_all("reset" if value % 2 else "fin")
        assert upsert(one, value).outcome == ("updated" if value else "inserted")
    assert ground.effects() == 6


def test_upsert_faults_a_request_that_never_arrives_is_not_repeated(ground: Ground, one: Shared) -> None:
    upsert(one, 0, key=2)
    closed_circuit(one)
    ground.cut(cut_request=b'INTO "t"')
    with pytest.raises(TierUnavailable, match=r"not repeated: row \(k=1\) is not there"):
        upsert(one, 1)
    assert (ground.effects(), ground.value()) == (0, None)
    closed_circuit(one)
    ground.cut(cut_request=b'INTO "t"')
    with pytest.raises(TierUnavailable, match=r"row 1 \(k=3\) is not there"):
        one.cache.upsert("t", [{"k": 2, "v": 0}, {"k": 3, "v": 9}], unique="k", timeout="20s")
    assert ground.value(3) is None


def test_upsert_faults_many_rows_whose_answer_is_lost_are_looked_up(ground: Ground, one: Shared) -> None:
    upsert(one, 0)
    closed_circuit(one)
    rows = [{"k": k, "v": 7} for k in (3, 1, 2)]
    size = reply_size(ground, one)
    closed_circuit(one)
    ground.cut(cut_after=size // 2)
    done = one.cache.upsert("t", rows, unique="k", returning=("k", "v"), timeout="20s")
    assert done == [Upserted("written", row) for row in rows]
    assert [ground.effects(k) for k in (1, 2, 3)] == [5, 1, 1]


@pytest.mark.parametrize("known", [True, False])
def test_upsert_faults_in_doubt_memory_forgets(ground: Ground, one: Shared, known: bool) -> None:
    """Whether or not it was done, nobody may go on with what was there before."""
    upsert(one, 0)
    value = one.get("k")
    one.written()
    size = reply_size(ground, one)
    assert one.get("k") == value
    closed_circuit(one)
    ground.cut(**({"cut_after": size // 2} if known else {"cut_request": b'INTO "t"'}))
    intents = [{"type": "default"}]
    if known:
        assert upsert(one, 1, invalidates=intents).outcome == "written"
    else:
        with pytest.raises(TierUnavailable):
            upsert(one, 1, invalidates=intents)
    assert one.get("k") != value
    with shared(ground.direct, timeout="20s") as other:
        assert other.get("k") != value


def test_upsert_faults_memory_hears_of_a_commit_that_comes_late(
    ground: Ground, two: Shared, pool: ThreadPoolExecutor
) -> None:
    """The server goes on with what its client has given up: what was loaded meanwhile is of before."""
    upsert(two, 0)

    @two.cache.cached(name="row", ttl=600, tags=["row"])
    def row() -> int | None:
        return ground.value()

    with psycopg.connect(ground.direct) as other:
        other.execute("SELECT FROM t FOR UPDATE")
        running = pool.submit(upsert, two, 1, invalidates=[{"tag": "row"}])
        eventually(ground.waiting)
        ground.proxy.end_all()
        with pytest.raises(TierUnavailable, match="is there otherwise than given"):
            running.result(PATIENCE)
        closed_circuit(two)
        two.written()  # nothing is owed, which would be heard of by itself
        assert row() == 0
        assert row.cache_contains(), "of before, and in memory"
        other.rollback()
    eventually(lambda: ground.value() == 1)
    closed_circuit(two)
    assert row() == 1
    assert ground.effects() == 2


async def test_upsert_faults_a_task_that_is_cancelled_leaves_no_old_value(ground: Ground, two: Shared) -> None:
    upsert(two, 0)

    @two.cache.cached(name="row", ttl=600, tags=["row"])
    def row() -> int | None:
        return ground.value()

    assert row() == 0
    with psycopg.connect(ground.direct) as other:
        other.execute("SELECT FROM t FOR UPDATE")
        task = asyncio.create_task(
            two.cache.aupsert("t", {"k": 1, "v": 1}, unique="k", invalidates=[{"tag": "row"}], timeout="20s")
        )
        await asyncio.to_thread(eventually, ground.waiting)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert row() == 0
        assert row.cache_contains(), "of before, and in memory"
        other.rollback()
    await asyncio.to_thread(eventually, lambda: ground.value() == 1)
    await asyncio.to_thread(closed_circuit, two)
    assert row() == 1
    assert ground.effects() == 2


def test_upsert_faults_a_server_that_is_away_is_waited_for_within_the_timeout(
    ground: Ground, one: Shared, pool: ThreadPoolExecutor
) -> None:
    upsert(one, 0)
    ground.proxy.behave(refuse=True)
    ground.proxy.end_all()
    with pytest.raises(TierError):
        upsert(one, 1, timeout=0.3)
    assert ground.value() == 0
    running = pool.submit(upsert, one, 2, timeout="20s")
    failures = one.health["failures"]
    eventually(lambda: one.health["failures"] > failures)
    ground.proxy.behave()
    assert running.result(PATIENCE).outcome == "updated"
    assert ground.effects() == 2


def test_upsert_faults_the_servers_own_limit_is_no_doubt(ground: Ground, one: Shared) -> None:
    """It comes before the connection is cut for being late."""
    upsert(one, 0)
    with psycopg.connect(ground.direct) as other:
        other.execute("SELECT FROM t FOR UPDATE")
        for _ in range(3):
            with pytest.raises(TierTimeout):
                upsert(one, 1, timeout=1)
        other.rollback()
    assert (ground.value(), ground.effects()) == (0, 1)
    assert upsert(one, 1).outcome == "updated"


def test_upsert_faults_a_frozen_server_is_doubt(ground: Ground, one: Shared) -> None:
    upsert(one, 0)
    for connection in list(ground.proxy.connections):
        connection.behave(cut_after=40, end="silence")  # the limit is set, and then nothing
    assert outcome_of(one, 1, timeout=1) in ("written", "unknown")
    assert ground.effects() == 1 + (ground.value() == 1)
