"""The tier goes away while memory is warm, and comes back: what is served meanwhile, and what is owed.

Thread rule: each test has a server of its own.
Refuses to know: how it goes away in other ways (test_tier_faults_away), poolers' sessions beyond what an outage does.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from chaos import ChaosProxy
from outages import Loader, Shared, eventually, forget, is_of, patient, timed, value_of
from pooling import PgBouncer
from served import Served
from stillwarm import State
from stillwarm._servers import PostgresServer
from stillwarm.errors import TierError

pytestmark = pytest.mark.servers


def warm(one: Shared, keys: range = range(20)) -> dict[str, str]:
    one.cache.check()  # makes the tables: those of the first call are not kept in memory
    values = {f"k{n}": one.get(f"k{n}") for n in keys}
    one.written()
    return values


@contextlib.contextmanager
def outage(server: PostgresServer | Served) -> Iterator[None]:
    """kill -9, and a start at the end."""
    server.kill()
    try:
        yield
    finally:
        server.start()


def untrusted(one: Shared) -> None:
    """More than max_lag after the last answer: what other processes did is not known."""
    tier = one.cache._tier
    assert tier is not None
    tier.core.lost()


def back(one: Shared) -> None:
    eventually(lambda: one.cache.confirm() and one.health["circuit"] == "closed")
    one.written()


# ---------------------------------------------------------------------------------------------------- stale answers


def test_tier_faults_killed_with_warm_memory_and_a_loader_that_fails(server: Served) -> None:
    """The source is away together with the database: values, not errors."""
    with server.naive() as naive, patient(server.url) as one:
        values = warm(one)
        with outage(server):
            with pytest.raises(server.naive_error):
                naive(server.ask)
            untrusted(one)
            one.load.fails = True
            for _ in range(3):
                assert {key: one.get(key) for key in values} == values
            with pytest.raises(ConnectionError):
                one.get("never seen")
            one.load.fails = False
            untrusted(one)
            renewed = {key: one.get(key) for key in values}
            assert all(is_of(value, key) for key, value in renewed.items())
        back(one)


def test_tier_faults_killed_with_stale_while_revalidate(server: Served) -> None:
    """At once: nobody waits for the loader, which is slower than anybody waits."""
    with patient(server.url, stale_while_revalidate=600) as one:
        values = warm(one)
        with outage(server):
            untrusted(one)
            calls = len(one.load.calls)
            assert {key: one.get(key) for key in values} == values
            eventually(lambda: len(one.load.calls) > calls, what="refreshed behind")
            eventually(lambda: one.get("k0") != values["k0"], what="and the new value is served")
        back(one)


def test_tier_faults_killed_and_strict(server: Served) -> None:
    """strict=True never serves what nobody confirmed, and says what the tier did not take."""
    with patient(server.url, strict=True) as one:
        values = warm(one)
        with outage(server):
            untrusted(one)
            assert one.get("k0") != values["k0"]
            with pytest.raises(TierError):
                one.cache.set("d", 1)
            with pytest.raises(TierError):
                one.cache.invalidate(tag="t")
        back(one)


def test_tier_faults_the_verbs_during_an_outage(server: Served) -> None:
    with patient(server.url) as one:
        one.cache.set_many({"a": 1, "b": 2})
        with outage(server):
            untrusted(one)
            assert one.cache.get_many(["a", "b", "c"]) in ({"a": 1, "b": 2}, {"a": 1}, {"b": 2}, {})
            assert one.cache.set("a", 3)
            assert one.cache.get("a") == 3
            one.cache.delete("b")
            assert one.cache.get("b") is None
            assert one.cache.get_or_set("e", lambda: 5) == 5
            assert one.cache.contains("a")
            with pytest.raises(TierError):
                one.cache.incr("a")
            one.cache.clear()
            assert one.cache.get("a") is None
        back(one)


# ------------------------------------------------------------------------------------------- invalidation meanwhile


@pytest.mark.parametrize("intent", ["key", "tag", "type", "pattern", "all", "delete", "clear"])
def test_tier_faults_an_invalidation_during_the_outage_is_owed(server: Served, intent: str) -> None:
    """Never resurrected after it, here or in the other process, whose memory and look-ups had the older value."""
    with patient(server.url, tags=["t"]) as one, patient(server.url, tags=["t"]) as other:
        one.cache.check()  # makes its tables, which takes long on a busy machine: then nothing is stored
        old = one.get("k")
        one.cache.set("d", "old", tags=["t"])
        one.written()
        assert other.get("k") == old
        assert other.cache.get("d") == "old"
        with outage(server):
            if intent == "delete":
                one.cache.delete("d")
            elif intent == "clear":
                one.cache.clear()
            elif intent == "key":
                one.cache.invalidate(key="get:'k'")
            else:
                what: Any = {"tag": "t", "type": "default", "pattern": "*", "all": True}[intent]
                one.cache.invalidate(**{intent: what})
            function, verb = intent != "delete", intent != "key"
            assert one.cache.get("d") is None if verb else True
            assert one.get("k") != old if function else True
            assert one.health["owed_invalidations"] > 0
            # Until then an idle connection may be taken for a good one.
            eventually(lambda: one.cache.get("another") is None and one.cache.state is State.DOWN)
        eventually(lambda: one.health["owed_invalidations"] == 0)
        if function:
            eventually(lambda: other.get("k") != old)
            forget(other.cache)
            assert other.get("k") != old
            assert one.get("k") != old
            assert one.fresh("k") != old
        if verb:
            eventually(lambda: other.cache.get("d") is None)
            assert one.cache.get("d") is None
            forget(one.cache)
            assert one.cache.get("d") is None
        back(one)


def test_tier_faults_what_is_owed_is_not_read_before_it_is_delivered(server: Served) -> None:
    """The tier is back, and still has the old value: a look-up of this process does not believe it."""
    with patient(server.url) as one:
        old = one.get("k")
        one.cache.set("d", "old")
        one.written()
        with server.refusing_writes():  # invalidations are refused, look-ups are not
            eventually(lambda: one.cache.confirm())
            one.cache.invalidate(key="get:'k'")
            one.cache.delete("d")
            for _ in range(5):
                assert one.fresh("k") != old
                assert one.cache.get("d") is None
            assert server.stored() == 2, "the tier has them still"
        eventually(lambda: one.health["owed_invalidations"] == 0)
        assert one.fresh("k") != old
        assert one.cache.get("d") is None


def test_tier_faults_writes_during_the_outage_are_recovered(server: Served) -> None:
    with patient(server.url) as one, patient(server.url) as other:
        one.cache.set("d0", 0)
        with outage(server):
            for n in range(200):
                assert one.cache.set(f"d{n}", n)
            for n in range(100):
                assert one.cache.set(f"d{n}", n * 10)
            assert one.health["owed_writes"] == 200, "the newest per key"
        eventually(lambda: one.health["owed_writes"] == 0)
        forget(other.cache)
        expected = {f"d{n}": n * 10 if n < 100 else n for n in range(200)}
        assert other.cache.get_many(expected) == expected


def test_tier_faults_a_recovered_write_does_not_undo_a_later_one(server: Served) -> None:
    """While this process was cut off, another wrote the key: that is newer than what is owed."""
    with patient(server.url) as one, patient(server.url) as other:
        one.cache.set("d", "first")
        assert other.cache.get("d") == "first"
        with outage(server):
            one.cache.set("d", "owed")
        eventually(other.cache.confirm)
        other.cache.set("d", "newest")
        eventually(lambda: one.health["owed_writes"] == 0)
        other.written()
        forget(other.cache)
        assert other.cache.get("d") == "newest"
        eventually(lambda: one.cache.get("d") == "newest", what="all processes agree")


def burn(server: PostgresServer, n: int = 200) -> None:
    """Numbers of transactions that a crash forgets: none of these writes anything that is flushed."""
    for _ in range(n):
        server.sql("SELECT pg_current_xact_id()")


def test_tier_faults_a_recovered_write_does_not_undo_one_whose_number_was_given_away_twice(
    private_postgres: PostgresServer, chaos: Callable[..., ChaosProxy]
) -> None:
    """What the process saw before the crash is numbered above what was written after it."""
    way = chaos(private_postgres.port)
    with patient(way.url()) as one, patient(private_postgres.url) as other:
        one.cache.set("d", "first")
        one.cache.set("e", "first")
        one.written()
        burn(private_postgres)
        assert one.cache.confirm()
        with outage(private_postgres):
            one.cache.set("d", "owed")
            one.cache.set("e", "owed")
            way.behave(refuse=True)
        eventually(other.cache.confirm)
        other.cache.set("d", "newest")
        way.behave()
        eventually(lambda: one.health["owed_writes"] == 0)
        forget(other.cache)
        assert other.cache.get("d") == "newest"
        assert other.cache.get("e") == "owed", "of which nothing is newer"
        eventually(lambda: one.cache.get("d") == "newest", what="all processes agree")


def test_tier_faults_a_load_over_a_crash_is_not_stored_over_an_invalidation_after_it(
    private_postgres: PostgresServer,
) -> None:
    with patient(private_postgres.url) as one, patient(private_postgres.url) as other:
        one.cache.set("d", "makes the tables")
        one.written()
        burn(private_postgres)
        load = one.load
        one.load = Loader()

        def slow(key: str) -> str:
            value = load(key)
            with outage(private_postgres):
                pass
            eventually(other.cache.confirm)
            other.cache.invalidate(key="slow:'k'")
            burn(private_postgres, 300)  # beyond where the load began
            return value

        get = one.cache.cached(name="slow")(slow)
        old = get("k")
        one.written()
        assert private_postgres.sql("SELECT count(*) FROM stillwarm.entries WHERE type = 'slow'") == [("0",)]
        assert other.cache.cached(name="slow")(lambda key: "new")("k") == "new" != old


def test_tier_faults_what_is_owed_is_bounded(server: Served) -> None:
    with patient(server.url) as one:
        old = one.get("k")
        one.cache.set("d", 0)
        one.written()
        with outage(server):
            one.cache.get("opens the circuit")
            for n in range(10_050):
                one.cache.invalidate(tag=f"t{n}")
            assert one.health["owed_invalidations"] <= 10_000
            for n in range(10_050):
                one.cache.set(f"w{n}", n)
            assert one.health["owed_writes"] <= 10_000
            assert one.health["dropped"] >= 0
            assert one.cache.get("w10049") == 10_049
        eventually(lambda: one.health["owed_invalidations"] == 0 and one.health["owed_writes"] == 0, 60)
        assert one.fresh("k") != old, "too many became one that means all"


def test_tier_faults_hit_counts_of_an_outage_are_not_lost(private_postgres: PostgresServer) -> None:
    with patient(private_postgres.url) as one:
        one.cache.check()
        one.get("k")
        one.written()
        for _ in range(10):
            one.get("k")
        one.cache._flush_hits()
        with outage(private_postgres):
            one.cache._tier._away_until = 0.0
            for _ in range(10):
                one.get("k")
            one.cache._flush_hits()
        back(one)
        for _ in range(10):
            one.get("k")

        def known() -> int:
            one.cache._flush_hits()
            rows = private_postgres.sql("SELECT hit_count FROM stillwarm.entries WHERE key = $1", "get:'k'")
            return int(rows[0][0] or 0)

        counted = one.cache.stats().hits + one.cache.stats().stale_hits  # some calls of the outage were loads
        assert counted >= 19
        eventually(lambda: known() == counted, what=f"{known()} of {counted}")


# ---------------------------------------------------------------------------------------------------------- pgbouncer


def test_tier_faults_a_pooler_in_transaction_mode(pgbouncer: str) -> None:
    """Two sessions for five caches with two connections each: whatever a session remembers is another's."""
    with contextlib.ExitStack() as stack:
        caches = [stack.enter_context(patient(pgbouncer, pooler=True)) for _ in range(5)]
        for round_ in range(10):
            for n, one in enumerate(caches):
                key = f"{round_}-{n}"
                first = one.get(key)
                one.written()
                assert all(other.get(key) == first for other in caches)
            caches[round_ % 5].cache.set("d", round_)
            eventually(lambda: all(c.cache.get("d") == round_ for c in caches))  # noqa: B023
            assert caches[0].cache.add(f"a{round_}", 1) is True
            assert caches[1].cache.add(f"a{round_}", 1) is False
        assert all(one.cache.stats().remote_errors == 0 for one in caches)
        assert all(one.cache.query("SHOW statement_timeout") == [("0",)] for one in caches), (
            "no setting was left behind"
        )


