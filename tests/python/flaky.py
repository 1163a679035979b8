"""A function that fails so often and then answers.

Thread rule: any thread.
Refuses to know: who calls it.
"""

from __future__ import annotations

import asyncio
import re
from typing import Any


class Source:
    """Fails so often, then answers with what it was given."""

    def __init__(self, failures: int = 0, error: type[Exception] = ConnectionError) -> None:
        self.failures = failures
        self.error = error
        self.calls = 0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.calls += 1
        if self.calls <= self.failures:
            raise self.error(f"failure {self.calls}")
        return args, kwargs

    async def later(self, *args: Any, **kwargs: Any) -> Any:
        await asyncio.sleep(0)
        return self(*args, **kwargs)


def ending(error: BaseException) -> str:
    """What a retry's one note on an error says, but for the time it took: `3 attempts; stopped: retries exhausted`."""
    (note,) = getattr(error, "__notes__", [""])
    said = re.fullmatch(r"stillwarm: (\d+ attempts?) in \d+\.\d\d s(; stopped: .+)", note)
    assert said, note
    return said[1] + said[2]
