"""The commands of `stillwarm` on PostgreSQL or Redis: stats, top, invalidate, purge, doctor; db on the first alone.

Exit codes: 0 done, 1 something is wrong or could not be had, 2 wrong arguments.

Thread rule: the main thread only.
Refuses to know: what the statements do. It shows what others found, and no password.
"""

# Typer reads the annotations of functions whose names are local here: no `from __future__ import annotations`.
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Annotated, Any, Literal, overload

from stillwarm import _admin, _schema
from stillwarm._apps import App, app_of
from stillwarm._cli_redis import RedisAt
from stillwarm._connect import connect_query, is_redis, shown_url, url_of, without_passwords
from stillwarm._cron import pg_cron_sql
from stillwarm._doctor import examine
from stillwarm._invalidate_sql import invalidate, tell
from stillwarm._place import Place
from stillwarm._purge import purge, trim
from stillwarm._verify import Report, verify
from stillwarm.errors import ConfigError, StillwarmError, TierRejected

if TYPE_CHECKING:
    import typer

URL_HELP = "postgresql://user@host/database or redis://host:6379/0; else STILLWARM_URL, DATABASE_URL or REDIS_URL."


def add_commands(app: "typer.Typer") -> None:
    """Adds the commands to the app of `cli`."""
    import typer

    url_option = typer.Option("--url", help=URL_HELP)
    namespace_option = typer.Option("--namespace", envvar="STILLWARM_NAMESPACE", help="The cache's namespace.")
    app_option = typer.Option("--app", metavar="MODULE:CACHE", help="Where the app has its cache or its tables.")
    json_option = typer.Option("--json", help="Print one JSON document.")
    schema_option = typer.Option("--schema", help="stillwarm's schema.")

    Url = Annotated[str, url_option]  # noqa: N806
    Namespace = Annotated[str, namespace_option]  # noqa: N806
    Schema = Annotated[str, schema_option]  # noqa: N806
    Json = Annotated[bool, json_option]  # noqa: N806
    AppName = Annotated[str, app_option]  # noqa: N806

    @app.command(help="Show figures per type: entries, reuse, expired, size.")
    def stats(
        url: Url = "", namespace: Namespace = "default", schema: Schema = "stillwarm", app: AppName = "",
        as_json: Json = False,
    ) -> None:  # fmt: skip
        with _place(url, namespace, schema, app, redis=True) as (place, _, _):
            on_redis = place if isinstance(place, RedisAt) else None
            figures = _admin.stats(place) if isinstance(place, Place) else place.figures()
            rows = [
                {"type": name, "entries": one.entries, "hits": one.hits, "average_hits": round(one.average_hits, 2),
                 "expired": one.expired, "bytes": one.bytes, "table": one.table}
                for name, one in figures.types.items()
            ]  # fmt: skip
            if as_json:
                _print_json({"namespace": namespace, "types": rows, "shared_table_bytes": figures.shared_table_bytes})
            else:
                _print_table(rows, ["type", "entries", "hits", "average_hits", "expired", "bytes", "table"])
                what = "shared table with its indexes" if on_redis is None else "entries as stored"
                print(f"{what}: {figures.shared_table_bytes} bytes")

    @app.command(help="Show the most reused entries.")
    def top(
        n: Annotated[int, typer.Option("-n", min=1, max=100_000, help="How many.")] = 10,
        url: Url = "", namespace: Namespace = "default", schema: Schema = "stillwarm", app: AppName = "",
        as_json: Json = False,
    ) -> None:  # fmt: skip
        with _place(url, namespace, schema, app, redis=True) as (place, _, _):
            found = _admin.top(place, n) if isinstance(place, Place) else place.hot(n)
            rows = [{"hits": hot.hits, "type": hot.type, "key": hot.key} for hot in found]
            _print_json(rows) if as_json else _print_table(rows, ["hits", "type", "key"])

    @app.command(
        "invalidate", help="Invalidate by one of --key, --type, --tag, --pattern, --where (with --type), --all."
    )
    def invalidate_(
        key: Annotated[str, typer.Option(help="One readable key.")] = "",
        type: Annotated[str, typer.Option(help="A type.")] = "",
        tag: Annotated[str, typer.Option(help="A tag.")] = "",
        pattern: Annotated[str, typer.Option(help="A glob over readable keys.")] = "",
        where: Annotated[str, typer.Option(help="An SQL condition over the columns of --type.")] = "",
        param: Annotated[list[str] | None, typer.Option("--param", metavar="NAME=VALUE", help="For --where.")] = None,
        everything: Annotated[bool, typer.Option("--all", help="Everything of the namespace.")] = False,
        stale: Annotated[bool, typer.Option("--stale", help="Mark as stale instead of dropping.")] = False,
        url: Url = "", namespace: Namespace = "default", schema: Schema = "stillwarm", app: AppName = "",
        as_json: Json = False,
    ) -> None:  # fmt: skip
        intent: dict[str, Any] = {"key": key, "type": type, "tag": tag, "pattern": pattern, "where": where}
        intent = {name: value for name, value in intent.items() if value}
        if everything:
            intent["all"] = True
        params = dict(one.partition("=")[::2] for one in param or [])
        with _place(url, namespace, schema, app, redis=True) as (place, _, _):
            if isinstance(place, Place):
                count = invalidate(place, params=params, stale=stale, **intent)
                tell(place)
            else:
                count = place.invalidate(intent, stale)
            if as_json:
                _print_json({"count": count})
            else:
                print("invalidated" if count is None else f"invalidated {count}")

    @app.command("purge", help="Delete what is expired or invalidated; with --max-rows or --max-bytes, cap it too.")
    def purge_(
        batch: Annotated[int, typer.Option(min=1, max=100_000, help="Rows per statement.")] = 1000,
        max_rows: Annotated[int | None, typer.Option(min=0, help="Keep at most so many rows.")] = None,
        max_bytes: Annotated[str, typer.Option(help='Keep at most so much, such as "256MB".')] = "",
        pg_cron: Annotated[bool, typer.Option("--pg-cron", help="Print SQL that schedules it in pg_cron.")] = False,
        url: Url = "", namespace: Namespace = "default", schema: Schema = "stillwarm", app: AppName = "",
        as_json: Json = False,
    ) -> None:  # fmt: skip
        with _place(url, namespace, schema, app, redis=True) as (place, _, _):
            if not isinstance(place, Place):
                if pg_cron or max_rows is not None or max_bytes:
                    raise ConfigError(
                        "--pg-cron, --max-rows, --max-bytes need PostgreSQL; what Redis holds at most is its "
                        "maxmemory, with maxmemory-policy allkeys-lru"
                    )
                with _bar("purge") as progress:
                    counts = place.purge(progress, batch)
            elif pg_cron:
                sys.stdout.write(pg_cron_sql(place, batch=batch))
                return
            else:
                with _bar("purge") as progress:
                    counts = purge(place, progress, batch)
            if isinstance(place, Place) and (max_rows is not None or max_bytes):
                for name, n in trim(place, max_rows=max_rows, max_bytes=max_bytes or None, batch=batch).items():
                    counts[name] = counts.get(name, 0) + n
            if as_json:
                _print_json(counts)
            else:
                _print_table([{"type": name, "rows": n} for name, n in counts.items()], ["type", "rows"])

    @app.command(help="Find what is wrong, and say what to do. Exits with 1 if something is.")
    def doctor(
        url: Url = "", namespace: Namespace = "default", schema: Schema = "stillwarm", app: AppName = "",
        as_json: Json = False,
    ) -> None:  # fmt: skip
        with _place(url, namespace, schema, app, redis=True) as (place, loaded, address):
            if isinstance(place, Place):
                found = examine(place, address, loaded.cache, loaded.journals)
            else:
                found = place.examine(loaded.cache)
            if as_json:
                _print_json([{"level": one.level, "what": one.what, "advice": one.advice} for one in found])
            else:
                for one in found:
                    _say(f"{one.level}: {one.what}", "bold red" if one.level == "wrong" else "yellow")
                    print(f"    {one.advice}")
                if not found:
                    print("nothing found")
            if any(one.level == "wrong" for one in found):
                raise typer.Exit(1)

    db = typer.Typer(help="The tables in the database.", no_args_is_help=True, rich_markup_mode=None)
    app.add_typer(db, name="db")

    @db.command(help="Print the SQL that migrate runs. Needs no server if --app names the tables.")
    def sql(
        url: Url = "", schema: Schema = "stillwarm", app: AppName = "", unlogged: bool = False
    ) -> None:  # fmt: skip
        with _guarded():
            tables: Sequence[Any] = app_of(app).all_tables() if app else []
            if not app and url:
                with _place(url, "default", schema, "", only="stillwarm db") as (place, _, _):
                    tables = place.typed
            print(_schema.sql(tables, schema=schema, unlogged=unlogged) + ";")

    @db.command(help="Make the tables, or bring them forward from an earlier layout.")
    def migrate(
        url: Url = "", schema: Schema = "stillwarm", app: AppName = "", unlogged: bool = False, as_json: Json = False
    ) -> None:
        with _place(url, "default", schema, app, only="stillwarm db") as (place, loaded, _):
            done = _schema.migrate(place.query, [*place.typed, *loaded.journals], schema=schema, unlogged=unlogged)
            if as_json:
                _print_json({"already": done.already, "schema_version": done.schema_version,
                             "tables": list(done.tables), "collapsed": dict(done.collapsed)})  # fmt: skip
            elif done.already:
                print(f"nothing to do: version {done.schema_version}")
            else:
                print(f"migrated to version {done.schema_version}: {', '.join(done.tables)}")
                for name, n in done.collapsed.items():
                    print(f"{name}: {n} rows of the earlier layout became one with a newer row of the same key")

    @db.command("verify", help="Compare the database with the layouts. Exits with 1 if they differ.")
    def verify_(
        url: Url = "", schema: Schema = "stillwarm", app: AppName = "", unlogged: bool = False, as_json: Json = False
    ) -> None:
        with _place(url, "default", schema, app, only="stillwarm db") as (place, loaded, _):
            report = verify(place.query, [*place.typed, *loaded.journals], schema=schema, unlogged=unlogged)
            if as_json:
                _print_json(report.as_dict())
            else:
                _print_report(report)
            if not report.ok:
                raise typer.Exit(1)


