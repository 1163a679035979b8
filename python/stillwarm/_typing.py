"""The types that a type checker sees; nothing here exists at run time.

Thread rule: none.
Refuses to know: everything that runs.

A cached function keeps its parameters `P` and its result `R`. Through an instance it becomes a bound one: its call has
no `self` any more (`P2`), but what it carries is the function's own and asks for every argument, `self` included.
"""

# Every body here is empty.
# mypy: disable-error-code="empty-body"

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar, overload

if TYPE_CHECKING:
    from stillwarm._cached import CacheInfo
    from stillwarm._joined import JoinedInfo

P = ParamSpec("P")
P2 = ParamSpec("P2")
T = TypeVar("T")
S = TypeVar("S")
R_co = TypeVar("R_co", covariant=True)


class Carried(Generic[P]):
    """What every cached function carries."""

    __name__: str
    __qualname__: str
    __module__: str

    def cache_info(self) -> CacheInfo:
        """Counts since the start or the last `cache_clear()`; unpacks to hits, misses, maxsize, currsize."""

    def cache_clear(self) -> None:
        """Drops every entry of this function and resets its counts. Loads in flight are not stored.

        With a remote tier, its entries go there too; with `key=`, those of the whole type, whose keys it shares.
        """

    def acache_clear(self) -> Coroutine[Any, Any, None]:
        """`cache_clear` for coroutines."""

    def cache_parameters(self) -> dict[str, Any]:
        """The settings in force, by name; durations in seconds, None for ever or off."""

    def cache_key(self, *args: P.args, **kwargs: P.kwargs) -> str:
        """The readable key of these arguments: what `invalidate(key=)`, patterns and logs see.

        Raises:
            KeyTypeError: an argument cannot be part of a key.
        """

    def cache_contains(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Whether a call with these arguments would be answered from memory, without waiting for a load."""

    @overload
    def cache_invalidate(self, *args: P.args, **kwargs: P.kwargs) -> bool: ...
    @overload  # a ParamSpec takes no keyword beside its own, so with stale= the arguments are not checked
    def cache_invalidate(self, *args: Any, stale: bool, **kwargs: Any) -> bool: ...
    def cache_invalidate(self, *args: Any, **kwargs: Any) -> bool:
        """Invalidates the entry of these arguments; True if there was one. `stale=True` keeps it as a stale value."""

    @overload
    def acache_invalidate(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, bool]: ...
    @overload
    def acache_invalidate(self, *args: Any, stale: bool, **kwargs: Any) -> Coroutine[Any, Any, bool]: ...
    def acache_invalidate(self, *args: Any, **kwargs: Any) -> Coroutine[Any, Any, bool]:
        """`cache_invalidate` for coroutines."""


class _Plain(Carried[P], Generic[P, R_co]):
    @property
    def __wrapped__(self) -> Callable[P, R_co]: ...
    def refresh(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Loads now and stores, also when a fresh value is there; returns the new value.

        A load that runs already may have read what is outdated by now: it is not joined, and not stored.
        """

    def get_many(self, arguments: Iterable[Any]) -> list[R_co]:
        """The results for many calls, in their order: one request to the remote tier, and one load for each that is
        missing, or one call of `loader_many=` for all of them.

        Args:
            arguments: for each call its only argument, or a tuple of its positional ones.
        """


class _Async(Carried[P], Generic[P, R_co]):
    @property
    def __wrapped__(self) -> Callable[P, Coroutine[Any, Any, R_co]]: ...
    def refresh(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R_co]:
        """As of a cached plain function; await it."""

    def get_many(self, arguments: Iterable[Any]) -> Coroutine[Any, Any, list[R_co]]:
        """As of a cached plain function; await it."""


class CachedFunction(_Plain[P, R_co]):
    """A cached plain function."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...
    @overload  # class method
    def __get__(
        self: Callable[Concatenate[S, P2], T], instance: Any, owner: S
    ) -> BoundFunction[Concatenate[S, P2], P2, T]: ...
    @overload
    def __get__(self, instance: None, owner: Any) -> CachedFunction[P, R_co]: ...
    @overload
    def __get__(
        self: Callable[Concatenate[S, P2], T], instance: S, owner: Any
    ) -> BoundFunction[Concatenate[S, P2], P2, T]: ...
    @overload  # static method through an instance
    def __get__(self, instance: object, owner: Any) -> CachedFunction[P, R_co]: ...
    def __get__(self, instance: object, owner: Any) -> Any: ...


class BoundFunction(_Plain[P, R_co], Generic[P, P2, R_co]):
    """A cached plain function with its `self`."""

    def __call__(self, *args: P2.args, **kwargs: P2.kwargs) -> R_co: ...


class CachedCoroutine(_Async[P, R_co]):
    """A cached coroutine function."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R_co]: ...
    @overload  # class method
    def __get__(
        self: Callable[Concatenate[S, P2], Coroutine[Any, Any, T]], instance: Any, owner: S
    ) -> BoundCoroutine[Concatenate[S, P2], P2, T]: ...
    @overload
    def __get__(self, instance: None, owner: Any) -> CachedCoroutine[P, R_co]: ...
    @overload
    def __get__(
        self: Callable[Concatenate[S, P2], Coroutine[Any, Any, T]], instance: S, owner: Any
    ) -> BoundCoroutine[Concatenate[S, P2], P2, T]: ...
    @overload  # static method through an instance
    def __get__(self, instance: object, owner: Any) -> CachedCoroutine[P, R_co]: ...
    def __get__(self, instance: object, owner: Any) -> Any: ...


class BoundCoroutine(_Async[P, R_co], Generic[P, P2, R_co]):
    """A cached coroutine function with its `self`."""

    def __call__(self, *args: P2.args, **kwargs: P2.kwargs) -> Coroutine[Any, Any, R_co]: ...


class Decorator(Protocol):
    """What `cached(...)` returns: it keeps the signature of what it decorates."""

    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, T]], /) -> CachedCoroutine[P, T]: ...  # type: ignore[overload-overlap]
    @overload
    def __call__(self, function: Callable[P, T], /) -> CachedFunction[P, T]: ...


