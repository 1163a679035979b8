"""Flask-Caching: `memoize` on its SimpleCache, which pickles every value."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flask import Flask

from flask_caching import Cache

NAME, PACKAGE, TTL = "Flask-Caching", "Flask-Caching", True


def make_store(maxsize: int, ttl: float) -> Cache:
    settings = {"CACHE_TYPE": "SimpleCache", "CACHE_THRESHOLD": maxsize, "CACHE_DEFAULT_TIMEOUT": ttl}
    return Cache(Flask("benchmark"), config=settings)


def put(store: Cache, key: str, value: object) -> None:
    store.set(key, value)


def decorated(function: Callable[..., Any], maxsize: int, ttl: float) -> Any:
    return make_store(maxsize, ttl).memoize(timeout=ttl)(function)
