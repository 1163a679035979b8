"""functools.lru_cache: the fastest there is for a decorated hit; it knows no ttl, no stampede and no coroutines."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

NAME, PACKAGE, TTL = "lru_cache", None, False


def decorated(function: Callable[..., Any], maxsize: int, ttl: float) -> Any:
    return functools.lru_cache(maxsize=maxsize)(function)
