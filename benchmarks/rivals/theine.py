"""theine: Memoize with an explicit key function, which is what its manual recommends."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import theine

NAME, PACKAGE, TTL = "theine", "theine", True


def decorated(function: Callable[..., Any], maxsize: int, ttl: float) -> Any:
    memoized = theine.Memoize(maxsize, timedelta(seconds=ttl))(function)
    if len(inspect.signature(function).parameters) == 1:
        memoized.key(lambda key: key)
    else:
        memoized.key(lambda key, other: f"{key}:{other}")
    return memoized


async_decorated = decorated


def make_store(maxsize: int, ttl: float) -> theine.Cache[Any, Any]:
    store = theine.Cache[Any, Any](maxsize)
    store.ttl = timedelta(seconds=ttl)  # ours: `put` wants it
    return store


def put(store: theine.Cache[Any, Any], key: str, value: object) -> None:
    store.set(key, value, store.ttl)
