"""The commands of `stillwarm` on PostgreSQL or Redis: stats, top, invalidate, purge, doctor; db on the first alone.

Exit codes: 0 done, 1 something is wrong or could not be had, 2 wrong arguments.

Thread rule: the main thread only.
Refuses to know: which of the two it is (_cli_site), what the statements do. It shows what others found.
"""

# Typer reads the annotations of functions whose names are local here: no `from __future__ import annotations`.
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

from stillwarm import _schema
from stillwarm._apps import app_of
from stillwarm._cli_output import print_json, print_table, progress_bar, say
from stillwarm._cli_site import errors_as_lines, place_of, site_of
from stillwarm._verify import Report, verify

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
        with site_of(url, namespace, schema, app) as (site, _):
            figures = site.figures()
            rows = [
                {"type": name, "entries": one.entries, "hits": one.hits, "average_hits": round(one.average_hits, 2),
                 "expired": one.expired, "bytes": one.bytes, "table": one.table}
                for name, one in figures.types.items()
            ]  # fmt: skip
            if as_json:
                print_json({"namespace": namespace, "types": rows, "shared_table_bytes": figures.shared_table_bytes})
            else:
                print_table(rows, ["type", "entries", "hits", "average_hits", "expired", "bytes", "table"])
                print(f"{site.SIZE_OF}: {figures.shared_table_bytes} bytes")

    @app.command(help="Show the most reused entries.")
    def top(
        n: Annotated[int, typer.Option("-n", min=1, max=100_000, help="How many.")] = 10,
        url: Url = "", namespace: Namespace = "default", schema: Schema = "stillwarm", app: AppName = "",
        as_json: Json = False,
    ) -> None:  # fmt: skip
        with site_of(url, namespace, schema, app) as (site, _):
            rows = [{"hits": hot.hits, "type": hot.type, "key": hot.key} for hot in site.hot(n)]
            print_json(rows) if as_json else print_table(rows, ["hits", "type", "key"])

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
        with site_of(url, namespace, schema, app) as (site, _):
            count = site.invalidate(intent, params, stale)
            if as_json:
                print_json({"count": count})
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
        caps = {name: cap for name, cap in (("max_rows", max_rows), ("max_bytes", max_bytes)) if cap not in (None, "")}
        with site_of(url, namespace, schema, app) as (site, _):
            if pg_cron:
                sys.stdout.write(site.pg_cron_sql(batch))
                return
            with progress_bar("purge") as progress:
                counts = site.purge(progress, batch, caps)
            if as_json:
                print_json(counts)
            else:
                print_table([{"type": name, "rows": n} for name, n in counts.items()], ["type", "rows"])

    @app.command(help="Find what is wrong, and say what to do. Exits with 1 if something is.")
    def doctor(
        url: Url = "", namespace: Namespace = "default", schema: Schema = "stillwarm", app: AppName = "",
        as_json: Json = False,
    ) -> None:  # fmt: skip
        with site_of(url, namespace, schema, app) as (site, loaded):
            found = site.examine(loaded)
            if as_json:
                print_json([{"level": one.level, "what": one.what, "advice": one.advice} for one in found])
            else:
                for one in found:
                    say(f"{one.level}: {one.what}", "bold red" if one.level == "wrong" else "yellow")
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
        with errors_as_lines():
            tables: Sequence[Any] = app_of(app).all_tables() if app else []
            if not app and url:
                with place_of(url, schema, only="stillwarm db") as (place, _):
                    tables = place.typed
            print(_schema.sql(tables, schema=schema, unlogged=unlogged) + ";")

    @db.command(help="Make the tables, or bring them forward from an earlier layout.")
    def migrate(
        url: Url = "", schema: Schema = "stillwarm", app: AppName = "", unlogged: bool = False, as_json: Json = False
    ) -> None:
        with place_of(url, schema, app, only="stillwarm db") as (place, loaded):
            done = _schema.migrate(place.query, [*place.typed, *loaded.journals], schema=schema, unlogged=unlogged)
            if as_json:
                print_json({"already": done.already, "schema_version": done.schema_version,
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
        with place_of(url, schema, app, only="stillwarm db") as (place, loaded):
            report = verify(place.query, [*place.typed, *loaded.journals], schema=schema, unlogged=unlogged)
            if as_json:
                print_json(report.as_dict())
            else:
                _print_report(report)
            if not report.ok:
                raise typer.Exit(1)


def _print_report(report: Report) -> None:
    print(
        f"PostgreSQL {report.server_version}, time zone {report.time_zone}, version {report.schema_version or 'none'}"
    )
    for table in report.tables:
        rows = "may not be read" if table.rows is None else f"{table.rows} rows"
        say(f"{table.name}: {rows if table.exists else 'missing'}", "bold")
        for name, kind, not_null, default in table.columns:
            print(f"    {name} {kind}{' not null' if not_null else ''}{f' default {default}' if default else ''}")
        for _, definition in table.indexes:
            print(f"    {definition}")
    for warning in report.warnings:
        say(f"warning: {warning}", "yellow")
    for difference in report.differences:
        say(f"different: {difference}", "bold red")
    if report.ok:
        print("as declared")
