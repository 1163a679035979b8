"""A lease taken along by a look-up that finds a value: somebody deleted that between two commands of one pipeline.

Thread rule: the proxy's thread deletes while the reader waits for its answer.
Refuses to know: what leases are for (test_tier_fleet).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from chaos import ChaosProxy
from stillwarm import Cache, _tier_loads
from tiers import Counted, Ground, eventually, function, with_port


@pytest.mark.parametrize("calm", [True, False])
def test_redis_lease_taken_beside_a_value_is_given_back(
    redis_ground: Ground, chaos: Callable[..., ChaosProxy], monkeypatch: pytest.MonkeyPatch, calm: bool
) -> None:
    monkeypatch.setattr(_tier_loads, "LEASE_AGE", 600 * 10**9)  # nor does it end by itself
    ground, loads = redis_ground, Counted()
    assert function(ground.cache(), loads, scope="fleet")() == "k#1"
    ground.written()
    assert ground.url is not None
    proxy = chaos(int(ground.url.split(":")[2].split("/")[0]))
    options: dict[str, Any] = {"timeout": "20s", "connect_timeout": "20s", "purge_every": None, "jitter": 0.0}
    cache = Cache(with_port(ground.url, proxy.port), namespace=ground.namespace, **options)
    ground.caches.append(cache)
    f = function(cache, loads, scope="fleet")
    assert cache._tier is not None
    for n in range(2):
        cache.get(f"nothing {n}")
    assert cache._tier.reader.calm
    if not calm:
        cache._tier.reader.end_calm()
    seen: list[int] = []

    def delete() -> None:
        for entry in ground.redis("KEYS", ground.entries):
            ground.redis("DEL", entry)
        seen.append(len(ground.leases()))

    proxy.behave(at=f"{{{ground.namespace}}}:x:".encode(), between=delete)
    assert f() == "k#1", "it was read before it was deleted"
    assert seen == [0], "it was deleted before the lease was asked for"
    eventually(lambda: not ground.leases(), "a lease that nobody needs was not given back")
