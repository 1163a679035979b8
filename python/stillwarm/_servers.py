"""A private PostgreSQL for tests, benchmarks and demos: `with PostgresServer() as server: connect(server.url)`.

It lives in a temporary folder and on a free loopback port, runs as an ordinary user also when its owner is root, and is
gone with its owner, however that ends (see `_keeper`). Every process that asks makes its own: with pytest-xdist each
worker has one, so that a test that stops or freezes its server disturbs no other worker.

Thread rule: one thread at a time starts and stops a server; `sql`, `kill`, `freeze`, `thaw` may come from any. In a
child after a fork it can be asked, and the child's end does not end it.
Refuses to know: caches, tiers, and pytest. Standard library alone; psycopg is used where it is installed.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal, NamedTuple

from stillwarm import _ask, _keeper
from stillwarm._server_life import Keeper, Server, ServerError, ServerMissing, free_port, make_folder, spawn

__all__ = [
    "Backend", "Keeper", "PostgresServer", "ServerError", "ServerMissing", "free_port", "initdb", "make_folder",
    "spawn",
]  # fmt: skip

Row = _ask.Row
_SIGNALS: Final = {"fast": signal.SIGINT, "immediate": signal.SIGQUIT}
_QUICK: Final = {"fsync": "off", "full_page_writes": "off", "max_wal_size": "256MB", "min_wal_size": "32MB"}
_SETTINGS: Final = {
    "listen_addresses": "127.0.0.1",
    "max_connections": "200",
    "shared_buffers": "32MB",
    "dynamic_shared_memory_type": "mmap",  # files in the folder: a killed server leaves nothing in /dev/shm
    "timezone": "UTC",
    "log_timezone": "UTC",
}


def binaries() -> Path:
    """The folder with initdb and postgres: $PG_BIN, that of PATH, or the newest of /usr/lib/postgresql.

    Raises:
        ServerMissing: there is none.
    """
    places = [Path(os.environ["PG_BIN"])] if os.environ.get("PG_BIN") else []
    if not places:
        on_path = shutil.which("postgres")
        places = [Path(on_path).resolve().parent] if on_path else []
        versions = Path("/usr/lib/postgresql").glob("[0-9]*")
        places += [version / "bin" for version in sorted(versions, key=lambda path: -int(path.name))]
    for place in places:
        if all(os.access(place / name, os.X_OK) for name in ("initdb", "postgres")):
            return place
    looked = ", ".join(map(str, places)) or "PATH and /usr/lib/postgresql/*/bin"
    raise ServerMissing(f"no PostgreSQL server in {looked}: install the Debian package postgresql, or set PG_BIN")


def initdb(data: Path) -> None:
    """Makes an empty cluster in a folder that does not exist yet; its superuser is `postgres`."""
    options = ["--locale=C", "--encoding=UTF8", "--auth=trust", "--username=postgres", "--no-sync", "--wal-segsize=4"]
    made = spawn(
        [binaries() / "initdb", "-D", data, *options], data.parent, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    output = made.communicate()[0].decode(errors="replace")
    if made.returncode:
        raise ServerError(f"initdb failed:\n{output[-2000:]}")


# --------------------------------------------------------------------------------------------------------- PostgreSQL


class Backend(NamedTuple):
    """A client's connection as the server sees it."""

    pid: int
    database: str | None
    application: str | None
    state: str | None
    query: str | None


