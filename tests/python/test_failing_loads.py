"""What a failing loader changes, on a moved clock: stale values in its place, pauses, absences, retries.

Thread rule: one thread; background refreshes run on the load pool and are awaited by events.
Refuses to know: how the core keeps its deadlines (tests/cpp does).
"""

from __future__ import annotations

from typing import Any

import pytest

import stillwarm
from steered import Down, Source, cached, settled
from stillwarm import Cache, NotFound


def test_failing_loads_a_failed_early_refresh_is_tried_again(warm_cache: Cache, warm_clock: Any) -> None:
    source = Source()
    f = cached(warm_cache, source, ttl=100, early_refresh=0.5, stale_if_error=0)
    assert f() == 1
    source.called.acquire()
    source.error = Down("away")
    warm_clock.move(60)
    assert f() == 1
    assert source.called.acquire(timeout=5)
    settled(warm_cache)
    assert f() == 1  # it pauses: no second attempt yet
    assert source.calls == 2
    assert f.cache_info().load_errors == 1
    assert "away" in (warm_cache.stats().last_error or "")
    source.error = None
    warm_clock.move(6)
    assert f() == 1
    assert source.called.acquire(timeout=5)
    settled(warm_cache)
    assert f() == 3
    source.error = Down("away")
    warm_clock.move(100)  # never lengthened by failures
    with pytest.raises(Down):
        f()


def test_failing_loads_a_transient_error_serves_the_stale_value_by_default(warm_cache: Cache, warm_clock: Any) -> None:
    source = Source()
    f = cached(warm_cache, source, ttl=10)
    assert f() == 1
    source.error = Down("away")
    warm_clock.move(15)
    assert f() == 1
    warm_clock.move(4.9)
    assert f() == 1
    warm_clock.move(0.2)  # as long again as it was fresh, and no longer
    with pytest.raises(Down):
        f()


def test_failing_loads_attempts_pause_longer_after_each_failure(warm_cache: Cache, warm_clock: Any) -> None:
    source = Source()
    f = cached(warm_cache, source, ttl="1h")
    f()
    source.error = Down("away")
    warm_clock.move("61m")
    attempts = []
    for _ in range(400):
        f()
        attempts.append(source.calls)
        warm_clock.move(1)
    # In 400 s: 5, 10, 20, 40, 60, 60 ... each shortened by up to a quarter.
    assert 8 <= attempts[-1] - 1 <= 14
    source.error = None
    warm_clock.move(60)
    assert f() == attempts[-1] + 1


def test_failing_loads_a_fatal_error_is_raised_beside_a_stale_value(warm_cache: Cache, warm_clock: Any) -> None:
    source = Source()
    f = cached(warm_cache, source, ttl=10)
    f()
    source.error = ValueError("bad data")
    warm_clock.move(11)
    with pytest.raises(ValueError, match="bad data"):
        f()
    source.error = None
    assert f() == 3


def test_failing_loads_stale_if_error_0_switches_it_off(warm_cache: Cache, warm_clock: Any) -> None:
    source = Source()
    f = cached(warm_cache, source, ttl=10, stale_if_error=0)
    f()
    source.error = Down("away")
    warm_clock.move(11)
    with pytest.raises(Down):
        f()


def test_failing_loads_stale_on_and_classify_decide(warm_cache: Cache, warm_clock: Any) -> None:
    a, b = Source(), Source()
    f = cached(warm_cache, a, ttl=10, stale_on=KeyError)
    g = cached(warm_cache, b, ttl=10, classify=lambda e: "transient" if isinstance(e, ValueError) else "fatal")
    assert (f(), g()) == (1, 1)
    warm_clock.move(11)
    a.error, b.error = KeyError("x"), ValueError("x")
    assert (f(), g()) == (1, 1)
    warm_clock.move(8)
    a.error, b.error = Down(), Down()
    with pytest.raises(Down):
        f()
    with pytest.raises(Down):
        g()


def test_failing_loads_an_error_is_never_stored(warm_cache: Cache, warm_clock: Any) -> None:
    source = Source()
    f = cached(warm_cache, source, ttl=10)
    source.error = Down("away")
    for n in range(3):
        with pytest.raises(Down):
            f()
        assert source.calls == n + 1
    assert f.cache_info().currsize == 0


def test_failing_loads_not_found_drops_the_entry_and_is_remembered_only_with_negative_ttl(
    warm_cache: Cache, warm_clock: Any
) -> None:
    source, remembered = Source(), Source()
    f = cached(warm_cache, source, ttl=10)
    g = cached(warm_cache, remembered, ttl=10, negative_ttl=5)
    assert (f(), g()) == (1, 1)
    warm_clock.move(11)
    source.error = remembered.error = NotFound("no such product")
    for _ in range(3):
        with pytest.raises(NotFound, match="no such product"):
            f()
        with pytest.raises(NotFound, match="no such product"):
            g()
    assert source.calls == 4
    assert remembered.calls == 2
    assert f.cache_info().currsize == 0
    warm_clock.move(5.1)
    remembered.error = None
    assert g() == 3


def test_failing_loads_retry_happens_inside_the_load(warm_cache: Cache) -> None:
    source = Source()
    source.error = Down("away")

    def heal(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 2:
            source.error = None

    waits: list[float] = []
    f = cached(warm_cache, source, ttl=10, retry=stillwarm.Retry(on=stillwarm.transient, budget=None, jitter=0))
    from stillwarm.testing import without_waiting

    with without_waiting(sleep=heal):
        assert f() == 3
    assert waits == [0.2, 0.4]
    assert f.cache_info().loads == 3
    assert f.cache_info().load_errors == 2
