"""What the extension module offers to the Python layer (cpp/bindings/module.cpp lists its parts).

Thread rule: everything runs with the GIL. Only `run`, `drain` and `close` of a PostgresTier wait, and then without it.
Refuses to know: the public names, which _cache.py and _cached.py give.

Times are nanoseconds. A `scope` is a function, or one of the texts a cache keys by; a `stored key` is the only item of
a key, or the tuple of its items. Arguments without a name at run time are positional-only here.
"""

from __future__ import annotations

from _thread import LockType
from collections.abc import Callable, Generator, Iterable, Sequence
from datetime import timedelta
from types import MethodType
from typing import Any, Final, Generic, Literal, TypeAlias, TypedDict, TypeVar, final, overload

_T_co = TypeVar("_T_co", covariant=True)
_StoredKey: TypeAlias = Any  # hashable by content or by itself
# ttl, stale_while_revalidate, stale_if_error, keep; and, unless they are those of the scope, early and jitter
_Durations: TypeAlias = tuple[int, int, int, int] | tuple[int, int, int, int, float, float]
_Stored: TypeAlias = int  # 0 stored, 1 lost to an invalidation, 2 too large, 3 not kept
_Step: TypeAlias = int  # as in _target.py: 0 return, 1 return and refresh, 2 lead, 3 follow, 4 known to be absent...
_Four: TypeAlias = tuple[int, int, int, int]  # ttl, stale_while_revalidate, stale_if_error, keep
_Error: TypeAlias = tuple[int, str, str]  # TierFault, SQLSTATE or "", message without a password
# status as in OPENED, body, columns, codec, negative, durations, fresh_left, tags, bytes, version
_Row: TypeAlias = tuple[
    int, bytes | None, list[str | None] | None, int, bool, _Four, int, list[str] | tuple[()], int, str
]

FOREVER: Final[int]
EARLY_AUTO: Final[float]  # for early: by the measured time of the load
MISSING: Final[Any]  # stands for "no value"

# -------------------------------------------------------------------------------------------------------- raw types

class CacheBase:
    """The core of a Cache."""

    def __init__(self, max_entries: int, max_bytes: int) -> None: ...
    # As their docstrings at run time (cpp/bindings/cache_base.cpp); the reference of Cache is made from these.
    def get(self, key: str, default: Any = None, /) -> Any:
        """The value stored under a str key, or `default`. Never loads; what is not in memory is asked of the remote
        tier, if there is one."""

    def set(self, key: str, value: Any, ttl: float | str | timedelta | None = ..., tags: Iterable[str] = ()) -> bool:
        """Stores `value` under a str key for `ttl`: seconds, text such as "5m", timedelta, None for ever, 0 to store
        nothing.

        Returns:
            False if it was not kept: too large, or 0.

        Raises:
            ConfigError: a ttl that is not accepted, or none here and none given to the Cache.
        """

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
        self, args: tuple[Any, ...], kwargs: dict[str, Any] | None, count: bool = True, asked: int = 0, /
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
    background: bool  # a refresh that no caller waits for
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
    def offer(self, anew: bool, /) -> None: ...  # somebody else may begin the load
    def take(self) -> bool | None: ...  # this thread begins it: whether anew; None: somebody was faster
    def let_go(self) -> None: ...  # the thread that offered it will not begin it

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
    drain: Callable[[Any], None],  # messages of other processes are there: apply them
    count_elsewhere: Callable[[Flight], None],  # a hit of what memory could not keep
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
def set_get_slowly(cache: CacheBase, get_slowly: Any, /) -> None: ...  # asked where `get` finds nothing fresh
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
    since: int,  # of `detach`: lost if something concerned the key after it; 0: does not matter
    answered: bool,  # the remote tier answered
    /,
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
    asked: int = 0,  # NOT_ASKED, AWAY, CONFIRMED of _target: what came of asking the remote tier
) -> tuple[_Step, Any, Flight | None]: ...