class PostgresServer(Server):
    """A PostgreSQL server of this process alone, started when made and removed by `close()` or at the end of a `with`.

    Args:
        durable: what was committed outlives a crash of the machine; otherwise it outlives `kill()`, and is quicker.
        settings: of postgresql.conf, in addition; `ALTER SYSTEM` and `restart()` change them later.
        template: a data folder made by `initdb()` and never started, to copy in place of making one.

    Raises:
        ServerMissing: PostgreSQL is not installed.
        ServerError: it did not start; the text has the end of its log.
    """

    user: Final = "postgres"
    _kind = "PostgreSQL"
    _taken = "could not bind"

    def __init__(
        self, *, durable: bool = False, settings: Mapping[str, str] | None = None, template: Path | None = None
    ) -> None:
        self._bin = binaries()
        self._databases = 0
        super().__init__(make_folder())
        self.socket = self.folder
        self._home = self._data = self.folder / "data"
        try:
            if template is None:
                initdb(self._data)
            else:
                subprocess.run(["cp", "--reflink=auto", "-a", template, self._data], check=True)
            self._settings = {**_SETTINGS, **({} if durable else _QUICK), **(settings or {})}
            self._plain = (self._data / "postgresql.conf").read_text()
            self._first_start()
        except BaseException:
            self.close()
            raise

    def _configure(self) -> None:
        own = {**self._settings, "port": str(self.port), "unix_socket_directories": str(self.socket)}
        own["cluster_name"] = self.socket.name
        lines = [f"{name} = '{value}'" for name, value in own.items()]
        (self._data / "postgresql.conf").write_text("\n".join([self._plain, *lines, ""]))

    # ------------------------------------------------------------------------------------------------ what it is

    @property
    def url(self) -> str:
        """Of the database `postgres`, over TCP."""
        return self.url_of("postgres")

    def url_of(self, database: str) -> str:
        """The URL of a database of this server."""
        return f"postgresql://{self.user}@{self.host}:{self.port}/{database}"

    def backends(self) -> list[Backend]:
        """The clients' connections, without the one that asks."""
        rows = self.sql(
            "SELECT pid, datname, application_name, state, query FROM pg_stat_activity"
            " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() ORDER BY pid"
        )
        return [Backend(int(row[0] or 0), *row[1:]) for row in rows]

    def sql(self, text: str, *params: object, database: str = "postgres", timeout: float = 30.0) -> list[Row]:
        """Runs SQL with parameters $1, $2...; rows of text or None, those of the last statement.

        Raises:
            ServerError: the server refused it, was not there, or took longer than `timeout` seconds.
        """
        return _ask.ask(self._bin, self.url_of(database), text, params, timeout)

    def new_database(self) -> str:
        """Makes an empty database and returns its URL."""
        self._databases += 1
        name = f"warm_{os.getpid()}_{self._databases}"
        self.sql(f'CREATE DATABASE "{name}"')
        return self.url_of(name)

    # -------------------------------------------------------------------------------------------------- its life

    def _command(self) -> list[str | Path]:
        return [self._bin / "postgres", "-D", self._data]

    def _ready(self) -> bool:
        try:
            lines = (self._data / "postmaster.pid").read_text().split("\n")
        except OSError:
            return False
        assert self._program is not None
        return len(lines) > 7 and lines[0] == str(self._program.pid) and lines[7].strip() == "ready"

    def stop(self, mode: Literal["fast", "immediate"] = "fast", timeout: float = 30.0) -> None:
        """Shuts it down: `fast` writes everything out first, `immediate` is a crash with an announcement."""
        if mode not in _SIGNALS:
            raise ValueError(f"mode={mode!r}: accepted: {', '.join(map(repr, _SIGNALS))}")
        self._end(_SIGNALS[mode], timeout)

    def restart(self, mode: Literal["fast", "immediate"] = "fast") -> None:
        """Stops and starts it; the port stays."""
        self.stop(mode)
        self.start()

    def kill(self) -> None:
        """SIGKILL to all its processes at once, as a crash of the machine would; none is left when it returns."""
        super().kill()
        _keeper.release_memory(str(self._data / "postmaster.pid"))

    def close(self) -> None:
        """Stops it and removes its folder; nothing is left. In a child after a fork it does nothing."""
        if self._owner == os.getpid():
            self.stop("immediate", timeout=5.0)
        super().close()

    def __repr__(self) -> str:
        return f"<PostgresServer {self.url}{'' if self.running else ' stopped'}>"
