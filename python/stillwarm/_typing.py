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

    def cache_info(self) -> CacheInfo: ...
    def cache_clear(self) -> None: ...
    def acache_clear(self) -> Coroutine[Any, Any, None]: ...
    def cache_parameters(self) -> dict[str, Any]: ...
    def cache_key(self, *args: P.args, **kwargs: P.kwargs) -> str: ...
    def cache_contains(self, *args: P.args, **kwargs: P.kwargs) -> bool: ...
    @overload
    def cache_invalidate(self, *args: P.args, **kwargs: P.kwargs) -> bool: ...
    @overload  # a ParamSpec takes no keyword beside its own, so with stale= the arguments are not checked
    def cache_invalidate(self, *args: Any, stale: bool, **kwargs: Any) -> bool: ...
    def cache_invalidate(self, *args: Any, **kwargs: Any) -> bool: ...
    @overload
    def acache_invalidate(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, bool]: ...
    @overload
    def acache_invalidate(self, *args: Any, stale: bool, **kwargs: Any) -> Coroutine[Any, Any, bool]: ...
    def acache_invalidate(self, *args: Any, **kwargs: Any) -> Coroutine[Any, Any, bool]: ...


class _Plain(Carried[P], Generic[P, R_co]):
    @property
    def __wrapped__(self) -> Callable[P, R_co]: ...
    def refresh(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...
    def get_many(self, arguments: Iterable[Any]) -> list[R_co]: ...


class _Async(Carried[P], Generic[P, R_co]):
    @property
    def __wrapped__(self) -> Callable[P, Coroutine[Any, Any, R_co]]: ...
    def refresh(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R_co]: ...
    def get_many(self, arguments: Iterable[Any]) -> Coroutine[Any, Any, list[R_co]]: ...


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

    def joined_info(self) -> JoinedInfo: ...


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
