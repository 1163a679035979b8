"""Several private Redis servers that belong together, for tests, benchmarks and demos: a service with sentinels, and a
cluster.

    with RedisSentinel() as service: connect(service.url)
    with RedisCluster() as cluster: connect(cluster.url)

Thread rule: one thread at a time changes them; `command` may come from any.
Refuses to know: caches, tiers, and pytest. Standard library alone.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Final

from stillwarm._redis_server import RedisServer
from stillwarm._servers import ServerError

__all__ = ["RedisSentinel"]

_QUICK: Final = {"repl-diskless-sync-delay": "0", "repl-ping-replica-period": "1"}
SLOTS: Final = 16384


def _until(condition: Callable[[], Any], what: str, timeout: float = 60.0) -> Any:
    """The first true answer of the condition; a server that does not answer yet is no error."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            if answer := condition():
                return answer
        except ServerError:
            pass
        if time.monotonic() > deadline:
            raise ServerError(f"{what} within {timeout:g} s")
        time.sleep(0.02)


class _Group:
    """Servers that are started and closed together."""

    host: Final = "127.0.0.1"

    def __init__(self) -> None:
        self._stack = ExitStack()

    def close(self) -> None:
        """Stops all and removes their folders."""
        self._stack.close()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


# ------------------------------------------------------------------------------------------------------------ sentinel


class _Sentinel(RedisServer):
    """One sentinel process. What it learned is in its file, which a restart writes anew: it begins from the start."""

    def _arguments(self) -> list[str]:
        return ["--sentinel"]


class RedisSentinel(_Group):
    """A master with replicas, and three sentinels which watch it.

    Args:
        replicas: how many.
        down_after: s of silence after which a master counts as gone.
        settings: of every server's redis.conf, in addition.

    Raises:
        ServerMissing: Redis is not installed.
        ServerError: they did not start, or did not find each other.
    """

    service: Final = "main"

    def __init__(
        self, *, replicas: int = 1, down_after: float = 0.5, settings: Mapping[str, str] | None = None
    ) -> None:
        super().__init__()
        self._databases = itertools.count(1)
        try:
            self.servers = [self._server(None, settings)]
            self.servers += [self._server(self.servers[0].port, settings) for _ in range(replicas)]
            watched = {
                f"sentinel monitor {self.service}": f"{self.host} {self.servers[0].port} 2",
                f"sentinel down-after-milliseconds {self.service}": str(int(down_after * 1000)),
                f"sentinel failover-timeout {self.service}": "2000",
            }
            self.sentinels = [self._stack.enter_context(_Sentinel(settings=watched)) for _ in range(3)]
            _until(self._is_whole, "the sentinels did not find each other")
        except BaseException:
            self.close()
            raise

    def _server(self, master: int | None, settings: Mapping[str, str] | None) -> RedisServer:
        role = {} if master is None else {"replicaof": f"{self.host} {master}"}
        return self._stack.enter_context(RedisServer(settings={**_QUICK, **role, **(settings or {})}))

    def _is_whole(self) -> bool:
        for sentinel in self.sentinels:
            told = sentinel.command("SENTINEL", "MASTER", self.service)
            known = dict(zip(told[::2], told[1::2], strict=True))
            if known["num-other-sentinels"] != "2" or int(known["num-slaves"]) < len(self.servers) - 1:
                return False
            if known["flags"] != "master":
                return False
            for replica in sentinel.command("SENTINEL", "REPLICAS", self.service):
                state = dict(zip(replica[::2], replica[1::2], strict=True))
                if state["flags"] != "slave" or state["master-link-status"] != "ok":
                    return False
        return True

    @property
    def url(self) -> str:
        """Of database 0."""
        return self.url_of(0)

    def url_of(self, database: int) -> str:
        places = ",".join(f"{self.host}:{sentinel.port}" for sentinel in self.sentinels)
        return f"redis+sentinel://{places}/{self.service}/{database}"

    def new_database(self) -> int:
        """The number of a database that nobody has used."""
        return next(self._databases)

    @property
    def master(self) -> RedisServer:
        """The server that the first sentinel that answers calls the master."""
        for sentinel in self.sentinels:
            if sentinel.running:
                port = int(sentinel.command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.service)[1])
                return next(server for server in self.servers if server.port == port)
        raise ServerError("no sentinel runs")

    def command(self, *words: object, database: int = 0, timeout: float = 5.0) -> Any:
        """One command to the master."""
        return self.master.command(*words, database=database, timeout=timeout)

    def settled(self) -> None:
        """Until there is a master, its replicas follow it, and every sentinel says so; what was killed is started."""
        for server in (*self.servers, *self.sentinels):
            server.thaw()
            server.start()
        _until(self._is_whole, "the service did not become whole again")
        _until(lambda: len({s.command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.service)[1] for s in self.sentinels})
               == 1, "the sentinels do not agree")  # fmt: skip

    def failed_over(self, before: RedisServer) -> RedisServer:
        """Waits until another server is the master, and every sentinel that runs says so; that server."""

        def another() -> bool:
            ports = {
                int(s.command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.service)[1])
                for s in self.sentinels
                if s.running
            }
            return len(ports) == 1 and before.port not in ports

        _until(another, "no failover")
        return self.master

    def __enter__(self) -> RedisSentinel:
        return self