def test_tier_faults_a_naive_client_relies_on_its_session(pgbouncer: str) -> None:
    clients = [psycopg.connect(pgbouncer, autocommit=True) for _ in range(3)]
    try:
        with contextlib.ExitStack() as stack:
            stack.enter_context(pytest.raises(psycopg.Error))
            for client in clients:
                client.execute("PREPARE mine AS SELECT 1")
            for client in clients:
                client.execute("EXECUTE mine")
    finally:
        for client in clients:
            client.close()


def test_tier_faults_the_server_behind_a_pooler_is_restarted(private_postgres: PostgresServer) -> None:
    pooler = PgBouncer(private_postgres.port)
    try:
        with patient(pooler.url(), pooler=True, timeout="1s") as one, patient(pooler.url(), pooler=True) as other:
            old = one.get("k")
            one.written()
            assert other.get("k") == old
            private_postgres.kill()
            for n in range(12):
                value, took = timed(one.get, f"n{n}")
                assert is_of(value, f"n{n}")
                assert took < 5.0
            one.cache.invalidate(key="get:'k'")
            private_postgres.start()
            eventually(lambda: one.health["owed_invalidations"] == 0)
            eventually(lambda: other.get("k") != old)
            assert one.fresh("k") != old
            back(one)
            assert value_of("k") != old
    finally:
        pooler.close()
