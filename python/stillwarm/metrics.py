"""Prometheus metrics of caches: `register(cache)` for an app's own endpoint, `render(cache)` for a body to send.

The figures of every circuit breaker that has a name, of all retries and of their budgets go along with those of any
cache.

Thread rule: any thread. Figures are read when somebody scrapes; a hit costs nothing.
Refuses to know: how figures are counted (_readings reads them), and how they reach other processes (_mirror).

Under prometheus_client's multiprocess mode (PROMETHEUS_MULTIPROC_DIR) a collector is asked in one process only. There
each process mirrors its figures once a second, and when it ends, into the files that MultiProcessCollector adds up.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary, WeakSet

try:
    from prometheus_client import REGISTRY, CollectorRegistry, values
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
    from prometheus_client.exposition import choose_encoder
    from prometheus_client.multiprocess import MultiProcessCollector
    from prometheus_client.registry import Collector as _Base
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"stillwarm.metrics needs the package {error.name!r}: pip install 'stillwarm[metrics]'", name=error.name
    ) from error

from stillwarm import _mirror
from stillwarm._readings import FIGURES, PREFIX, Key, grafana_dashboard, read_all

if TYPE_CHECKING:
    from stillwarm._cache import Cache

_collectors: WeakKeyDictionary[CollectorRegistry, Collector] = WeakKeyDictionary()


class Collector(_Base):
    """The figures of some caches as Prometheus metrics. Caches of one namespace are added up; none is kept alive.

    In multiprocess mode it writes this process's figures to its files and exports nothing itself, for what
    MultiProcessCollector reads from all files has them already.
    """

    def __init__(self, *caches: Cache) -> None:
        self._caches: WeakSet[Cache] = WeakSet()
        for cache in caches:
            self.add(cache)

    def add(self, cache: Cache) -> None:
        """Takes one more cache."""
        self._caches.add(cache)
        if multiprocess():
            _mirror.shared().add(cache)

    def describe(self) -> Iterable[Metric]:
        """The metrics without samples: a registry then refuses a second collector of the same names."""
        return () if multiprocess() else _families({})

    def collect(self) -> Iterable[Metric]:
        """Reads the figures now."""
        if not multiprocess():
            return _families(read_all(self._caches))
        _mirror.shared().flush()
        return ()


class _OfNamespace(_Base):
    """What all processes have written of one namespace, and of what belongs to none: breakers, retries."""

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace

    def collect(self) -> Iterator[Metric]:
        for metric in MultiProcessCollector(None).collect():  # type: ignore[no-untyped-call]
            if metric.name.startswith(PREFIX):
                metric.samples = [
                    s for s in metric.samples if s.labels.get("namespace", self._namespace) == self._namespace
                ]
                yield metric


def register(cache: Cache, registry: CollectorRegistry | None = REGISTRY) -> None:
    """Exports the figures of `cache` with the other metrics of `registry`. May be called again.

    Args:
        cache: is not kept alive; when it goes, so do its metrics.
        registry: None: no registry, for those who only use `render`; it makes every process mirror its figures.
    """
    if registry is None:
        if multiprocess():
            _mirror.shared().add(cache)
        return
    collector = _collectors.get(registry)
    if collector is None:
        collector = Collector()
        registry.register(collector)
        _collectors[registry] = collector
    collector.add(cache)


def render(cache: Cache, accept: str = "") -> tuple[bytes, str]:
    """The metrics of `cache` as the body of a response, and its Content-Type; of all processes in multiprocess mode.

    Args:
        cache: the other processes must know theirs of the same namespace through `register`.
        accept: the request's Accept header; OpenMetrics text where it asks for that.
    """
    encode, content_type = choose_encoder(accept)
    collector: _Base = Collector(cache)
    if multiprocess():
        _mirror.shared().flush()
        collector = _OfNamespace(cache.namespace)
    only = CollectorRegistry()
    only.register(collector)
    return encode(only), content_type


def multiprocess() -> bool:
    """Whether prometheus_client keeps its values in files; it decided that when it was imported."""
    return bool(values.ValueClass._multiprocess)


def flush() -> None:
    """In multiprocess mode writes this process's figures now, not within a second: before `os._exit()`, in tests."""
    if multiprocess():
        _mirror.shared().flush()


def _families(figures: dict[Key, float]) -> Iterator[Metric]:
    """One metric family per figure, those without samples too."""
    families = {
        name: (CounterMetricFamily if figure.counter else GaugeMetricFamily)(
            PREFIX + name, figure.help, labels=figure.labels
        )
        for name, figure in FIGURES.items()
    }
    for (name, labels), value in figures.items():
        families[name].add_metric(labels, value)
    yield from families.values()


__all__ = ["Collector", "flush", "grafana_dashboard", "multiprocess", "register", "render"]
