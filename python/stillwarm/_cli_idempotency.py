"""The commands `stillwarm idempotency list|release`: keys of which nobody knows what became, and how one is freed.

Exit codes: 0 done, 1 there is no such key, or it could not be had, or nobody said yes, 2 wrong arguments.

Thread rule: the main thread only.
Refuses to know: when an outcome is unknown (cpp/core/antidup/idempotency.hpp). No answer that was kept is read.
"""

# Typer reads the annotations of functions whose names are local here: no `from __future__ import annotations`.
import re
import sys
from typing import TYPE_CHECKING, Annotated, Final

from stillwarm import _core
from stillwarm._cli_output import print_json, print_table, say
from stillwarm._cli_site import place_of
from stillwarm._durations import shown
from stillwarm._idempotency import Unknown, key_of, unknown_of
from stillwarm._place import Place
from stillwarm._sql_types import quoted

if TYPE_CHECKING:
    import typer

_RECORD: Final = re.compile(r"[0-9a-f]{32}")
_NEXT: Final = "the next request with this key runs the handler again"


def add_commands(app: "typer.Typer") -> None:
    """Adds the group to the app of `cli`."""
    import typer

    url_option = typer.Option("--url", help="postgresql://user@host/database; else STILLWARM_URL or DATABASE_URL.")
    namespace_option = typer.Option("--namespace", envvar="STILLWARM_NAMESPACE", help="The cache's namespace.")
    Url = Annotated[str, url_option]  # noqa: N806
    Namespace = Annotated[str, namespace_option]  # noqa: N806
    Schema = Annotated[str, typer.Option("--schema", help="stillwarm's schema.")]  # noqa: N806
    Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]  # noqa: N806

    group = typer.Typer(
        help="Keys of writes that were begun and whose outcome is unknown.", no_args_is_help=True, rich_markup_mode=None
    )
    app.add_typer(group, name="idempotency")

    @group.command("list", help="Show the keys whose owner is gone and whose lease has ended, the oldest first.")
    def list_(
        n: Annotated[int, typer.Option("-n", min=1, max=100_000, help="How many.")] = 100,
        url: Url = "", namespace: Namespace = "default", schema: Schema = "stillwarm", as_json: Json = False,
    ) -> None:  # fmt: skip
        with place_of(url, schema, namespace=namespace, only="stillwarm idempotency") as (place, _):
            found = _unknown(place, n)
            if as_json:
                print_json([one._asdict() for one in found])
            elif not found:
                print("no key is unknown")
            else:
                rows = [
                    {"record": one.record, "route": one.route, "begun": f"{_span(one.age)} ago",
                     "expires": f"in {_span(one.expires_in)}", "caller": "by cookies" if one.by_cookies else None}
                    for one in found
                ]  # fmt: skip
                print_table(rows, ["record", "route", "begun", "expires", "caller"])

    @group.command(help=f"Free one key: {_NEXT}. Look first whether it had its effect.")
    def release(
        record: Annotated[str, typer.Argument(metavar="RECORD", help="As list shows it.")] = "",
        route: Annotated[str, typer.Option(help="Instead of RECORD: the route, as in list.")] = "",
        key: Annotated[str, typer.Option(help="With --route: the key as the client sent it, without quotes.")] = "",
        user: Annotated[str | None, typer.Option(help="With --route: what per_user= returned for the client.")] = None,
        yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
        url: Url = "", namespace: Namespace = "default", schema: Schema = "stillwarm", as_json: Json = False,
    ) -> None:  # fmt: skip
        name = _name(record, route, key, user)
        with place_of(url, schema, namespace=namespace, only="stillwarm idempotency") as (place, _):
            found = _unknown(place, 1, name)
            if found and not yes and not _confirmed(found[0]):
                print("stillwarm: not released", file=sys.stderr)
                raise typer.Exit(1)
            freed = bool(found) and bool(place.query(_sql(place)["forget"], [place.namespace, name]))
            if as_json:
                print_json({"record": name, "route": found[0].route if found else None, "released": freed})
            elif freed:
                say(f"released: {_NEXT}", "bold")
            if not freed:
                print(f"stillwarm: {name} is not unknown: it is running, done, released or expired", file=sys.stderr)
                raise typer.Exit(1)


def _name(record: str, route: str, key: str, user: str | None) -> str:
    """The record that the arguments mean."""
    import typer

    if bool(record) == bool(route or key or user is not None):
        raise typer.BadParameter("accepted: RECORD, or --route and --key", param_hint="RECORD")
    if not record:
        if not route or not key:
            raise typer.BadParameter("accepted: both, or RECORD", param_hint="--route, --key")
        return key_of(None if user is None else f"user {user}", route, key)
    if not _RECORD.fullmatch(record):
        raise typer.BadParameter(f"{shown(record)}; accepted: 32 hexadecimal digits", param_hint="RECORD")
    return record


def _sql(place: Place) -> dict[str, str]:
    return _core.idempotency_sql(quoted(place.schema))


def _unknown(place: Place, most: int, record: str | None = None) -> list[Unknown]:
    return unknown_of(place.query(_sql(place)["unknown"], [place.namespace, str(most), record]))


def _confirmed(one: Unknown) -> bool:
    """Asks on stderr, so that stdout has what was done and nothing else: click's own question leaves a blank there."""
    print(
        f"{one.route}: begun {_span(one.age)} ago, and its process ended in the middle: it may have had its effect.\n"
        f"After the release {_NEXT}.\nRelease it? [y/N] ",
        end="",
        file=sys.stderr,
        flush=True,
    )
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _span(seconds: float) -> str:
    """12 s, 5 min, 3 h, 2 d: the largest unit that is there twice, or seconds."""
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


__all__ = ["add_commands"]
