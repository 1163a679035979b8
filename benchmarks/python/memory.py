"""Memory per entry beyond key and value: resident pages of a child process before and after it fills a cache.

Thread rule: one thread; each library in a process of its own. Keys and values exist before the first measurement.
Refuses to know: how the others are configured.

`python -m python.memory NAME ENTRIES` is the child.
"""

from __future__ import annotations

import ctypes
import gc
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from python.measure import Plan, Row, Section
from rivals import FEW, OURS, Rivals, load

TTL = 3600
DICT = "dict"
STORED = f"{OURS}, set"
NAMES = {
    DICT: "",
    OURS: "decorated",
    STORED: "stored",
    "lru_cache": "decorated",
    "cachetools": "stored",
    "cachebox": "stored",
    "theine": "stored",
}


def resident() -> int:
    """Bytes in memory, after everything that is free went back to the system."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def fill(name: str, keys: list[str], values: list[float]) -> tuple[Any, Callable[[], int]]:
    """The filled cache, and how many entries it has in the end."""
    if name == DICT:
        return (plain := dict(zip(keys, values, strict=True))), lambda: len(plain)
    adapter = load((*FEW, "theine")).with_("NAME")[name.partition(",")[0]]
    if NAMES[name] == "stored":
        store = adapter.make_store(len(keys), TTL)
        for key, value in zip(keys, values, strict=True):
            adapter.put(store, key, value)
        return store, lambda: sum(store.get(key) not in (None, (None, False)) for key in keys)
    source = iter(values)

    def loader(key: str) -> float:
        return next(source)

    cached = adapter.decorated(loader, len(keys), TTL)
    for key in keys:
        cached(key)
    return cached, lambda: int(cached.cache_info().currsize)


def child(name: str, entries: int) -> None:
    keys = [f"product:{number:09}" for number in range(entries)]
    values = [number + 0.5 for number in range(entries)]
    if name != DICT:
        load((*FEW, "theine"))
        fill(name, keys[:100], values[:100])
    before = resident()
    kept, count = fill(name, keys, values)
    after = resident()
    print((after - before) / entries, count())
    del kept


def measured(name: str, entries: int) -> tuple[float, int]:
    done = subprocess.run(
        [sys.executable, "-m", "python.memory", name, str(entries)],
        cwd=Path(__file__).resolve().parents[1],
        capture_output=True,
        text=True,
        check=True,
    )
    each, count = done.stdout.split()
    return float(each), int(count)


def sections(plan: Plan, rivals: Rivals) -> Iterator[Section]:
    title = f"memory per entry beyond key and value, {plan.entries:,} entries"
    section = Section(title, "bytes", columns="entries kept")
    there = {adapter.NAME for adapter in rivals.adapters} | {DICT}
    found: dict[str, float] = {}
    for name in NAMES:
        if name.partition(",")[0] in there:
            found[name], count = measured(name, plan.entries)
            section.bars.append((name, found[name], f"{count:,}"))
    section.bars.sort(key=lambda bar: bar[1])
    for name, rival, how in ((OURS, "lru_cache", ""), (STORED, "cachetools", ", by set")):
        each = found[name]
        compared = [f"{rival} {found[rival]:.0f} bytes", f"{each / found[rival]:.3g}"] if rival in found else ["-", "-"]
        section.rows.append(Row(title + how, f"{each:.0f} bytes", *compared, "<= 100 bytes", each <= 100))
    yield section


if __name__ == "__main__":
    child(sys.argv[1], int(sys.argv[2]))