@contextmanager
def _guarded(url: str = "") -> Iterator[None]:
    """Errors as one line each, and exit codes."""
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


@overload
def _place(
    url: str, namespace: str, schema: str, app: str, *, redis: Literal[True]
) -> AbstractContextManager[tuple[Place | RedisAt, App, str]]: ...
@overload
def _place(
    url: str, namespace: str, schema: str, app: str, *, only: str
) -> AbstractContextManager[tuple[Place, App, str]]: ...
@contextmanager
def _place(
    url: str, namespace: str, schema: str, app: str, *, redis: bool = False, only: str = ""
) -> Iterator[tuple[Any, App, str]]:
    """The place that the arguments name. Typed tables come from the app, else from what migrate saved.

    Args:
        redis: a URL of Redis will do, too; else `only` says what is wanted that needs PostgreSQL.
    """
    with _guarded():
        address = url_of(url, only_sql=only)
        Place(lambda sql, params: [], namespace, schema, {})  # its names are checked before anything is connected
        loaded = app_of(app)
        on_redis = RedisAt(address, namespace, loaded) if redis and is_redis(address) else None
        query = connect_query(address) if on_redis is None else on_redis
    try:
        with _guarded(address):
            if isinstance(query, RedisAt):
                yield query, loaded, address
                return
            tables: Mapping[str, Any] = loaded.tables if app else _schema.declared_tables(query, schema)
            yield Place(query, namespace, schema, tables), loaded, address
    finally:
        query.close()


