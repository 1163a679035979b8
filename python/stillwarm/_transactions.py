"""`invalidate(connection=...)`: an invalidation that happens if, and only if, the app's own transaction commits.

Thread rule: the caller's thread or task; the connection is the caller's and nobody else uses it meanwhile.
Refuses to know: caches. It inserts a row through whatever connection it is given, and imports no driver.

Known by the package of their class: psycopg, psycopg2, SQLAlchemy (Session, Connection, their asyncio twins), asyncpg.
"""

from __future__ import annotations

import inspect
from typing import Any, Final

from stillwarm._durations import shown
from stillwarm.errors import ConfigError

_ACCEPTED: Final = (
    "an open transaction of psycopg, psycopg2, SQLAlchemy (Session, Connection, AsyncSession, AsyncConnection) or "
    "asyncpg"
)
# Who is asked must be the database that the tier is in: same name, same postmaster, same table.
WHERE: Final = (
    "SELECT current_database() || ' ' || CAST(pg_postmaster_start_time() AS text) || ' ' || "
    "coalesce(CAST(CAST(to_regclass({table}) AS oid) AS text), '-')"
)
_INSERT: Final = (
    "INSERT INTO {table} (namespace, name, soft) SELECT CAST({namespace} AS text), n, CAST({soft} AS boolean) "
    "FROM unnest(CAST({names} AS text[])) AS n RETURNING CAST(xid AS text)"
)


def kind_of(connection: object) -> str:
    """Which driver's connection this is.

    Raises:
        ConfigError: none that is known.
    """
    for cls in type(connection).__mro__:
        package = cls.__module__.partition(".")[0]
        if package in ("psycopg", "psycopg2", "sqlalchemy", "asyncpg"):
            return package
    raise ConfigError(f"connection={shown(connection)}: accepted: {_ACCEPTED}")


def is_async(connection: Any) -> bool:
    """Whether its statements have to be awaited."""
    return kind_of(connection) == "asyncpg" or inspect.iscoroutinefunction(getattr(connection, "execute", None))


def run(connection: Any, text: str, **values: Any) -> str | None:
    """The first column of the first row of a statement, on a synchronous connection.

    Raises:
        ConfigError: the connection is asynchronous.
    """
    if is_async(connection):
        raise ConfigError(f"connection={shown(connection)}: it is asynchronous: use `await cache.ainvalidate(...)`")
    kind = kind_of(connection)
    if kind == "sqlalchemy":
        row = connection.execute(_sqlalchemy(text, values), values).first()
        return None if row is None else str(row[0])
    cursor = connection.cursor()
    try:
        cursor.execute(_formatted(text, values), values)
        row = cursor.fetchone()
    finally:
        cursor.close()
    return None if row is None else str(row[0])


async def arun(connection: Any, text: str, **values: Any) -> str | None:
    """`run` for asynchronous connections; takes a synchronous one too."""
    if not is_async(connection):
        return run(connection, text, **values)
    kind = kind_of(connection)
    if kind == "asyncpg":
        numbered = {name: f"${i}" for i, name in enumerate(values, 1)}
        value = await connection.fetchval(text.format(**numbered), *values.values())
        return None if value is None else str(value)
    if kind == "sqlalchemy":
        row = (await connection.execute(_sqlalchemy(text, values), values)).first()
        return None if row is None else str(row[0])
    cursor = await connection.execute(_formatted(text, values), values)
    row = await cursor.fetchone()
    return None if row is None else str(row[0])


def _formatted(text: str, values: dict[str, Any]) -> str:
    return text.format(**{name: f"%({name})s" for name in values})


def _sqlalchemy(text: str, values: dict[str, Any]) -> Any:
    from sqlalchemy import text as made

    return made(text.format(**{name: f":{name}" for name in values}))


def insert(table: str, namespace: str, names: list[str], soft: bool) -> tuple[str, dict[str, Any]]:
    """The statement and its values."""
    text = _INSERT.replace("{table}", table)
    return text, {"namespace": namespace, "soft": soft, "names": names}


__all__ = ["WHERE", "arun", "insert", "is_async", "kind_of", "run"]
