"""Metrics: those of the engine, and those that only the Python side counts."""

import threading
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Info,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from authz.model import MetricFamily, MetricKind

__all__ = ["CONTENT_TYPE", "Metrics"]

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
"""Type of the text that `Metrics.render` makes."""

_BUCKETS: Final = (
    1e-5,
    2.5e-5,
    5e-5,
    1e-4,
    2.5e-4,
    5e-4,
    1e-3,
    2.5e-3,
    5e-3,
    1e-2,
    2.5e-2,
    5e-2,
    0.1,
    0.25,
    0.5,
    1.0,
)


class _Pulled(Collector):
    """Asks for families when it is scraped."""

    def __init__(self, pull: Callable[[], Iterable[MetricFamily]]) -> None:
        self._pull = pull

    def collect(self) -> Iterator[Metric]:
        for family in self._pull():
            metric = Metric(family.name, family.help, str(family.kind))
            for sample, labels, value in family.samples:
                metric.add_sample(sample, dict(labels), value)
            yield metric

    def describe(self) -> Iterator[Metric]:
        """Describe nothing, so that registering does not pull."""
        return iter(())


class _Method:
    """The OK answers of one method, and how long they took."""

    __slots__ = ("counts", "seconds")

    def __init__(self) -> None:
        self.counts = [0] * (len(_BUCKETS) + 1)
        self.seconds = 0.0


class _Calls(Collector):
    """Counts RPCs: of Prometheus's own classes, counting one call takes ten times as long."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._methods: dict[tuple[str, str], _Method] = {}
        self._others: dict[tuple[str, str, str], int] = {}

    def observer(self, service: str, method: str) -> Callable[[float], None]:
        with self._lock:
            mine = self._methods.setdefault((service, method), _Method())
        lock, counts = self._lock, mine.counts

        def observe(took: float) -> None:
            place = bisect_left(_BUCKETS, took)
            with lock:
                counts[place] += 1
                mine.seconds += took

        return observe

    def count(self, service: str, method: str, code: str) -> None:
        with self._lock:
            key = (service, method, code)
            self._others[key] = self._others.get(key, 0) + 1

    def collect(self) -> Iterator[Metric]:
        with self._lock:
            handled = dict(self._others)
            methods = [
                (key, list(mine.counts), mine.seconds) for key, mine in self._methods.items()
            ]
        times = HistogramMetricFamily(
            "grpc_server_handling_seconds",
            "Time from the handler's start to its answer.",
            labels=("grpc_service", "grpc_method"),
        )
        for key, counts, seconds in methods:
            total = sum(counts)
            handled[(*key, "OK")] = handled.get((*key, "OK"), 0) + total
            bounds = map(floatToGoString, (*_BUCKETS, float("inf")))
            times.add_metric(key, list(zip(bounds, accumulate(counts), strict=True)), seconds)
        calls = CounterMetricFamily(
            "grpc_server_handled",
            "RPCs completed, by code.",
            labels=("grpc_service", "grpc_method", "grpc_code"),
        )
        for labels, count in handled.items():
            calls.add_metric(labels, count)
        yield calls
        yield times

    def describe(self) -> Iterator[Metric]:
        """Describe what `collect` gives."""
        return self.collect()


class Metrics:
    """The metrics of one node."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry(auto_describe=False)
        self._calls = _Calls()
        self.registry.register(self._calls)
        ProcessCollector(registry=self.registry)
        self._reloads = Counter(
            "authz_policy_reload_total",
            "Loads of bundle and trust, by result.",
            ("result",),
            registry=self.registry,
        )
        for result in ("success", "failure", "unchanged"):
            self._reloads.labels(result)
        self._success = Gauge(
            "authz_policy_last_success_timestamp_seconds",
            "When bundle and trust were last loaded.",
            registry=self.registry,
        )
        self._answers = Counter(
            "authz_http_requests_total",
            "Requests for keys and credentials over HTTP, by endpoint and status.",
            ("endpoint", "status"),
            registry=self.registry,
        )
        self._shadow = Counter(
            "authz_shadow_load_total",
            "Loads of the shadow bundle, by result.",
            ("result",),
            registry=self.registry,
        )
        self._bundle = Info("authz_bundle", "The bundle that serves.", registry=self.registry)

    def observer(self, service: str, method: str) -> Callable[[float], None]:
        """Make what counts the OK answers of one method.

        Args:
            service: gRPC service.
            method: gRPC method.

        Returns:
            A function that takes the seconds of one call.
        """
        return self._calls.observer(service, method)

    def handled(self, service: str, method: str, code: str) -> None:
        """Count one RPC of a method that may fail.

        Args:
            service: gRPC service.
            method: gRPC method.
            code: Name of the code.
        """
        self._calls.count(service, method, code)

    def answered(self, endpoint: str, status: int) -> None:
        """Count one answer over HTTP.

        Args:
            endpoint: Its name.
            status: Its status.
        """
        self._answers.labels(endpoint, str(status)).inc()

    def expect_shadow(self) -> None:
        """Begin the counters of the shadow bundle at zero."""
        for result in ("success", "failure"):
            self._shadow.labels(result)

    def shadow_loaded(self, result: str) -> None:
        """Count one load of the shadow bundle.

        Args:
            result: success or failure.
        """
        self._shadow.labels(result).inc()

    def reloaded(self, result: str, *, at: float | None = None) -> None:
        """Count one load of bundle and trust.

        Args:
            result: success, failure or unchanged.
            at: When, for a success.
        """
        self._reloads.labels(result).inc()
        if at is not None:
            self._success.set(at)

    def bundle(self, name: str, revision: str, digest: str) -> None:
        """Say which bundle serves.

        Args:
            name: Its name.
            revision: Its revision.
            digest: Its digest.
        """
        self._bundle.info({"name": name, "revision": revision, "digest": digest})

    def pull(self, source: Callable[[], Iterable[MetricFamily]]) -> None:
        """Add metrics that are counted elsewhere.

        Args:
            source: Asked at each scrape.
        """
        self.registry.register(_Pulled(source))

    def gauge(self, name: str, text: str, read: Callable[[], float]) -> None:
        """Add a gauge that is read when it is scraped.

        Args:
            name: Full name.
            text: One sentence.
            read: Gives the value.
        """
        Gauge(name, text, registry=self.registry).set_function(read)

    def counted(self, name: str, text: str, read: Callable[[], float]) -> None:
        """Add a counter that is kept elsewhere.

        Args:
            name: Full name, ending in `_total`.
            text: One sentence.
            read: Gives the value.
        """
        family = name.removesuffix("_total")
        self.pull(lambda: (MetricFamily(family, text, MetricKind.COUNTER, ((name, {}, read()),)),))

    def render(self) -> bytes:
        """Write everything in Prometheus' text format.

        Returns:
            The text.
        """
        return generate_latest(self.registry)
