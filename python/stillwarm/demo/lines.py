"""Keeps the log lines that an operator would find, for a story to show, in place of the terminal.

Thread rule: any thread, as logging.
Refuses to know: who writes them.
"""

from __future__ import annotations

import logging


class Lines(logging.Handler):
    """The last hundred lines of the logger "stillwarm", from `level` on. `end` ends it."""

    def __init__(self, level: int = logging.WARNING) -> None:
        super().__init__(level)
        self.lines: list[str] = []
        logging.getLogger("stillwarm").addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())
        del self.lines[:-100]

    def end(self) -> None:
        logging.getLogger("stillwarm").removeHandler(self)


__all__ = ["Lines"]
