"""`cache.joined`: calls that overlap share one run whatever becomes of its leader, nothing is kept, no server is asked.

Thread rule: a run waits until the others have joined it, or for an event of the test; nothing is measured.
Refuses to know: how flights work; their own faults are in test_faults.py and test_faults_async.py.
"""

from __future__ import annotations

import asyncio
import gc
import inspect
import pickle
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from stillwarm import Cache, ConfigError, JoinedInfo, KeyTypeError, NotFound, RecursiveLoadError, _load, current_load

CLOSED = "postgresql://u@127.0.0.1:1/db"  # nobody listens there


@pytest.fixture(name="cache", params=[None, CLOSED], ids=["memory", "no_server"])
def _cache(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cache]:
    """With a URL no other test could pass that asked its server: each run would fail `asked_nobody`."""
    monkeypatch.setattr(_load, "FOLLOWER_LIMIT", 20.0)  # a hang shows as LoadTimeout
    with Cache(request.param) as cache:
        yield cache
        assert cache.stats().flights == 0
        assert cache.stats().entries == 0
        assert asked_nobody(cache)


def asked_nobody(cache: Cache) -> bool:
    if cache._tier is None:
        return True
    health = cache._tier.core.health()
    return cache._tier.errors == 0 and health["served"] == 0 and health["last_error"] is None


class Value:
    """What a run returns: an object that is known again, and that can be seen to go."""


def until(condition: Callable[[], bool]) -> None:
    """Waits for another thread; a test that would hang fails."""
    pause = threading.Event()
    for _ in range(20_000):
        if condition():
            return
        pause.wait(0.001)
    raise AssertionError("it never came to that")


async def auntil(condition: Callable[[], bool]) -> None:
    for _ in range(20_000):
        if condition():
            return
        await asyncio.sleep(0.001)
    raise AssertionError("it never came to that")


def at_once(count: int, call: Callable[[int], Any]) -> list[Any]:
    """What `count` threads got that called together, results and errors."""
    start, results = threading.Barrier(count), []

    def run(number: int) -> None:
        start.wait(20)
        try:
            results.append(call(number))
        except Exception as error:
            results.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(results) == count
    return results


# ------------------------------------------------------------------------------------------------------ one run of many


def test_joined_64_threads_make_one_run_and_have_one_object(cache: Cache) -> None:
    runs: list[Value] = []

    @cache.joined
    def report(year: int) -> Value:
        until(lambda: report.joined_info().joined == 63)
        runs.append(Value())
        return runs[-1]

    results = at_once(64, lambda _: report(2024))
    assert len(runs) == 1
    assert {id(result) for result in results} == {id(runs[0])}
    assert report.joined_info()[:4] == (64, 1, 63, 0)


def test_joined_control_a_plain_function_makes_64_runs() -> None:
    together, runs = threading.Barrier(64), []

    def report(year: int) -> int:
        together.wait(20)  # all of them are inside at the same time
        runs.append(year)
        return year

    at_once(64, lambda _: report(2024))
    assert len(runs) == 64


async def test_joined_100_tasks_make_one_run(cache: Cache) -> None:
    runs: list[Value] = []

    @cache.joined
    async def report(year: int) -> Value:
        await auntil(lambda: report.joined_info().joined == 99)
        runs.append(Value())
        return runs[-1]

    results = await asyncio.gather(*(report(2024) for _ in range(100)))
    assert len(runs) == 1
    assert {id(result) for result in results} == {id(runs[0])}
    assert report.joined_info()[:4] == (100, 1, 99, 0)


def test_joined_tasks_of_several_threads_make_one_run(cache: Cache) -> None:
    runs: list[int] = []

    @cache.joined()
    async def report(year: int) -> int:
        runs.append(threading.get_ident())
        await auntil(lambda: report.joined_info().joined == 8 * 4 - 1)
        return year

    async def ask() -> list[int]:
        return await asyncio.gather(*(report(2024) for _ in range(4)))

    assert at_once(8, lambda _: asyncio.run(ask())) == [[2024] * 4] * 8
    assert len(runs) == 1


