"""Durations and sizes that users give: every accepted form, and refusals that name argument, value and way out."""

from __future__ import annotations

import math
from datetime import timedelta

import pytest

from stillwarm._durations import duration, size
from stillwarm.errors import ConfigError

SECOND = 1_000_000_000


@pytest.mark.parametrize(
    ("value", "ns"),
    [
        (300, 300 * SECOND),
        (0.25, SECOND // 4),
        (0.3, 300_000_000),
        (timedelta(hours=1, microseconds=5), 3600 * SECOND + 5_000),
        ("300ms", 300_000_000),
        ("2h30m", 9_000 * SECOND),
        ("1.5s", 1_500_000_000),
        (0.01, 10_000_000),
        (36_525 * 86_400, 36_525 * 86_400 * SECOND),
    ],
)
def test_duration_accepts_every_form(value: object, ns: int) -> None:
    assert duration(value, "ttl") == ns


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (True, "a bool is not a duration"),
        (-1, "negative"),
        (-1e-12, "negative"),
        (timedelta(seconds=-1), "negative"),
        (math.nan, "not a number"),
        (math.inf, "longer than 100 years"),
        (1e300, "longer than 100 years"),
        (timedelta.max, "longer than 100 years"),
        ("36526d", "longer than 100 years"),
        (0, "zero"),
        (0.0, "zero"),
        ("0s", "zero"),
        (1e-12, "too short"),
        (0.0099, "too short"),
        ("9ms", "too short"),
        (timedelta(microseconds=1), "too short"),
        ("5 minutes", 'the number "5" has no unit'),
        ("5M", 'unknown unit "M"'),
        ("", "the text is empty"),
        ("\ud800", "surrogates"),
        (None, "NoneType is not a duration"),
        (b"5s", "bytes is not a duration"),
        ([5], "list is not a duration"),
    ],
)
def test_duration_refuses_and_says_why(value: object, reason: str) -> None:
    with pytest.raises(ConfigError) as caught:
        duration(value, "ttl")
    text = str(caught.value)
    assert text.startswith("ttl=")
    assert reason in text
    assert "accepted: seconds (int or float), timedelta, or text" in text
    assert "at least 10 ms" in text


def test_duration_zero_none_and_minimum_are_opened_by_name() -> None:
    assert duration(0, "ttl", allow_zero=True) == 0
    assert duration("0s", "ttl", allow_zero=True) == 0
    assert duration(None, "ttl", allow_none=True) is None
    assert duration("1ms", "base", minimum_ms=1) == 1_000_000
    with pytest.raises(ConfigError, match=r"too short; accepted: .* at least 10 ms, or 0, or None"):
        duration("5ms", "ttl", allow_zero=True, allow_none=True)


def test_an_int_too_long_to_be_shown_is_refused() -> None:
    with pytest.raises(ConfigError, match="ttl=<int>: longer than 100 years"):
        duration(10**5000, "ttl")


def test_a_repr_that_raises_does_not_hide_the_error() -> None:
    class Broken:
        def __repr__(self) -> str:
            raise RuntimeError

    with pytest.raises(ConfigError, match="ttl=<Broken>: Broken is not a duration"):
        duration(Broken(), "ttl")


@pytest.mark.parametrize(("value", "count"), [(1, 1), (65_536, 65_536), ("64KB", 65_536), ("1.5gb", 3 << 29)])
def test_size_accepts_ints_and_texts(value: object, count: int) -> None:
    assert size(value, "max_bytes") == count


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (0, "not positive"),
        ("0KB", "not positive"),
        (-1, "not positive"),
        (True, "bool is not a size"),
        (1.5, "float is not a size"),
        (None, "NoneType is not a size"),
        (2**63, "larger than"),
        ("8388608TB", "larger than"),
        ("1 MB", "unexpected"),
    ],
)
def test_size_refuses_and_says_why(value: object, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason) as caught:
        size(value, "max_bytes")
    assert str(caught.value).startswith("max_bytes=")
    assert 'accepted: a positive number of bytes (int), or text like "64KB"' in str(caught.value)
