"""The layout of a namespace in Redis outlives a release: today's code reads what was written once, and writes the same.

What is random or a time is masked: the incarnation, versions, the process, the run of the server, when a value is
fresh until.

Thread rule: one thread.
Refuses to know: what the keys mean (cpp/core/remote/redis_scripts.hpp).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from golden_values import golden
from outages import eventually
from rows_alike import row
from stillwarm import Cache
from stillwarm._redis_server import RedisServer

NAMESPACE = "golden"
PREFIX = f"stillwarm:{{{NAMESPACE}}}:"


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture
def cache(redis: RedisServer) -> Iterator[Cache]:
    with made(redis) as cache:
        yield cache


def made(redis: RedisServer) -> Cache:
    return Cache(
        redis.url, namespace=NAMESPACE, timeout="20s", connect_timeout="20s", purge_every=None, ttl=None, jitter=0.0
    )


def functions(cache: Cache, load: Callable[[str], Any]) -> Callable[[str], Any]:
    cache.define("a type:50%", ttl="3000d", tags=lambda asin: ["of a function", asin])
    function: Callable[[str], Any] = cache.cached("a type:50%", name="shop.price")(load)
    return function


def fill(cache: Cache) -> None:
    """Every kind of entry and of mark, in an order that gives each the same number each time."""
    assert cache._tier is not None
    cache.invalidate(all=True)
    cache.invalidate(all=True, stale=True)
    cache.set("plain", {"a": [1, 2.5, None]})
    cache.set("tagged", "kept", tags=["blue", "with:colon, grüß"])
    cache.set("dead", "was invalidated", tags=["red"])
    cache.set("timed", b"bytes", ttl="3000d")
    cache.set("long", "a row of a table, " * 400)
    price = functions(cache, lambda asin: f"price of {asin}")
    for asin in ("B07", "B08"):
        price(asin)
        assert cache._tier.core.drain(20_000_000_000)
    cache.invalidate(tag="red")
    cache.invalidate(tag="B08", stale=True)
    cache.define("another type", ttl="1h")
    cache.invalidate(type="another type")
    cache.invalidate(key="a key")
    cache.invalidate(pattern="nothing*")
    for _ in range(3):
        assert cache.get("plain")
    cache._flush_hits()


def contents(redis: RedisServer) -> dict[str, Any]:
    """All keys of the namespace, as JSON has them; bytes as hex."""
    found: dict[str, Any] = {}
    for key in sorted(redis.command("KEYS", PREFIX + "*")):
        name = key.encode("latin-1").decode()
        kind = redis.command("TYPE", name)
        if kind == "string":
            value: Any = redis.command("GET", name).encode("latin-1").hex()
        elif kind == "hash":
            told = redis.command("HGETALL", name)
            value = {_text(field): _text(one) for field, one in sorted(zip(told[::2], told[1::2], strict=True))}
        elif kind == "list":
            value = [_text(one) for one in redis.command("LRANGE", name, 0, -1)]
        else:
            told = redis.command("ZRANGE", name, 0, -1, "WITHSCORES")
            value = {_text(member): _text(score) for member, score in zip(told[::2], told[1::2], strict=True)}
        found[name.removeprefix(PREFIX)] = {"type": kind, "ends": redis.command("PTTL", name) > 0, "value": value}
    return found


def _text(answer: str) -> str:
    return answer.encode("latin-1").decode()


def masked(found: dict[str, Any]) -> str:
    """As text, without what is another one each time."""
    marks = found["m"]["value"]
    text = repr({name: one for name, one in found.items() if not name.startswith(("e:#dictionary", "f:"))})
    text = text.replace(marks["i"].encode().hex(), "<incarnation>").replace(repr(marks["i"]), "'<incarnation>'")
    text = text.replace(marks["r"], "<run>")
    text = re.sub(r"('@[^']*': ')\d+'", r"\1<time>'", text)
    (process,) = {message.split("\0")[0] for message in found["l"]["value"]}
    text = text.replace(process, "<process>")
    return re.sub(r"'value': '31<incarnation>\w+'", _without_times, text)


def _without_times(match: re.Match[str]) -> str:
    before, _, head_and_body = match[0].partition("<incarnation>")
    data = bytes.fromhex(head_and_body[:-1])  # born 12, version 12, fresh until 14, fresh for 14, bytes of tags 5
    until = b"<time>" if data[24:38] != b"99999999999999" else data[24:38]
    shown = data[:12] + b"<version>" + until + data[38:]
    if b"\xc5\x57" in shown:  # a compressed body is zstd's; what stands before it is ours
        at = shown.index(b"\xc5\x57")
        if shown[at + 3] & 1:
            shown = shown[: at + 16]
    return f"{before}<incarnation>{shown!r}"


def load(redis: RedisServer, kept: dict[str, Any]) -> None:
    """As if this server had written them, in this life."""
    run = re.search(r"run_id:(\w+)", redis.command("INFO", "server"))
    assert run is not None
    for name, one in kept.items():
        key, value = PREFIX + name, one["value"]
        if one["type"] == "string":
            redis.command("SET", key, bytes.fromhex(value), *(["EX", 86_400 * 365] if one["ends"] else []))
        elif one["type"] == "hash":
            fields = {**value, "r": run[1]} if name == "m" else value
            redis.command("HSET", key, *(word for pair in fields.items() for word in pair))
        elif one["type"] == "list":
            redis.command("RPUSH", key, *value)
        else:
            redis.command("ZADD", key, *(word for member, score in value.items() for word in (score, member)))


def unavailable(_: str) -> Any:
    raise ConnectionError("the source is away")


def test_golden_redis_namespace_is_read(redis: RedisServer) -> None:
    load(redis, golden("redis-1"))
    with made(redis) as cache:
        assert cache.get("plain") == {"a": [1, 2.5, None]}
        assert cache.get("tagged") == "kept"
        assert cache.get("timed") == b"bytes"
        assert cache.get("long") == "a row of a table, " * 400
        price = functions(cache, unavailable)
        assert price("B07") == "price of B07"
        assert cache.get("dead") is None, "its mark is read, too"
        assert price("B08") == "price of B08", "marked stale: it stands in for an error"
        assert cache.stats().tier["undecodable"] == {}
        cache.invalidate(tag="blue")  # what was written then is invalidated today
        assert cache.get("tagged") is None
        with made(redis) as other:
            assert other.get("tagged") is None
            assert other.get("plain") == {"a": [1, 2.5, None]}
        hot = {one.key: one.hits for one in cache.top(10)}
        assert hot["plain"] >= 3


def test_golden_redis_namespace_of_another_incarnation_is_not_read(redis: RedisServer) -> None:
    """The control: the same bytes, and marks that are another's."""
    kept = golden("redis-1")
    kept["m"]["value"]["i"] = "ANOTHERi"
    load(redis, kept)
    with made(redis) as cache:
        assert cache.get("plain") is None
        assert functions(cache, lambda _: "loaded anew")("B07") == "loaded anew"


def test_golden_redis_namespace_is_written(redis: RedisServer, cache: Cache) -> None:
    fill(cache)
    eventually(lambda: redis.command("ZCARD", PREFIX + "h") > 0)
    assert masked(contents(redis)) == masked(golden("redis-1"))


def test_golden_redis_value_with_a_dictionary_is_read(redis: RedisServer) -> None:
    """A value of 200 bytes, compressed with a dictionary that is kept beside it."""
    load(redis, golden("redis-dictionary-1"))
    with made(redis) as cache:
        assert cache.get("with a dictionary") == row(77)
        told = cache.stats().tier
        assert told["undecodable"] == {}
        assert told["compression"]["fetched"] == 1
    redis.command("DEL", *(PREFIX + name for name in golden("redis-dictionary-1") if "#dictionary" in name))
    with made(redis) as cache:  # the control
        assert cache.get("with a dictionary") is None
        assert cache.stats().tier["undecodable"] == {"no_dictionary": 1}
