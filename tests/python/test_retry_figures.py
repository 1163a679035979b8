"""Retries and their budgets from outside: Prometheus, added up over processes, and OpenTelemetry.

Thread rule: one thread; other processes are children that fork.
Refuses to know: when a call is tried again (test_retry), and how the core counts (test_retried).
"""

from __future__ import annotations

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
from prometheus_client import CollectorRegistry, generate_latest

from stillwarm import Cache, CircuitBreaker, Retry, metrics, retry, retry_stats
from stillwarm._retry import define_budget
from stillwarm.otel import instrument
from stillwarm.testing import without_waiting


def shown(body: bytes, of: str) -> dict[str, float]:
    """The samples of one policy or budget; given_up by its reason."""
    found = re.findall(r"^stillwarm_retry_(\w+)\{([^}]*)\} (\S+)$", body.decode(), re.MULTILINE)
    told = {}
    for name, text, value in found:
        labels = dict(re.findall(r'(\w+)="([^"]*)"', text))
        if of in (labels.get("policy"), labels.get("budget")):
            told[f"{name} {labels.get('reason', '')}".strip()] = float(value)
    return told


def failing(times: int) -> Any:
    """A function that fails so many times, then succeeds."""
    left = [times]

    def ask() -> str:
        if left[0]:
            left[0] -= 1
            raise ConnectionError("away")
        return "here"

    return ask


def test_retry_metrics_are_the_figures_of_each_policy(warm_cache: Cache) -> None:
    policy = Retry(ConnectionError, retries=2, base=0.5, jitter=0, budget=None, name="prices")
    with without_waiting():
        for times in (0, 0, 1, 2):
            policy.call(failing(times))
        for error, match in ((ConnectionError, "away"), (ValueError, "wrong")):
            with pytest.raises(error, match=match):
                policy.call(failing(9) if error is ConnectionError else int, *(["wrong"] * (error is ValueError)))
    stats = retry_stats()["prices"]
    assert (stats.calls, stats.retries) == (6, 5)
    assert shown(metrics.render(warm_cache)[0], "prices") == {
        "calls_total": 6,
        "succeeded_total": 4,
        "recovered_total": 2,
        "failures_total": 1 + 2 + 3 + 1,
        "attempts_total": 5,
        "wait_seconds_total": 0.5 + (0.5 + 1) + (0.5 + 1),
        "given_up_total retries exhausted": 1,
        "given_up_total not transient": 1,
    }


def test_retry_metrics_tell_what_is_left_of_a_budget(warm_cache: Cache) -> None:
    define_budget("shop", tokens=3, per_success=0.5)
    policy = Retry(ConnectionError, retries=5, budget="shop", name="of the shop")
    with without_waiting():
        assert shown(metrics.render(warm_cache)[0], "shop") == {"budget_tokens": 3, "budget_max_tokens": 3}
        policy.call(failing(2))
        assert shown(metrics.render(warm_cache)[0], "shop") == {"budget_tokens": 1.5, "budget_max_tokens": 3}
        with pytest.raises(ConnectionError):
            policy.call(failing(9))
        assert shown(metrics.render(warm_cache)[0], "shop")["budget_tokens"] == 0.5
    assert shown(metrics.render(warm_cache)[0], "of the shop")["given_up_total retry budget exhausted"] == 1


def test_retry_metrics_of_several_caches_come_once() -> None:
    registry = CollectorRegistry()
    caches = [Cache(namespace=name) for name in ("one", "two")]
    for cache in caches:
        metrics.register(cache, registry)
    retry(on=ConnectionError, name="once")(lambda: 1)()
    body = generate_latest(registry)
    assert shown(body, "once")["calls_total"] == 1
    assert body.count(b'stillwarm_retry_calls_total{policy="once"}') == 1


