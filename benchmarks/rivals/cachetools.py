"""cachetools: TTLCache, with the lock that its manual asks for as soon as there are threads."""

from __future__ import annotations

from collections.abc import Callable
from threading import Condition, Lock
from typing import Any

import cachetools

NAME, PACKAGE, TTL = "cachetools", "cachetools", True


def decorated(function: Callable[..., Any], maxsize: int, ttl: float) -> Any:
    return cachetools.cached(cachetools.TTLCache(maxsize, ttl), lock=Lock(), info=True)(function)


def shared(function: Callable[..., Any], maxsize: int, ttl: float) -> Any:
    return cachetools.cached(cachetools.TTLCache(maxsize, ttl), condition=Condition())(function)


def make_store(maxsize: int, ttl: float) -> cachetools.TTLCache[Any, Any]:
    return cachetools.TTLCache(maxsize, ttl)


def put(store: cachetools.TTLCache[Any, Any], key: str, value: object) -> None:
    store[key] = value


def expiring(maxsize: int) -> tuple[cachetools.TTLCache[Any, Any], Callable[[], None]]:
    now = [0.0]
    store = cachetools.TTLCache(maxsize, 60, timer=lambda: now[0])
    return store, lambda: now.__setitem__(0, 61.0)