def test_joined_a_later_call_runs_again_and_nothing_is_kept(cache: Cache) -> None:
    @cache.joined
    def report(year: int) -> Value:
        return Value()

    first = report(2024)
    gone = weakref.ref(first)
    assert report(2024) is not first
    del first
    gc.collect()
    assert gone() is None
    assert report.joined_info()[:4] == (2, 2, 0, 0)


def test_joined_different_arguments_run_apart(cache: Cache) -> None:
    together = threading.Barrier(3)

    @cache.joined
    def report(year: object, month: int = 1) -> object:
        together.wait(20)  # three runs at the same time
        return year

    calls: list[Any] = [lambda: report(1), lambda: report("1"), lambda: report(1, month=2)]
    assert sorted(at_once(3, lambda n: calls[n]()), key=repr) == ["1", 1, 1]
    assert report.joined_info()[:3] == (3, 3, 0)


def test_joined_calls_are_identical_by_the_signature(cache: Cache) -> None:
    @cache.joined
    def report(year: int, month: int = 1) -> int:
        until(lambda: report.joined_info().joined == 2)
        return year

    calls = [lambda: report(2024), lambda: report(2024, 1), lambda: report(month=1, year=2024)]
    assert at_once(3, lambda n: calls[n]()) == [2024] * 3
    assert report.joined_info().runs == 1


def test_joined_key_and_ignore_say_what_is_identical(cache: Cache) -> None:
    @cache.joined(key="report:{year}")
    def by_key(year: int, session: object) -> int:
        until(lambda: by_key.joined_info().joined == 1)
        return year

    @cache.joined(ignore=("session",), name="report")
    def by_ignore(year: int, session: object) -> int:
        until(lambda: by_ignore.joined_info().joined == 1)
        assert current_load().key == "report:2024"
        return year

    for function in (by_key, by_ignore):
        assert at_once(2, lambda n, function=function: function(2024, [n])) == [2024] * 2
        assert function.joined_info().runs == 1


def test_joined_functions_with_the_same_key_do_not_share(cache: Cache) -> None:
    together = threading.Barrier(2)

    @cache.joined(key="{item}")
    def price(item: str) -> str:
        together.wait(20)
        return "price"

    @cache.joined(key="{item}")
    def stock(item: str) -> str:
        together.wait(20)
        return "stock"

    assert sorted(at_once(2, lambda n: (price, stock)[n]("B07"))) == ["price", "stock"]


def test_joined_and_cached_functions_with_the_same_key_do_not_share() -> None:
    cache = Cache(ttl=60)
    cached = cache.cached(key="{item}")(lambda item: "cached")
    joined = cache.joined(key="{item}")(lambda item: "joined")
    assert [cached("B07"), joined("B07"), cached("B07"), joined("B07")] == ["cached", "joined"] * 2


# --------------------------------------------------------------------------------------------------- when it goes wrong


def test_joined_a_failure_reaches_all_and_is_one_run(cache: Cache) -> None:
    runs: list[int] = []

    @cache.joined
    def report(year: int) -> int:
        runs.append(year)
        until(lambda: report.joined_info().joined == 15)
        raise ConnectionError("refused")

    results = at_once(16, lambda _: report(2024))
    assert [str(error) for error in results] == ["refused"] * 16
    assert len({id(error) for error in results}) == 1
    assert len(runs) == 1
    assert report.joined_info()[:4] == (16, 1, 15, 1)


@pytest.mark.parametrize("error", [NotFound("no such"), KeyError("k"), TimeoutError("late"), ValueError("wrong")])
async def test_joined_an_error_passes_as_it_is(cache: Cache, error: Exception) -> None:
    @cache.joined
    def plain() -> None:
        raise error

    @cache.joined
    async def coroutine() -> None:
        raise error

    for _ in range(2):
        with pytest.raises(type(error)) as plainly:
            plain()
        with pytest.raises(type(error)) as awaited:
            await coroutine()
        assert plainly.value is awaited.value is error
    assert plain.joined_info().runs == coroutine.joined_info().runs == 2


