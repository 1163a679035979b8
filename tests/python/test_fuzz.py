"""Short runs of the fuzzers, each with the naive subject that it must find out; `trust.py --part fuzz` has long ones.

Thread rule: one thread.
Refuses to know: what must hold (reliability/fuzz.py).
"""

from __future__ import annotations

from reliability import fuzz

SEED = 20261127


def test_fuzz_envelopes_are_what_was_sealed_or_nothing() -> None:
    assert fuzz.envelopes(50_000, SEED).wrong == []
    assert fuzz.envelopes(500, SEED, fuzz.NaiveEnvelope).wrong


def test_fuzz_texts_of_keys_are_equal_for_equal_arguments_alone() -> None:
    assert fuzz.keys(20_000, SEED).wrong == []
    assert fuzz.keys(2_000, SEED, fuzz.naive_key).wrong


def test_fuzz_fields_that_forbid_it_keep_an_answer_out_of_the_store() -> None:
    assert fuzz.headers(3_000, SEED).wrong == []
    assert fuzz.headers(100, SEED, fuzz.naive_front).wrong
