"""A server of either kind for fault tests that are about any tier: its life, its URLs, and a client of the naive sort.

Thread rule: as the server.
Refuses to know: what is tested, and which fault happens.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator
from typing import Any, Literal, TypeAlias

import psycopg
import pytest

from chaos import ChaosProxy
from outages import Raw
from stillwarm._ask_redis import _decoded, _encoded
from stillwarm._redis_server import RedisServer
from stillwarm._servers import PostgresServer, ServerError, free_port
from tiers import with_port

Kind: TypeAlias = Literal["postgres", "redis"]


class RawRedis:
    """A client that is not prepared for faults: one connection, no deadline, whatever comes next is the answer."""

    def __init__(self, url: str) -> None:
        port = int(url.rpartition(":")[2].partition("/")[0])
        self.connection = socket.create_connection(("127.0.0.1", port), 2)
        self.connection.settimeout(None)
        self.answers = self.connection.makefile("rb")
        try:
            self("SELECT", url.rpartition("/")[2])
        except BaseException:
            self.__exit__()
            raise

    def __call__(self, *words: object) -> Any:
        try:
            self.connection.sendall(_encoded(words))
            answer = _decoded(self.answers)
        except (OSError, ValueError) as error:
            raise ConnectionError(str(error)) from None
        if isinstance(answer, ServerError):
            raise answer
        return answer

    def __enter__(self) -> RawRedis:
        return self

    def __exit__(self, *_: object) -> None:
        self.answers.close()
        self.connection.close()


class Served:
    """A private server; what it has in common with the other kind has one name here."""

    def __init__(self, kind: Kind, server: PostgresServer | RedisServer) -> None:
        self.kind: Kind = kind
        self.server = server
        self.port = server.port
        self.start, self.stop, self.restart = server.start, server.stop, server.restart
        self.kill, self.freeze, self.thaw = server.kill, server.freeze, server.thaw

    @property
    def url(self) -> str:
        return self.server.url

    def new_database(self) -> str:
        return self.server.new_database()

    def through(self, proxy: ChaosProxy, url: str | None = None) -> str:
        """The URL by way of a proxy."""
        return with_port(url or self.url, proxy.port)

    def nobody(self) -> str:
        """A URL at which nobody listens."""
        return with_port(self.url, free_port())

    # ------------------------------------------------------------------------------------------- the naive control

    def naive(self, url: str | None = None) -> Raw | RawRedis:
        """Connected; call it with `ask`."""
        return Raw(url or self.url) if self.kind == "postgres" else RawRedis(url or self.url)

    @property
    def ask(self) -> str:
        return "SELECT 1" if self.kind == "postgres" else "PING"

    @property
    def naive_error(self) -> type[Exception]:
        return psycopg.OperationalError if self.kind == "postgres" else ConnectionError

    # -------------------------------------------------------------------------------------------- what is in there

    def stored(self, url: str | None = None) -> int:
        """How many entries the tier has, in namespace `default`."""
        if self.kind == "postgres":
            with Raw(url or self.url) as raw:
                return int(raw("SELECT count(*) FROM stillwarm.entries")[0][0])
        with RawRedis(url or self.url) as raw:
            return len(raw("KEYS", "stillwarm:{*}:e:*"))

    def connections(self, url: str | None = None) -> set[str]:
        """The tier's connections, by a number that no other ever has; of a database where it says."""
        if self.kind == "postgres":
            with Raw(url or self.url) as raw:
                rows = raw(
                    "SELECT pid FROM pg_stat_activity"
                    " WHERE application_name = 'stillwarm' AND datname = current_database()"
                )
            return {str(row[0]) for row in rows}
        with RawRedis(url or self.url) as raw:
            clients = raw("CLIENT", "LIST").splitlines()
        database = f" db={(url or self.url).rpartition('/')[2]} "
        return {line.split()[0] for line in clients if "name=stillwarm" in line and database in line}

    @contextlib.contextmanager
    def refusing_writes(self) -> Iterator[None]:
        """Reads are answered, and no write is taken: a standby, a replica. Its connections of before are gone."""
        if self.kind == "postgres":
            with Raw(self.url) as raw:
                raw("ALTER DATABASE postgres SET default_transaction_read_only = on")
                self._end_connections(raw)
                try:
                    yield
                finally:
                    raw("SET default_transaction_read_only = off")
                    raw("ALTER DATABASE postgres SET default_transaction_read_only = off")
                    self._end_connections(raw)
            return
        assert isinstance(self.server, RedisServer)
        # A user who may do everything but write; the marks of a namespace that is in use are only read by a look-up.
        self.server.command("CONFIG", "SET", "min-replicas-to-write", 1)
        try:
            yield
        finally:
            self.server.command("CONFIG", "SET", "min-replicas-to-write", 0)

    def _end_connections(self, raw: Raw) -> None:
        raw("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'stillwarm'")


@pytest.fixture(params=["postgres", "redis"])
def server(request: pytest.FixtureRequest) -> Iterator[Served]:
    """A server of this test alone, of each kind."""
    kind: Kind = request.param
    if kind == "postgres":
        yield Served(kind, request.getfixturevalue("private_postgres"))
        return
    with RedisServer() as redis:
        yield Served(kind, redis)


@pytest.fixture(params=["postgres", "redis"])
def shared_server(request: pytest.FixtureRequest) -> Served:
    """A server of this process, with new databases: not to be hurt."""
    return Served(request.param, request.getfixturevalue(f"warm_{request.param}"))


@pytest.fixture
def proxy(shared_server: Served, chaos: Callable[..., ChaosProxy]) -> ChaosProxy:
    """A way to `shared_server` that can be cut."""
    return chaos(shared_server.port)


@pytest.fixture
def url(shared_server: Served, proxy: ChaosProxy) -> str:
    """A new database of it, through the proxy."""
    return shared_server.through(proxy, shared_server.new_database())
