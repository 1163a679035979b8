"""Foreign writers: who deletes, overwrites or expires an entry in Redis by hand is heard of by client tracking.

Thread rule: each test has a server of its own.
Refuses to know: this package's own messages (test_tier_invalidation).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from chaos import ChaosProxy
from outages import SECRET, Shared, eventually, is_of, patient
from stillwarm._redis_server import RedisServer
from tiers import with_port

pytestmark = pytest.mark.servers
BEGINNING = "stillwarm:{default}:"
ENTRY = BEGINNING + "e:default:get:'k'"


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    with RedisServer(settings={"databases": "16"}) as server:  # it looks at 16 a time for what has expired
        yield server


@pytest.fixture
def one(redis: RedisServer) -> Iterator[Shared]:
    """Warm, and hearing."""
    with patient(redis.url) as one:
        one.get("k")
        one.written()
        eventually(lambda: tracked(redis))
        yield one


def tracked(redis: RedisServer) -> bool:
    return "tracking_clients:1" in redis.command("INFO", "clients")


OTHER_TYPE = "redis.call('DEL', KEYS[1]) redis.call('LPUSH', KEYS[1], 1)"
WRITES: dict[str, Callable[[RedisServer], object]] = {
    "DEL": lambda redis: redis.command("DEL", ENTRY),
    "UNLINK": lambda redis: redis.command("UNLINK", ENTRY),
    "SET": lambda redis: redis.command("SET", ENTRY, "a value of another program"),
    "SET empty": lambda redis: redis.command("SET", ENTRY, ""),
    "APPEND": lambda redis: redis.command("SETRANGE", ENTRY, 0, "7"),
    "EXPIRE": lambda redis: redis.command("PEXPIRE", ENTRY, 30),
    "RENAME": lambda redis: redis.command("RENAME", ENTRY, "elsewhere"),
    "another type": lambda redis: redis.command("EVAL", OTHER_TYPE, 1, ENTRY),
    "FLUSHDB": lambda redis: redis.command("FLUSHDB"),
    "FLUSHALL": lambda redis: redis.command("FLUSHALL"),
}  # fmt: skip


@pytest.mark.parametrize("write", WRITES)
def test_redis_foreign_writers_are_seen(redis: RedisServer, one: Shared, write: str) -> None:
    first = one.get("k")
    assert one.get("k") == first
    WRITES[write](redis)
    eventually(lambda: one.get("k") != first, what=write)
    assert is_of(one.get("k"), "k")


def test_redis_foreign_writers_are_not_seen_by_polls_alone(redis: RedisServer) -> None:
    """The control: what nobody counted is in no list of messages."""
    redis.command("ACL", "SETUSER", "app", "on", f">{SECRET}", "~*", "&*", "+@all", "-client|tracking")
    url = redis.url.replace("redis://", f"redis://app:{SECRET}@")
    with patient(url) as one, patient(redis.url) as other:
        first = one.get("k")
        one.written()
        assert other.get("k") == first
        redis.command("DEL", ENTRY)
        eventually(lambda: other.get("k") != first)
        polls = one.health["polls"]
        eventually(lambda: one.get("k") and one.health["polls"] > polls + 2)
        assert one.get("k") == first, "nobody told it"
        other.cache.invalidate(key="get:'k'")
        eventually(lambda: one.get("k") != first, what="what this package does is heard of by polls")


def test_redis_foreign_writers_before_anybody_listens(redis: RedisServer, chaos: Callable[..., ChaosProxy]) -> None:
    """What this process stored, or found there, before its first subscription: looked at when that begins."""
    way, gate = chaos(redis.port), threading.Event()
    way.behave(at=b"\r\n$2\r\nID\r\n", between=lambda: gate.wait(60) and None)
    found = BEGINNING + "e:default:get:'found'"
    with patient(redis.url) as other:
        theirs = other.get("found")
        other.written()
        with patient(with_port(redis.url, way.port)) as one:
            mine = one.get("k")
            one.written()
            assert one.get("found") == theirs
            redis.command("DEL", ENTRY, found)
            assert (one.get("k"), one.get("found")) == (mine, theirs), "nobody told it"
            gate.set()
            eventually(lambda: one.get("k") != mine and one.get("found") != theirs)


@pytest.mark.parametrize("end", ["fin", "reset"])
def test_redis_foreign_writers_while_the_link_is_cut(
    redis: RedisServer, chaos: Callable[..., ChaosProxy], end: str
) -> None:
    """What was told while nobody listened is unknown: everything is asked for again."""
    way = chaos(redis.port)
    with patient(with_port(redis.url, way.port)) as one:
        for round_ in range(4):
            first = one.get("k")
            one.written()
            eventually(lambda: tracked(redis))
            way.behave(refuse=True)
            way.end_all(end)  # type: ignore[arg-type]
            eventually(lambda: not tracked(redis))
            redis.command("DEL", ENTRY)
            way.behave()
            eventually(lambda first=first: one.get("k") != first, what=str(round_))  # type: ignore[misc]


def test_redis_foreign_writers_while_the_link_is_silent(redis: RedisServer, chaos: Callable[..., ChaosProxy]) -> None:
    """Half open: the subscription gives no sign of life, and is given up."""
    way = chaos(redis.port)
    with patient(with_port(redis.url, way.port), timeout="1s") as one:
        first = one.get("k")
        one.written()
        eventually(lambda: tracked(redis))
        for connection in list(way.connections):
            connection.end("silence")
        redis.command("DEL", ENTRY)
        eventually(lambda: one.get("k") != first)


def test_redis_foreign_loads_of_others_concern_nobody(redis: RedisServer, one: Shared) -> None:
    """Most messages are of loads that were stored: memory stays."""
    first = one.get("k")
    with patient(redis.url) as other:
        for n in range(50):
            other.get(f"other{n}")
        other.written()
        assert one.cache.confirm()
        assert one.get("k") == first
        assert one.load.calls == ["k"]
        assert other.get("k") == first
