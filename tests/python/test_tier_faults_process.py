"""Fork, exit and Ctrl-C of a process that uses a tier; servers that fork after loading, as gunicorn does.

Thread rule: what may hang or end the process runs in a child under a watchdog.
Refuses to know: figures; `trust.py --part remote` has the long versions and their limits.
"""

from __future__ import annotations

import os
import threading

import pytest

from outages import Raw, Shared, connecting, eventually, in_child, is_of, patient, shared
from reliability import children, remote
from served import Served
from stillwarm._servers import PostgresServer

pytestmark = pytest.mark.servers


@pytest.mark.forks
@pytest.mark.parametrize("kind", ["postgres", "redis"])
def test_tier_faults_a_child_after_fork_under_load_works(kind: str) -> None:
    ended = children.run("tier_forks", 30, kind, watchdog=240)
    assert ended.ok, ended
    assert "stuck or failed: 0\nerrors of the parent: 0" in ended.output, ended


@pytest.mark.forks
@pytest.mark.parametrize("kind", ["postgres", "redis"])
def test_tier_faults_a_naive_child_breaks_its_parents_connection(kind: str) -> None:
    ended = children.run("tier_forks", 3, kind, "naive", watchdog=120)
    assert ended.ok, ended
    assert "stuck or failed: 3" in ended.output, ended


@pytest.mark.forks
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tier_faults_preloaded_workers_share_no_connection(shared_server: Served) -> None:
    """As gunicorn --preload: the cache is made and used, then workers are forked, and each serves."""
    url = shared_server.new_database()
    with shared(url, timeout="20s") as one:
        one.cache.check()
        before = one.cache.stats().remote_errors  # it found no tables, and made them
        first = one.get("k")
        one.written()
        mine = shared_server.connections(url)

        def serve() -> bool:
            assert one.get("k") == first
            one.get(f"w{os.getpid()}")
            one.cache.set(f"d{os.getpid()}", os.getpid())
            one.cache._upkeep.flush()
            now = shared_server.connections(url)
            return now > mine or not (now & mine) or len(now) > len(mine)

        assert all(in_child(serve) for _ in range(4))
        assert is_of(one.fresh("k"), "k")
        assert one.load.calls == ["k"], "the parent's connections go on"
        assert mine <= shared_server.connections(url)
        assert one.cache.stats().remote_errors == before
        assert one.health["reconnects"] == 0
        one.written()
        assert shared_server.stored(url) == 1 + 4 + 4, "of the parent, and of each child a load and a set"


@pytest.mark.forks
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tier_faults_hits_are_counted_once_after_a_fork(warm_postgres: PostgresServer) -> None:
    """Hits that the parent has not told yet are the parent's; the child tells its own."""
    url = warm_postgres.new_database()
    with shared(url) as one:
        one.get("k")
        one.written()
        for _ in range(5):
            one.get("k")

        def serve() -> bool:
            for _ in range(3):
                one.get("k")
            return bool(one.cache._upkeep.flush())

        assert in_child(serve)
        one.cache._flush_hits()
        with Raw(url) as raw:
            eventually(lambda: raw("SELECT hit_count FROM stillwarm.entries") == [(8,)])


@pytest.mark.forks
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tier_faults_a_fork_during_an_outage(server: Served) -> None:
    one = Shared(server.url)
    old = one.get("k")
    one.written()
    server.freeze()
    threads = [threading.Thread(target=one.get, args=(f"t{n}",)) for n in range(6)]
    for thread in threads:
        thread.start()
    one.cache.invalidate(key="get:'k'")
    assert in_child(lambda: one.get("k") != old and is_of(one.get("c"), "c"))
    server.thaw()
    for thread in threads:
        thread.join()
    eventually(lambda: one.health["owed_invalidations"] == 0)
    assert one.fresh("k") != old
    one.cache.close()


@pytest.mark.forks
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tier_faults_children_of_forks_in_the_middle_of_connecting(shared_server: Served) -> None:
    """Libraries under a connection have locks (Kerberos under libpq), which no thread of the child would let go of."""
    url = shared_server.new_database()
    with patient(url, timeout="20s", connect_timeout="20s") as one:
        first = one.get("k")
        one.written()
        with connecting(url, threads=3):
            for _ in range(60):
                assert in_child(lambda: one.get("k") == first and is_of(one.fresh("c"), "c") and one.cache.set("d", 1))
        assert one.fresh("k") == first
        assert one.health["reconnects"] == 0


# ------------------------------------------------------------------------------------------------------ exit, Ctrl-C


@pytest.mark.parametrize("how", remote.EXITS)
def test_tier_faults_exit_with_the_tier_in_use(server: Served, how: str) -> None:
    ended = remote.exit_of(how, server)
    assert ended.ok, ended
    assert ended.errors == ""
    assert ended.after_last_line < 10, "no order of magnitude above a second"


def test_tier_faults_exit_writes_what_is_known(private_postgres: PostgresServer) -> None:
    ended = remote.exit_of("idle", Served("postgres", private_postgres))
    assert ended.ok, ended
    with Raw(private_postgres.url) as raw:
        assert raw("SELECT count(*) FROM stillwarm.entries WHERE key = 'last'") == [(1,)]
        assert raw("SELECT hit_count FROM stillwarm.entries WHERE key = 'get:''k'''") == [(7,)]


@pytest.mark.parametrize("kind", ["postgres", "redis"])
def test_tier_faults_ctrl_c_while_a_frozen_server_is_waited_for(kind: str) -> None:
    ended = children.run("tier_interrupts", kind, watchdog=180)
    assert ended.ok, ended
    took = [float(line.split()[1]) for line in ended.output.splitlines() if line.startswith("took")]
    assert len(took) == 12
    assert max(took) < 3.0, "no order of magnitude above 0.3 s"
