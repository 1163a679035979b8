"""OpenTelemetry: the spans of loads.

Thread rule: threads and tasks where a span's parent depends on them, ordered by events.
Refuses to know: figures (test_otel_figures).
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.trace import TracerProvider

from stillwarm import Cache, NotFound, Retry, _core
from stillwarm.otel import instrument
from tracing import Seen, attributes, inside

SECOND = 10**9
PATHS = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


@pytest.fixture
def cache() -> Iterator[Cache]:
    with Cache(namespace="shop") as made:
        yield made


# -------------------------------------------------------------------------------------------------------------- spans


def test_otel_load_has_a_span_and_a_hit_has_none(cache: Cache) -> None:
    cache.define("scoring", ttl=60)
    score = cache.cached("scoring")(lambda asin: asin)
    seen = Seen(cache)
    score("a")
    score("a")
    assert attributes(seen.only()) == {
        "namespace": "shop",
        "type": "scoring",
        "background": False,
        "stored": "stored",
    }
    assert seen.only().status.is_ok


def test_otel_key_is_in_the_span_only_when_asked_for(cache: Cache) -> None:
    @cache.cached(ttl=60)
    def score(asin: str) -> str:
        return asin

    seen = Seen(cache, keys=True)
    score("secret")
    assert "secret" in attributes(seen.only())["key"]


def test_otel_span_is_between_the_callers_and_the_loaders(cache: Cache) -> None:
    seen = Seen(cache)

    @cache.cached(ttl=60)
    def score(asin: str) -> str:
        with seen.app.start_as_current_span("SELECT"):
            return asin

    with seen.app.start_as_current_span("GET /"):
        score("a")
        assert trace.get_current_span().name == "GET /"  # type: ignore[attr-defined]
    (request,), (load,), (query,) = seen.spans("GET /"), seen.spans(), seen.spans("SELECT")
    assert inside(load, request)
    assert inside(query, load)
    assert load.start_time is not None
    assert query.start_time is not None
    assert load.end_time is not None
    assert query.end_time is not None
    assert load.start_time <= query.start_time <= query.end_time <= load.end_time


async def test_otel_span_of_a_coroutine_function_is_in_the_callers(cache: Cache) -> None:
    seen = Seen(cache)

    @cache.cached(ttl=60)
    async def score(asin: str) -> str:
        await asyncio.sleep(0)
        with seen.app.start_as_current_span("SELECT"):
            return asin

    with seen.app.start_as_current_span("GET /"):
        await asyncio.gather(score("a"), score("a"))
    (request,), (load,), (query,) = seen.spans("GET /"), seen.spans(), seen.spans("SELECT")
    assert inside(load, request)
    assert inside(query, load)
    assert [event.name for event in request.events] == ["stillwarm.joined"]


def test_otel_load_in_the_pool_is_in_the_callers_span(cache: Cache) -> None:
    seen = Seen(cache)
    thread: list[str] = []

    @cache.cached(ttl=60, hard_timeout=30)
    def score(asin: str) -> str:
        thread.append(threading.current_thread().name)
        return asin

    with seen.app.start_as_current_span("GET /"):
        score("a")
    assert thread[0].startswith("stillwarm-load")
    seen.ended.wait()  # after the caller was woken
    (request,) = seen.spans("GET /")
    assert inside(seen.only(), request)


def test_otel_background_refresh_is_a_root_with_a_link_to_the_request(cache: Cache) -> None:
    now = _core.clock_now()
    _core.clock_set(now)
    seen = Seen(cache)

    @cache.cached(ttl=60, jitter=0, stale_while_revalidate=600)
    def score(asin: str) -> str:
        return asin

    score("a")
    seen.ended.wait()
    seen.exporter.clear()
    _core.clock_set(now + 100 * SECOND)
    with seen.app.start_as_current_span("GET /"):
        score("a")
    seen.ended.wait()  # the pool's
    (request,), load = seen.spans("GET /"), seen.only()
    assert attributes(load)["background"] is True
    assert load.parent is None
    assert load.context.trace_id != request.context.trace_id
    assert [link.context.span_id for link in load.links] == [request.context.span_id]


def test_otel_error_is_recorded(cache: Cache) -> None:
    seen = Seen(cache)

    @cache.cached(ttl=60)
    def score(asin: str) -> str:
        raise ValueError("no such market")

    with pytest.raises(ValueError, match="no such market"):
        score("a")
    span = seen.only()
    assert (span.status.status_code, span.status.description) == (trace.StatusCode.ERROR, "ValueError")
    assert attributes(span)["stored"] == "failed"
    assert [dict(e.attributes or {})["exception.message"] for e in span.events] == ["no such market"]


async def test_otel_error_of_a_coroutine_function_is_recorded(cache: Cache) -> None:
    seen = Seen(cache)

    @cache.cached(ttl=60)
    async def score(asin: str) -> str:
        raise ValueError("no such market")

    with pytest.raises(ValueError, match="no such market"):
        await score("a")
    assert attributes(seen.only())["stored"] == "failed"
    assert [event.name for event in seen.only().events] == ["exception"]


def test_otel_absence_is_no_error(cache: Cache) -> None:
    seen = Seen(cache)

    @cache.cached(ttl=60)
    def score(asin: str) -> str:
        raise NotFound(asin)

    with pytest.raises(NotFound):
        score("a")
    assert attributes(seen.only())["stored"] == "not_found"
    assert seen.only().status.is_ok
    assert seen.only().events == ()


def test_otel_retries_are_in_one_span(cache: Cache) -> None:
    seen = Seen(cache)
    tries: list[int] = []

    @cache.cached(ttl=60, retry=Retry(on=ConnectionError, retries=3, base=0.001, cap=0.001))
    def score(asin: str) -> str:
        tries.append(1)
        if len(tries) < 3:
            raise ConnectionError
        return asin

    score("a")
    assert len(tries) == 3
    assert attributes(seen.only())["stored"] == "stored"
    assert seen.only().status.is_ok


def test_otel_lost_fill_is_told(cache: Cache) -> None:
    seen = Seen(cache)

    @cache.cached(ttl=60)
    def score(asin: str) -> str:
        cache.invalidate(all=True)
        return asin

    score("a")
    assert attributes(seen.only())["stored"] == "lost"


def test_otel_interrupted_load_ends_its_span_and_leaves_the_callers(cache: Cache) -> None:
    seen = Seen(cache)

    @cache.cached(ttl=60)
    def score(asin: str) -> str:
        raise KeyboardInterrupt

    with seen.app.start_as_current_span("GET /") as request:
        with pytest.raises(KeyboardInterrupt):
            score("a")
        assert trace.get_current_span() is request
    assert attributes(seen.only())["stored"] == "abandoned"


def test_otel_loads_inside_each_other_have_their_own_outcomes(cache: Cache) -> None:
    seen = Seen(cache, keys=True)

    @cache.cached(ttl=60)
    def inner(asin: str) -> str:
        raise ValueError(asin)

    @cache.cached(ttl=60)
    def outer(asin: str) -> str:
        with pytest.raises(ValueError, match=asin):
            inner(asin)
        with pytest.raises(ValueError, match=asin):
            batched.get_many([asin])  # no span of its own, and not the outcome of the load around it
        return asin

    def broken(items: list[str]) -> list[str]:
        raise ValueError(items[0])

    batched = cache.cached(ttl=60, loader_many=broken)(lambda asin: asin)
    outer("a")
    within, around = seen.spans()
    assert (attributes(within)["stored"], attributes(around)["stored"]) == ("failed", "stored")
    assert around.status.is_ok
    assert around.events == ()
    assert inside(within, around)


def test_otel_two_tracers_of_one_cache_both_know_the_outcome(cache: Cache) -> None:
    first, second = Seen(cache), Seen(cache)
    cache.cached(ttl=60)(lambda asin: asin)("a")
    assert [attributes(seen.only())["stored"] for seen in (first, second)] == ["stored", "stored"]


def test_otel_tracer_that_fails_does_not_reach_the_caller(cache: Cache, caplog: pytest.LogCaptureFixture) -> None:
    class Broken(TracerProvider):
        def get_tracer(self, *_: Any, **__: Any) -> Any:
            return None

    instrument(cache, MeterProvider(shutdown_on_exit=False), Broken(shutdown_on_exit=False))
    assert cache.cached(ttl=60)(lambda asin: asin)("a") == "a"
    assert "a hook failed around a load" in caplog.text


# ------------------------------------------------------------------------------------------------------- the packages


def test_otel_api_without_an_sdk_does_nothing() -> None:
    code = (
        "import sys; from stillwarm import Cache; from stillwarm.otel import instrument; c = Cache(); "
        "end = instrument(c); print(c.cached(ttl=5)(lambda x: x)(7)); end(); "
        "assert not any(m.startswith('opentelemetry.sdk') for m in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=PATHS, check=False)
    assert (done.stdout, done.stderr) == ("7\n", "")


def test_otel_missing_package_is_named_with_the_way_to_get_it() -> None:
    code = "import sys; sys.modules['opentelemetry'] = None; import stillwarm.otel"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=PATHS, check=False)
    assert done.returncode == 1
    assert "pip install 'stillwarm[otel]'" in done.stderr.splitlines()[-1]
