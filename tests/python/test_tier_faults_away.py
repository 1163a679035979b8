"""The tier is away, frozen or slow: calls go on with what there is, in time, and it is used when it is back.

Thread rule: each test has a server or a proxy of its own.
Refuses to know: figures; `trust.py --part remote` prints them. Bounds here are those that a busy machine keeps.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from chaos import ChaosProxy
from outages import DEADLINE, Shared, answers, at_once, eventually, is_of, shared, timed
from served import Served
from stillwarm import State

pytestmark = pytest.mark.servers
Make = Callable[..., ChaosProxy]
GENEROUS = 10 * DEADLINE


@contextlib.contextmanager
def unwatched(call: Callable[[], Any]) -> Iterator[threading.Thread]:
    """A naive client's call, on a thread that may wait for as long as it likes."""
    thread = threading.Thread(target=lambda: timed(call), daemon=True)
    thread.start()
    yield thread


def goes_on(one: Shared, keys: range) -> None:
    """Every call returns its loader's value in time."""
    for n in keys:
        value, took = timed(one.get, f"k{n}")
        assert is_of(value, f"k{n}")
        assert took < GENEROUS
    assert len(one.load.calls) >= len(keys)


def healthy_again(one: Shared, within: float = 30.0) -> None:
    """By itself: first the tier answers, then the share of failures falls."""
    eventually(lambda: answers(one) and one.health["circuit"] == "closed", within)
    one.written()
    assert one.cache._tier is not None
    one.cache._tier._recent.clear()  # the failures of the last 10 s, as if those were over
    eventually(lambda: one.cache.confirm() and one.cache.state is State.HEALTHY, within, str(one.health))


# ------------------------------------------------------------------------------------- not started, refused, backlog


def test_tier_faults_a_server_that_is_not_started(server: Served) -> None:
    server.stop()
    begun = time.monotonic()
    with shared(server.url) as one:
        assert time.monotonic() - begun < GENEROUS, "the constructor waits for nobody"
        goes_on(one, range(20))
        assert one.cache.state is State.DOWN
        assert one.cache.set("direct", 1)
        assert one.cache.get("direct") == 1
        server.start()
        healthy_again(one)
        other = Shared(server.url, timeout="20s")
        assert other.cache.get("direct") == 1, "what was set meanwhile was recovered"
        other.cache.close()


def test_tier_faults_refused_connections(server: Served, chaos: Make) -> None:
    proxy = chaos(server.port)
    proxy.behave(refuse=True)
    with pytest.raises(server.naive_error):
        server.naive(server.through(proxy))
    with shared(server.through(proxy)) as one:
        goes_on(one, range(20))
        proxy.behave()
        healthy_again(one)


def test_tier_faults_a_server_that_accepts_nobody(server: Served, chaos: Make) -> None:
    full = chaos(server.port, accept=False)
    with (
        unwatched(lambda: server.naive(server.through(full)).__enter__()(server.ask)) as naive,
        shared(server.through(full)) as one,
    ):
        goes_on(one, range(6))
        assert at_once([lambda n=n: is_of(one.get(f"t{n}"), f"t{n}") for n in range(8)]) == [True] * 8  # type: ignore[misc]
        eventually(lambda: one.cache.state is State.DOWN)
        assert naive.is_alive(), "a client without a deadline waits"
    full.close()
    naive.join()


def test_tier_faults_nobody_listens_and_nothing_is_lost(server: Served) -> None:
    with shared(server.nobody()) as one:
        goes_on(one, range(3))
        _, took = timed(one.get, "k-again")
        assert took < GENEROUS
        assert one.health["connections"] == 0
        assert one.cache.state is State.DOWN


# ------------------------------------------------------------------------------------------------------------- frozen


