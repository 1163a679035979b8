"""One step of a demo's story: what was seen, what was measured, and which promises held.

Thread rule: one thread.
Refuses to know: what happens in it, and how it is shown.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

Progress = Callable[[str, float, float], object]  # what is going on, how much is done, of how much


@dataclass
class Step:
    """One step: its title, what was seen (a sentence each), what was measured, and which promises held."""

    title: str
    seen: list[str] = field(default_factory=list)
    figures: dict[str, float | int] = field(default_factory=dict)
    facts: dict[str, bool] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        return all(self.facts.values())


def ms(seconds: float) -> float:
    return round(seconds * 1000, 3)


def text(seconds: float) -> str:
    """A time for people."""
    in_ms = seconds * 1000
    return f"{in_ms:.0f} ms" if in_ms >= 10 else f"{in_ms:.2f} ms"


__all__ = ["Progress", "Step", "ms", "text"]
