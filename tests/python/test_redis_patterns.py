"""Pattern invalidation in Redis: many pages of a scan, keys with odd characters, stores that run meanwhile.

Thread rule: each test has a server of its own.
Refuses to know: what a glob matches (tests/cpp/remote/test_glob).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from outages import eventually, forget, patient
from served import RawRedis
from stillwarm._redis_server import RedisServer

pytestmark = pytest.mark.servers
BEGINNING = "stillwarm:{default}:"
COUNT = 100_000
ODD = [
    "odd:*", "odd:?", "odd:[a]", "odd:a]b", "odd:\\", "odd:a\\b", "odd: spaced", "odd:\n", "odd:\r\n", "odd:\t",
    "odd:%3A", "odd::", "odd:{x}", "odd:'", 'odd:"', "odd:é", "odd:\U0001f525", "odd:^", "odd:-", "odd:",
]  # fmt: skip
# Copies of an entry of this package's, under other keys.
FILL = """
local text = redis.call('GET', KEYS[1])
for n = 0, ARGV[1] - 1 do
  redis.call('SET', KEYS[2] .. (n % 2 == 0 and 'even:' or 'uneven:') .. n, text, 'PX', 600000)
  redis.call('SET', 'foreign:' .. n, 'x')
end
"""


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


def keys_of(raw: RawRedis, pattern: str) -> int:
    return int(raw("EVAL", "return #redis.call('KEYS', ARGV[1])", 0, pattern))


def test_redis_patterns_among_a_hundred_thousand_keys(redis: RedisServer) -> None:
    with patient(redis.url, timeout="20s") as one, RawRedis(redis.url) as raw:
        one.cache.set("template", 1)
        entries = f"{BEGINNING}e:direct:"
        raw("EVAL", FILL, 2, f"{entries}template", entries, COUNT // 2)
        assert raw("DBSIZE") > COUNT
        page = raw("SCAN", 0, "MATCH", f"{entries}even:*", "COUNT", 1000)[1]
        assert len(page) < COUNT // 4, "the control: who looks at one page misses the others"
        ends, stored = threading.Event(), []

        def store() -> None:
            with patient(redis.url, timeout="20s") as writer:
                n = 0
                while not ends.is_set():
                    assert writer.cache.set(f"even:new{n}", n)
                    stored.append(n)
                    n += 1

        thread = threading.Thread(target=store)
        thread.start()
        eventually(lambda: len(stored) > 20)
        before = len(stored)
        count = one.cache.invalidate(pattern="even:*")
        after = len(stored)
        eventually(lambda: len(stored) > after + 20)
        ends.set()
        thread.join()
        assert count is None or count >= COUNT // 4 + before
        assert keys_of(raw, f"{entries}even:[0-9]*") == 0
        assert keys_of(raw, f"{entries}uneven:*") == COUNT // 4
        assert keys_of(raw, "foreign:*") == COUNT // 2
        assert keys_of(raw, f"{entries}template") == 1
        forget(one.cache)
        old = one.cache.get_many([f"even:new{n}" for n in stored[:before]])
        assert old == {}, "stored before the call"
        new = {f"even:new{n}": n for n in stored[after + 2 :]}
        assert one.cache.get_many(list(new)) == new, "stored after it"


@pytest.mark.parametrize("odd", ODD)
def test_redis_patterns_of_odd_keys(redis: RedisServer, odd: str) -> None:
    with patient(redis.url) as one, patient(redis.url) as other:
        values = {key: n for n, key in enumerate(ODD)}
        one.cache.set_many(values)
        one.cache.set("even", 1)
        assert other.cache.get_many(ODD) == values
        exact = "".join(f"[{c}]" if c in "*?[" else c for c in odd)
        one.cache.invalidate(pattern=exact)
        eventually(lambda: other.cache.get(odd) is None)
        forget(other.cache)
        assert other.cache.get_many(ODD) == {key: n for key, n in values.items() if key != odd}
        one.cache.invalidate(pattern="odd:*")
        eventually(lambda: other.cache.get_many(ODD) == {})
        forget(other.cache)
        assert other.cache.get_many([*ODD, "even"]) == {"even": 1}


def test_redis_patterns_stop_loads_that_run(redis: RedisServer) -> None:
    with patient(redis.url) as one, patient(redis.url) as other:
        begun, go = threading.Event(), threading.Event()

        def slow(key: str) -> str:
            begun.set()
            assert go.wait(30)
            return "old"

        function = one.cache.cached(name="slow")(slow)
        thread = threading.Thread(target=lambda: function("k"))
        thread.start()
        assert begun.wait(30)
        other.cache.invalidate(pattern="slow:*")
        go.set()
        thread.join()
        one.written()
        assert other.cache.cached(name="slow")(lambda key: "new")("k") == "new"
