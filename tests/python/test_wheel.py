"""What makes wheels: that its lists agree, and that nothing is carried without its licence text.

Thread rule: one thread.
Refuses to know: how a wheel is built. Whether one works where it is installed is shown by .ci/clean-wheel.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import platform
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[2]
WHEEL = "stillwarm-1.0-cp311-cp311-manylinux_2_35_x86_64.whl"
INFO = "stillwarm-1.0.dist-info"


def tool(name: str) -> ModuleType:
    """A program of .ci as a module."""
    spec = importlib.util.spec_from_file_location(f"ci_{name}", ROOT / ".ci" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def declared() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def library(folder: Path, name: str, content: bytes) -> str:
    """Puts a library there; the name that auditwheel would give it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)
    base, _, rest = name.partition(".")
    return f"stillwarm.libs/{base}-{hashlib.sha256(content).hexdigest()[:8]}.{rest}"


def make_wheel(folder: Path, **files: bytes) -> Path:
    """A wheel of these files, as auditwheel leaves one."""
    described = (
        b"Metadata-Version: 2.4\nName: stillwarm\nLicense-File: LICENSE\nClassifier: Typing :: Typed\n\n# stillwarm\n"
    )
    wheel = folder / WHEEL
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, content in {**files, f"{INFO}/METADATA": described, f"{INFO}/RECORD": b""}.items():
            archive.writestr(name, content)
    return wheel


# ---------------------------------------------------------------------------------------------------------------- lists


def test_wheel_the_lists_of_interpreters_agree(declared: dict[str, Any]) -> None:
    built = [f"3.{minor}" for minor in re.findall(r"\bcp3(\d+)-\*", declared["tool"]["cibuildwheel"]["build"])]
    named = "\n".join(declared["project"]["classifiers"])
    assert built == ["3.10", "3.11", "3.12", "3.13", "3.14"]
    assert re.findall(r"^Programming Language :: Python :: (3\.\d+)$", named, re.MULTILINE) == built
    assert declared["project"]["requires-python"] == f">={built[0]}"
    assert declared["tool"]["mypy"]["python_version"] == built[0]
    assert declared["tool"]["ruff"]["target-version"] == f"py{built[0].replace('.', '')}"


def test_wheel_the_version_is_written_once(declared: dict[str, Any]) -> None:
    assert "version" not in declared["project"]
    assert "version" in declared["project"]["dynamic"]
    place = ROOT / declared["tool"]["scikit-build"]["metadata"]["version"]["input"]
    assert len(re.findall(r'^__version__ = "[^"]+"$', place.read_text(), re.MULTILINE)) == 1


def test_wheel_headers_that_are_compiled_in_have_their_licences(declared: dict[str, Any]) -> None:
    texts = [path for pattern in declared["project"]["license-files"] for path in ROOT.glob(pattern)]
    assert {path.stem for path in texts} == {"LICENSE", "pybind11", "xxhash"}
    assert all("Copyright" in path.read_text() for path in texts)


def test_wheel_what_cibuildwheel_calls_is_there(declared: dict[str, Any]) -> None:
    ours = declared["tool"]["cibuildwheel"]
    calls = [*ours["test-command"], ours["linux"]["before-all"], *ours["linux"]["repair-wheel-command"]]
    named = re.findall(r"\{project\}/(\S+)", " ".join(calls))
    assert len(named) > 4
    assert [name for name in named if not (ROOT / name).is_file()] == []


# ------------------------------------------------------------------------------------------------------------- licences


def test_wheel_each_library_gets_the_text_of_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "warmth-1.2"
    name = library(home / "lib", "libwarmth.so.1.2", b"a library")
    (home / "LICENSE").write_text("Do what is right.\n")
    (home / "SOURCE").write_text("https://example.org/warmth.tar.gz\n")
    monkeypatch.setenv("LD_LIBRARY_PATH", str(home / "lib"))
    wheel = make_wheel(tmp_path, **{name: b"renamed and patched", "stillwarm/__init__.py": b""})
    licences = tool("licences")
    assert licences.carry(wheel) == 1
    first = wheel.read_bytes()
    licences.carry(wheel)
    assert wheel.read_bytes() == first, "once is enough"
    with zipfile.ZipFile(wheel) as archive:
        assert archive.read(f"{INFO}/licenses/carried/warmth-1.2.txt") == b"Do what is right.\n"
        listed = archive.read(f"{INFO}/licenses/carried/README.txt").decode()
        assert f"{name}: warmth-1.2.txt; " in listed
        assert "https://example.org/warmth.tar.gz" in listed
        head = archive.read(f"{INFO}/METADATA").decode().partition("\n\n")[0]
        assert "License-File: LICENSE\nLicense-File: carried/README.txt\nLicense-File: carried/warmth-1.2.txt\n" in head
        rows = dict(line.split(",", 1) for line in archive.read(f"{INFO}/RECORD").decode().splitlines())
        assert rows.keys() == set(archive.namelist())
        digest = base64.urlsafe_b64encode(hashlib.sha256(archive.read(name)).digest()).decode().rstrip("=")
        assert rows[name] == f"sha256={digest},19"


