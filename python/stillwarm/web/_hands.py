"""What the steps of an idempotent route ask for, done on a thread or in a task: the tier, and the handler's connection.

Thread rule: a Hands belongs to its request.
Refuses to know: frameworks (a subclass runs the handler), and when what is asked for.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import re
from typing import TYPE_CHECKING, Any

from stillwarm import _transactions
from stillwarm._durations import shown
from stillwarm._idempotency import Ask, Migrate
from stillwarm.errors import ConfigError
from stillwarm.web._idempotent_steps import End, On, Open, Run

if TYPE_CHECKING:
    from stillwarm._cache import Cache

_PARAMETER = re.compile(r"\$(\d)")


def statement(wish: On) -> tuple[str, dict[str, str | None]]:
    """As `_transactions` takes it: with names."""
    named = {f"p{number}": value for number, value in enumerate(wish.params, 1)}
    return _PARAMETER.sub(r"{p\1}", wish.text), named


def checked(connection: Any) -> Any:
    """The handler's connection, if its transaction can be ended from here.

    Raises:
        ConfigError: it is none of those that are known.
    """
    try:
        kind = _transactions.kind_of(connection)
    except ConfigError as error:
        raise ConfigError(str(error).replace("connection=", "transaction=", 1)) from None
    if kind == "asyncpg" or not callable(getattr(connection, "commit", None)):
        raise ConfigError(
            f"transaction={shown(connection)}: accepted: a connection of psycopg or psycopg2, or SQLAlchemy's Session, "
            "Connection, AsyncSession or AsyncConnection"
        )
    return connection


async def _ended(end: Any) -> None:
    await (end() if inspect.iscoroutinefunction(end) else asyncio.to_thread(end))


class SyncHands:
    """On a thread. A subclass has `call` and `connect`."""

    def __init__(self, cache: Cache) -> None:
        self.cache = cache
        self.connection: Any = None

    def do(self, wish: Any) -> Any:
        if isinstance(wish, Run):
            return self.call()
        if isinstance(wish, Ask):
            assert self.cache._tier is not None
            return self.cache._tier.query(wish.text, wish.params, wish.timeout / 1e9)
        if isinstance(wish, Open):
            self.connection = checked(self.connect())
            if _transactions.is_async(self.connection):
                raise ConfigError(f"transaction={shown(self.connection)}: it is asynchronous, and this route is not")
            return None
        if isinstance(wish, On):
            sql, named = statement(wish)
            return _transactions.run(self.connection, sql, **named)
        if isinstance(wish, End):
            if wish.commit:
                return self.connection.commit()
            if self.connection is not None:
                with contextlib.suppress(Exception):  # it broke: the server rolls back
                    self.connection.rollback()
            return None
        assert isinstance(wish, Migrate)
        return self.cache.migrate()

    def call(self) -> Any:
        raise NotImplementedError

    def connect(self) -> Any:
        raise NotImplementedError


class TaskHands:
    """In a task. A subclass has `call` and `connect`, coroutine functions; what blocks runs on a thread."""

    def __init__(self, cache: Cache) -> None:
        self.cache = cache
        self.connection: Any = None

    async def do(self, wish: Any) -> Any:
        if isinstance(wish, Run):
            return await self.call()
        if isinstance(wish, Ask):
            assert self.cache._tier is not None
            return await self.cache._tier.aquery(wish.text, wish.params, wish.timeout / 1e9)
        if isinstance(wish, Open):
            self.connection = checked(await self.connect())
            return None
        if isinstance(wish, On):
            sql, named = statement(wish)
            if _transactions.is_async(self.connection):
                return await _transactions.arun(self.connection, sql, **named)
            return await asyncio.to_thread(_transactions.run, self.connection, sql, **named)
        if isinstance(wish, End):
            if wish.commit:
                return await _ended(self.connection.commit)
            if self.connection is not None:
                with contextlib.suppress(Exception):  # it broke: the server rolls back
                    await _ended(self.connection.rollback)
            return None
        assert isinstance(wish, Migrate)
        return await asyncio.to_thread(self.cache.migrate)

    async def call(self) -> Any:
        raise NotImplementedError

    async def connect(self) -> Any:
        raise NotImplementedError


__all__ = ["SyncHands", "TaskHands"]