# (scope, key, hits, bytes, state) of each entry, what is kept included; scope -1: of all
def snapshot(cache: CacheBase, scope: int, /) -> list[tuple[int, _StoredKey, int, int, int]]: ...
def clear(cache: CacheBase, scope: int, /) -> None: ...  # -1: all
def take_hits(cache: CacheBase, /) -> list[tuple[int, _StoredKey, int]]: ...  # (scope, key, hits) since the last call

# ----------------------------------------------------------------------------------------------------- invalidation

def invalidate_key(cache: CacheBase, scope: int, key: _StoredKey, stale: bool, /) -> bool: ...
def mark(cache: CacheBase, kind: Literal["all", "type", "scope", "tag"], id: int, stale: bool, /) -> None: ...
def fence_pattern(cache: CacheBase, /) -> None: ...
def tag_fingerprint(tag: str, /) -> int: ...

# ---------------------------------------------------------------------------------------------------------- flights

def commit(
    flight: Flight,
    value: object,
    durations: _Durations | None,
    tags: Sequence[int],
    weight: int,
    negative: bool,
    answered: bool = False,  # the remote tier answered
) -> _Stored: ...

# As `commit`, of what a remote tier has: `fresh_left` of the ttl is left.
def adopt(
    flight: Flight,
    value: object,
    durations: _Four,
    fresh_left: int,
    tags: Sequence[int],
    weight: int,
    negative: bool,
    /,
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
def count_remote_hit(flight: Flight, stale: bool, /) -> bool: ...  # whether memory has an entry that counts it
def count_lost_fill(flight: Flight, /) -> None: ...
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
        name: str,
    ) -> None: ...
    def start(self, began: int | None = None) -> RetryAttempt: ...

class RetryAttempt:
    """The state of one retried call."""

    def failed(self, transient: bool, retry_after: int | None, random: float, /) -> int | None: ...
    def failed_inside(self) -> None: ...
    def succeeded(self) -> None: ...
    @property
    def failures(self) -> int: ...
    @property
    def elapsed(self) -> int: ...
    @property
    def stop(self) -> str | None: ...

@final
class RetriedCall:
    """The object behind @retry: a call that costs almost nothing as long as it succeeds."""

    def __new__(cls, function: Callable[..., Any], policy: Any, core: RetryPolicy, is_async: bool) -> RetriedCall: ...
    def __call__(self, *args: Any, **kwargs: Any) -> Any: ...
    def __get__(self, instance: Any, owner: Any = None, /) -> Any: ...
    def __copy__(self) -> RetriedCall: ...
    def __deepcopy__(self, memo: Any, /) -> RetriedCall: ...
    @property
    def policy(self) -> Any: ...

@final
class RetriedAwait:
    """The awaitable of a retried call: as the coroutine's own."""

    def send(self, value: Any, /) -> Any: ...
    def throw(self, *error: Any) -> Any: ...
    def close(self) -> None: ...
    def __await__(self) -> RetriedAwait: ...
    def __iter__(self) -> RetriedAwait: ...
    def __next__(self) -> Any: ...
    @property
    def cr_await(self) -> Any: ...

def set_retry_hooks(recover: Callable[..., Any], arecover: Callable[..., Any], raise_it: object, /) -> None: ...
def retry_tick() -> int: ...
def retry_figures() -> dict[str, tuple[int, int, int, int, int, int, dict[str, int]]]: ...
def reset_retry_figures() -> None: ...

class BreakerCall:
    """A call that a breaker let through. It reports once; dropped without, it was abandoned."""

    def succeeded(self) -> Literal["opened", "closed"] | None: ...  # what that did to the circuit
    def failed(self) -> Literal["opened", "closed"] | None: ...
    def abandoned(self) -> None: ...
    def pass_on(self) -> BreakerCall | None: ...  # None: not held
    @property
    def held(self) -> bool: ...

