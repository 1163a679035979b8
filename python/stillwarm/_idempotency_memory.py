"""Records of idempotency keys in the memory of one process, and which store a cache's routes have.

Thread rule: any thread; nothing but dicts is touched under a lock.
Refuses to know: HTTP. The verdicts are the core's (cpp/core/antidup/idempotency.hpp).

Records are not in the memory tier, which evicts: what was forgotten would be executed again. Here a new key is refused
when there is no room, and an answer that finds none is given and not kept.
"""

from __future__ import annotations

import heapq
import logging
import os
import threading
import weakref
from typing import TYPE_CHECKING, Final, TypeAlias

from stillwarm import _core
from stillwarm._idempotency import Claim, Kept, Outcome, Steps, StoreFull, Unknown
from stillwarm._idempotency_postgres import PostgresStore
from stillwarm._types import FOREVER

if TYPE_CHECKING:
    from stillwarm._cache import Cache

MOST_KEYS: Final = 100_000  # records; a new key is refused when all of them are wanted
MOST_BYTES: Final = 64 * 1024 * 1024  # of kept answers

_log = logging.getLogger("stillwarm")


class _Record:
    __slots__ = ("claim", "claimed_at", "expires_at", "kept", "lease_until", "state")

    def __init__(self, claim: Claim, now: int) -> None:
        self.claim = claim
        self.state = "claimed"
        self.claimed_at = now
        self.lease_until = FOREVER  # the owner is in this process: it ends its claim, or all records end with it
        self.expires_at = FOREVER
        self.kept: Kept | None = None


class MemoryStore:
    """Records of this process alone, which a restart forgets. Not in the memory tier, which evicts: see `StoreFull`."""

    def __init__(self, most_keys: int = MOST_KEYS, most_bytes: int = MOST_BYTES) -> None:
        self._most_keys, self._most_bytes = most_keys, most_bytes
        self._records: dict[str, _Record] = {}
        self._ends: list[tuple[int, str]] = []  # a heap of when finished records expire
        self._bytes = 0
        self._lock = threading.Lock()

    def reset(self) -> None:
        """In the child of a fork."""
        self._lock = threading.Lock()  # another thread of the parent may have held it
        self._bytes = sum(_size(record.kept) for record in self._records.values() if record.kept is not None)
        self._ends = [(record.expires_at, key) for key, record in self._records.items() if record.expires_at < FOREVER]
        for key, record in self._records.items():
            if record.state == "claimed":  # the parent's, whose end will not be seen here
                record.lease_until = 0
                record.expires_at = _core.clock_now() + record.claim.ttl
                self._ends.append((record.expires_at, key))
        heapq.heapify(self._ends)

    def ready(self) -> Steps[None]:
        yield from ()

    def claim(self, claim: Claim) -> Steps[Outcome]:
        yield from ()
        now = _core.clock_now()
        with self._lock:
            self._expire(now)
            record = self._records.get(claim.key)
            found = None
            if record is not None:
                times = (record.claimed_at, record.lease_until, record.expires_at)
                found = (record.state, record.claim.fingerprint, *times)
            verdict, wait = _core.judge_idempotency(found, claim.fingerprint, now, claim.rerun, False)
            if verdict == "run":
                if record is None and len(self._records) >= self._most_keys:
                    raise StoreFull(f"{self._most_keys} idempotency keys are kept in memory")
                self._forget(claim.key)
                self._records[claim.key] = _Record(claim, now)
                return Outcome(verdict)
            assert record is not None
            return Outcome(verdict, wait, record.kept, record.claim.witness)

    def finish(self, claim: Claim, kept: Kept) -> Steps[None]:
        yield from ()
        with self._lock:
            record = self._records.get(claim.key)
            if record is None or record.claim.owner != claim.owner or record.state != "claimed":
                return
            if self._bytes + _size(kept) > self._most_bytes:
                kept = kept._replace(headers=(), body=None)
            record.kept = kept
            record.state = "unkept" if kept.body is None else "done"
            record.expires_at = _core.clock_now() + claim.ttl
            self._bytes += _size(kept)
            heapq.heappush(self._ends, (record.expires_at, claim.key))

    def release(self, claim: Claim) -> Steps[None]:
        yield from ()
        with self._lock:
            record = self._records.get(claim.key)
            if record is not None and record.claim.owner == claim.owner:
                self._forget(claim.key)

    def forget(self, key: str) -> Steps[bool]:
        yield from ()
        with self._lock:
            record = self._records.get(key)
            if record is None or record.state != "claimed" or record.lease_until > _core.clock_now():
                return False
            self._forget(key)
            return True

    def unknown(self, most: int, name: str | None = None) -> Steps[list[Unknown]]:
        yield from ()
        now = _core.clock_now()
        with self._lock:
            records = [
                (record.claimed_at, key, record)
                for key, record in self._records.items()
                if record.state == "claimed" and record.lease_until <= now < record.expires_at and name in (None, key)
            ]
        found = heapq.nsmallest(most, records, key=lambda one: one[:2])
        return [
            Unknown(key, record.claim.route, record.claim.witness != "", *(ns / 1e9 for ns in (
                now - record.claimed_at, now - record.lease_until, record.expires_at - now,
            )))
            for _, key, record in found
        ]  # fmt: skip

    def drop(self, claim: Claim) -> None:
        """Its owner does not say what it did; a thread of it may still be at it, for as long as the lease."""
        with self._lock:
            record = self._records.get(claim.key)
            if record is not None and record.claim.owner == claim.owner and record.state == "claimed":
                now = _core.clock_now()
                record.lease_until = now + claim.lease if claim.rerun else now
                record.expires_at = now + claim.ttl
                heapq.heappush(self._ends, (record.expires_at, claim.key))

    def _expire(self, now: int) -> None:
        while self._ends and self._ends[0][0] <= now:
            at, key = heapq.heappop(self._ends)
            record = self._records.get(key)
            if record is not None and record.expires_at == at:
                self._forget(key)

    def _forget(self, key: str) -> None:
        record = self._records.pop(key, None)
        if record is not None and record.kept is not None:
            self._bytes -= _size(record.kept)


