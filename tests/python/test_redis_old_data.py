"""Redis comes back with data of before, or with none: only misses, never a value that was invalidated.

Thread rule: each test has servers of its own.
Refuses to know: other faults (test_redis_errors), marks that are evicted (test_redis_evicted).
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from chaos import ChaosProxy
from outages import SECRET, Shared, eventually, forget, is_of, patient
from stillwarm._redis_server import RedisServer
from tiers import with_port

pytestmark = pytest.mark.servers
PREFIX = "stillwarm:{default}:"


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


class Snapshot:
    """What the server had at a moment, to be started with again."""

    def __init__(self, server: RedisServer) -> None:
        self.server = server
        server.command("SAVE")
        shutil.copy2(server.folder / "dump.rdb", server.folder / "before.rdb")

    def would_be_served(self, part: str) -> bool:
        """The control, on a server of its own: whether a reader who asks the marks alone would serve the entry."""
        with RedisServer() as scratch:
            scratch.kill()
            shutil.copy2(self.server.folder / "before.rdb", scratch.folder / "dump.rdb")
            scratch.start()
            return naive_judge(scratch, entry_of(scratch, part))

    def come_back(self) -> None:
        self.server.kill()
        shutil.copy2(self.server.folder / "before.rdb", self.server.folder / "dump.rdb")
        self.server.start()


def naive_judge(server: RedisServer, entry: str) -> bool:
    text = server.command("GET", entry)
    if text is None:
        return False
    marks = server.command("HGETALL", PREFIX + "m")
    fields = dict(zip(marks[::2], marks[1::2], strict=True))
    born = int(text[9:21])
    numbers = [int(v) for name, v in fields.items() if name in ("all", "f", "t") or name.startswith("type:")]
    return bool(text[1:9] == fields.get("i") and all(number <= born for number in numbers))


def entry_of(server: RedisServer, part: str) -> str:
    return next(str(name) for name in server.command("KEYS", PREFIX + "e:*") if part in name)


INTENTS: dict[str, Callable[[Shared], Any]] = {
    "key": lambda one: one.cache.invalidate(key="get:'k'"),
    "tag": lambda one: one.cache.invalidate(tag="t"),
    "type": lambda one: one.cache.invalidate(type="default"),
    "pattern": lambda one: one.cache.invalidate(pattern="get:*"),
    "all": lambda one: one.cache.invalidate(all=True),
}


@pytest.mark.parametrize("intent", INTENTS)
def test_redis_old_data_has_nothing_that_was_invalidated_since(redis: RedisServer, intent: str) -> None:
    with patient(redis.url, tags=["t"]) as one, patient(redis.url, tags=["t"]) as other:
        old = one.get("k")
        one.written()
        assert other.get("k") == old
        before = Snapshot(redis)
        INTENTS[intent](one)
        assert before.would_be_served("'k'")
        before.come_back()
        with patient(redis.url, tags=["t"]) as third:  # the first to come has invalidated nothing
            assert third.get("k") != old
        for process in (other, one):
            assert process.get("k") != old
            assert process.fresh("k") != old


def test_redis_old_data_of_a_durable_server_after_a_clean_restart_is_refused_as_well(redis: RedisServer) -> None:
    """Nobody can tell what was lost from what was not: a restart costs misses."""
    with RedisServer(durable=True) as durable, patient(durable.url) as one:
        old = one.get("k")
        one.written()
        durable.restart()
        eventually(one.cache.confirm)
        assert durable.command("EXISTS", entry_of(durable, "'k'")) == 1
        assert one.fresh("k") != old
        one.written()
        kept = one.get("k")
        assert one.fresh("k") == kept, "and it is stored and found again"


def test_redis_old_data_gives_numbers_away_twice(redis: RedisServer) -> None:
    """A load that began before the crash has a number that by then means something later."""
    with patient(redis.url) as one, patient(redis.url) as other:
        one.cache.set("d", 1)
        one.written()
        before = Snapshot(redis)
        for n in range(20):
            one.cache.set("d", n)
        calls: list[str] = []

        def slow(key: str) -> str:
            calls.append(key)
            if len(calls) == 1:
                before.come_back()
                eventually(other.cache.confirm)
                other.cache.invalidate(key="slow:'k'")
                for n in range(30):  # beyond where the load began
                    other.cache.set("e", n)
            return f"slow{len(calls)}"

        get = one.cache.cached(name="slow")(slow)
        assert get("k") == "slow1"
        one.written()
        assert other.cache.cached(name="slow")(lambda key: "new")("k") == "new"


def test_redis_old_data_is_seen_by_a_process_that_slept(redis: RedisServer) -> None:
    """The counter has passed by what it knows when it asks again: a number alone says that nothing was missed."""
    with patient(redis.url) as one, patient(redis.url) as other:
        old = one.get("k")
        one.written()
        assert other.get("k") == old
        before = Snapshot(redis)
        one.cache.invalidate(key="get:'k'")
        eventually(other.cache.confirm)
        before.come_back()
        with patient(redis.url) as third:
            for n in range(50):
                third.cache.set("x", n)
        forget(one.cache)
        assert one.get("k") != old
        assert other.get("k") != old


# -------------------------------------------------------------------------------------------- no right to ask for INFO


def without_info(redis: RedisServer) -> str:
    redis.command("ACL", "SETUSER", "app", "on", f">{SECRET}", "~*", "&*", "+@all", "-info")
    return redis.url.replace("redis://", f"redis://app:{SECRET}@")


def test_redis_old_data_without_the_right_to_info_a_counter_that_goes_back_says_it(redis: RedisServer) -> None:
    url = without_info(redis)
    with patient(url) as one, patient(url) as other:
        old = one.get("k")
        one.written()
        assert other.get("k") == old
        before = Snapshot(redis)
        for n in range(5):
            one.cache.set("d", n)
        one.cache.invalidate(key="get:'k'")
        eventually(lambda: other.cache.confirm() and other.get("k") != old)
        before.come_back()
        without_info(redis)
        eventually(lambda: one.cache.confirm() and one.health["circuit"] == "closed")
        assert one.fresh("k") != old
        eventually(lambda: other.cache.confirm() and other.health["circuit"] == "closed")
        assert other.fresh("k") != old


# --------------------------------------------------------------------------------------------------- two masters


def test_redis_old_data_an_invalidation_that_only_the_old_master_took_is_repeated(
    chaos: Callable[..., ChaosProxy],
) -> None:
    at_once = {"repl-diskless-sync-delay": "0"}
    with RedisServer(settings=at_once) as first, RedisServer(settings=at_once) as second:
        way = chaos(first.port)
        url = with_port(first.url, way.port)
        with patient(url) as one:
            one.cache.set("d", 1)
            one.written()
            second.command("REPLICAOF", "127.0.0.1", first.port)
            eventually(lambda: "master_link_status:up" in second.command("INFO", "replication"))
            second.command("REPLICAOF", "NO", "ONE")
            with patient(second.url) as other:
                old = other.get("k")
                other.written()
                one.cache.invalidate(key="get:'k'")  # the master that is cut off takes it
                assert one.health["owed_invalidations"] == 0
                assert other.cache.confirm()
                assert other.fresh("k") == old, "the control: the new master was not told"
                way._target = second.port
                way.end_all()
                eventually(lambda: one.cache.confirm())
                eventually(lambda: other.get("k") != old, what="the process said it once more")
                assert other.fresh("k") != old
                assert one.fresh("k") != old


# ------------------------------------------------------------------------------------------------- FLUSHALL, SCRIPT


def test_redis_old_data_flushall_costs_misses(redis: RedisServer) -> None:
    with patient(redis.url, tags=["t"]) as one, patient(redis.url, tags=["t"]) as other:
        for round_ in range(5):
            key = f"k{round_}"
            first = one.get(key)
            one.written()
            assert other.get(key) == first
            redis.command("FLUSHALL")
            one.cache.invalidate(tag="t")
            eventually(lambda key=key, first=first: other.get(key) != first)  # type: ignore[misc]
            assert is_of(one.get(key), key)
            assert one.get(key) != first
        assert one.cache.stats().remote_errors == other.cache.stats().remote_errors == 0


def test_redis_old_data_scripts_that_the_server_forgot_are_sent_again(redis: RedisServer) -> None:
    with patient(redis.url) as one:
        for n in range(5):
            redis.command("SCRIPT", "FLUSH")
            first = one.get(f"k{n}")
            one.written()
            redis.command("SCRIPT", "FLUSH", "SYNC")
            one.cache.set("d", n)
            one.cache.invalidate(key=f"get:'k{n}'")
            assert one.get(f"k{n}") != first
            assert one.cache.get("d") == n
        assert one.cache.stats().remote_errors == 0
