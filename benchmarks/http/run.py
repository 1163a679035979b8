"""Measures hits over HTTP, beside bare apps, empty handlers and other libraries, and writes a table and a picture.

    apt-get install wrk && pip install 'stillwarm[bench]'
    python benchmarks/http/run.py [--quick] [--out FOLDER] [--only throughput page ...]
    python benchmarks/http/run.py redis [--quick] [--out FOLDER]

Prints the table; a full run (four minutes) also keeps it in benchmarks/results/http.{md,svg}. `redis` measures the
same with a private Redis as the tier, in three minutes, and keeps http_redis.{md,svg}. `--quick` is a smoke run of
some seconds that writes nothing unless it is told where. Servers run on free ports and end with this program. Exits
with 1 if a crowd made a page more than once; a missed goal is only reported.
"""

from __future__ import annotations

import argparse
import importlib
import shutil
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

BENCHMARKS = Path(__file__).resolve().parents[1]
sys.path.append(str(BENCHMARKS))  # last: this folder's name is that of a package of Python's own

import crowd  # noqa: E402
import inprocess  # noqa: E402
import page  # noqa: E402
import throughput  # noqa: E402
import tiered  # noqa: E402
from python import report  # noqa: E402
from python.measure import Section  # noqa: E402

PARTS: dict[str, Any] = {"inprocess": inprocess, "throughput": throughput, "page": page, "crowd": crowd}
MODES: dict[str, dict[str, Any]] = {"memory": PARTS, "redis": {"tiered": tiered}}
TITLES = {"memory": ("http", "Over HTTP"), "redis": ("http_redis", "Over HTTP, on Redis")}
PACKAGES = ("stillwarm", "Flask", "Werkzeug", "gunicorn", "Flask-Caching")
PACKAGES += ("fastapi", "starlette", "uvicorn", "uvloop", "httptools", "fastapi-cache2")
HOW = (
    "Requests per second come from wrk on the same machine, medians of interleaved rounds; a ratio is the median of "
    "the rounds' own ratios, ours by theirs, so more is better. The bare apps send the bytes and header fields of our "
    "hit from a constant. In process, times are CPU time of the thread, without what an app that does nothing takes."
)


def version_of(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # ours, run from a source tree
        return getattr(importlib.import_module(package), "__version__", "?")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mode", nargs="?", choices=MODES, default="memory", help="where the cache is")
    parser.add_argument("--quick", action="store_true", help="a smoke run of some seconds")
    parser.add_argument("--out", type=Path, help="folder for the table and the picture")
    parser.add_argument("--only", nargs="+", choices=PARTS, help="parts to run; keeps no results")
    args = parser.parse_args()
    if args.only and args.mode != "memory":
        parser.error(f"--only: not with {args.mode}")
    parts, (name, title) = MODES[args.mode], TITLES[args.mode]
    only = args.only or list(parts)
    if {"throughput", "tiered"} & {*only} and shutil.which("wrk") is None:
        print("wrk is not installed: apt-get install wrk", file=sys.stderr)
        return 2
    command = f"python benchmarks/http/run.py {' '.join(sys.argv[1:])}".rstrip()
    known = report.facts({package: version_of(package) for package in PACKAGES}, command)
    sections: list[Section] = []
    for part in only:
        start = time.perf_counter()
        for section in parts[part].sections(args.quick):
            sections.append(section)
            print("\n".join(report.details(section)), flush=True)
        print(f"({part}: {time.perf_counter() - start:.0f} s)", file=sys.stderr)
    rows = [row for section in sections for row in section.rows]
    print("\n".join(report.summary(rows)))
    out = args.out or (None if args.quick or {*only} != {*parts} else BENCHMARKS / "results")
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        table, picture = out / f"{name}.md", out / f"{name}.svg"
        table.write_text(report.markdown(sections, known, title, HOW))
        picture.write_text(report.picture(sections, known, title))
        print(f"\nwritten: {table}, {picture}")
    return 1 if any("cold requests" in row.question and not row.ours.startswith("1 load,") for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