class Breaker:
    """A circuit breaker."""

    def __init__(
        self, *, consecutive: int, share: float, least_calls: int, window: int, open_for: int, open_most: int
    ) -> None: ...
    def allow(self) -> BreakerCall | None: ...
    def reset(self) -> None: ...
    @property
    def state(self) -> Literal["closed", "open", "half-open"]: ...
    @property
    def retry_in(self) -> int: ...
    @property
    def opened(self) -> int: ...
    @property
    def refused(self) -> int: ...
    @property
    def failures_in_a_row(self) -> int: ...
    @property
    def calls_in_window(self) -> int: ...
    @property
    def failures_in_window(self) -> int: ...

def define_budget(name: str, capacity: int, refund: int, /) -> None: ...  # in thousandths of a token
def budgets() -> dict[str, tuple[int, int]]: ...  # left and at most, in thousandths of a token
def refill_budgets() -> None: ...

# ------------------------------------------------------------------------------------------------------------ antidup

class UpsertPlan:
    """What an upsert writes; its statements. Names are unquoted, tables as they stand in SQL."""

    def __init__(
        self,
        *,
        table: str,
        columns: Sequence[tuple[str, str, str]],  # name, and what a text is cast to, with a size and without
        unique: Sequence[str],
        update: Sequence[str],
        returning: Sequence[str],
        nulls_equal: bool,
        many: bool,  # more than one row is given
        marks: str,  # "": nothing is invalidated
    ) -> None: ...
    @property
    def text(self) -> str: ...
    @property
    def reread_text(self) -> str: ...

# (outcome, returned) per row; whether every row that was written is among them; whether two have one key
def read_upsert(
    rows: Sequence[Sequence[str | None]], given: int, /
) -> tuple[list[tuple[Literal["inserted", "updated", "unchanged"], list[str | None]]], bool, bool]: ...

# (there, as given, returned) per row
def read_reread(rows: Sequence[Sequence[str | None]], given: int, /) -> list[tuple[bool, bool, list[str | None]]]: ...

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
    @property
    def hits(self) -> int: ...

def is_stored_field(name: str, /) -> bool: ...
def is_kept_on_304(name: str, /) -> bool: ...

# ------------------------------------------------------------------------------------------------------- idempotency

# found: state, fingerprint, claimed at, lease until, expires at; the answer: verdict, s to wait
def judge_idempotency(
    found: tuple[str, str, int, int, int] | None, fingerprint: str, now: int, rerun: bool, lost: bool, /
) -> tuple[str, int]: ...
def parse_idempotency_key(field: str, /) -> tuple[str, str | None]: ...  # the key, and what is wrong
def idempotency_sql(schema: str, /) -> dict[str, str]: ...  # quoted; see core/antidup/idempotency.hpp

# ------------------------------------------------------ payloads of a remote tier; only in a build that can have one

OPENED: Final[tuple[str, ...]]  # names of the statuses

def seal(
    namespace: str,
    key: str,
    payload: bytes,
    codec: int,
    negative: bool,
    durations: _Four,
    compress_above: int,  # bytes; 0: never
    /,
) -> bytes: ...

# (status, codec, negative, durations, payload); with a status above 0 nothing else is told
def open_envelope(
    namespace: str,
    key: str,
    stored: bytes,
    max_value: int,
    dictionaries: Dictionaries | None = None,
    type: str = "",
    /,
) -> tuple[int, int, bool, _Four, bytes]: ...
def is_plain(value: object, json: bool = False, /) -> bool: ...  # msgpack (or JSON) keeps it exactly, types included

DICTIONARY_CODEC: Final[int]  # of what holds a dictionary

