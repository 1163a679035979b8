"""The part of a Cache that writes rows of the app's own: `upsert` and its twin for coroutines.

Thread rule: any thread, any loop.
Refuses to know: how a row is written (_upsert). A cache that is switched off writes too, through a tier of its own that
its memory knows nothing of.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, cast, overload

from stillwarm import _url
from stillwarm._invalidating import no_sql
from stillwarm._shared import Shared

if TYPE_CHECKING:
    from stillwarm._cache import Cache
    from stillwarm._tier import Tier
    from stillwarm._tier_settings import TierSettings
    from stillwarm._types import Duration
    from stillwarm._upsert import Upserted

_making = threading.Lock()  # the tier of a cache that is switched off


class Upserting(Shared):
    """The part of a Cache that writes rows."""

    __slots__ = ()

    _writer: Tier | tuple[str, TierSettings] | None  # of a cache that is switched off

    @overload
    def upsert(
        self,
        table: str,
        row: Mapping[str, Any],
        *,
        unique: str | Iterable[str],
        update: str | Iterable[str] | None = None,
        returning: str | Iterable[str] = (),
        invalidates: Iterable[Mapping[str, Any]] = (),
        timeout: Duration = "5s",
    ) -> Upserted: ...
    @overload
    def upsert(
        self,
        table: str,
        row: Iterable[Mapping[str, Any]],
        *,
        unique: str | Iterable[str],
        update: str | Iterable[str] | None = None,
        returning: str | Iterable[str] = (),
        invalidates: Iterable[Mapping[str, Any]] = (),
        timeout: Duration = "5s",
    ) -> list[Upserted]: ...
    def upsert(
        self,
        table: str,
        row: Any,
        *,
        unique: Any,
        update: Any = None,
        returning: Any = (),
        invalidates: Any = (),
        timeout: Duration = "5s",
    ) -> Any:
        """Writes one row per natural key into a table of the app's own, and says whether it was new.

        One statement for any number of rows: all of them are written or none, with what they invalidate in the same
        transaction. However many callers write the same key at the same time, there is one row, and one of them
        inserted it. A cache that is switched off (`enabled=False`) writes all the same.

        Args:
            table: "table" or "schema.table" in the tier's database, spelled as it is stored.
            row: a mapping of columns to values; or an iterable of them, all with the same columns and each key once.
                Columns that are not given have their default in a new row and keep their value in one that is there.
            unique: the columns of the natural key, over exactly which there must be a unique index. No value of them
                may be None, unless the index has NULLS NOT DISTINCT.
            update: the columns that change in a row that is there; None: all that are given; (): none, so that such a
                row is "unchanged", as is then one that a trigger kept out.
            returning: columns of the row to return, such as an id that the server gave it; "*": all.
            invalidates: what of this cache goes with it, in the words of `invalidate`: `[{"tag": "asin:B07"}]`, with
                key, type, tag or all. It happens if, and only if, a row was inserted or updated; a get that starts
                afterwards never sees what was there before, also where another process wrote the row.
            timeout: for all of it, with repeated attempts after deadlocks and lost connections. Where the answer was
                lost, up to a second more goes into a look at what is there.

        Returns:
            `Upserted(outcome, row)`, or a list of them in the order of the rows. The outcome is "inserted", "updated"
            or "unchanged" (everything is as given already: nothing was written); "written" where the answer was lost
            and a look showed that the row is as given.

        Raises:
            ConfigError: there is no remote tier, an argument is not accepted, or no unique index; nothing was done.
            CodecError: a value cannot be had by its column, and nothing was done; or what `returning=` brought has no
                value in Python (a date before Christ), and it was done: the text says which.
            TierRejected: the server refused it, by a constraint for instance; `sqlstate` says why. Nothing was done.
            TierTimeout: somebody held a lock for too long. Nothing was done.
            TierUnavailable: the tier cannot be reached, and nothing was done; or the answer was lost and the row is not
                there as given, so that nobody knows; or it was done, but `returning=` could not be had: the text says
                which. It was not repeated.
            TierError: it was done, but a trigger kept a row out, or changed its key.
        """
        from stillwarm._tier import drive
        from stillwarm._upsert import upserting

        tier = self._writing()
        steps = upserting(cast("Cache", self), tier, table, row, unique, update, returning, invalidates, timeout)
        done = drive(tier, steps)
        return done[0] if isinstance(row, Mapping) else done

    @overload
    async def aupsert(
        self,
        table: str,
        row: Mapping[str, Any],
        *,
        unique: str | Iterable[str],
        update: str | Iterable[str] | None = None,
        returning: str | Iterable[str] = (),
        invalidates: Iterable[Mapping[str, Any]] = (),
        timeout: Duration = "5s",
    ) -> Upserted: ...
    @overload
    async def aupsert(
        self,
        table: str,
        row: Iterable[Mapping[str, Any]],
        *,
        unique: str | Iterable[str],
        update: str | Iterable[str] | None = None,
        returning: str | Iterable[str] = (),
        invalidates: Iterable[Mapping[str, Any]] = (),
        timeout: Duration = "5s",
    ) -> list[Upserted]: ...
    async def aupsert(
        self,
        table: str,
        row: Any,
        *,
        unique: Any,
        update: Any = None,
        returning: Any = (),
        invalidates: Any = (),
        timeout: Duration = "5s",
    ) -> Any:
        """`upsert` for coroutines. A task that is cancelled meanwhile leaves it done or not done, never half."""
        from stillwarm._tier import adrive
        from stillwarm._upsert import upserting

        tier = self._writing()
        steps = upserting(cast("Cache", self), tier, table, row, unique, update, returning, invalidates, timeout)
        done = await adrive(tier, steps)
        return done[0] if isinstance(row, Mapping) else done

    def _writing(self) -> Tier:
        """The tier that an upsert goes to: that of the cache, or the one that a cache has which is switched off."""
        if self._tier is not None and self._tier.speaks_sql:
            return self._tier
        if self._writer is None:
            raise no_sql("upsert", self._tier is not None)
        if isinstance(self._writer, tuple):
            if _url.scheme_of(self._writer[0]) == "redis":
                raise no_sql("upsert", True)
            from stillwarm._tier import Tier

            with _making:
                if isinstance(self._writer, tuple):
                    url, settings = self._writer
                    self._writer = Tier(cast("Cache", self), url, **settings, attached=False)
        return self._writer


def _after_fork_in_child() -> None:
    global _making
    _making = threading.Lock()  # another thread of the parent may have held it


os.register_at_fork(after_in_child=_after_fork_in_child)

__all__ = ["Upserting"]
