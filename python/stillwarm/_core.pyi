"""What the extension module offers to the Python layer (cpp/bindings/module.cpp lists its parts).

Thread rule: everything runs with the GIL; nothing in the module waits.
Refuses to know: the public names, which _cache.py and _cached.py give.

Times are nanoseconds. A `scope` is a function, or one of the texts a cache keys by; a `stored key` is the only item of
a key, or the tuple of its items. Arguments without a name at run time are positional-only here.
"""

from __future__ import annotations

from _thread import LockType
from collections.abc import Callable, Generator, Iterable, Sequence
from datetime import timedelta
from types import MethodType
from typing import Any, Final, Generic, Literal, TypeAlias, TypeVar, final, overload

_T_co = TypeVar("_T_co", covariant=True)
_StoredKey: TypeAlias = Any  # hashable by content or by itself
# ttl, stale_while_revalidate, stale_if_error, keep; and, unless they are those of the scope, early and jitter
_Durations: TypeAlias = tuple[int, int, int, int] | tuple[int, int, int, int, float, float]
_Stored: TypeAlias = int  # 0 stored, 1 lost to an invalidation, 2 too large, 3 not kept
_Step: TypeAlias = int  # 0 return, 1 return and refresh, 2 lead, 3 follow, 4 known to be absent

FOREVER: Final[int]
EARLY_AUTO: Final[float]  # for early: by the measured time of the load
MISSING: Final[Any]  # stands for "no value"

# -------------------------------------------------------------------------------------------------------- raw types

class CacheBase:
    """The core of a Cache."""

    def __init__(self, max_entries: int, max_bytes: int) -> None: ...
    def get(self, key: str, default: Any = None, /) -> Any: ...
    def set(
        self, key: str, value: Any, ttl: float | str | timedelta | None = ..., tags: Iterable[str] = ()
    ) -> bool: ...

@final
class CachedCall:
    """The object behind @cached. What it carries besides (`cache_info` and so on) is given to it by _cached.py."""

    def __new__(
        cls,
        cache: CacheBase,
        function: Callable[..., Any],
        scope: int,
        names: tuple[str, ...],
        defaults: tuple[Any, ...],  # as many as names; MISSING where there is none
        ignored: tuple[bool, ...],  # as many as names, then *args, then **kwargs
        positional_only: int,
        positional: int,  # positional-only ones included
        var_positional: bool,
        var_keyword: bool,
        key: Callable[..., str] | None,
        is_async: bool,
        plain: bool,  # a load needs nothing but a call of the function
        direct: bool,  # False: every call goes to Python
        /,
    ) -> CachedCall: ...
    def __call__(self, /, *args: Any, **kwargs: Any) -> Any: ...
    @overload
    def __get__(self, instance: None, owner: Any = None, /) -> CachedCall: ...
    @overload
    def __get__(self, instance: object, owner: Any = None, /) -> MethodType: ...
    def _begin(
        self, args: tuple[Any, ...], kwargs: dict[str, Any] | None, count: bool = True, /
    ) -> tuple[_Step, Any, Flight | None]: ...
    def _key(self, args: tuple[Any, ...], kwargs: dict[str, Any] | None, /) -> _StoredKey: ...
    @property
    def _cache(self) -> Any: ...  # the Cache
    @property
    def _function(self) -> Callable[..., Any]: ...
    @property
    def _names(self) -> list[str]: ...  # of the parameters in the key, in its order
    @property
    def _scope(self) -> int: ...

@final
class Flight:
    """One running load."""

    @property
    def state(self) -> int: ...  # 0 running, 1 value, 2 error, 3 abandoned
    @property
    def attached(self) -> bool: ...
    @property
    def background(self) -> bool: ...
    @property
    def sequence(self) -> int: ...
    @property
    def scope(self) -> int: ...
    @property
    def key(self) -> _StoredKey: ...
    @property
    def value(self) -> Any: ...
    @property
    def error(self) -> Any: ...
    @property
    def cache(self) -> Any: ...
    thread: int  # ident of the thread that has to run the load, or runs it; 0: none has to
    load: Any
    loop: Any
    def wait_with(self, waiter: object, /) -> bool: ...
    def sleep_with(self, lock: LockType, relays: bool, /) -> bool: ...
    def left(self, lock: LockType, /) -> None: ...

