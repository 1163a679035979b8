"""What PostgreSQL answers with when it cannot: each SQLSTATE of the fault list, made by the server itself.

Thread rule: each test has a server or a database of its own.
Refuses to know: broken connections (test_tier_faults_cut), a server that is away (test_tier_faults_away).
"""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import threading
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from outages import Raw, Shared, answers, at_once, eventually, forget, is_of, shared, timed
from stillwarm import State
from stillwarm._servers import PostgresServer
from stillwarm.errors import TierError

pytestmark = pytest.mark.servers


@pytest.fixture
def url(warm_postgres: PostgresServer) -> str:
    return warm_postgres.new_database()


def in_use(one: Shared) -> None:
    one.cache.check()  # makes the tables
    one.get("k")
    one.written()


# ----------------------------------------------------------------------------------------------------- 57P01, 53300


def test_tier_faults_57p01_terminated_backends(url: str) -> None:
    with Raw(url) as raw, Raw(url) as naive, shared(url) as one:
        in_use(one)
        for n in range(5):
            raw(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE pid <> pg_backend_pid() AND datname = current_database()"
            )
            assert is_of(one.fresh("k"), "k")
            assert is_of(one.get(f"new{n}"), f"new{n}")
        assert one.load.calls.count("k") == 1, "asked again on a new connection each time"
        eventually(lambda: answers(one))
        with pytest.raises(psycopg.OperationalError):
            naive("SELECT 1")


def test_tier_faults_57p01_under_load(url: str) -> None:
    with Raw(url) as raw, shared(url) as one:
        in_use(one)
        ends = threading.Event()
        wrong: list[object] = []

        def use() -> None:
            n = 0
            while not ends.is_set():
                n += 1
                key = f"u{n % 7}"
                outcome, _ = timed(one.fresh, key)
                if not is_of(outcome, key):
                    wrong.append(outcome)

        threads = [threading.Thread(target=use) for _ in range(4)]
        for thread in threads:
            thread.start()
        for _ in range(20):
            raw(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE pid <> pg_backend_pid() AND datname = current_database()"
            )
            raw("SELECT pg_sleep(0.02)")
        ends.set()
        for thread in threads:
            thread.join()
        assert wrong == []
        eventually(lambda: answers(one))


def test_tier_faults_53300_no_connection_is_left(private_postgres: PostgresServer) -> None:
    private_postgres.sql("ALTER SYSTEM SET max_connections = 8")
    private_postgres.sql("ALTER SYSTEM SET superuser_reserved_connections = 0")
    private_postgres.sql("ALTER SYSTEM SET max_wal_senders = 0")
    private_postgres.restart()
    with contextlib.ExitStack() as stack:
        taken = []
        with contextlib.suppress(psycopg.OperationalError):
            while True:
                taken.append(stack.enter_context(Raw(private_postgres.url)))
        assert len(taken) == 8
        with pytest.raises(psycopg.OperationalError, match="too many clients"):
            Raw(private_postgres.url)
        with shared(private_postgres.url) as one:
            for n in range(20):
                assert is_of(one.get(f"k{n}"), f"k{n}")
            assert one.cache.state is State.DOWN
            with pytest.raises(TierError, match="too many clients"):
                one.cache.check()
            stack.close()
            eventually(lambda: answers(one))
            one.cache.check()


# ---------------------------------------------------------------------------------------------- 40P01, 40001, 57014


def test_tier_faults_40p01_a_deadlock_is_tried_again(url: str) -> None:
    with Raw(url) as raw, shared(url, timeout="20s", connections=1) as one:
        raw(f"ALTER DATABASE {url.rpartition('/')[2]} SET deadlock_timeout = '3s'")
        in_use(one)
        for key in ("a", "b"):
            one.cache.set(key, 1)
        with Raw(url) as other:
            # The other session holds b and will want a; the tier's statement (keys in order) holds a and wants b, and
            # it is the one that looks for deadlocks.
            other("SET deadlock_timeout = '60s'")
            other("BEGIN")
            other("SELECT FROM stillwarm.entries WHERE key = 'b' FOR UPDATE")
            outcome: list[Any] = []
            flush = threading.Thread(target=lambda: outcome.append(one.cache._tier.run(_flush_of(["a", "b"]))))
            flush.start()
            eventually(lambda: _waits(raw))
            other("SELECT FROM stillwarm.entries WHERE key = 'a' FOR UPDATE")  # as soon as the tier has let go
            eventually(lambda: _deadlocks(raw) > 0)
            eventually(lambda: _waits(raw), what="the tier tries again")
            other("ROLLBACK")
            flush.join(30)
            assert outcome == [None]
        assert raw("SELECT key, hit_count FROM stillwarm.entries WHERE type = 'direct' ORDER BY key") == [
            ("a", 1),
            ("b", 1),
        ]
    with Raw(url) as first, Raw(url) as naive:
        naive("SET deadlock_timeout = '20ms'")
        for session, key in ((first, "b"), (naive, "a")):
            session("BEGIN")
            session("SELECT FROM stillwarm.entries WHERE key = %s FOR UPDATE", key)
        waits = threading.Thread(target=lambda: first("SELECT FROM stillwarm.entries WHERE key = 'a' FOR UPDATE"))
        waits.start()
        eventually(lambda: _waits_at_all(first.connection.info.backend_pid, url))
        with pytest.raises(psycopg.errors.DeadlockDetected):
            naive("SELECT FROM stillwarm.entries WHERE key = 'b' FOR UPDATE")
        naive("ROLLBACK")
        waits.join()


