"""OpenTelemetry: the figures of a cache as instruments, and a span around each of its loads. `instrument(cache)`.

Thread rule: any thread, any loop. Figures are read when a reader collects; spans are made where the load runs.
Refuses to know: how figures are counted (_readings reads them), SDKs and exporters: without an SDK nothing happens.

A load's span is a child of the span in which the caller asked, and what the loader does is inside it. A background
refresh belongs to no request, which may be over before it: its span is a root with a link to that request.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary, ref

try:
    from opentelemetry import metrics, trace
    from opentelemetry.context import Context
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"stillwarm.otel needs the package {error.name!r}: pip install 'stillwarm[otel]'", name=error.name
    ) from error

from stillwarm import hooks
from stillwarm._readings import FIGURES, Key, read_all
from stillwarm.errors import NotFound

if TYPE_CHECKING:
    from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation
    from opentelemetry.trace import Span, Tracer, TracerProvider

    from stillwarm._cache import Cache

PREFIX: Final = "stillwarm."

# The span of the load that runs here.
_running: ContextVar[_Running | None] = ContextVar("stillwarm_span", default=None)
_of_provider: WeakKeyDictionary[MeterProvider, _Figures] = WeakKeyDictionary()
_lock = threading.Lock()


class _Running:
    """A load's span, and what tells the events of this load from those of the loads inside it."""

    __slots__ = ("known", "load", "outer", "span")

    def __init__(self, load: tuple[_Traced, str, str], span: Span, outer: _Running | None) -> None:
        self.load = load
        self.span = span
        self.outer = outer
        self.known = False  # whether its outcome is


def instrument(
    cache: Cache,
    meter_provider: MeterProvider | None = None,
    tracer_provider: TracerProvider | None = None,
    *,
    keys: bool = False,
) -> Callable[[], None]:
    """Gives the figures of `cache` to OpenTelemetry, and a span for each of its loads.

    With the figures of any cache go those of the process's named breakers, of its retries and of their budgets.

    Args:
        cache: is kept alive by the returned function alone.
        meter_provider: None: the global one.
        tracer_provider: None: the global one.
        keys: spans carry the readable key, arguments of calls included; they may be personal.

    Returns:
        A function that ends it. OpenTelemetry keeps the instruments; when no cache is left, they report nothing.
    """
    from stillwarm import __version__

    provider = meter_provider or metrics.get_meter_provider()
    with _lock:
        figures = _of_provider.get(provider)
        if figures is None:
            figures = _Figures()
            figures.create(metrics.get_meter("stillwarm", __version__, provider))
            _of_provider[provider] = figures
    remove = figures.add(cache)
    traced = _Traced(cache, trace.get_tracer("stillwarm", __version__, tracer_provider), keys)
    unsubscribe = cache.subscribe(traced)

    def uninstrument() -> None:
        remove()
        unsubscribe()

    return uninstrument


class _Figures:
    """The instruments of one meter provider, for all its caches and what is process-wide: named breakers, retries.

    An SDK keeps the first instrument of a name and drops what a second one brings. One reading serves every instrument
    of a collection.
    """

    def __init__(self) -> None:
        self._caches: list[ref[Cache]] = []
        self._lock = threading.Lock()
        self._reading: dict[str, list[tuple[tuple[str, ...], float]]] = {}
        self._asked: set[str] = set(FIGURES)

    def create(self, meter: metrics.Meter) -> None:
        for name, figure in FIGURES.items():
            make = meter.create_observable_counter if figure.counter else meter.create_observable_gauge
            make(PREFIX + name, [self._callback(name)], unit=figure.unit, description=figure.help)

    def add(self, cache: Cache) -> Callable[[], None]:
        added = [ref(cache)]
        with self._lock:
            self._caches += added

        def remove() -> None:
            with self._lock:
                if added:  # once, for the cache may be there a second time
                    self._caches.remove(added.pop())

        return remove

    def _callback(self, name: str) -> Callable[[CallbackOptions], list[Observation]]:
        def observe(_: CallbackOptions) -> list[Observation]:
            labels = FIGURES[name].labels
            return [
                metrics.Observation(value, dict(zip(labels, values, strict=True))) for values, value in self._of(name)
            ]

        return observe

    def _of(self, name: str) -> list[tuple[tuple[str, ...], float]]:
        with self._lock:
            caches = {id(cache): cache for cache in [known() for known in self._caches] if cache is not None}
            if not caches:
                return []
            if name in self._asked:  # a second time: another collection
                self._reading = _by_name(read_all(caches.values()))
                self._asked = set()
            self._asked.add(name)
            return self._reading.get(name, [])


def _by_name(figures: dict[Key, float]) -> dict[str, list[tuple[tuple[str, ...], float]]]:
    of: dict[str, list[tuple[tuple[str, ...], float]]] = {}
    for (name, labels), value in figures.items():
        of.setdefault(name, []).append((labels, value))
    return of


class _Traced:
    """The hook that makes spans: around the load (`around_load`, see _observed), with its outcome from the events."""

    def __init__(self, cache: Cache, tracer: Tracer, keys: bool) -> None:
        self._namespace = cache.namespace
        self._tracer = tracer
        self._keys = keys

    def __call__(self, event: hooks.Event) -> None:
        if isinstance(event, hooks.Missed) and event.joined:
            trace.get_current_span().add_event("stillwarm.joined", self._named(event.type, event.key))
            return
        load, running = (self, event.type, event.key), _running.get()
        while running is not None and running.load != load:
            running = running.outer
        if running is None:
            return  # loaded by loader_many=, which no span is around
        if isinstance(event, hooks.Loaded):
            running.known = True
            running.span.set_attribute("stillwarm.stored", event.stored)
        elif isinstance(event, hooks.LoadFailed):
            running.known = True
            absent = isinstance(event.error, NotFound)
            running.span.set_attribute("stillwarm.stored", "not_found" if absent else "failed")
            if not absent:
                running.span.record_exception(event.error)
                running.span.set_status(trace.StatusCode.ERROR, type(event.error).__qualname__)

    @contextmanager
    def around_load(self, flight: Any) -> Iterator[None]:
        of, key = flight.cache._scopes[flight.scope].type, flight.cache._key_of(flight)
        attributes: dict[str, Any] = {
            "stillwarm.namespace": self._namespace,
            "stillwarm.background": flight.background,
            **self._named(of, key),
        }
        asked = trace.get_current_span().get_span_context()
        if flight.background:
            links = [trace.Link(asked)] if asked.is_valid else []
            span = self._tracer.start_span("stillwarm.load", Context(), attributes=attributes, links=links)
        else:
            span = self._tracer.start_span("stillwarm.load", attributes=attributes)
        running = _Running((self, of, key), span, _running.get())
        before = _running.set(running)
        try:
            with trace.use_span(span, record_exception=False, set_status_on_exception=False):
                yield
        finally:
            if not running.known:
                span.set_attribute("stillwarm.stored", "abandoned")  # cancelled or interrupted
            span.end()
            try:
                _running.reset(before)
            except ValueError:
                pass  # the collector closes what a dead loop left, in a context of its own

    def _named(self, type_name: str, key: str) -> dict[str, str]:
        return {"stillwarm.type": type_name, **({"stillwarm.key": key} if self._keys else {})}


__all__ = ["instrument"]
