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
from stillwarm._redis_tls import RedisTls
from stillwarm._servers import ServerError

__all__ = ["RedisCluster", "RedisSentinel"]

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
        tls: all of them speak TLS alone, as RedisServer has it.

    Raises:
        ServerMissing: Redis is not installed.
        ServerError: they did not start, or did not find each other.
    """

    service: Final = "main"

    def __init__(
        self,
        *,
        replicas: int = 1,
        down_after: float = 0.5,
        settings: Mapping[str, str] | None = None,
        tls: RedisTls | None = None,
    ) -> None:
        super().__init__()
        self._tls = tls
        self._databases = itertools.count(1)
        try:
            self.servers = [self._server(None, settings)]
            self.servers += [self._server(self.servers[0].port, settings) for _ in range(replicas)]
            watched = {
                f"sentinel monitor {self.service}": f"{self.host} {self.servers[0].port} 2",
                f"sentinel down-after-milliseconds {self.service}": str(int(down_after * 1000)),
                f"sentinel failover-timeout {self.service}": "2000",
            }
            self.sentinels = [self._stack.enter_context(_Sentinel(settings=watched, tls=tls)) for _ in range(3)]
            _until(self._is_whole, "the sentinels did not find each other")
        except BaseException:
            self.close()
            raise

    def _server(self, master: int | None, settings: Mapping[str, str] | None) -> RedisServer:
        role = {} if master is None else {"replicaof": f"{self.host} {master}"}
        return self._stack.enter_context(RedisServer(settings={**_QUICK, **role, **(settings or {})}, tls=self._tls))

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
        if self._tls is None:
            return f"redis+sentinel://{places}/{self.service}/{database}"
        return f"rediss+sentinel://{places}/{self.service}/{database}?{self._tls.text}"

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


# ------------------------------------------------------------------------------------------------------------- cluster


class RedisCluster(_Group):
    """A cluster: masters with all the slots between them, and replicas.

    Args:
        masters: how many, 3 or more.
        replicas: of each master.
        node_timeout: s of silence after which a node counts as gone.
        settings: of every server's redis.conf, in addition.
        tls: all of them speak TLS alone, as RedisServer has it.

    Raises:
        ServerMissing: Redis is not installed.
        ServerError: they did not start, or did not become a cluster.
    """

    def __init__(
        self,
        *,
        masters: int = 3,
        replicas: int = 1,
        node_timeout: float = 1.0,
        settings: Mapping[str, str] | None = None,
        tls: RedisTls | None = None,
    ) -> None:
        super().__init__()
        self._tls = tls
        own = {
            **_QUICK,
            "cluster-enabled": "yes",
            "cluster-config-file": "nodes.conf",
            "cluster-node-timeout": str(int(node_timeout * 1000)),
            "cluster-replica-validity-factor": "0",
            **(settings or {}),
        }
        try:
            count = masters * (1 + replicas)
            self.nodes = [self._stack.enter_context(RedisServer(settings=own, tls=tls)) for _ in range(count)]
            self._form(masters)
        except BaseException:
            self.close()
            raise

    def _form(self, masters: int) -> None:
        for i, node in enumerate(self.nodes):
            node.command("CLUSTER", "SET-CONFIG-EPOCH", i + 1)
            if i < masters:
                first, last = i * SLOTS // masters, (i + 1) * SLOTS // masters - 1
                node.command("CLUSTER", "ADDSLOTSRANGE", first, last)
            if i > 0:
                node.command("CLUSTER", "MEET", self.host, self.nodes[0].port)
        _until(lambda: all(self._knows(node) for node in self.nodes), "the nodes did not meet")
        for i, node in enumerate(self.nodes[masters:]):
            node.command("CLUSTER", "REPLICATE", self.id_of(self.nodes[i % masters]))
        self.settled()

    def _knows(self, node: RedisServer) -> bool:
        told = node.command("CLUSTER", "NODES")
        return len(told.splitlines()) == len(self.nodes) and "handshake" not in told

    def _is_whole(self) -> bool:
        """Every node says that all is well, that all slots have one master, and that every replica follows."""
        views = set()
        for node in self.nodes:
            if "cluster_state:ok" not in node.command("CLUSTER", "INFO"):
                return False
            if len(node.command("CLUSTER", "NODES").splitlines()) != len(self.nodes):
                return False
            ranges = node.command("CLUSTER", "SLOTS")
            if sum(last - first + 1 for first, last, *_ in ranges) != SLOTS:
                return False
            if sum(len(nodes) for _, _, *nodes in ranges) < len(self.nodes):
                return False
            views.add(str(sorted((first, last, master[1]) for first, last, master, *_ in ranges)))
            role = node.command("ROLE")
            if role[0] == "slave" and role[3] != "connected":
                return False
        return len(views) == 1

    @property
    def url(self) -> str:
        places = ",".join(f"{self.host}:{node.port}" for node in self.nodes)
        return f"redis+cluster://{places}" if self._tls is None else f"rediss+cluster://{places}?{self._tls.text}"

    def id_of(self, node: RedisServer) -> str:
        return str(node.command("CLUSTER", "MYID"))

    def _some(self) -> RedisServer:
        return next(node for node in self.nodes if node.running)

    @property
    def masters(self) -> list[RedisServer]:
        """Those that have slots, as the first node that runs says."""
        ports = {master[1] for _, _, master, *_ in self._some().command("CLUSTER", "SLOTS")}
        return [node for node in self.nodes if node.port in ports]

    def owner(self, slot: int) -> RedisServer:
        for first, last, master, *_ in self._some().command("CLUSTER", "SLOTS"):
            if first <= slot <= last:
                return next(node for node in self.nodes if node.port == master[1])
        raise ServerError(f"nobody has slot {slot}")

    def slot_of(self, key: str) -> int:
        return int(self._some().command("CLUSTER", "KEYSLOT", key))

    def replica_of(self, master: RedisServer) -> RedisServer:
        name = self.id_of(master)
        for line in self._some().command("CLUSTER", "NODES").splitlines():
            words = line.split()
            if words[3] == name:
                port = int(words[1].partition("@")[0].rpartition(":")[2])
                return next(node for node in self.nodes if node.port == port)
        raise ServerError("it has no replica")

    def everywhere(self, *words: object) -> list[Any]:
        """One command to every master; the answers."""
        return [master.command(*words) for master in self.masters]

    # ---------------------------------------------------------------------------------------------------- what happens

    def begin_move(self, slot: int, target: RedisServer) -> RedisServer:
        """A slot is on its way to another master: clients are sent there for what has moved. Where it was."""
        source = self.owner(slot)
        target.command("CLUSTER", "SETSLOT", slot, "IMPORTING", self.id_of(source))
        source.command("CLUSTER", "SETSLOT", slot, "MIGRATING", self.id_of(target))
        return source

    def move_keys(self, slot: int, source: RedisServer, target: RedisServer, most: int = 1_000_000) -> int:
        """Moves that many of its keys; how many it found."""
        moved = 0
        while moved < most:
            keys = source.command("CLUSTER", "GETKEYSINSLOT", slot, min(100, most - moved))
            if not keys:
                break
            source.command("MIGRATE", self.host, target.port, "", 0, 5000, "KEYS", *[k.encode("latin-1") for k in keys])
            moved += len(keys)
        return moved

    def end_move(self, slot: int, target: RedisServer) -> None:
        name = self.id_of(target)
        for node in sorted(self.masters, key=lambda node: node is not target):  # the new owner first
            node.command("CLUSTER", "SETSLOT", slot, "NODE", name)
        # Two masters that take slots at the same time may take the same epoch, and then nobody knows whose slots are
        # whose, for ever: the next move begins when all have heard of this one.
        _until(self._agrees, "the nodes do not agree on who has which slot")

    def _agrees(self) -> bool:
        views = set()
        for node in self.nodes:
            if node.running:
                lines = [line.split() for line in node.command("CLUSTER", "NODES").splitlines()]
                views.add(str(sorted((words[0], words[6], words[8:]) for words in lines if "master" in words[2])))
        return len(views) == 1

    def move(self, slot: int, target: RedisServer) -> None:
        """Gives a slot with its keys to another master, as `redis-cli --cluster reshard` does."""
        source = self.begin_move(slot, target)
        while self.move_keys(slot, source, target):
            pass
        self.end_move(slot, target)

    def fail_over(self, master: RedisServer) -> RedisServer:
        """In order: its replica takes its place without a loss. Waits for it."""
        replica = self.replica_of(master)
        replica.command("CLUSTER", "FAILOVER")
        return self.failed_over(replica)

    def failed_over(self, replica: RedisServer) -> RedisServer:
        """Waits until this one is a master, and every node that runs says that all slots are served."""

        def is_master() -> bool:
            running = [node for node in self.nodes if node.running]
            return replica.command("ROLE")[0] == "master" and all(
                "cluster_state:ok" in node.command("CLUSTER", "INFO", timeout=0.5)
                and any(master[1] == replica.port for _, _, master, *_ in node.command("CLUSTER", "SLOTS"))
                for node in running
                if node not in self.frozen
            )

        _until(is_master, "no failover")
        return replica

    @property
    def frozen(self) -> list[RedisServer]:
        from stillwarm import _keeper

        return [node for node in self.nodes if any(_keeper.state(pid) == "T" for pid in node.processes())]

    def settled(self) -> None:
        """Until all is well; what was killed is started."""
        for node in self.nodes:
            node.thaw()
            node.start()
        _until(self._is_whole, "the cluster did not become whole")

    def __enter__(self) -> RedisCluster:
        return self
