"""The command `stillwarm demo`: runs a demo and shows what it measured, in a table, as JSON, or from a menu.

Exit codes: 0 as promised, 1 a promise was broken or something could not be had, 2 wrong arguments, 130 Ctrl-C.

Thread rule: the main thread only.
Refuses to know: how a demo works.
"""

# Typer reads the annotations of functions whose names are local here: no `from __future__ import annotations`.
import signal
import sys
from typing import TYPE_CHECKING, Annotated, Any

from stillwarm._cli_output import end_for_missing, print_json

if TYPE_CHECKING:
    import typer

    from stillwarm.demo import Demo

_PACKAGES = ("flask", "werkzeug", "fastapi", "starlette", "pydantic", "sqlalchemy", "psycopg")


def add_command(app: "typer.Typer") -> None:
    """Adds the command to the app of `cli`."""
    import typer

    from stillwarm.demo import DEMOS
    from stillwarm.errors import ConfigError

    names = "; ".join(f"{name}: {what}" for name, what in DEMOS.items())

    @app.command(help=f"Run a demo and show what was measured. NAME is one of these. {names}.")
    def demo(
        name: Annotated[str, typer.Argument(metavar="NAME", help="Which demo.")] = "dashboard",
        serve: Annotated[bool, typer.Option("--serve", help="Stay up afterwards; Ctrl-C ends it.")] = False,
        port: Annotated[int, typer.Option(help="The app's port on 127.0.0.1; 0: any free one.")] = 0,
        as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document instead of a table.")] = False,
        fast: Annotated[bool, typer.Option("--fast", help="A tenth of the latencies, fewer callers.")] = False,
        token: Annotated[str, typer.Option(help="Opens the operator's page; by default a new one.")] = "",
        url: Annotated[
            str,
            typer.Option(
                help="Where the cache is: redis:// for dashboard, postgresql:// for discovery and voc. By default they "
                "have memory only, and voc a private server."
            ),
        ] = "",
        redis: Annotated[bool, typer.Option("--redis", help="dashboard: on a private Redis, which is killed.")] = False,
        interactive: Annotated[
            bool, typer.Option("--interactive", help="dashboard: a menu in place of the story, with Redis or without.")
        ] = False,
    ) -> None:
        if name not in DEMOS:
            accepted = ", ".join(DEMOS)
            raise typer.BadParameter(f"there is no demo named {name!r}; accepted: {accepted}", param_hint="NAME")
        if not 0 <= port <= 65535:
            raise typer.BadParameter(f"{port}; accepted: 0 to 65535", param_hint="--port")
        if token and (len(token) < 16 or not token.isprintable() or " " in token):
            raise typer.BadParameter("accepted: 16 characters or more, without spaces", param_hint="--token")
        options = {"fast": fast, "port": port, **({"token": token} if token else {})}
        if url:
            options["url"] = url
        for given, option in ((redis, "--redis"), (interactive, "--interactive")):
            if given and name != "dashboard":
                raise typer.BadParameter(f"not with the demo {name!r}; accepted: dashboard", param_hint=option)
        if interactive and (serve or as_json):
            raise typer.BadParameter("not with --serve or --json: a menu is asked by hand", param_hint="--interactive")
        if redis:
            if url:
                raise typer.BadParameter("not with --url: that is where the cache is then", param_hint="--redis")
            options["redis"] = True
        try:
            raise typer.Exit(_run(name, serve, as_json, options, interactive))
        except ConfigError as error:
            raise typer.BadParameter(str(error), param_hint="--url") from None


def _run(name: str, serve: bool, as_json: bool, options: dict[str, Any], interactive: bool = False) -> int:
    from stillwarm.demo import demo_class

    try:
        made = demo_class(name)
    except ModuleNotFoundError as error:
        end_for_missing(error, *_PACKAGES)
    from stillwarm._servers import ServerError
    from stillwarm.demo.show import show

    try:
        demo = made(**options)
    except ServerError as error:
        print(f"stillwarm: the demo {name} needs a server: {error}; or give --url", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"stillwarm: cannot listen on 127.0.0.1, port={options['port']}: {error.strerror}", file=sys.stderr)
        return 1
    with demo:
        # Ctrl-C comes as KeyboardInterrupt also where a parent process has switched it off, as shells do for "&".
        signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            if interactive:
                from stillwarm.demo.dashboard.menu import run

                return run(demo)
            steps = show(demo, name, as_json)
        except KeyboardInterrupt:
            # What was being made when it came complains as it is collected: http.client's response has no `fp` yet.
            sys.unraisablehook = lambda _: None
            print("stillwarm: interrupted", file=sys.stderr)
            return 130
        ok = all(step.ok for step in steps)
        if as_json:
            document = {
                "demo": name,
                "ok": ok,
                "url": demo.server.url,
                "steps": [
                    {
                        "title": step.title,
                        "ok": step.ok,
                        "seen": step.seen,
                        "figures": step.figures,
                        "facts": step.facts,
                    }
                    for step in steps
                ],
            }
            print_json(document)
        if serve:
            _stay(demo, as_json)
    return 0 if ok else 1


def _stay(demo: "Demo", as_json: bool) -> None:
    """Leaves the app up until Ctrl-C."""
    lines = ["", *demo.invitation(), ""]
    try:
        print("\n".join(lines), file=sys.stderr if as_json else sys.stdout, flush=True)
        while True:
            signal.pause()
    except KeyboardInterrupt:
        pass


__all__ = ["add_command"]
