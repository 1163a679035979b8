"""`stillwarm.cached` without a Cache: one memory cache for the whole process, as users of lru_cache expect.

Thread rule: any thread.
Refuses to know: everything else. Here the Python side gives the core its hooks, since all of it is imported by now.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any

from stillwarm import _core, _landing, _load
from stillwarm._cache import Cache, drain

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import ParamSpec, TypeVar, overload

    from typing_extensions import Unpack

    from stillwarm._types import Options
    from stillwarm._typing import CachedCoroutine, CachedFunction, Decorator

    P = ParamSpec("P")
    T = TypeVar("T")

_lock = threading.Lock()
_cache: Cache | None = None


def default_cache() -> Cache:
    """The cache behind `stillwarm.cached`; made when first asked for, from the environment (`Cache.from_env`)."""
    global _cache
    if _cache is None:
        with _lock:
            if _cache is None:
                _cache = Cache.from_env()
    return _cache


if TYPE_CHECKING:

    @overload
    def cached(type: Callable[P, Coroutine[Any, Any, T]], /) -> CachedCoroutine[P, T]: ...  # type: ignore[overload-overlap]
    @overload
    def cached(type: Callable[P, T], /) -> CachedFunction[P, T]: ...
    @overload
    def cached(type: str | None = None, /, **options: Unpack[Options]) -> Decorator: ...


def cached(type: Any = None, /, **options: Any) -> Any:
    """Decorates a function so that its results are kept in one cache of the process: `@stillwarm.cached(ttl="5m")`.

    That cache is made when the first function is decorated, from the environment (`default_cache`).

    Args:
        type: name of a type, defined with `default_cache().define(...)`.
        options: as of `Cache.cached`.

    Raises:
        ConfigError: as of `Cache.cached`; or a variable of the environment is wrong.
    """
    return default_cache().cached(type, **options)


def _after_fork_in_child() -> None:
    global _lock
    _lock = threading.Lock()  # another thread of the parent may have held it


os.register_at_fork(after_in_child=_after_fork_in_child)


def _aperform(call: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    from stillwarm import _aload  # asyncio is imported only where coroutines are cached

    _set_hooks(_aload.perform)
    return _aload.perform(call, args, kwargs)


def _set_hooks(aperform: Any) -> None:
    _core.set_hooks(
        _load.perform,
        aperform,
        _landing.failed_plain,
        _landing.commit_plain,
        _landing.wake,
        _landing.RAISE,
        drain,
        _landing.count_elsewhere,
    )


_set_hooks(_aperform)
