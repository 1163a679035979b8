"""CircuitBreaker: when it opens and closes, whom it lets through, and what it says about it.

Thread rule: 64 threads meet at a barrier; the clock is moved by hand.
Refuses to know: which errors are failures, forms of calls (test_breaker_calls), calls inside of calls, caches, Retry,
forks (test_breaker_inside), metrics (test_breaker_figures).
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import logging
import pickle
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from guarding import Down, Source, Way, every_way, fail, opened
from stillwarm import CircuitBreaker, ConfigError, transient
from stillwarm._failures import retry_after
from stillwarm.breaker import Figures
from stillwarm.errors import CircuitOpen

pytestmark = pytest.mark.usefixtures("warm_clock")

# ------------------------------------------------------------------------------------------------------ open and close


@every_way
async def test_breaker_opens_after_five_failures_in_a_row_and_refuses(way: Way) -> None:
    breaker, source = CircuitBreaker(), Source(Down("away"))
    for number in range(5):
        assert breaker.state == "closed"
        assert breaker.figures().in_a_row == number
        with pytest.raises(Down, match="away"):
            await way(breaker, source)
    assert breaker.state == "open"
    for _ in range(10):
        with pytest.raises(CircuitOpen):
            await way(breaker, source)
    assert source.calls == 5
    assert breaker.figures() == Figures(state="open", opened=1, refused=10, calls=5, failures=5, in_a_row=5)


@every_way
async def test_breaker_closes_when_its_probe_succeeds(way: Way, warm_clock: Any) -> None:
    breaker, source = opened(), Source()
    assert breaker.retry_in == 2.0
    warm_clock.move("1.9s")
    with pytest.raises(CircuitOpen):
        await way(breaker, source)
    warm_clock.move("100ms")
    assert (breaker.state, breaker.retry_in) == ("half-open", 0.0)
    assert await way(breaker, source) == "ok"
    assert breaker.state == "closed"
    assert source.calls == 1


@every_way
async def test_breaker_waits_twice_as_long_after_each_failed_probe(way: Way, warm_clock: Any) -> None:
    breaker, source = opened(open_for="2s", open_most="10s"), Source(Down)
    for wait in (2, 4, 8, 10, 10):
        assert breaker.retry_in == wait
        warm_clock.move(wait)
        with pytest.raises(Down):
            await way(breaker, source)
        assert breaker.state == "open"
    assert breaker.figures().opened == 1
    warm_clock.move(10)
    source.error = None
    await way(breaker, source)
    fail(breaker, 5)
    assert breaker.retry_in == 2, "closing forgets the longer wait"


def test_breaker_a_success_begins_the_row_anew() -> None:
    breaker = CircuitBreaker(least_calls=0)
    for _ in range(5):
        fail(breaker, 4)
        breaker.call(Source().ask)
    assert (breaker.state, breaker.figures().in_a_row) == ("closed", 0)
    fail(breaker, 5)
    assert breaker.state == "open"


def test_breaker_opens_by_share_of_the_window(warm_clock: Any) -> None:
    breaker = CircuitBreaker(share=0.4, least_calls=10, window="10s")
    for _ in range(3):
        fail(breaker)
        breaker.call(Source().ask)
    warm_clock.move("11s")  # what is older than the window does not count
    assert breaker.figures().calls == 0
    for _ in range(3):
        fail(breaker)
        breaker.call(Source().ask)
    breaker.call(Source().ask)
    breaker.call(Source().ask)
    fail(breaker)
    assert (breaker.figures().calls, breaker.figures().failures, breaker.state) == (9, 4, "closed")
    breaker.call(Source().ask)  # the tenth call, though it succeeded
    assert breaker.state == "open"


def test_breaker_without_consecutive_or_without_share() -> None:
    breaker = CircuitBreaker(consecutive=0, least_calls=20)
    fail(breaker, 19)
    assert breaker.state == "closed"
    fail(breaker)
    assert breaker.state == "open"
    breaker = CircuitBreaker(consecutive=30, least_calls=0)
    fail(breaker, 29)
    assert breaker.state == "closed"
    fail(breaker)
    assert breaker.state == "open"


def test_breaker_reset_closes_it_and_keeps_the_totals() -> None:
    breaker = opened()
    with pytest.raises(CircuitOpen):
        breaker.call(Source().ask)
    breaker.reset()
    assert breaker.figures() == Figures(state="closed", opened=1, refused=1, calls=0, failures=0, in_a_row=0)
    assert breaker.call(Source().ask) == "ok"


# ------------------------------------------------------------------------------------------------------------ at once


def at_once(count: int, work: Callable[[], Any]) -> list[Any]:
    """What `count` threads get when all do `work` at once: results and exceptions."""
    barrier = threading.Barrier(count)

    def run() -> Any:
        barrier.wait(30)
        try:
            return work()
        except Exception as error:
            return error

    with concurrent.futures.ThreadPoolExecutor(count) as pool:
        return [f.result(30) for f in [pool.submit(run) for _ in range(count)]]


@pytest.mark.parametrize("block", [False, True], ids=["call", "block"])
def test_breaker_half_open_lets_one_of_64_threads_through(warm_clock: Any, block: bool) -> None:
    breaker = opened()
    warm_clock.move("2s")
    arrived, refused, leave = threading.Semaphore(0), threading.Semaphore(0), threading.Event()

    def slow() -> str:
        arrived.release()
        assert leave.wait(30)
        return "ok"

    def work() -> str:
        try:
            if not block:
                return breaker.call(slow)
            with breaker:
                return slow()
        except CircuitOpen:
            refused.release()
            raise

    got: list[Any] = []
    crowd = threading.Thread(target=lambda: got.extend(at_once(64, work)))
    crowd.start()
    assert arrived.acquire(timeout=30)
    assert all(refused.acquire(timeout=30) for _ in range(63)), "the others end while the one is under way"
    assert breaker.figures().refused == 63
    assert breaker.state == "half-open"
    with pytest.raises(CircuitOpen, match="is half-open; tries again when the one call under way has ended") as caught:
        breaker.call(slow)
    assert caught.value.retry_after == 0
    leave.set()
    crowd.join(30)
    assert got.count("ok") == 1
    assert sum(isinstance(one, CircuitOpen) for one in got) == 63
    assert breaker.state == "closed"
    assert at_once(64, lambda: breaker.call(Source().ask)) == ["ok"] * 64


def test_breaker_a_probe_that_hangs_keeps_nobody_out_for_ever(warm_clock: Any) -> None:
    breaker = opened(open_most="10s")
    warm_clock.move("2s")
    hung = contextvars.Context()
    hung.run(breaker.__enter__)
    warm_clock.move("9.9s")
    with pytest.raises(CircuitOpen):
        breaker.call(Source().ask)
    warm_clock.move("100ms")
    assert breaker.call(Source().ask) == "ok"
    assert breaker.state == "closed"
    hung.run(breaker.__exit__, Down, Down(), None)
    assert breaker.state == "closed"


def test_breaker_counts_every_call_of_many_threads_and_tasks() -> None:
    breaker = CircuitBreaker(consecutive=0, share=1.0, least_calls=1_000_000)

    def work() -> None:
        for number in range(200):
            with breaker:
                pass
            breaker.call(Source().ask)
            if number % 4 == 0:
                fail(breaker)

    assert at_once(8, work) == [None] * 8

    async def tasks() -> None:
        async def one() -> None:
            async with breaker:
                await asyncio.sleep(0)

        await asyncio.gather(*(one() for _ in range(100)))

    asyncio.run(tasks())
    assert (breaker.figures().calls, breaker.figures().failures) == (8 * 450 + 100, 8 * 50)
    assert not breaker._blocks


# ---------------------------------------------------------------------------------------------------------- CircuitOpen


def test_breaker_circuit_open_says_who_and_when(warm_clock: Any) -> None:
    breaker = opened(name="prices")
    warm_clock.move("200ms")
    with pytest.raises(CircuitOpen) as caught:
        breaker.call(Source().ask)
    assert str(caught.value) == "circuit 'prices' is open; tries again in 1.8 s"
    assert caught.value.retry_after == pytest.approx(1.8)
    assert retry_after(caught.value) == caught.value.retry_after
    assert transient(caught.value)
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.retry_after) == (str(caught.value), caught.value.retry_after)
    with pytest.raises(CircuitOpen, match=r"^a circuit without a name is open; tries again in 2\.0 s$"):
        opened().call(Source().ask)


def test_breaker_logs_one_line_per_turn(warm_clock: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "stillwarm")
    breaker = opened(name="prices", window="5s", open_most="60s")
    warm_clock.move("2s")
    fail(breaker)
    with pytest.raises(CircuitOpen):
        breaker.call(Source().ask)
    warm_clock.move("4s")
    breaker.call(Source().ask)
    for _ in range(10):
        breaker.call(Source().ask)
        fail(breaker)
    breaker.reset()
    breaker.reset()
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", "circuit 'prices' opened after 5 failures in a row; tries again in 2.0 s"),
        ("INFO", "circuit 'prices' closed"),
        ("WARNING", "circuit 'prices' opened after 10 failures of 20 calls in 5 s; tries again in 2.0 s"),
        ("INFO", "circuit 'prices' closed"),
    ]


# ------------------------------------------------------------------------------------------------------------ arguments

BAD: list[tuple[dict[str, Any], str]] = [
    ({"on": Exception}, "on=<class 'Exception'>: it would also count mistakes that never go away"),
    ({"on": ()}, "on=(): nothing would be counted"),
    ({"on": "transient"}, "on='transient': str names no failure"),
    ({"name": ""}, "name='': not a name; accepted: a printable text"),
    ({"name": 5}, "name=5"),
    ({"consecutive": -1}, "consecutive=-1: not a count of failures; accepted: an int from 0 to 1000000"),
    ({"consecutive": 2.0}, "consecutive=2.0"),
    ({"consecutive": True}, "consecutive=True"),
    ({"consecutive": 2**32}, "consecutive=4294967296"),
    ({"least_calls": -1}, "least_calls=-1: not a count of calls"),
    ({"consecutive": 0, "least_calls": 0}, "consecutive=0: with least_calls=0 it would never open"),
    ({"share": 0}, "share=0: out of range; accepted: a number above 0 and up to 1"),
    ({"share": 1.01}, "share=1.01"),
    ({"share": float("nan")}, "share=nan"),
    ({"share": "half"}, "share='half'"),
    ({"window": "50ms"}, "window='50ms': too short"),
    ({"window": None}, "window=None"),
    ({"open_for": 0}, "open_for=0: zero"),
    ({"open_for": "1 day"}, "open_for='1 day'"),
    ({"open_for": "1m"}, "open_for='1m': above open_most='30s'; accepted: a duration up to open_most"),
    ({"open_most": -1}, "open_most=-1: negative"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD, ids=lambda value: str(value)[:40])
def test_breaker_bad_arguments_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        CircuitBreaker(**{"name": "test-bad", **arguments})
    assert message in str(caught.value)
    assert "; accepted: " in str(caught.value)
    CircuitBreaker(name="test-bad")  # what was refused keeps no name


def test_breaker_durations_may_have_any_form() -> None:
    breaker = opened(open_for=timedelta(seconds=3), open_most="1m", window=5)
    assert breaker.retry_in == 3
