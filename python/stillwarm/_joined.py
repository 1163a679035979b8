"""`cache.joined`: identical concurrent calls share one run, and nothing is kept.

Thread rule: decoration runs once, at import; the decorated function from any thread and any loop.
Refuses to know: flights. Underneath is a cached function whose values are not stored (ttl 0) and that no remote tier is
asked about: the rules for those who wait are those of every load.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypedDict, TypeVar, overload

from stillwarm import _core
from stillwarm._cached import decorate
from stillwarm._durations import shown
from stillwarm._types import JOINED, Settings, check_names
from stillwarm._upserting import Upserting
from stillwarm.errors import ConfigError

if TYPE_CHECKING:
    from typing import ParamSpec

    from typing_extensions import Unpack

    from stillwarm._typing import JoinedCoroutine, JoinedDecorator, JoinedFunction

    P = ParamSpec("P")

T = TypeVar("T")


class JoinedOptions(TypedDict, total=False):
    """What `@joined` takes; the same as for `@cached`."""

    key: str | Callable[..., str] | None
    name: str | None
    ignore: Sequence[str]


class JoinedInfo(NamedTuple):
    """Counts of a joined function since the start: what its `joined_info()` returns.

    Attributes:
        calls: calls that came.
        runs: runs of the function.
        joined: calls that shared the run of another.
        errors: runs that raised.
        seconds: the time of all runs.
    """

    calls: int
    runs: int
    joined: int
    errors: int
    seconds: float


# An error is the function's own, and passes as it is. (The names of the kinds are those of `classify=`.)
_SETTINGS: Final = Settings(ttl=0, stale_if_error=0, jitter=0.0, classify=lambda _: "fatal", local=True)


class Joining(Upserting):
    """The part of a Cache that shares calls and keeps nothing."""

    __slots__ = ()

    @overload
    def joined(self, function: Callable[P, Coroutine[Any, Any, T]], /) -> JoinedCoroutine[P, T]: ...  # type: ignore[overload-overlap]
    @overload
    def joined(self, function: Callable[P, T], /) -> JoinedFunction[P, T]: ...
    @overload
    def joined(self, /, **options: Unpack[JoinedOptions]) -> JoinedDecorator: ...
    def joined(self, function: Any = None, /, **options: Any) -> Any:
        """Decorates a function so that identical calls that overlap share one run: `@cache.joined`.

        Nothing is stored: a call that comes when the run is over runs again. A caller that is cancelled leaves the run
        to the others; when it fails, all who waited get its error. After `invalidate(all=True)` nobody joins a run that
        began before. All of it is in this process, also where the cache has a URL, so any hashable argument will do,
        `self` included. With the cache switched off every call runs.

        The decorated function carries `__wrapped__` and `joined_info()`; `cache.stats()` leaves it out, since it has no
        hits.

        Keyword Args:
            key: what makes calls identical, in place of all arguments: a template such as "report:{year}", or a
                callable that returns the text. It is compared with calls of this function only.
            ignore: names of arguments in which identical calls may differ; those of the call that runs count.
            name: what readable keys begin with; the function's module and name without it.

        Raises:
            ConfigError: an option does not exist or its value is not accepted, or what is decorated is no function, or
                a generator function.
            RecursiveLoadError: (the call) the function asked for the very call that it answers.
            LoadTimeout: (the call) a call that waited for another's run gave up after 30 s; the run goes on.
        """
        if function is not None and not callable(function) and not isinstance(function, (classmethod, staticmethod)):
            raise ConfigError(
                f"joined({shown(function)}): accepted: a function, or options such as key='report:{{id}}'"
            )
        check_names(options, JoinedOptions.__optional_keys__, "@joined")

        def decorator(function: Any) -> Any:
            return joined(self, function, options)

        return decorator if function is None else decorator(function)


def joined(cache: Any, function: Any, options: dict[str, Any]) -> Any:
    """The joined form of a function, coroutine function, classmethod or staticmethod object."""
    if isinstance(function, (classmethod, staticmethod)):
        return type(function)(joined(cache, function.__func__, options))
    call = decorate(cache, function, _SETTINGS, options, JOINED)

    # A function of Python around the call: it is bound, pickled and inspected as one, and carries no `cache_...`.
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def shared(*args: Any, **kwargs: Any) -> Any:
            return await call(*args, **kwargs)

    else:

        @functools.wraps(function)
        def shared(*args: Any, **kwargs: Any) -> Any:
            return call(*args, **kwargs)

    def joined_info() -> JoinedInfo:
        """Counts since the start."""
        counts = _core.stats(cache, call._scope)
        return JoinedInfo(
            counts["misses"], counts["loads"], counts["joined"], counts["load_errors"], counts["load_seconds"]
        )

    shared.joined_info = joined_info  # type: ignore[attr-defined]
    return shared


__all__ = ["JoinedInfo", "Joining"]
