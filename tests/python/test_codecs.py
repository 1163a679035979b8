"""Codecs without a declared type: whatever goes in comes back with its types, or is named with the path to it.

Thread rule: one test uses a codec from several threads.
Refuses to know: tiers. Envelopes are tested where they are made (tests/cpp/codec); here only their way through Python.
"""

from __future__ import annotations

import collections
import datetime as dt
import decimal
import os
import subprocess
import sys
import threading
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coding import (
    AT,
    BOTH,
    OFFER,
    PARIS,
    Colour,
    Foo,
    Level,
    Offer,
    Point,
    Price,
    back,
    same,
)
from stillwarm import _core, codecs
from stillwarm.codecs import Codec, codec_for
from stillwarm.errors import CodecError

PATHS = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
FIXED = settings(derandomize=True, max_examples=100, deadline=None)

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(),
    st.text(),
    st.binary(max_size=20),
)
PLAIN = st.recursive(SCALARS, lambda s: st.lists(s, max_size=4) | st.dictionaries(st.text(max_size=5), s, max_size=4))
ZONES = st.sampled_from(
    [
        None,
        dt.timezone.utc,
        dt.timezone(dt.timedelta(hours=-3, minutes=7)),
        dt.timezone(dt.timedelta(hours=1), "X"),
        PARIS,
    ]
)
HASHABLE = st.one_of(
    SCALARS,
    st.integers(),
    st.text(st.characters(), max_size=5),
    st.decimals(allow_nan=False) | st.just(decimal.Decimal("NaN")),
    st.uuids(),
    st.datetimes(timezones=ZONES),
    st.dates(),
    st.times(timezones=ZONES),
    st.timedeltas(),
)


@st.composite
def frozen(draw: st.DrawFn, depth: int = 2) -> Any:
    if depth == 0:
        return draw(HASHABLE)
    part = frozen(depth - 1)
    return draw(st.one_of(HASHABLE, st.tuples(part, part), st.frozensets(part, max_size=3)))


@st.composite
def anything(draw: st.DrawFn, depth: int = 3) -> Any:
    if depth == 0:
        return draw(frozen())
    part = anything(depth - 1)
    return draw(
        st.one_of(
            frozen(),
            st.lists(part, max_size=3),
            st.tuples(part),
            st.dictionaries(frozen(), part, max_size=3),
            st.dictionaries(st.text(max_size=3) | st.just("$stillwarm"), part, max_size=3),
            st.sets(frozen(), max_size=3),
        )
    )


@BOTH
@FIXED
@given(value=PLAIN)
def test_codecs_plain_data_comes_back(name: str, value: Any) -> None:
    assert same(back(codec_for(name), value), value)


@BOTH
@FIXED
@given(value=anything())
def test_codecs_everything_untyped_comes_back_with_its_types(name: str, value: Any) -> None:
    assert same(back(codec_for(name), value), value)


def test_codecs_the_comparison_of_these_tests_would_notice() -> None:
    """The control of the two tests above."""
    utc = dt.datetime(2024, 1, 1, tzinfo=dt.timezone.utc)
    for a, b in [
        ((1,), [1]),
        (1, True),
        (1, 1.0),
        ({"a": (1,)}, {"a": [1]}),
        (utc, utc.astimezone(PARIS)),
        (decimal.Decimal("1.0"), decimal.Decimal("1.00")),
        ({1}, frozenset({1})),
        ({1: 2}, {"1": 2}),
    ]:
        assert not same(a, b)


@FIXED
@given(value=anything())
def test_codecs_is_plain_agrees_with_msgspec(value: Any) -> None:
    try:
        kept = same(msgspec.msgpack.decode(msgspec.msgpack.encode(value)), value)
    except (TypeError, ValueError, OverflowError, msgspec.MsgspecError):
        kept = False
    plain = _core.is_plain(value)
    assert not plain or kept
    # msgspec keeps a few things more: keys that are no text, and its own timestamps.
    if kept and not plain:
        assert type(value) in (dict, list, dt.datetime)


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (2**64 - 1, True),
        (2**64, False),
        (-(2**63), True),
        (-(2**63) - 1, False),
        ("\ud800", False),
        ("日本😀", True),
        ({"\udfff": 1}, False),
        ({1: 1}, False),
        (Level.LOW, False),
        ((), False),
        (bytearray(b"x"), False),
        (collections.OrderedDict(a=1), False),
        (Point(1), False),
        (float("nan"), True),
    ],
)
def test_codecs_is_plain_takes_exact_types_only(value: Any, plain: bool) -> None:
    assert _core.is_plain(value) is plain
    assert _core.is_plain([{"deep": [value]}]) is plain


@pytest.mark.parametrize("value", [b"x", float("nan"), float("-inf"), {"$stillwarm": 1}, {"a": [b""]}], ids=repr)
def test_codecs_is_plain_for_json_is_narrower(value: Any) -> None:
    assert _core.is_plain(value)
    assert not _core.is_plain(value, True)
    assert _core.is_plain([{"$other": 1.5, "$still": "$stillwarm"}], True)


def test_codecs_is_plain_runs_no_python_code() -> None:
    class Loud(str):
        def __hash__(self) -> int:
            raise AssertionError

        def __eq__(self, other: object) -> bool:
            raise AssertionError

    assert not _core.is_plain([Loud("x")])


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


