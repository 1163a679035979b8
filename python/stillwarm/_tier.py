"""A cache's remote tier as the Python side sees it: its connection, its errors, its state.

Thread rule: any thread, any loop. What a tier does is written once, as generators that yield requests and are sent the
error of each, or None; `drive` performs them on a thread and `adrive` in a task. Only the waiting differs.
Refuses to know: values (_tier_values), loads (_tier_loads), verbs (_tier_reads, _tier_writes) and invalidation
(_tier_invalidation).
"""

from __future__ import annotations

import logging
import math
import os
import time
import weakref
from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, ClassVar, Final, TypeAlias, TypeVar, cast

from stillwarm import _core, _url
from stillwarm._loops import Loop
from stillwarm._pool import Single
from stillwarm._sql_types import quoted
from stillwarm._tier_health import (
    LOOK_UP,
    Error,
    Health,
    raised,
)
from stillwarm.errors import TierError

if TYPE_CHECKING:
    import asyncio

    from stillwarm._cache import Cache
    from stillwarm._tables import TypedTable
    from stillwarm._tier_settings import TierSettings
    from stillwarm._tier_transactions import Held
    from stillwarm._upsert_table import Target
    from stillwarm.codecs import Codec

T = TypeVar("T")
Steps: TypeAlias = Generator["_core.Request | float", Error, T]  # yields requests, and seconds to wait

LEASE_AGE: Final = 5_000_000_000  # ns
SHARED: Final = 0  # the slot of types without a table of their own
# A right or a table is missing: it will not pass by itself.
_DENIED: Final = ("42501", "42P01", "42703", "3F000")
# The server will take it later: a standby, or a primary that was demoted; tables that are being made; another password.
LATER: Final = ("25006", "42P01", "3F000", "NOAUTH", "WRONGPASS")

_log = logging.getLogger("stillwarm")


class Tier(Health):
    """The remote tier of one cache. Not attached, it only writes: memory asks it nothing."""

    name: ClassVar[str] = "PostgreSQL"
    speaks_sql: ClassVar[bool] = True
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
        super().__init__()
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
        self.closed = False
        self._loops: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Loop] = weakref.WeakKeyDictionary()
        self._last_loop: Loop | None = None  # one of them
        self.core = self._core_for(url, connect_timeout, connections, queue, max_lag, pooler)
        if _url.is_unprotected(url):
            _log.warning(
                "url=%s: what is cached goes to another host without verified TLS%s",
                _url.without_password(url),
                _url.protection(url),
            )
        codec = cache._codec
        self.reader = _core.Reader(
            self.core, self.dictionaries, self.namespace, max_value, type(cache)._get_slowly,
            None if codec is None else codec.plain, 0 if codec is None else codec.id,
        )  # fmt: skip
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
        return self.noted(self.core.run(request), request)

    async def arun(self, request: _core.Request) -> Error:
        """Performs a request on a worker thread, while the loop goes on."""
        import asyncio

        loop = asyncio.get_running_loop()
        of_loop = self._last_loop
        if of_loop is None or of_loop.loop() is not loop:
            of_loop = self._loops.get(loop)
            if of_loop is None:
                of_loop = self._loops[loop] = Loop(loop)
            self._last_loop = of_loop
        token, future = of_loop.expect(loop)
        self.core.post(request, of_loop.completions, token)
        try:
            await future
        except BaseException:
            of_loop.futures.pop(token, None)
            self.core.abandon(request)
            raise
        error = request.error
        if error is None and request.kind == LOOK_UP and self.reader.calm:
            return None  # as most do
        return self.noted(error, request)

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

    # -------------------------------------------------------------------------------------------------------- tables

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
            self.reader.end_calm()
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
        self._last_loop = None
        self._away_until = 0.0
        self.reader.end_calm()  # nobody looks after it yet


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


__all__ = ["Steps", "Tier", "adrive", "drive", "tier_for"]
