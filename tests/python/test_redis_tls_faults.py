"""Faults of a TLS connection to Redis: silence in the handshake and after it, cuts at every byte, forks, exit.

Thread rule: one thread; what may hang runs in a child or has a deadline.
Refuses to know: who is believed (test_redis_tls).
"""

from __future__ import annotations

import contextlib
import signal
import socket
import ssl
import threading
from collections.abc import Callable, Iterator

import pytest

from certificates import Authority, with_tls
from chaos import ChaosProxy
from outages import answers, connecting, eventually, in_child, is_of, patient, shared
from reliability import remote
from served import Served
from stillwarm import State
from stillwarm._redis_server import RedisServer
from stillwarm._redis_tls import RedisTls
from stillwarm.errors import TierError, TierTimeout, TierUnavailable
from tiers import with_port

pytestmark = pytest.mark.servers


@pytest.fixture
def redis(authority: Authority) -> Iterator[RedisServer]:
    with RedisServer(tls=authority.issue()) as server:
        yield server


class Answering:
    """Accepts connections, sends what it is told to one byte at a time, and says nothing more."""

    def __init__(self, text: bytes) -> None:
        self._text = text
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self._taken: list[socket.socket] = []
        self.accepted = threading.Semaphore(0)
        self.closing = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def port(self) -> int:
        port: int = self._listener.getsockname()[1]
        return port

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                taken, _ = self._listener.accept()
                self._taken.append(taken)
                threading.Thread(target=self._serve, args=(taken,), daemon=True).start()
                self.accepted.release()

    def _serve(self, taken: socket.socket) -> None:
        with contextlib.suppress(OSError):
            for byte in self._text:
                taken.sendall(bytes([byte]))
                if self.closing.wait(0.02):
                    return

    def __enter__(self) -> Answering:
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        for one in (self._listener, *self._taken):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()


# -------------------------------------------------------------------------------------------------- in the handshake

# A handshake record of 16 KB, of which one byte comes every 20 ms: each read brings something, for five minutes.
SLOW = b"\x16\x03\x03\x40\x00\x02\x00\x3f\xfc\x03\x03" + b"\x00" * 16_000


@with_tls
@pytest.mark.parametrize("text", [b"", SLOW], ids=["silent", "slow"])
def test_redis_tls_faults_a_server_that_does_not_end_the_handshake(authority: Authority, text: bytes) -> None:
    with Answering(text) as server:
        url = f"rediss://127.0.0.1:{server.port}/0?{RedisTls(True, authority.file).text}"
        with shared(url, connect_timeout="200ms", timeout="250ms") as one:
            assert is_of(one.get("k"), "k")
            with pytest.raises((TierTimeout, TierUnavailable)):
                one.cache.check()
            assert server.accepted.acquire(timeout=30)
            eventually(lambda: one.cache.state is State.DOWN)
            assert one.cache._tier is not None
            said = str(one.cache._tier.cause_of(TierUnavailable("")))
            assert "no answer to the TLS handshake within the timeout" in said
        # The control: a client without a deadline is still waiting.
        context = RedisTls(True, authority.file).context()
        naive = socket.create_connection(("127.0.0.1", server.port))
        ended = threading.Event()

        def wait() -> None:
            with contextlib.suppress(OSError, ssl.SSLError):
                context.wrap_socket(naive, server_hostname="127.0.0.1")
            ended.set()

        waiting = threading.Thread(target=wait, daemon=True)
        waiting.start()
        assert not ended.wait(1.0)
    assert ended.wait(30)
    waiting.join()
    naive.close()


@with_tls
def test_redis_tls_faults_garbage_in_the_handshake(redis: RedisServer, chaos: Callable[..., ChaosProxy]) -> None:
    way = chaos(redis.port)
    with patient(with_port(redis.url, way.port)) as one:
        for garbage in (b"+OK\r\n" * 10, b"\x16\x03\x03\x00\x02ab", b"\x15\x03\x03\x00\x02\x02\x28", b"\x00" * 500):
            way.behave(garbage=garbage)
            way.end_all("reset")
            with pytest.raises(TierError):
                one.cache.check()
            way.behave()
            eventually(lambda: answers(one))
        one.cache.check()


@with_tls
def test_redis_tls_faults_a_handshake_cut_at_bytes_all_over(
    redis: RedisServer, chaos: Callable[..., ChaosProxy]
) -> None:
    way = chaos(redis.port)
    with patient(with_port(redis.url, way.port)) as one:
        for n, after in enumerate([0, 1, 3, 5, 6, 80, 127, 128, 200, 500, 800, 1_000]):
            way.behave(cut_after=after, end=("fin", "reset")[n % 2])
            way.end_all("reset")
            with pytest.raises(TierError):
                one.cache.check()
            way.behave()
            eventually(lambda: answers(one))


# ------------------------------------------------------------------------------------------------------- afterwards


