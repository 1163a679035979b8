"""The repository keeps its own rules: who may include whom, what the path names, how long a file may be.

Thread rule: none.
Refuses to know: what the code does.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CORE = ROOT / "cpp" / "core"
STATIONS = ("memory", "flight", "fence", "remote", "retry", "antidup", "codec", "http")
SOURCES = sorted(p for p in (ROOT / "cpp").rglob("*") if p.suffix in (".cpp", ".hpp"))
SUFFIXES = (".cpp", ".hpp", ".py")
PYTHON = sorted((ROOT / "python").rglob("*.py"))


def includes(path: Path) -> list[str]:
    return re.findall(r'^#include "([^"]+)"', path.read_text(), re.MULTILINE)


def test_codebase_there_is_something_to_check() -> None:
    assert len(SOURCES) > 30
    assert len(PYTHON) > 10


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_codebase_includes_go_one_way(path: Path) -> None:
    parts = path.relative_to(ROOT / "cpp").parts
    for included in includes(path):
        target = Path(included).parts
        if parts[0] == "bindings":
            assert target[0] in ("bindings", "core"), included
            continue
        assert target[0] == "core", included
        if parts[1] == "base":
            assert target[1] == "base", included
        elif parts[1] in STATIONS:
            assert target[1] in ("base", parts[1]), included


@pytest.mark.parametrize("path", [p for p in SOURCES if CORE in p.parents], ids=lambda p: p.name)
def test_codebase_the_core_knows_no_python(path: Path) -> None:
    assert not re.search(r"Python\.h|pybind11|PyObject", path.read_text())


LIBRARIES = {
    r"hiredis/": {"redis_link", "redis_tls"},
    r"openssl/": {"redis_tls"},
    r"libpq": {"postgres_link"},
    r"z(?:std|dict)\.h": {"compressor"},
}


@pytest.mark.parametrize("library", LIBRARIES)
def test_codebase_a_library_is_included_where_it_is_spoken_to(library: str) -> None:
    files = {path.stem for path in SOURCES if re.search(rf"^#include <{library}", path.read_text(), re.MULTILINE)}
    assert files == LIBRARIES[library]


@pytest.mark.parametrize("path", SOURCES + PYTHON, ids=lambda p: str(p.relative_to(ROOT)))
def test_codebase_files_are_short_and_say_what_they_are(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") <= 400
    if path.suffix == ".py":
        openings = ('"""', "#")
    else:  # a .cpp may leave it to its header
        openings = ("//", f'#include "{path.relative_to(ROOT / "cpp").with_suffix(".hpp")}"')
    if text and path.name != "__init__.py":
        assert text.startswith(openings), "a file opens with what it is"


def test_codebase_tests_and_benchmarks_are_short_too() -> None:
    files = [p for folder in ("tests", "benchmarks") for p in (ROOT / folder).rglob("*") if p.suffix in SUFFIXES]
    assert len(files) > 200
    assert {str(p.relative_to(ROOT)) for p in files if p.read_text().count("\n") > 400} == set()


def test_codebase_the_gil_is_never_released_by_raii() -> None:
    for path in SOURCES:
        assert "gil_scoped_release" not in path.read_text(), path


def test_codebase_the_path_names_files_that_exist() -> None:
    text = (ROOT / "cpp" / "README.md").read_text()
    named = re.findall(r"(?:core|bindings|\.\./python/stillwarm)/[\w/]+\.(?:hpp|cpp|py)", text)
    assert len(named) > 12
    missing = [name for name in named if not (ROOT / "cpp" / name).resolve().exists()]
    assert missing == []
