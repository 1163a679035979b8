"""OpenTelemetry: the figures of a cache as instruments.

Thread rule: one thread.
Refuses to know: how figures are read (test_metrics), and spans (test_otel).
"""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from stillwarm import Cache, CircuitBreaker, Retry
from stillwarm._readings import FIGURES
from stillwarm.otel import instrument
from tracing import Seen


@pytest.fixture
def cache() -> Iterator[Cache]:
    with Cache(namespace="shop") as made:
        yield made


def test_otel_figures_are_those_of_the_cache(cache: Cache) -> None:
    cache.define("scoring", ttl=60)
    score = cache.cached("scoring")(lambda asin: asin)
    seen = Seen(cache)
    for _ in range(5):
        score("a")
    score("b")
    labels = {"namespace": "shop", "type": "scoring"}
    assert seen.figure("hits", **labels) == 4
    assert seen.figure("misses", **labels) == 2
    assert seen.figure("entries", **labels) == 2
    assert seen.figure("state", namespace="shop", state="HEALTHY") == 1
    assert seen.figure("state", namespace="shop", state="DOWN") == 0
    score("b")
    assert seen.figure("hits", **labels) == 5  # a second collection reads anew


def test_otel_one_reading_serves_a_collection(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    import stillwarm.otel

    read, readings = stillwarm.otel.read_all, []
    monkeypatch.setattr(stillwarm.otel, "read_all", lambda sources: readings.append(1) or read(sources))
    seen = Seen(cache)
    for collection in (1, 2, 3):
        names = {name for name, _ in seen.points()}
        assert len(names) > 10
        assert len(readings) == collection


def test_otel_instruments_are_the_known_figures(cache: Cache) -> None:
    cache.cached(ttl=60)(lambda asin: asin)("a")
    breaker = CircuitBreaker(name="prices")
    Retry(OSError, name="prices").call(int)
    names = {name for name, _ in Seen(cache).points()}
    assert breaker.state == "closed"
    assert "stillwarm.remote_hits" in names
    absent = {"http_responses", "alert_crossings", "alert_active", "max_entries"}  # without web, budget, tier
    absent |= {name for name, figure in FIGURES.items() if name.startswith("remote_") and "type" not in figure.labels}
    assert names >= {f"stillwarm.{name}" for name in FIGURES.keys() - absent - {"undecodable", "retry_given_up"}}
    assert names <= {f"stillwarm.{name}" for name in FIGURES}


def test_otel_caches_of_one_provider_report_each(cache: Cache) -> None:
    other = Cache(namespace="other")
    seen = Seen(cache)
    end_other, end_again = instrument(other, seen.meters), instrument(other, seen.meters)

    def namespaces() -> set[str]:
        return {value for _, labels in seen.points() for label, value in labels if label == "namespace"}

    assert namespaces() == {"shop", "other"}
    assert seen.figure("flights", namespace="other") == 0
    assert seen.figure("max_bytes", namespace="other") == 64 * 2**20, "once, though it was given twice"
    seen.end()
    seen.end()
    assert namespaces() == {"other"}
    end_other()
    assert namespaces() == {"other"}
    end_again()
    assert namespaces() == set()


def test_otel_uninstrument_ends_both(cache: Cache) -> None:
    seen = Seen(cache)
    score = cache.cached(ttl=60)(lambda asin: asin)
    seen.end()
    score("a")
    assert seen.spans() == []
    assert seen.points() == {}
    assert cache._hooks == ()


def test_otel_instruments_do_not_keep_a_cache_alive() -> None:
    cache = Cache()
    seen = Seen(cache)
    assert seen.points()
    del cache, seen.end
    gc.collect()
    assert seen.points() == {}
