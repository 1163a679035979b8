"""The connection to the tier ends in the middle: no partial value, no wrong one, and no write twice.

Thread rule: each test has a proxy of its own.
Refuses to know: SQL. Where a reply is cut is counted in its bytes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from chaos import Behaviour, ChaosProxy
from outages import Raw, Shared, eventually, forget, is_of, shared
from served import Served
from stillwarm._servers import PostgresServer
from stillwarm.errors import TierError

pytestmark = pytest.mark.servers
Make = Callable[..., ChaosProxy]
STORE = 1  # Request.kind
GARBAGE = [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\0" * 64, bytes(range(256)), b"D\x7f\xff\xff\xff" + b"x" * 100, b"Z"]


@pytest.fixture
def one(url: str) -> Iterator[Shared]:
    with with_k(url) as cache:
        yield cache


@contextlib.contextmanager
def with_k(url: str, **options: Any) -> Iterator[Shared]:
    """Its tier has "k". Without the listener's traffic in the way: only requests are counted."""
    with shared(url, connections=1, **options) as cache:
        cache.cache.check()  # makes the tables
        cache.get("k")
        cache.written()
        yield cache


def direct(proxy: ChaosProxy, url: str, server: Served) -> str:
    return url.replace(f":{proxy.port}/", f":{server.port}/")


def length_of(proxy: ChaosProxy, action: Callable[[], Any]) -> int:
    """The bytes that the server sends for it, on the connection that sends most."""
    before = {id(c): c.bytes_from_server for c in proxy.connections}
    action()
    return max(c.bytes_from_server - before.get(id(c), 0) for c in proxy.connections)


def closed_circuit(one: Shared) -> None:
    eventually(lambda: one.cache.confirm() and one.health["circuit"] == "closed")


# ------------------------------------------------------------------------------------------------------ at every byte


@pytest.mark.parametrize("end", ["fin", "reset"])
def test_tier_faults_a_look_up_cut_at_every_byte(one: Shared, proxy: ChaosProxy, end: Any) -> None:
    # The least of some: a connection may just be made. Beyond it is the server's clock, which is asked once a second.
    size = min(length_of(proxy, lambda: one.fresh("k")) for _ in range(5)) + 40
    assert size > 80
    first = one.fresh("k")
    cuts = 0
    for after in range(size + 1):
        closed_circuit(one)
        before = proxy.faults
        for connection in list(proxy.connections):
            connection.behave(cut_after=after, end=end)  # a new one is whole: the retry
        found: list[Any] = []
        found.append(one.fresh("k"))
        assert found == [first] or is_of(one.get("k"), "k")
        cuts += proxy.faults > before
        for connection in list(proxy.connections):
            connection.behave()
    # Look-ups are short and long, and one that is shorter passes; so does one on a connection that has just been made.
    assert cuts > size // 3
    assert set(one.load.calls) == {"k"}


def test_tier_faults_a_look_up_is_asked_again_once(url: str, proxy: ChaosProxy) -> None:
    with with_k(url, timeout="10s") as one:  # time enough for another connection, however busy the machine is
        for connection in proxy.connections:
            connection.behave(cut_after=0)
        first = one.fresh("k")
        assert one.load.calls == ["k"], "asked again on a new connection, and found"
        closed_circuit(one)
        proxy.behave(cut_after=450)  # connects, and breaks at the first answer to a look-up
        before = len(proxy.connections)
        assert is_of(one.fresh("k"), "k")
        assert one.load.calls == ["k", "k"] or one.get("k") == first
        assert len(proxy.connections) - before < 10, "no storm"


def test_tier_faults_a_naive_client_sees_every_cut(proxy: ChaosProxy, url: str, shared_server: Served) -> None:
    for after in (0, 2, 6):
        with shared_server.naive(url) as raw:
            proxy.behave(cut_after=after)
            with pytest.raises(shared_server.naive_error):
                raw(shared_server.ask)
        proxy.behave()


@pytest.mark.parametrize("end", ["fin", "reset"])
def test_tier_faults_a_store_cut_at_every_byte(
    one: Shared, proxy: ChaosProxy, url: str, shared_server: Served, end: Any
) -> None:
    size = length_of(proxy, lambda: one.cache.set("s", "s|0|" + "s" * 20))
    with shared(direct(proxy, url, shared_server), timeout="20s") as other:
        for after in range(size + 1):
            closed_circuit(one)
            value = f"s|{after}|" + "s" * 20
            for connection in list(proxy.connections):
                connection.behave(cut_after=after, end=end)
            assert one.cache.set("s", value)
            for connection in list(proxy.connections):
                connection.behave()
            assert one.cache.get("s") == value, "memory has it whatever the tier says"
            one.written()
            forget(other.cache)
            assert other.cache.get("s") == value, f"cut after {after} bytes, and recovered"


@pytest.mark.parametrize("after", range(0, 480, 24))
def test_tier_faults_a_greeting_cut(url: str, proxy: ChaosProxy, after: int) -> None:
    proxy.behave(cut_after=after)
    with shared(url) as one:
        assert is_of(one.get("a"), "a")
        eventually(lambda: proxy.faults > 0)
        proxy.behave()
        closed_circuit(one)
        assert is_of(one.fresh("b"), "b")


@pytest.mark.parametrize("garbage", GARBAGE, ids=lambda g: g[:4].hex())
def test_tier_faults_garbage_is_no_value(one: Shared, proxy: ChaosProxy, garbage: bytes) -> None:
    first = one.get("k")
    for _ in range(3):
        for connection in list(proxy.connections):
            connection.behave(garbage=garbage)
        assert is_of(one.fresh("k"), "k")
        assert one.cache.get("nothing", "default") == "default"
    proxy.behave()
    proxy.end_all()
    closed_circuit(one)
    assert is_of(one.fresh("k"), "k")
    assert is_of(first, "k")


