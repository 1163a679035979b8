"""Shows a demo's story: a row for each step as soon as it is over, and a progress bar while something takes long.

The bar is drawn on terminals only, and in ASCII where the terminal has no more.

Thread rule: the main thread only.
Refuses to know: what a step means.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from stillwarm.demo import Demo
    from stillwarm.demo.step import Step

_TITLE = 30
_MARK = 6


def show(demo: Demo, name: str, as_json: bool) -> list[Step]:
    """Runs the story and shows it; with `as_json` only the progress, and that on the error stream."""
    console = Console(stderr=as_json, highlight=False)
    bar = Progress(
        TextColumn("  {task.description}"),
        BarColumn(24),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    task = bar.add_task("", total=1, visible=False)
    told = 0.0

    def progress(what: str, done: float, total: float) -> None:
        nonlocal told
        if time.monotonic() - told >= 0.1:  # whoever reports a thousand times a second is not slowed down by it
            told = time.monotonic()
            bar.update(task, description=what, completed=min(done, total), total=total, visible=True)

    steps: list[Step] = []
    began = time.monotonic()
    if not as_json:
        _print(console, Text(f"stillwarm demo {name}", style="bold"), Text("measured just now", style="bold"), Text(""))
        _print(console, Text("-" * _TITLE), Text("-" * _middle(console)), Text("-" * _MARK))
    with bar:
        for step in demo.story(progress):
            steps.append(step)
            bar.update(task, visible=False)
            if not as_json:
                show_step(console, step)
    if not as_json:
        broken = [f"{step.title}: {fact}" for step in steps for fact, held in step.facts.items() if not held]
        show_broken(console, broken)
        held = sum(len(step.facts) for step in steps) - len(broken)
        console.print(f"\n{held} promises held, {len(broken)} broken, in {time.monotonic() - began:.1f} s")
    return steps


def show_step(console: Console, step: Step) -> None:
    """A row: its title, what was seen, and whether it was as promised."""
    mark = Text("ok", style="green") if step.ok else Text("FAILED", style="bold red")
    _print(console, Text(step.title), Text("\n".join(step.seen)), mark)


def show_broken(console: Console, facts: list[str]) -> None:
    """The promises that were broken, one a line."""
    for fact in facts:
        console.print(Text(f"NOT AS PROMISED: {fact}", style="bold red"), soft_wrap=True)


def _middle(console: Console) -> int:
    return max(20, min(90, console.width - _TITLE - _MARK - 6))


def _print(console: Console, *cells: Text) -> None:
    # A table of one row: a longer one could only be drawn anew as it grows, and terminals are short.
    row = Table.grid(padding=(0, 2))
    for width in (_TITLE, _middle(console), _MARK):
        row.add_column(width=width, overflow="fold")
    row.add_row(*cells)
    console.print(row)


__all__ = ["show", "show_broken", "show_step"]
