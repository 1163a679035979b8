"""Keys and values whose __hash__, __eq__, __del__ raise, come back into the cache, or wait; the collector in all of it.

    reentry.py PART

Thread rule: a process of its own: a hang is ended by the watchdog of reliability/children.py.
Refuses to know: pytest.
"""

from __future__ import annotations

import contextlib
import gc
import random
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from stillwarm import Cache, RecursiveLoadError, _core, _load

SECOND = 1_000_000_000
unraisable: list[Any] = []
sys.unraisablehook = lambda args: unraisable.append(args.exc_value)


class Bad(Exception):
    pass


class Key:
    """A key whose special methods do what `on_hash` and `on_eq` say. All hashes are alike: keys are compared."""

    on_hash: Callable[[], object] = staticmethod(lambda: None)
    on_eq: Callable[[], object] = staticmethod(lambda: None)

    def __init__(self, number: int) -> None:
        self.number = number

    def __hash__(self) -> int:
        Key.on_hash()
        return 7

    def __eq__(self, other: object) -> bool:
        Key.on_eq()
        return isinstance(other, Key) and self.number == other.number


def quiet() -> None:
    Key.on_hash = Key.on_eq = staticmethod(lambda: None)


def actions(cache: Cache, function: Any, keys: list[Any]) -> list[Callable[[], object]]:
    """What a special method may do to the cache that is just calling it."""
    return [
        lambda: function(keys[0]),
        lambda: function(keys[1]),
        lambda: function("text"),
        lambda: cache.set("direct", object(), 60),
        lambda: cache.get("direct"),
        lambda: function.cache_invalidate(keys[0]),
        lambda: cache.invalidate(all=True),
        lambda: cache.invalidate(tag="a"),
        lambda: cache.invalidate(pattern="*"),
        lambda: cache.clear(),
        lambda: function.cache_clear(),
        lambda: cache.stats(),
        lambda: cache.top(3),
        lambda: gc.collect(),
    ]


def operations(cache: Cache, function: Any, keys: list[Any]) -> list[Callable[[], object]]:
    return [
        lambda: function(keys[0]),
        lambda: function(keys[2]),
        lambda: function(keys[0], 1),
        lambda: function.cache_contains(keys[1]),
        lambda: function.cache_key(keys[1]),
        lambda: function.refresh(keys[1]),
        lambda: function.cache_invalidate(keys[1]),
        lambda: function.cache_invalidate(keys[1], stale=True),
        lambda: function.get_many(keys),
        lambda: cache.top(5),
    ]


def prepared(**options: Any) -> tuple[Cache, Any, list[Any]]:
    cache = Cache(ttl=60, max_entries=50)
    keys = [Key(i) for i in range(4)]
    function = cache.cached(lambda key, other=0: object(), **options)
    for key in keys[:3]:
        function(key)
    return cache, function, keys


VARIANTS: tuple[dict[str, Any], ...] = ({}, {"tags": ["a"]}, {"negative_ttl": 5, "hard_timeout": 5})


def special_methods_raise() -> None:
    for options in VARIANTS:
        for name in ("on_hash", "on_eq"):
            for n in range(len(operations(*prepared(**options)))):
                cache, function, keys = prepared(**options)

                def bad() -> None:
                    raise Bad

                setattr(Key, name, staticmethod(bad))
                with contextlib.suppress(Bad):
                    operations(cache, function, [Key(i) for i in range(4)])[n]()
                quiet()
                sound(cache, function, keys)


def special_methods_come_back() -> None:
    """Each operation, with each action inside each special method."""
    for options in VARIANTS:
        for name in ("on_hash", "on_eq"):
            for n in range(len(operations(*prepared(**options)))):
                for a in range(len(actions(*prepared(**options)))):
                    cache, function, keys = prepared(**options)
                    action = actions(cache, function, keys)[a]
                    depth = [0]

                    def inside(action: Any = action, depth: list[int] = depth) -> None:
                        if depth[0] < 2:
                            depth[0] += 1
                            try:
                                action()
                            finally:
                                depth[0] -= 1

                    setattr(Key, name, staticmethod(inside))
                    with contextlib.suppress(RecursiveLoadError, RuntimeError):  # "its __eq__ must not use the cache"
                        operations(cache, function, [Key(i) for i in range(4)])[n]()
                    quiet()
                    sound(cache, function, keys)


