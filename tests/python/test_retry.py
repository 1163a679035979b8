"""The Retry policy, in each of the ways to use it: how often, how long, why it stops. Nothing here waits."""

from __future__ import annotations

import asyncio
import functools
import logging
import re
import types
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from flaky import ending
from stillwarm import Retry, define_budget, transient
from stillwarm._waiting import apause, pause
from stillwarm.errors import ConfigError, NotFound
from stillwarm.testing import without_waiting


@pytest.fixture
def waits() -> Iterator[list[float]]:
    with without_waiting(random=lambda: 0.5) as seen:  # 0.5: the middle of the range, the nominal delay
        yield seen


class Flaky:
    """Fails with the given errors, one after the other, then answers."""

    def __init__(self, *errors: BaseException) -> None:
        self.errors = list(errors)
        self.calls = 0

    def __call__(self, answer: str = "ok") -> str:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return answer

    async def later(self, answer: str = "ok") -> str:
        return self(answer)


def run(policy: Retry, flaky: Flaky, how: str) -> str:
    """One call in one of the six ways."""
    if how == "call":
        return policy.call(flaky)
    if how == "acall":
        return asyncio.run(policy.acall(flaky.later))
    if how == "decorated":
        return policy(flaky)()
    if how == "decorated coroutine":
        return asyncio.run(policy(flaky.later)())
    if how == "block":
        for attempt in policy:
            with attempt:
                return flaky()
        raise AssertionError("the loop ended without a result")
    return asyncio.run(block(policy, flaky))


async def block(policy: Retry, flaky: Flaky) -> str:
    async for attempt in policy:
        with attempt:
            return await flaky.later()
    raise AssertionError("the loop ended without a result")


WAYS = ["call", "acall", "decorated", "decorated coroutine", "block", "block in a coroutine"]
both = pytest.mark.parametrize("how", WAYS)


@both
def test_a_success_at_once_waits_for_nothing(how: str, waits: list[float]) -> None:
    flaky = Flaky()
    assert run(Retry(on=transient), flaky, how) == "ok"
    assert (flaky.calls, waits) == (1, [])


@both
def test_waits_grow_up_to_the_cap(how: str, waits: list[float]) -> None:
    flaky = Flaky(*(ConnectionError() for _ in range(6)))
    assert run(Retry(on=ConnectionError, retries=6, jitter=0), flaky, how) == "ok"
    assert waits == [0.2, 0.4, 0.8, 1.6, 2.0, 2.0]


@both
def test_the_last_error_is_raised_as_it_is(how: str, waits: list[float]) -> None:
    errors = [ConnectionError(n) for n in range(4)]
    with pytest.raises(ConnectionError) as caught:
        run(Retry(on=transient), Flaky(*errors), how)
    assert caught.value is errors[-1]
    assert caught.value.__context__ is None
    assert ending(caught.value) == "4 attempts; stopped: retries exhausted"
    assert len(waits) == 3


@both
def test_other_errors_pass_at_once_and_unmarked(how: str, waits: list[float]) -> None:
    error = ZeroDivisionError()
    flaky = Flaky(error)
    with pytest.raises(ZeroDivisionError) as caught:
        run(Retry(on=transient), flaky, how)
    assert caught.value is error
    assert not hasattr(error, "__notes__")
    assert (flaky.calls, waits) == (1, [])


@both
@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit, asyncio.CancelledError])
def test_what_is_no_error_is_never_retried(how: str, error: type[BaseException], waits: list[float]) -> None:
    async def inside() -> None:  # KeyboardInterrupt out of asyncio.run would end the test run
        flaky = Flaky(error())
        policy = Retry(on=lambda exc: True)
        with pytest.raises(error):
            _ = policy.call(flaky) if how == "call" else await policy.acall(flaky.later)
        assert flaky.calls == 1

    asyncio.run(inside())
    assert waits == []


def test_a_future_cancelled_in_a_pool_is_not_retried(waits: list[float]) -> None:
    import concurrent.futures

    policy = Retry(on=(transient, concurrent.futures.CancelledError, lambda exc: True))
    assert not policy.retryable(concurrent.futures.CancelledError())


def test_not_found_is_an_answer_unless_it_is_named() -> None:
    assert not Retry(on=LookupError).retryable(NotFound())
    assert not Retry(on=lambda exc: True).retryable(NotFound())
    assert Retry(on=LookupError).retryable(KeyError())
    assert Retry(on=(LookupError, NotFound)).retryable(NotFound())


def test_on_may_mix_classes_and_predicates() -> None:
    class Busy(Exception):
        pass

    policy = Retry(on=(Busy, transient))
    assert policy.retryable(Busy())
    assert policy.retryable(TimeoutError())
    assert not policy.retryable(ValueError())


