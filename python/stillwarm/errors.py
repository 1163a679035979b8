"""Every error that stillwarm itself raises.

StillwarmError
|-- ConfigError (ValueError)         an argument, a setting or a URL is wrong; the text names it and what is accepted
|-- KeyTypeError (TypeError)         an argument of a cached function cannot be part of a key
|-- NotFound (LookupError)           the loader says: there is no such thing; raise it in loaders, see negative_ttl=
|-- RecursiveLoadError               a loader asked for the key that it is loading
|-- AttemptTimeout (TimeoutError)    an attempt of a retried coroutine function took longer than attempt_timeout=
|-- LoadTimeout (TimeoutError)       a load took longer than its hard timeout, or parallel calls than their deadline
|-- TierError                        the remote tier failed
|   |-- TierUnavailable              it cannot be reached
|   |-- TierTimeout                  it did not answer in time
|   `-- TierRejected                 it answered with an error
|-- CircuitOpen                      the call was not tried: its circuit breaker is open
|-- CodecError                       a value cannot be encoded or decoded
`-- IdempotencyError                 a write was not executed
    |-- IdempotencyConflict          the same write is running, or its outcome is unknown
    `-- IdempotencyMismatch          the same key came with another payload

The exception of a loader passes unchanged: it is never wrapped in one of these.
"""

from __future__ import annotations

__all__ = [
    "AttemptTimeout",
    "CircuitOpen",
    "CodecError",
    "ConfigError",
    "IdempotencyConflict",
    "IdempotencyError",
    "IdempotencyMismatch",
    "KeyTypeError",
    "LoadTimeout",
    "NotFound",
    "RecursiveLoadError",
    "StillwarmError",
    "TierError",
    "TierRejected",
    "TierTimeout",
    "TierUnavailable",
]


class StillwarmError(Exception):
    """The root of all errors of stillwarm."""


class ConfigError(StillwarmError, ValueError):
    """An argument, a setting or a URL is wrong; the text names it, its value and what is accepted."""


class KeyTypeError(StillwarmError, TypeError):
    """An argument of a cached function cannot be part of a key; the text names it and the ways out."""


class NotFound(StillwarmError, LookupError):
    """There is no such thing. A loader raises it; with `negative_ttl` the absence is remembered."""


class RecursiveLoadError(StillwarmError):
    """A loader asked, directly or through another key, for the key that it is loading."""


class LoadTimeout(StillwarmError, TimeoutError):
    """A load took longer than its hard timeout; it goes on and may still be stored. Or the calls of a `gather` took
    longer than its deadline."""


class AttemptTimeout(StillwarmError, TimeoutError):
    """An attempt of a retried coroutine function took longer than `attempt_timeout`, and was cancelled."""


class TierError(StillwarmError):
    """The remote tier failed. Raised only with `strict=True` and by `Cache.check()`."""


class TierUnavailable(TierError):
    """The remote tier cannot be reached."""


class TierTimeout(TierError):
    """The remote tier did not answer in time."""


class TierRejected(TierError):
    """The remote tier answered with an error.

    Attributes:
        sqlstate: PostgreSQL's code of it, or the first word of Redis's error; None where there is none.
    """

    def __init__(self, message: str = "", sqlstate: str | None = None) -> None:
        super().__init__(message)
        self.sqlstate = sqlstate or None


class CircuitOpen(StillwarmError):
    """The call was not tried, because its circuit breaker is open.

    Attributes:
        retry_after: seconds until it may be.
    """

    def __init__(self, message: str = "", retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class CodecError(StillwarmError):
    """A value cannot be encoded, or a payload cannot be decoded."""


class IdempotencyError(StillwarmError):
    """A write was not executed. An app whose own error handler takes one of the two below answers in its own words.

    Attributes:
        code: what the answer would have as its `code`, such as "idempotency-running".
        retry_after: seconds after which it may be asked again; 0: nothing is said about that.
    """

    def __init__(self, message: str = "", code: str = "", retry_after: int = 0) -> None:
        super().__init__(message)
        self.code = code
        self.retry_after = retry_after


class IdempotencyConflict(IdempotencyError):
    """The same write is running, its outcome is unknown, or its answer is not to be had (409)."""


class IdempotencyMismatch(IdempotencyError):
    """The same idempotency key came with another payload (422)."""
