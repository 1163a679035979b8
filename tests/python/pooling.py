"""PgBouncer in front of a server, in transaction mode: a connection's next transaction may run in another session.

Thread rule: as `PostgresServer`.
Refuses to know: what is asked through it.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time

from stillwarm._servers import Keeper, ServerError, ServerMissing, free_port, make_folder, spawn

CONFIG = """
[databases]
* = host=127.0.0.1 port={target} user=postgres
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
auth_type = any
unix_socket_dir =
pool_mode = {mode}
default_pool_size = {size}
max_client_conn = 500
"""


class PgBouncer:
    """A private pooler of the databases of the server at port `target`, removed by `close()` or with this process."""

    def __init__(self, target: int, *, size: int = 2, mode: str = "transaction") -> None:
        program = shutil.which("pgbouncer", path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"]))
        if program is None:
            raise ServerMissing("no pgbouncer in PATH and /usr/sbin: install the Debian package pgbouncer")
        folder = make_folder("warm-pb")
        self._program: subprocess.Popen[bytes] | None = None
        self._keeper = Keeper(folder)
        try:
            for _ in range(10):  # the port may be taken between the look and the use
                self.port = free_port()
                config = folder / "pgbouncer.ini"
                config.write_text(CONFIG.format(target=target, port=self.port, size=size, mode=mode))
                with open(folder / "log", "wb") as log:
                    self._program = spawn([program, config], folder, stdout=log, stderr=subprocess.STDOUT)
                if self._answers():
                    return
            raise ServerError(f"pgbouncer did not start:\n{(folder / 'log').read_text()[-2000:]}")
        except BaseException:
            self.close()
            raise

    def _answers(self) -> bool:
        assert self._program is not None
        while self._program.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return True
            time.sleep(0.005)
        return False

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def close(self) -> None:
        self._keeper.close()
        if self._program is not None:
            self._program.wait()
