"""Replays request streams through our policy and through others, and writes a table and a picture.

    cmake -B build -DSTILLWARM_EXTENSION=OFF -DSTILLWARM_BENCHMARKS=ON && cmake --build build --target replay
    pip install libcachesim==0.3.5 numpy
    python benchmarks/hit_ratio/run.py --replay build/replay [--quick]

The real traces are read from `../shared/traces` beside the repository when that folder is there; they are not part of
it. `--quick` is a smoke run of some seconds that writes nothing into results/ unless it is told to.
"""

from __future__ import annotations

import argparse
import datetime
import platform
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

from report import Cell, markdown, picture
from rivals import OURS, Replayer
from workloads import Workload, real, synthetic, with_sizes

ROOT = Path(__file__).resolve().parents[2]
SIZED = ("web07", "orm-night", "zipf 0.7", "shift")
QUICK_REQUESTS = 20_000
REQUESTS = 400_000


def workloads(traces: Path, quick: bool) -> Iterator[Workload]:
    for plain in (*real(traces, QUICK_REQUESTS if quick else None), *synthetic(QUICK_REQUESTS if quick else REQUESTS)):
        yield plain
        if plain.name in SIZED:
            yield with_sizes(plain)


def measure(workload: Workload, replay: Path, quick: bool) -> Iterator[Cell]:
    with Replayer(workload, replay) as replayer:
        for size in workload.sizes[-2:] if quick else workload.sizes:
            ratios = {OURS: replayer.ours(size), **replayer.rivals(size)}
            yield Cell(workload.name, size, workload.weights is not None, ratios)


def cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replay", type=Path, default=ROOT / "build" / "replay", help="the program built by CMake")
    parser.add_argument("--traces", type=Path, default=ROOT.parent / "shared" / "traces")
    parser.add_argument("--out", type=Path, help="folder for hit_ratio.md and hit_ratio.svg")
    parser.add_argument("--quick", action="store_true", help="short streams")
    args = parser.parse_args()
    if not args.replay.exists():
        print(f"{args.replay} is not there: build the target `replay` with -DSTILLWARM_BENCHMARKS=ON", file=sys.stderr)
        return 2

    cells: list[Cell] = []
    for workload in workloads(args.traces, args.quick):
        for cell in measure(workload, args.replay, args.quick):
            cells.append(cell)
            best = max(cell.online, key=lambda name: cell.ratios[name])
            print(f"{cell.workload:18} {cell.size:>11,} {OURS} {cell.ratios[OURS]:5.1f}  best {best}", flush=True)
    cells.sort(key=lambda cell: cell.in_bytes)

    facts = {
        "date": datetime.date.today().isoformat(),
        "CPU": cpu_model(),
        "versions": f"Python {platform.python_version()}, "
        + ", ".join(f"{package} {version(package)}" for package in ("libcachesim", "numpy")),
        "command": "python benchmarks/hit_ratio/run.py" + (" --quick" if args.quick else ""),
        "traces": "web07 and orm-night are data of cache2k-benchmark, (c) headissue GmbH, Jens Wilke, CC BY 4.0; sizes "
        "in bytes are synthetic (log-normal around 4 KiB), as the traces have none",
    }
    text = markdown(cells, facts)
    out = args.out or (None if args.quick else ROOT / "benchmarks" / "results")
    if out is None:
        print(text)
        return 0
    out.mkdir(parents=True, exist_ok=True)
    (out / "hit_ratio.md").write_text(text)
    (out / "hit_ratio.svg").write_text(picture(cells))
    print(f"wrote {out / 'hit_ratio.md'} and hit_ratio.svg")
    return 0


if __name__ == "__main__":
    sys.exit(main())
