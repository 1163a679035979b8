"""What tests of `gather` and `agather` share: a gate, and that all threads are given back.

Thread rule: fixtures belong to their test.
Refuses to know: what is gathered.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from stillwarm import _parallel

LONG = 20  # s; what a test that hangs waits


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """Opened at the end at the latest, so that no thread stays."""
    opens = threading.Event()
    yield opens
    opens.set()


@pytest.fixture(autouse=True)
def threads_end() -> Iterator[None]:
    """After each test all threads are given back."""
    yield
    for _ in range(2000):
        if not [thread for thread in threading.enumerate() if thread.name == "stillwarm-gather"]:
            break
        threading.Event().wait(0.005)
    else:
        raise AssertionError("a thread of a gather never ended")
    assert _parallel._free._value == _parallel.MOST  # type: ignore[attr-defined]


def notes(error: BaseException) -> list[str]:
    return list(getattr(error, "__notes__", []))
