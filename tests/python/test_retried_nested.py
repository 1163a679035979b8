"""Retries inside retries do not multiply; what is counted, and what hooks hear.

Thread rule: one thread, and loops of its own.
Refuses to know: how often and how long (test_retry.py), what a retried function is (test_retried.py).
"""

from __future__ import annotations

import asyncio
import functools
import gc
import logging
import pickle
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

import stillwarm
from flaky import Source, ending
from stillwarm import GaveUp, Retried, Retry, retry, retry_stats, transient
from stillwarm.errors import CircuitOpen
from stillwarm.testing import without_waiting


@pytest.fixture(autouse=True)
def waits() -> Iterator[list[float]]:
    with without_waiting(random=lambda: 0.5) as seen:
        yield seen


# -------------------------------------------------------------------------------------------------------------- nested


def test_retried_layers_do_not_multiply(caplog: pytest.LogCaptureFixture, waits: list[float]) -> None:
    source = Source(1_000)
    inner = retry(on=transient, retries=2, name="nested inner")(source)
    outer = retry(on=transient, retries=5, name="nested outer")(lambda: inner())
    with caplog.at_level(logging.WARNING, logger="stillwarm"), pytest.raises(ConnectionError) as raised:
        outer()
    assert source.calls == 3
    assert len(waits) == 2
    assert ending(raised.value) == "3 attempts; stopped: retries exhausted"
    assert "the retry nested inner is inside of the retry nested outer" in caplog.text
    caplog.clear()
    source.calls = 0
    with pytest.raises(ConnectionError):
        outer()
    assert (source.calls, "inside" in caplog.text) == (3, False), "it is said once"
    assert retry_stats()["nested outer"].given_up == {"an inner retry gave up": 2}


def test_retried_layers_would_multiply_without_the_rule(waits: list[float]) -> None:
    """The naive control: an error that has lost its mark."""
    source = Source(1_000)
    inner = retry(on=transient, retries=2, budget=None)(source)

    @retry(on=transient, retries=5, budget=None)
    def outer() -> Any:
        try:
            return inner()
        except ConnectionError as error:
            raise ConnectionError(str(error)) from None

    with pytest.raises(ConnectionError):
        outer()
    assert source.calls == 3 * 6


def test_retried_layers_know_an_error_that_was_translated(waits: list[float]) -> None:
    source = Source(1_000)
    inner = retry(on=transient, retries=2)(source)

    @retry(on=TimeoutError, retries=5)
    def outer() -> Any:
        try:
            return inner()
        except ConnectionError as error:
            raise TimeoutError from error

    with pytest.raises(TimeoutError):
        outer()
    assert source.calls == 3


def test_retried_outer_layer_tries_what_the_inner_one_does_not(waits: list[float]) -> None:
    source = Source(2, ValueError)
    inner = retry(on=transient)(source)
    assert retry(on=ValueError)(lambda: inner())() == ((), {})
    assert source.calls == 3


def test_retried_error_object_that_is_raised_again_later_is_no_nested_one(waits: list[float]) -> None:
    error, calls = ConnectionError(), []

    def source() -> None:
        calls.append(1)
        raise error

    f = retry(on=transient, retries=2)(source)
    for expected in (3, 6):
        with pytest.raises(ConnectionError):
            f()
        assert len(calls) == expected


def test_retried_layers_in_coroutines(waits: list[float]) -> None:
    source = Source(1_000)
    inner = retry(on=transient, retries=2)(source.later)

    @retry(on=transient, retries=5)
    async def outer() -> Any:
        return await inner()

    with pytest.raises(ConnectionError):
        asyncio.run(outer())
    assert source.calls == 3


def test_retried_load_of_a_cache_with_retry_is_nested_too(waits: list[float]) -> None:
    source = Source(1_000)
    cache = stillwarm.Cache()
    f = cache.cached(ttl=60, key="f", retry=Retry(on=transient, retries=4))(retry(on=transient, retries=2)(source))
    with pytest.raises(ConnectionError):
        f()
    assert source.calls == 3


