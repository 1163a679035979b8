"""The documentation's table (python/docs/redis.md) of what callers get while Redis is of no use is what happens.

Thread rule: a server of its own for each column.
Refuses to know: how it is observed (degraded.py).
"""

from __future__ import annotations

from pathlib import Path

import pytest

import degraded

pytestmark = pytest.mark.servers
PAGE = Path(__file__).parents[2] / "python" / "docs" / "redis.md"


def columns() -> dict[str, dict[str, str]]:
    """What the page says, by kind of trouble and verb."""
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("|")]
    head = next(n for n, line in enumerate(lines) if degraded.TROUBLES[0] in line)
    said: dict[str, dict[str, str]] = {kind: {} for kind in degraded.TROUBLES}
    for line in lines[head + 2 :]:
        name, *cells = [cell.strip() for cell in line.strip("|").split("|")]
        for kind, cell in zip(degraded.TROUBLES, cells, strict=True):
            said[kind][name] = cell
        if name == "state":
            break
    return said


@pytest.mark.parametrize("kind", degraded.TROUBLES)
def test_redis_degraded_is_as_the_page_says(kind: str) -> None:
    assert degraded.Observation(kind).cells == columns()[kind]