class Study:
    """Whether a dictionary pays for a type: trained and measured by run(), without the GIL."""

    def run(self) -> None: ...
    @property
    def type(self) -> str: ...
    @property
    def trains(self) -> bool: ...  # else it compares those that there are
    @property
    def adopts(self) -> bool: ...
    @property
    def made(self) -> bool: ...  # the best was made here, and nobody else has it
    @property
    def best(self) -> int: ...  # its number
    @property
    def sizes(self) -> tuple[int, int, int, int]: ...  # held out: raw, without, with the present one, with the best
    def publication(self, namespace: str, sealed_as: str, /) -> bytes: ...  # what is stored for the best

class Dictionaries:
    """The dictionaries of a tier: what values are compressed with, and can be read with."""

    def __init__(self, compress_above: int) -> None: ...
    def seal(
        self,
        namespace: str,
        type: str,
        sealed_as: str,
        payload: bytes,
        codec: int,
        negative: bool,
        durations: _Four,
        private: bool,
        /,
    ) -> bytes: ...
    def lacking(self, request: Request, /) -> list[tuple[str, int]]: ...  # of a look-up: type and number
    def lacks(self, type: str, stored: bytes, /) -> int: ...  # the number that is to be asked for, or 0
    def knows(self, type: str, number: int, /) -> bool: ...
    def known(self) -> list[tuple[str, int]]: ...
    def learn(self, type: str, number: int, request: Request, i: int, namespace: str, sealed_as: str, /) -> bool: ...
    def due(self) -> list[str]: ...  # types
    def begin(self, type: str, /) -> Study | None: ...
    def end(self, study: Study, published: bool, doubts: int, /) -> None: ...
    def doubt(self) -> None: ...
    @property
    def doubts(self) -> int: ...
    def unconfirmed(self) -> list[tuple[str, int, bool]]: ...  # type, number, whether values are compressed with it
    def confirm(self, type: str, number: int, doubts: int, /) -> None: ...
    @staticmethod
    def holds(number: int, request: Request, i: int, namespace: str, sealed_as: str, /) -> int: ...  # ns left, or 0
    def publication(self, type: str, number: int, namespace: str, sealed_as: str, /) -> bytes: ...  # b"": not here
    def figures(self) -> dict[str, Any]: ...
    def after_fork_in_child(self) -> None: ...

# --------------------------------------------------------------- the PostgreSQL tier; only in a build that can have one

class Completions:
    """Requests that ended, for one event loop."""

    def __init__(self) -> None: ...
    def fileno(self) -> int: ...  # readable when there is something to take
    def take(self) -> list[int]: ...  # tokens

class Request:
    """One request and, once it ended well, its answer. Which of the answers it has depends on what made it."""

    timeout: int  # 0: the tier's
    origin: str  # store: what its message to the others says; "": the process
    @property
    def kind(self) -> int: ...
    @property
    def once(self) -> bool: ...  # never done twice
    @property
    def error(self) -> _Error | None: ...
    @property
    def seen(self) -> str: ...  # look_up: the tier's moment
    def opened(
        self, i: int, namespace: str, sealed_as: str, max_value: int, dictionaries: Dictionaries | None = None, /
    ) -> _Row | None: ...  # look_up: of one key
    def payload(self, i: int, /) -> bytes: ...  # look_up: sealed
    @property
    def key(self) -> str: ...  # store
    @property
    def sent(self) -> bytes: ...  # store: the payload that was given
    @property
    def stored(self) -> bool: ...  # store: False: the fence, or what was there, refused it
    @property
    def version(self) -> str: ...  # store
    @property
    def count(self) -> int: ...  # invalidation: entries that it named
    @property
    def taken(self) -> bool: ...  # lease, or a look-up with one
    def with_lease(self, name: str, owner: str, age: int, /) -> None: ...  # a look-up takes it, a store gives it back
    @property
    def outcomes(self) -> list[str]: ...  # poll: "committed", "aborted", "in progress" or "", one per transaction
    @property
    def rows(self) -> list[tuple[str | None, ...]]: ...  # query