@final
class Ready(Generic[_T_co]):
    """The awaitable of a cache hit: already done. Made by the core alone."""

    def __await__(self) -> Generator[Any, Any, _T_co]: ...
    def __iter__(self) -> Ready[_T_co]: ...
    def __next__(self) -> Any: ...
    def send(self, value: Any, /) -> Any: ...
    @overload
    def throw(self, exception: BaseException, value: None = None, traceback: object = None, /) -> Any: ...
    @overload
    def throw(self, type: type[BaseException], value: object = None, traceback: object = None, /) -> Any: ...
    def close(self) -> None: ...

def set_hooks(
    perform: Callable[..., Any],
    aperform: Callable[..., Any],
    failed: Callable[..., Any],
    commit_loaded: Callable[..., Any],
    wake: Callable[[list[Any]], None],
    raise_it: object,
    /,
) -> None: ...

# ------------------------------------------------------------------------------------------ scopes and their figures

def new_scope(cache: CacheBase, type: int, name: str, key_scope: int, /) -> int: ...  # key_scope -1: keys of its own
def set_single(cache: CacheBase, scope: int, /) -> None: ...
def is_single(cache: CacheBase, scope: int, /) -> bool: ...
def set_durations(
    cache: CacheBase,
    scope: int,
    ttl: int,
    stale_while_revalidate: int,
    stale_if_error: int,
    negative_ttl: int,
    early: float,
    jitter: float,
    keep: int,
    /,
) -> None: ...

# The counts of `Counters` by name, and "removed": a dict of counts by cause.
def stats(cache: CacheBase, scope: int, /) -> dict[str, Any]: ...

# entries, bytes, max_entries, max_bytes (0: no limit), flights, tags_marked, most_removed_per_call
def totals(cache: CacheBase, /) -> dict[str, int]: ...
def reset_stats(cache: CacheBase, scope: int, /) -> None: ...
def watch(cache: CacheBase, hits: bool, loads: bool, /) -> None: ...

# ----------------------------------------------------------------------------------------------------- direct verbs

def adopt_methods(subclass: type[CacheBase], /) -> None: ...
def set_direct(cache: CacheBase, ttl: int, set_slowly: Any, /) -> None: ...
def put(
    cache: CacheBase,
    scope: int,
    key: _StoredKey,
    value: object,
    ttl: int,
    stale_while_revalidate: int,
    stale_if_error: int,
    tags: Sequence[int],
    weight: int,  # bytes; -1: weigh it
    only_if_absent: bool,
    since: int = 0,  # of `detach`: lost if something concerned the key after it
    answered: bool = False,  # the remote tier answered
) -> _Stored: ...
def incr(cache: CacheBase, scope: int, key: _StoredKey, delta: int, /) -> Any: ...  # MISSING: nothing there
def peek(cache: CacheBase, scope: int, key: _StoredKey, /) -> Any: ...  # MISSING: nothing there

# state (0 fresh, 1 early, 2 stale, 3 failsafe, 4 kept, 5 gone), time until it is no longer fresh, until it is gone
def life(cache: CacheBase, scope: int, key: _StoredKey, /) -> tuple[int, int, int] | None: ...
def touch(cache: CacheBase, scope: int, key: _StoredKey, ttl: int, /) -> bool: ...
def begin_key(
    cache: CacheBase,
    scope: int,
    key: _StoredKey,
    count: bool,
    anew: bool = False,  # a load is wanted whatever is stored
) -> tuple[_Step, Any, Flight | None]: ...