def test_a_predicate_that_raises_does_not_hide_the_error(waits: list[float], caplog: pytest.LogCaptureFixture) -> None:
    def broken(exc: Exception) -> bool:
        raise RuntimeError("predicate")

    with pytest.raises(ConnectionError):
        Retry(on=broken).call(Flaky(ConnectionError()))
    assert "broken" in caplog.text
    assert "RuntimeError: predicate" in caplog.text


# ------------------------------------------------------------------------------------------- deadline, Retry-After


class Overloaded(Exception):
    def __init__(self, seconds: str) -> None:
        super().__init__("overloaded")
        self.response = types.SimpleNamespace(status_code=429, headers={"Retry-After": seconds})


def test_retry_after_is_kept_above_the_cap(waits: list[float]) -> None:
    assert Retry(on=transient, jitter=0).call(Flaky(Overloaded("7"))) == "ok"
    assert waits == [7.0]


def test_retry_after_is_spread_upward_only() -> None:
    with without_waiting(random=lambda: 0.0) as waits:
        Retry(on=transient, jitter=0.5).call(Flaky(Overloaded("10")))
    with without_waiting(random=lambda: 0.99) as more:
        Retry(on=transient, jitter=0.5).call(Flaky(Overloaded("10")))
    assert waits == [10.0]
    assert more == [pytest.approx(14.95)]


def test_a_retry_after_that_is_too_long_ends_the_call(waits: list[float]) -> None:
    with pytest.raises(Overloaded) as caught:
        Retry(on=transient, max_retry_after="5s").call(Flaky(Overloaded("6")))
    assert ending(caught.value) == "1 attempt; stopped: the server asked for a longer wait than allowed"
    assert waits == []


def test_no_wait_begins_that_would_end_after_the_deadline(waits: list[float]) -> None:
    # The clock stands still: only a wait that is itself too long can be refused.
    with pytest.raises(ConnectionError) as caught:
        Retry(on=transient, retries=9, jitter=0, deadline=0.5).call(Flaky(*(ConnectionError() for _ in range(9))))
    assert all(wait < 0.5 for wait in waits)
    assert waits[:2] == [0.2, 0.4]
    assert caught.value.__notes__[0].endswith("stopped: deadline")


def test_retry_after_beyond_the_deadline_ends_the_call(waits: list[float]) -> None:
    with pytest.raises(Overloaded) as caught:
        Retry(on=transient, deadline="5s").call(Flaky(Overloaded("6")))
    assert caught.value.__notes__[0].endswith("stopped: deadline")
    assert waits == []


# ----------------------------------------------------------------------------------------------------------- budget


def failing_call(policy: Retry) -> str:
    flaky = Flaky(*(ConnectionError() for _ in range(50)))
    with pytest.raises(ConnectionError) as caught:
        policy.call(flaky)
    return ending(caught.value)


def test_a_budget_is_shared_by_name(waits: list[float]) -> None:
    one, two = Retry(on=transient, budget="test-shared"), Retry(on=transient, retries=20, budget="test-shared")
    assert "4 attempts" in failing_call(one)
    assert "8 attempts" in failing_call(two)  # 3 tokens are gone
    assert len(waits) == 10
    assert failing_call(one) == "1 attempt; stopped: retry budget exhausted"
    assert "retries exhausted" in failing_call(Retry(on=transient, budget="test-other"))


def test_ten_successes_buy_one_retry(waits: list[float]) -> None:
    policy = Retry(on=transient, retries=20, budget="test-refund")
    failing_call(policy)
    waits.clear()
    for _ in range(9):
        policy.call(Flaky())
    failing_call(policy)
    assert waits == []
    policy.call(Flaky())
    failing_call(policy)
    assert len(waits) == 1


def test_an_outage_is_multiplied_only_without_budget(waits: list[float]) -> None:
    for policy, expected in ((Retry(on=transient, budget=None), 300), (Retry(on=transient, budget="test-outage"), 10)):
        waits.clear()
        for _ in range(100):
            failing_call(policy)
        assert len(waits) == expected


def test_a_budget_may_be_defined(waits: list[float]) -> None:
    define_budget("test-defined", tokens=2, per_success=1)
    policy = Retry(on=transient, retries=20, budget="test-defined")
    failing_call(policy)
    assert len(waits) == 2
    policy.call(Flaky())
    failing_call(policy)
    assert len(waits) == 3


def test_without_waiting_leaves_full_budgets_behind() -> None:
    policy = Retry(on=transient, retries=20, budget="test-left")
    for _ in range(2):
        with without_waiting() as waits:
            failing_call(policy)
        assert len(waits) == 10


# ---------------------------------------------------------------------------------------------- handle, waits, logs