def _flush_of(keys: list[str]) -> Any:
    from stillwarm import _core

    return _core.flush(1, keys, ["direct"] * len(keys), [1] * len(keys))


def _waits_at_all(pid: int, url: str) -> bool:
    with Raw(url) as raw:
        return bool(raw("SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = %s", pid)[0][0])


def _waits(raw: Raw) -> bool:
    rows = raw(
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND application_name = 'stillwarm'"
    )
    return bool(rows[0][0] > 0)


def _deadlocks(raw: Raw) -> int:
    return int(raw("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")[0][0])


def test_tier_faults_40001_a_serialization_failure_is_tried_again(url: str) -> None:
    """Every session is serializable, and one row is written by all: the naive client fails, the tier does not."""
    name = url.rpartition("/")[2]
    with Raw(url) as raw:
        raw(f"ALTER DATABASE {name} SET default_transaction_isolation = 'serializable'")
    with shared(url) as one, shared(url) as two, Raw(url) as other, Raw(url) as naive:
        in_use(one)
        one.cache.set("s", 0)
        other("BEGIN")
        other("UPDATE stillwarm.entries SET hit_count = 5 WHERE key = 's'")
        blocked: list[Any] = []
        naive("BEGIN")
        naive("SELECT 1 FROM stillwarm.entries")
        threads = [
            threading.Thread(
                target=lambda: blocked.append(timed(naive, "UPDATE stillwarm.entries SET hit_count = 6")[0])
            ),
            threading.Thread(target=lambda: blocked.append(one.cache._tier.run(_flush_of(["s"])))),
        ]
        for thread in threads:
            thread.start()
        with Raw(url) as raw:
            eventually(lambda: raw("SELECT count(*) > 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'")[0][0])
        other("COMMIT")
        for thread in threads:
            thread.join(30)
        assert None in blocked
        assert any(isinstance(b, psycopg.errors.SerializationFailure) for b in blocked)
        with Raw(url) as raw:
            assert raw("SELECT hit_count FROM stillwarm.entries WHERE key = 's'") == [(6,)], (
                "5 of the other's, 1 of ours"
            )
        assert at_once([lambda c=c, n=n: c.cache.set("s", n) for n in range(8) for c in (one, two)]) == [True] * 16  # type: ignore[misc]
        assert two.cache.get("s") in range(8)


def test_tier_faults_57014_the_servers_own_timeout(url: str) -> None:
    """The tier's statement waits for a lock that somebody holds for long."""
    with Raw(url) as other, Raw(url) as naive, shared(url) as one:
        in_use(one)
        one.cache.set("locked", 1)
        other("BEGIN")
        other("LOCK TABLE stillwarm.entries")
        naive("SET statement_timeout = 100")
        with pytest.raises(psycopg.errors.QueryCanceled):
            naive("SELECT count(*) FROM stillwarm.entries")
        for n in range(8):
            value, took = timed(one.fresh, f"k{n}")
            assert is_of(value, f"k{n}")
            assert took < 5.0
        assert one.cache.set("locked", 2)
        other("COMMIT")
        eventually(lambda: answers(one))
        one.written()
        with shared(url) as two:
            assert two.cache.get("locked") == 2, "the write that was cancelled is recovered"


# ------------------------------------------------------------------------------------------------------ 25006, 53100