def look_up(
    slot: int,
    keys: Sequence[str],
    types: Sequence[str],
    whole: bool = False,  # `seen` and `version` are wanted, also where a fresh value is there
) -> Request: ...
def store(
    slot: int,
    mode: int,  # 0 load, 1 set, 2 add, 3 swap
    key: str,
    type: str,
    payload: bytes,
    born: str,  # load: `seen` of the look-up before it
    expected: str,  # swap: the version
    tags: Sequence[str],
    columns: Sequence[str | None] | None,
    fresh_for: int,
    keep_for: int,
    /,
) -> Request: ...
def invalidation(name: str, soft: bool, /) -> Request: ...
def poll(asked: Sequence[str], /) -> Request: ...  # numbers of transactions whose end is awaited
def lease(takes: bool, key: str, owner: str, age: int, /) -> Request: ...
def flush(batch: int, keys: Sequence[str], types: Sequence[str], hits: Sequence[int], /) -> Request: ...
def query(
    text: str, parameters: Sequence[str | None], timeout: int, once: bool = False
) -> Request: ...  # once: never twice
def check_connection_string(text: str, /) -> str: ...  # what libpq has against it, or ""

class _Health(TypedDict):
    circuit: str  # closed, open, half-open
    parts: int  # servers that it is spread over; 0: it is one
    parts_away: int  # of these, whose circuit is not closed
    connections: int
    waiting: int
    served: int
    round_trips: int
    failures: int
    recent_calls: int
    recent_failures: int
    last_error: _Error | None
    owed_invalidations: int
    owed_writes: int
    written: int
    refused: int
    rejected: int
    dropped: int
    last_rejection: _Error | None
    linked: bool
    polls: int
    told: int
    heard: int
    reconnects: int
    listener_error: _Error | None

class Reader:
    """Reads of the remote tier that are performed without Python: see cpp/bindings/remote_read.hpp."""

    def __init__(
        self,
        tier: RemoteTier,
        dictionaries: Dictionaries,
        namespace: str,
        max_value: int,
        slowly: Callable[..., Any],
        decode: Callable[[bytes], Any] | None,
        codec: int,
        /,
    ) -> None: ...
    @property
    def calm(self) -> bool: ...
    @property
    def ended(self) -> int: ...  # how often something ended the calm
    def end_calm(self) -> None: ...
    def begin_calm(self, ended: int, /) -> None: ...  # unless something ended it since then
    @property
    def get(self) -> Callable[[CacheBase, str, Any], Any]: ...
    def take_served(self) -> int: ...
    # (value, None, None), or (MISSING, the look-up, its error): left to Python
    def read(
        self,
        flight: Flight,
        slot: int,
        key: str,
        type: str,
        decode: Callable[[bytes], Any],
        codec: int,
        lease: str,
        owner: str,
        lease_age: int,
        /,
    ) -> tuple[Any, Request | None, _Error | None]: ...
    # the value, with which the flight has landed; MISSING: left to Python
    def landed(
        self, flight: Flight, request: Request, i: int, decode: Callable[[bytes], Any], codec: int, /
    ) -> Any: ...
    # (step, value, flight, the look-up that is to be asked or None)
    def begin(self, cache: CacheBase, key: str, /) -> tuple[int, Any, Any, Request | None]: ...
    # what memory has, the look-up, (key, flight) of each key in it, (key, step, value, flight) of what Python has to
    # look at; None: a key is not storable as it is
    def begin_many(
        self, cache: CacheBase, keys: list[str], count: bool, /
    ) -> (
        tuple[dict[str, Any], Request | None, list[tuple[str, Flight | None]], list[tuple[str, int, Any, Any]]] | None
    ): ...
    # indices of those that are left to Python
    def land_many(
        self, request: Request, asked: list[tuple[str, Flight | None]], found: dict[str, Any], /
    ) -> list[int]: ...