def _print_json(document: Any) -> None:
    print(json.dumps(document, indent=2))


def _console() -> Any:
    from rich.console import Console

    return Console(highlight=False, markup=False, emoji=False, soft_wrap=True)


def _say(text: str, style: str) -> None:
    console = _console()
    console.print(text, style=style) if console.is_terminal else print(text)


def _print_table(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> None:
    """Columns of plain characters, so that any terminal and any program can read it."""
    cells = [list(names), *([("-" if row[name] is None else str(row[name])) for name in names] for row in rows)]
    right = [all(isinstance(row[name], (int, float)) for row in rows) for name in names]
    widths = [max(len(line[i]) for line in cells) for i in range(len(names))]
    for number, line in enumerate(cells):
        shown = "  ".join(
            cell.rjust(width) if aligned else cell.ljust(width)
            for cell, width, aligned in zip(line, widths, right, strict=True)
        )
        _say(shown.rstrip(), "bold") if number == 0 else print(shown.rstrip())


def _print_report(report: Report) -> None:
    print(
        f"PostgreSQL {report.server_version}, time zone {report.time_zone}, version {report.schema_version or 'none'}"
    )
    for table in report.tables:
        rows = "may not be read" if table.rows is None else f"{table.rows} rows"
        _say(f"{table.name}: {rows if table.exists else 'missing'}", "bold")
        for name, kind, not_null, default in table.columns:
            print(f"    {name} {kind}{' not null' if not_null else ''}{f' default {default}' if default else ''}")
        for _, definition in table.indexes:
            print(f"    {definition}")
    for warning in report.warnings:
        _say(f"warning: {warning}", "yellow")
    for difference in report.differences:
        _say(f"different: {difference}", "bold red")
    if report.ok:
        print("as declared")


@contextmanager
def _bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on a terminal; nothing elsewhere."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    console = Console(stderr=True)
    columns = (TextColumn("  {task.description}"), BarColumn(24), TextColumn("{task.completed}/{task.total}"))
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
