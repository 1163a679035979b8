"""What type checkers say: the package is clean, users' code keeps its types, the stub is what the extension is.

Thread rule: one thread; the checkers run in processes of their own.
Refuses to know: types at run time.

In tests/python/typing each wanted type is an assert_type and each wanted error an ignore comment; a comment that is not
needed is an error of its own.
"""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

import stillwarm
from stillwarm import _cached, _core

HERE = Path(__file__).parent / "typing"
PACKAGE = Path(stillwarm.__file__).parent
USERS = sorted(path.name for path in HERE.glob("*.py"))
MADE_BY_PYTHON = r"stillwarm\._core\.CachedCall\.(" + "|".join(_cached._METHODS) + ")"


def run(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A tool of this interpreter, away from the settings of the checkout, that sees the package that is tested."""
    paths = os.pathsep.join([str(PACKAGE.parent), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": paths, "MYPYPATH": str(PACKAGE.parent), "MYPY_CACHE_DIR": str(directory)}
    if PACKAGE.parent == Path(sysconfig.get_path("platlib")):
        del environment["MYPYPATH"]  # mypy finds it there itself, and refuses to be told
    return subprocess.run(
        [sys.executable, "-m", *arguments], cwd=directory, env=environment, capture_output=True, text=True, timeout=300
    )


def mypy(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    (directory / "mypy.ini").write_text("[mypy]\nstrict = True\nwarn_unreachable = True\npython_version = 3.10\n")
    return run(directory, "mypy", "--config-file", "mypy.ini", *arguments)


def test_typing_package_is_clean_under_mypy_strict(tmp_path: Path) -> None:
    stems = {path.stem for path in PACKAGE.glob("*.py*") if path.suffix in (".py", ".pyi")} - {"__init__", "cli"}
    assert len(stems) > 15
    # By module, not by file: mypy refuses files below site-packages together with what else is there.
    result = mypy(
        tmp_path, "-m", "stillwarm", *(word for stem in sorted(stems) for word in ("-m", f"stillwarm.{stem}"))
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_typing_users_code_under_mypy(tmp_path: Path) -> None:
    result = mypy(tmp_path, *(str(HERE / name) for name in USERS))
    assert result.returncode == 0, result.stdout + result.stderr


def test_typing_users_code_under_pyright(tmp_path: Path) -> None:
    settings = {
        "typeCheckingMode": "standard",
        "pythonVersion": "3.10",
        "include": [str(HERE)],
        "extraPaths": [str(PACKAGE.parent)],
        "enableTypeIgnoreComments": False,
        "reportUnnecessaryTypeIgnoreComment": "error",
    }
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(settings))
    result = run(tmp_path, "basedpyright", "--outputjson", "-p", str(tmp_path), "--pythonpath", sys.executable)
    report = json.loads(result.stdout)
    found = [f"{d['file']}:{d['range']['start']['line'] + 1}: {d['message']}" for d in report["generalDiagnostics"]]
    assert found == []
    assert report["summary"]["filesAnalyzed"] == len(USERS)


def test_typing_checkers_see_a_broken_signature(tmp_path: Path) -> None:
    (tmp_path / "wrong.py").write_text(
        "from stillwarm import Cache\n@Cache().cached(ttl=5)\ndef f(x: int) -> int: return x\nf('a').upper()\n"
    )
    result = mypy(tmp_path, "wrong.py")
    assert "[arg-type]" in result.stdout
    assert "[attr-defined]" in result.stdout


def test_typing_stub_is_what_the_extension_is(tmp_path: Path) -> None:
    (tmp_path / "allowed.txt").write_text(
        "\n".join(
            [
                MADE_BY_PYTHON,
                r"stillwarm\._core\.CacheBase",  # has no text signature
                # pybind11's metaclass
                r"stillwarm\._core\.(Retry(Attempt|Policy)|Breaker(Call)?|Http(Front|Question))(\.__init__)?",
                r"stillwarm\._core\.(Completions|Dictionaries|(Postgres|Redis|Remote)Tier|Reader|Request|Study|UpsertPlan)(\.__init__)?",
                r"stillwarm\._core\.Forward(\.(__index__|__int__|__members__|name|value))?",  # and what its enums have
            ]
        )
    )
    result = run(
        tmp_path, "mypy.stubtest", "stillwarm._core", "--allowlist", "allowed.txt", "--ignore-unused-allowlist"
    )
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("function", sorted(n for n, o in vars(_core).items() if inspect.isbuiltin(o)))
def test_typing_stub_takes_as_many_arguments_as_the_function(function: str) -> None:
    import ast

    tree = ast.parse((PACKAGE / "_core.pyi").read_text())
    (stub,) = [node.args for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == function]
    written = (getattr(_core, function).__doc__ or "").split(" -> ")[0]  # pybind11 writes: name(arg0: T, arg1: U) -> R
    parsed = ast.parse(f"def {written}: ...").body[0]
    assert isinstance(parsed, ast.FunctionDef)
    count = len(parsed.args.posonlyargs) + len(parsed.args.args)
    assert len(stub.posonlyargs) + len(stub.args) == count
    if stub.posonlyargs == [] and count:
        assert [a.arg for a in stub.args] == [a.arg for a in parsed.args.args]
