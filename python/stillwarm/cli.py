"""The `stillwarm` command: gathers the commands of the _cli files, and says in a line what is not installed.

Exit codes: 0 as promised, 1 a promise was broken or something could not be had, 2 wrong arguments, 130 Ctrl-C.

Thread rule: the main thread only.
Refuses to know: what the commands do. It needs typer and rich, which `import stillwarm` alone does not.
"""

# Typer reads the annotations of functions whose names are local here: no `from __future__ import annotations`.
import sys
from typing import TYPE_CHECKING, Annotated

from stillwarm._cli_output import end_for_missing

if TYPE_CHECKING:
    import typer


def main() -> None:
    """Runs the command with the arguments of this process."""
    for stream in (sys.stdout, sys.stderr):
        # Not every terminal can show every character that an argument may hold.
        getattr(stream, "reconfigure", lambda **_: None)(errors="backslashreplace")
    try:
        command = _command()
    except ModuleNotFoundError as error:
        end_for_missing(error, "typer", "click", "rich")
    try:
        command(prog_name="stillwarm")
    except KeyboardInterrupt:
        sys.exit(130)


def _command() -> "typer.Typer":
    import rich  # noqa: F401  # asked for here, so that one message names what is missing
    import typer

    from stillwarm import _cli_demo, _cli_idempotency, _cli_remote

    app = typer.Typer(
        help="The cache, retry and anti-duplicate layer of Python web backends.",
        add_completion=False,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )

    def version(wanted: bool) -> None:
        if wanted:
            from stillwarm import __version__

            print(f"stillwarm {__version__}")
            raise typer.Exit

    @app.callback()
    def common(
        version: Annotated[
            bool, typer.Option("--version", callback=version, is_eager=True, help="Show the version and leave.")
        ] = False,
    ) -> None:
        pass

    _cli_demo.add_command(app)

    @app.command(help="Print the Grafana dashboard of the metrics as JSON, ready to import.")
    def grafana() -> None:
        from stillwarm._readings import grafana_dashboard

        sys.stdout.write(grafana_dashboard())

    _cli_remote.add_commands(app)
    _cli_idempotency.add_commands(app)
    return app


if __name__ == "__main__":
    main()
