"""A pseudo-terminal with a program in it: what it shows, and keys to press.

Thread rule: one thread.
Refuses to know: which program.
"""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from types import TracebackType

PATIENCE = 60.0
CTRL_C, CTRL_D = b"\x03", b"\x04"
# The terminal becomes the program's own, so that Ctrl-C in it is a signal.
_OWN = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"


class Terminal:
    """The program; `with` ends it."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self.shown = b""
        self._from = 0  # what was waited for already
        self._leader, follower = pty.openpty()
        self._program = subprocess.Popen(
            [sys.executable, "-c", _OWN, *command],
            stdin=follower,
            stdout=follower,
            stderr=follower,
            env=environment,
            start_new_session=True,
        )
        os.close(follower)

    def press(self, keys: bytes) -> None:
        os.write(self._leader, keys)

    def line(self, text: str) -> None:
        self.press(text.encode() + b"\r")

    def see(self, text: str) -> bytes:
        """Waits until the text is there, after what was seen before; what stands before it."""
        wanted, deadline = text.encode(), time.monotonic() + PATIENCE
        while (at := self.shown.find(wanted, self._from)) < 0:
            assert time.monotonic() < deadline, f"{text!r} did not come: {self.shown[self._from :]!r}"
            assert self._read(1.0), f"it ended before {text!r}: {self.shown[self._from :]!r}"
        before, self._from = self.shown[self._from : at], at + len(wanted)
        return before

    def end(self) -> int:
        """Reads until the program has ended; its exit code."""
        deadline = time.monotonic() + PATIENCE
        while self._read(1.0):
            assert time.monotonic() < deadline, f"it does not end: {self.rest!r}"
        return self._program.wait(PATIENCE)

    @property
    def rest(self) -> bytes:
        return self.shown[self._from :]

    def _read(self, seconds: float) -> bool:
        if not select.select([self._leader], [], [], seconds)[0]:
            return True
        try:
            chunk = os.read(self._leader, 65536)
        except OSError:  # a terminal whose other side is closed says so
            return False
        self.shown += chunk
        return bool(chunk)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._program.kill()
        self._program.wait()
        os.close(self._leader)


__all__ = ["CTRL_C", "CTRL_D", "Terminal"]
