#!/usr/bin/env python3
"""Whether a wheel is fit to be given away: `.ci/wheel_contents.py dist/*.whl`; exit code 1 and every reason if not.

It has the package and what it carries, and no tests, sources of pages or leftovers; each library carried has a licence
text; the extension has no symbols to debug with, no instructions that a plain x86-64 lacks, and needs nothing but
what it carries and what manylinux counts on; and the platform tag is one of manylinux.

Thread rule: a program of one thread; changes nothing.
Refuses to know: how wheels are made. Needs readelf and objdump (Debian's binutils).
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

ALLOWED = re.compile(
    r"stillwarm/(?:[\w/]+\.(?:py|pyi|html|css|js)|py\.typed|grafana\.json|_core\.[\w-]+\.so)"
    r"|stillwarm\.libs/[^/]+\.so[.\d]*"
    r"|stillwarm-[^/]+\.dist-info/(?:METADATA|RECORD|WHEEL|entry_points\.txt|licenses/.+|sboms/[^/]+\.json)"
)
# What every system of a manylinux tag has, as far as we use it.
SYSTEM = re.compile(r"lib(?:stdc\+\+|gcc_s|m|c|pthread|dl|rt|resolv)\.so\.\d+|ld-linux-[\w-]+\.so\.\d")
# Registers of AVX and AVX-512; instructions of BMI, which come with -march=native and with x86-64-v3.
BEYOND_BASELINE = re.compile(r"%[yz]mm\d|\t(?:andn|blsr|shlx|shrx|sarx|mulx|rorx|pdep|pext)[lq]?\s")


def complaints(wheel: Path) -> Iterator[str]:
    """Why this wheel is not fit."""
    if not re.search(r"-manylinux_2_\d+_(?:x86_64|aarch64)\.whl$", wheel.name):
        yield "its platform is not manylinux"
    with zipfile.ZipFile(wheel) as archive, tempfile.TemporaryDirectory() as folder:
        names = [name for name in archive.namelist() if not name.endswith("/")]
        yield from (f"{name} does not belong there" for name in names if not ALLOWED.fullmatch(name))
        archive.extractall(folder)
        carried = {name.rpartition("/")[2] for name in names if ".libs/" in name}
        extensions = [name for name in names if re.fullmatch(r"stillwarm/_core\..+\.so", name)]
        if len(extensions) != 1:
            yield f"{len(extensions)} extensions in place of one"
        for wanted in ("libpq", "libhiredis", "libzstd"):
            if not any(name.startswith(f"{wanted}-") for name in carried):
                yield f"it does not carry {wanted}"
        yield from without_text(carried, names, Path(folder))
        for name in [*extensions, *(name for name in names if ".libs/" in name)]:
            yield from (f"{name}: {what}" for what in faults(Path(folder, name), carried))
        for name in extensions:
            yield from (f"{name}: {what}" for what in instructions(Path(folder, name)))


def without_text(carried: set[str], names: list[str], folder: Path) -> Iterator[str]:
    """Of what is carried, whatever has no licence text beside it."""
    lists = [name for name in names if name.endswith("/licenses/carried/README.txt")]
    text = (folder / lists[0]).read_text() if lists else ""
    listed = dict(re.findall(r"^stillwarm\.libs/(\S+): (\S+\.txt);", text, re.MULTILINE))
    for library in sorted(carried):
        if library not in listed or f"{lists[0].rpartition('/')[0]}/{listed[library]}" not in names:
            yield f"{library}: no licence text"


def faults(path: Path, carried: set[str]) -> Iterator[str]:
    """What is wrong with a shared library."""
    sections = read("readelf", "--section-headers", "--wide", path)
    if re.search(r" \.(?:symtab|debug_\w+) ", sections):
        yield "not stripped"
    for needed in re.findall(r"\(NEEDED\).*\[(.+)\]", read("readelf", "--dynamic", "--wide", path)):
        if needed not in carried and not SYSTEM.fullmatch(needed):
            yield f"needs {needed}, which is neither carried nor everywhere"


def instructions(path: Path) -> Iterator[str]:
    """What an old processor cannot run."""
    if "X86-64" not in read("readelf", "--file-header", path):
        return
    found = BEYOND_BASELINE.search(read("objdump", "--disassemble", "--no-show-raw-insn", path))
    if found:
        yield f"has instructions beyond x86-64: {found[0].strip()}"


def read(*command: str | Path) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def main() -> int:
    bad = 0
    for wheel in map(Path, sys.argv[1:]):
        found = list(complaints(wheel))
        bad += bool(found)
        for what in found:
            print(f"{wheel.name}: {what}", file=sys.stderr)
        if not found:
            print(f"{wheel.name}: nothing to complain about, {wheel.stat().st_size / 1e6:.1f} MB")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