def _size(kept: Kept) -> int:
    """Bytes of an answer; 0 where there is none."""
    if kept.body is None:
        return 0
    return len(kept.body) + sum(len(name) + len(value) + 120 for name, value in kept.headers)


# ---------------------------------------------------------------------------------------------------- of each cache

Store: TypeAlias = "PostgresStore | MemoryStore"
_of_caches: weakref.WeakKeyDictionary[Cache, Store] = weakref.WeakKeyDictionary()
_making = threading.Lock()


def store_of(cache: Cache) -> Store:
    """Where the records of a cache's routes are; made when first asked for, which warns if it is memory alone."""
    store = _of_caches.get(cache)
    if store is not None:
        return store
    with _making:
        store = _of_caches.get(cache)
        if store is None:
            if cache._tier is not None and cache._tier.speaks_sql:
                store = PostgresStore(cache._tier)
            else:
                store = MemoryStore()
                why = "without a database" if cache._tier is None else f"{cache._tier.name} may evict or lose them, so"
                _log.warning(
                    "idempotent: %s keys are kept in the memory of this process: after a restart, and in another "
                    'worker, a repeated request is executed again; Cache("postgresql://...") keeps them', why,
                )  # fmt: skip
            _of_caches[cache] = store
    return store


def store_if_any(cache: Cache) -> Store | None:
    """The same for who only looks: None where no route of this process has one, and no database."""
    has_database = cache._tier is not None and cache._tier.speaks_sql
    return store_of(cache) if has_database else _of_caches.get(cache)


def _after_fork_in_child() -> None:
    global _making
    _making = threading.Lock()
    for store in list(_of_caches.values()):
        store.reset()


os.register_at_fork(after_in_child=_after_fork_in_child)


__all__ = ["MemoryStore", "Store", "store_if_any", "store_of"]
