"""A cache's remote tier as the Python side sees it: its connection, its errors, its state.

Thread rule: any thread, any loop. What a tier does is written once, as generators that yield requests and are sent the
error of each, or None; `drive` performs them on a thread and `adrive` in a task. Only the waiting differs.
Refuses to know: values (_tier_values), loads (_tier_loads), verbs (_tier_verbs), invalidation (_tier_invalidation).
"""

from __future__ import annotations

import logging
import math
import os
import time
import weakref
from collections import deque
from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, TypeAlias, TypeVar, cast

from stillwarm import _core, _url
from stillwarm._loops import Loop
from stillwarm._pool import Single
from stillwarm._sql_types import quoted
from stillwarm._stats import State
from stillwarm.errors import TierError, TierRejected, TierTimeout, TierUnavailable

if TYPE_CHECKING:
    import asyncio

    from stillwarm._cache import Cache
    from stillwarm._tables import TypedTable
    from stillwarm._tier_settings import TierSettings
    from stillwarm._tier_transactions import Held
    from stillwarm._upsert_table import Target
    from stillwarm.codecs import Codec

T = TypeVar("T")
Error: TypeAlias = "tuple[int, str, str] | None"
Steps: TypeAlias = Generator["_core.Request | float", Error, T]  # yields requests, and seconds to wait

OK, UNAVAILABLE, TIMEOUT, REJECTED, IN_DOUBT, FULL, CLOSED = range(7)  # TierFault of core/remote/remote_tier.hpp
_ERRORS: Final[tuple[Literal["last_error", "last_rejection", "listener_error"], ...]] = (
    "last_error",
    "last_rejection",
    "listener_error",
)
LEASE_AGE: Final = 5_000_000_000  # ns
STORE, INVALIDATE, QUERY = 1, 2, 6  # Request.kind of a write, an invalidation, any one statement
SHARED: Final = 0  # the slot of types without a table of their own
# A right or a table is missing: it will not pass by itself.
_DENIED: Final = ("42501", "42P01", "42703", "3F000")
# The server will take it later: a standby, or a primary that was demoted; tables that are being made.
LATER: Final = ("25006", "42P01", "3F000")

_log = logging.getLogger("stillwarm")


def raised(error: tuple[int, str, str]) -> TierError:
    """The exception for an error of the core."""
    fault, state, message = error
    text = f"{message} (SQLSTATE {state})" if state and state not in message else message
    if fault == TIMEOUT:
        return TierTimeout(text)
    if fault == REJECTED:
        return TierRejected(text, state)
    return TierUnavailable(text)


