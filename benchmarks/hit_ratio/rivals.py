"""The policies to compare with, from libcachesim, and the replay of ours.

A stream is written once as libcachesim's oracleGeneral records (time, key, size, next request) into a temporary
folder, and every policy reads that file in C++. libcachesim's W-TinyLFU does not end when its
window holds no entry, hence the lower bound. Refuses to know: where streams come from and how results look.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import libcachesim
import numpy as np

from workloads import Workload

OURS = "stillwarm"
OPTIMUM = "Belady"

RIVALS: dict[str, Callable[[int], libcachesim.CacheBase]] = {
    "LRU": lambda size: libcachesim.LRU(size, hashpower=18),
    "FIFO": lambda size: libcachesim.FIFO(size, hashpower=18),
    "LFU": lambda size: libcachesim.LFU(size, hashpower=18),
    "SIEVE": lambda size: libcachesim.Sieve(size, hashpower=18),
    "S3-FIFO": lambda size: libcachesim.S3FIFO(size, hashpower=18),
    "W-TinyLFU 1 %": lambda size: libcachesim.WTinyLFU(size, hashpower=18, window_size=max(0.01, 2 / size)),
    "ARC": lambda size: libcachesim.ARC(size, hashpower=18),
    "LIRS": lambda size: libcachesim.LIRS(size, hashpower=18),
    OPTIMUM: lambda size: libcachesim.Belady(size, hashpower=18),
}

SIZED_RIVALS: dict[str, Callable[[int], libcachesim.CacheBase]] = {
    **{name: make for name, make in RIVALS.items() if name not in ("LIRS", OPTIMUM)},
    "GDSF": lambda size: libcachesim.GDSF(size, hashpower=18),
    # Not an optimum when sizes differ (that is NP-hard), but a good clairvoyant.
    OPTIMUM: lambda size: libcachesim.BeladySize(size, hashpower=18),
}

RECORD = np.dtype([("time", "<u4"), ("key", "<u8"), ("size", "<u4"), ("next", "<i8")])


def next_requests(keys: np.ndarray) -> np.ndarray:
    """For each request the position of the next one for the same key; -1 when there is none."""
    order = np.argsort(keys, kind="stable")
    following = np.full(len(keys), -1, dtype=np.int64)
    same = keys[order[:-1]] == keys[order[1:]]
    following[order[:-1][same]] = order[1:][same]
    return following


@dataclass
class Replayer:
    """One stream on disk, in the two formats, for as long as the `with` lasts."""

    workload: Workload
    replay: Path

    def __enter__(self) -> Replayer:
        self._folder = tempfile.TemporaryDirectory()
        folder = Path(self._folder.name)
        keys, weights = self.workload.keys, self.workload.weights
        records = np.zeros(len(keys), dtype=RECORD)
        records["time"] = np.arange(len(keys))
        records["key"] = keys
        records["size"] = 1 if weights is None else weights[keys]
        records["next"] = next_requests(keys)
        self._oracle = folder / "trace.oracleGeneral"
        records.tofile(self._oracle)
        self._plain = folder / "trace.u32"
        keys.tofile(self._plain)
        self._weights = folder / "weights.u32"
        if weights is not None:
            weights.tofile(self._weights)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._folder.cleanup()

    def ours(self, size: int) -> float:
        weighted = [] if self.workload.weights is None else ["--weights", str(self._weights)]
        command = [str(self.replay), str(self._plain), *weighted, str(size)]
        fields = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
        return 100.0 * int(fields[1]) / int(fields[2])

    def rivals(self, size: int) -> dict[str, float]:
        ratios = {}
        for name, make in (RIVALS if self.workload.weights is None else SIZED_RIVALS).items():
            params = libcachesim.ReaderInitParam(ignore_obj_size=self.workload.weights is None)
            reader = libcachesim.TraceReader(
                str(self._oracle), trace_type=libcachesim.TraceType.ORACLE_GENERAL_TRACE, reader_init_params=params
            )
            ratios[name] = 100.0 * (1.0 - make(size).process_trace(reader)[0])
        return ratios
