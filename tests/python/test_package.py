"""The package as it is installed: what importing it costs, what it names, what it ships.

Thread rule: one thread; imports are watched in fresh processes.
Refuses to know: what the names do.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import inspect
import json
import os
import re
import subprocess
import sys
import typing
from pathlib import Path

import pytest

import stillwarm

PACKAGE = Path(stillwarm.__file__).parent
ROOT = Path(__file__).resolve().parents[2]
NAMES = [
    "Cache",
    "CacheInfo",
    "CircuitBreaker",
    "ConfigError",
    "Counters",
    "GaveUp",
    "HotKey",
    "JoinedInfo",
    "KeyTypeError",
    "Load",
    "LoadTimeout",
    "NotFound",
    "Prefetch",
    "Prefetched",
    "RecursiveLoadError",
    "Retried",
    "Retry",
    "RetryStats",
    "State",
    "Stats",
    "StillwarmError",
    "Upserted",
    "Warmed",
    "__version__",
    "agather",
    "cached",
    "current_load",
    "default_cache",
    "define_budget",
    "gather",
    "hooks",
    "retry",
    "retry_stats",
    "transient",
]


def modules_after(statements: str) -> set[str]:
    """The modules that a fresh interpreter has imported after the statements and had not before."""
    code = (
        f"import json, sys; before = set(sys.modules); {statements}; print(json.dumps([*(set(sys.modules) - before)]))"
    )
    path = {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}
    result = subprocess.run([sys.executable, "-c", code], env=path, capture_output=True, text=True, check=True)
    return set(json.loads(result.stdout))


def test_package_import_needs_the_standard_library_alone() -> None:
    tops = {name.partition(".")[0] for name in modules_after("import stillwarm")}
    assert tops - sys.stdlib_module_names == {"stillwarm"} | {
        top for top in tops if "cython" in top or "pybind11" in top
    }


def test_package_import_leaves_asyncio_and_the_tools_out() -> None:
    imported = modules_after("import stillwarm")
    assert "stillwarm._core" in imported
    unwanted = {
        "asyncio",
        "concurrent.futures",
        "ssl",
        *(["subprocess"] if sys.version_info >= (3, 11) else []),  # before, uuid brought it along
        "typing_extensions",
        "unittest",
        "pytest",
    }
    assert imported & unwanted == set()
    own = {name.removeprefix("stillwarm.") for name in imported if name.startswith("stillwarm.")}
    assert own & {"_aload", "_typing", "testing", "cli", "demo"} == set()


def test_package_plain_functions_need_no_asyncio() -> None:
    use = (
        "import stillwarm; f = stillwarm.cached(ttl=5)(lambda x: x); f(1); f(1); f.refresh(1); f.get_many([1, 2]);"
        "stillwarm.default_cache().get_or_set('k', dict, 5)"
    )
    assert "asyncio" not in modules_after(use)


def test_package_plugin_brings_pytest_alone() -> None:
    tops = {
        name.partition(".")[0]
        for name in modules_after("import pytest; before = set(sys.modules); import stillwarm.testing")
    }
    assert tops - sys.stdlib_module_names == {"stillwarm"}
    assert "asyncio" not in tops


def test_package_names_are_exactly_these() -> None:
    assert stillwarm.__all__ == NAMES
    public = {name for name in vars(stillwarm) if name.isidentifier() and not name.startswith("_")}
    modules = {path.stem for path in PACKAGE.glob("*.py")} | {path.name for path in PACKAGE.iterdir() if path.is_dir()}
    assert public - modules == set(NAMES) - {"__version__", "hooks"}
    namespace: dict[str, object] = {}
    exec("from stillwarm import *", namespace)
    assert set(NAMES) <= namespace.keys()


@pytest.mark.parametrize("name", [name for name in NAMES if name != "__version__"])
def test_package_names_say_what_they_are(name: str) -> None:
    assert getattr(stillwarm, name).__doc__


MODULES = (
    "alembic",
    "breaker",
    "codecs",
    "errors",
    "fastapi",
    "flask",
    "hooks",
    "journal",
    "metrics",
    "otel",
    "tables",
)


@pytest.mark.parametrize("module", MODULES)
def test_package_everything_public_says_what_it_is(module: str) -> None:
    here = importlib.import_module(f"stillwarm.{module}".rstrip("."))
    silent = []
    for name in set(here.__all__) - {"__version__"}:
        thing = getattr(here, name)
        members = [name for name in dir(thing) if not name.startswith("_")] if isinstance(thing, type) else []
        for member in members:
            owner = next(cls for cls in thing.__mro__ if member in vars(cls))
            found = inspect.unwrap(getattr(vars(owner)[member], "__func__", vars(owner)[member]))
            if owner.__module__.startswith("stillwarm") and (callable(found) or isinstance(found, property)):
                silent += [] if found.__doc__ else [f"{name}.{member}"]
        silent += [] if thing.__doc__ or typing.get_origin(thing) is not None else [name]
    assert silent == []


def test_package_version_is_that_of_its_metadata_and_of_the_changelog() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+([abrc]+\d+)?", stillwarm.__version__)
    changes = (ROOT / "CHANGELOG.md").read_text()
    assert re.findall(r"^## (\S+)", changes, re.MULTILINE)[0] == stillwarm.__version__
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):  # in a checkout that is only built
        assert importlib.metadata.version("stillwarm") == stillwarm.__version__


def test_package_ships_its_types() -> None:
    assert (PACKAGE / "py.typed").read_bytes() == b""
    assert (PACKAGE / "_core.pyi").is_file()
