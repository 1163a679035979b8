"""Where a command of `stillwarm` works: a namespace on PostgreSQL or Redis, with the same methods on either.

Errors end the command with one line and an exit code: 2 wrong arguments, 1 what could not be had.

Thread rule: the main thread only.
Refuses to know: terminals (_cli_output), and what Redis is asked (_cli_redis).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

from stillwarm import _admin, _schema
from stillwarm._admin import Figures, Hot
from stillwarm._apps import App, app_of
from stillwarm._cli_redis import RedisSite
from stillwarm._connect import connect_query, is_redis, shown_url, url_of, without_passwords
from stillwarm._cron import pg_cron_sql
from stillwarm._doctor import Finding, examine
from stillwarm._invalidate_sql import invalidate, tell
from stillwarm._place import Place
from stillwarm._purge import Progress, purge, trim
from stillwarm.errors import ConfigError, StillwarmError, TierRejected


class Site(Protocol):
    """A namespace and what the commands do there."""

    SIZE_OF: str  # what `Figures.shared_table_bytes` is the size of

    def figures(self) -> Figures: ...
    def hot(self, n: int) -> list[Hot]: ...
    def examine(self, app: App) -> list[Finding]: ...

    def invalidate(self, intent: Mapping[str, Any], params: Mapping[str, str], stale: bool) -> int | None:
        """As `Cache.invalidate`, told to every process."""

    def purge(self, progress: Progress, batch: int, caps: Mapping[str, Any]) -> dict[str, int]:
        """Deletes what is over, then what is above `max_rows` and `max_bytes` of caps. Counts per type."""

    def pg_cron_sql(self, batch: int) -> str:
        """What schedules the purge."""


class PostgresSite:
    """A namespace in PostgreSQL."""

    SIZE_OF = "shared table with its indexes"

    def __init__(self, place: Place, url: str) -> None:
        self.place = place
        self._url = url

    def figures(self) -> Figures:
        return _admin.stats(self.place)

    def hot(self, n: int) -> list[Hot]:
        return _admin.top(self.place, n)

    def examine(self, app: App) -> list[Finding]:
        return examine(self.place, self._url, app.cache, app.journals)

    def invalidate(self, intent: Mapping[str, Any], params: Mapping[str, str], stale: bool) -> int | None:
        count = invalidate(self.place, params=params, stale=stale, **intent)
        tell(self.place)
        return count

    def purge(self, progress: Progress, batch: int, caps: Mapping[str, Any]) -> dict[str, int]:
        counts = purge(self.place, progress, batch)
        if caps:
            for name, n in trim(self.place, **caps, batch=batch).items():
                counts[name] = counts.get(name, 0) + n
        return counts

    def pg_cron_sql(self, batch: int) -> str:
        return pg_cron_sql(self.place, batch=batch)


@contextmanager
def errors_as_lines(url: str = "") -> Iterator[None]:
    """Errors as one line each, without the URL's password, and exit codes."""
    import typer

    try:
        yield
    except ConfigError as error:
        print(f"stillwarm: {without_passwords(str(error), url) if url else error}", file=sys.stderr)
        raise typer.Exit(2) from None
    except StillwarmError as error:
        where = f"{shown_url(url)}: " if url else ""
        text = without_passwords(str(error), url) if url else str(error)
        if isinstance(error, TierRejected) and error.sqlstate == "42P01":
            text += " (stillwarm db migrate makes the tables)"
        print(f"stillwarm: {where}{text}", file=sys.stderr)
        raise typer.Exit(1) from None


@contextmanager
def site_of(url: str, namespace: str, schema: str, app: str) -> Iterator[tuple[Site, App]]:
    """The namespace that the arguments name, on PostgreSQL or Redis, and the app."""
    with errors_as_lines():
        address = url_of(url)
        _check_names(namespace, schema)
        loaded = app_of(app)
        on_redis = RedisSite(address, namespace, loaded) if is_redis(address) else None
    if on_redis is None:
        with _connected(address, namespace, schema, loaded, given=bool(app)) as place:
            yield PostgresSite(place, address), loaded
        return
    try:
        with errors_as_lines(address):
            yield on_redis, loaded
    finally:
        on_redis.close()


@contextmanager
def place_of(
    url: str, schema: str, app: str = "", *, namespace: str = "default", only: str
) -> Iterator[tuple[Place, App]]:
    """The namespace in PostgreSQL that the arguments name, and the app. `only` says what no other tier has."""
    with errors_as_lines():
        address = url_of(url, only_sql=only)
        _check_names(namespace, schema)
        loaded = app_of(app)
    with _connected(address, namespace, schema, loaded, given=bool(app)) as place:
        yield place, loaded


def _check_names(namespace: str, schema: str) -> None:
    """Before anything is connected."""
    Place(lambda sql, params: [], namespace, schema, {})


@contextmanager
def _connected(url: str, namespace: str, schema: str, app: App, given: bool) -> Iterator[Place]:
    """Typed tables come from the app if one was given, else from what migrate saved."""
    with errors_as_lines():
        query = connect_query(url)
    try:
        with errors_as_lines(url):
            tables: Mapping[str, Any] = app.tables if given else _schema.declared_tables(query, schema)
            yield Place(query, namespace, schema, tables)
    finally:
        query.close()


__all__ = ["PostgresSite", "Site", "errors_as_lines", "place_of", "site_of"]