# (scope, key, hits, bytes, state) of each entry, what is kept included; scope -1: of all
def snapshot(cache: CacheBase, scope: int, /) -> list[tuple[int, _StoredKey, int, int, int]]: ...
def clear(cache: CacheBase, scope: int, /) -> None: ...  # -1: all

# ----------------------------------------------------------------------------------------------------- invalidation

def invalidate_key(cache: CacheBase, scope: int, key: _StoredKey, stale: bool, /) -> bool: ...
def mark(cache: CacheBase, kind: Literal["all", "type", "scope", "tag"], id: int, stale: bool, /) -> None: ...
def fence_pattern(cache: CacheBase, /) -> None: ...
def tag_fingerprint(tag: str, /) -> int: ...

# ---------------------------------------------------------------------------------------------------------- flights

def commit(
    flight: Flight, value: object, durations: _Durations | None, tags: Sequence[int], weight: int, negative: bool,
    answered: bool = False,  # the remote tier answered
) -> _Stored: ...
def land(flight: Flight, state: int, outcome: object, /) -> list[Any] | None: ...  # the waiters to wake
def fail(flight: Flight, kind: int, /) -> tuple[Any, bool]: ...  # kind: 0 fatal, 1 not found, 2 transient
def kept(flight: Flight, /) -> Any: ...  # what the load may revive, or MISSING
def enter(flight: Flight | None, /) -> Flight | None: ...  # returns the one before
def leave(flight: Flight, outer: Flight | None, /) -> None: ...
def running() -> Flight | None: ...
def set_parent(flight: Flight, parent: Flight | None, /) -> None: ...
def depends_on_itself(load: Flight, target: Flight, /) -> bool: ...
def add_follower(flight: Flight, load: Flight, /) -> bool: ...  # False: `load` would wait for itself
def remove_follower(flight: Flight, load: Flight, /) -> None: ...
def count_load(flight: Flight, took: int, failed: bool, /) -> None: ...
def count_stale(flight: Flight, /) -> None: ...
def count_skipped_refresh(flight: Flight, /) -> None: ...
def detach(cache: CacheBase, scope: int, key: _StoredKey, /) -> int: ...  # what loads now is not stored; `since` of put
def detach_all(cache: CacheBase, /) -> None: ...

# ------------------------------------------------------------------------------------------------- keys and weights

def set_content_types(content: type[str], types: set[type], /) -> None: ...
def set_freeze(freeze: Callable[[Any, int, object], str], /) -> None: ...
def weigh(value: object, /) -> int: ...

# ------------------------------------------------------------------------------------------------------- time, sizes

def clock_now() -> int: ...
def clock_set(now: int, /) -> None: ...  # 0: the real clock again
def parse_duration(text: str, /) -> int: ...
def parse_size(text: str, /) -> int: ...

# ------------------------------------------------------------------------------------------------------------ retry

def classify_error(
    mro: Sequence[str],
    sqlstate: str | None,
    error_number: int | None,
    http_status: int | None,
    connection_lost: bool,
) -> str: ...

class RetryPolicy:
    """The figures of a retry policy."""

    def __init__(
        self,
        *,
        retries: int,
        base: int,
        cap: int,
        factor: float,
        below: float,
        above: float,
        deadline: int | None,
        max_retry_after: int,
        budget: str | None,
    ) -> None: ...
    def start(self) -> RetryAttempt: ...

class RetryAttempt:
    """The state of one retried call."""

    def failed(self, transient: bool, retry_after: int | None, random: float, /) -> int | None: ...
    def succeeded(self) -> None: ...
    @property
    def failures(self) -> int: ...
    @property
    def elapsed(self) -> int: ...
    @property
    def stop(self) -> str | None: ...

def define_budget(name: str, capacity: int, refund: int, /) -> None: ...  # in thousandths of a token
def budget_left(name: str, /) -> int: ...
def refill_budgets() -> None: ...

# ------------------------------------------------------------------------------------------------------------- http

