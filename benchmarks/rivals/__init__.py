"""The libraries to compare with: one module each, named after what it adapts, with the same names in each.

Thread rule: import and call from one thread; what an adapter makes is used from any.
Refuses to know: what is measured with them.

An adapter has `NAME`, `PACKAGE` (its distribution, None for what Python brings along), `TTL` (does it have one?) and,
of the following, what its library offers; each configured as the library's own manual advises:

- `decorated(function, maxsize, ttl)`, `async_decorated(function, maxsize, ttl)`: the cached function.
- `shared(...)`, `async_shared(...)`: the same with protection against stampedes, where it must be asked for.
- `make_store(maxsize, ttl)`: an object with `.get(key)`; `put(store, key, value)` writes to it.
- `retried(function)`, `async_retried(function)`: tried again after an OSError, three times.
- `expiring(maxsize)`: a store and a callable after which all that it held has expired.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType

OURS = "stillwarm"
MODULES = (
    "ours",
    "lru_cache",
    "cachetools",
    "cachebox",
    "theine",
    "async_lru",
    "aiocache",
    "cashews",
    "dogpile",
    "flask_caching",
    "tenacity",
    "stamina",
    "backoff",
)
FEW = ("ours", "lru_cache", "cachetools", "cachebox", "async_lru", "tenacity")


@dataclass
class Rivals:
    """The adapters that could be imported, and a line for each that could not."""

    adapters: list[ModuleType] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)

    def with_(self, name: str) -> dict[str, ModuleType]:
        """Those that offer `name`, by their shown names."""
        return {adapter.NAME: adapter for adapter in self.adapters if hasattr(adapter, name)}


def load(names: tuple[str, ...] = MODULES) -> Rivals:
    rivals = Rivals()
    for name in names:
        try:
            adapter = importlib.import_module(f"rivals.{name}")
        except ImportError as error:
            if name == "ours":
                raise
            rivals.missing.append(f"{name} is not measured: {error}")
            continue
        rivals.adapters.append(adapter)
        if adapter.PACKAGE is not None:
            try:
                rivals.versions[adapter.PACKAGE] = version(adapter.PACKAGE)
            except PackageNotFoundError:  # run from a source tree
                rivals.versions[adapter.PACKAGE] = getattr(importlib.import_module(adapter.PACKAGE), "__version__", "?")
    return rivals
