"""backoff: retrying as a decorator. Configured as ours: three retries, exponential waits with jitter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import backoff

NAME, PACKAGE, TTL = "backoff", "backoff", False


def retried(function: Callable[..., Any]) -> Any:
    return backoff.on_exception(backoff.expo, OSError, max_tries=4, max_value=2)(function)


def async_retried(function: Callable[..., Any]) -> Any:
    return backoff.on_exception(backoff.expo, OSError, max_tries=4, max_value=2)(function)
