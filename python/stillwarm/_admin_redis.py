"""What a namespace in Redis holds: hot keys, figures per type, the purge of what marks made invalid, the check.

Thread rule: any thread. Redis lists keys only by a walk over all keys of the database (SCAN): each step is bounded, and
others are served between the steps. A walk may meet a key twice while the server's table grows. On a cluster it goes
over all masters and ends with TierUnavailable where slots move meanwhile.
Refuses to know: scripts (cpp/core/remote/redis_scripts.hpp judges entries), and when it is time for what.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from stillwarm import _core
from stillwarm._admin import Figures, Hot, TypeStats
from stillwarm._durations import shown
from stillwarm._place import DICTIONARIES
from stillwarm._sql_types import Row, Text
from stillwarm._tier_health import raised
from stillwarm._tier_values import DIRECT
from stillwarm._url import redis_address
from stillwarm.errors import ConfigError, TierError

if TYPE_CHECKING:
    from stillwarm._purge import Progress
    from stillwarm._tier import Tier

T = TypeVar("T")
STEP: Final = 1000  # keys that the server looks at before it serves others
_SEVERAL: Final = 200  # names in one request
_BUSY_FOR: Final = "60000"  # ms that a purge is alone, renewed at each step
_UNNAMED: Final = ("default", DIRECT, DICTIONARIES)
_GONE, _DEAD = 0, 3  # states, as kSurvey says them
_log = logging.getLogger("stillwarm")


@dataclass(frozen=True)
class RedisPlace:
    """A namespace on one server. `query` is a request of the tier: "command" with its words, or "survey"."""

    query: Callable[[str, Sequence[Text]], list[Row]]
    namespace: str
    types: Sequence[str] = ()

    def command(self, *words: str) -> list[Row]:
        """Any one command; a row for each element of its answer."""
        return self.query("command", words)

    def __contains__(self, type: str) -> bool:
        """Whether it is a type of an app's values."""
        return type != DICTIONARIES

    def key(self, name: str) -> str:
        """One of the namespace's own keys."""
        return f"stillwarm:{{{self.namespace}}}:{name}"

    def hits(self, start: int = 0, count: int | None = None) -> list[tuple[str, int]]:
        """Names of entries and their hits, the most used first: `count` from there on, or all."""
        last = -1 if count is None else start + count - 1
        rows = self.command("ZREVRANGE", self.key("h"), str(start), str(last), "WITHSCORES")
        return [(str(name[0]), number(hits[0])) for name, hits in zip(rows[::2], rows[1::2], strict=True)]

    def forget(self, names: Sequence[str]) -> None:
        """The hits of these."""
        self.command("ZREM", self.key("h"), *names)

    def size(self) -> int:
        """How many keys a walk looks at, others' too."""
        ((keys,),) = self.command("DBSIZE")
        return int(keys or 0)


class _Seen(NamedTuple):
    name: str  # TYPE:KEY, the type escaped
    state: int
    bytes: int


def place_of(tier: Tier, types: Sequence[str]) -> RedisPlace:
    """The namespace of a cache."""
    from stillwarm._admin_cluster import ClusterPlace

    place = ClusterPlace if redis_address(tier.url).cluster else RedisPlace
    return place(lambda text, words: _asked(tier, text, words), tier.namespace, types)


def _asked(tier: Tier, text: str, words: Sequence[Text]) -> list[Row]:
    request = _core.query(text, list(words), 30_000_000_000)
    error = tier.run(request)
    if error is not None:
        raise raised(error)
    return request.rows


def check(tier: Tier) -> None:
    """Raises what is wrong: it reads as a look-up does, runs a script, writes a lease and takes it back.

    Raises:
        TierError: with what the server said.
    """
    lease = f"check:{os.urandom(8).hex()}"
    for request in (
        _core.look_up(0, ["check"], [DIRECT]),
        _core.poll([]),
        _core.lease(True, lease, "check", 1_000_000_000),
        _core.lease(False, lease, "check", 0),
    ):
        request.timeout = 5_000_000_000  # who asks what is wrong has more time than a call
        error = tier.run(request)
        if error is None:
            continue
        cause = tier.core.health()["last_error"]  # that the circuit is open is not what is wrong
        raise raised(error if cause is None or error[1] else cause)


def top(place: RedisPlace, n: int = 10) -> list[Hot]:
    """The n most used entries that are there, of the 10,000 whose hits Redis keeps; the most used first.

    Raises:
        ConfigError: n is not accepted.
    """
    if isinstance(n, bool) or not isinstance(n, int) or not 1 <= n <= 100_000:
        raise ConfigError(f"n={shown(n)}: accepted: 1 to 100000")
    found: list[Hot] = []
    start, several = 0, max(_SEVERAL, n)
    while len(found) < n:
        hits = dict(place.hits(start, several))
        if not hits:
            break
        living = (seen.name for seen in _named(place, list(hits)) if seen.state not in (_GONE, _DEAD))
        found += [Hot(key, type, hits[name]) for name in living for type, key in [_parted(name)] if type in place]
        start += several
    return sorted(found, key=lambda hot: (-hot.hits, hot.key.encode(), hot.type))[:n]