WORKERS = """
import json, logging, os, sys
logging.disable()
from stillwarm import Cache, Retry, metrics, retry_stats
from stillwarm._retry import define_budget
from stillwarm.testing import without_waiting
cache, other = Cache(namespace="shop"), Cache(namespace="other")
metrics.register(cache); metrics.register(other)
define_budget("shop", tokens=100, per_success=0)
prices = Retry(ConnectionError, retries=1, jitter=0, base=0.25, budget="shop", name="prices")
def use(calls, failed):
    with_failures = iter([ConnectionError] * failed)
    def ask():
        for error in with_failures:
            raise error
    for _ in range(calls):
        try: prices.call(ask)
        except ConnectionError: pass
told = []
with without_waiting():
    use(10, 4)  # two calls are given up
    metrics.flush()
    for calls, failed in ((200, 1), (3000, 3)):
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            use(calls, failed); metrics.flush()
            os.write(write, str(retry_stats()["prices"].calls).encode())
            os._exit(0)
        os.waitpid(pid, 0)
        told.append(int(os.read(read, 64)))
    print(json.dumps([*told, retry_stats()["prices"].calls]))
    print(metrics.render(cache)[0].decode())
"""


@pytest.mark.forks
def test_retry_metrics_of_forked_workers_are_added_up_exactly(tmp_path: Path) -> None:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", WORKERS]
    done = subprocess.run(command, capture_output=True, env=env, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    own, _, body = done.stdout.partition(b"\n")
    calls = 10 + 200 + 3000
    assert sum(json.loads(own)) == calls + 2 * 10, "the control: each child counts on from what its parent counted"
    assert shown(body, "prices") == {
        "calls_total": calls,
        "succeeded_total": calls - 2 - 1,
        "recovered_total": 1 + 1,
        "failures_total": 4 + 1 + 3,
        "attempts_total": 2 + 1 + 2,
        "wait_seconds_total": 0.25 * 5,
        "given_up_total retries exhausted": 2 + 1,
    }
    # Three living processes, as far as the files know: each has a bucket of its own.
    assert shown(body, "shop") == {"budget_tokens": 98 + 97 + 96, "budget_max_tokens": 300}


def test_retry_metrics_in_files_go_on_after_the_counts_were_zeroed(tmp_path: Path) -> None:
    code = (
        "from stillwarm import Cache, Retry, metrics; from stillwarm.testing import reset;"
        "c = Cache(namespace='shop'); metrics.register(c); p = Retry(OSError, name='prices');"
        "[p.call(int) for _ in range(5)]; metrics.flush(); reset(); [p.call(int) for _ in range(3)];"
        "print(metrics.render(c)[0].decode())"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=env, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert shown(done.stdout, "prices")["calls_total"] == 8


def points(reader: InMemoryMetricReader, label: str, value: str) -> dict[str, float]:
    data = reader.get_metrics_data()
    resources = [] if data is None else json.loads(data.to_json())["resource_metrics"]
    return {
        metric["name"]: point["value"]
        for resource in resources
        for scope in resource["scope_metrics"]
        for metric in scope["metrics"]
        for point in metric["data"]["data_points"]
        if point["attributes"].get(label) == value
    }


def test_retry_opentelemetry_has_the_same_figures(warm_cache: Cache) -> None:
    reader = InMemoryMetricReader()
    end = instrument(warm_cache, MeterProvider([reader], shutdown_on_exit=False))
    define_budget("of otel", tokens=4)
    policy = Retry(ConnectionError, retries=2, base=0.5, jitter=0, budget="of otel", name="asked")
    with without_waiting():
        policy.call(failing(1))
        assert points(reader, "policy", "asked") == {
            "stillwarm.retry_calls": 1,
            "stillwarm.retry_succeeded": 1,
            "stillwarm.retry_recovered": 1,
            "stillwarm.retry_failures": 1,
            "stillwarm.retry_attempts": 1,
            "stillwarm.retry_wait_seconds": 0.5,
        }
        assert points(reader, "budget", "of otel") == {
            "stillwarm.retry_budget_tokens": 3.1,
            "stillwarm.retry_budget_max_tokens": 4,
        }
    end()
    assert points(reader, "policy", "asked") == {}


def test_retry_metrics_go_with_the_last_cache() -> None:
    registry = CollectorRegistry()
    cache, breaker = Cache(), CircuitBreaker(name="gone with it")
    metrics.register(cache, registry)
    retry(on=ConnectionError, name="gone")(lambda: 1)()
    assert shown(generate_latest(registry), "gone") != {}
    del cache
    assert [s for family in registry.collect() for s in family.samples] == []
    assert breaker.state == "closed"
