"""The fault proxy does what it says: each fault is shown on a client that is not prepared for it.

Thread rule: a proxy and its client belong to one test.
Refuses to know: how stillwarm meets these faults.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from chaos import BEGUN, COMMITTED, Behaviour, ChaosProxy
from stillwarm._servers import PostgresServer

pytestmark = pytest.mark.servers
Make = Callable[..., ChaosProxy]


@pytest.fixture
def proxy(warm_postgres: PostgresServer, chaos: Make) -> ChaosProxy:
    return chaos(warm_postgres.port)


@pytest.fixture
def client(proxy: ChaosProxy) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(proxy.url(), autocommit=True) as connection:
        yield connection
        connection.close()


def one(client: psycopg.Connection[Any], sql: Any = "SELECT 1") -> Any:
    row = client.execute(sql).fetchone()
    assert row is not None
    return row[0]


class Silence(Exception):
    """The client would wait for ever."""


def within(seconds: float, client: psycopg.Connection[Any], sql: str = "SELECT 1") -> Any:
    """As `one`, of a client that sees no end: the connection is ended after a while, and the wait told."""
    silent = []

    def give_up() -> None:
        silent.append(True)
        with socket.socket(fileno=socket.dup(client.fileno())) as raw:
            raw.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(seconds, give_up)
    timer.start()
    try:
        return one(client, sql)
    except psycopg.OperationalError:
        if silent:
            raise Silence from None
        raise
    finally:
        timer.cancel()
        timer.join()


# ------------------------------------------------------------------------------------------------------------ it passes


def test_chaos_passes_everything_unless_told(proxy: ChaosProxy, client: psycopg.Connection[Any]) -> None:
    assert one(client, "SELECT repeat('x', 300000)") == "x" * 300000
    assert proxy.connections[0].bytes_from_server > 300000
    assert proxy.faults == 0


def test_chaos_gives_one_byte_at_a_time(proxy: ChaosProxy) -> None:
    proxy.behave(chunk=1)
    with psycopg.connect(proxy.url()) as client:
        assert one(client, "SELECT 'whole'") == "whole"


def test_chaos_delays_each_chunk(proxy: ChaosProxy, client: psycopg.Connection[Any]) -> None:
    proxy.behave(delay=60.0)
    with pytest.raises(Silence):
        within(0.2, client)


def test_chaos_a_new_behaviour_ends_a_delay(proxy: ChaosProxy, client: psycopg.Connection[Any]) -> None:
    proxy.behave(delay=60.0)
    timer = threading.Timer(0.05, proxy.behave)
    timer.start()
    assert one(client) == 1
    timer.join()


# ------------------------------------------------------------------------------------------------------------- it cuts


@pytest.mark.parametrize("after", [0, 1, 5, 30])
@pytest.mark.parametrize("end", ["fin", "reset"])
def test_chaos_cuts_a_reply_in_the_middle(
    proxy: ChaosProxy, client: psycopg.Connection[Any], after: int, end: str
) -> None:
    proxy.behave(cut_after=after, end=end)
    with pytest.raises(psycopg.OperationalError):
        one(client)
    assert proxy.faults == 1
    proxy.behave()
    with psycopg.connect(proxy.url()) as other:
        assert one(other) == 1


@pytest.mark.parametrize(("end", "error"), [("fin", b""), ("reset", ConnectionResetError)])
def test_chaos_a_client_can_tell_an_end_from_a_reset(chaos: Make, end: str, error: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        proxy = chaos(server.getsockname()[1])
        proxy.behave(cut_after=3, end=end)
        with socket.create_connection(("127.0.0.1", proxy.port)) as client:
            with server.accept()[0] as there:
                there.sendall(b"abcdef")
                got = b""
                try:
                    while part := client.recv(10):
                        got += part
                except ConnectionResetError:
                    assert error is ConnectionResetError
                else:
                    assert error == b""
                    assert got == b"abc"


@pytest.mark.parametrize("after", [0, 5, 30])
def test_chaos_a_half_open_connection_waits_for_ever(
    proxy: ChaosProxy, client: psycopg.Connection[Any], after: int
) -> None:
    proxy.behave(cut_after=after, end="silence")
    with pytest.raises(Silence):
        within(0.2, client)
    assert proxy.faults == 1


@pytest.mark.parametrize("end", ["fin", "reset"])
def test_chaos_ends_what_is_open(proxy: ChaosProxy, client: psycopg.Connection[Any], end: Any) -> None:
    assert one(client) == 1
    proxy.end_all(end)
    with pytest.raises(psycopg.OperationalError):
        one(client)


def test_chaos_concerns_one_connection_alone(proxy: ChaosProxy, client: psycopg.Connection[Any]) -> None:
    with psycopg.connect(proxy.url()) as other:
        proxy.connections[1].behave(cut_after=0)
        assert one(client) == 1
        with pytest.raises(psycopg.OperationalError):
            one(other)
    assert [connection.faults for connection in proxy.connections] == [0, 1]


# -------------------------------------------------------------------------------------------------- a chosen reply lost


def table_of(server: PostgresServer) -> str:
    name = f"chaos_{id(object())}"
    server.sql(f"DROP TABLE IF EXISTS {name}; CREATE TABLE {name} (x int)")
    return name


@pytest.mark.parametrize("chunk", [1, 65536])
def test_chaos_loses_the_reply_to_commit(
    warm_postgres: PostgresServer, proxy: ChaosProxy, client: psycopg.Connection[Any], chunk: int
) -> None:
    table = table_of(warm_postgres)
    proxy.behave(Behaviour(cut_before=COMMITTED, chunk=chunk))
    with pytest.raises(psycopg.OperationalError):
        with client.transaction():
            client.execute(f"INSERT INTO {table} VALUES (1)")
    assert proxy.faults == 1
    assert warm_postgres.sql(f"SELECT count(*) FROM {table}") == [("1",)]  # the client was told of a failure


def test_chaos_loses_the_request_to_commit(
    warm_postgres: PostgresServer, proxy: ChaosProxy, client: psycopg.Connection[Any]
) -> None:
    table = table_of(warm_postgres)
    proxy.behave(cut_request=b"COMMIT")
    with pytest.raises(psycopg.OperationalError):
        with client.transaction():
            client.execute(f"INSERT INTO {table} VALUES (1)")
    assert proxy.faults == 1
    assert warm_postgres.sql(f"SELECT count(*) FROM {table}") == [("0",)]


def test_chaos_delivers_a_request_in_part(chaos: Make) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        proxy = chaos(server.getsockname()[1])
        proxy.behave(cut_request=b"COMMIT", request_kept=3)
        with socket.create_connection(("127.0.0.1", proxy.port)) as client:
            with server.accept()[0] as there:
                client.sendall(b"-COMMIT-")
                assert there.makefile("rb").read() == b"-COM"
                assert client.recv(100) == b""
    assert proxy.faults == 1


def test_chaos_finds_a_text_that_comes_in_two_parts(chaos: Make) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        proxy = chaos(server.getsockname()[1])
        proxy.behave(cut_before=b"aab")
        with socket.create_connection(("127.0.0.1", proxy.port)) as client:
            with server.accept()[0] as there:
                there.sendall(b"-a-aa")
                assert client.recv(100) == b"-a-"
                there.sendall(b"a")
                assert client.recv(100) == b"a"
                there.sendall(b"b!")
                assert client.recv(100) == b""
        assert BEGUN != COMMITTED


# ---------------------------------------------------------------------------------------------------- it says nonsense


@pytest.mark.parametrize("garbage", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\0" * 64, bytes(range(256))])
def test_chaos_answers_with_garbage(proxy: ChaosProxy, client: psycopg.Connection[Any], garbage: bytes) -> None:
    proxy.behave(garbage=garbage)
    with pytest.raises((psycopg.Error, Silence)):
        within(0.3, client)
    assert proxy.faults == 1


# ------------------------------------------------------------------------------------------------ it does not answer


def test_chaos_freezes_and_goes_on(proxy: ChaosProxy, client: psycopg.Connection[Any]) -> None:
    proxy.behave(frozen=True)
    timer = threading.Timer(0.1, proxy.behave)
    timer.start()
    assert one(client) == 1
    timer.join()
    proxy.behave(frozen=True)
    with pytest.raises(Silence):
        within(0.2, client)


def test_chaos_frozen_it_accepts_and_says_nothing(chaos: Make) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        proxy = chaos(server.getsockname()[1])
        proxy.behave(frozen=True)
        with socket.create_connection(("127.0.0.1", proxy.port)) as client:
            with server.accept()[0] as there:
                client.sendall(b"question")
                there.sendall(b"answer")
                for side in (client, there):
                    side.settimeout(0.1)
                    with pytest.raises(TimeoutError):
                        side.recv(100)
                proxy.behave()
                assert (client.recv(100), there.recv(100)) == (b"answer", b"question")


def test_chaos_refuses(proxy: ChaosProxy) -> None:
    with proxy.behaving(refuse=True):
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(proxy.url())
    with psycopg.connect(proxy.url()) as client:
        assert one(client) == 1


def test_chaos_listens_and_accepts_nobody(warm_postgres: PostgresServer, chaos: Make) -> None:
    proxy = chaos(warm_postgres.port, accept=False)
    with socket.socket() as client:
        client.settimeout(0.3)
        with pytest.raises(TimeoutError):
            client.connect(("127.0.0.1", proxy.port))
    assert proxy.connections == []


def test_chaos_a_server_that_is_away_is_an_end(chaos: Make) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        proxy = chaos(nobody.getsockname()[1])
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(proxy.url())


def test_chaos_leaves_no_thread(warm_postgres: PostgresServer) -> None:
    before = set(threading.enumerate())
    with ChaosProxy(warm_postgres.port) as proxy:
        client = psycopg.connect(proxy.url())
        proxy.behave(frozen=True)
        assert set(threading.enumerate()) - before
    assert set(threading.enumerate()) <= before
    client.close()
