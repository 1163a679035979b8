"""How late a thread of this process wakes up: what a busy machine adds to every wait.

Thread rule: a Lateness has a thread of its own; asked from any.
Refuses to know: what is measured beside it.
"""

from __future__ import annotations

import threading
import time


class Lateness:
    """How late a thread of this process wakes up: what a busy machine adds to every wait."""

    STEP = 0.01

    def __init__(self) -> None:
        self._late: list[tuple[float, float]] = []  # (moment, s)
        self._stop = threading.Event()
        threading.Thread(target=self._run, daemon=True).start()

    def during(self, began: float, ended: float) -> float:
        """Of all waking that falls into this time, and of the one that follows."""
        return sum(late for moment, late in list(self._late) if began <= moment and moment - late <= ended)

    def close(self) -> None:
        self._stop.set()

    def _run(self) -> None:
        while not self._stop.is_set():
            began = time.monotonic()
            self._stop.wait(self.STEP)
            now = time.monotonic()
            if now - began - self.STEP > 0.002:
                self._late.append((now, now - began - self.STEP))
                del self._late[:-500]


__all__ = ["Lateness"]
