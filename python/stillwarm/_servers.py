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
import pwd
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, NamedTuple

from stillwarm import _ask, _keeper

__all__ = ["Backend", "Keeper", "PostgresServer", "ServerError", "ServerMissing", "free_port", "initdb", "spawn"]

ServerError = _ask.ServerError
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


class ServerMissing(ServerError):
    """The server's programs are not installed; the text names the Debian package."""


# ------------------------------------------------------------------------------------------- folders, users, programs


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


def servant() -> pwd.struct_passwd | None:
    """The user that servers of root run as: postgres or nobody. None when we are not root: as ourselves."""
    if os.geteuid() != 0:
        return None
    users = {user.pw_name: user for user in pwd.getpwall()}
    user = users.get("postgres") or users.get("nobody")
    if user is None:
        raise ServerError("root runs no server itself, and there is neither a user postgres nor nobody")
    return user


def make_folder(name: str = "warm-pg") -> Path:
    """A new folder of the servant, which can reach it (TMPDIR may be root's alone); short enough for sockets."""
    user = servant()
    place = Path(tempfile.gettempdir()).resolve()
    closed = user is not None and any(not path.stat().st_mode & 0o001 for path in (place, *place.parents))
    if closed or len(str(place)) > 60:
        place = Path("/tmp")
    folder = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=place))
    if user is not None:
        os.chown(folder, user.pw_uid, user.pw_gid)
    return folder


def spawn(command: Sequence[str | Path], folder: Path, **more: Any) -> subprocess.Popen[bytes]:
    """Starts a program as the servant, in a session and with an environment of its own."""
    env = {**_ask.environment(), "HOME": str(folder), "TMPDIR": str(folder)}
    user = servant()
    if user is not None:
        more.update(user=user.pw_uid, group=user.pw_gid, extra_groups=[])
    return subprocess.Popen(
        command, cwd=folder, env=env, stdin=subprocess.DEVNULL, start_new_session=True, close_fds=True, **more
    )


def free_port() -> int:
    """A loopback port that was free, out of the range that outgoing connections take theirs from."""
    for _ in range(200):
        port = random.SystemRandom().randrange(20000, 32000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise ServerError("no free loopback port between 20000 and 32000")


class Keeper:
    """Keeps a folder and the processes started from it; both are gone after `close()`, or with this process."""

    def __init__(self, folder: Path) -> None:
        self._owner = os.getpid()
        self._program = subprocess.Popen(
            [sys.executable, "-I", "-S", _keeper.__file__, str(self._owner)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env=_ask.environment(),
            start_new_session=True,
        )
        assert self._program.stdin is not None
        self._program.stdin.write(os.fsencode(folder) + b"\n")
        self._program.stdin.flush()

    def close(self) -> None:
        if self._owner == os.getpid() and self._program.stdin is not None:
            self._program.stdin.close()
            self._program.wait()


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


class PostgresServer:
    """A PostgreSQL server of this process alone, started when made and removed by `close()` or at the end of a `with`.

    Args:
        durable: what was committed outlives a crash of the machine; otherwise it outlives `kill()`, and is quicker.
        settings: of postgresql.conf, in addition; `ALTER SYSTEM` and `restart()` change them later.
        template: a data folder made by `initdb()` and never started, to copy in place of making one.

    Raises:
        ServerMissing: PostgreSQL is not installed.
        ServerError: it did not start; the text has the end of its log.
    """

    host: Final = "127.0.0.1"
    user: Final = "postgres"

    def __init__(
        self, *, durable: bool = False, settings: Mapping[str, str] | None = None, template: Path | None = None
    ) -> None:
        self._bin = binaries()
        self._program: subprocess.Popen[bytes] | None = None
        self._databases = 0
        self._owner = os.getpid()
        self.socket = make_folder()
        self.port = 0
        self._data = self.socket / "data"
        self._keeper = Keeper(self.socket)
        try:
            if template is None:
                initdb(self._data)
            else:
                subprocess.run(["cp", "--reflink=auto", "-a", template, self._data], check=True)
            self._settings = {**_SETTINGS, **({} if durable else _QUICK), **(settings or {})}
            self._first_start()
        except BaseException:
            self.close()
            raise

    def _first_start(self) -> None:
        plain = (self._data / "postgresql.conf").read_text()
        for _ in range(10):  # another process may take the port between our look and the server's
            self.port = free_port()
            own = {**self._settings, "port": str(self.port), "unix_socket_directories": str(self.socket)}
            own["cluster_name"] = self.socket.name
            lines = [f"{name} = '{value}'" for name, value in own.items()]
            (self._data / "postgresql.conf").write_text("\n".join([plain, *lines, ""]))
            try:
                return self.start()
            except ServerError as error:
                if "could not bind" not in str(error):
                    raise
        raise ServerError("ten free ports were taken before the server had them")

    # ------------------------------------------------------------------------------------------------ what it is

    @property
    def url(self) -> str:
        """Of the database `postgres`, over TCP."""
        return self.url_of("postgres")

    def url_of(self, database: str) -> str:
        """The URL of a database of this server."""
        return f"postgresql://{self.user}@{self.host}:{self.port}/{database}"

    @property
    def log(self) -> str:
        """What the server wrote so far."""
        path = self.socket / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    @property
    def running(self) -> bool:
        """Whether its main process is there, be it frozen."""
        return self._program is not None and self._program.poll() is None

    def processes(self) -> list[int]:
        """The process ids of the server: main process, backends, helpers; not those of its clients."""
        return _keeper.processes(str(self._data), self.socket.name)

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

    def start(self, timeout: float = 60.0) -> None:
        """Starts it and waits until it answers, on the same port as before; nothing when it runs already."""
        if self.running:
            return
        with open(self.socket / "log", "ab") as log:
            before = log.tell()
            self._program = spawn(
                [self._bin / "postgres", "-D", self._data], self.socket, stdout=log, stderr=subprocess.STDOUT
            )
        deadline = time.monotonic() + timeout
        while not self._ready():
            if self._program.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise ServerError(f"PostgreSQL did not start:\n{self.log[before:][-2000:]}")
            time.sleep(0.005)

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
        program = self._program
        if program is None or program.poll() is not None:
            return self.kill()
        self.thaw()
        program.send_signal(_SIGNALS[mode])
        try:
            program.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()

    def restart(self, mode: Literal["fast", "immediate"] = "fast") -> None:
        """Stops and starts it; the port stays."""
        self.stop(mode)
        self.start()

    def kill(self) -> None:
        """SIGKILL to all its processes at once, as a crash of the machine would; none is left when it returns."""
        _keeper.kill(str(self._data), self.socket.name)
        if self._program is not None and self._owner == os.getpid():
            self._program.wait()
        _keeper.release_memory(str(self._data / "postmaster.pid"))

    def freeze(self) -> None:
        """SIGSTOP to all its processes: the kernel still accepts connections, and nobody answers. See `thaw`."""
        while moving := [pid for pid in self.processes() if _keeper.state(pid) not in ("T", "Z", "")]:
            _keeper.send(moving, signal.SIGSTOP)
            time.sleep(0.002)

    def thaw(self) -> None:
        """SIGCONT to all its processes."""
        _keeper.send(self.processes(), signal.SIGCONT)

    def close(self) -> None:
        """Stops it and removes its folder; nothing is left. In a child after a fork it does nothing."""
        if self._owner != os.getpid():
            return
        self.stop("immediate", timeout=5.0)
        self._keeper.close()

    def __enter__(self) -> PostgresServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<PostgresServer {self.url}{'' if self.running else ' stopped'}>"
