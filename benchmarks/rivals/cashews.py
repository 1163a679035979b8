"""cashews: its memory backend, with as many entries as the others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cashews import Cache

NAME, PACKAGE, TTL = "cashews", "cashews", True


def _cache(maxsize: int) -> Cache:
    cache = Cache()
    cache.setup(f"mem://?check_interval=10&size={maxsize}")
    return cache


def async_decorated(function: Callable[..., Any], maxsize: int, ttl: float) -> Any:
    return _cache(maxsize)(ttl=ttl)(function)


def async_shared(function: Callable[..., Any], maxsize: int, ttl: float) -> Any:
    return _cache(maxsize)(ttl=ttl, lock=True)(function)
