"""async-lru: lru_cache for coroutine functions, with a ttl."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from async_lru import alru_cache

NAME, PACKAGE, TTL = "async-lru", "async-lru", True


def async_decorated(function: Callable[..., Any], maxsize: int, ttl: float) -> Any:
    return alru_cache(maxsize=maxsize, ttl=ttl)(function)
