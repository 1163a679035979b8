"""What is left of a private server when its owner is gone: no process, no folder, no shared memory.

Run as a program (by `_server_life`) it waits until the pipe to its owner is closed, or until the owner's process has
ended in whatever way, SIGKILL included. A process belongs to a folder when its command line names it: to read that
needs no right over the process, which root does not have in every container.

Thread rule: functions of plain data; the program has one thread.
Refuses to know: stillwarm. It starts in a few milliseconds because it imports next to nothing.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import sys
import time

__all__ = ["destroy", "kill", "processes", "release_memory", "send", "state"]


def processes(path: str, name: str) -> list[int]:
    """The processes with an argument at or below this path, or with the title of a backend of cluster_name=`name`.

    Without the caller, and without zombies, who have no arguments.
    """
    inside, own, title = os.fsencode(path), os.getpid(), b"postgres: " + os.fsencode(name) + b": "
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) == own:
            continue
        try:
            with open(f"/proc/{entry}/cmdline", "rb") as file:
                words = file.read().split(b"\0")
        except OSError:
            continue  # it has ended
        if words[0].startswith(title) or any(word == inside or word.startswith(inside + b"/") for word in words):
            found.append(int(entry))
    return found


def state(pid: int) -> str:
    """The letter that the kernel has for it: R, S, D, T (stopped), Z; empty when it has ended."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def send(pids: list[int], number: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def kill(path: str, name: str) -> None:
    """SIGKILL to all that `processes` finds, until none is left and the last has let go of its sockets and memory."""
    sent: set[int] = set()
    while True:
        left = processes(path, name)
        send(left, signal.SIGKILL)
        sent.update(left)
        if not left and all(state(pid) in ("", "Z", "X") for pid in sent):
            return
        time.sleep(0.002)


def destroy(folder: str) -> None:
    """Kills what runs from this folder and removes it. A second time is harmless."""
    kill(folder, os.path.basename(folder))
    release_memory(os.path.join(folder, "data", "postmaster.pid"))
    for _ in range(5):  # a file may come into being while the folder is read
        shutil.rmtree(folder, ignore_errors=True)
        if not os.path.exists(folder):
            return
        time.sleep(0.05)


def release_memory(pid_file: str) -> None:
    """A PostgreSQL that was killed leaves a System V segment of a few bytes; its seventh line says which."""
    try:
        with open(pid_file) as file:
            segment = int(file.read().split("\n")[6].split()[1])
    except (OSError, IndexError, ValueError):
        return
    import ctypes  # rarely needed

    ctypes.CDLL(None).shmctl(segment, 0, None)  # 0: IPC_RMID
    os.unlink(pid_file)


def main() -> None:
    owner = int(sys.argv[1])
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    folder = sys.stdin.readline().rstrip("\n")  # not an argument, which would make the keeper belong to the folder
    waits = select.poll()
    waits.register(0, select.POLLIN | select.POLLHUP)
    try:
        waits.register(os.pidfd_open(owner), select.POLLIN)  # the pipe alone is not enough: a forked child may hold it
    except (OSError, AttributeError):
        pass  # an old kernel; or the owner is gone already, and with it the other end of the pipe
    waits.poll()
    if folder:
        destroy(folder)


if __name__ == "__main__":
    main()
