"""Two gunicorn masters with one worker each, so that a request can choose the process that answers it.

Thread rule: `Workers` belongs to the driver's thread; `ask` comes from any thread, with connections of its own.
Refuses to know: what is asked.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from reliability import children

PATIENCE = 60.0  # s for a worker to come up on a busy machine
LONGEST_ANSWER = 40.0  # s, above every deadline; whoever waits longer hangs

Gone = (OSError, http.client.HTTPException)


class Workers:
    """Started when made, gone with `close`."""

    def __init__(self, job: dict[str, Any], log: Path, count: int = 2) -> None:
        self.ports: list[int] = []
        self._lives = [0] * count  # connections of an earlier one lead nowhere
        self._masters: list[subprocess.Popen[bytes]] = []
        self._own = threading.local()
        paths = os.pathsep.join([str(children.PACKAGE), str(children.TESTS)])
        try:
            for _ in range(count):
                with socket.create_server(("127.0.0.1", 0), backlog=256) as listener:
                    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    fd = listener.fileno()
                    self.ports.append(listener.getsockname()[1])
                    command = [sys.executable, "-m", "reliability.soak_app", json.dumps({**job, "fd": fd})]
                    with open(log, "ab") as errors:
                        environment = dict(os.environ, PYTHONPATH=paths, PYTHONFAULTHANDLER="1")
                        self._masters.append(subprocess.Popen(command, env=environment, pass_fds=[fd], stderr=errors))
            for worker in range(count):
                self.wait(worker)
        except BaseException:
            self.close()
            raise

    def born_again(self, worker: int, pid: int) -> None:
        """Waits until another process than this one, which was killed, answers; nobody uses its connections again."""
        self._lives[worker] += 1
        self.wait(worker, not_pid=pid)
        self._lives[worker] += 1  # the queue of the listener is the master's; what was accepted by the dead one is not

    def wait(self, worker: int, not_pid: int = 0) -> dict[str, Any]:
        """Until it answers, and is not this process any more; its state."""
        deadline = time.monotonic() + PATIENCE
        while True:
            with contextlib.suppress(*Gone):
                state: dict[str, Any] = self.ask(worker, "GET", "/state")
                if state["pid"] != not_pid:
                    return state
            if time.monotonic() > deadline:
                raise TimeoutError(f"worker {worker} did not come up")
            time.sleep(0.02)

    def ask(self, worker: int, method: str, path: str) -> Any:
        """The JSON of an answer. Raises `Gone` where there is none, ValueError for one that is no JSON."""
        known: dict[int, tuple[int, http.client.HTTPConnection]] = self._own.__dict__.setdefault("connections", {})
        life, connection = known.get(worker, (-1, None))
        if connection is None or life != self._lives[worker]:
            if connection is not None:
                connection.close()
            connection = http.client.HTTPConnection("127.0.0.1", self.ports[worker], timeout=LONGEST_ANSWER)
            known[worker] = (self._lives[worker], connection)
        try:
            connection.request(method, path)
            answer = connection.getresponse()
            body = answer.read()
        except BaseException:
            connection.close()
            del known[worker]
            raise
        if answer.status != 200:
            raise ValueError(f"{answer.status} {body[:200]!r}")
        return json.loads(body)

    def let_go(self) -> None:
        """Closes this thread's connections."""
        for _, connection in self._own.__dict__.pop("connections", {}).values():
            connection.close()

    def close(self) -> None:
        self.let_go()
        for master in self._masters:
            master.terminate()
        for master in self._masters:
            try:
                master.wait(10)
            except subprocess.TimeoutExpired:  # noqa: PERF203  # each for itself
                master.kill()
                master.wait()
