"""aiocache: its memory backend, which has no bound."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from aiocache import Cache, cached, cached_stampede

NAME, PACKAGE, TTL = "aiocache", "aiocache", True


def async_decorated(function: Callable[..., Any], maxsize: int, ttl: float) -> Any:
    return cached(ttl=ttl, cache=Cache.MEMORY)(function)


def async_shared(function: Callable[..., Any], maxsize: int, ttl: float) -> Any:
    return cached_stampede(ttl=ttl, lease=30, cache=Cache.MEMORY)(function)
