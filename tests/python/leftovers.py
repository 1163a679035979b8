"""What is left of a private server: its folder, its processes, its shared memory.

Thread rule: none.
Refuses to know: how it was ended.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stillwarm import _keeper
from stillwarm._servers import PostgresServer


def eventually(check: Callable[[], Any], what: str) -> Any:
    """What `check` gives once it is true; for what another process does, a bounded number of looks."""
    for _ in range(2000):
        if found := check():
            return found
        time.sleep(0.01)
    raise AssertionError(what)


def traces(folder: str) -> list[object]:
    """What is left of the server in this folder."""
    there: list[object] = [folder] if os.path.exists(folder) else []
    return there + [pid for pid in _keeper.processes(folder, os.path.basename(folder)) if _keeper.state(pid) != "Z"]


def segments() -> set[str]:
    """The System V segments of the machine."""
    return {line.split()[1] for line in Path("/proc/sysvipc/shm").read_text().splitlines()[1:]}


def segment_of(server: PostgresServer) -> str:
    return (server.socket / "data" / "postmaster.pid").read_text().split("\n")[6].split()[1]
