"""Metrics: what the engine counted, and what the Python side counts itself.

Names and units follow Prometheus; labels come from closed sets only.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, generate_latest
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

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


class Metrics:
    """The metrics of one node."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry(auto_describe=False)
        self._handled = Counter(
            "grpc_server_handled_total",
            "RPCs completed, by code.",
            ("grpc_service", "grpc_method", "grpc_code"),
            registry=self.registry,
        )
        self._seconds = Histogram(
            "grpc_server_handling_seconds",
            "Time from the handler's start to its answer.",
            ("grpc_service", "grpc_method"),
            buckets=_BUCKETS,
            registry=self.registry,
        )
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
        self._bundle = Info("authz_bundle", "The bundle that serves.", registry=self.registry)

    def observer(self, service: str, method: str) -> Callable[[float], None]:
        """Make what counts the OK answers of one method.

        Args:
            service: gRPC service.
            method: gRPC method.

        Returns:
            A function that takes the seconds of one call.
        """
        handled = self._handled.labels(service, method, "OK").inc
        seconds = self._seconds.labels(service, method).observe

        def observe(took: float) -> None:
            handled()
            seconds(took)

        return observe

    def handled(self, service: str, method: str, code: str) -> None:
        """Count one RPC of a method that may fail.

        Args:
            service: gRPC service.
            method: gRPC method.
            code: Name of the code.
        """
        self._handled.labels(service, method, code).inc()

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
