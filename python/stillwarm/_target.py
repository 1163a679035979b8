"""What a load is about: the call that wants a value, the steps the core answers, and the load as its loader sees it.

Thread rule: a Target belongs to its caller; a Load to its loader. What runs here is known per thread and per context.
Refuses to know: how a load is performed, waited for or ended.
"""

from __future__ import annotations

import contextvars
import copy
import inspect
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Final

from stillwarm import _core
from stillwarm._types import Settings, tag_names

if TYPE_CHECKING:
    from stillwarm._cache import Cache
    from stillwarm._tier import Tier

RETURN, REFRESH, LEAD, FOLLOW, ABSENT, RETURN_STALE, REFRESH_EARLY, CONFIRM = range(8)  # Step of cpp/core, and more
# What came of asking the tier whether memory is right (core/decision.hpp).
NOT_ASKED, AWAY, CONFIRMED = range(3)
RUNNING, VALUE, ERROR, ABANDONED, STALE, REMOTE = range(6)  # FlightState of cpp/bindings/flight.hpp
FATAL, NOT_FOUND, TRANSIENT = range(3)  # ErrorKind
MISSING: Final = _core.MISSING
AGAIN: Final = object()  # the flight was abandoned: look again, one of the waiters will lead

# The async load inside which this context runs.
current_async: contextvars.ContextVar[Any] = contextvars.ContextVar("stillwarm_load", default=None)
# The call inside which this context runs that goes straight through a cache which is switched off (_off.Passing).
straight: contextvars.ContextVar[Any] = contextvars.ContextVar("stillwarm_straight", default=None)


class Target:
    """One call that wants a value: what to ask the core, what to run, and the settings of both.

    A kind of target that is no call of a decorated function has `call = None`, and says itself what `begin`, `load`,
    `tags` and `key` are.

    Attributes:
        inline: the load belongs to the caller's own thread or task, because its loader uses what lives there (a
            request's session). Nobody can go on with it: when the caller is cancelled the flight is abandoned and a
            follower leads; the timeouts bind only those who follow.
        silent: there where this call has waited for the tier already, in vain: nobody waits twice.
        durations: ttl, stale_while_revalidate, stale_if_error and keep of the value that was just loaded, in ns.
        start_refresh: starts a background refresh in place of the pool and of a task of the running loop. It is given
            the flight, must not wait, and sees to it that `run_load(self, flight, parent=False)` (_load), or
            `await run_load(self, flight)` (_aload) runs somewhere, or that the flight is finished ABANDONED. What it
            raises counts as a refresh that was skipped.
    """

    __slots__ = ("args", "cache", "call", "kwargs", "settings", "silent")

    inline: ClassVar[bool] = False
    durations: tuple[int, int, int, int] | None = None
    start_refresh: Callable[[Any], None] | None = None

    def __init__(self, call: Any, args: tuple[Any, ...], kwargs: dict[str, Any] | None) -> None:
        self.call = call
        self.cache: Cache = call._cache
        self.settings: Settings = call._settings
        self.args = args
        self.kwargs = kwargs or {}

    def begin(self, count: bool, asked: int = NOT_ASKED) -> tuple[int, Any, Any]:
        """Where the call goes. `asked`: what came of asking the remote tier whether memory is right."""
        return self.call._begin(self.args, self.kwargs, count, asked)  # type: ignore[no-any-return]

    def begin_anew(self, count: bool) -> tuple[int, Any, Any]:
        """`begin` whatever is stored: the load that runs, or one that starts now."""
        scope, key = self.key()
        return _core.begin_key(self.cache, scope, key, count, True)

    @property
    def tier(self) -> Tier | None:
        """The remote tier that the load asks and tells; None: it is this process's own affair."""
        return None if self.settings.local else self.cache._tier

    def load(self) -> Any:
        return self.call._function(*self.args, **self.kwargs)

    def tags(self) -> list[str]:
        tags = self.settings.tags
        return tag_names(tags(*self.args, **self.kwargs)) if callable(tags) else list(tags)

    def arguments(self) -> dict[str, Any]:
        """What the columns of a type's own table may be filled from."""
        return bound_arguments(self.call, self.args, self.kwargs) if self.call is not None else {}

    def key(self) -> tuple[int, Any]:
        """Scope and stored key."""
        return self.call._scope, self.call._key(self.args, self.kwargs)