class Joined(Generic[P]):
    """What every joined function carries."""

    __name__: str
    __qualname__: str
    __module__: str

    def joined_info(self) -> JoinedInfo:
        """How many calls there were, how many runs, and how many calls shared another's."""


class JoinedFunction(Joined[P], Generic[P, R_co]):
    """A joined plain function."""

    @property
    def __wrapped__(self) -> Callable[P, R_co]: ...
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...
    @overload  # class method
    def __get__(self: Callable[Concatenate[S, P2], T], instance: Any, owner: S) -> JoinedFunction[P2, T]: ...
    @overload
    def __get__(self, instance: None, owner: Any) -> JoinedFunction[P, R_co]: ...
    @overload
    def __get__(self: Callable[Concatenate[S, P2], T], instance: S, owner: Any) -> JoinedFunction[P2, T]: ...
    @overload  # static method through an instance
    def __get__(self, instance: object, owner: Any) -> JoinedFunction[P, R_co]: ...
    def __get__(self, instance: object, owner: Any) -> Any: ...


class JoinedCoroutine(Joined[P], Generic[P, R_co]):
    """A joined coroutine function."""

    @property
    def __wrapped__(self) -> Callable[P, Coroutine[Any, Any, R_co]]: ...
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R_co]: ...
    @overload  # class method
    def __get__(
        self: Callable[Concatenate[S, P2], Coroutine[Any, Any, T]], instance: Any, owner: S
    ) -> JoinedCoroutine[P2, T]: ...
    @overload
    def __get__(self, instance: None, owner: Any) -> JoinedCoroutine[P, R_co]: ...
    @overload
    def __get__(
        self: Callable[Concatenate[S, P2], Coroutine[Any, Any, T]], instance: S, owner: Any
    ) -> JoinedCoroutine[P2, T]: ...
    @overload  # static method through an instance
    def __get__(self, instance: object, owner: Any) -> JoinedCoroutine[P, R_co]: ...
    def __get__(self, instance: object, owner: Any) -> Any: ...


class JoinedDecorator(Protocol):
    """What `joined(...)` returns: it keeps the signature of what it decorates."""

    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, T]], /) -> JoinedCoroutine[P, T]: ...  # type: ignore[overload-overlap]
    @overload
    def __call__(self, function: Callable[P, T], /) -> JoinedFunction[P, T]: ...
