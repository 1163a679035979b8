"""The benchmarks of the PostgreSQL tier, one after the other; a full run keeps all in benchmarks/results/remote.md.

    python benchmarks/remote/run.py [--quick]

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
RESULTS = HERE.parent / "results" / "remote.md"
PROGRAMS = {
    "gets.py": "Gets and sets",
    "fleet.py": "Several processes",
    "storage.py": "In the database",
    "dictionaries.py": "Compression dictionaries",
    "reference.py": "The reference system's concurrency test",
}


def cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def main() -> int:
    quick = sys.argv[1:] == ["--quick"]
    parts, failed = [], 0
    for program, title in PROGRAMS.items():
        command = [sys.executable, str(HERE / program), *sys.argv[1:]]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
        print(f"## {title}\n\n{done.stdout}", flush=True)
        parts.append(f"## {title}\n\n`python benchmarks/remote/{program}`\n\n{done.stdout}")
        failed += done.returncode != 0
    if not quick and not failed:
        packages = ", ".join(f"{name} {version(name)}" for name in ("psycopg", "psycopg-pool", "asyncpg", "SQLAlchemy"))
        head = (
            f"# The PostgreSQL tier\n\n{datetime.date.today()}; {cpu()}, {os.cpu_count()} cores, Python "
            f"{platform.python_version()}, {packages}; server, client and rivals on this one machine, over TCP on "
            "loopback. "
            "`python benchmarks/remote/run.py`\n\n"
        )
        RESULTS.write_text(head + "\n".join(parts))
        print(f"written: {RESULTS}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
