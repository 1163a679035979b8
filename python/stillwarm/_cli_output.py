"""How the commands of `stillwarm` print: tables, JSON, colours on a terminal, progress bars.

Thread rule: the main thread only.
Refuses to know: what is shown.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn


def end_for_missing(error: ModuleNotFoundError, *optional: str) -> NoReturn:
    """Ends the command with a line that says what to install, if it is one of the optional packages that is missing."""
    if (error.name or "").partition(".")[0] not in optional:
        raise error
    advice = "pip install 'stillwarm[demo]'"
    print(f"stillwarm: the command needs the package {error.name!r}, which is not installed: {advice}", file=sys.stderr)
    sys.exit(1)


def print_json(document: Any) -> None:
    print(json.dumps(document, indent=2), flush=True)


def say(text: str, style: str) -> None:
    """A line in a style of rich, where there is a terminal."""
    from rich.console import Console

    console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
    console.print(text, style=style) if console.is_terminal else print(text)


def print_table(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> None:
    """Columns of plain characters, so that any terminal and any program can read it."""
    cells = [list(names), *([("-" if row[name] is None else str(row[name])) for name in names] for row in rows)]
    right = [all(isinstance(row[name], (int, float)) for row in rows) for name in names]
    widths = [max(len(line[i]) for line in cells) for i in range(len(names))]
    for number, line in enumerate(cells):
        shown = "  ".join(
            cell.rjust(width) if aligned else cell.ljust(width)
            for cell, width, aligned in zip(line, widths, right, strict=True)
        )
        say(shown.rstrip(), "bold") if number == 0 else print(shown.rstrip())


@contextmanager
def progress_bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on a terminal; nothing elsewhere."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    console = Console(stderr=True)
    columns = (TextColumn("  {task.description}"), BarColumn(24), TextColumn("{task.completed}/{task.total}"))
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


__all__ = ["end_for_missing", "print_json", "print_table", "progress_bar", "say"]