def test_wheel_a_library_of_debian_has_its_copyright_and_what_that_names(tmp_path: Path) -> None:
    licences = tool("licences")
    path = next(path for folder in licences.folders() for path in folder.glob("libzstd.so.1.*"))
    name = library(tmp_path, path.name, path.read_bytes())
    wheel = make_wheel(tmp_path, **{name: b""})
    assert licences.carry(wheel) == 1
    with zipfile.ZipFile(wheel) as archive:
        assert b"Copyright" in archive.read(f"{INFO}/licenses/carried/libzstd.txt")
        assert b"GNU GENERAL PUBLIC LICENSE" in archive.read(f"{INFO}/licenses/carried/common-licenses/GPL-2.txt")


def test_wheel_a_library_without_a_text_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path / "lib"))
    licences = tool("licences")
    known = library(tmp_path / "lib", "libstray.so.1", b"whose is it")
    other = known.replace("libstray", "libelse")
    for name, reason in ((known, "neither a Debian package owns it"), (other, "no libelse.so.1 of this hash")):
        wheel = make_wheel(tmp_path, **{name: b""})
        before = wheel.read_bytes()
        with pytest.raises(licences.Unknown, match=reason):
            licences.carry(wheel)
        assert wheel.read_bytes() == before


# ------------------------------------------------------------------------------------------------------------- contents


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Shared libraries as they should be, with symbols to debug with, and for processors that have AVX2."""
    folder = tmp_path_factory.mktemp("compiled")
    (folder / "sum.c").write_text("void add(float *a, float *b) { for (int i = 0; i < 64; i++) a[i] += b[i]; }\n")
    made = {}
    kinds = {"plain": ["-s"], "debug": ["-g"]}
    if platform.machine() == "x86_64":
        kinds["wide"] = ["-s", "-mavx2"]
    for name, flags in kinds.items():
        command = ["gcc", "-O3", "-shared", "-fPIC", *flags, "-o", folder / f"{name}.so", folder / "sum.c"]
        subprocess.run(command, check=True)
        made[name] = (folder / f"{name}.so").read_bytes()
    return made


def whole_wheel(tmp_path: Path, extension: bytes, **more: bytes) -> Path:
    """A wheel with which nothing is wrong but what is asked for."""
    carried = [f"stillwarm.libs/lib{name}-01234567.so.1" for name in ("pq", "hiredis", "zstd")]
    plain = more.pop("plain", extension)
    lines = "".join(f"{name}: some.txt; some 1\n" for name in carried)
    return make_wheel(
        tmp_path,
        **{
            "stillwarm/__init__.py": b"",
            "stillwarm/_core.cpython-311-x86_64-linux-gnu.so": extension,
            **dict.fromkeys(carried, plain),
            f"{INFO}/licenses/carried/README.txt": lines.encode(),
            f"{INFO}/licenses/carried/some.txt": b"text",
            **more,
        },
    )


def test_wheel_contents_that_are_right_pass(tmp_path: Path, compiled: dict[str, bytes]) -> None:
    assert list(tool("wheel_contents").complaints(whole_wheel(tmp_path, compiled["plain"]))) == []


def test_wheel_contents_that_are_wrong_are_named(tmp_path: Path, compiled: dict[str, bytes]) -> None:
    complaints = tool("wheel_contents").complaints
    plain = compiled["plain"]
    wheel = whole_wheel(
        tmp_path,
        plain,
        **{
            "stillwarm/tests/test_x.txt": b"",
            "stillwarm/__pycache__/x.cpython-311.pyc": b"",
            "stillwarm.libs/libstray-01234567.so.1": plain,
        },
    )
    assert sorted(complaints(wheel)) == [
        "libstray-01234567.so.1: no licence text",
        "stillwarm/__pycache__/x.cpython-311.pyc does not belong there",
        "stillwarm/tests/test_x.txt does not belong there",
    ]
    for kind, what in (("debug", "not stripped"), ("wide", "has instructions beyond x86-64: %ymm")):
        if kind in compiled:
            (said,) = complaints(whole_wheel(tmp_path, compiled[kind], plain=plain))
            assert said.startswith(f"stillwarm/_core.cpython-311-x86_64-linux-gnu.so: {what}")
    linux = whole_wheel(tmp_path, plain).rename(tmp_path / "stillwarm-1.0-cp311-cp311-linux_x86_64.whl")
    assert list(complaints(linux)) == ["its platform is not manylinux"]
