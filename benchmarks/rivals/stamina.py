"""stamina: tenacity with safe defaults. Configured as ours: three retries, exponential waits with jitter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import stamina

NAME, PACKAGE, TTL = "stamina", "stamina", False

_wrap = stamina.retry(on=OSError, attempts=4, wait_initial=0.2, wait_max=2.0, timeout=None)


def retried(function: Callable[..., Any]) -> Any:
    return _wrap(function)


def async_retried(function: Callable[..., Any]) -> Any:
    return _wrap(function)
