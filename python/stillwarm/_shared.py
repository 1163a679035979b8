"""What a cache does with its remote tier as a database: find, top, figures, purge, trim, check.

On Redis there are top, figures, purge and check; the rest needs tables and says so.

Thread rule: any thread; the `a` twins run the plain ones on another thread and wait for them.
Refuses to know: SQL (_admin, _purge, _schema), Redis (_admin_redis), and how values get in and out.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from stillwarm import _core, _dictionaries, _tier_values
from stillwarm._invalidating import NO_TIER
from stillwarm._observed import count
from stillwarm._prefetch import Prefetching
from stillwarm._stats import HotKey
from stillwarm._tier import drive
from stillwarm.errors import CodecError, ConfigError, TierError, TierRejected, TierUnavailable

if TYPE_CHECKING:
    from typing import ParamSpec

    from stillwarm._admin import Figures, Found
    from stillwarm._admin_redis import RedisPlace
    from stillwarm._schema import Migrated
    from stillwarm._verify import Report
    from stillwarm.codecs import Codec

    P = ParamSpec("P")

T = TypeVar("T")
Progress = Callable[[int, int], object]


class Shared(Prefetching):
    """The part of a Cache that asks its database."""

    __slots__ = ()

    _codecs: dict[str, list[Codec]]

    def find(
        self,
        *,
        type: str | None = None,
        tag: str | None = None,
        where: str | None = None,
        params: Mapping[str, Any] | None = None,
        limit: int = 100,
    ) -> list[Found]:
        """Living entries of the remote tier in the order of their keys.

        Args:
            type: of this type only.
            tag: with this tag only.
            where: a condition in SQL over the columns of `type=`, which has a table of its own; `:name` are `params`.
            limit: at most so many, 1 to 100,000.

        Returns:
            Records with key, type, value, created_at, fresh_until, expires_at, hit_count and tags. `value` is what was
            stored; of a type with a table of its own the columns as a dict; bytes where no function here reads it.

        Raises:
            ConfigError: there is no remote tier, or an argument is not accepted.
            TierError: the database did not answer.
        """
        from stillwarm import _admin

        found = _admin.find(self._place(), type=type, tag=tag, where=where, params=params, limit=limit)
        return [dataclasses.replace(one, value=self._readable_value(one)) for one in found]

    def _readable_value(self, one: Found) -> Any:
        if not isinstance(one.value, bytes):
            return one.value
        assert self._tier is not None
        place = _tier_values.Place(one.key, one.type, 0)
        tier = self._tier
        arguments = (tier.namespace, place.sealed_as, one.value, tier.max_value, tier.dictionaries, one.type)
        status, codec_id, negative, _, body = _core.open_envelope(*arguments)
        if _core.OPENED[status] == "no_dictionary":
            number = tier.dictionaries.lacks(one.type, one.value)
            if number and drive(tier, _dictionaries.fetch(tier, [(one.type, number)])):
                status, codec_id, negative, _, body = _core.open_envelope(*arguments)
        if status != 0 or negative:
            return None if negative else one.value
        for codec in (*self._codecs.get(one.type, ()), self._codec):
            if codec is not None and codec.matches(codec_id):
                try:
                    return codec.decode(body)
                except CodecError:
                    continue
        return one.value

    def top(self, n: int = 10) -> list[HotKey]:
        """The `n` most used entries, the most used first: of the remote tier, by the hits of all processes; without
        one, or while it does not answer, of memory. Memory's reads every entry."""
        count(n, "n", 2**31)
        if self._tier is None:
            return super().top(n)
        from stillwarm import _admin, _admin_redis

        most = min(n, 100_000)
        try:
            self._flush_hits()
            on_redis = self._place_redis()
            found = _admin.top(self._place(), most) if on_redis is None else _admin_redis.top(on_redis, most)
            return [HotKey(one.key, one.type, one.hits, 0) for one in found]
        except TierError:
            return super().top(n)

    def shared_stats(self) -> Figures:
        """Figures per type of what the remote tier holds: entries, hits, average_hits, expired, bytes, table.

        On Redis it walks over all keys of the database, in bounded steps; hits are kept of the 10,000 most used, and
        `expired` are those that an invalidation made invalid: the server drops what is over by itself.

        Raises:
            ConfigError: there is no remote tier.
            TierError: the database did not answer.
        """
        from stillwarm import _admin, _admin_redis

        self._flush_hits()
        on_redis = self._place_redis()
        return _admin.stats(self._place()) if on_redis is None else _admin_redis.stats(on_redis)

    def purge(self, progress: Progress | None = None, *, batch: int = 1000) -> dict[str, int]:
        """Deletes from the remote tier what is expired or invalidated; counts of rows per type. One process at a time.

        It happens by itself every `purge_every`. `progress` is called with how many rows are done, and of how many; on
        Redis with how many keys of the database were looked at, and of how many.

        Raises:
            ConfigError: there is no remote tier, or an argument is not accepted.
            TierError: the database did not answer.
        """
        from stillwarm import _admin_redis, _purge

        on_redis = self._place_redis()
        if on_redis is not None:
            return _admin_redis.purge(on_redis, progress, batch)
        return _purge.purge(self._place(), progress, batch)

    def trim(self, *, max_rows: int | None = None, max_bytes: int | str | None = None) -> dict[str, int]:
        """Deletes the least used entries of the remote tier until it holds so much; counts of rows per type.

        Raises:
            ConfigError: there is no remote tier, or neither limit is given.
            TierError: the database did not answer.
        """
        from stillwarm import _purge

        self._flush_hits()
        return _purge.trim(self._place(), max_rows=max_rows, max_bytes=max_bytes)

    def migrate(self, tables: Iterable[Any] = ()) -> Migrated:
        """Makes the tables of this cache in its database, or brings them to the layout of this version.

        It is safe at every start of every process. `tables` are further ones, such as a Journal.

        Raises:
            ConfigError: there is no remote tier, or the schema was made by a newer version.
            TierError: the database did not do it.
        """
        from stillwarm import _schema

        place = self._place()
        assert self._tier is not None
        own = [table for table in self.tables.values() if table is not None]
        return _schema.migrate(place.query, [*own, *tables], schema=place.schema, unlogged=self._tier.unlogged)

    def verify(self, tables: Iterable[Any] = ()) -> Report:
        """Compares the tables in the database with what this version and the types here expect.

        Raises:
            ConfigError: there is no remote tier.
            TierError: the database did not answer.
        """
        from stillwarm import _verify

        place = self._place()
        assert self._tier is not None
        own = [table for table in self.tables.values() if table is not None]
        return _verify.verify(place.query, [*own, *tables], schema=place.schema, unlogged=self._tier.unlogged)

    def check(self) -> None:
        """Raises what is wrong with the remote tier: password, rights, a missing table, no answer. Nothing: it works.

        Raises:
            TierError: with what the server said.
        """
        tier = self._tier
        if tier is None:
            return
        if not tier.speaks_sql:
            from stillwarm import _admin_redis

            return _admin_redis.check(tier)
        place = self._place()
        needs = "SELECT, INSERT, UPDATE, DELETE"
        try:
            # Of several privileges in one text the function wants only one.
            rows = tier.query(
                "SELECT bool_and(has_table_privilege(t, p)) FROM unnest($1::text[]) AS t, unnest($2::text[]) AS p",
                [
                    _array(map(place.table, ("entries", "invalidations", "leases", "flushes", "idempotency"))),
                    _array(needs.split(", ")),
                ],
            )
        except TierRejected as error:
            if error.sqlstate not in ("42P01", "3F000"):
                raise
            self.migrate()  # the first to come makes them
            return
        except TierUnavailable as error:
            raise tier.cause_of(error) from None
        if rows[0] != ("t",):
            raise TierRejected(f"the user may not use the tables of the schema {tier.schema}: grant {needs}", "42501")

    async def afind(self, **arguments: Any) -> list[Found]:
        """`find` for coroutines."""
        return await _in_thread(self.find, **arguments)

    async def atop(self, n: int = 10) -> list[HotKey]:
        """`top` for coroutines."""
        return await _in_thread(self.top, n)

    async def ashared_stats(self) -> Figures:
        """`shared_stats` for coroutines."""
        return await _in_thread(self.shared_stats)

    async def apurge(self, progress: Progress | None = None, *, batch: int = 1000) -> dict[str, int]:
        """`purge` for coroutines; `progress` is called on another thread."""
        return await _in_thread(self.purge, progress, batch=batch)

    async def atrim(self, **limits: Any) -> dict[str, int]:
        """`trim` for coroutines."""
        return await _in_thread(self.trim, **limits)

    async def amigrate(self, tables: Iterable[Any] = ()) -> Migrated:
        """`migrate` for coroutines."""
        return await _in_thread(self.migrate, tables)

    async def averify(self, tables: Iterable[Any] = ()) -> Report:
        """`verify` for coroutines."""
        return await _in_thread(self.verify, tables)

    async def acheck(self) -> None:
        """`check` for coroutines."""
        await _in_thread(self.check)

    def query(self, sql: str, params: Iterable[Any] = (), *, timeout: float = 5.0) -> list[tuple[str | None, ...]]:
        """Any one statement with `$1` parameters in the tier's database; rows of text. For journals and tools.

        Raises:
            ConfigError: there is no remote tier.
            TierError: what the server or the connection said.
        """
        self._place()  # raises where there is no SQL
        assert self._tier is not None
        texts = [None if p is None else str(p) for p in params]
        return self._tier.query(sql, texts, timeout)

    def _place_redis(self) -> RedisPlace | None:
        """Where this cache's entries are, if that is Redis.

        Raises:
            ConfigError: there is no remote tier.
        """
        tier = self._tier
        if tier is None:
            raise ConfigError(NO_TIER)
        if tier.speaks_sql:
            return None
        from stillwarm import _admin_redis

        return _admin_redis.place_of(tier, (*self._type_ids, _tier_values.DIRECT))

    def _flush_hits(self) -> None:
        if self._tier is None:
            raise ConfigError(NO_TIER)
        if self._upkeep is not None:
            self._upkeep.flush()


def _array(texts: Iterable[str]) -> str:
    return "{" + ",".join('"' + text.replace('"', '\\"') + '"' for text in texts) + "}"


async def _in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    import asyncio

    return await asyncio.to_thread(function, *args, **kwargs)


__all__ = ["Shared"]
