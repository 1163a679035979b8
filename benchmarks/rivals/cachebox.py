"""cachebox: TTLCache in Rust; the decorator as it comes, with its lock against stampedes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import cachebox

NAME, PACKAGE, TTL = "cachebox", "cachebox", True


def decorated(function: Callable[..., Any], maxsize: int, ttl: float) -> Any:
    return cachebox.cached(cachebox.TTLCache(maxsize, ttl))(function)


async_decorated = decorated


def make_store(maxsize: int, ttl: float) -> cachebox.TTLCache[Any, Any]:
    return cachebox.TTLCache(maxsize, ttl)


def put(store: cachebox.TTLCache[Any, Any], key: str, value: object) -> None:
    store.insert(key, value)


def expiring(maxsize: int) -> tuple[cachebox.TTLCache[Any, Any], Callable[[], None]]:
    return cachebox.TTLCache(maxsize, 10), lambda: time.sleep(10.5)  # it reads the real clock
