"""What a cache with a remote tier does by itself: hit counts to the tier, open transactions, the purge.

Thread rule: `used` and `count` from any thread; one daemon thread, started when the tier is first used.
Refuses to know: SQL, and how hits are counted (cpp/core/memory/hit_notes.hpp).

Hits are written every second as a batch with a number. The tier notes the number in the same transaction and takes no
batch twice, so one whose commit is in doubt is simply sent again. A kill loses at most what was not written yet.
"""

from __future__ import annotations

import logging
import random
import threading
import time
import weakref
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from stillwarm import _core, _tier_invalidation, _tier_values
from stillwarm._tier import drive
from stillwarm.errors import KeyTypeError, TierError

if TYPE_CHECKING:
    from stillwarm._cache import Cache

EVERY: Final = 1.0  # s
WRITTEN: Final = 100_000_000  # ns to wait for writes under way
_log = logging.getLogger("stillwarm")


class Upkeep:
    """The background work of one cache."""

    def __init__(self, cache: Cache, purge_every: float | None) -> None:
        self._cache = weakref.ref(cache)
        self._purge_every = purge_every
        self.reset()

    def reset(self) -> None:
        """As new: in the child of a fork."""
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self._flushing = threading.Lock()
        self._stop = threading.Event()
        self._extra: deque[tuple[int, Any, int]] = deque()  # hits of what memory could not keep
        self._batch = 0
        self._unsent: tuple[int, dict[tuple[str, str], int]] | None = None
        # Not all processes at once, and not right at the start.
        every = self._purge_every
        self._purge_at = time.monotonic() + (every * (0.1 + 0.9 * random.random()) if every else 0)

    def used(self) -> None:
        """Starts the thread."""
        if self._thread is not None or self._stop.is_set():
            return
        with self._starting:
            if self._is_started():
                return
            arguments = (weakref.ref(self), self._stop)
            thread = threading.Thread(target=_run, args=arguments, name="stillwarm-upkeep", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # no more threads, or the interpreter is going down: tried again with the next use
                return
            self._thread = thread

    def _is_started(self) -> bool:
        return self._thread is not None

    def count(self, scope: int, key: Any, hits: int) -> None:
        """Hits that no entry in memory has."""
        self._extra.append((scope, key, hits))
        self.used()

    def tick(self) -> None:
        """One round."""
        cache = self._cache()
        if cache is None or cache._tier is None or cache._tier.closed:
            return
        self.flush()
        if cache._tier.pending:
            drive(cache._tier, _tier_invalidation.confirm(cache._tier))
        if self._purge_every and time.monotonic() >= self._purge_at:
            self._purge_at = time.monotonic() + self._purge_every
            try:
                cache.purge()
            except TierError as error:
                _log.warning("the purge failed and is tried again in %g s: %s", self._purge_every, error)

    def flush(self) -> bool:
        """Writes the hits that were counted since the last time. False: the tier did not take them; they are kept."""
        cache = self._cache()
        if cache is None or cache._tier is None:
            return True
        with self._flushing:
            if not self._send(cache):
                return False
            taken = [self._extra.popleft() for _ in range(len(self._extra))]
            counted: dict[tuple[str, str], int] = {}
            for scope, key, hits in (*_core.take_hits(cache), *taken):
                try:
                    place = _tier_values.place_of(cache._tier, scope, key)
                except (KeyTypeError, KeyError):
                    continue  # it never was in the tier
                where = (place.key, place.type)
                counted[where] = counted.get(where, 0) + hits
            counted = {where: hits for where, hits in counted.items() if hits > 0}
            if not counted:
                return True
            cache._tier.core.drain(WRITTEN)  # a hit of what is being written behind finds its row
            self._batch += 1
            self._unsent = (self._batch, counted)
            return self._send(cache)

    def _send(self, cache: Cache) -> bool:
        if self._unsent is None or cache._tier is None:
            return True
        batch, counted = self._unsent
        keys, types = [key for key, _ in counted], [type_name for _, type_name in counted]
        error = cache._tier.run(_core.flush(batch, keys, types, list(counted.values())))
        if error is None:
            self._unsent = None
        return error is None

    def close(self, wait: float) -> None:
        """The last round, at most about `wait` s."""
        self._stop.set()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(wait)
        cache = self._cache()
        if thread is not None and cache is not None and cache._tier is not None and not cache._tier.away:
            self.flush()


def _run(of: weakref.ref[Upkeep], stop: threading.Event) -> None:
    while not stop.wait(EVERY):
        upkeep = of()
        if upkeep is None:
            return
        try:
            upkeep.tick()
        except Exception:
            _log.exception("the upkeep of a cache failed")
        del upkeep  # between rounds the thread keeps no cache alive


__all__ = ["Upkeep"]
