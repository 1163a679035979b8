"""A server's process: one worker with one app, on a listening socket that it was given.

    python serve.py sync|gthread|uvicorn <name in apps.MAKERS> <file descriptor>

Ends with whoever started it. Refuses to know: who asks.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sys
from typing import Any

from apps import MAKERS

PR_SET_PDEATHSIG = 1
THREADS = 1_024


def under_gunicorn(kind: str, name: str, fd: int) -> None:
    from gunicorn.app.base import BaseApplication

    class One(BaseApplication):  # type: ignore[misc]
        def load_config(self) -> None:
            options: dict[str, Any] = {
                "bind": f"fd://{fd}",
                "workers": 1,
                "worker_class": kind,
                "graceful_timeout": 1,
                "loglevel": "error",
                "backlog": 2_048,
                "control_socket_disable": True,
            }
            if kind == "gthread":
                options |= {"threads": THREADS, "worker_connections": 2 * THREADS, "keepalive": 60}
            for option, value in options.items():
                if option in self.cfg.settings:
                    self.cfg.set(option, value)

        def load(self) -> Any:
            return MAKERS[name]()

    One().run()


def under_uvicorn(name: str, fd: int) -> None:
    import uvicorn

    # No access log: gunicorn writes none by default either.
    config = uvicorn.Config(
        MAKERS[name](), http="httptools", loop="uvloop", log_level="error", access_log=False, backlog=2_048
    )
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=fd)])


def main() -> None:
    kind, name, fd = sys.argv[1], sys.argv[2], int(sys.argv[3])
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() == 1:
        return
    if kind == "uvicorn":
        under_uvicorn(name, fd)
    else:
        under_gunicorn(kind, name, fd)


if __name__ == "__main__":
    main()