def test_tier_faults_a_frozen_server(server: Served) -> None:
    with server.naive() as raw, shared(server.url) as one:
        one.get("warm")
        one.written()
        server.freeze()
        with unwatched(lambda: raw(server.ask)) as naive:
            goes_on(one, range(20))
            assert one.health["circuit"] != "closed", "the breaker opens"
            assert one.cache.state is State.DOWN
            _, took = timed(lambda: [one.get(f"open{n}") for n in range(50)])
            assert took < GENEROUS, "an open circuit costs nothing"
            assert is_of(one.get("warm"), "warm")
            assert naive.is_alive(), "a client without a deadline waits"
            server.thaw()
            naive.join()
        healthy_again(one)


def test_tier_faults_frozen_for_many_threads_at_once(server: Served) -> None:
    with shared(server.url) as one:
        one.get("warm")
        server.freeze()
        for round_ in range(3):
            begun = time.monotonic()
            calls = [lambda key=f"{round_}-{n}": is_of(one.get(key), key) for n in range(16)]  # type: ignore[misc]
            assert at_once(calls) == [True] * 16  # type: ignore[arg-type]
            assert time.monotonic() - begun < GENEROUS, "they wait beside each other, not after each other"
        server.thaw()
        healthy_again(one)


# The greeting is about 400 bytes, the answer to the first statement 100 more.
@pytest.mark.parametrize("after", [0, 1, 9, 200, 330, 420, 450])
def test_tier_faults_half_open_while_it_connects(server: Served, chaos: Make, after: int) -> None:
    proxy = chaos(server.port)
    proxy.behave(cut_after=after, end="silence")
    with shared(server.through(proxy)) as one:
        goes_on(one, range(3))
        eventually(lambda: proxy.faults > 0)
        proxy.connections[:] = [c for c in proxy.connections if c.faults == 0]  # those that are silent stay silent
        with proxy._lock:
            proxy._behaviour = type(proxy._behaviour)()
        healthy_again(one)


@pytest.mark.parametrize("after", [0, 5, 60])
def test_tier_faults_half_open_in_a_reply(server: Served, chaos: Make, after: int) -> None:
    proxy = chaos(server.port)
    with shared(server.through(proxy), connections=1) as one:
        one.get("warm")
        one.written()
        silent: list[Any] = []
        for turn in range(20):  # a busy machine may have given a connection up before it falls silent
            silent = list(proxy.connections)
            for connection in silent:
                connection.behave(cut_after=after, end="silence")
            goes_on(one, range(6 * turn, 6 * turn + 6))
            if any(connection.faults for connection in silent):
                break
        assert any(connection.faults for connection in silent)
        healthy_again(one)
        assert one.cache._check_invariants()


# --------------------------------------------------------------------------------------------------------------- slow


def test_tier_faults_one_byte_at_a_time(server: Served, chaos: Make) -> None:
    proxy = chaos(server.port)
    proxy.behave(chunk=1)
    with shared(server.through(proxy), timeout="5s") as one:
        eventually(lambda: answers(one))  # what is loaded while the tables are made may be refused: nobody knows when
        one.load.calls.clear()
        first = one.get("k")
        one.written()
        assert one.fresh("k") == first
        assert one.load.calls == ["k"], "whole, and read from the tier"


def test_tier_faults_bytes_that_drip_past_the_deadline(server: Served, chaos: Make) -> None:
    proxy = chaos(server.port)
    with shared(server.through(proxy)) as one:
        one.get("k0")
        one.written()
        proxy.behave(chunk=1, delay=0.05)  # each byte in time, the whole reply not: a timeout per read never ends
        goes_on(one, range(1, 12))
        proxy.behave()
        healthy_again(one)


def test_tier_faults_a_slow_network(server: Served, chaos: Make) -> None:
    proxy = chaos(server.port)
    with shared(server.through(proxy)) as one:
        one.get("k0")
        proxy.behave(delay=3.0)
        goes_on(one, range(1, 12))
        assert one.cache.state is State.DOWN
        proxy.behave()
        healthy_again(one)
