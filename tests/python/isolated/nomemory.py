"""The n-th allocation fails, for every n of every operation: MemoryError or the result, and the cache stays whole.

Thread rule: a process of its own.
Refuses to know: allocations by operator new, which the C++ tests make fail.
"""

from __future__ import annotations

import _testcapi
import asyncio
import sys
import warnings
from collections.abc import Callable
from typing import Any

from stillwarm import Cache, NotFound, _load, current_load

warnings.simplefilter("ignore", RuntimeWarning)  # a coroutine that found no memory to become a task
sys.unraisablehook = lambda args: None  # a __del__ or a wake-up without memory
_load.FOLLOWER_LIMIT = 5.0


def operations(cache: Cache) -> dict[str, Callable[[int], object]]:
    def fail(key: int) -> int:
        raise ValueError(key)

    def absent(key: int) -> int:
        raise NotFound(key)

    def speak(key: int) -> int:
        current_load().tags.append("b")
        return key

    plain = cache.cached(lambda key, *rest, **more: key, name="plain")
    tagged = cache.cached(lambda key: [key], name="tagged", tags=["a"])
    failing = cache.cached(fail, name="failing")
    nothing = cache.cached(absent, name="nothing", negative_ttl=5)
    spoken = cache.cached(speak, name="spoken")
    return {
        "load": lambda n: plain(n),
        "load by content": lambda n: plain([n, {"a": n}]),
        "load with more": lambda n: plain(n, n, a=n),
        "load with tags": lambda n: tagged(n),
        "load that fails": lambda n: failing(n),
        "load of nothing": lambda n: nothing(n),
        "load that speaks": lambda n: spoken(n),
        "hit": lambda n: plain(0),
        "refresh": lambda n: tagged.refresh(n % 3),
        "get_many": lambda n: tagged.get_many([n, n + 1]),
        "set plainly": lambda n: cache.set("key", n, 60),
        "set": lambda n: cache.set(f"key{n}", n, 60, ["a", f"tag{n}"]),
        "add": lambda n: cache.add(f"key{n}", n, 60),
        "incr": lambda n: cache.incr("number", 10**30),
        "touch": lambda n: cache.touch("number", 60),
        "get": lambda n: cache.get(f"key{n}"),
        "get_or_set": lambda n: cache.get_or_set(f"key{n}", lambda: n),
        "delete": lambda n: cache.delete("number") and cache.set("number", 1),
        "invalidate key": lambda n: cache.invalidate(key="plain:1"),
        "invalidate tag": lambda n: cache.invalidate(tag=f"tag{n}"),
        "invalidate type": lambda n: cache.invalidate(type="default", stale=True),
        "invalidate pattern": lambda n: cache.invalidate(pattern="plain*"),
        "stats": lambda n: cache.stats(),
        "clear": lambda n: cache.clear(),
    }


# CPython 3.12 and 3.13 do not survive that Python code finds no memory (PyFunction_NewWithQualName uses what was not
# made): there, only what the extension does alone.
ALONE = ("load", "load with more", "hit", "set plainly", "get")
FRAGILE = sys.version_info >= (3, 12)


def main() -> None:
    cache = Cache(ttl=60, max_entries=100)
    failed = 0
    for name, operation in operations(cache).items():
        if FRAGILE and name not in ALONE:
            continue
        n = 0
        while True:
            n += 1
            cache.set("number", 1)
            error: Any = None
            _testcapi.set_nomemory(n, n + 1)
            try:
                operation(1_000 + n)
            except Exception as raised:
                error = raised
            finally:
                _testcapi.remove_mem_hooks()
            failed += isinstance(error, MemoryError)
            flights = cache.stats().flights
            assert flights == 0, f"{name}, allocation {n}: {flights} flights are stuck, {error!r}"
            assert cache._check_invariants(), f"{name}, allocation {n}: {error!r}"
            assert _load.innermost() is None, f"{name}, allocation {n}: a load seems to run"
            if isinstance(error, SystemError) and (
                name in ("load that fails", "load of nothing") or "<function" in str(error)
            ):
                error = None  # the interpreter's own: Python code found no memory to raise
            if isinstance(error, TypeError) and "Unable to convert" in str(error):
                error = MemoryError()  # how pybind11 says that it cannot make the result
            expected = (MemoryError, ValueError, NotFound, KeyError)
            assert error is None or isinstance(error, expected), f"{name}, allocation {n}: {error!r}"
            if not isinstance(error, MemoryError) and n > 60:
                break
    print("MemoryError:", failed)
    if not FRAGILE:
        asyncio.run(tasks(cache))


async def tasks(cache: Cache) -> None:
    @cache.cached
    async def load(key: int) -> int:
        return key

    for n in range(1, 80):
        call: Any = None
        _testcapi.set_nomemory(n, n + 1)
        try:
            call = load(n)
            call.send(None)  # one step by hand: asyncio itself does not survive that its own callbacks find no memory
        except (MemoryError, StopIteration):
            pass
        finally:
            _testcapi.remove_mem_hooks()
        if call is not None:
            call.close()  # the caller leaves; the load, if it has begun, goes on
        for _ in range(5):
            await asyncio.sleep(0)
        assert cache._check_invariants()
        assert cache.stats().flights == 0, n
        assert await asyncio.wait_for(load(n), 5) == n, n


main()
