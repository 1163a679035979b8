"""What a cache with a remote tier does by itself: hit counts to the tier, open transactions, the purge,
and that dictionaries are looked after (_dictionaries).

Thread rule: `used` and `count` from any thread; one daemon thread, started when the tier is first used.
Refuses to know: SQL, and how hits are counted (cpp/core/memory/hit_notes.hpp).

Hits are written every second as a batch with a number. The tier notes the number in the same transaction and takes no
batch twice, so one whose commit is in doubt is simply sent again. A kill loses at most what was not written yet.
"""

from __future__ import annotations

import contextlib
import logging
import math
import random
import threading
import time
import weakref
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from stillwarm import _core, _dictionaries, _tier_invalidation, _tier_values
from stillwarm._schema import analyze
from stillwarm._tier import drive
from stillwarm.errors import KeyTypeError, TierError, TierRejected, TierTimeout, TierUnavailable

if TYPE_CHECKING:
    from stillwarm._cache import Cache

EVERY: Final = 1.0  # s
MOST: Final = 500  # keys of a statement, which has to end within the timeout
ENOUGH: Final = 200  # requests after which new tables are worth describing to the planner
BEHIND: Final = 200_000_000  # ns; what the count of a value waits for that value to be written
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
        self._analyzed = False
        self._unsent: deque[tuple[int, dict[tuple[str, str], int]]] = deque()
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

    @property
    def runs(self) -> bool:
        """It was started, and has not ended."""
        return self._thread is not None and not self._stop.is_set()

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
        _dictionaries.tick(cache)
        if not self._analyzed and cache._tier.core.health()["served"] >= ENOUGH:
            with contextlib.suppress(TierTimeout, TierUnavailable):  # the next round tries again
                with contextlib.suppress(TierRejected):
                    if cache._tier.speaks_sql:
                        analyze(cache._tier.query, cache._tier.schema)
                self._analyzed = True
        if cache._tier.pending:
            drive(cache._tier, _tier_invalidation.confirm(cache._tier))
        if self._purge_every and time.monotonic() >= self._purge_at:
            self._purge_at = time.monotonic() + self._purge_every
            try:
                cache.purge()
            except TierError as error:
                _log.warning("the purge failed and is tried again in %g s: %s", self._purge_every, error)

    def flush(self, timeout: float = 0.0) -> bool:
        """Writes the hits that were counted since the last time. False: the tier did not take them; they are kept.

        Args:
            timeout: s; 0: the tier's own.
        """
        cache = self._cache()
        if cache is None or cache._tier is None:
            return True
        with self._flushing:
            if not self._send(cache, timeout):
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
            every = list(counted.items())
            for start in range(0, len(every), MOST):
                self._batch += 1
                self._unsent.append((self._batch, dict(every[start : start + MOST])))
            return self._send(cache, timeout)

    def _send(self, cache: Cache, timeout: float = 0.0) -> bool:
        tier = cache._tier
        if not self._unsent or tier is None:
            return True
        # A count of a row that is not there yet would be lost. Behind a steady stream of writes those of before are.
        behind = min(BEHIND, int(timeout * 1e9)) if timeout else BEHIND
        if not tier.core.drain(behind) and tier.core.health()["owed_writes"]:
            return False
        while self._unsent:
            batch, counted = self._unsent[0]
            keys, types = [key for key, _ in counted], [type_name for _, type_name in counted]
            request = _core.flush(batch, keys, types, list(counted.values()))
            if timeout:
                request.timeout = max(1_000_000, int(timeout * 1e9))
            if tier.run(request) is not None:
                return False
            self._unsent.popleft()
        return True

    def close(self, wait: float, until: float = math.inf) -> None:
        """The last round: at most about `wait` s for each of its steps, and none of them after `until`."""
        self._stop.set()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(max(0.0, min(wait, until - time.monotonic())))
        cache = self._cache()
        if thread is not None and cache is not None and cache._tier is not None and not cache._tier.away:
            left = until - time.monotonic()
            if left > 0 and self._flushing.acquire(timeout=min(left, 10.0)):
                self._flushing.release()  # nobody is at it: the thread has ended, or it is waited for in vain
                self.flush(left if left * 1e9 < cache._tier.timeout else 0.0)


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
