"""README.md and the page on HTTP say nothing that is not so: code runs; tests, settings, jobs and files exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from stillwarm._cache import _ARGUMENTS
from stillwarm._types import OPTIONS, TABLE_ONLY, TYPE_OPTIONS

DATABASE = "postgresql://app@localhost/shop"
REDIS = "redis://localhost:6379/0"
ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")
PAGES = [README, (ROOT / "python/stillwarm/web/README.md").read_text("utf-8")]


def blocks(language: str) -> list[str]:
    return [b for page in PAGES for b in re.findall(rf"^```{language}\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)]


def heading(block: str) -> str:
    """The heading above a block, for the name of its test."""
    page = next(page for page in PAGES if block in page)
    above = page[: page.index(block)]
    return re.findall(r"^#+ (.*)$", above, re.MULTILINE)[-1].replace(" ", "_").replace(",", "")


def settings_after(text: str) -> set[str]:
    """The first column of the table that follows `text`."""
    table = README[README.index(text) :].split("\n\n")[1]
    return set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE))


PROGRAMS = [block for block in blocks("python") if "\ndef test_" not in block]
SUITES = [block for block in blocks("python") if "\ndef test_" in block]


@pytest.mark.parametrize("program", [pytest.param(block, id=heading(block)) for block in PROGRAMS])
def test_readme_program_runs(program: str, request: pytest.FixtureRequest) -> None:
    if DATABASE in program:  # it gets one of its own
        program = program.replace(DATABASE, request.getfixturevalue("warm_postgres").new_database())
    if REDIS in program:
        program = program.replace(REDIS, request.getfixturevalue("warm_redis").new_database())
    namespace: dict[str, object] = {"__name__": "readme"}
    exec(compile(program, "README.md", "exec", dont_inherit=True), namespace)
    assert any(type(value).__module__.startswith("stillwarm") for value in namespace.values())


@pytest.mark.parametrize("suite", [pytest.param(block, id=heading(block)) for block in SUITES])
@pytest.mark.parametrize("arguments", [[], ["--stillwarm-off"]], ids=["on", "off"])
def test_readme_suite_passes(suite: str, arguments: list[str], pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_app=suite)
    plugin = [] if _plugin_is_announced() else ["-p", "stillwarm.testing"]
    result = pytester.runpytest_subprocess(*plugin, *arguments)
    result.assert_outcomes(passed=suite.count("\ndef test_"))


def _plugin_is_announced() -> bool:
    import importlib.metadata

    return bool(importlib.metadata.entry_points(group="pytest11", name="stillwarm"))


def test_readme_has_code_of_every_kind() -> None:
    assert len(PROGRAMS) >= 4
    assert len(SUITES) == 2


def test_readme_names_tests_that_exist() -> None:
    guarantees = README.split("## What is guaranteed")[1].split("\n## ")[0]
    named = set(re.findall(r"`(test_\w+)`", guarantees))
    sources = "".join(path.read_text("utf-8") for path in (ROOT / "tests" / "python").rglob("test_*.py"))
    assert len(named) >= 12
    assert named - set(re.findall(r"^(?:async )?def (test_\w+)", sources, re.MULTILINE)) == set()


def test_readme_every_guarantee_names_a_test() -> None:
    guarantees = README.split("## What is guaranteed")[1].split("\n## ")[0]
    rows = [row for row in guarantees.splitlines() if row.startswith("|")][2:]
    assert [row for row in rows if "`test_" not in row] == []


def test_readme_settings_are_all_there_are() -> None:
    assert settings_after("Of a function (`@cache.cached") == TYPE_OPTIONS
    assert settings_after("Of a function only:") == OPTIONS - TYPE_OPTIONS
    assert settings_after("Of a type only") == TABLE_ONLY
    assert settings_after("Of the cache only:") == _ARGUMENTS


def test_readme_files_exist() -> None:
    linked = re.findall(r"\]\(([^)#]+)\)", README)
    assert linked
    assert [path for path in linked if "://" not in path and not (ROOT / path).exists()] == []


def test_readme_commands_exist() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    extras = re.findall(r"^(\w+) = \[", (ROOT / "pyproject.toml").read_text("utf-8"), re.MULTILINE)
    for job in re.findall(r"\bmake ([a-z]+)", "\n".join([*blocks("sh"), *re.findall(r"`(make [^`]*)`", README)])):
        assert re.search(rf"^{job}: ", makefile, re.MULTILINE), job
    for extra in re.findall(r"'\.\[(\w+)\]'", README):
        assert extra in extras


def test_readme_of_http_names_tests_that_exist() -> None:
    page = (ROOT / "cpp/core/http/README.md").read_text("utf-8")
    rows = [row.split("|")[-2] for row in page.splitlines() if row.startswith("| ")]
    python = "".join(path.read_text("utf-8") for path in (ROOT / "tests/python").glob("test_web_*.py"))
    here = set(re.findall(r"^(?:async )?def (test_\w+)", python, re.MULTILINE))
    cpp = "".join(path.read_text("utf-8") for path in (ROOT / "tests/cpp/http").glob("*.cpp"))
    there = {f"{suite}.{name}" for suite, name in re.findall(r"^TEST\((\w+), (\w+)\)", cpp, re.MULTILINE)}
    suite = ""
    for row in rows:
        for name in re.findall(r"test_\w+", row):
            assert name in here
        for start, name in re.findall(r"(\w*)\.(\w+|\*)", row):
            suite = start or suite
            assert any(one.startswith(f"{suite}.") if name == "*" else one == f"{suite}.{name}" for one in there), name
    assert len(rows) > 80