def test_the_handle_serves_loops_that_wait_themselves(waits: list[float]) -> None:
    attempts = Retry(on=transient, retries=1, jitter=0).start()
    assert attempts.failed(ConnectionError()) == 0.2
    assert (attempts.failures, attempts.stopped) == (1, None)
    last = ConnectionError()
    assert attempts.failed(last) is None
    assert (attempts.failures, attempts.stopped) == (2, "retries exhausted")
    assert ending(last) == "2 attempts; stopped: retries exhausted"
    assert waits == []


def test_the_switch_drives_a_clock_and_ends() -> None:
    moved: list[float] = []
    with without_waiting(sleep=moved.append) as waits:
        pause(1.0)
        asyncio.run(apause(2.0))
        with without_waiting() as inner:
            pause(3.0)
    assert (moved, waits, inner) == ([1.0, 2.0], [1.0, 2.0], [3.0])


def test_waits_outside_of_the_switch_are_sleeps(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []

    async def asleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr("time.sleep", slept.append)
    monkeypatch.setattr("asyncio.sleep", asleep)
    pause(1.5)
    asyncio.run(apause(2.5))
    assert slept == [1.5, 2.5]


def test_cancellation_reaches_a_task_that_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> int:
        waiting = asyncio.Event()

        async def forever(seconds: float) -> None:
            waiting.set()
            await asyncio.Event().wait()

        monkeypatch.setattr("asyncio.sleep", forever)
        flaky = Flaky(*(ConnectionError() for _ in range(9)))
        task = asyncio.ensure_future(Retry(on=transient, budget=None).acall(flaky.later))
        await waiting.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return flaky.calls

    assert asyncio.run(main()) == 1


def test_real_draws_keep_the_bounds_of_the_spread() -> None:
    with without_waiting() as waits:
        for _ in range(300):
            Retry(on=transient, retries=1, budget=None).call(Flaky(ConnectionError()))
    assert all(0.14 <= wait <= 0.26 for wait in waits)
    assert len(set(waits)) > 250


def test_full_jitter_reaches_from_zero_to_the_nominal_wait() -> None:
    for number, expected in ((0.0, 0.0), (0.5, 0.1)):
        with without_waiting(random=lambda number=number: number) as waits:
            Retry(on=transient, jitter="full").call(Flaky(ConnectionError()))
        assert waits == [expected]


def test_each_retry_is_one_log_line(waits: list[float], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="stillwarm"), pytest.raises(ConnectionError):
        Retry(on=transient, retries=2, jitter=0).call(Flaky(*(ConnectionError("lost\nit") for _ in range(3))))
    assert [record.getMessage() for record in caplog.records] == [
        "retry 1/2 in 0.20 s: ConnectionError: lost it",
        "retry 2/2 in 0.40 s: ConnectionError: lost it",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "cannot reach postgresql://bob:hunter2@db/shop",
        "redis://:hunter2@h:6379/0 refused",
        "url http://u:x@hunter2@host/",
        "host=db password=hunter2 user=bob",
        "GET /v1?api_key=hunter2&q=1 timed out",
        "PASSWD=hunter2",
    ],
)
def test_a_log_line_shows_no_password(text: str, waits: list[float], caplog: pytest.LogCaptureFixture) -> None:
    Retry(on=transient).call(Flaky(ConnectionError(text)))
    assert "***" in caplog.text
    assert "hunter2" not in caplog.text


def test_an_error_object_that_is_raised_again_keeps_one_note(waits: list[float]) -> None:
    error = ConnectionError()
    error.__notes__ = ["the loader's own"]
    for _ in range(3):
        with pytest.raises(ConnectionError):
            Retry(on=transient, retries=1).call(Flaky(error, error))
    assert len(error.__notes__) == 2
    assert error.__notes__[0] == "the loader's own"


def test_arguments_and_answer_pass_through(waits: list[float]) -> None:
    assert Retry(on=transient).call(Flaky(), answer="yes") == "yes"
    assert Retry(on=transient).call(lambda *a, **k: (a, k), 1, fn=2, self=3) == ((1,), {"fn": 2, "self": 3})


@pytest.mark.filterwarnings("error")
def test_a_coroutine_function_under_call_is_refused(waits: list[float]) -> None:
    with pytest.raises(ConfigError, match=r"a coroutine function; accepted: .*acall"):
        Retry(on=transient).call(Flaky().later)


def test_a_plain_function_under_acall_is_refused(waits: list[float]) -> None:
    plain: Callable[[], Any] = functools.partial(Flaky())
    with pytest.raises(ConfigError, match=re.escape("accepted: a coroutine function; Retry.call()")):
        asyncio.run(Retry(on=transient).acall(plain))