async def test_joined_a_leader_that_is_cancelled_leaves_the_run_to_the_others(cache: Cache) -> None:
    go, runs = asyncio.Event(), []

    @cache.joined
    async def report(year: int) -> int:
        runs.append(year)
        await go.wait()
        return year

    leader, *others = [asyncio.ensure_future(report(2024)) for _ in range(4)]
    await auntil(lambda: report.joined_info().joined == 3)
    leader.cancel()
    others[0].cancel()
    await asyncio.wait([leader, others[0]])
    go.set()
    assert await asyncio.gather(*others[1:]) == [2024] * 2
    assert leader.cancelled()
    assert runs == [2024]


def test_joined_ctrl_c_of_the_leader_lets_a_follower_lead(cache: Cache) -> None:
    runs: list[int] = []

    @cache.joined
    def report(year: int) -> int:
        runs.append(year)
        if len(runs) == 1:
            until(lambda: report.joined_info().joined == 7)
            raise KeyboardInterrupt
        return year

    def call(_: int) -> object:
        try:
            return report(2024)
        except KeyboardInterrupt:
            return "interrupted"

    results = at_once(8, call)
    assert results.count("interrupted") == 1
    assert results.count(2024) == 7
    assert len(runs) >= 2


def test_joined_a_loop_that_closes_lets_a_follower_lead(cache: Cache) -> None:
    runs: list[int] = []

    @cache.joined
    async def report(year: int) -> int:
        runs.append(year)
        if len(runs) == 1:
            await asyncio.Event().wait()
        return year

    first = asyncio.new_event_loop()
    abandoned = first.create_task(report(2024))
    while not runs:
        first.run_until_complete(asyncio.sleep(0))
    results: list[int] = []
    other = threading.Thread(target=lambda: results.append(asyncio.run(report(2024))))
    other.start()
    until(lambda: report.joined_info().joined == 1)
    for task in asyncio.all_tasks(first):
        task._log_destroy_pending = False  # type: ignore[attr-defined]  # that is what is tested
    del abandoned
    first.close()
    other.join(20)
    assert results == [2024]
    assert len(runs) == 2


def test_joined_recursion_is_an_error(cache: Cache) -> None:
    @cache.joined
    def even(n: int) -> bool:
        return odd(n)

    @cache.joined
    def odd(n: int) -> bool:
        return even(n)

    @cache.joined
    async def itself(n: int) -> int:
        return await asyncio.create_task(itself(n))

    with pytest.raises(RecursiveLoadError):
        even(1)
    with pytest.raises(RecursiveLoadError):
        asyncio.run(itself(1))


def test_joined_calls_after_an_invalidation_join_no_run_from_before() -> None:
    cache = Cache()
    began, go = threading.Semaphore(0), threading.Event()

    @cache.joined
    def report(year: int) -> int:
        began.release()
        assert go.wait(20)
        return year

    threads = [threading.Thread(target=report, args=(2024,)) for _ in range(2)]
    threads[0].start()
    assert began.acquire(timeout=20)
    cache.invalidate(all=True)
    threads[1].start()
    assert began.acquire(timeout=20), "a run of its own"
    go.set()
    for thread in threads:
        thread.join(20)
    assert report.joined_info()[:3] == (2, 2, 0)


# ---------------------------------------------------------------------------------------------------- what is decorated


class Shop:
    """Its objects are compared by identity, and no other process knows them."""

    cache = Cache(CLOSED)

    @cache.joined
    def price(self, item: str) -> tuple[object, str]:
        until(lambda: self.price.joined_info().calls == 4)
        return self, item

    @classmethod
    @cache.joined
    def name(cls) -> str:
        return cls.__name__

    @cache.joined
    @classmethod
    def name2(cls) -> str:
        return cls.__name__

    @staticmethod
    @cache.joined
    def tax(country: str) -> str:
        return country

    @cache.joined
    async def stock(self, item: str) -> tuple[object, str]:
        return self, item


def test_joined_methods() -> None:
    one, other = Shop(), Shop()
    results = at_once(4, lambda n: (one, other)[n % 2].price("B07"))
    assert sorted(results, key=lambda r: r[0] is one) == [(other, "B07")] * 2 + [(one, "B07")] * 2
    assert Shop.price.joined_info()[:3] == (4, 2, 2)
    assert Shop.name() == one.name() == Shop.name2() == "Shop"
    assert one.tax("FR") == "FR"
    assert asyncio.run(one.stock("B07")) == (one, "B07")
    assert asked_nobody(Shop.cache)