class Load:
    """The load that runs now, as its loader sees it: `stillwarm.current_load()`.

    What is set here counts for this one value, once the loader returns.

    Attributes:
        ttl: how long this value is fresh, as in `cached`; not set: what the settings say.
        tags: further tags of this value, a list to append to.

    The value that was stored before is offered to the loader as `kept`, as long as the cache has it (the option `keep=`
    makes that longer than it may be returned) and nothing invalidated it. A loader that learns from its source that
    nothing has changed returns `not_modified()`:

        def article(id):
            load = current_load()
            known = {"If-None-Match": load.kept["etag"]} if load.has_kept else {}
            response = http.get(f"/articles/{id}", headers=known)
            if response.status_code == 304:
                return load.not_modified()
            return {"etag": response.headers["ETag"], "text": response.text}
    """

    def __init__(self, flight: Any, copies: bool = False) -> None:
        self._flight = flight
        self._copies = copies
        self.ttl: Any = MISSING
        self.tags: list[str] = []
        self._skip = False
        self._revives = False
        self._kept: Any = None  # (value,) once somebody asked for it

    @property
    def key(self) -> str:
        """The readable key."""
        return self._flight.cache._readable(self._flight.scope, self._flight.key)  # type: ignore[no-any-return]

    @property
    def background(self) -> bool:
        """True for a refresh that no caller waits for."""
        return self._flight.background  # type: ignore[no-any-return]

    @property
    def has_kept(self) -> bool:
        """Whether there is a previous value, which may be None."""
        return self._previous() is not MISSING

    @property
    def kept(self) -> Any:
        """The previous value, also one that may not be returned any more; None without one (see `has_kept`).

        It is looked up once: what was offered stays, whatever becomes of the entry while the loader runs.
        """
        value = self._previous()
        return None if value is MISSING else value

    def not_modified(self) -> Any:
        """The previous value, which the loader then returns: it is stored again, with the ttl and tags of a new one.

        It is stored whatever the loader returns after that, and if an invalidation came meanwhile it is not stored at
        all, like any other value.

        Raises:
            RuntimeError: there is no previous value.
        """
        value = self._previous()
        if value is MISSING:
            raise RuntimeError(f"not_modified(): the cache has no previous value of {self.key}; ask has_kept before")
        self._revives = True
        return value

    def _previous(self) -> Any:
        if self._kept is None:
            flight = self._flight
            value = _core.kept(flight) if isinstance(flight, _core.Flight) else MISSING  # without: the cache is off
            self._kept = (copy.deepcopy(value) if self._copies and value is not MISSING else value,)
        return self._kept[0]

    def skip_store(self) -> None:
        """The value goes to those who wait and is not stored; what was stored before stays."""
        self._skip = True


# By function: to make one takes as long as everything else that a load in front of a table needs here.
_signatures: weakref.WeakKeyDictionary[Any, inspect.Signature] = weakref.WeakKeyDictionary()


def _signature(function: Any) -> inspect.Signature:
    try:
        signature = _signatures.get(function)
        if signature is None:
            signature = _signatures[function] = inspect.signature(function)
    except TypeError:  # a callable object that takes no weak reference
        return inspect.signature(function)
    return signature


def bound_arguments(call: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a call by name, defaults filled in."""
    bound = _signature(call.__wrapped__).bind(*args, **kwargs)
    bound.apply_defaults()
    return dict(bound.arguments)


def current_load() -> Load:
    """The innermost load that runs on this thread or in this task.

    A loader changes what is kept with it: `current_load().ttl = 60`, `.tags.append("user:1")`, `.skip_store()`.

    Raises:
        RuntimeError: no load is running here.
    """
    flight, passing = innermost(), straight.get()
    if passing is not None and not passing.over and passing.outer is flight:
        flight = passing
    if flight is None:
        raise RuntimeError("current_load() works inside a loader: no load is running on this thread or task")
    if flight.load is None:
        flight.load = Load(flight)
    return flight.load  # type: ignore[no-any-return]


def innermost() -> Any:
    """The flight inside which this code runs: the later started one of the thread's and the context's."""
    here, context = _core.running(), current_async.get()
    if here is not None and here.state != RUNNING:
        here = None
    if context is not None and context.state != RUNNING:
        context = None
    if here is None or context is None:
        return here or context
    return here if here.sequence > context.sequence else context


def give(target: Any, value: Any) -> Any:
    """The value as this caller gets it."""
    return copy.deepcopy(value) if target.settings.copy else value
