"""What a Retry policy is made of: every form that is accepted, and refusals that name argument, value and way out."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from stillwarm import Retry, define_budget, transient
from stillwarm.errors import ConfigError


class NotAnError:
    pass


async def acheck(exc: Exception) -> bool:
    return True


BAD: list[tuple[dict[str, Any], str]] = [
    ({"on": Exception}, "on=<class 'Exception'>: it would also retry mistakes that never go away"),
    ({"on": (ValueError, BaseException)}, "it would also retry"),
    ({"on": KeyboardInterrupt}, "KeyboardInterrupt is not an Exception"),
    ({"on": NotAnError}, "NotAnError is not an Exception"),
    ({"on": ()}, "on=(): nothing would be retried"),
    ({"on": None}, "on=None: NoneType names no failure"),
    ({"on": [ValueError]}, "list names no failure"),
    ({"on": "transient"}, "on='transient': str names no failure"),
    ({"on": acheck}, "a coroutine function cannot be asked here"),
    ({"retries": -1}, "retries=-1: not a count of retries; accepted: an int from 0 to 1000"),
    ({"retries": 1.0}, "retries=1.0"),
    ({"retries": True}, "retries=True"),
    ({"retries": None}, "retries=None"),
    ({"retries": 1_001}, "retries=1001"),
    ({"base": -0.1}, "base=-0.1: negative"),
    ({"base": "soon"}, "base='soon': expected a digit"),
    ({"base": 3.0}, "base=3.0: above cap=2.0; accepted: a duration up to cap"),
    ({"base": None}, "base=None"),
    ({"cap": "1 day"}, "cap='1 day'"),
    ({"cap": 0.1}, "base=0.2: above cap=0.1"),
    ({"factor": 0.5}, "factor=0.5: out of range; accepted: a number from 1 to 100"),
    ({"factor": float("inf")}, "factor=inf"),
    ({"jitter": 1.1}, 'jitter=1.1: out of range; accepted: a number from 0 to 1, or "full"'),
    ({"jitter": float("nan")}, "jitter=nan"),
    ({"jitter": "half"}, "jitter='half'"),
    ({"jitter": True}, "jitter=True"),
    ({"deadline": 0}, "deadline=0: zero"),
    ({"deadline": "5ms"}, "deadline='5ms': too short"),
    ({"budget": ""}, "budget='': not a name"),
    ({"budget": 5}, "budget=5"),
    ({"budget": "a\nb"}, "budget='a\\nb'"),
    ({"max_retry_after": -1}, "max_retry_after=-1: negative"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD, ids=lambda value: str(value).split(" at 0x")[0][:40])
def test_bad_arguments_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Retry(**{"on": transient, **arguments})
    assert message in str(caught.value)
    assert "; accepted: " in str(caught.value)


def test_on_has_no_default() -> None:
    with pytest.raises(TypeError, match="on"):
        Retry()  # type: ignore[call-arg]


def test_durations_may_have_any_form() -> None:
    policy = Retry(on=transient, base="200ms", cap=timedelta(seconds=3), deadline="1m")
    assert (policy.base, policy.cap, policy.deadline) == (0.2, 3.0, 60.0)


@pytest.mark.parametrize(("name", "arguments"), [("budget", {"name": ""}), ("tokens", {"tokens": -1})])
def test_bad_figures_of_a_budget_are_named(name: str, arguments: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"^{name}="):
        define_budget(**{"name": "test-bad", **arguments})


def test_a_policy_is_immutable_and_shows_itself() -> None:
    policy = Retry(on=(ConnectionError, transient), deadline=5)
    with pytest.raises(AttributeError, match="immutable"):
        policy.retries = 5
    with pytest.raises(AttributeError, match="immutable"):
        del policy.retries
    assert repr(policy) == (
        "Retry(on=(ConnectionError, transient), retries=3, base=0.2, cap=2.0, factor=2.0, jitter=0.3, deadline=5.0, "
        "budget='default', max_retry_after=30.0)"
    )
