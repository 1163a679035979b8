"""Measures what the cache costs in one process, beside other libraries, and writes a table and a picture.

    pip install 'stillwarm[bench]'
    python benchmarks/run.py [--quick] [--out FOLDER] [--only hits misses ...]

Prints the table; a full run also keeps it in benchmarks/results/in_process.{md,svg}. `--quick` is a smoke run of some
seconds with few rivals that writes nothing unless it is told where. A rival that is not installed is named and left
out. Exits with 1 if a stampede loaded more than once, which no busy machine excuses; a missed goal is only reported.
Hit ratios and hits over HTTP are programs of their own, hit_ratio/run.py and http/run.py; `make bench` runs all.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import rivals as adapters
from python import hits, memory, misses, pauses, report, retries, stampede, threads
from python.measure import FULL, QUICK, Section

PARTS = {
    "hits": hits,
    "misses": misses,
    "retries": retries,
    "memory": memory,
    "threads": threads,
    "pauses": pauses,
    "stampede": stampede,
}
RESULTS = Path(__file__).resolve().parent / "results"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a smoke run of some seconds")
    parser.add_argument("--out", type=Path, help="folder for in_process.md and in_process.svg")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="parts to run; keeps no results")
    args = parser.parse_args()
    plan = QUICK if args.quick else FULL
    rivals = adapters.load(adapters.FEW if args.quick else adapters.MODULES)
    command = f"python benchmarks/run.py {' '.join(sys.argv[1:])}".rstrip()
    known = report.facts(rivals.versions, command, rivals.missing)
    for line in rivals.missing:
        print(line, file=sys.stderr)
    sections: list[Section] = []
    for name in args.only:
        start = time.perf_counter()
        for section in PARTS[name].sections(plan, rivals):
            sections.append(section)
            print("\n".join(report.details(section)), flush=True)
        print(f"({name}: {time.perf_counter() - start:.0f} s)", file=sys.stderr)
    rows = [row for section in sections for row in section.rows]
    print("\n".join(report.summary(rows)))
    out = args.out or (None if args.quick or set(args.only) != set(PARTS) else RESULTS)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        (out / "in_process.md").write_text(report.markdown(sections, known))
        (out / "in_process.svg").write_text(report.picture(sections, known))
        print(f"\nwritten: {out / 'in_process.md'}, {out / 'in_process.svg'}")
    return 1 if any(row.question.startswith("stampede") and not row.ours.startswith("1 load,") for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
