"""Programs of tests/python/isolated in a process of their own, under a watchdog.

Thread rule: any thread.
Refuses to know: what the programs do.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import stillwarm

TESTS = Path(__file__).resolve().parent.parent
PACKAGE = Path(stillwarm.__file__).resolve().parent.parent  # the child tests what the parent imported


@dataclass(frozen=True)
class Ended:
    code: int
    output: str
    errors: str
    after_last_line: float  # s between the program's "end <monotonic>" line and its end
    late: float = 0.0  # s of these that the machine was late, where somebody looked

    @property
    def ok(self) -> bool:
        return self.code == 0

    def __str__(self) -> str:
        return f"exit code {self.code}\n{self.output}\n{self.errors}"


def hear_ctrl_c() -> None:
    """From here on, also where whoever started this ignores it, as a shell does for what it runs in the background."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def run(program: str, *arguments: object, watchdog: float = 60.0) -> Ended:
    """Runs isolated/<program>.py. A child that the watchdog had to end has code -SIGABRT and its stacks in `errors`."""
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join([str(PACKAGE), str(TESTS)]), PYTHONFAULTHANDLER="1")
    command = [sys.executable, str(TESTS / "isolated" / f"{program}.py"), *map(str, arguments)]
    child = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        output, errors = child.communicate(timeout=watchdog)
    except subprocess.TimeoutExpired:
        child.send_signal(signal.SIGABRT)  # faulthandler prints every thread's stack
        output, errors = child.communicate()
        errors = f"hung for {watchdog:g} s\n{errors}"
    now = time.monotonic()
    last = output.rsplit("end ", 1)
    return Ended(child.returncode, output, errors, now - float(last[1]) if len(last) == 2 else float("nan"))