@with_tls
def test_redis_tls_faults_a_frozen_server(redis: RedisServer) -> None:
    with shared(redis.url, connect_timeout="5s") as one:
        eventually(lambda: answers(one))
        redis.freeze()
        assert is_of(one.get("new"), "new")
        with pytest.raises(TierError):
            one.cache.check()
        redis.thaw()
        eventually(lambda: answers(one))


@with_tls
def test_redis_tls_faults_a_look_up_cut_at_bytes_all_over(redis: RedisServer, chaos: Callable[..., ChaosProxy]) -> None:
    """No value in part, and none of another key: a miss, and the next one works."""
    way = chaos(redis.port)
    with patient(redis.url) as writer, patient(with_port(redis.url, way.port), connections=1) as one:
        for i in range(12):
            writer.get(f"k{i}")
        writer.written()
        for after in (*range(0, 30, 3), *range(30, 400, 37)):
            eventually(lambda: answers(one))
            for end in ("fin", "reset"):
                way.behave(cut_after=after, end=end)
                key = f"k{after % 12}"
                assert is_of(one.fresh(key), key)
                way.behave()


@with_tls
def test_redis_tls_faults_one_byte_at_a_time(redis: RedisServer, chaos: Callable[..., ChaosProxy]) -> None:
    way = chaos(redis.port)
    way.behave(chunk=1)
    with (
        patient(with_port(redis.url, way.port), connect_timeout="20s", timeout="20s") as one,
        patient(redis.url) as other,
    ):
        first = one.get("k")
        one.written()
        assert other.get("k") == first
        eventually(lambda: "sub=2" in redis.command("CLIENT", "LIST", "TYPE", "pubsub"))
        other.cache.invalidate(key="get:'k'")
        eventually(lambda: one.get("k") != first, what="records that come in parts are messages, too")


@with_tls
def test_redis_tls_faults_messages_come_at_once_and_nobody_waits_for_them(redis: RedisServer) -> None:
    """What is readable under TLS may be no message (tickets, keys): the listener goes on."""
    with patient(redis.url, max_lag="10m") as one, patient(redis.url) as other:
        first = one.get("k")
        one.written()
        eventually(lambda: "sub=2" in redis.command("CLIENT", "LIST", "TYPE", "pubsub"))
        for _ in range(5):
            before = one.get("k")
            other.cache.invalidate(tag="unrelated")
            other.cache.invalidate(key="get:'k'")
            eventually(lambda before=before: one.get("k") != before, what="by message")  # type: ignore[misc]
            one.written()
        assert one.get("k") != first
        entry = redis.command("KEYS", "stillwarm:*:e:*")[0]
        before = one.get("k")
        one.written()
        redis.command("DEL", entry)
        eventually(lambda: one.get("k") != before, what="by tracking")


@with_tls
def test_redis_tls_faults_signals_while_a_reply_is_waited_for(
    redis: RedisServer, chaos: Callable[..., ChaosProxy]
) -> None:
    """An interrupted read goes on; one whose connection is lost just then ends, and does not try for ever."""
    way = chaos(redis.port)
    heard: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda *_: heard.append(1))
    main, done = threading.main_thread(), threading.Event()

    def interrupt() -> None:
        assert main.ident is not None
        while not done.wait(0.001):
            signal.pthread_kill(main.ident, signal.SIGUSR1)

    thread = threading.Thread(target=interrupt)
    try:
        with patient(with_port(redis.url, way.port), connections=1) as one:
            thread.start()
            for i in range(200):
                assert is_of(one.fresh(f"k{i % 20}"), f"k{i % 20}")
                if i % 40 == 39:
                    way.end_all("fin" if i % 80 == 39 else "reset")
            eventually(lambda: answers(one))
    finally:
        done.set()
        thread.join()
        signal.signal(signal.SIGUSR1, before)
    assert heard


# ------------------------------------------------------------------------------------------------------ fork and exit


@with_tls
@pytest.mark.forks
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_redis_tls_faults_children_of_forks_in_the_middle_of_handshakes(redis: RedisServer) -> None:
    """Connections are made all the time while it forks; every child makes its own, and the parent's go on."""
    with patient(redis.url) as one:
        first = one.get("k")
        one.written()
        with connecting(redis.url, threads=3):
            for _ in range(20):
                assert in_child(lambda: one.get("k") == first and is_of(one.fresh("c"), "c") and one.cache.set("d", 1))
        assert one.fresh("k") == first
        assert one.health["reconnects"] == 0


@with_tls
@pytest.mark.parametrize("how", remote.EXITS)
def test_redis_tls_faults_exit_with_the_tier_in_use(redis: RedisServer, how: str) -> None:
    """OpenSSL cleans up when a process ends, and threads may be inside it then."""
    ended = remote.exit_of(how, Served("redis", redis))
    assert ended.ok, ended
    assert ended.errors == ""
    assert ended.after_last_line < 10, "no order of magnitude above a second"
