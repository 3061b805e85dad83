"""Sinks of the audit log: a worker for each, their metrics, and their status."""

import ipaddress
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from authz import __version__
from authz.audit.delivery import (
    HttpTarget,
    SegmentRetention,
    SinkSettings,
    SinkWorker,
    Target,
    WebPlace,
    age_of,
    lag_of,
    sink_detail,
    sink_lag,
    sink_problems,
)
from authz.config import Audit, AuditOtel, AuditPostgresql, AuditS3, AuditServer, AuditSink
from authz.errors import ConfigError
from authz.model import Diagnostic, MetricFamily, MetricKind
from authz.periodic import PeriodicThread
from authz.telemetry import Logger
from authz.trust import Document, FetchRequest
from authz.trust.addresses import Network, Reach

__all__ = ["AuditSinks"]

_REMOVAL_SECONDS: Final = 10.0
"""Pause between two removals of old segments."""


class AuditSinks:
    """Delivers the audit log to the configured sinks.

    Args:
        audit: The configuration.
        node: Name of the node, which the sinks get.
        fetch: Sends a request.
        log: Receives errors and gaps.
        clock: Unix time.

    Raises:
        ConfigError: A package of a sink is missing.
    """

    def __init__(
        self,
        audit: Audit,
        node: str,
        fetch: Callable[[FetchRequest], Document],
        log: Logger,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._clock = clock
        self._audit = audit
        self._log = log
        self._sinks = [
            (sink, _worker(name, sink, audit, _target(sink, node, fetch), log))
            for name, sink in sorted(audit.sinks.items())
            if audit.path is not None
        ]
        self._retention = self._make_retention()
        self._removal = PeriodicThread(
            "audit-retention", self._remove_old, _REMOVAL_SECONDS, self._removal_failed
        )

    def start(self) -> None:
        """Start a thread for each sink, and one that removes segments that every sink has."""
        if self._retention is not None:
            self._removal.start()
        for _, worker in self._sinks:
            worker.start()

    def close(self) -> None:
        """Send the last records, and stop the threads. All sinks together get five seconds."""
        self._removal.close()
        for _, worker in self._sinks:
            worker.stop()
        for _, worker in self._sinks:
            worker.close()

    def problems(self) -> Iterable[str]:
        """Return one line for each problem of a sink."""
        return tuple(line for sink, worker in self._sinks for line in self._problems(sink, worker))

    def late(self) -> Sequence[str]:
        """Return one line for each required sink that is too far behind for the node to be ready."""
        return tuple(
            line
            for sink, worker in self._sinks
            if sink.required and (line := self._lag(sink, worker))
        )

    def detail(self) -> dict[str, Any]:
        """Return the status of each sink as JSON values, by name."""
        now = self._clock()
        return {
            worker.settings.name: sink_detail(sink, worker.status, now)
            for sink, worker in self._sinks
        }

    def families(self) -> Iterator[MetricFamily]:
        """Yield every metric. Labels are the names of sinks in the configuration."""
        if not self._sinks:
            return
        statuses = [(worker.settings.name, worker.status) for _, worker in self._sinks]
        now = self._clock()
        yield _counter(
            "authz_audit_delivered_records",
            "Audit records that a sink acknowledged, repetitions included.",
            [({"sink": name}, float(status.sent_records)) for name, status in statuses],
        )
        yield _counter(
            "authz_audit_delivery_errors",
            "Failed deliveries of audit records.",
            [
                ({"sink": name, "kind": str(kind)}, float(count))
                for name, status in statuses
                for kind, count in status.errors.items()
            ],
        )
        yield _counter(
            "authz_audit_delivery_gaps",
            "Times that audit records were gone before a sink had them, since the sink is configured.",
            [({"sink": name}, float(status.tail.gap_count)) for name, status in statuses],
        )
        yield _counter(
            "authz_audit_undelivered_lost_records",
            "Audit records known to be gone before a sink had them, since the sink is configured.",
            [({"sink": name}, float(status.tail.lost_records)) for name, status in statuses],
        )
        yield _gauge(
            "authz_audit_undelivered_age_seconds",
            "Age of the oldest audit record that a sink does not have; 0 if it has every record.",
            [({"sink": name}, lag_of(status, now)) for name, status in statuses],
        )
        yield _gauge(
            "authz_audit_delivered_age_seconds",
            "Age of the newest audit record that a sink has.",
            [
                ({"sink": name}, age)
                for name, status in statuses
                if (age := age_of(status.tail.delivered_at, now)) is not None
            ],
        )
        yield _gauge(
            "authz_audit_undelivered_records",
            "Audit records that a sink does not have, as far as they were counted.",
            [({"sink": name}, float(status.tail.undelivered_records)) for name, status in statuses],
        )
        yield _gauge(
            "authz_audit_undelivered_bytes",
            "Bytes of the audit log that a sink does not have.",
            [({"sink": name}, float(status.tail.undelivered_bytes)) for name, status in statuses],
        )

    def _problems(self, sink: AuditSink, worker: SinkWorker) -> Iterator[str]:
        # The lag of a required sink is told by `late`.
        if not sink.required and (line := self._lag(sink, worker)):
            yield line
        now = self._clock()
        yield from sink_problems(worker.settings.name, self._audit, worker.status, now)

    def _make_retention(self) -> SegmentRetention | None:
        audit = self._audit
        if not self._sinks or not audit.chain or audit.keep_segments is None:
            return None
        most = audit.keep_undelivered_segments
        return SegmentRetention(
            Path(audit.path or ""), audit.keep_segments, most, self._delivered_files
        )

    def _delivered_files(self) -> frozenset[str] | None:
        """Return the files that every sink has; None while a sink has not looked yet."""
        known = [worker.status.tail.delivered_files for _, worker in self._sinks]
        sets = [files for files in known if files is not None]
        return frozenset.intersection(*sets) if sets and len(sets) == len(known) else None

    def _remove_old(self) -> None:
        if self._retention is not None and (lost := self._retention.remove_old()):
            files = [file.name for file in lost]
            self._log.error("audit segments were removed before a sink had them", files=files)

    def _removal_failed(self, error: BaseException) -> None:
        self._log.error("old audit segments cannot be removed", error=str(error))

    def _lag(self, sink: AuditSink, worker: SinkWorker) -> str:
        return sink_lag(worker.settings.name, sink, worker.status, self._clock())


def _worker(name: str, sink: AuditSink, audit: Audit, target: Target, log: Logger) -> SinkWorker:
    settings = SinkSettings(name, Path(audit.path or ""), sink.batch_bytes, sink.batch_age)
    return SinkWorker(settings, target, log)


def _target(sink: AuditSink, node: str, fetch: Callable[[FetchRequest], Document]) -> Target:
    if sink.otel is not None:
        return _otel_target(sink.otel, sink.timeout, node, fetch)
    if sink.postgresql is not None:
        return _postgresql_target(sink.postgresql, sink.timeout, node)
    if sink.s3 is not None:
        return _s3_target(sink.s3, sink.timeout, node, fetch)
    assert sink.http is not None  # noqa: S101 - a sink has one kind
    place = _web_place(sink.http.url, sink.http, sink.timeout)
    return HttpTarget(place, node, sink.http.authorization_file, fetch)


def _otel_target(
    otel: AuditOtel, timeout: float, node: str, fetch: Callable[[FetchRequest], Document]
) -> Target:
    from authz.audit.delivery.otel import OtelTarget  # noqa: PLC0415 - its messages are large

    try:
        return OtelTarget(
            _web_place(otel.endpoint, otel, timeout),
            node,
            __version__,
            authorization_file=otel.authorization_file,
            fetch=fetch,
        )
    except ImportError as error:
        raise _missing("otel") from error


def _s3_target(
    s3: AuditS3, timeout: float, node: str, fetch: Callable[[FetchRequest], Document]
) -> Target:
    from authz.audit.delivery.s3 import ObjectLock, S3Place, S3Target  # noqa: PLC0415 - an extra

    lock = s3.object_lock
    place = S3Place(
        _web_place(_without_default_port(s3.endpoint), s3, timeout),
        s3.bucket,
        s3.region,
        s3.prefix,
        s3.credentials_file,
        s3.profile,
        ObjectLock(lock.mode.upper(), lock.retention) if lock is not None else None,
    )
    try:
        return S3Target(place, node, fetch, time.time)
    except ImportError as error:
        raise _missing("s3") from error


def _postgresql_target(postgresql: AuditPostgresql, timeout: float, node: str) -> Target:
    from authz.audit.delivery.postgresql import (  # noqa: PLC0415 - an extra
        PostgresqlPlace,
        PostgresqlTarget,
    )

    place = PostgresqlPlace(postgresql.dsn_file, postgresql.table, timeout)
    try:
        return PostgresqlTarget(place, node)
    except ImportError as error:
        raise _missing("postgresql") from error


def _without_default_port(endpoint: str) -> str:
    """Return an endpoint as its host is signed: without the default port of its scheme."""
    endpoint = endpoint.rstrip("/")
    return endpoint.removesuffix(":443" if endpoint.startswith("https:") else ":80")


def _missing(extra: str) -> ConfigError:
    what = f"a sink of the audit is of kind `{extra}`, and a package for it is missing."
    return ConfigError((Diagnostic(what, fix=f'pip install "authz-runtime[{extra}]"'),))


def _web_place(url: str, server: AuditServer, timeout: float) -> WebPlace:
    """Return a server and the addresses that it may have. Without TLS, only loopback."""
    networks: tuple[Network, ...] = tuple(map(ipaddress.ip_network, server.allow_networks))
    is_plain = urlsplit(url).scheme != "https"
    reach = Reach(server.allow_private or is_plain, networks, is_plain)
    return WebPlace(url, reach, server.ca_file, timeout)


def _counter(name: str, text: str, values: Sequence[tuple[dict[str, str], float]]) -> MetricFamily:
    samples = tuple((f"{name}_total", labels, value) for labels, value in values)
    return MetricFamily(name, text, MetricKind.COUNTER, samples)


def _gauge(name: str, text: str, values: Sequence[tuple[dict[str, str], float]]) -> MetricFamily:
    samples = tuple((name, labels, value) for labels, value in values)
    return MetricFamily(name, text, MetricKind.GAUGE, samples)