class RemoteTier:
    """The tier of one cache: connections, what it owes, what other processes say."""

    def run(self, request: Request, /) -> _Error | None: ...
    def post(self, request: Request, completions: Completions, token: int, /) -> None: ...
    def abandon(self, request: Request, /) -> None: ...
    def write_behind(self, store: Request, /) -> None: ...
    def owe_write(self, store: Request, /) -> None: ...
    def owes_writes(self) -> bool: ...
    def overtaken(self, name: str, /) -> None: ...  # the tier took it, and no write that waits is younger
    def owes_set(self, key: str, type: str, /) -> bool: ...  # what the tier has may be older
    def owed_set(self, key: str, type: str, /) -> bytes | None: ...  # its payload, as long as it is fresh
    def owe(self, name: str, soft: bool, /) -> None: ...
    def forget(self, name: str, /) -> None: ...  # an invalidation that nobody waits for
    def took(self) -> None: ...  # a write that was not written behind
    def owes(self) -> bool: ...  # invalidations
    # An owed invalidation does, or one that was delivered after this look-up was asked.
    def concerns(self, key: str, type: str, tags: Sequence[str], look_up: Request, /) -> bool: ...
    def attach(self, cache: CacheBase, strict: bool, /) -> None: ...
    def messages(self) -> tuple[list[tuple[str, bool]], int]: ...  # (name, soft) each, and up to where they go
    def applied(self, until: int, /) -> None: ...
    def moment(self, key: str, /) -> str: ...  # the newest that this process knows of, where it counts for this key
    def trusts(self, key: str, /) -> bool: ...  # a hit of this key is allowed, whatever is known of others
    def is_away(self, key: str, /) -> bool: ...  # the part that has the key did not answer a moment ago
    @property
    def partly(self) -> bool: ...  # it has parts, and one of them answers
    def lost(self) -> None: ...
    def trusted_until(self) -> int: ...  # ns of the cache's clock; for tests
    def used(self) -> None: ...
    def tell(self) -> None: ...
    def hold_lease(self, key: str, owner: str, /) -> None: ...
    def give_back(self, key: str, owner: str) -> None: ...  # drop_lease, and the tier forgets it soon
    def drop_lease(self, key: str, owner: str, /) -> None: ...
    def health(self) -> _Health: ...
    def drain(self, wait: int, /) -> bool: ...
    def close(self, wait: int, /) -> None: ...
    def after_fork_in_child(self, process: str, /) -> None: ...

class PostgresTier(RemoteTier):
    """PostgreSQL."""

    def __init__(
        self,
        connection_string: str,
        namespace: str,
        schema: str,
        process: str,
        setup: Sequence[str],
        pooler: bool,
        connections: int,
        timeout: int,
        most_waiting: int,
        max_lag: int,
        lease_age: int,
    ) -> None: ...
    def add_table(
        self,
        type: str,
        name: str,
        key_column: str,
        columns: Sequence[tuple[str, str]],  # name, SQL type
        has_payload: bool,
        setup: str,
        /,
    ) -> int: ...  # its slot

REDIS_TLS: Final[bool]  # whether this build has TLS for Redis

def check_redis_tls(tls: tuple[bool, str, str, str], /) -> str: ...  # what is wrong with its files, or ""

class RedisTier(RemoteTier):
    """Redis."""

    def __init__(
        self,
        host: str,  # or the path of a Unix socket
        port: int,
        database: int,
        user: str,
        password: str,
        places: Sequence[tuple[str, int]],  # hosts and ports of sentinels, or of a cluster's nodes
        service: str,  # that sentinels know; empty: there are none
        cluster: bool,
        tls: tuple[bool, str, str, str] | None,  # see _redis_tls.RedisTls
        connect_timeout: int,
        namespace: str,
        process: str,
        connections: int,
        timeout: int,
        most_waiting: int,
        max_lag: int,
        lease_age: int,
    ) -> None: ...

# -------------------------------------------------------------------------------------------------------- for tests

def settle(cache: CacheBase, /) -> None: ...
def check_invariants(cache: CacheBase, /) -> bool: ...