def test_retried_error_that_two_callers_get_at_once_is_nested_in_neither(waits: list[float]) -> None:
    """As those who wait for one load do: what another thread gave up on, this one may try."""
    error, calls = ConnectionError(), []

    def source() -> str:
        calls.append(threading.current_thread())
        if calls.count(threading.current_thread()) < 3:
            if len(calls) == 1:  # meanwhile another thread fails with the same object, for good
                other = threading.Thread(target=give_up)
                other.start()
                other.join()
            raise error
        return "fine"

    def fails() -> None:
        raise error

    def give_up() -> None:
        with pytest.raises(ConnectionError):
            retry(on=transient, retries=1)(fails)()

    assert retry(on=transient, retries=3)(source)() == "fine"
    assert len(calls) == 3


def test_retried_mark_stays_in_its_process() -> None:
    with pytest.raises(ConnectionError) as raised:
        retry(on=transient, retries=1)(Source(9))()
    sent = pickle.loads(pickle.dumps(raised.value))
    calls = []

    @retry(on=transient, retries=1)
    def f() -> int:
        calls.append(1)
        if len(calls) == 1:
            raise sent
        return len(calls)

    assert f() == 2


# ----------------------------------------------------------------------------------------------------- figures, hooks


def test_retried_figures_of_a_name() -> None:
    source = Source(2)
    f = retry(on=transient, name="figures", retries=1)(source)
    with pytest.raises(ConnectionError):
        f()
    f()
    f()
    source.failures = source.calls + 1
    f()
    with pytest.raises(ZeroDivisionError):
        retry(on=transient, name="figures")(lambda: 1 / 0)()
    stats = retry_stats()["figures"]
    assert (stats.calls, stats.succeeded, stats.recovered) == (5, 3, 1)
    assert (stats.failures, stats.retries) == (4, 2)
    assert stats.given_up == {"retries exhausted": 1, "not transient": 1}
    assert stats.waited == pytest.approx(0.4)


def test_retried_figures_of_coroutines_and_of_calls_that_never_began() -> None:
    f = retry(on=transient, name="afigures")(Source(1).later)
    never = f()
    never.close()
    asyncio.run(f())
    stats = retry_stats()["afigures"]
    assert (stats.calls, stats.succeeded, stats.recovered, stats.retries) == (1, 1, 1, 1)


def test_retried_hook_hears_of_each_wait_and_of_the_end() -> None:
    heard: list[Retried | GaveUp] = []
    f = retry(on=transient, retries=1, name="heard", hook=heard.append)(Source(5))
    with pytest.raises(ConnectionError) as raised:
        f()
    wait, end = heard
    assert isinstance(wait, Retried)
    assert isinstance(end, GaveUp)
    assert (wait.name, wait.failures, wait.retries, wait.delay, str(wait.error)) == ("heard", 1, 1, 0.2, "failure 1")
    assert (end.failures, end.reason, end.error) == (2, "retries exhausted", raised.value)


def test_retried_hook_that_raises_hides_nothing(caplog: pytest.LogCaptureFixture) -> None:
    def hook(_: object) -> None:
        raise KeyError("the hook's own")

    f = retry(on=transient, hook=hook)(Source(1))
    assert f() == ((), {})
    assert "the hook of a retry raised" in caplog.text


def test_retried_circuit_open_is_an_error_like_others_for_those_who_name_it() -> None:
    assert retry(on=CircuitOpen)(Source(1, CircuitOpen))() == ((), {})


def test_retried_call_holds_nothing_after_its_end() -> None:
    class Thing:
        pass

    thing = Thing()
    there = weakref.ref(thing)
    f = retry(on=transient, retries=1)(Source(1))
    f(thing)
    coroutine = retry(on=transient, retries=1)(Source(1).later)(thing)
    asyncio.run(coroutine)
    del thing
    gc.collect()
    assert there() is None, "neither the call nor the awaitable, which is still there, keeps its arguments"


def test_retried_by_many_threads_at_once() -> None:
    source, gate, results = Source(), threading.Barrier(16), []
    f = retry(on=transient, name="threads")(functools.partial(source, 1))

    def use() -> None:
        gate.wait()
        results.extend(f() for _ in range(500))

    threads = [threading.Thread(target=use) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == retry_stats()["threads"].calls == retry_stats()["threads"].succeeded == 8_000
