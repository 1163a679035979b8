"""tenacity: retrying as a decorator. Configured as ours: three retries, exponential waits with jitter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tenacity import retry, retry_if_exception_type, stop_after_attempt, wait_exponential_jitter

NAME, PACKAGE, TTL = "tenacity", "tenacity", False

_wrap = retry(
    retry=retry_if_exception_type(OSError),
    stop=stop_after_attempt(4),
    wait=wait_exponential_jitter(0.2, 2.0),
    reraise=True,
)


def retried(function: Callable[..., Any]) -> Any:
    return _wrap(function)


def async_retried(function: Callable[..., Any]) -> Any:
    return _wrap(function)
