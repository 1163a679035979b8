"""A set that the tier could not take: this process has it from then on, also while what the tier has is older.

Thread rule: the proxy's thread holds the tier's own attempt back while the test reads.
Refuses to know: what else is owed (tests/cpp/remote/test_recovery.cpp).
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from chaos import ChaosProxy
from stillwarm import Cache, _core
from tiers import PATIENCE, Ground, eventually, with_port

READS: dict[str, Callable[[Cache], Any]] = {
    "get": lambda cache: cache.get("k"),
    "aget": lambda cache: asyncio.run(cache.aget("k")),
    "get_many": lambda cache: cache.get_many(["k", "other"]).get("k"),
    "get_or_set": lambda cache: cache.get_or_set("k", lambda: 2),  # loads, if it has nothing that it may return
    "add": lambda cache: 1 if cache.add("k", 3) else 2,
}


@pytest.fixture
def cache(redis_ground: Ground, chaos: Callable[..., ChaosProxy]) -> Iterator[Cache]:
    """Its tier has 1 under "k" and answers; a set of 2 waits, whose sending is held back."""
    ground = redis_ground
    assert ground.url is not None
    proxy = chaos(int(ground.url.split(":")[2].split("/")[0]))
    options: dict[str, Any] = {"timeout": "5s", "connect_timeout": "5s", "purge_every": None, "jitter": 0.0, "ttl": 600}
    cache = Cache(with_port(ground.url, proxy.port), namespace=ground.namespace, **options)
    ground.caches.append(cache)
    cache.set("k", 1)
    assert cache._tier is not None
    core = cache._tier.core
    eventually(lambda: core.health()["linked"])
    proxy.behave(refuse=True)
    proxy.end_all("fin")
    cache.set("k", 2)
    assert core.health()["owed_writes"] == 1
    assert cache.get("k") == 2, "memory has it"
    once, gate, held = threading.Lock(), threading.Event(), threading.Event()

    def hold_the_first() -> None:
        if once.acquire(blocking=False):
            held.set()
            gate.wait(PATIENCE)

    proxy.behave(at=b"$3\r\nset\r\n", between=hold_the_first)
    try:
        assert held.wait(PATIENCE), "nothing was sent"
        eventually(lambda: core.health()["linked"])
        eventually(cache.confirm)
        yield cache
    finally:
        gate.set()
    eventually(lambda: core.health()["owed_writes"] == 0)


@pytest.mark.parametrize("read", READS)
def test_redis_owed_set_is_not_hidden_by_what_the_tier_has(cache: Cache, read: str) -> None:
    assert READS[read](cache) == 2
    assert READS[read](cache) == 2


@pytest.mark.parametrize("later", ["set", "delete"])
def test_redis_owed_set_ends_with_what_the_tier_took_since(cache: Cache, later: str) -> None:
    """What waits is older than that."""
    if later == "set":
        cache.set("k", 3)
    else:
        cache.delete("k")
    _core.clear(cache, -1)  # memory has nothing to say
    assert cache.get("k") == (3 if later == "set" else None)
