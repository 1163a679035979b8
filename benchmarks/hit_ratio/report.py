"""Results as a markdown table and as a picture. Refuses to know: how they were measured."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass

from rivals import OPTIMUM, OURS

COLOURS = ("#999999", "#c9b458", "#b0746a", "#7a9e5f", "#4f86c6", "#9467bd", "#e08a2e", "#3aa6a0", "#8c6d31")


@dataclass(frozen=True)
class Cell:
    """One workload at one size: hit ratios in per cent by policy."""

    workload: str
    size: int
    in_bytes: bool
    ratios: dict[str, float]

    @property
    def online(self) -> dict[str, float]:
        return {name: ratio for name, ratio in self.ratios.items() if name != OPTIMUM}

    @property
    def regret(self) -> float:
        return max(self.online.values()) - self.ratios[OURS]

    @property
    def over_lru(self) -> float:
        return self.ratios[OURS] - self.ratios["LRU"]


def regret_of(policy: str, cells: Sequence[Cell]) -> list[float]:
    return [max(cell.online.values()) - cell.ratios[policy] for cell in cells]


def summary(cells: Sequence[Cell]) -> list[str]:
    """Mean and worst regret of every policy, and how ours stands against LRU."""
    policies = list(cells[0].online)
    lines = ["| policy | mean regret | worst | mean against LRU | worst against LRU |", "|---|---|---|---|---|"]
    for policy in policies:
        regrets = regret_of(policy, cells)
        over_lru = [cell.ratios[policy] - cell.ratios["LRU"] for cell in cells]
        name = f"**{policy}**" if policy == OURS else policy
        lines.append(
            f"| {name} | {sum(regrets) / len(regrets):.2f} | {max(regrets):.1f} "
            f"| {sum(over_lru) / len(over_lru):+.1f} | {min(over_lru):+.1f} |"
        )
    return lines


def goals(counted: Sequence[Cell], weighed: Sequence[Cell]) -> list[str]:
    """The questions of the other pages: over all traces and sizes, ours beside the best online policy and LRU."""
    lines = ["| question | ours | rival | ratio | goal | reached |", "|---|---|---|---|---|---|"]
    for budget, cells in (("entries", counted), ("bytes", weighed)):
        if not cells:
            continue
        regrets, against = regret_of(OURS, cells), [cell.over_lru for cell in cells]
        mean, worst, least = sum(regrets) / len(regrets), max(regrets), min(against)
        for what, value, rival, goal, reached in (
            ("mean regret", mean, "the best online policy of each row", "<= 1 point", mean <= 1),
            ("worst regret", worst, "the best online policy of that row", "<= 5 points", worst <= 5),
            ("worst against LRU", least, "LRU", ">= -3.5 points", least >= -3.5),
        ):
            answer = "yes" if reached else "**no**"
            lines.append(f"| {what}, budget in {budget} | {value:+.2f} | {rival} | - | {goal} | {answer} |")
    return lines


def table(cells: Sequence[Cell]) -> list[str]:
    policies = list(cells[0].ratios)
    head = ["workload", "size", *policies, "regret", "against LRU"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for cell in cells:
        best = max(cell.online.values())
        values = [
            f"**{ratio:.1f}**" if name != OPTIMUM and ratio >= best - 0.05 else f"{ratio:.1f}"
            for name, ratio in cell.ratios.items()
        ]
        size = f"{cell.size / 1e6:.1f} MB" if cell.in_bytes else f"{cell.size:,}"
        lines.append(f"| {cell.workload} | {size} | {' | '.join(values)} | {cell.regret:.1f} | {cell.over_lru:+.1f} |")
    return lines


def markdown(cells: Sequence[Cell], facts: dict[str, str]) -> str:
    counted = [cell for cell in cells if not cell.in_bytes]
    weighed = [cell for cell in cells if cell.in_bytes]
    lines = ["# Hit ratio", "", *(f"- {name}: {value}" for name, value in facts.items()), ""]
    lines += [
        "Per cent of requests that were hits. Regret is the distance to the best online policy of that row, ours "
        f"included; {OPTIMUM} sees the future and is no online policy.",
        "",
    ]
    lines += [*goals(counted, weighed), ""]
    for title, part in (("Budget in entries", counted), ("Budget in bytes", weighed)):
        if part:
            lines += [f"## {title}", "", *summary(part), "", *table(part), ""]
    return "\n".join(lines)


def picture(cells: Sequence[Cell]) -> str:
    """One row per cell: every policy a dot at its distance below the optimum; ours is the black diamond."""
    left, row, width = 190, 17, 640
    others = [name for name in cells[0].online if name != OURS]
    extra = sorted({name for cell in cells for name in cell.online} - {OURS, *others})
    colour = dict(zip([*others, *extra], COLOURS, strict=False))
    top = 58
    height = top + row * len(cells) + 30
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + width + 30}" height="{height}" '
        'font-family="sans-serif" font-size="11">',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="{left}" y="16" font-size="13">hit ratio, per cent (bar: the optimum, which sees the future)</text>',
    ]
    for number, (name, fill) in enumerate([(OURS, "black"), *colour.items()]):
        x = left + number % 6 * 108
        y = 34 + number // 6 * 15
        parts.append(f'<circle cx="{x}" cy="{y - 4}" r="4" fill="{fill}"/><text x="{x + 8}" y="{y}">{name}</text>')
    for tick in range(0, 101, 20):
        x = left + width * tick / 100
        parts.append(
            f'<path d="M{x} {top}V{height - 24}" stroke="#dddddd"/><text x="{x - 8}" y="{height - 8}">{tick}</text>'
        )
    for number, cell in enumerate(cells):
        y = top + row * number + row / 2
        size = f"{cell.size / 1e6:.1f} MB" if cell.in_bytes else f"{cell.size:,}"
        label = html.escape(f"{cell.workload} @ {size}")
        parts.append(f'<text x="{left - 8}" y="{y + 4}" text-anchor="end">{label}</text>')
        if OPTIMUM in cell.ratios:
            bar = width * cell.ratios[OPTIMUM] / 100
            parts.append(f'<rect x="{left}" y="{y - 5}" width="{bar:.1f}" height="10" fill="#eeeeee"/>')
        for name, ratio in cell.online.items():
            if name != OURS:
                x = left + width * ratio / 100
                parts.append(f'<circle cx="{x:.1f}" cy="{y}" r="3" fill="{colour[name]}" fill-opacity="0.8"/>')
        x = left + width * cell.ratios[OURS] / 100
        parts.append(f'<path d="M{x:.1f} {y - 6}l5 6l-5 6l-5 -6z" fill="black"/>')
    return "\n".join([*parts, "</svg>", ""])
