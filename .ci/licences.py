#!/usr/bin/env python3
"""Puts the licence text of every library that a repaired wheel carries into it: `.ci/licences.py dist/*.whl`.

`auditwheel repair` copies shared libraries into `stillwarm.libs` under names that hold the first eight digits of their
hash. Here each is found again on this machine by name and hash; its text is the `copyright` of the Debian package that
owns it, or of the nearest folder above it with a file LICENSE (what .ci/manylinux builds). It goes to
`licenses/carried` of the wheel's `.dist-info`, with what it refers to in Debian's `common-licenses` and a list that
names each library, its version and where its source is. A library without a text is an error, and the wheel stays as
it was.

Thread rule: a program of one thread; rewrites the wheels that it is given.
Refuses to know: how wheels are built and repaired. Standard library alone.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

COMMON = Path("/usr/share/common-licenses")
DOCS = Path("/usr/share/doc")
# auditwheel puts the hash before the first dot: libldap-2-3b1f0c42.5.so.0.1.8
CARRIED = re.compile(r"(?P<folder>[^/]+\.libs)/(?P<base>[^/.]+)-(?P<digest>[0-9a-f]{8})\.(?P<rest>[^/]+)")
OWN_TEXTS = ("LICENSE", "LICENSE.txt", "COPYRIGHT", "COPYING")


class Unknown(Exception):
    """A carried library whose origin or text cannot be found; the text names it."""


class Origin(NamedTuple):
    """Whose a library is."""

    name: str  # of its project, and of the file that has its text
    version: str
    source: str  # where its source is to be had
    text: Path


def folders() -> Iterator[Path]:
    """Where shared libraries are: what the dynamic linker knows, and $LD_LIBRARY_PATH."""
    yield from map(Path, filter(None, os.environ.get("LD_LIBRARY_PATH", "").split(":")))
    known = subprocess.run(["ldconfig", "-p"], capture_output=True, text=True, env={"PATH": "/usr/sbin:/sbin"}).stdout
    yield from sorted({Path(line.rpartition("=> ")[2]).parent for line in known.splitlines() if "=> /" in line})


def original(entry: str) -> Path:
    """The file of this machine that a library of a wheel is a copy of."""
    match = CARRIED.fullmatch(entry)
    if match is None:
        raise Unknown(f"{entry}: not a name that auditwheel gives")
    name = f"{match['base']}.{match['rest']}"
    for folder in folders():
        path = folder / name
        if path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest().startswith(match["digest"]):
            return path.resolve()
    raise Unknown(f"{entry}: no {name} of this hash is on this machine")


def origin(path: Path) -> Origin:
    """Whose the file is: a Debian package's, or that of a folder with its own licence."""
    for owned in (path, Path("/", *path.parts[2:])):  # packages may still name it below /lib
        try:
            found = subprocess.run(["dpkg-query", "-S", str(owned)], capture_output=True, text=True)
        except FileNotFoundError:
            break
        if found.returncode == 0:
            return debian(found.stdout.split(":")[0])
    for folder in path.parents[:-1]:
        for text in (folder / name for name in OWN_TEXTS):
            if text.is_file():
                version, place = "", folder / "SOURCE"
                source = place.read_text().strip() if place.is_file() else "not recorded"
                return Origin(folder.name, version, source, text)
    raise Unknown(f"{path}: neither a Debian package owns it nor has a folder above it a file {' or '.join(OWN_TEXTS)}")


def debian(package: str) -> Origin:
    """What Debian says of a package of its own."""
    wanted = "${Version} ${source:Package} ${source:Version}"
    shown = subprocess.run(["dpkg-query", "-W", "-f", wanted, package], capture_output=True, text=True, check=True)
    version, source, source_version = shown.stdout.split()
    text = DOCS / package / "copyright"
    if not text.is_file():
        raise Unknown(f"{package}: there is no {text}")
    return Origin(source, version, f"Debian's source package {source} {source_version}", text)


def texts(carried: dict[str, Origin]) -> dict[str, bytes]:
    """File name to content, of all that goes into the wheel."""
    found: dict[str, bytes] = {}
    newest: dict[str, str] = {}
    for owner in carried.values():
        content = owner.text.read_bytes()
        found[f"{owner.name}.txt"] = content
        for name in re.findall(rf"{COMMON}/([\w.+-]*\w)", content.decode()):
            text = (COMMON / name).resolve()  # the newest of its name, where no version is said
            found[f"common-licenses/{text.name}.txt"] = text.read_bytes()
            if text.name != name:
                newest[name] = text.name
    lines = [
        "Libraries that this wheel carries, unchanged but for their names and the names by which they find each other.",
        "The text of each is beside this file; what it calls /usr/share/common-licenses is the folder common-licenses.",
        *(f"Where no version is named, {name} is {version}." for name, version in sorted(newest.items())),
        "",
    ]
    for entry, owner in sorted(carried.items()):
        lines.append(
            f"{entry}: {owner.name}.txt; {owner.name} {owner.version}; source: {owner.source}".replace(" ;", ";")
        )
    found["README.txt"] = "\n".join([*lines, ""]).encode()
    return found


def carry(wheel: Path) -> int:
    """Adds the texts to a wheel, in place; how many libraries they are for."""
    with zipfile.ZipFile(wheel) as old:
        entries = {info.filename: (info, old.read(info)) for info in old.infolist()}
    libraries = [name for name in entries if ".libs/" in name and not name.endswith("/")]
    metadata = next(name for name in entries if re.fullmatch(r"[^/]+\.dist-info/METADATA", name))
    home = f"{metadata.rpartition('/')[0]}/licenses/"
    entries = {name: entry for name, entry in entries.items() if not name.startswith(f"{home}carried/")}
    added = texts({name: origin(original(name)) for name in libraries})

    info, described = entries[metadata]
    head, gap, body = described.partition(b"\n\n")
    lines = [line for line in head.decode().split("\n") if not line.startswith("License-File: carried/")]
    place = max(number for number, line in enumerate(lines) if line.startswith("License-File: ")) + 1
    lines[place:place] = [f"License-File: carried/{name}" for name in sorted(added)]
    entries[metadata] = info, "\n".join(lines).encode() + gap + body
    for name, content in sorted(added.items()):
        new = zipfile.ZipInfo(f"{home}carried/{name}", info.date_time)
        new.compress_type, new.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
        entries[new.filename] = new, content

    record = metadata.replace("METADATA", "RECORD")
    info, _ = entries.pop(record)
    rows = [f"{name},{digest(content)},{len(content)}" for name, (_, content) in entries.items() if name[-1] != "/"]
    entries[record] = info, "\n".join([*rows, f"{record},,", ""]).encode()
    fresh = wheel.with_suffix(".new")
    with zipfile.ZipFile(fresh, "w") as new_wheel:
        for info, content in entries.values():
            new_wheel.writestr(info, content, compress_type=zipfile.ZIP_DEFLATED, compresslevel=9)
    fresh.replace(wheel)
    return len(libraries)


def digest(content: bytes) -> str:
    """As RECORD has it."""
    return "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()


def main() -> int:
    wheels = [Path(name) for name in sys.argv[1:]]
    if not wheels:
        print("usage: .ci/licences.py WHEEL...", file=sys.stderr)
        return 2
    for wheel in wheels:
        try:
            count = carry(wheel)
        except Unknown as error:
            print(f"{wheel.name}: no licence text for a library that it carries: {error}", file=sys.stderr)
            return 1
        print(f"{wheel.name}: the texts of {count} libraries")
    return 0


if __name__ == "__main__":
    sys.exit(main())
