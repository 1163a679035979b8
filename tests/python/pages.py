"""The pages of the documentation, as the tests look at them: code, headings and tables, and how a block runs.

Thread rule: reads files once, at import; a block runs on the thread of its test.
Refuses to know: what the pages promise (test_readme, test_docs).
"""

from __future__ import annotations

import importlib.metadata
import re
from pathlib import Path

import pytest

from stillwarm import Cache

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "python" / "docs"
DATABASE = "postgresql://app@localhost/shop"
REDIS = "redis://localhost:6379/0"


class Page:
    """One page; `text` as it is written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = str(path.relative_to(DOCS if DOCS in path.parents else ROOT))
        self.text = path.read_text("utf-8")

    def blocks(self, language: str) -> list[str]:
        return re.findall(rf"^```{language}\n(.*?)^```$", self.text, re.DOTALL | re.MULTILINE)

    def section(self, heading: str) -> str:
        """What stands below a heading of the second level."""
        return self.text.split(f"\n## {heading}\n")[1].split("\n## ")[0]

    def table_after(self, text: str) -> set[str]:
        """The first column of the table that follows `text`, of the cells that are names in code type."""
        table = self.text[self.text.index(text) :].split("\n\n")[1]
        return set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE))

    def heading_of(self, block: str) -> str:
        """The heading above a block, for the name of its test."""
        above = re.sub(r"^```.*?^```$", "", self.text[: self.text.index(block)], flags=re.DOTALL | re.MULTILINE)
        return re.findall(r"^#+ (.*)$", above, re.MULTILINE)[-1].replace(" ", "_").replace(",", "")


README = Page(ROOT / "README.md")
PAGES = [Page(path) for path in sorted(DOCS.rglob("*.md"))]


def is_suite(block: str) -> bool:
    return "\ndef test_" in block


def parameters(pages: list[Page], suites: bool) -> list[object]:
    """The Python blocks of some pages, named by page and heading: programs, or suites of tests."""
    found = [(page, block) for page in pages for block in page.blocks("python") if is_suite(block) is suites]
    return [pytest.param(page, block, id=f"{page.name}-{page.heading_of(block)}") for page, block in found]


def run_program(page: Page, program: str, request: pytest.FixtureRequest) -> dict[str, object]:
    """Runs a block as a module of its own; where it names a server it gets a private one. Returns its names."""
    if DATABASE in program or REDIS in program:  # on a busy machine 250 ms may be over before a new database answers
        request.getfixturevalue("monkeypatch").setitem(Cache.__init__.__kwdefaults__, "timeout", "10s")
    if DATABASE in program:
        program = program.replace(DATABASE, request.getfixturevalue("warm_postgres").new_database())
    if REDIS in program:
        program = program.replace(REDIS, request.getfixturevalue("warm_redis").new_database())
    namespace: dict[str, object] = {"__name__": "readme"}
    exec(compile(program, page.name, "exec", dont_inherit=True), namespace)
    modules = {str(getattr(value, "__module__", type(value).__module__)) for value in namespace.values()}
    assert any(module.startswith("stillwarm") for module in modules)
    return namespace


def run_suite(suite: str, arguments: list[str], pytester: pytest.Pytester) -> None:
    """Runs a block of tests with the pytest plugin; all of them pass."""
    pytester.makepyfile(test_app=suite)
    announced = bool(importlib.metadata.entry_points(group="pytest11", name="stillwarm"))
    plugin = [] if announced else ["-p", "stillwarm.testing"]
    result = pytester.runpytest_subprocess(*plugin, *arguments)
    result.assert_outcomes(passed=suite.count("\ndef test_"))
