"""The interactive demo: a menu in a terminal. It asks, does it with the running app, shows what was seen, asks again.

Lines of ASCII, so that any terminal can show them; colours where there is a terminal. The end of the input and `q` end
it with 0; Ctrl-C is the caller's.

Thread rule: the main thread only.
Refuses to know: what an item does (`acts`), and signals.
"""

from __future__ import annotations

import select
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Final

from rich.console import Console
from rich.text import Text

from stillwarm.demo.dashboard.acts import Acts
from stillwarm.demo.show import show_broken, show_step

if TYPE_CHECKING:
    from stillwarm.demo.dashboard.site import Dashboard
    from stillwarm.demo.step import Step

_ITEMS: Final = {
    "1": "miss against hit",
    "2": "invalidation",
    "3": "statistics",
    "4": "a whole workflow: outages and back",
    "q": "quit",
}
_WAYS: Final = {"t": "type", "p": "pattern", "k": "key", "w": "write"}
_WAY_ITEMS: Final = {
    "t": "by type",
    "p": "by pattern",
    "k": "by key",
    "w": "after a write",
    "b": "back",
}


def run(site: Dashboard) -> int:
    """Asks until the end; the exit code: 0, or 1 if something was not as promised."""
    menu = Menu(site)
    try:
        return menu.run()
    finally:
        menu.close()


class Menu:
    """The menu of one site."""

    def __init__(self, site: Dashboard) -> None:
        self._console = Console(highlight=False)
        self._site = site
        self._acts = Acts(site, self._progress)
        self._told = ""
        self._broken = 0
        # What cannot be read is a wrong answer, and no error.
        getattr(sys.stdin, "reconfigure", lambda **_: None)(errors="replace")

    def run(self) -> int:
        where = f"memory above {self._site.tier_name}" if self._site.tier_name else "memory"
        self._say(f"stillwarm demo dashboard: {self._site.server.url}/, cached in {where}", "bold")
        acts: dict[str, Callable[[], Iterable[Step]]] = {
            "1": lambda: [self._acts.miss_and_hit()],
            "2": self._invalidations,
            "3": lambda: [self._acts.statistics()],
            "4": self._acts.workflow,
        }
        while (choice := self._ask(_ITEMS)) != "q":
            self._show(acts[choice]())
        return 1 if self._broken else 0

    def close(self) -> None:
        self._acts.close()

    def _invalidations(self) -> Iterable[Step]:
        choice = self._ask(_WAY_ITEMS, at_end="b")
        if choice in _WAYS:
            yield self._acts.invalidate(_WAYS[choice])

    def _show(self, steps: Iterable[Step]) -> None:
        for step in steps:
            self._told = ""
            show_step(self._console, step)
            broken = [f"{step.title}: {fact}" for fact, held in step.facts.items() if not held]
            self._broken += len(broken)
            show_broken(self._console, broken)

    def _ask(self, items: Mapping[str, str], at_end: str = "q") -> str:
        """One of the items; `at_end` at the end of the input."""
        self._say("")
        for key, what in items.items():
            self._say(f"  {key}  {what}")
        prompt = f"[{'/'.join(items)}] > "
        while True:
            given = self._line(prompt)
            if not given:
                self._say("")
                return at_end
            choice = given.strip().lower()
            if choice in items:
                return choice
            if choice:
                self._say(f"{given.rstrip()[:20]!a} is none of them.", "yellow")
            self._say(f"Accepted: {', '.join(items)}, and Enter.", "yellow")

    def _line(self, prompt: str) -> str:
        """A line of the input, "" at its end."""
        print(prompt, end="", flush=True)
        if sys.stdin is None:
            return ""
        if sys.stdin.isatty():
            # A Ctrl-C that comes just before a read would wait for the next key: nobody reads before there is a line.
            while not select.select([sys.stdin], [], [], 0.1)[0]:
                pass
        return sys.stdin.readline()

    def _say(self, line: str, style: str = "") -> None:
        self._console.print(Text(line, style=style), soft_wrap=True)

    def _progress(self, what: str, done: float, total: float) -> None:
        """Says once what is waited for."""
        if what != self._told:
            self._told = what
            self._say(f"  ... {what}", "dim")


__all__ = ["Menu", "run"]