@BOTH
def test_codecs_depth_is_bounded(name: str) -> None:
    codec = codec_for(name)
    assert _core.is_plain(nested(99))
    assert not _core.is_plain(nested(100))
    assert back(codec, nested(200)) == nested(200)
    loop: list[Any] = []
    loop.append(loop)
    for value in (nested(100_000), loop):
        with pytest.raises(CodecError, match="nested too deeply, or contains itself"):
            codec.encode(value)


@BOTH
@pytest.mark.parametrize(
    ("value", "path", "thing"),
    [
        (Foo(), "value", "a coding.Foo"),
        ({"items": [1, 2, 3, Foo()]}, "value['items'][3]", "a coding.Foo"),
        ((1, [Offer]), "value[1][0]", "a type"),
        ({"a": {("k", 1): {Colour.RED}}}, "value['a'][('k', 1)]{...}", "a coding.Colour"),
        ({"a": {Level.LOW: 1}}, "value['a'].keys()[0]", "a coding.Level"),
        ({"p": Price(decimal.Decimal(1))}, "value['p']", "a coding.Price"),
        ([Point(1)], "value[0]", "a coding.Point"),
        ({"o": collections.OrderedDict()}, "value['o']", "a collections.OrderedDict"),
        ([3j], "value[0]", "a complex"),
    ],
)
def test_codecs_an_unknown_class_is_named_with_its_path(name: str, value: Any, path: str, thing: str) -> None:
    with pytest.raises(CodecError) as caught:
        codec_for(name).encode(value)
    assert str(caught.value) == (
        f"{path}: {thing} cannot be stored in a remote tier; give the function a return annotation or decode_as=..."
    )


@BOTH
def test_codecs_numbers_that_equal_nothing_come_back(name: str) -> None:
    for text in ("sNaN", "-NaN123", "-0", "1E+999999", "-Infinity"):
        assert str(back(codec_for(name), decimal.Decimal(text))) == text
    assert [repr(x) for x in back(codec_for(name), [float("nan"), float("-inf"), -0.0])] == ["nan", "-inf", "-0.0"]


def test_codecs_an_unknown_time_zone_is_named() -> None:
    class Zone(dt.tzinfo):
        def utcoffset(self, at: dt.datetime | None) -> dt.timedelta:
            return dt.timedelta(0)

    with pytest.raises(CodecError, match=r"value\['at'\]: a time whose tzinfo is a .*Zone cannot be stored"):
        codec_for().encode({"at": dt.datetime(2024, 1, 1, tzinfo=Zone())})


def test_codecs_a_repeated_hour_keeps_its_fold_and_its_zone() -> None:
    for fold in (0, 1):
        at = dt.datetime(2024, 10, 27, 2, 30, tzinfo=PARIS, fold=fold)
        got = back(codec_for(), at)
        assert (got.utcoffset(), got.fold, got.tzinfo) == (at.utcoffset(), fold, PARIS)


# ------------------------------------------------------------------------------------------------------------- the rest


def test_codecs_are_used_by_many_threads() -> None:
    value = {"a": (1, {"b": AT}), "c": [OFFER.id] * 5}
    wrong: list[object] = []

    def work(codec: Codec) -> None:
        for _ in range(300):
            got = back(codec, value)
            if not same(got, value):
                wrong.append(got)

    threads = [threading.Thread(target=work, args=(codec_for(name),)) for name in ("msgpack", "json") * 3]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_codecs_an_envelope_comes_through_python() -> None:
    payload = codec_for().encode([1] * 3000)
    durations = (5_000_000_000, 1_000_000, 0, _core.FOREVER)
    stored = _core.seal("app", "score:1", payload, 1, True, durations, 1024)
    assert len(stored) < len(payload)
    assert _core.open_envelope("app", "score:1", stored, 1 << 26) == (0, 1, True, durations, payload)
    for space, key, text, most, status in [
        ("app", "score:2", stored, 1 << 26, "wrong_key"),
        ("app2", "score:1", stored, 1 << 26, "wrong_key"),
        ("app", "score:1", stored[:-1], 1 << 26, "damaged"),
        ("app", "score:1", b"{}", 1 << 26, "unknown"),
        ("app", "score:1", stored, 100, "too_large"),
    ]:
        answer = _core.open_envelope(space, key, text, most)
        assert (_core.OPENED[answer[0]], *answer[1:]) == (status, 0, False, (0, 0, 0, 0), b"")


def test_codecs_are_imported_only_by_those_who_use_them() -> None:
    code = (
        "import sys, stillwarm\n"
        "print([m for m in ('msgspec', 'pydantic', 'stillwarm.codecs') if m in sys.modules])\n"
        "from stillwarm import codecs\n"
        "print([m for m in ('msgspec', 'pydantic') if m in sys.modules])\n"
        "codecs.codec_for('msgpack', dict[str, int])\n"
        "print('pydantic' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=PATHS, check=False)
    assert (done.stdout, done.stderr) == ("[]\n[]\nFalse\n", "")


def test_codecs_a_missing_msgspec_is_named_with_the_way_to_get_it() -> None:
    code = "import sys; sys.modules['msgspec'] = None\nfrom stillwarm import codecs\ncodecs.codec_for()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=PATHS, check=False)
    assert "pip install 'stillwarm[postgres]'" in done.stderr.splitlines()[-1]


def test_codecs_public_names() -> None:
    assert codecs.__all__ == ["Codec", "OwnCodec", "codec_for", "register", "signed_pickle"]
