"""What private servers for tests, benchmarks and demos have in common: a folder, a user, a port, a life, and an end.

A server lives in a temporary folder and on a free loopback port, runs as an ordinary user also when its owner is root,
and is gone with its owner, however that ends (see `_keeper`).

Thread rule: one thread at a time starts and stops a server; `kill`, `freeze`, `thaw` may come from any. In a child
after a fork it can be asked, and the child's end does not end it.
Refuses to know: which server it is (_servers, _redis_server). Standard library alone.
"""

from __future__ import annotations

import os
import pwd
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Final

from stillwarm import _ask, _keeper

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Keeper", "Server", "ServerError", "ServerMissing", "free_port", "make_folder", "servant", "spawn"]

ServerError = _ask.ServerError


class ServerMissing(ServerError):
    """The server's programs are not installed; the text names the Debian package."""


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


class Server:
    """What private servers have in common: a folder, a port, a main process, and an end with their owner.

    A kind of server says how it is started (`_command`), when it answers (`_ready`), and how it is stopped.
    """

    host: Final = "127.0.0.1"
    _kind: ClassVar[str]
    _taken: ClassVar[str]  # what its log says where another process has the port

    def __init__(self, folder: Path) -> None:
        self._program: subprocess.Popen[bytes] | None = None
        self._owner = os.getpid()
        self._home = folder  # by which the keeper knows its processes
        self.folder = folder
        self.port = 0
        self._keeper = Keeper(folder)

    def _command(self) -> list[str | Path]:
        raise NotImplementedError

    def _ready(self) -> bool:
        raise NotImplementedError

    def _configure(self) -> None:
        """Before the first start, for `port`."""

    def _first_start(self) -> None:
        for _ in range(10):  # another process may take the port between our look and the server's
            self.port = free_port()
            self._configure()
            try:
                return self.start()
            except ServerError as error:
                if self._taken not in str(error):
                    raise
        raise ServerError("ten free ports were taken before the server had them")

    @property
    def log(self) -> str:
        """What the server wrote so far."""
        path = self.folder / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    @property
    def running(self) -> bool:
        """Whether its main process is there, be it frozen."""
        return self._program is not None and self._program.poll() is None

    def processes(self) -> list[int]:
        """The process ids of the server: main process, backends, helpers; not those of its clients."""
        return _keeper.processes(str(self._home), self.folder.name)

    def start(self, timeout: float = 60.0) -> None:
        """Starts it and waits until it answers, on the same port as before; nothing when it runs already."""
        if self.running:
            return
        command = self._command()
        with open(self.folder / "log", "ab") as log:
            before = log.tell()
            self._program = spawn(command, self.folder, stdout=log, stderr=subprocess.STDOUT)
        deadline = time.monotonic() + timeout
        while not self._ready():
            if self._program.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise ServerError(f"{self._kind} did not start:\n{self.log[before:][-2000:]}")
            time.sleep(0.005)

    def _end(self, number: int, timeout: float) -> None:
        """Asks the main process to end, by a signal; kills what does not."""
        program = self._program
        if program is None or program.poll() is not None:
            return self.kill()
        self.thaw()
        program.send_signal(number)
        try:
            program.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """SIGKILL to all its processes at once, as a crash of the machine would; none is left when it returns."""
        _keeper.kill(str(self._home), self.folder.name)
        if self._program is not None and self._owner == os.getpid():
            self._program.wait()

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
        self.kill()
        self._keeper.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
