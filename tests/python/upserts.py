"""Tables to upsert into, and what is read of them: shared by the tests of `cache.upsert`.

Thread rule: a Table belongs to its test.
Refuses to know: what is tested.
"""

from __future__ import annotations

import itertools
from typing import Any

from stillwarm import Upserted
from tiers import Ground

_numbers = itertools.count(1)


class Table:
    """A table of its own in the ground's database."""

    def __init__(self, ground: Ground, columns: str) -> None:
        self.ground = ground
        self.name = f"u{next(_numbers)}"
        ground.sql(f"CREATE TABLE {self.name} ({columns})")

    def rows(self, columns: str = "*", order: str = "1") -> list[tuple[Any, ...]]:
        return self.ground.sql(f"SELECT {columns} FROM {self.name} ORDER BY {order}")


def outcomes(done: list[Upserted]) -> list[str]:
    return [one.outcome for one in done]


def marks(ground: Ground) -> list[tuple[Any, ...]]:
    return ground.sql(
        "SELECT name, soft FROM stillwarm.invalidations WHERE namespace = %s ORDER BY 1", ground.namespace
    )
