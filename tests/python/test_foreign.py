"""Foreign code where it comes in between: comparisons during a commit or beside a flight, loads inside loads.

Thread rule: threads meet at events; a follower is known to sleep by the frame it is in.
Refuses to know: figures, and programs that may end the process (test_faults).
"""

from __future__ import annotations

import gc
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from stillwarm import Cache, _core


class Key:
    """All hashes are alike, so keys are compared; `on_eq` says what a comparison does."""

    def __init__(self, on_eq: Callable[[], object] = lambda: None) -> None:
        self.on_eq = on_eq

    def __hash__(self) -> int:
        return 7

    def __eq__(self, other: object) -> bool:
        self.on_eq()
        return self is other


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def sleeps(thread: threading.Thread) -> bool:
    """Whether the thread waits for another's load: then the flight has its lock."""
    frame = sys._current_frames().get(thread.ident or 0)
    return frame is not None and frame.f_code.co_name == "acquire"


def test_foreign_a_commit_that_fails_wakes_every_follower_and_raises_its_own_error() -> None:
    cache = Cache(ttl=60)
    raising = False

    def raise_late() -> None:
        if raising:
            raise ZeroDivisionError("a comparison")

    stored, loaded = Key(raise_late), Key()
    started, go = threading.Event(), threading.Event()

    @cache.cached()
    def function(key: Key) -> str:
        nonlocal raising
        if key is loaded:
            started.set()
            go.wait(10)
            cache.set("other", 1)  # something came into the cache: the commit has to look, and to compare
            raising = True
        return "value"

    function(stored)
    outcomes: list[Any] = []

    def ask() -> None:
        try:
            outcomes.append(function(loaded))
        except BaseException as error:
            outcomes.append(type(error))

    leader = threading.Thread(target=ask)
    leader.start()
    assert started.wait(10)
    followers = [threading.Thread(target=ask) for _ in range(4)]
    for follower in followers:
        follower.start()
    until(lambda: all(map(sleeps, followers)))
    go.set()
    for thread in (leader, *followers):
        thread.join(10)
        assert not thread.is_alive()
    assert sorted(map(str, outcomes)) == sorted(map(str, [ZeroDivisionError, *["value"] * 4]))


def test_foreign_a_comparison_that_changes_the_cache_beside_a_flight_ends_in_an_error() -> None:
    cache = Cache(ttl=60)
    compared = 0

    def change() -> None:
        nonlocal compared
        compared += 1
        if compared > 10_000:
            raise AssertionError("the look-up begins anew for ever")
        cache.set(f"direct {compared}", 1)

    running = Key(change)
    started, go = threading.Event(), threading.Event()

    @cache.cached()
    def function(key: Key) -> str:
        if key is running:
            started.set()
            go.wait(10)
        return "value"

    thread = threading.Thread(target=function, args=(running,))
    thread.start()
    try:
        assert started.wait(10)
        with pytest.raises(RuntimeError, match="must not use the cache"):
            function(Key(change))
    finally:
        go.set()
        thread.join(10)
    assert cache._check_invariants()


def test_foreign_a_batch_inside_a_load_keeps_no_flight_alive() -> None:
    cache = Cache(ttl=60)

    @cache.cached(loader_many=lambda items: items)
    def many(item: int) -> int:
        return item

    held: list[int] = []

    @cache.cached()
    def outer(key: int) -> list[int]:
        flight = _core.running()
        before = sys.getrefcount(flight)
        values: list[int] = many.get_many([key * 2, key * 2 + 1])
        assert _core.running() is flight
        held.append(sys.getrefcount(flight) - before)
        return values

    assert [outer(key) for key in range(3)] == [[0, 1], [2, 3], [4, 5]]
    assert held == [0, 0, 0]
    assert _core.running() is None
    gc.collect()
    assert not [o for o in gc.get_objects() if type(o) is _core.Flight and o.cache is cache]


@pytest.mark.parametrize(
    ("scope", "names", "defaults", "ignored", "positional_only", "positional"),
    [
        (99_999, (), (), (False,) * 2, 0, 0),
        (-1, ("a",), (1,), (False,) * 3, 0, 5_000),
        (-1, ("a",), (1,), (False,) * 3, 2, 1),
        (-1, ("a",), (1,), (False,) * 3, -9, 1),
        (-1, ("a", "b"), (1,), (False,) * 4, 0, 2),
        (-1, ("a",), (1,), (False,) * 2, 0, 1),
        (-1, (1,), (1,), (False,) * 3, 0, 1),
    ],
)
def test_foreign_parts_of_a_signature_that_do_not_fit_are_refused(
    scope: int, names: Any, defaults: Any, ignored: Any, positional_only: int, positional: int
) -> None:
    cache = Cache(ttl=60)
    number = _core.new_scope(cache, 0, "name", -1) if scope < 0 else scope
    signature = (names, defaults, ignored, positional_only, positional, False, False)
    with pytest.raises((ValueError, TypeError), match="CachedCall"):
        _core.CachedCall(cache, len, number, *signature, None, False, True, True)
