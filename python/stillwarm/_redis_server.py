"""A private Redis for tests, benchmarks and demos: `with RedisServer() as server: connect(server.url)`.

It lives in a temporary folder and on a free loopback port, runs as an ordinary user also when its owner is root, and is
gone with its owner, however that ends (see `_keeper`).

Thread rule: one thread at a time starts and stops a server; `command`, `kill`, `freeze`, `thaw` may come from any. In a
child after a fork it can be asked, and the child's end does not end it.
Refuses to know: caches, tiers, and pytest. Standard library alone.
"""

from __future__ import annotations

import itertools
import os
import shutil
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from stillwarm._ask_redis import ask_redis
from stillwarm._redis_tls import RedisTls
from stillwarm._server_life import Server, ServerError, ServerMissing, make_folder

__all__ = ["RedisServer", "redis_program"]

_PROGRAMS: Final = ("redis-server", "valkey-server")
_SETTINGS: Final = {
    "bind": "127.0.0.1",
    "set-proc-title": "no",  # the keeper knows a process by its arguments
    "save": '""',
    "appendonly": "no",
    "databases": "4096",
    "daemonize": "no",
    "protected-mode": "no",
}


def redis_program() -> Path:
    """The server's program: $REDIS_SERVER, or redis-server or valkey-server in PATH.

    Raises:
        ServerMissing: there is none.
    """
    given = os.environ.get("REDIS_SERVER")
    for name in [given] if given else _PROGRAMS:
        found = shutil.which(name)
        if found is not None:
            return Path(found)
    looked = given or f"{' and '.join(_PROGRAMS)} in PATH"
    raise ServerMissing(f"no Redis server ({looked}): install the Debian package redis-server, or set REDIS_SERVER")


def _with_tls(tls: RedisTls | None) -> dict[str, str]:
    """Also between the servers of a group. They are clients of each other, and show each other the same certificate."""
    if tls is None:
        return {}
    return {
        "tls-cert-file": tls.certificate,
        "tls-key-file": tls.key or tls.certificate,
        "tls-ca-cert-file": tls.authorities,
        "tls-auth-clients": "optional",
        "tls-replication": "yes",
        "tls-cluster": "yes",
    }


class RedisServer(Server):
    """A Redis server of this process alone, started when made and removed by `close()` or at the end of a `with`.

    Args:
        durable: what was written is there again after `kill()`; otherwise a restart begins empty.
        settings: of redis.conf, in addition; `command("CONFIG", "SET", ...)` changes them later.
        tls: it speaks TLS alone, with this certificate, and its URLs name these authorities.

    Raises:
        ServerMissing: Redis is not installed.
        ServerError: it did not start; the text has the end of its log.
    """

    _kind = "Redis"
    _taken = "in use"

    def __init__(
        self, *, durable: bool = False, settings: Mapping[str, str] | None = None, tls: RedisTls | None = None
    ) -> None:
        self._program_path = redis_program()
        self._databases = itertools.count(1)
        super().__init__(make_folder("warm-rd"))
        self.password = (settings or {}).get("requirepass")
        self.tls = tls
        own = {"appendonly": "yes", "appendfsync": "everysec"} if durable else {}
        self._settings = {**_SETTINGS, **own, **_with_tls(tls), "dir": str(self.folder), **(settings or {})}
        try:
            self._first_start()
        except BaseException:
            self.close()
            raise

    # ------------------------------------------------------------------------------------------------ what it is

    @property
    def url(self) -> str:
        """Of database 0, over TCP."""
        return self.url_of(0)

    @property
    def socket(self) -> Path:
        """Its Unix socket."""
        return self.folder / "socket"

    def url_of(self, database: int) -> str:
        """The URL of a database of this server, by its number."""
        user = f":{self.password}@" if self.password else ""
        if self.tls is None:
            return f"redis://{user}{self.host}:{self.port}/{database}"
        return f"rediss://{user}{self.host}:{self.port}/{database}?{self.tls.text}"

    def new_database(self) -> str:
        """The URL of a database that nobody has used."""
        return self.url_of(next(self._databases))

    def command(self, *words: object, database: int = 0, timeout: float = 5.0) -> Any:
        """Runs one command; its answer: str (bytes as latin-1), int, None, or a list of these.

        Raises:
            ServerError: the server refused it, was not there, or took longer than `timeout` seconds.
        """
        commands: list[tuple[object, ...]] = [("SELECT", database)] if database else []
        tls = self.tls
        if tls is not None and self._settings["tls-auth-clients"] != "yes":
            tls = tls._replace(certificate="", key="")  # nobody asks us for one
        return ask_redis((self.host, self.port), [*commands, words], timeout, self.password, tls)[-1]

    # -------------------------------------------------------------------------------------------------- its life

    def _command(self) -> list[str | Path]:
        ports = {"port": str(self.port)} if self.tls is None else {"port": "0", "tls-port": str(self.port)}
        settings = {**self._settings, **ports, "unixsocket": str(self.socket)}
        path = self.folder / "redis.conf"
        path.write_text("".join(f"{name} {value}\n" for name, value in settings.items()))
        path.chmod(0o666)  # the server's user is another, and a cluster's or a sentinel's is written by it
        return [self._program_path, path, *self._arguments()]

    def _arguments(self) -> list[str]:
        return []

    def _ready(self) -> bool:
        try:
            return bool(self.command("PING", timeout=1.0) == "PONG")
        except ServerError as error:
            return str(error).startswith(("NOAUTH", "WRONGPASS"))

    def stop(self, timeout: float = 30.0) -> None:
        """Shuts it down in order."""
        self._end(signal.SIGTERM, timeout)

    def restart(self) -> None:
        """Stops and starts it; the port stays. Without `durable` it is empty then."""
        self.stop()
        self.start()

    def __repr__(self) -> str:
        return f"<RedisServer {self.host}:{self.port}{'' if self.running else ' stopped'}>"
