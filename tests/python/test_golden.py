"""Stored formats outlive a release: today's code reads what was written once, and writes the same bytes.

The data in `golden/` were written by the release that introduced their format, whose number is in their names, and are
never written again: a change of a format gets a new number and a new file, and the old one stays readable or is seen
to be a counted miss.

Thread rule: one thread.
Refuses to know: why a format is as it is (cpp/core/codec/envelope.hpp, cpp/core/remote/redis_scripts.hpp).
"""

from __future__ import annotations

from typing import Any

import pytest

from golden_values import ENVELOPES, KEYS, PAYLOADS, codec_of, equal, golden
from stillwarm import _core, _keys, _schema

_CASES = [(codec, name) for codec, payloads in PAYLOADS.items() for name in payloads]


def test_golden_files_hold_what_is_looked_for() -> None:
    assert golden("payloads-1").keys() == PAYLOADS.keys()
    assert all(golden("payloads-1")[codec].keys() == PAYLOADS[codec].keys() for codec in PAYLOADS)
    assert golden("keys-1").keys() == KEYS.keys()
    assert golden("envelopes-1").keys() == ENVELOPES.keys()


# ---------------------------------------------------------------------------------------------------------- payloads


@pytest.mark.parametrize(("codec", "name"), _CASES)
def test_golden_payloads_are_read(codec: str, name: str) -> None:
    kept = golden("payloads-1")[codec][name]
    reader = codec_of(codec)
    assert reader.matches(kept["codec"])
    back = reader.decode(bytes.fromhex(kept["bytes"]))
    assert equal(back, PAYLOADS[codec][name])


@pytest.mark.parametrize(("codec", "name"), [one for one in _CASES if one[0] != "signed"])
def test_golden_payloads_are_written(codec: str, name: str) -> None:
    kept = golden("payloads-1")[codec][name]
    writer = codec_of(codec)
    assert writer.id == kept["codec"]
    assert writer.encode(PAYLOADS[codec][name]).hex() == kept["bytes"]


def test_golden_signatures_are_written() -> None:
    """What is signed is CPython's, and may differ; the signature of the same bytes may not."""
    for kept in golden("payloads-1")["signed"].values():
        payload = bytes.fromhex(kept["bytes"])
        writer: Any = codec_of("signed")
        assert writer.id == kept["codec"]
        assert writer._signature(writer._keys[0], payload[32:]) == payload[:32]


# -------------------------------------------------------------------------------------------------------------- keys


@pytest.mark.parametrize("name", KEYS)
def test_golden_keys_are_written(name: str) -> None:
    assert _keys.readable("scope", KEYS[name], strict=True) == golden("keys-1")[name]


# --------------------------------------------------------------------------------------------------------- envelopes


@pytest.mark.parametrize("name", ENVELOPES)
def test_golden_envelopes_are_read(name: str) -> None:
    kept = bytes.fromhex(golden("envelopes-1")[name])
    namespace, key, payload, codec, negative, durations, _ = ENVELOPES[name]
    rounded = tuple(one if one >= 2**62 else -(-one // 1_000_000) * 1_000_000 for one in durations)
    assert _core.open_envelope(namespace, key, kept, 8 << 20) == (0, codec, negative, rounded, payload)
    # The control: another key, and one bit less.
    assert _core.OPENED[_core.open_envelope(namespace, key + "x", kept, 8 << 20)[0]] == "wrong_key"
    cut = kept[:-1] + bytes([kept[-1] ^ 1])
    assert _core.OPENED[_core.open_envelope(namespace, key, cut, 8 << 20)[0]] == "damaged"


@pytest.mark.parametrize("name", ENVELOPES)
def test_golden_envelopes_are_written(name: str) -> None:
    kept = bytes.fromhex(golden("envelopes-1")[name])
    made = _core.seal(*ENVELOPES[name])
    is_compressed = bool(kept[3] & 1)
    assert is_compressed == (name == "compressed")
    if is_compressed:  # another zstd may make another frame of the same bytes; the header is ours
        header = 2 + 1 + 1 + 1 + 8
        assert made[:header] == kept[:header]
        namespace, key = ENVELOPES[name][:2]
        assert _core.open_envelope(namespace, key, made, 8 << 20) == _core.open_envelope(namespace, key, kept, 8 << 20)
    else:
        assert made == kept


# -------------------------------------------------------------------------------------------------------- PostgreSQL


def test_golden_tables_are_those_of_their_version() -> None:
    """Another layout needs another SCHEMA_VERSION, and a step that brings the old one forward."""
    kept = golden(f"tables-{_schema.SCHEMA_VERSION}")
    assert tables() == kept


def tables() -> dict[str, Any]:
    """stillwarm's own tables: columns with their types, keys, indexes."""
    from stillwarm import _layouts

    return {
        one.name: {
            "columns": [[c.name, c.type, c.not_null, c.default] for c in one.columns],
            "primary_key": list(one.primary_key),
            "indexes": [[i.name, list(i.columns), i.method, i.where] for i in one.indexes],
        }
        for one in _layouts.own()
    }
