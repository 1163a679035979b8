"""The figures of this process in prometheus_client's files, which multiprocess mode adds up over all processes.

Thread rule: one Mirror per process; any thread. A daemon thread writes once a second, and whoever asks for `flush`.
Refuses to know: registries and scrapes, and what the figures mean.

Counters are moved by what came since the last writing, so a child after fork writes nothing that its parent counted,
and a process whose number was used before goes on from what the file holds. The counters of dead processes stay.
Gauges are of live processes: `multiprocess.mark_process_dead(pid)` takes those of a dead one out.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
from multiprocessing import util
from typing import TYPE_CHECKING, Final
from weakref import WeakKeyDictionary, WeakSet

from prometheus_client import Counter, Gauge

from stillwarm._readings import FIGURES, PREFIX, Key, Source, process_wide, read

if TYPE_CHECKING:
    from stillwarm._cache import Cache

EVERY: Final = 1.0  # seconds between two writings

_log = logging.getLogger("stillwarm")
_mirror: Mirror | None = None


class Mirror:
    """Writes the figures of some caches, and of what is process-wide, to this process's files."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._caches: WeakSet[Cache] = WeakSet()
        self._written: WeakKeyDictionary[Source, dict[Key, float]] = WeakKeyDictionary()
        self._set: set[Key] = set()  # the gauges that were written
        self._inherited: list[tuple[Source, dict[Key, float]]] = []
        self._idle = False  # a child after fork whose counters have not moved yet
        self._thread: threading.Thread | None = None
        # Without a registry: a file is what they are for.
        self._counters = {
            name: Counter(PREFIX + name, figure.help, figure.labels, registry=None)
            for name, figure in FIGURES.items()
            if figure.counter
        }
        self._gauges = {
            name: Gauge(
                PREFIX + name,
                figure.help,
                figure.labels,
                registry=None,
                multiprocess_mode="livemax" if figure.worst else "livesum",
            )
            for name, figure in FIGURES.items()
            if not figure.counter
        }

    def add(self, cache: Cache) -> None:
        """Mirrors one more cache, which is not kept alive."""
        with self._lock:
            if cache in self._caches:
                return
            self._caches.add(cache)
            self._idle = False
            self._start()
        self.flush()

    def flush(self) -> None:
        """Writes what moved since the last time."""
        with self._lock:
            gauges: dict[Key, float] = {}
            moved: dict[Key, float] = {}
            latest: list[tuple[Source, dict[Key, float]]] = []
            for cache in self._sources():
                now = read(cache)
                before = self._written.get(cache, {})
                latest.append((cache, now))
                for key, value in now.items():
                    if not FIGURES[key[0]].counter:
                        known = gauges.get(key, 0.0)
                        gauges[key] = max(known, value) if FIGURES[key[0]].worst else known + value
                    elif value != before.get(key):  # a new one is written too, though it is 0
                        grown = value - before.get(key, 0.0)
                        moved[key] = moved.get(key, 0.0) + (grown if grown >= 0 else value)  # reset, by a test
            if self._idle and not any(moved.values()):
                return
            self._idle = False
            for (name, labels), amount in moved.items():
                self._counters[name].labels(*labels).inc(amount)
            for key in self._set - gauges.keys():
                gauges[key] = 0.0  # its cache or breaker is gone
            for (name, labels), value in gauges.items():
                self._gauges[name].labels(*labels).set(value)
            self._set = set(gauges)
            for cache, now in latest:
                self._written[cache] = now

    def _sources(self) -> list[Source]:
        return [*self._caches, *process_wide()]

    def _start(self) -> None:
        if self._thread is not None:
            return
        self._thread = threading.Thread(target=self._run, name="stillwarm-metrics", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:  # no more threads; it is tried again with the next cache
            self._thread = None
            _log.exception("metrics are written at scrapes only")

    def _run(self) -> None:
        pause = threading.Event()
        failure = ""
        while True:
            pause.wait(EVERY)
            try:
                self.flush()
                failure = ""
            except Exception as error:
                if repr(error) != failure:
                    _log.exception("metrics could not be written")
                failure = repr(error)

    # ---------------------------------------------------------------------------------------------------------- fork

    def before_fork(self) -> None:
        self._lock.acquire()  # so that the child does not inherit a writing in the middle
        self._inherited = [(cache, read(cache)) for cache in self._sources()]

    def after_fork_in_parent(self) -> None:
        self._inherited = []
        self._lock.release()

    def after_fork_in_child(self) -> None:
        try:
            for cache, figures in self._inherited:
                # Once more, as of the fork itself; but the web layer may have locks that nobody here will release.
                self._written[cache] = {**figures, **read(cache, web=False)}
            self._inherited = []
            self._set.clear()
            self._idle = True
            self._thread = None
            if self._caches:
                self._start()
        finally:
            self._lock.release()

    def begin_process(self) -> None:
        """Processes of multiprocessing end without atexit."""
        util.Finalize(None, self.flush, exitpriority=10)


def shared() -> Mirror:
    """The mirror of this process."""
    global _mirror
    if _mirror is None:
        mirror = _mirror = Mirror()
        os.register_at_fork(
            before=mirror.before_fork,
            after_in_parent=mirror.after_fork_in_parent,
            after_in_child=mirror.after_fork_in_child,
        )
        atexit.register(mirror.flush)
        util.register_after_fork(mirror, Mirror.begin_process)
        mirror.begin_process()
    return _mirror


__all__ = ["Mirror", "shared"]
