"""Named circuit breakers from outside: the registry, Prometheus, OpenTelemetry.

Thread rule: one thread; other processes are children that fork.
Refuses to know: how a circuit opens (test_breaker), and the figures of caches (test_metrics, test_otel_figures).
"""

from __future__ import annotations

import gc
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from guarding import Source, opened
from stillwarm import Cache, CircuitBreaker, ConfigError, metrics
from stillwarm.breaker import breakers
from stillwarm.errors import CircuitOpen
from stillwarm.otel import instrument

pytestmark = pytest.mark.usefixtures("warm_clock")


def test_breaker_names_are_those_of_the_living() -> None:
    prices, _ = CircuitBreaker(name="prices"), CircuitBreaker()
    assert breakers() == {"prices": prices}
    with pytest.raises(ConfigError, match="name='prices': another breaker has it; accepted: a name that no living"):
        CircuitBreaker(name="prices")
    assert breakers() == {"prices": prices}
    del prices
    assert breakers() == {}
    CircuitBreaker(name="prices")


def test_breaker_name_of_garbage_is_free() -> None:
    old = CircuitBreaker(name="prices")
    cycle: list[Any] = [old]
    cycle.append(cycle)  # as of an app that was made for a test
    gc.disable()
    try:
        del old, cycle
        assert CircuitBreaker(name="prices").state == "closed"
    finally:
        gc.enable()


def shown(body: bytes) -> dict[tuple[str, str], float]:
    found = re.findall(r'^stillwarm_breaker_(\w+)\{breaker="(\w+)"\} (\S+)$', body.decode(), re.MULTILINE)
    return {(name, breaker): float(value) for name, breaker, value in found}


def test_breaker_metrics_by_name(warm_cache: Cache, warm_clock: Any) -> None:
    prices, shop, nameless = opened(name="prices"), CircuitBreaker(name="shop"), opened()
    for breaker in (prices, prices, nameless):
        with pytest.raises(CircuitOpen):
            breaker.call(Source().ask)
    of_shop = {("state", "shop"): 0, ("opened_total", "shop"): 0, ("refused_total", "shop"): 0}
    assert shown(metrics.render(warm_cache)[0]) == {
        ("state", "prices"): 2,
        ("opened_total", "prices"): 1,
        ("refused_total", "prices"): 2,
        **of_shop,
    }
    warm_clock.move("2s")
    assert shown(metrics.render(warm_cache)[0])["state", "prices"] == 1
    del prices, breaker
    assert shown(metrics.render(warm_cache)[0]) == of_shop
    assert shop.state == "closed"


WORKERS = """
import json, logging, os, sys
logging.disable()
from stillwarm import Cache, CircuitBreaker, metrics
cache, other = Cache(namespace="shop"), Cache(namespace="other")
prices = CircuitBreaker(name="prices", consecutive=1)
metrics.register(cache); metrics.register(other)
def down(): raise ConnectionError
def use(refused):
    for _ in range(1 + refused):
        try: prices.call(down)
        except Exception: pass
use(10)
metrics.flush()
for refused in (200, 3000):
    pid = os.fork()
    if pid == 0:
        use(refused); metrics.flush(); os._exit(0)
    os.waitpid(pid, 0)
print(metrics.render(cache)[0].decode())
"""


@pytest.mark.forks
def test_breaker_metrics_of_forked_workers_are_added_up_exactly(tmp_path: Path) -> None:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", WORKERS]
    done = subprocess.run(command, capture_output=True, env=env, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert shown(done.stdout) == {
        ("state", "prices"): 2,
        ("opened_total", "prices"): 3,
        ("refused_total", "prices"): 3210,
    }


def points(reader: InMemoryMetricReader) -> list[tuple[str, float]]:
    data = json.loads(reader.get_metrics_data().to_json())  # type: ignore[union-attr]
    return sorted(
        (metric["name"], point["value"])
        for resource in data["resource_metrics"]
        for scope in resource["scope_metrics"]
        for metric in scope["metrics"]
        for point in metric["data"]["data_points"]
        if point["attributes"].get("breaker") == "prices"
    )


def test_breaker_opentelemetry_tells_once_however_many_caches_report() -> None:
    one, two = Cache(namespace="one"), Cache(namespace="two")
    reader, another = InMemoryMetricReader(), InMemoryMetricReader()
    meters = MeterProvider([reader], shutdown_on_exit=False)
    elsewhere = MeterProvider([another], shutdown_on_exit=False)
    end_one, end_two = instrument(one, meters), instrument(two, meters)
    end_three = instrument(two, elsewhere)
    prices = opened(name="prices")
    expected = [("stillwarm.breaker_opened", 1), ("stillwarm.breaker_refused", 0), ("stillwarm.breaker_state", 2)]
    assert prices.state == "open"
    assert points(reader) == expected
    assert points(another) == expected
    end_one()
    assert points(reader) == expected, "the next cache goes on"
    end_two()
    assert points(another) == expected
    end_three()
