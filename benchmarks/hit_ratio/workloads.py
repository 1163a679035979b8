"""Request streams: the two real traces when they are there, and synthetic ones that need no file.

Every stream is an array of dense uint32 key ids and depends on nothing but the seeds below, so that two runs on two
machines replay the same requests. Refuses to know: policies.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Keys = NDArray[np.uint32]


@dataclass(frozen=True)
class Workload:
    """A stream with the cache sizes at which it is replayed; with `weights` those are bytes."""

    name: str
    keys: Keys
    sizes: tuple[int, ...]
    weights: NDArray[np.uint32] | None = None


def dense(keys: NDArray[np.integer]) -> Keys:
    """The same stream with ids 0, 1, 2, ... so that a replay can use an array as its map."""
    return np.unique(keys, return_inverse=True)[1].astype(np.uint32)


def zipf_keys(rng: np.random.Generator, alpha: float, keys: int, requests: int) -> NDArray[np.int64]:
    """Ranks drawn with probability proportional to 1 / rank**alpha (also for alpha <= 1, unlike numpy's)."""
    cumulative = np.cumsum(1.0 / np.arange(1, keys + 1) ** alpha)
    return np.searchsorted(cumulative, rng.random(requests) * cumulative[-1]).astype(np.int64)


def zipf(requests: int, alpha: float) -> Keys:
    return dense(zipf_keys(np.random.default_rng(1), alpha, requests // 10, requests))


def loop(requests: int, length: int) -> Keys:
    return dense(np.arange(requests) % length)


def scans(requests: int) -> Keys:
    """Zipf traffic; every so often a batch job reads many keys once."""
    rng = np.random.default_rng(2)
    hot = zipf_keys(rng, 0.9, requests // 20, requests)
    period = requests // 20
    reads_once = np.arange(requests) % period < period // 4
    return dense(np.where(reads_once, 10 * requests + np.arange(requests), hot))


def shift(requests: int) -> Keys:
    """Zipf traffic whose ranking is drawn anew ten times."""
    rng = np.random.default_rng(3)
    keys = requests // 20
    ranks = zipf_keys(rng, 0.9, keys, requests)
    phase = np.arange(requests) * 10 // requests
    rankings = np.stack([rng.permutation(keys) for _ in range(10)])
    return dense(rankings[phase, ranks])


def drift(requests: int) -> Keys:
    """What is new is popular: a key is asked for often after its birth and ever less after that."""
    rng = np.random.default_rng(4)
    age = (rng.pareto(0.8, requests) * 40).astype(np.int64)
    return dense(np.arange(requests) // 4 + requests - np.minimum(age, requests))


def bursts(requests: int) -> Keys:
    """Half of the requests are sessions: a new key, some requests close together, never again. Made for LRU."""
    rng = np.random.default_rng(5)
    stable = zipf_keys(rng, 0.8, requests // 20, requests)
    session = np.arange(requests) // 6 - rng.integers(0, requests // 300, requests)
    return dense(np.where(rng.random(requests) < 0.5, 10 * requests + session, stable))


def loops_and_zipf(requests: int) -> Keys:
    """Phases that want opposite things: a loop, Zipf traffic, sessions, and again."""
    part = requests // 6
    phases = [
        loop(part, 3 * part // 100).astype(np.int64),
        zipf(part, 0.9).astype(np.int64) + requests,
        bursts(part).astype(np.int64) + 2 * requests,
    ]
    return dense(np.concatenate(phases * 2))


def slide(requests: int) -> Keys:
    """A working set, evenly used, that moves on slowly."""
    rng = np.random.default_rng(7)
    return dense(np.arange(requests) // 20 + rng.integers(0, requests // 100, requests))


def tenants(requests: int) -> Keys:
    """Zipf traffic with another tenant in between who reads the same list again and again."""
    rng = np.random.default_rng(8)
    loops = 10 * requests + np.arange(requests) % (requests // 50)
    return dense(np.where(rng.random(requests) < 0.3, loops, zipf_keys(rng, 0.85, requests // 15, requests)))


def churn(requests: int) -> Keys:
    """Zipf traffic in which every so often one of the popular keys is replaced by a new one."""
    rng = np.random.default_rng(9)
    keys = requests // 15
    ranks = zipf_keys(rng, 0.9, keys, requests)
    owner = np.arange(keys)
    out = np.empty(requests, dtype=np.int64)
    for start in range(0, requests, 20):
        owner[rng.integers(0, keys // 10)] = keys + start
        out[start : start + 20] = owner[ranks[start : start + 20]]
    return dense(out)


def response_sizes(keys: Keys) -> NDArray[np.uint32]:
    """A size for each key: log-normal around 4 KiB with a heavy tail, as web responses have. Not in the traces."""
    rng = np.random.default_rng(6)
    return np.clip(rng.lognormal(np.log(4096), 1.5, int(keys.max()) + 1), 64, 4 << 20).astype(np.uint32)


REAL: dict[str, tuple[int, ...]] = {
    "web07": (300, 1024, 2048, 4096, 16000),
    "orm-night": (512, 1024, 2500, 5000, 10000),
}

SYNTHETIC: dict[str, Callable[[int], Keys]] = {
    "zipf 0.7": lambda n: zipf(n, 0.7),
    "zipf 1.0": lambda n: zipf(n, 1.0),
    "scans": scans,
    "shift": shift,
    "drift": drift,
    "bursts": bursts,
    "phases": loops_and_zipf,
    # Not looked at while the policy's constants were chosen.
    "slide": slide,
    "tenants": tenants,
    "churn": churn,
}

LOOP_RATIOS = (0.9, 1.2, 1.5, 2.0, 3.0)


def real(folder: Path, limit: int | None) -> Iterator[Workload]:
    for name, sizes in REAL.items():
        path = folder / f"c2k_{name}.u32.gz"
        if not path.exists():
            print(f"skipped: {name}, because {path} is not there")
            continue
        with gzip.open(path) as file:
            keys = np.frombuffer(file.read(), dtype="<u4")
        yield Workload(name, keys[:limit], sizes)


def synthetic(requests: int) -> Iterator[Workload]:
    for name, make in SYNTHETIC.items():
        keys = make(requests)
        unique = int(keys.max()) + 1
        shares = (0.003, 0.01, 0.03, 0.1, 0.3)
        yield Workload(name, keys, tuple(sorted({max(200, int(unique * share)) for share in shares})))
    capacity = requests // 200
    for ratio in LOOP_RATIOS:
        yield Workload(f"loop {ratio} x", loop(requests, int(capacity * ratio)), (capacity,))


def with_sizes(plain: Workload) -> Workload:
    """The same requests against a budget in bytes; the budgets are shares of all bytes there are."""
    weights = response_sizes(plain.keys)
    total = int(weights.sum())
    sizes = tuple(int(total * share) for share in (0.003, 0.01, 0.03, 0.1, 0.3))
    return Workload(f"{plain.name}, bytes", plain.keys, sizes, weights)
