"""What an SDK with in-memory exporters gets to see of a cache, for tests.

Thread rule: `Ended` waits for spans that other threads end; the rest belongs to the test.
Refuses to know: what is tested.
"""

from __future__ import annotations

import threading
from typing import Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from stillwarm import Cache
from stillwarm.otel import instrument


class Ended(SpanProcessor):
    """Lets a test wait for spans that other threads end."""

    def __init__(self) -> None:
        self._count = threading.Semaphore(0)

    def on_end(self, span: ReadableSpan) -> None:
        if span.name == "stillwarm.load":
            self._count.release()

    def wait(self) -> None:
        assert self._count.acquire(timeout=30)


class Seen:
    """A cache, the spans of its loads, and an app's tracer beside them."""

    def __init__(self, cache: Cache, **options: Any) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.ended = Ended()
        self.provider.add_span_processor(self.ended)
        self.app = self.provider.get_tracer("app")
        self.reader = InMemoryMetricReader()
        self.meters = MeterProvider([self.reader], shutdown_on_exit=False)
        self.end = instrument(cache, self.meters, self.provider, **options)

    def spans(self, name: str = "stillwarm.load") -> list[ReadableSpan]:
        return [span for span in self.exporter.get_finished_spans() if span.name == name]

    def only(self) -> ReadableSpan:
        (span,) = self.spans()
        return span

    def points(self) -> dict[tuple[str, tuple[tuple[str, Any], ...]], float]:
        data = self.reader.get_metrics_data()
        return {
            (metric.name, tuple(sorted(point.attributes.items()))): point.value
            for resource in (data.resource_metrics if data else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
            for point in metric.data.data_points
        }

    def figure(self, name: str, **labels: str) -> float:
        return self.points()[f"stillwarm.{name}", tuple(sorted(labels.items()))]


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return {k.removeprefix("stillwarm."): v for k, v in (span.attributes or {}).items()}


def inside(child: ReadableSpan, parent: ReadableSpan) -> bool:
    return child.parent is not None and child.parent.span_id == parent.context.span_id
