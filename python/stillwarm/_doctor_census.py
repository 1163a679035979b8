"""Whose keys a Redis database has, as the doctor counts them: other namespaces, other programs, other layouts.

Thread rule: one thread; a walk of bounded steps, in which the server serves others.
Refuses to know: what else is wrong with the server (_doctor_redis).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from stillwarm._ask import ServerError
from stillwarm._doctor import Finding

if TYPE_CHECKING:
    from stillwarm._admin_redis import RedisPlace
    from stillwarm._doctor_redis import Asks

_STEPS: Final = 200  # of a walk over the database's keys, 1,000 keys each: enough to see who else is there
_SAMPLE: Final = 100  # entries whose layout is looked at
_OURS: Final = re.compile(r"stillwarm:\{([^}.]*)(?:\.\d+)?\}:")  # on a cluster with the number of a bucket
# The head of an entry (cpp/core/remote/redis_scripts.hpp).
_HEAD: Final = re.compile(r"1.{8}\d{12}.{12}\d{33}", re.DOTALL)


@dataclass
class Census:
    """Who else is in a database, and how many entries of the namespace are not of this layout."""

    others: set[str] = field(default_factory=set)
    foreign: str = ""
    older: str = ""
    strange: int = 0
    looked: int = 0

    def count(self, asks: Asks) -> None:
        """Adds what this server has."""
        sampled = 0
        for name in _walk(asks.talk):
            ours = _OURS.match(name)
            if ours is None:
                self.older = self.older or (name if name.startswith("stillwarm:") else "")
                self.foreign = self.foreign or ("" if name.startswith("stillwarm:") else name)
            elif ours[1] != asks.place.namespace:
                self.others.add(ours[1])
            elif name.startswith("e:", ours.end()) and sampled < _SAMPLE:
                sampled += 1
                self.strange += not _is_entry(asks, name)
        self.looked += sampled


def census_found(place: RedisPlace, census: Census, is_there: bool) -> Iterator[Finding]:
    """What is wrong with that. `is_there`: the namespace has marks."""
    shared = sorted(census.others) + ([f"keys such as {json.dumps(census.foreign)}"] if census.foreign else [])
    if place.namespace == "default" and shared:
        what = f"the namespace is 'default' in a database that others share: {', '.join(shared[:5])}"
        yield Finding(
            "wrong", what, "give each app a namespace of its own: Cache(url, namespace=...) or STILLWARM_NAMESPACE"
        )
    if not is_there:
        there = f"; there are: {', '.join(sorted(census.others)[:5])}" if census.others else ""
        what = f"nothing of the namespace {place.namespace!r} is in this database{there}"
        yield Finding(
            "note", what, "nothing, if no cache has used it yet; else --namespace, and the database in the URL"
        )
    if census.strange:
        share = f"{census.strange} of {census.looked} entries of the namespace"
        what = f"{share} are not of this version's layout, or others wrote them"
        yield Finding(
            "note", what, "one version of stillwarm in all processes; whoever reads such an entry counts a miss"
        )
    if census.older:
        what = f"keys of another layout are there, such as {json.dumps(census.older)}"
        yield Finding("note", what, "delete them, once no older version of stillwarm runs")


def _walk(talk: Callable[..., Any]) -> Iterator[str]:
    cursor = "0"
    for _ in range(_STEPS):
        cursor, names = talk("SCAN", cursor, "COUNT", "1000")
        yield from names
        if cursor == "0":
            return


def _is_entry(asks: Asks, name: str) -> bool:
    try:
        head = asks.talk("GETRANGE", name.encode("latin-1"), "0", "65")
    except ServerError as error:
        if str(error).startswith("Redis at "):
            raise
        return False  # a list, a hash
    return head == "" or _HEAD.fullmatch(head) is not None


__all__ = ["Census", "census_found"]