@contextlib.contextmanager
def refusing_writes(raw: Raw, url: str, one: Shared) -> Iterator[None]:
    """25006: as a standby or a primary that was demoted says it."""
    name = url.rpartition("/")[2]
    raw(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    _reconnect(raw, one)
    try:
        yield
    finally:
        raw("SET default_transaction_read_only = off")
        raw(f"ALTER DATABASE {name} SET default_transaction_read_only = off")
        _reconnect(raw, one)


def _reconnect(raw: Raw, one: Shared) -> None:
    raw(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE application_name = 'stillwarm' AND datname = current_database()"
    )


def test_tier_faults_25006_reads_go_on(url: str, caplog: Any) -> None:
    caplog.set_level(logging.WARNING, "stillwarm")
    with Raw(url) as raw, shared(url) as one, shared(url) as two:
        in_use(one)
        old = one.get("k")
        one.cache.set("direct", 1)
        assert two.cache.get("direct") == 1
        with refusing_writes(raw, url, one):
            with Raw(url) as naive, pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
                naive("DELETE FROM stillwarm.entries")
            assert is_of(one.fresh("k"), "k")
            assert one.load.calls == ["k"], "read from the tier"
            assert is_of(one.get("new"), "new")
            assert one.cache.set("direct", 2)
            assert one.cache.get("direct") == 2
            one.cache.invalidate(key="get:'k'")
            one.get("k")
            assert one.load.calls.count("k") == 2, "an invalidation that the tier did not take holds here"
            eventually(lambda: one.cache.state is not State.HEALTHY)
        eventually(lambda: one.cache.state is not State.DOWN and answers(one))
        one.written()
        forget(two.cache)
        assert two.cache.get("direct") == 2, "recovered"
        two.get("k")
        assert two.get("k") != old, "what was invalidated meanwhile is gone"


def test_tier_faults_25006_leads_to_another_server_where_one_that_takes_writes_is_asked_for(url: str) -> None:
    """A primary that was demoted keeps its connections, and says 25006 on them: failover by a list of hosts."""
    with shared(f"{url}?target_session_attrs=read-write", connections=1, timeout="5s") as one, shared(url) as two:
        in_use(one)
        one.cache.query("SET default_transaction_read_only = on")  # of this connection
        assert one.cache.set("d", 1)
        eventually(lambda: one.health["owed_writes"] == 0)
        assert two.cache.get("d") == 1


def test_tier_faults_53100_a_full_disk(private_postgres: PostgresServer) -> None:
    if os.geteuid() != 0:
        return  # only root mounts a small disk; the next test shows the same without
    place = private_postgres.socket / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m,mode=777", "tmpfs", place], check=True)
    try:
        inside = place / "space"
        inside.mkdir()
        subprocess.run(["chown", "-R", "--reference", private_postgres.socket / "data", inside], check=True)
        with Raw(private_postgres.url) as raw, shared(private_postgres.url, max_value="2MB", compress_above=0) as one:
            raw(f"CREATE TABLESPACE small LOCATION '{inside}'")
            in_use(one)
            raw("ALTER TABLE stillwarm.entries SET TABLESPACE small")
            in_use(one)
            raw("CREATE TABLE filler TABLESPACE small AS SELECT repeat('abcdefgh', 400) FROM generate_series(1, 3000)")
            noise = os.urandom(400_000)
            for n in range(20):
                assert one.cache.set(f"big{n}", noise)
            assert one.cache.get("big19") == noise, "memory has it"
            assert "53100" in str(one.health["last_error"]), "the disk is full"
            with pytest.raises(psycopg.errors.DiskFull):
                raw(
                    "CREATE TABLE more TABLESPACE small AS"
                    " SELECT repeat(md5(i::text), 50) FROM generate_series(1, 99999) i"
                )
            assert is_of(one.fresh("k"), "k")
            assert one.load.calls == ["k"], "reads go on"
            assert one.health["circuit"] == "closed"
            raw("DROP TABLE filler")
            eventually(lambda: answers(one))
    finally:
        private_postgres.stop("immediate")
        subprocess.run(["umount", "-l", place], check=True)


def test_tier_faults_53100_by_a_trigger(url: str) -> None:
    """The same without root: the server says that its disk is full whenever an entry is written."""
    with Raw(url) as raw, shared(url) as one:
        in_use(one)
        raw(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
            " $$BEGIN RAISE 'No space left on device' USING ERRCODE = '53100'; END$$"
        )
        raw("CREATE TRIGGER refused BEFORE INSERT OR UPDATE ON stillwarm.entries EXECUTE FUNCTION refuse()")
        with pytest.raises(psycopg.errors.DiskFull):
            raw("UPDATE stillwarm.entries SET hit_count = 1")
        for n in range(30):
            assert is_of(one.get(f"k{n}"), f"k{n}")
            assert one.cache.set(f"d{n}", n)
            assert one.cache.get(f"d{n}") == n
        assert is_of(one.fresh("k"), "k")
        assert one.load.calls.count("k") == 1, "reads go on"
        assert one.health["circuit"] == "closed", "a tier that answers is not down"
        eventually(lambda: one.cache.state is State.DEGRADED)
        raw("DROP TRIGGER refused ON stillwarm.entries")
        eventually(lambda: answers(one))
