"""The app that `--app module:name` names: its Cache or its tables, imported from where the command runs.

Thread rule: the main thread only.
Refuses to know: what is done with them.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from stillwarm._durations import shown
from stillwarm._tables import TypedTable
from stillwarm.errors import ConfigError
from stillwarm.journal import Journal


@dataclass(frozen=True)
class App:
    """What an app has: its Cache or None, its typed tables by type, its journals."""

    cache: Any = None
    tables: Mapping[str, TypedTable | None] = field(default_factory=dict)
    journals: tuple[Journal, ...] = ()

    def all_tables(self) -> list[Any]:
        return [*(table for table in self.tables.values() if table is not None), *self.journals]


def app_of(name: str) -> App:
    """The app of "module:name"; an empty one for "". It is a Cache, a table, a Journal, or a list or dict of these.

    A Cache says by its attribute `tables` which types have tables of their own.

    Raises:
        ConfigError: it cannot be imported, or is none of these.
    """
    if not name:
        return App()
    module, colon, attribute = name.partition(":")
    if not colon or not module or not attribute:
        raise ConfigError(f"--app {shown(name)}: accepted: module:name, such as shop.caches:cache")
    sys.path.insert(0, "")
    try:
        thing: Any = importlib.import_module(module)
        for part in attribute.split("."):
            thing = getattr(thing, part)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"--app {shown(name)}: {error}") from None
    finally:
        sys.path.remove("")
    cache = None
    if not isinstance(thing, (TypedTable, Journal, Mapping)) and hasattr(thing, "tables"):
        cache, thing = thing, thing.tables
    if isinstance(thing, Mapping):
        items: Iterable[Any] = [value for value in thing.values() if value is not None]
        untyped = {key: None for key, value in thing.items() if value is None}
    else:
        items, untyped = (thing if isinstance(thing, (list, tuple, set)) else [thing]), {}
    tables = {item.type: item for item in items if isinstance(item, TypedTable)}
    journals = tuple(item for item in items if isinstance(item, Journal))
    if len(tables) + len(journals) != len(list(items)):
        raise ConfigError(f"--app {shown(name)}: {shown(thing)}: accepted: a Cache, a table, a Journal, or several")
    return App(cache, {**untyped, **tables}, journals)
