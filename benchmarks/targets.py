"""Every goal that the kept results speak of, reached or not, as one page: benchmarks/results/targets.md.

    python benchmarks/targets.py

Thread rule: one thread. Refuses to know: what is measured. It reads those tables of benchmarks/results with the columns
question, ours, rival, ratio, goal, reached, and takes the rows that have a goal.
"""

from __future__ import annotations

import sys
from pathlib import Path

RESULTS = Path(__file__).resolve().parent / "results"
PAGE = "targets.md"
HEAD = ["| question | ours | rival | ratio | goal | reached |", "|---|---|---|---|---|---|"]


def goals(text: str) -> list[str]:
    """The rows with a goal of all such tables of a page."""
    rows, inside = [], False
    for line in text.splitlines():
        inside = line == HEAD[0] or (inside and line.startswith("|"))
        goal = line.split("|")[5].strip() if inside and line not in HEAD else ""
        if goal not in ("", "-"):
            rows.append(line)
    return rows


def when(text: str) -> str:
    """The day of a page's run: the first line with a date says it."""
    lines = text.splitlines()
    (first,) = [line for line in lines if line.startswith(("- date: ", "20"))][:1]
    return first.removeprefix("- date: ")[:10]


def page() -> str:
    parts: list[str] = []
    reached = missed = 0
    seen: set[str] = set()  # a program that may run alone has a page of its own beside
    for path in sorted(RESULTS.glob("*.md")):
        text = path.read_text()
        rows = [row for row in goals(text) if row not in seen] if path.name != PAGE else []
        seen.update(rows)
        if rows:
            title = text.splitlines()[0].removeprefix("# ")
            parts += [f"## {title}", "", f"{when(text)}, [all of it]({path.name})", "", *HEAD, *rows, ""]
            missed += sum("**no**" in row for row in rows)
            reached += sum("**no**" not in row for row in rows)
    return "\n".join(["# Goals", "", f"{reached} are reached, {missed} are not.", "", *parts])


def main() -> int:
    (RESULTS / PAGE).write_text(page())
    print(f"written: {RESULTS / PAGE}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
