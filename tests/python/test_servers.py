"""The private servers: they answer, run as an ordinary user, and are hurt as told.

Thread rule: a server that is hurt belongs to one test.
Refuses to know: caches; what is left of a server is the subject of test_servers_ended.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import psycopg
import pytest

from leftovers import segment_of, segments, traces
from pooling import PgBouncer
from stillwarm import _keeper, _server_life, _servers
from stillwarm._servers import Keeper, PostgresServer, ServerError

pytestmark = pytest.mark.servers


# ---------------------------------------------------------------------------------------------------- what it is like


def test_servers_postgres_answers_over_tcp_and_its_socket(warm_postgres: PostgresServer) -> None:
    with psycopg.connect(warm_postgres.url) as client:
        assert client.execute("SHOW server_encoding").fetchone() == ("UTF8",)
        collation = "SELECT datcollate FROM pg_database WHERE datname = current_database()"
        assert client.execute(collation).fetchone() == ("C",)
        assert client.execute("SHOW timezone").fetchone() == ("UTC",)
        assert client.execute("SHOW max_connections").fetchone() == ("200",)
        assert client.execute("SHOW fsync").fetchone() == ("off",)
    where = {"host": str(warm_postgres.socket), "port": warm_postgres.port, "user": warm_postgres.user}
    with psycopg.connect(**where, dbname="postgres") as client:  # type: ignore[arg-type]
        assert client.execute("SELECT 1").fetchone() == (1,)
    assert f"{warm_postgres.host}:{warm_postgres.port}" in warm_postgres.url
    assert warm_postgres.url in repr(warm_postgres)


def test_servers_postgres_listens_on_loopback_alone(warm_postgres: PostgresServer) -> None:
    assert warm_postgres.sql("SHOW listen_addresses") == [("127.0.0.1",)]


def test_servers_postgres_is_never_root(warm_postgres: PostgresServer) -> None:
    assert len(warm_postgres.processes()) > 3
    for pid in warm_postgres.processes():
        owner = os.stat(f"/proc/{pid}").st_uid
        assert owner != 0
        assert owner == os.geteuid() or os.geteuid() == 0
    assert warm_postgres.socket.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("name", ["closed", "much_too_long_for_a_socket_" * 4])
def test_servers_folder_is_one_that_the_server_can_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / name).mkdir(mode=0o700)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / name))
    folder = _servers.make_folder()
    keeper = Keeper(folder)
    try:
        assert len(str(folder)) < 80
        ls = _servers.spawn(["ls", "-d", folder / "."], Path("/"), stdout=subprocess.DEVNULL)
        assert ls.wait() == 0
    finally:
        keeper.close()


@pytest.fixture(params=["psycopg", "psql"])
def asked_by(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "psql":
        monkeypatch.setitem(sys.modules, "psycopg", None)


@pytest.mark.usefixtures("asked_by")
def test_servers_sql_gives_rows_of_text(warm_postgres: PostgresServer) -> None:
    sql = warm_postgres.sql
    assert sql("SELECT $1::int + 1, $2, NULL, ''", 41, "o'bräin \\ $1 :p1") == [("42", "o'bräin \\ $1 :p1", None, "")]
    assert sql("SELECT $1::text FROM generate_series(1, 2)", None) == [(None,), (None,)]
    assert sql("SELECT 'one'; SELECT E'two\\nlines'") == [("two\nlines",)]
    assert sql("SELECT ''") == [("",)]
    assert sql("SELECT 1 WHERE false") == []
    database = warm_postgres.new_database().rpartition("/")[2]
    assert sql("CREATE TABLE t (x int)", database=database) == []
    assert sql("SELECT count(*) FROM t", database=database) == [("0",)]


@pytest.mark.usefixtures("asked_by")
def test_servers_sql_tells_what_went_wrong(warm_postgres: PostgresServer) -> None:
    with pytest.raises(ServerError, match="division by zero") as caught:
        warm_postgres.sql("SELECT 1 / 0")
    assert caught.value.sqlstate == "22012"
    with pytest.raises(ServerError, match="no answer within") as caught:
        warm_postgres.sql("SELECT pg_sleep(60)", timeout=0.2)
    assert caught.value.sqlstate is None
    with pytest.raises(ServerError, match="nowhere"):
        warm_postgres.sql("SELECT 1", database="nowhere")


def test_servers_sql_says_that_the_connection_broke(warm_postgres: PostgresServer) -> None:
    with pytest.raises(ServerError, match="terminat"):
        warm_postgres.sql("SELECT pg_terminate_backend(pg_backend_pid())")


def test_servers_postgres_names_its_clients(warm_postgres: PostgresServer) -> None:
    url = warm_postgres.new_database()
    with psycopg.connect(url, application_name="somebody") as client:
        client.execute("SELECT 'last'")
        (backend,) = [each for each in warm_postgres.backends() if each.database == url.rpartition("/")[2]]
        assert backend.pid == client.info.backend_pid
        assert backend[2:] == ("somebody", "idle in transaction", "SELECT 'last'")


def test_servers_databases_do_not_see_each_other(warm_postgres: PostgresServer) -> None:
    first, second = warm_postgres.new_database(), warm_postgres.new_database()
    assert first != second
    with psycopg.connect(first) as client:
        client.execute("CREATE TABLE only_here (x int)")
    with psycopg.connect(second) as client:
        assert client.execute("SELECT to_regclass('only_here')").fetchone() == (None,)


# ------------------------------------------------------------------------------------------------- what is done to it


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_servers_postgres_stops_and_starts_where_it_was(private_postgres: PostgresServer, mode: Any) -> None:
    port = private_postgres.port
    private_postgres.sql("CREATE TABLE kept AS SELECT 1 AS x")
    private_postgres.stop(mode)
    assert not private_postgres.running
    assert private_postgres.processes() == []
    assert "stopped" in repr(private_postgres)
    with pytest.raises(ServerError, match="refused"):
        private_postgres.sql("SELECT 1")
    private_postgres.stop()  # a second time is nothing
    private_postgres.start()
    private_postgres.start()
    assert private_postgres.port == port
    assert private_postgres.sql("SELECT x FROM kept") == [("1",)]
    assert ("was not properly shut down" in private_postgres.log) == (mode == "immediate")


def test_servers_postgres_refuses_an_unknown_way_to_stop(private_postgres: PostgresServer) -> None:
    with pytest.raises(ValueError, match="mode='gently'"):
        private_postgres.stop("gently")  # type: ignore[arg-type]
    assert private_postgres.running


def test_servers_postgres_killed_leaves_no_process_and_keeps_what_was_committed(
    private_postgres: PostgresServer,
) -> None:
    with psycopg.connect(private_postgres.url, autocommit=True) as client:
        client.execute("CREATE TABLE kept AS SELECT 1 AS x")
        before = private_postgres.processes()
        segment = segment_of(private_postgres)
        assert segment in segments()
        private_postgres.kill()
        assert private_postgres.processes() == []
        assert all(_keeper.state(pid) in ("", "Z") for pid in before)
        assert segment not in segments()
        with pytest.raises(psycopg.OperationalError):
            client.execute("SELECT 1")
    private_postgres.kill()
    private_postgres.start()
    assert private_postgres.sql("SELECT x FROM kept") == [("1",)]


def test_servers_postgres_frozen_says_nothing_until_it_is_thawed(private_postgres: PostgresServer) -> None:
    with psycopg.connect(private_postgres.url, autocommit=True) as client:
        private_postgres.freeze()
        assert {_keeper.state(pid) for pid in private_postgres.processes()} == {"T"}
        assert private_postgres.running
        thawed = threading.Event()

        def thaw() -> None:
            thawed.set()
            private_postgres.thaw()

        timer = threading.Timer(0.1, thaw)
        timer.start()
        assert client.execute("SELECT 1").fetchone() == (1,)
        assert thawed.is_set()
        timer.join()


@pytest.mark.parametrize("how", ["stop", "kill", "close", "restart"])
def test_servers_postgres_frozen_can_be_ended(private_postgres: PostgresServer, how: str) -> None:
    private_postgres.freeze()
    getattr(private_postgres, how)()
    assert private_postgres.running == (how == "restart")


def test_servers_postgres_takes_settings(postgres_template: Path) -> None:
    with PostgresServer(template=postgres_template, settings={"max_connections": "7"}, durable=True) as server:
        assert server.sql("SHOW max_connections") == [("7",)]
        assert server.sql("SHOW fsync") == [("on",)]
        server.sql("ALTER SYSTEM SET max_connections = 8")
        server.restart()
        assert server.sql("SHOW max_connections") == [("8",)]


def test_servers_postgres_takes_another_port_when_its_own_is_lost(
    postgres_template: Path, warm_postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    ports = [warm_postgres.port, _servers.free_port()]
    monkeypatch.setattr(_server_life, "free_port", lambda: ports.pop(0))
    with PostgresServer(template=postgres_template) as server:
        assert ports == []
        assert server.sql("SELECT 1") == [("1",)]


# --------------------------------------------------------------------------------------------------------- the pooler


def test_servers_pooler_gives_sessions_by_the_transaction(pgbouncer: str, warm_postgres: PostgresServer) -> None:
    clients = [psycopg.connect(pgbouncer, autocommit=True, prepare_threshold=None) for _ in range(5)]
    try:
        pids = {client.execute("SELECT pg_backend_pid()").fetchone() for client in clients}
        assert len(pids) <= 2
        with clients[0].transaction():
            clients[0].execute("SET application_name = 'lost'")
            mine = clients[0].execute("SELECT pg_backend_pid()").fetchone()
            assert clients[1].execute("SELECT pg_backend_pid()").fetchone() != mine
    finally:
        for client in clients:
            client.close()


def test_servers_pooler_ends_with_its_owner_and_is_never_root(warm_postgres: PostgresServer) -> None:
    pooler = PgBouncer(warm_postgres.port)
    assert pooler._program is not None
    assert os.stat(f"/proc/{pooler._program.pid}").st_uid != 0
    folder = os.readlink(f"/proc/{pooler._program.pid}/cwd")
    with psycopg.connect(pooler.url(), prepare_threshold=None) as client:
        assert client.execute("SELECT 1").fetchone() == (1,)
    pooler.close()
    assert traces(folder) == []
