"""Prometheus metrics: what they say of a cache, in one process and added up over several.

Thread rule: figures are read from other threads than those that use the cache; other processes are isolated/scrapes.py.
Refuses to know: how the core counts (test_figures).
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from flask import Flask
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from stillwarm import Cache, Counters, State, Stats, _core, metrics
from stillwarm._readings import FIGURES, read
from stillwarm.flask import Stillwarm
from stillwarm.web.wsgi import ResponseCache

SCRAPES = Path(__file__).parent / "isolated" / "scrapes.py"
SECOND = 10**9


@pytest.fixture
def cache() -> Iterator[Cache]:
    with Cache(namespace="shop", ttl=60) as made:
        yield made


class Told:
    """Stands for a cache and says what a test wants it to say."""

    def __init__(self, namespace: str = "shop", state: State = State.HEALTHY, **counts: Any) -> None:
        self.namespace = namespace
        self.state = state
        self.counts = counts

    def stats(self) -> Stats:
        return Stats(
            types={"scoring": Counters(**self.counts)},
            remote_errors=self.counts.get("remote_errors", 0),
            state=self.state,
            max_bytes=1000,
            flights=3,
        )


def families(body: bytes) -> dict[str, Metric]:
    found = list(text_string_to_metric_families(body.decode()))
    names = [family.name for family in found]
    assert len(names) == len(set(names)), "a metric comes twice"
    return {family.name: family for family in found}


def value(source: Any, name: str, **labels: str) -> float:
    """A sample of a cache, or of a registry."""
    body = generate_latest(source) if isinstance(source, CollectorRegistry) else metrics.render(source)[0]
    (found,) = [
        sample.value
        for family in families(body).values()
        for sample in family.samples
        if sample.name == f"stillwarm_{name}" and labels.items() <= sample.labels.items()
    ]
    return found


def environment(**changes: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **changes}


def scrapes(directory: Path, *arguments: str) -> Any:
    command = [sys.executable, str(SCRAPES), *arguments]
    env = environment(PROMETHEUS_MULTIPROC_DIR=str(directory))
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout) if done.stdout else None


# -------------------------------------------------------------------------------------------------------- one process


def test_metrics_are_the_counts_of_the_cache(cache: Cache) -> None:
    cache.define("scoring", ttl=10, jitter=0, stale_if_error=0)
    now = _core.clock_now()
    _core.clock_set(now)

    @cache.cached("scoring")
    def score(asin: str) -> str:
        if asin == "broken":
            raise ValueError(asin)
        if asin == "lost":
            cache.invalidate(type="scoring")
        return asin

    for asin in ("a", "a", "a", "b", "lost"):
        score(asin)
    with pytest.raises(ValueError, match="broken"):
        score("broken")
    score("c")
    _core.clock_set(now + 20 * SECOND)
    score("d")
    of = {"namespace": "shop", "type": "scoring"}
    assert value(cache, "hits_total", **of) == 2
    assert value(cache, "misses_total", **of) == 6
    assert value(cache, "loads_total", **of) == 6
    assert value(cache, "load_errors_total", **of) == 1
    assert value(cache, "lost_fills_total", **of) == 1
    assert value(cache, "evictions_total", cause="invalidated", **of) == 2
    assert value(cache, "evictions_total", cause="size", **of) == 0
    stats = cache.stats()["scoring"]
    assert value(cache, "expired_total", **of) == stats.expired
    assert value(cache, "entries", **of) == stats.entries
    assert value(cache, "bytes", **of) == stats.bytes > 0
    assert value(cache, "load_seconds_total", **of) == pytest.approx(stats.load_seconds)
    assert value(cache, "max_bytes", namespace="shop") == 64 * 2**20
    assert value(cache, "flights", namespace="shop") == 0


def test_metrics_of_every_figure_of_stats() -> None:
    """Whatever Counters hold leaves the process under its own name; a new field needs a figure."""
    fields = set(Counters.__dataclass_fields__) - {"last_error"}
    assert fields <= set(FIGURES)
    told = Told(**{name: i for i, name in enumerate(sorted(fields - {"evictions"}), 7)}, evictions={"size": 5})
    registry = CollectorRegistry()
    metrics.register(told, registry)  # type: ignore[arg-type]
    for i, name in enumerate(sorted(fields - {"evictions"}), 7):
        suffix = "_total" if FIGURES[name].counter else ""
        of = {"type": "scoring"} if "type" in FIGURES[name].labels else {"namespace": "shop"}
        assert value(registry, name + suffix, **of) == i
    assert value(registry, "evictions_total", cause="size") == 5
    assert value(registry, "flights") == 3


def test_metrics_budget_that_is_not_set_is_absent() -> None:
    body = metrics.render(Cache(max_bytes=None, max_entries=10))[0]
    assert families(body)["stillwarm_max_entries"].samples[0].value == 10
    assert families(body)["stillwarm_max_bytes"].samples == []


@pytest.mark.parametrize("state", list(State))
def test_metrics_state_is_a_set(state: State) -> None:
    told = Told(state=state)
    registry = CollectorRegistry()
    metrics.register(told, registry)  # type: ignore[arg-type]
    shown = {s.value: value(registry, "state", state=s.value) for s in State}
    assert shown == {s.value: float(s is state) for s in State}


def test_metrics_counters_do_not_fall_when_counts_are_reset(cache: Cache) -> None:
    first, second = cache.cached(lambda x: x), cache.cached(lambda x: -x)
    for f in (first, second):
        for _ in range(101):
            f(1)
    assert value(cache, "hits_total", type="default") == 200
    first.cache_clear()
    assert value(cache, "hits_total", type="default") == 200
    second(1)
    assert value(cache, "hits_total", type="default") == 201


def test_metrics_seconds_saved_are_calls_times_the_mean_load_and_do_not_fall() -> None:
    told = Told(hits=10, stale_hits=2, loads=2, load_seconds=1.0)
    saved = ("seconds_saved", ("shop", "scoring"))
    assert read(told)[saved] == 12 * 0.5  # type: ignore[arg-type]
    told.counts = {"hits": 10, "stale_hits": 2, "loads": 1000, "load_seconds": 1.0}  # loads have become fast
    assert read(told)[saved] == 6  # type: ignore[arg-type]
    told.counts["hits"] += 1000
    assert read(told)[saved] == 7  # type: ignore[arg-type]


def test_metrics_seconds_saved_without_a_load_are_none(cache: Cache) -> None:
    cache.set("key", 1)
    cache.get("key")
    assert value(cache, "hits_total", type="default") == 1
    assert value(cache, "seconds_saved_total", type="default") == 0


def test_metrics_caches_of_one_namespace_are_added_up_and_others_stand_apart() -> None:
    registry = CollectorRegistry()
    told = [
        Told(hits=1, state=State.DOWN),
        Told(hits=20),
        Told(),
        Told("other", hits=300),
    ]
    for one in told:
        metrics.register(one, registry)  # type: ignore[arg-type]
        metrics.register(one, registry)  # type: ignore[arg-type]  # again: not twice
    assert value(registry, "hits_total", namespace="shop") == 21
    assert value(registry, "hits_total", namespace="other") == 300
    assert value(registry, "max_bytes", namespace="shop") == 3000
    assert value(registry, "state", namespace="shop", state="HEALTHY") == 1
    assert value(registry, "state", namespace="shop", state="DOWN") == 1


def test_metrics_registry_refuses_a_second_collector_of_the_same_names(cache: Cache) -> None:
    registry = CollectorRegistry()
    metrics.register(cache, registry)
    with pytest.raises(ValueError, match="stillwarm_hits"):
        registry.register(metrics.Collector(cache))


def test_metrics_do_not_keep_a_cache_alive() -> None:
    registry = CollectorRegistry()
    cache = Cache()
    metrics.register(cache, registry)
    assert value(registry, "entries") == 0
    del cache
    gc.collect()
    assert [s for family in registry.collect() for s in family.samples] == []


def test_metrics_cost_a_hit_nothing(cache: Cache) -> None:
    metrics.register(cache, CollectorRegistry())
    metrics.render(cache)
    assert cache._hooks == ()


def test_metrics_names_of_types_may_be_anything(cache: Cache) -> None:
    name = 'a"b\\c\nd\u65e5{}=,'
    cache.define(name, ttl=5)
    f = cache.cached(name)(lambda x: x)
    f(1)
    assert value(cache, "misses_total", type=name) == 1


def test_metrics_openmetrics_where_the_scraper_asks_for_it(cache: Cache) -> None:
    cache.cached(lambda x: x)(1)
    body, content_type = metrics.render(cache, "application/openmetrics-text; version=1.0.0")
    assert content_type.startswith("application/openmetrics-text")
    names = {family.name for family in openmetrics.text_string_to_metric_families(body.decode())}
    assert names == {f"stillwarm_{name}" for name in FIGURES}
    assert metrics.render(cache)[1].startswith("text/plain")


def test_metrics_are_exact_after_scrapes_among_hits(cache: Cache) -> None:
    f = cache.cached(lambda x: x)
    f(1)
    barrier = threading.Barrier(5)

    def hit() -> None:
        barrier.wait()
        for _ in range(5000):
            f(1)

    threads = [threading.Thread(target=hit) for _ in range(4)]
    for thread in threads:
        thread.start()
    barrier.wait()
    shown = [value(cache, "hits_total", type="default") for _ in range(20)]
    for thread in threads:
        thread.join()
    assert shown == sorted(shown)
    assert value(cache, "hits_total", type="default") == 20_000


def test_metrics_of_the_web_layer(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "stillwarm.web._counts", raising=False)
    monkeypatch.delitem(sys.modules, "stillwarm.web.alerts", raising=False)
    without = families(metrics.render(cache)[0])
    assert without["stillwarm_http_responses"].samples == []
    web, alerts = ModuleType("stillwarm.web._counts"), ModuleType("stillwarm.web.alerts")
    web.counts = lambda of: {("hit", ""): 5, ("bypass", "method"): 2} if of is cache else {}  # type: ignore[attr-defined]
    firing = SimpleNamespace(name="hit_rate", active=True, crossings=4)
    quiet = SimpleNamespace(name="errors", active=False, crossings=0)
    alerts.alerts_of = lambda of: (firing, quiet) if of is cache else ()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "stillwarm.web._counts", web)
    monkeypatch.setitem(sys.modules, "stillwarm.web.alerts", alerts)
    assert value(cache, "http_responses_total", outcome="hit", reason="") == 5
    assert value(cache, "http_responses_total", outcome="bypass", reason="method") == 2
    assert value(cache, "alert_crossings_total", alert="hit_rate") == 4
    assert [value(cache, "alert_active", alert=name) for name in ("hit_rate", "errors")] == [1, 0]


def test_metrics_of_a_middleware_and_of_management_over_http(cache: Cache) -> None:
    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [("Cache-Control", "max-age=60"), ("Content-Type", "text/plain")])
        return [b"page"]

    web = Flask("app")
    web.wsgi_app = ResponseCache(app, cache)  # type: ignore[method-assign]
    for _ in range(4):
        assert web.test_client().get("/page").data == b"page"
    manager = Flask("manager")
    manager.register_blueprint(Stillwarm(cache).management(auth="the-token-of-a-test"))
    got = manager.test_client().get("/api/cache/metrics", headers={"Authorization": "Bearer the-token-of-a-test"})
    assert got.status_code == 200
    assert got.content_type == metrics.render(cache)[1]
    shown = {s.labels["outcome"]: s.value for s in families(got.data)["stillwarm_http_responses"].samples}
    assert shown["hit"] == 3
    assert sum(shown.values()) == 4
    assert {s.labels["alert"] for s in families(got.data)["stillwarm_alert_active"].samples} >= {"hit_rate"}


def test_metrics_missing_package_is_named_with_the_way_to_get_it() -> None:
    code = "import sys; sys.modules['prometheus_client'] = None; import stillwarm.metrics"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), check=False)
    assert done.returncode == 1
    assert "pip install 'stillwarm[metrics]'" in done.stderr.splitlines()[-1]


# -------------------------------------------------------------------------------------------------- several processes


@pytest.mark.forks
def test_metrics_of_forked_workers_are_added_up_exactly_and_outlive_them(tmp_path: Path) -> None:
    before, after, later = scrapes(tmp_path, "forked")
    # 120 of the parent, 4,000 of one that was killed, 30,000 of one that left without atexit, 200,000 of one that ended
    hits, budget = 120 + 4000 + 30_000 + 200_000, 64 * 2**20
    assert before == {
        "hits_total": hits,
        "misses_total": 2,
        "entries": 1 + 1 + 1 + 2,
        "flights": 0,
        "state": 1,
        "max_bytes": 4 * budget,
    }
    assert after == {**before, "entries": 1, "max_bytes": budget}, "gauges of dead processes, once they are marked"
    assert later == {**after, "hits_total": hits + 1}


def test_metrics_of_processes_of_their_own_are_added_up_exactly(tmp_path: Path) -> None:
    for hits in ("11", "201", "3001"):
        scrapes(tmp_path, "spawned", hits)
    code = (
        "from stillwarm import Cache, metrics; a, b = Cache(namespace='shop'), Cache(namespace='other');"
        "metrics.register(b); b.set('k', 1, 5); b.get('k');"
        "from prometheus_client import Counter; Counter('foreign', 'of the app').inc();"
        "print(metrics.render(a)[0].decode())"
    )
    env = environment(PROMETHEUS_MULTIPROC_DIR=str(tmp_path))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    found = families(done.stdout.encode())
    assert all(name.startswith("stillwarm_") for name in found)
    samples = {(s.labels["namespace"], s.labels["type"]): s.value for s in found["stillwarm_hits"].samples}
    assert samples == {("shop", "default"): 10 + 200 + 3000}


def test_metrics_of_a_worker_with_management_are_there_for_the_others(tmp_path: Path) -> None:
    worker = (
        "from stillwarm import Cache; from stillwarm.web.management import Management;"
        "c = Cache(namespace='shop'); m = Management(c, auth='the-token-of-a-test'); c.set('k', 1, 5); c.get('k')"
    )
    asked = "from stillwarm import Cache, metrics; print(metrics.render(Cache(namespace='shop'))[0].decode())"
    env = environment(PROMETHEUS_MULTIPROC_DIR=str(tmp_path))
    for code in (worker, asked):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=False)
        assert (done.returncode, done.stderr) == (0, "")
    (sample,) = families(done.stdout.encode())["stillwarm_hits"].samples
    assert sample.value == 1


def test_metrics_of_a_reused_process_number_go_on(tmp_path: Path) -> None:
    assert scrapes(tmp_path, "executed")["hits_total"] == 10 + 10


def test_metrics_of_a_worker_come_without_being_asked_for(tmp_path: Path) -> None:
    assert scrapes(tmp_path, "alone")["hits_total"] == 50


@pytest.mark.forks
def test_metrics_of_a_child_that_does_not_use_the_cache_are_no_files(tmp_path: Path) -> None:
    of_child, count, shown = scrapes(tmp_path, "idle")
    assert of_child == []
    assert count == 3
    assert shown["hits_total"] == 2


@pytest.mark.forks
def test_metrics_of_multiprocessing_workers_are_added_up_exactly(tmp_path: Path) -> None:
    assert scrapes(tmp_path, "pooled")["hits_total"] == 5 + 100 + 2000


def test_metrics_in_multiprocess_mode_come_once_from_a_registry_with_both_collectors(tmp_path: Path) -> None:
    code = (
        "from prometheus_client import REGISTRY, generate_latest; from prometheus_client.multiprocess import *;"
        "from stillwarm import Cache, metrics; c = Cache(namespace='shop'); metrics.register(c);"
        "MultiProcessCollector(REGISTRY); c.set('k', 1, 5); c.get('k'); print(generate_latest(REGISTRY).decode())"
    )
    env = environment(PROMETHEUS_MULTIPROC_DIR=str(tmp_path))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    (sample,) = families(done.stdout.encode())["stillwarm_hits"].samples
    assert sample.value == 1, "a scrape of this process shows what it counted until now"
