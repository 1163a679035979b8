"""dogpile.cache: a region on its memory backend, which has no bound."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dogpile.cache import CacheRegion, make_region

NAME, PACKAGE, TTL = "dogpile.cache", "dogpile.cache", True


def make_store(maxsize: int, ttl: float) -> CacheRegion:
    return make_region().configure("dogpile.cache.memory", expiration_time=ttl)


def put(store: CacheRegion, key: str, value: object) -> None:
    store.set(key, value)


def decorated(function: Callable[..., Any], maxsize: int, ttl: float) -> Any:
    return make_store(maxsize, ttl).cache_on_arguments()(function)
