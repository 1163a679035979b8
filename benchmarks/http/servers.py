"""Servers as processes of their own, each on a free port, and how much CPU time its worker used.

Thread rule: one thread. Refuses to know: what is asked of them.
"""

from __future__ import annotations

import socket
import subprocess
import sys
from http.client import HTTPConnection
from pathlib import Path
from types import TracebackType

PATIENCE = 60.0  # s for a server to come up on a busy machine


class Server:
    """One app under one worker of `kind`: "sync" or "gthread" of gunicorn, or "uvicorn". A context manager."""

    def __init__(self, kind: str, app: str) -> None:
        self.kind, self.app = kind, app
        with socket.create_server(("127.0.0.1", 0), backlog=1_024) as listener:
            # As gunicorn and uvicorn do it; here already, for connections that come before they are up.
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.port = listener.getsockname()[1]
            program = [sys.executable, str(Path(__file__).with_name("serve.py")), kind, app, str(listener.fileno())]
            # The socket listens already: whoever connects early waits for the worker.
            self._process = subprocess.Popen(program, pass_fds=[listener.fileno()])

    def __enter__(self) -> Server:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def connect(self) -> HTTPConnection:
        return HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)

    def get(self, path: str) -> tuple[int, dict[str, str], bytes]:
        """Status, header fields by lower-case name, body; over a connection of its own."""
        connection = self.connect()
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    def cpu_seconds(self) -> float:
        """CPU time of the worker's main thread so far."""
        pid = self._process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return int(Path(f"/proc/{children[0] if children else pid}/schedstat").read_text().split()[0]) / 1e9