def values_come_back() -> None:
    """A value that is replaced, dropped, expired, evicted: its __del__ uses the cache, also its own key."""
    _load.FOLLOWER_LIMIT = 5.0
    for a in range(14):
        _core.clock_set(1_000 * SECOND)
        cache = Cache(ttl=10, jitter=0.0, stale_if_error=0, max_entries=3)
        ended = []

        class Value:
            def __del__(self, a: int = a, ended: list[int] = ended) -> None:
                ended.append(1)
                if len(ended) < 50:
                    actions(cache, function, [1, 2, 3, 4])[a]()  # noqa: B023  # those of this turn

        function = cache.cached(lambda key: Value(), name="function")
        tagged = cache.cached(lambda key: Value(), name="tagged", tags=["a"])
        for step in range(8):
            for key in range(5):
                function(key)
                tagged(key)
                cache.set("direct", Value(), 5)
            _core.clock_set((1_000 + step * 11) * SECOND)
            function(1)
            tagged.refresh(1)
            cache.invalidate(tag="a")
            cache.delete("direct")
            assert cache._check_invariants()
        cache.clear()
        cache.close()
        assert len(ended) > 30
    _core.clock_set(0)
    timeouts = [error for error in unraisable if isinstance(error, TimeoutError)]
    assert not timeouts, f"{len(timeouts)} of {len(unraisable)}: {timeouts[0]}"


def collector_in_every_operation() -> None:
    """Garbage whose __del__ uses the cache is collected as often as the interpreter can."""
    _load.FOLLOWER_LIMIT = 5.0
    rng = random.Random(1)
    cache = Cache(ttl=60, max_entries=20, stale_while_revalidate=60, jitter=0.0)
    count = 0

    class Garbage:
        def __init__(self) -> None:
            self.cycle = self

        def __del__(self) -> None:
            nonlocal count
            count += 1
            rng.choice(actions(cache, rng.choice(functions), [0, 1, 2, 3]))()

    def load(key: Any) -> object:
        Garbage()
        return [key, Garbage] if key != 3 else {"key": key}

    functions = [
        cache.cached(load, name="plain"),
        cache.cached(load, name="tagged", tags=["a"]),
        cache.cached(load, name="pooled", hard_timeout=5),
        cache.cached(load, name="spoken", ttl=lambda value: 60),
    ]
    gc.set_threshold(1, 1, 1)
    moment = 1_000 * SECOND
    for step in range(4_000):
        Garbage()
        with contextlib.suppress(RecursiveLoadError):
            rng.choice(functions)(step % 9)
        cache.set(f"k{step % 30}", [step], 60)
        if step % 50 == 0:
            moment += 61 * SECOND
            _core.clock_set(moment)  # everything is stale: refreshes on the pool
            cache.invalidate(type="default")
    gc.set_threshold(700, 10, 10)
    _core.clock_set(0)
    assert cache._check_invariants()
    assert count > 3_000, count
    wrong = [e for e in unraisable if not isinstance(e, RecursiveLoadError)]
    assert not wrong, f"{len(wrong)}: {wrong[0]!r}"


def comparisons_wait() -> None:
    """A thread sleeps inside a key's __eq__ and others use the cache: it holds no lock while it does."""
    cache, function, keys = prepared()
    inside, go_on = threading.Event(), threading.Event()
    main = threading.current_thread()

    def wait() -> None:
        if threading.current_thread() is not main:
            inside.set()
            assert go_on.wait(20)

    Key.on_eq = staticmethod(wait)
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(function(Key(1))))
    thread.start()
    assert inside.wait(20)
    for action in actions(cache, function, keys):
        action()
    gc.collect()
    go_on.set()
    thread.join(20)
    assert results
    quiet()
    sound(cache, function, keys)


def sound(cache: Cache, function: Any, keys: list[Any]) -> None:
    """The cache still works for every key."""
    assert cache._check_invariants()
    assert cache.stats().flights == 0 or time.sleep(0.2) or cache.stats().flights == 0
    for key in keys:
        assert function(key) is function(key)


PARTS = {
    f.__name__: f
    for f in (
        special_methods_raise,
        special_methods_come_back,
        values_come_back,
        collector_in_every_operation,
        comparisons_wait,
    )
}
if __name__ == "__main__":
    PARTS[sys.argv[1]]()
    print("end", time.monotonic(), flush=True)
