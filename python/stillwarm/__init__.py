"""stillwarm: the cache, retry and anti-duplicate layer of Python web backends.

    from stillwarm import Cache

    cache = Cache()

    @cache.cached(ttl="5m")
    def score(asin, domain=1): ...

One import gives the whole core; asyncio is imported only where coroutine functions are cached.
"""

from stillwarm import hooks
from stillwarm._attempts import GaveUp, Retried
from stillwarm._cache import Cache
from stillwarm._cached import CacheInfo
from stillwarm._default import cached, default_cache
from stillwarm._failures import transient
from stillwarm._joined import JoinedInfo
from stillwarm._parallel import agather, gather
from stillwarm._prefetch import Prefetch, Prefetched
from stillwarm._retried import RetryStats, retry, retry_stats
from stillwarm._retry import Retry, define_budget
from stillwarm._stats import Counters, HotKey, State, Stats
from stillwarm._target import Load, current_load
from stillwarm._upsert import Upserted
from stillwarm._warm import Warmed
from stillwarm.breaker import CircuitBreaker
from stillwarm.errors import (
    ConfigError,
    KeyTypeError,
    LoadTimeout,
    NotFound,
    RecursiveLoadError,
    StillwarmError,
)

__version__ = "0.1.0"

__all__ = [
    "Cache",
    "CacheInfo",
    "CircuitBreaker",
    "ConfigError",
    "Counters",
    "GaveUp",
    "HotKey",
    "JoinedInfo",
    "KeyTypeError",
    "Load",
    "LoadTimeout",
    "NotFound",
    "Prefetch",
    "Prefetched",
    "RecursiveLoadError",
    "Retried",
    "Retry",
    "RetryStats",
    "State",
    "Stats",
    "StillwarmError",
    "Upserted",
    "Warmed",
    "__version__",
    "agather",
    "cached",
    "current_load",
    "default_cache",
    "define_budget",
    "gather",
    "hooks",
    "retry",
    "retry_stats",
    "transient",
]
