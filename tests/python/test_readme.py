"""README.md says nothing that is not so: code runs; tests, jobs and files exist. test_docs looks at the other pages.

Thread rule: one thread; each block of code runs in this process.
Refuses to know: how a block is found and run (pages).
"""

from __future__ import annotations

import re

import pytest

from pages import README as PAGE
from pages import ROOT, Page, parameters, run_program, run_suite

README = PAGE.text


@pytest.mark.parametrize(("page", "program"), parameters([PAGE], suites=False))
def test_readme_program_runs(page: Page, program: str, request: pytest.FixtureRequest) -> None:
    run_program(page, program, request)


@pytest.mark.parametrize(("page", "suite"), parameters([PAGE], suites=True))
@pytest.mark.parametrize("arguments", [[], ["--stillwarm-off"]], ids=["on", "off"])
def test_readme_suite_passes(page: Page, suite: str, arguments: list[str], pytester: pytest.Pytester) -> None:
    run_suite(suite, arguments, pytester)


def test_readme_has_code_of_every_kind() -> None:
    assert len(parameters([PAGE], suites=False)) >= 4
    assert len(parameters([PAGE], suites=True)) >= 1


def test_readme_has_what_a_reader_looks_for() -> None:
    headings = re.findall(r"^## (.*)$", README, re.MULTILINE)
    wanted = ["Two commands", "Install", "The path of a call", "Benchmarks", "Flask", "FastAPI", "PostgreSQL", "Redis"]
    assert [heading for heading in (*wanted, "Coming from another cache", "Limits") if heading not in headings] == []
    assert README.count("\n") <= 650


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


def test_readme_benchmarks_are_those_of_the_run_that_it_names() -> None:
    results = (ROOT / "benchmarks/results/in_process.md").read_text("utf-8")
    named = re.search(r"From the run of (.+ UTC)\n", README)
    measured = re.search(r"^- date: (.+)$", results, re.MULTILINE)
    assert named is not None
    assert measured is not None
    rows = re.findall(r"^\| (.+?) \| (.+?) \| (.+?) \| (.+?) \|$", PAGE.section("Benchmarks"), re.MULTILINE)[1:]
    there = dict(re.findall(r"^\| (.+?) \| (.+? \| .+? \| .+?) \|.*\|$", results.split("\n## ")[0], re.MULTILINE))
    assert len(rows) >= 6
    for question, *figures in rows:
        assert question in there
        if named[1] == measured[1]:  # `make bench` writes a run of its own
            assert there[question].startswith(" | ".join(figures))


def test_readme_files_exist() -> None:
    linked = re.findall(r"\]\(([^)#]+)\)", README)
    assert linked
    assert [path for path in linked if "://" not in path and not (ROOT / path).exists()] == []


def test_readme_commands_exist() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    extras = re.findall(r"^(\w+) = \[", (ROOT / "pyproject.toml").read_text("utf-8"), re.MULTILINE)
    for job in re.findall(r"\bmake ([a-z]+)", "\n".join([*PAGE.blocks("sh"), *re.findall(r"`(make [^`]*)`", README)])):
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