def test_joined_an_object_that_cannot_be_hashed_is_named(cache: Cache) -> None:
    @cache.joined
    def report(options: object) -> None: ...

    class Unhashable:
        __hash__ = None  # type: ignore[assignment]

    with pytest.raises(KeyTypeError, match="options"):
        report(Unhashable())


def test_joined_functions_look_like_what_they_were(cache: Cache) -> None:
    @cache.joined
    def plain(a: int, b: str = "x") -> int:
        """Doc."""
        return a

    @cache.joined
    async def coroutine(a: int) -> int:
        return a

    assert str(inspect.signature(plain)) == "(a: 'int', b: 'str' = 'x') -> 'int'"
    assert (plain.__name__, plain.__doc__, plain.__wrapped__(3)) == ("plain", "Doc.", 3)
    assert inspect.iscoroutinefunction(coroutine)
    assert not inspect.iscoroutinefunction(plain)
    assert not hasattr(plain, "cache_clear")
    assert isinstance(plain.joined_info(), JoinedInfo)
    assert pickle.loads(pickle.dumps(Shop.price)) is Shop.price


def test_joined_refuses_what_it_cannot_share(cache: Cache) -> None:
    joined: Any = cache.joined

    def numbers() -> Iterator[int]:
        yield 1

    async def anumbers() -> Any:
        yield 1

    for generator in (numbers, anumbers):
        with pytest.raises(ConfigError, match="generator function"):
            joined(generator)
    for wrong in (5, "report", int):
        with pytest.raises(ConfigError, match="joined"):
            joined(wrong)
    with pytest.raises(ConfigError, match="cached already"):
        joined(cache.cached(ttl=5, name="f")(lambda: None))
    for option in ({"tags": ["a"]}, {"ttl": 5}, {"keys": "a"}):
        with pytest.raises(ConfigError, match="@joined has no option"):
            joined(**option)
    with pytest.raises(ConfigError, match="no argument 'other'"):
        joined(key="{other}")(lambda item: item)
    with pytest.raises(ConfigError, match="that is what joined functions have"):
        cache.define("joined", ttl=5)


def test_joined_wants_the_arguments_of_the_function(cache: Cache) -> None:
    report: Any = cache.joined(lambda year: year)
    with pytest.raises(TypeError, match="year"):
        report()
    assert report.joined_info().runs == 0


# -------------------------------------------------------------------------------------------------- beside other things


def test_joined_no_server_is_asked_where_a_cached_function_asks() -> None:
    with Cache(CLOSED, ttl=60) as cache:
        joined = cache.joined(name="joined")(lambda: 1)
        cached = cache.cached(name="cached")(lambda: 1)
        assert joined() == 1
        assert asked_nobody(cache)
        assert cached() == 1
        assert not asked_nobody(cache), "this is what the other tests would see"


def test_joined_is_in_no_figures_of_the_cache_but_its_hooks_hear_of_it() -> None:
    cache, events = Cache(ttl=60), []
    cache.subscribe(lambda event: events.append((type(event).__name__, event.type)))
    report = cache.joined(lambda: 1)
    report()
    assert events == [("Missed", "joined"), ("Loaded", "joined")]
    assert cache.stats().misses == 0
    assert "joined" not in cache.stats().types
    assert report.joined_info().seconds >= 0


def test_joined_with_the_cache_off_every_call_runs() -> None:
    cache = Cache(enabled=False)
    together = threading.Barrier(4)

    @cache.joined
    def report(year: int) -> int:
        together.wait(20)  # four runs at the same time
        return year

    @cache.joined
    async def areport(year: int) -> int:
        return year

    assert at_once(4, lambda _: report(2024)) == [2024] * 4
    assert asyncio.run(areport(2024)) == 2024


def test_joined_settings_of_the_cache_are_not_its_own() -> None:
    cache = Cache(ttl=60, hard_timeout=5, copy="deep", unless=lambda _: True, tags=["a"])
    caller = threading.get_ident()
    value = Value()

    @cache.joined
    def report() -> Value:
        assert threading.get_ident() == caller
        return value

    assert report() is value
