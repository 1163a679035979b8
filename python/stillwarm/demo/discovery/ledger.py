"""What the loaders do, so that an answer can say truthfully where it comes from.

Whoever asks may load, share the load of somebody else, or get what is there; a cache that answers all three alike does
not tell them apart, and should not. So the loaders say what they begin and how it ended, and each request watches.

Thread rule: any thread, any loop; a Watch belongs to its request.
Refuses to know: what is loaded, and caches.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final

_MOST_FAILED: Final = 10_000


class Watch:
    """What one request has seen. Made by `Ledger.watch`."""

    def __init__(self, running: Iterable[str]) -> None:
        self._waited = set(running)
        self._stale: set[str] = set()

    def waited(self, key: str) -> bool:
        """Whether the source was asked for this key while the request was there: by it, or by one whose load it may
        have shared."""
        return key in self._waited

    def is_stale(self, key: str) -> bool:
        """Whether the request was given a value of this key that is over its time."""
        return key in self._stale

    @property
    def any_stale(self) -> bool:
        """Whether the request was given a value whose last load had failed: one that is over its time."""
        return bool(self._stale)


class Ledger:
    """Which keys are being loaded, and whose last load failed (of the last 10,000)."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: Counter[str] = Counter()
        self._failed: dict[str, None] = {}
        self._watches: set[Watch] = set()

    @contextmanager
    def watch(self) -> Iterator[Watch]:
        """Around a request."""
        with self._lock:
            watch = Watch(self._running)
            self._watches.add(watch)
        try:
            yield watch
        finally:
            with self._lock:
                self._watches.discard(watch)

    @contextmanager
    def load(self, keys: list[str]) -> Iterator[None]:
        """Around a loader's work for these keys."""
        with self._lock:
            self._running.update(keys)
            for watch in self._watches:
                watch._waited.update(keys)
        ended = False
        try:
            yield
            ended = True
        finally:
            with self._lock:
                for key in keys:
                    self._running[key] -= 1
                    if not self._running[key]:
                        del self._running[key]
                    self._failed.pop(key, None)
                    if not ended:
                        self._failed[key] = None
                while len(self._failed) > _MOST_FAILED:
                    del self._failed[next(iter(self._failed))]

    def given(self, watch: Watch, keys: Iterable[str]) -> None:
        """The request got values for these keys."""
        with self._lock:
            watch._stale.update(key for key in keys if key in self._failed)


__all__ = ["Ledger", "Watch"]
