"""Redis evicts what holds the marks: nothing that was invalidated comes back; and nothing that is kept there grows.

Thread rule: each test has a server of its own.
Refuses to know: figures; `trust.py --part redis` prints them.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from outages import forget, patient
from reliability import redis_run
from served import RawRedis
from stillwarm._redis_server import RedisServer

pytestmark = pytest.mark.servers
BEGINNING = "stillwarm:{default}:"


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.mark.parametrize("policy", [None, *redis_run.POLICIES])
def test_redis_evicted_marks_bring_nothing_back(policy: str | None) -> None:
    for seed in range(7, 27):  # which keys the server takes is its own choice
        seen = redis_run.run(redis_run.Ours, 1_500, seed, policy)
        assert seen.wrong == 0, str(seen)
        assert seen.hits > 50, "it caches all the same"
        if seen.evicted or policy == "allkeys-lru":
            break
    # What is used all the time is hardly ever the least recently used: that it is evicted is nothing to rely on.
    assert seen.evicted > 0 or policy == "allkeys-lru", "and marks were evicted"


def test_redis_evicted_marks_of_a_naive_cache_bring_values_back() -> None:
    seen = redis_run.run(redis_run.Naive, 1_500, 7)
    assert seen.wrong > 0
    assert seen.evicted > 0


def test_redis_evicted_tags_are_kept_in_two_generations(redis: RedisServer) -> None:
    """A full one takes the other's place; what was tagged before is not believed any more, and nothing comes back."""
    with patient(redis.url) as one, patient(redis.url) as other, RawRedis(redis.url) as raw:
        load, versions = one.load, {"n": 0}

        def version(key: int) -> int:
            return versions["n"]

        mine = one.cache.cached(name="v", tags=lambda key: [f"tag{key}"])(version)
        theirs = other.cache.cached(name="v", tags=lambda key: [f"tag{key}"])(version)
        mine(0)
        one.written()
        raw("HSET", f"{BEGINNING}m", "most", 20)
        rotations, generation = 0, raw("HGET", f"{BEGINNING}m", "g")
        for n in range(300):
            key = n % 60
            forget(other.cache)
            theirs(key)
            other.written()
            versions["n"] += 1
            one.cache.invalidate(tag=f"tag{key}", stale=False)
            forget(other.cache)
            assert theirs(key) == versions["n"]
            now = raw("HGET", f"{BEGINNING}m", "g")
            rotations += now != generation
            generation = now
            assert raw("HLEN", f"{BEGINNING}t1") <= 20 + 3
            assert raw("HLEN", f"{BEGINNING}t2") <= 20 + 3
        assert rotations > 10
        assert load.calls == []


def test_redis_evicted_nothing_grows(redis: RedisServer) -> None:
    """Invalidations, tags, leases, flushes, types: as many keys and bytes after the tenth round as after the second."""
    with patient(redis.url) as one, RawRedis(redis.url) as raw:
        one.get("k")
        one.written()
        raw("HSET", f"{BEGINNING}m", "most", 100)
        fleet = one.cache.cached(name="fleet", scope="fleet", ttl=60)(lambda n: n)
        serial = iter(range(10**9))

        def a_round() -> None:
            for n in range(250):
                number = next(serial)
                one.cache.invalidate(tag=f"tag{number}")
                one.cache.invalidate(key=f"get:'k{number}'")
                one.cache.set(f"d{n % 20}", number, tags=[f"tag{number}"])
                if n % 10 == 0:
                    one.cache.invalidate(pattern=f"p{number}*")
                    fleet(n % 20)
                    one.cache.invalidate(key=f"fleet:{n % 20}")
            one.cache._flush_hits()
            one.written()

        def size() -> tuple[int, int]:
            raw("MEMORY", "PURGE")
            used = int(raw("INFO", "memory").split("used_memory_dataset:")[1].split()[0])
            return raw("DBSIZE"), used

        for _ in range(2):
            a_round()
        keys, used = size()
        for _ in range(8):
            a_round()
        more_keys, more_used = size()
        assert more_keys <= keys + 2, raw("KEYS", "*")
        # The list of messages fills until it has 10,000, of fewer than 100 bytes each; nothing else may grow.
        log = raw("LLEN", f"{BEGINNING}l")
        assert log <= 10_064
        assert more_used - used < 1_500_000


def test_redis_evicted_only_the_marks_live_for_ever(redis: RedisServer) -> None:
    with patient(redis.url, tags=["t"]) as one, RawRedis(redis.url) as raw:
        for n in range(20):
            one.get(f"k{n}")
        one.cache.set("for ever", 1, ttl=None)
        one.cache.set("a while", 1, ttl=30)
        one.cache.cached(name="fleet", scope="fleet")(lambda: 1)()
        one.cache.invalidate(tag="t")
        one.cache.check()
        for _ in range(3):
            one.get("k1")
        one.cache._flush_hits()
        one.written()
        cursor, names = "0", []
        while True:
            cursor, some = raw("SCAN", cursor, "COUNT", 100)
            names += some
            if cursor == "0":
                break
        assert len(names) > 20
        lasting = {name for name in names if raw("TTL", name) == -1}
        allowed = {f"{BEGINNING}{name}" for name in ("m", "l", "t1", "t2")}
        assert lasting - allowed == {f"{BEGINNING}e:direct:for ever"}