class Forward:
    """Why a request went to the app (RFC 9211, 2.2)."""

    NONE: Final[Forward]
    BYPASS: Final[Forward]
    METHOD: Final[Forward]
    URI_MISS: Final[Forward]
    VARY_MISS: Final[Forward]
    MISS: Final[Forward]
    REQUEST: Final[Forward]
    STALE: Final[Forward]
    PARTIAL: Final[Forward]

@final
class HttpQuestion:
    """What a request asks, and what the policy says of it."""

    @property
    def look(self) -> bool: ...  # False: straight to the app
    @property
    def store(self) -> bool: ...
    @property
    def head(self) -> bool: ...
    @property
    def invalidates(self) -> bool: ...
    @property
    def reload(self) -> bool: ...
    @property
    def only_if_cached(self) -> bool: ...
    @property
    def authorization(self) -> bool: ...
    @property
    def why(self) -> str: ...
    @property
    def forward(self) -> Forward: ...
    @property
    def primary(self) -> str: ...  # key of the URI
    key: str  # that of the variant, where the URI has any
    variant: str

@final
class HttpFront:
    """Answers requests of one route or app from the store."""

    def __init__(
        self,
        cache: CacheBase,
        scope: int,
        *,
        prefix: str,
        asgi: bool,
        ignored_cookies: list[str],
        max_key: int,
        debug_token: str,
        ttl: int,  # -1 here and below: not given
        stale_while_revalidate: int,
        stale_if_error: int,
        absent_ttl: int,
        ttl_wins: bool,
        obeys_request: bool,
        per_user: bool,
        declares_cookies: bool,
        heuristic: bool,
        stored: type[tuple[Any, ...]],
        variants: type[tuple[Any, ...]],
        digest: Callable[[bytes], str],
    ) -> None: ...
    def look(
        self, raw: dict[str, Any], own_key: str | None = None, part: str | None = None, may_answer: bool = True, /
    ) -> tuple[Any, ...] | HttpQuestion: ...
    def render(
        self,
        question: HttpQuestion,
        stored: tuple[Any, ...],
        fresh_left: int,
        label: str,
        hit: bool,
        forward: Forward,
        is_stored: bool,
        collapsed: bool,
        /,
    ) -> tuple[Any, ...]: ...
    def marks(
        self, question: HttpQuestion, label: str, forward: Forward, is_stored: bool, detail: str, /
    ) -> list[tuple[Any, Any]]: ...
    def after(self, question: HttpQuestion, status: int, headers: Iterable[Any], /) -> dict[str, Any]: ...
    def may_use(self, question: HttpQuestion, stored: tuple[Any, ...], fresh_left: int, /) -> int: ...
    def match(self, question: HttpQuestion, value: object, /) -> Any: ...  # Stored or None
    def variant_text(self, raw: dict[str, Any], names: list[str], /) -> str: ...
    def variant_key(self, question: HttpQuestion, nonce: str, text: str, /) -> str: ...
    @property
    def hits(self) -> int: ...

def is_stored_field(name: str, /) -> bool: ...
def is_kept_on_304(name: str, /) -> bool: ...

# ------------------------------------------------------ payloads of a remote tier; only in a build that can have one

OPENED: Final[tuple[str, ...]]  # names of the statuses

def seal(
    namespace: str,
    key: str,
    payload: bytes,
    codec: int,
    negative: bool,
    durations: tuple[int, int, int, int],
    compress_above: int,  # bytes; 0: never
    /,
) -> bytes: ...

# (status, codec, negative, durations, payload); with a status above 0 nothing else is told
def open_envelope(
    namespace: str, key: str, stored: bytes, max_value: int, /
) -> tuple[int, int, bool, tuple[int, int, int, int], bytes]: ...
def is_plain(value: object, json: bool = False, /) -> bool: ...  # msgpack (or JSON) keeps it exactly, types included

# -------------------------------------------------------------------------------------------------------- for tests

def settle(cache: CacheBase, /) -> None: ...
def check_invariants(cache: CacheBase, /) -> bool: ...