# -------------------------------------------------------------------------------------------- commit outcome unknown


@contextlib.contextmanager
def losing_answers_to_stores(one: Shared, proxy: ChaosProxy) -> Iterator[None]:
    """The first one; whatever else is asked gets through."""
    tier = one.cache._tier
    assert tier is not None
    run, lost = tier.run, []

    def losing(request: Any) -> Any:
        if request.kind == STORE and not lost:
            lost.append(True)
            lose_the_answer(proxy)
        return run(request)

    tier.run = losing  # type: ignore[method-assign]
    try:
        yield
    finally:
        del tier.run
        proxy.behave()


def lose_the_answer(proxy: ChaosProxy) -> None:
    """The server does it, and nobody hears of it."""
    for connection in list(proxy.connections):
        connection.behave(Behaviour(cut_after=0))


def test_tier_faults_add_in_doubt_is_asked_and_not_repeated(
    one: Shared, proxy: ChaosProxy, url: str, shared_server: Served
) -> None:
    for n in range(5):
        closed_circuit(one)
        if n % 2:
            one.cache.add(f"prepared{n}", n)  # else it is the answer to that which is lost, and nothing is done yet
        with losing_answers_to_stores(one, proxy):
            assert one.cache.add(f"add{n}", n) is True, "it is there, and it is ours"
        assert one.cache.get(f"add{n}") == n
        assert one.cache.add(f"add{n}", n) is False
    with shared(direct(proxy, url, shared_server), timeout="20s") as other:
        assert other.cache.add("add0", "another") is False
        assert other.cache.get("add0") == 0


def test_tier_faults_add_in_doubt_is_not_taken_for_anothers(
    one: Shared, proxy: ChaosProxy, url: str, shared_server: Served
) -> None:
    """The same value, written by somebody else: two owners of one lock."""
    with shared(direct(proxy, url, shared_server), timeout="20s") as other:
        closed_circuit(one)
        for connection in list(proxy.connections):
            connection.behave(cut_request=b"add_lock")  # it never gets there
        assert other.cache.add("add_lock", "taken", ttl=60) is True
        assert one.cache.add("add_lock", "taken", ttl=60) is False


def test_tier_faults_incr_in_doubt_is_never_applied_twice(
    one: Shared, proxy: ChaosProxy, url: str, shared_server: Served
) -> None:
    one.cache.set("n", 0)
    done = 0
    for round_ in range(12):
        closed_circuit(one)
        with losing_answers_to_stores(one, proxy) if round_ % 2 else contextlib.nullcontext():
            try:
                assert one.cache.incr("n") == done + 1
                done += 1
                continue
            except TierError:
                pass  # not known: it is looked up below
        closed_circuit(one)
        now = one.cache.get("n")
        assert now in (done, done + 1), "once or not at all"
        done = now
    with shared(direct(proxy, url, shared_server), timeout="20s") as other:
        assert other.cache.get("n") == done <= 12


def test_tier_faults_incr_in_doubt_leaves_no_older_value_in_memory(
    one: Shared, proxy: ChaosProxy, url: str, shared_server: Served
) -> None:
    one.cache.set("m", 1)
    assert one.cache.get("m") == 1
    assert one.cache.incr("m") == 2  # prepared: the next one is done at the first message
    assert one.cache.get("m") == 2
    with losing_answers_to_stores(one, proxy):
        assert one.cache.incr("m") == 3, "the message that it left says so"
    with shared(direct(proxy, url, shared_server), timeout="20s") as other:
        assert other.cache.get("m") == 3, "it was applied"
    closed_circuit(one)
    assert one.cache.get("m") == 3


def test_tier_faults_a_naive_counter_counts_twice(
    warm_postgres: PostgresServer, chaos: Callable[..., ChaosProxy]
) -> None:
    proxy = chaos(warm_postgres.port)
    url = proxy.url(warm_postgres.new_database().rpartition("/")[2])
    with Raw(url) as raw:
        raw("CREATE TABLE n AS SELECT 0 AS n")
        lose_the_answer(proxy)
        for _ in range(2):  # a retry decorator around it
            try:
                raw("UPDATE n SET n = n + 1")
                break
            except psycopg.OperationalError:
                raw.connection = psycopg.connect(url, autocommit=True)
        assert raw("SELECT n FROM n") == [(2,)]


def counted(server: Served, url: str) -> int:
    """Hits of one key that the tier knows of."""
    with server.naive(url) as raw:
        if server.kind == "postgres":
            return int(raw("SELECT hit_count FROM stillwarm.entries WHERE key = %s", "get:'k'")[0][0])
        return int(raw("ZSCORE", "stillwarm:{default}:h", "default:get:'k'"))


def test_tier_faults_hit_counts_in_doubt_are_exact(
    one: Shared, proxy: ChaosProxy, url: str, shared_server: Served
) -> None:
    hits = 0
    for round_ in range(6):
        closed_circuit(one)
        for _ in range(10):
            one.get("k")
            hits += 1
        if round_ % 2 == 0:
            lose_the_answer(proxy)
        one.cache._flush_hits()
        proxy.behave()
    closed_circuit(one)
    assert one.cache._upkeep is not None
    eventually(one.cache._upkeep.flush)
    assert counted(shared_server, url) == hits
