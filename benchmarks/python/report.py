"""Results as a markdown table and as a picture. Refuses to know: how they were measured."""

from __future__ import annotations

import datetime
import html
import math
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path

from python.measure import Row, Section
from rivals import OURS

IN_PROCESS = (
    "Times of calls are CPU time of the thread: medians of interleaved rounds, the empty loop of the same round "
    "subtracted. A ratio is the median of the rounds' own ratios, ours by theirs, so less is better."
)
REACHED = {True: "yes", False: "**no**", None: ""}


def cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def facts(versions: Mapping[str, str], command: str, missing: Sequence[str] = ()) -> dict[str, str]:
    """When, where and with what it was measured."""
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": f"{cpu_model()}, {os.cpu_count()} cores, {platform.system()} {platform.release()}",
        "load at the start": f"{os.getloadavg()[0]:.1f} processes",
        "Python": f"{platform.python_version()} ({platform.python_compiler()})",
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
        "command": command,
        **({"left out": "; ".join(missing)} if missing else {}),
    }


def number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1_000 else f"{value:.1f}" if value >= 10 else f"{value:.3g}"


def summary(rows: Sequence[Row]) -> list[str]:
    lines = ["| question | ours | rival | ratio | goal | reached |", "|---|---|---|---|---|---|"]
    lines += [f"| {r.question} | {r.ours} | {r.rival} | {r.ratio} | {r.goal} | {REACHED[r.reached]} |" for r in rows]
    return lines


def details(section: Section) -> list[str]:
    columns = section.columns.split(" | ") if section.columns else []
    lines = [
        f"## {section.title}",
        "",
        f"| | {' | '.join([section.unit, *columns])} |",
        "|" + "---|" * (2 + len(columns)),
    ]
    lines += [f"| {name} | {number(value)} | {more} |" for name, value, more in section.bars]
    lines += ["", *(f"- {note}" for note in section.notes), *[""] * bool(section.notes)]
    return lines


def markdown(
    sections: Sequence[Section], facts: dict[str, str], title: str = "In process", how: str = IN_PROCESS
) -> str:
    lines = [f"# {title}", "", *(f"- {name}: {value}" for name, value in facts.items()), ""]
    lines += [
        how,
        "",
        *summary([row for section in sections for row in section.rows]),
        "",
    ]
    for section in sections:
        lines += details(section)
    return "\n".join(lines)


def picture(sections: Sequence[Section], facts: dict[str, str], title: str = "In process, less is better") -> str:
    """A panel per question, in two columns; bars on a logarithmic scale where they differ by more than 20."""
    width, bar, gap = 620, 15, 46
    columns: list[list[str]] = [[], []]
    heights = [60, 60]
    about = html.escape(f"{title}. {facts['date']}, {facts['machine']}, Python {facts['Python']}")
    for section in sections:
        at = heights.index(min(heights))
        columns[at].append(panel(section, at * width, heights[at], width, bar))
        heights[at] += bar * len(section.bars) + gap
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{2 * width}" height="{max(heights)}" '
            'font-family="sans-serif" font-size="11">',
            '<rect width="100%" height="100%" fill="white"/>',
            f'<text x="14" y="24">{about}</text>',
            *columns[0],
            *columns[1],
            "</svg>",
            "",
        ]
    )


def panel(section: Section, left: int, top: int, width: int, bar: int) -> str:
    values = [value for _, value, _ in section.bars]
    low, high = min(values), max(values)
    logarithmic = high > 20 * low > 0
    x, room = left + 210, width - 320

    def length(value: float) -> float:
        if logarithmic:
            floor = low / 2
            return room * math.log(max(value, floor) / floor) / math.log(high / floor)
        return room * value / (high or 1)

    title = html.escape(f"{section.title} ({section.unit}{', logarithmic' if logarithmic else ''})")
    parts = [f'<text x="{left + 14}" y="{top}" font-size="13" font-weight="bold">{title}</text>']
    for row, (name, value, _) in enumerate(section.bars):
        y = top + 9 + row * bar
        fill = "#d1495b" if name.startswith(OURS) else "#9db4c0"
        end = x + max(length(value), 1)
        parts.append(f'<text x="{x - 6}" y="{y + 10}" text-anchor="end">{html.escape(name)}</text>')
        parts.append(f'<rect x="{x}" y="{y}" width="{end - x:.1f}" height="{bar - 3}" fill="{fill}"/>')
        parts.append(f'<text x="{end + 5:.1f}" y="{y + 10}">{number(value)}</text>')
    return "\n".join(parts)