class Tier:
    """The remote tier of one cache. Not attached, it only writes: memory asks it nothing."""

    name: ClassVar[str] = "PostgreSQL"
    speaks_sql: ClassVar[bool] = True
    walks: bool = True  # all of its entries can be looked at: top, shared_stats, purge
    leases_along: bool = False  # a look-up may take a lease, and a store give it back
    denied: ClassVar[tuple[str, ...]] = _DENIED  # errors that will not pass by themselves

    def __init__(
        self,
        cache: Cache,
        url: str,
        *,
        schema: str,
        strict: bool,
        max_lag: int,
        connect_timeout: int,
        timeout: int,
        connections: int,
        queue: int,
        pooler: bool,
        max_value: int,
        compress_above: int,
        unlogged: bool,
        attached: bool = True,
    ) -> None:
        self._cache = weakref.ref(cache)
        self.url = url
        self.namespace = cache.namespace
        self.schema = schema
        self.strict = strict
        self.timeout = timeout
        self.max_value = max_value
        self.dictionaries = _core.Dictionaries(compress_above)
        self.dictionary_work = Single()
        self.unlogged = unlogged
        self.process = _new_process()
        self.tables: dict[str, tuple[int, TypedTable]] = {}
        self.targets: dict[str, Target] = {}  # tables that were upserted into, as the catalog had them
        self.pending: list[Held] = []  # what open transactions invalidate
        self.errors = 0
        self.undecodable: dict[str, int] = {}
        self.closed = False
        self._said: set[str] = set()
        self._denied: dict[int, str] = {}  # kind of request -> SQLSTATE that its last one met
        self._recent: deque[tuple[float, bool]] = deque(maxlen=512)  # (moment, whether it failed)
        self._loops: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Loop] = weakref.WeakKeyDictionary()
        self._away_until = 0.0
        self.core = self._core_for(url, connect_timeout, connections, queue, max_lag, pooler)
        if _url.is_unprotected(url):
            _log.warning(
                "url=%s: what is cached goes to another host without verified TLS%s",
                _url.without_password(url),
                _url.protection(url),
            )
        if attached:
            self.core.attach(cache, strict)

    def _core_for(
        self, url: str, connect_timeout: int, connections: int, queue: int, max_lag: int, pooler: bool
    ) -> _core.RemoteTier:
        from stillwarm import _schema

        connection = _url.connection_string(
            url,
            connect_timeout=-(-connect_timeout // 1_000_000_000),
            statement_timeout=None if pooler else max(1, self.timeout // 1_000_000),
        )
        setup = _schema.setup(schema=self.schema, unlogged=self.unlogged)
        return _core.PostgresTier(
            connection, self.namespace, self.schema, self.process, setup, pooler, connections, self.timeout, queue,
            max_lag, LEASE_AGE,
        )  # fmt: skip

    @property
    def codec(self) -> Codec:
        """That of direct keys."""
        codec = self.cache._codec
        assert codec is not None
        return codec

    @property
    def cache(self) -> Cache:
        """The cache, which owns this."""
        cache = self._cache()
        if cache is None:
            raise RuntimeError("the cache of this tier is gone")
        return cache

    def used(self) -> Cache:
        """The cache, whose upkeep goes on: the tier is about to be asked."""
        cache = self.cache
        if cache._upkeep is not None:
            cache._upkeep.used()
        return cache

    # ------------------------------------------------------------------------------------------------------ requests

    def run(self, request: _core.Request) -> Error:
        """Performs a request on this thread."""
        return self._noted(self.core.run(request), request)

    async def arun(self, request: _core.Request) -> Error:
        """Performs a request on a worker thread, while the loop goes on."""
        import asyncio

        loop = asyncio.get_running_loop()
        of_loop = self._loops.get(loop)
        if of_loop is None:
            of_loop = self._loops[loop] = Loop(loop)
        token, future = of_loop.expect()
        self.core.post(request, of_loop.completions, token)
        try:
            await future
        except BaseException:
            of_loop.futures.pop(token, None)
            self.core.abandon(request)
            raise
        return self._noted(request.error, request)

    def _noted(self, error: Error, request: _core.Request) -> Error:
        kind_of_request = request.kind
        if error is not None and kind_of_request == QUERY and request.once and error[1]:
            return error  # the server's answer about a row of the app's: the tier works
        self._recent.append((time.monotonic(), error is not None))
        if error is None:
            self._away_until = 0.0
            self._denied.pop(kind_of_request, None)
            if kind_of_request == STORE:
                self.core.took()
            return None
        if error[0] == REJECTED and error[1] in self.denied and (self.speaks_sql or kind_of_request != QUERY):
            self._denied[kind_of_request] = error[1]
        self.errors += 1
        if error[0] != REJECTED:
            self._away_until = time.monotonic() + 0.1
        kind = error[1] or error[2]
        if kind not in self._said and error[0] != CLOSED:
            if len(self._said) > 100:
                self._said.clear()
            self._said.add(kind)
            _log.warning("the %s tier failed: %s; it is said once", self.name, raised(error))
        return error

    def query(self, sql: str, params: Sequence[str | None] = (), timeout: float = 5.0) -> list[tuple[str | None, ...]]:
        """Any one statement with `$1` parameters, as a transaction of its own; rows of text.

        `timeout` in s; 0: the tier's own.

        Raises:
            TierError: what the server or the connection said.
        """
        request = _core.query(sql, list(params), int(timeout * 1e9))
        error = self.run(request)
        if error is not None:
            raise raised(error)
        return request.rows

    async def aquery(
        self, sql: str, params: Sequence[str | None] = (), timeout: float = 5.0
    ) -> list[tuple[str | None, ...]]:
        """`query` for coroutines."""
        request = _core.query(sql, list(params), int(timeout * 1e9))
        error = await self.arun(request)
        if error is not None:
            raise raised(error)
        return request.rows

    def cause_of(self, error: TierError) -> TierError:
        """What was wrong before: that the circuit is open is not it."""
        return error if (cause := self.core.health()["last_error"]) is None else raised(cause)

    def was_done(self, name: str, origin: str, moment: str) -> Steps[bool | None]:
        """Whether the write of this origin was done, whose answer was lost. None: nobody says.

        What is there does not say it: an equal value may be another's. The message that the write left has its origin.

        Args:
            moment: of the tier, before the write.
        """
        sql = f"SELECT 1 FROM {quoted(self.schema)}.invalidations WHERE namespace = $1 AND name = $2 AND origin = $3"
        request = _core.query(sql, [self.namespace, name, origin], 0)
        error = yield request
        return None if error is not None else len(request.rows) > 0

    # --------------------------------------------------------------------------------------------------------- state

    @property
    def away(self) -> bool:
        """The tier did not answer a moment ago: memory goes on without asking."""
        return time.monotonic() < self._away_until

    @property
    def state(self) -> State:
        """As `Cache.state` says it."""
        health = self.core.health()
        gone = health["connections"] == 0 and not health["linked"] and health["last_error"] is not None  # idle: linked
        rejection = health["last_rejection"]
        if not health["owed_invalidations"]:
            self._denied.pop(INVALIDATE, None)
        denied = self._denied or (rejection is not None and rejection[1] in self.denied)
        if health["circuit"] != "closed" or gone or denied:
            return State.DOWN
        unlinked = health["reconnects"] and not health["linked"]
        if (
            health["owed_invalidations"]
            or health["owed_writes"]
            or unlinked
            or rejection is not None
            or self.error_share() > 0.05
        ):
            return State.DEGRADED
        return State.HEALTHY

    def figures(self) -> dict[str, Any]:
        """What `Stats.tier` shows."""
        health = self.core.health()
        told: dict[str, Any] = {"name": self.name, **health, "undecodable": dict(self.undecodable)}
        told["compression"] = self.dictionaries.figures()
        for name in _ERRORS:
            error = health[name]
            told[name] = None if error is None else str(raised(error))
        return told

    def error_share(self) -> float:
        """Failed requests of the last 10 s, 0 to 1."""
        since = time.monotonic() - 10
        recent = [failed for moment, failed in list(self._recent) if moment >= since]
        return sum(recent) / len(recent) if recent else 0.0

    def say_once(self, level: int, what: str, text: str, *args: object) -> None:
        """Logs the first time, per `what`."""
        if what not in self._said:
            self._said.add(what)
            _log.log(level, text, *args)

    def slot_of(self, type_name: str) -> int:
        """The number of the table that a type's values are in."""
        known = self.tables.get(type_name)
        return SHARED if known is None else known[0]

    def add_table(self, table: TypedTable) -> None:
        """A type gets a table of its own."""
        from stillwarm import _schema

        assert isinstance(self.core, _core.PostgresTier)
        slot = self.core.add_table(
            table.type,
            f'"{table.table}"',
            table.key_column,
            [(column.name, column.type) for column in table.columns],
            table.value is None,
            _schema.setup([table], schema=self.schema, unlogged=self.unlogged)[0],
        )
        self.tables[table.type] = (slot, table)

    # ---------------------------------------------------------------------------------------------------- end, fork

    def close(self, wait: float, until: float = math.inf) -> None:
        """Writes what is owed, then ends the connections: at most `wait` s each, and no waiting after `until`."""
        if not self.closed:
            self.closed = True
            for step in (self.core.drain, self.core.close):
                step(int(max(0.0, min(wait, until - time.monotonic())) * 1e9))

    def after_fork_in_child(self) -> None:
        self.process = _new_process()
        self.core.after_fork_in_child(self.process)
        self.dictionaries.after_fork_in_child()
        self.dictionary_work = Single()  # the parent's thread may hold its lock
        self.pending.clear()
        self._denied.clear()
        self._loops = weakref.WeakKeyDictionary()
        self._away_until = 0.0


def tier_for(cache: Cache, url: str, settings: TierSettings) -> Tier:
    """The tier that a URL means.

    Raises:
        ConfigError: the URL cannot be read.
    """
    if _url.scheme_of(url) == "redis":
        from stillwarm._tier_redis import RedisTier

        return RedisTier(cache, url, **settings)
    return Tier(cache, url, **settings)


def drive(tier: Tier, steps: Steps[T]) -> T:
    """Performs the steps on this thread."""
    try:
        request = next(steps)
        while True:
            if isinstance(request, float):
                time.sleep(request)
                error = None
            else:
                error = tier.run(request)
            request = steps.send(error)
    except StopIteration as stop:
        return cast("T", stop.value)
    finally:
        steps.close()


async def adrive(tier: Tier, steps: Steps[T]) -> T:
    """`drive` for a task."""
    import asyncio

    try:
        request = next(steps)
        while True:
            if isinstance(request, float):
                await asyncio.sleep(request)
                error = None
            else:
                error = await tier.arun(request)
            request = steps.send(error)
    except StopIteration as stop:
        return cast("T", stop.value)
    finally:
        steps.close()


def _new_process() -> str:
    return os.urandom(12).hex()


__all__ = ["Steps", "Tier", "adrive", "drive", "raised", "tier_for"]
