"""What a tier is told by `Cache()`.

Thread rule: plain data.
Refuses to know: which tier it is.
"""

from __future__ import annotations

from typing import TypedDict


class TierSettings(TypedDict):
    """What `Cache()` is told of its tier, checked; durations in ns, sizes in bytes."""

    schema: str
    strict: bool
    max_lag: int
    connect_timeout: int
    timeout: int
    connections: int
    queue: int
    pooler: bool
    max_value: int
    compress_above: int
    unlogged: bool
