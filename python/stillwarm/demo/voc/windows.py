"""The windows in PostgreSQL: their table, and the queries, each in a session of its own.

A load outlives the request that began it, so it must not use the request's session; and one session runs one query at
a time, so three at once need three of them. Every query here opens its own, from the session maker.

Thread rule: one event loop, that of the first query.
Refuses to know: caches and HTTP; who waits for a query, and for how long.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Any, Final, TypeAlias

import psycopg  # noqa: F401  # the engine's driver: who has none shall hear it at the start
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

Window: TypeAlias = dict[str, Any]  # id, start_at, end_at, source; times as ISO 8601 text

AHEAD: Final = timedelta(hours=48)
TABLE: Final = "voc_periods"
_LOCK: Final = 0x766F63  # of the transaction that makes the table: "voc"
_CONNECT: Final = {"connect_timeout": 2, "application_name": "voc"}  # s; libpq has no shorter one

metadata: Final = sa.MetaData()
periods: Final = sa.Table(
    TABLE,
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    sa.Column("start_at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("end_at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("source", sa.Text, nullable=False),
    sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
    sa.UniqueConstraint("start_at", "end_at", name="voc_periods_natural_key"),
    sa.CheckConstraint("end_at > start_at", name="voc_periods_in_order"),
)


class Windows:
    """The table at `url`, asked through SQLAlchemy. Nobody connects before the first query.

    Args:
        before: is awaited before each query, with its name, within its session: a place to make it slow, or to look.
    """

    def __init__(self, url: str, before: Callable[[str], Awaitable[object]] | None = None) -> None:
        self.engine = create_async_engine(
            re.sub(r"^postgres(ql)?(\+\w+)?://", "postgresql+psycopg://", url, count=1),
            pool_timeout=2,
            connect_args=_CONNECT,
        )
        self.sessions: async_sessionmaker[AsyncSession] = async_sessionmaker(self.engine)
        self.before = before
        self.there = False
        self._making = asyncio.Lock()

    async def ensure(self) -> None:
        """Makes the table unless it is there."""
        async with self._making:  # each caller with an attempt of its own: an error belongs to one retry
            if not self.there:
                await self._make()

    async def _make(self) -> None:
        async with self.engine.begin() as connection:
            await connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))  # other workers start too
            await connection.run_sync(metadata.create_all)
        self.there = True

    async def current(self, now: datetime) -> Window | None:
        """The window that `now` is in: of several, the one that began last."""
        query = sa.select(periods).where(periods.c.start_at <= now, periods.c.end_at > now)
        return _first(await self._rows("current", query.order_by(periods.c.start_at.desc()).limit(1)))

    async def next(self, now: datetime) -> Window | None:
        """The first window that begins after `now`."""
        query = sa.select(periods).where(periods.c.start_at > now)
        return _first(await self._rows("next", query.order_by(periods.c.start_at).limit(1)))

    async def upcoming(self, now: datetime) -> list[Window]:
        """The windows that begin in the 48 hours after `now`."""
        query = sa.select(periods).where(periods.c.start_at > now, periods.c.start_at <= now + AHEAD)
        return await self._rows("upcoming", query.order_by(periods.c.start_at))

    async def _rows(self, name: str, query: sa.Select[Any]) -> list[Window]:
        async with self.sessions() as session:
            if self.before is not None:
                await self.before(name)
            return [_window(row) for row in (await session.execute(query)).mappings()]

    async def close(self) -> None:
        await self.engine.dispose()


def _window(row: Any) -> Window:
    times = {name: row[name].isoformat() for name in ("start_at", "end_at")}
    return {"id": row["id"], **times, "source": row["source"]}


def _first(rows: list[Window]) -> Window | None:
    return rows[0] if rows else None


__all__ = ["AHEAD", "TABLE", "Window", "Windows", "metadata", "periods"]
