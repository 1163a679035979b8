"""The benchmarks of the remote tiers, one after the other; a full run keeps all in benchmarks/results.

    python benchmarks/remote/run.py [postgres | redis] [--quick]

Without a name: both, into remote.md (PostgreSQL) and redis.md.

Thread rule: one thread. Refuses to know: what is measured; each program says it in its first lines.
"""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).resolve().parent
RESULTS = HERE.parent / "results"
TIERS = {
    "postgres": (
        "The PostgreSQL tier",
        "remote.md",
        {
            "gets.py": "Gets and sets",
            "fleet.py": "Several processes",
            "storage.py": "In the database",
            "dictionaries.py": "Compression dictionaries",
            "reference.py": "The reference system's concurrency test",
        },
        ("psycopg", "psycopg-pool", "asyncpg", "SQLAlchemy"),
    ),
    "redis": (
        "The Redis tier",
        "redis.md",
        {"redis_gets.py": "Gets and sets"},
        ("redis", "hiredis", "aiocache", "cashews", "Flask-Caching"),
    ),
}


def cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def run(name: str, arguments: list[str]) -> int:
    """How many of a tier's programs failed."""
    title, results, programs, rivals = TIERS[name]
    parts, failed = [], 0
    for program, about in programs.items():
        command = [sys.executable, str(HERE / program), *arguments]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
        print(f"## {about}\n\n{done.stdout}", flush=True)
        parts.append(f"## {about}\n\n`python benchmarks/remote/{program}`\n\n{done.stdout}")
        failed += done.returncode != 0
    if not arguments and not failed:
        packages = ", ".join(f"{package} {version(package)}" for package in rivals)
        head = (
            f"# {title}\n\n{datetime.date.today()}; {cpu()}, {os.cpu_count()} cores, Python "
            f"{platform.python_version()}, {packages}; server, client and rivals on this one machine, over TCP on "
            f"loopback. `python benchmarks/remote/run.py {name}`\n\n"
        )
        (RESULTS / results).write_text(head + "\n".join(parts))
        print(f"written: {RESULTS / results}", file=sys.stderr)
    return failed


def main() -> int:
    names = [name for name in sys.argv[1:] if name in TIERS]
    arguments = [argument for argument in sys.argv[1:] if argument not in TIERS]
    return 1 if sum(run(name, arguments) for name in names or TIERS) else 0


if __name__ == "__main__":
    sys.exit(main())
