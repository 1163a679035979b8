"""What the site of the documentation is built with beside MkDocs: the page of the commands, made from the commands
themselves, and a look at what was built: every public name has its place, and nothing is fetched from elsewhere.

Thread rule: MkDocs calls it on one thread.
Refuses to know: what the pages say.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError

PACKAGE = Path(__file__).parents[1] / "python" / "stillwarm"
# The modules whose names are for users; those of `stillwarm` itself are in its `__all__`.
PUBLIC = ("alembic", "breaker", "codecs", "errors", "fastapi", "flask", "hooks", "journal", "metrics", "otel", "tables")
FETCHED = re.compile(r"""<(?:script|img|iframe|source)\b[^>]*\bsrc=["']?(?:https?:)?//[^\s"'>]+"""
                     r"""|<link\b[^>]*\bhref=["']?(?:https?:)?//[^\s"'>]+""")  # fmt: skip
FETCHED_BY_STYLE = re.compile(r"""(?:@import|url\()\s*["']?(?:https?:)?//[^\s"')]+""")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """`<!-- commands -->` becomes the reference of the command `stillwarm`."""
    if "<!-- commands -->" not in markdown:
        return markdown
    import typer.main

    from stillwarm import cli

    command = typer.main.get_command(cli._command())
    return markdown.replace("<!-- commands -->", "\n".join(_command(command, "stillwarm")))


def on_post_build(config: Any, **_: Any) -> None:
    """Raises what is missing in what was built, or fetched by it."""
    site = Path(config["site_dir"])
    pages = {path: path.read_text("utf-8") for path in sorted(site.rglob("*.html"))}
    there = {name for text in pages.values() for name in re.findall(r'\bid="(stillwarm[\w.]*)"', text)}
    there |= {name.replace(".errors.", ".") for name in there}  # the errors are in the package, too
    wrong = [f"no reference of {name}" for name in public_names() if name not in there]
    wrong += [f"{path.relative_to(site)}: {found}" for path, text in pages.items() for found in FETCHED.findall(text)]
    for path in site.rglob("*.css"):
        wrong += [f"{path.relative_to(site)}: {found}" for found in FETCHED_BY_STYLE.findall(path.read_text("utf-8"))]
    if wrong:
        raise PluginError("\n".join(wrong))


def public_names() -> Iterator[str]:
    """The full names of all that `__all__` has, of the package and of its public modules."""
    for module in ("", *PUBLIC, "testing"):
        path = PACKAGE / (f"{module}.py" if module else "__init__.py")
        for node in ast.parse(path.read_text("utf-8")).body:
            if isinstance(node, ast.Assign) and [getattr(target, "id", "") for target in node.targets] == ["__all__"]:
                for name in ast.literal_eval(node.value):
                    if name != "__version__" and not (module == "" and name in PUBLIC):
                        yield ".".join(filter(None, ("stillwarm", module, name)))


# ----------------------------------------------------------------------------------------------------------- commands


def _command(command: Any, name: str, level: int = 2) -> Iterator[str]:
    yield f"{'#' * level} `{name}`\n"
    yield f"{_cell(command.help)}\n"
    rows = list(filter(None, map(_row, command.params)))
    if rows:
        table = ["| option | default | meaning |", "|---|---|---|", *rows]
        yield "\n".join(['<div class="options" markdown>', "", *table, "", "</div>", ""])
    for child, found in getattr(command, "commands", {}).items():
        yield from _command(found, f"{name} {child}", level + (level == 2 and name != "stillwarm"))


def _row(option: Any) -> str | None:
    if option.name == "help":
        return None
    is_option = option.param_type_name == "option"
    names = [*option.opts, *option.secondary_opts] if is_option else [option.metavar or option.name.upper()]
    default = option.default
    shown = "" if default in (None, "", False) or callable(default) else f"`{default}`"
    if getattr(option, "required", False):
        shown = "required"
    what = _cell(getattr(option, "help", None))
    if getattr(option, "envvar", None):
        what = f"{what} Environment: `{option.envvar}`."
    return f"| {', '.join(f'`{one}`' for one in names)} | {shown} | {what.strip()} |"


def _cell(text: str | None) -> str:
    return " ".join((text or "").split()).replace("|", "\\|").replace("<", "&lt;")