def stats(place: RedisPlace) -> Figures:
    """Figures per type, by a walk over all keys. `expired` are entries that a mark made invalid and no purge has met;
    `bytes` are those of the entries as stored; hits are kept of the 10,000 most used."""
    hits = dict(place.hits())
    counted: dict[str, list[int]] = {name: [0, 0, 0, 0] for name in place.types}
    for _, entries in _walk(place, "look", STEP):
        for name, state, size in entries:
            type = _parted(name)[0]
            if state != _GONE and type in place:
                of_type = counted.setdefault(type, [0, 0, 0, 0])
                for i, more in enumerate((1, hits.get(name, 0), state == _DEAD, size)):
                    of_type[i] += more
    types = {
        name: TypeStats(entries, hits, hits / entries if entries else 0.0, dead, size, None)
        for name, (entries, hits, dead, size) in _ordered(place, counted)
        if entries or name not in _UNNAMED
    }
    return Figures(types, sum(one.bytes for one in types.values()))


def purge(place: RedisPlace, progress: Progress | None = None, batch: int = STEP) -> dict[str, int]:
    """Unlinks the entries that marks made invalid, or that are of a time whose marks Redis has lost; counts per type.

    What has a time to live goes by itself. An entry with ttl=None would stay for ever.

    Args:
        progress: called after each step with how many of the server's keys were looked at, and of how many.
        batch: keys that the server looks at in one step, 1 to 100,000.

    While another process purges the same namespace this one does nothing.

    Raises:
        ConfigError: an argument is not accepted.
    """
    if isinstance(batch, bool) or not isinstance(batch, int) or not 1 <= batch <= 100_000:
        raise ConfigError(f"batch={shown(batch)}: accepted: 1 to 100000")
    counts = Counter(dict.fromkeys(place.types, 0))
    owner, alone = os.urandom(12).hex(), place.key("u")
    if place.command("SET", alone, owner, "NX", "PX", _BUSY_FOR) != [("OK",)]:
        _log.info("purge of %s: another process is at it", place.namespace)
        return _told(place, counts)
    try:
        total = place.size()
        counted = {name for name, _ in place.hits()}
        for step, entries in _walk(place, "purge", batch):
            for name, state, _ in entries:
                if state == _DEAD:
                    type = _parted(name)[0]
                    counts[type] += type in place
                elif state != _GONE:
                    counted.discard(name)
            if progress is not None:
                progress(min(step * batch, total), total)
            place.command("SET", alone, owner, "XX", "PX", _BUSY_FOR)
        if progress is not None:
            progress(total, total)
        _forget_hits(place, sorted(counted))
    finally:
        with contextlib.suppress(TierError):  # it ends by itself
            place.command("DEL", alone)
    _log.info("purged %s", _told(place, counts))
    return _told(place, counts)


def _forget_hits(place: RedisPlace, names: Sequence[str]) -> None:
    """Those of entries that the walk has not met, unless they are there by now."""
    for start in range(0, len(names), _SEVERAL):
        gone = [seen.name for seen in _named(place, names[start : start + _SEVERAL]) if seen.state == _GONE]
        if gone:
            place.forget(gone)


def _walk(place: RedisPlace, action: str, batch: int) -> Iterator[tuple[int, list[_Seen]]]:
    """Every entry, by steps: the number of the step, and what it met."""
    cursor, step = "0", 0
    while True:
        (after,), *rows = place.query("survey", [action, cursor, str(batch)])
        step += 1
        yield step, [_seen(row) for row in rows]
        cursor = str(after)
        if cursor == "0":
            return


def _named(place: RedisPlace, names: Sequence[str]) -> list[_Seen]:
    return [_seen(row) for row in place.query("survey", ["look", "", *names])[1:]]


def _seen(row: Row) -> _Seen:
    name, state, size = row
    return _Seen(str(name), int(state or 0), int(size or 0))


def _parted(name: str) -> tuple[str, str]:
    """Type and key of an entry's name (cpp/core/remote/redis_names.hpp)."""
    spelled, _, key = name.partition(":")
    return spelled.replace("%3A", ":").replace("%0A", "\n").replace("%25", "%"), key


def number(text: Any) -> int:
    """A score."""
    return int(float(text or 0))


def _ordered(place: RedisPlace, of_types: Mapping[str, T]) -> list[tuple[str, T]]:
    """The cache's types in its order, then others by name: SCAN meets them in none."""
    return [(type, of_types[type]) for type in dict.fromkeys([*place.types, *sorted(of_types)])]


def _told(place: RedisPlace, counts: Counter[str]) -> dict[str, int]:
    """Without the types that no app has named, where nothing of theirs was there."""
    return {type: n for type, n in _ordered(place, counts) if n or type not in _UNNAMED}


__all__ = ["RedisPlace", "check", "number", "place_of", "purge", "stats", "top"]
