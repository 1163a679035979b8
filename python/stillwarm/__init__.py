"""stillwarm: the cache, retry and anti-duplicate layer of Python web backends.

    from stillwarm import Cache

    cache = Cache()

    @cache.cached(ttl="5m")
    def score(asin, domain=1): ...

One import gives the whole core; asyncio is imported only where coroutine functions are cached.
"""

from stillwarm import hooks
from stillwarm._cache import Cache
from stillwarm._cached import CacheInfo
from stillwarm._default import cached, default_cache
from stillwarm._stats import Counters, HotKey, State, Stats
from stillwarm._target import Load, current_load
from stillwarm._upsert import Upserted
from stillwarm._warm import Warmed
from stillwarm.errors import (
    ConfigError,
    KeyTypeError,
    LoadTimeout,
    NotFound,
    RecursiveLoadError,
    StillwarmError,
)
from stillwarm.retry import Retry, transient

__version__ = "0.1.0"

__all__ = [
    "Cache",
    "CacheInfo",
    "ConfigError",
    "Counters",
    "HotKey",
    "KeyTypeError",
    "Load",
    "LoadTimeout",
    "NotFound",
    "RecursiveLoadError",
    "Retry",
    "State",
    "Stats",
    "StillwarmError",
    "Upserted",
    "Warmed",
    "__version__",
    "cached",
    "current_load",
    "default_cache",
    "hooks",
    "transient",
]
