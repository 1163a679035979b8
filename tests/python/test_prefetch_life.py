"""`prefetch` starts, stops, ends with its cache and its process, and meets other processes.

Thread rule: a schedule waits between rounds until the test lets it go; loads wait for events of the test.
Refuses to know: what it refreshes, and when (test_prefetch.py).
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from typing import Any

import pytest

from prefetching import LONG, Rounds, cache, rounds, until
from steered import Source, cached
from stillwarm import (
    Cache,
)
from stillwarm.testing import PostgresServer

__all__ = ["cache", "rounds"]


def test_prefetch_stops_and_goes_on(cache: Cache, rounds: Rounds) -> None:
    source = Source()
    schedule = cache.prefetch([(cached(cache, source), "a")], every=10)
    assert schedule.running
    schedule.start()  # it runs already
    rounds.ended()
    schedule.stop()
    assert not schedule.running
    assert "stopped" in repr(schedule)
    until(lambda: "stillwarm-prefetch" not in [thread.name for thread in threading.enumerate()])
    assert source.calls == 0
    schedule.start()
    rounds.begin()  # where the first thread was
    rounds.one()
    assert source.calls == 1


def test_prefetch_that_is_stopped_while_it_starts_is_kept_by_nobody(
    cache: Cache, rounds: Rounds, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Slow(set[Any]):
        def add(self, schedule: Any) -> None:
            schedule.stop()  # on another thread
            super().add(schedule)

    monkeypatch.setattr(cache, "_schedules", Slow())
    schedule = cache.prefetch([cached(cache, Source())], every=20)
    assert not schedule.running
    assert not cache._schedules


def test_prefetch_ends_with_close_while_it_loads(rounds: Rounds) -> None:
    begun, go, ended = threading.Event(), threading.Event(), threading.Event()
    cache = Cache(ttl=60)

    @cache.cached
    def load(key: int) -> int:
        begun.set()
        assert go.wait(LONG)
        ended.set()
        return key

    schedule = cache.prefetch([(load, 1), (load, 2)], every=10)
    rounds.begin()
    assert begun.wait(LONG)
    cache.close()
    assert not schedule.running
    assert not ended.is_set(), "nobody waited for the load"
    go.set()
    until(lambda: "stillwarm-prefetch" not in [thread.name for thread in threading.enumerate()])
    assert load.cache_info().loads == 1, "the second did not begin"


def test_prefetch_holds_up_no_exit() -> None:
    program = (
        "import threading, stillwarm\n"
        "cache, begun = stillwarm.Cache(ttl=60), threading.Event()\n"
        "load = cache.cached(lambda: (begun.set(), threading.Event().wait()))\n"
        "cache.prefetch([load], every='10ms')\n"
        "assert begun.wait(20)\n"
        "print('done')\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=LONG, check=True)
    assert (ended.stdout, ended.stderr) == ("done\n", "")


@pytest.mark.forks
def test_prefetch_in_the_child_of_a_fork_runs_when_it_is_started(cache: Cache, rounds: Rounds) -> None:
    source = Source()
    schedule = cache.prefetch([(cached(cache, source), "a")], every=10)
    rounds.ended()
    child = os.fork()
    if child == 0:
        ok = not schedule.running
        schedule.start()
        rounds.begin()
        rounds.one()
        os._exit(0 if ok and schedule.running and source.calls == 1 else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert schedule.running
    assert source.calls == 0


def test_prefetch_with_the_cache_off_does_nothing() -> None:
    cache = Cache(ttl=60, enabled=False)
    schedule = cache.prefetch([cache.cached(lambda: 1)], every=10)
    assert not schedule.running


@pytest.mark.servers
def test_prefetch_takes_over_what_another_process_has(rounds: Rounds, warm_postgres: PostgresServer) -> None:
    url, loads = warm_postgres.new_database(), []
    with Cache(url, ttl=60) as one, Cache(url, ttl=60) as other:  # stands for another process
        schedules = []
        for cache in (one, other):
            load = cache.cached(name="load", ignore=("of",))(lambda key, of=cache: loads.append(of) or key)
            with cache.prefetch([(load, "a")], every=10) as schedule:
                rounds.one()
            assert cache._tier is not None
            cache._tier.core.drain(10**10)
            schedules.append(schedule)
            rounds.begin()  # where the first thread was
        assert loads == [one]
        assert [schedule.figures().refreshed for schedule in schedules] == [1, 1]
