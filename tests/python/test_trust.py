"""The report of the long run: seeds, a verdict per part, and what became of its controls.

Thread rule: one thread.
Refuses to know: the parts, which take long.
"""

from __future__ import annotations

from pathlib import Path

from reliability.lines import Line, Part, Plan, written

GOOD = Part("good", 2.0, [Line(True, "good: control is caught", "7 wrong"), Line(True, "good: values", "0 wrong")])
BLIND = Part("blind", 1.0, [Line(False, "blind: control is caught", "0 wrong"), Line(True, "blind: values", "0 wrong")])


def report(path: Path, *parts: Part) -> str:
    written(path, Plan(1234, None), parts, 90.0)
    return path.read_text()


def test_trust_report_says_how_to_repeat_it(tmp_path: Path) -> None:
    text = report(tmp_path / "new" / "report.md", GOOD)
    assert "`python tests/python/trust.py --seed 1234`" in text
    assert "**2 checks, 0 broken, 1.5 minutes.**" in text
    assert "| good | ok | 1 of 1 caught | 1 of 1 | 2 |" in text


def test_trust_report_a_part_whose_control_is_not_caught_is_broken(tmp_path: Path) -> None:
    text = report(tmp_path / "report.md", GOOD, BLIND)
    assert "**4 checks, 1 broken" in text
    assert "| blind | BROKEN | 0 of 1 caught | 1 of 1 | 1 |" in text
    assert "- **BROKEN**: blind: control is caught: 0 wrong" in text
