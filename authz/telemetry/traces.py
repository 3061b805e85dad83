"""Traces: the engine makes a span of each sampled decision; a thread takes the spans and exports them.

The standard `OTEL_*` variables say where to, and how many. Nothing here is on the path of a decision: the
engine's queue is bounded, a span that finds it full is dropped and counted, and a collector that does not answer
delays only the thread of this module.
"""

import importlib
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from authz.model import system_of
from authz.periodic import PeriodicThread
from authz.telemetry.log import Logger

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.export import SpanExporter

__all__ = ["TraceExport", "TraceSettings", "read_settings"]

_GRPC: Final = "opentelemetry.exporter.otlp.proto.grpc.trace_exporter"
_HTTP: Final = "opentelemetry.exporter.otlp.proto.http.trace_exporter"
_LONGEST_PAUSE: Final = 0.2
_FLUSH: Final = 2.0
_SAMPLERS: Final = {
    "always_on": (False, 1.0),
    "always_off": (False, 0.0),
    "traceidratio": (False, None),
    "parentbased_always_on": (True, 1.0),
    "parentbased_always_off": (True, 0.0),
    "parentbased_traceidratio": (True, None),
}


@dataclass(frozen=True, slots=True)
class TraceSettings:
    """Settings of traces, from the environment."""

    exporter: str
    """`otlp` or `console`."""
    protocol: str = "grpc"
    """Protocol of OTLP: `grpc` or `http/protobuf`."""
    parent_based: bool = True
    """Follow the caller's decision where it made one."""
    ratio: float = 1.0
    """Share of the other traces that is sampled."""
    queue: int = 2048
    """Most spans that wait."""
    batch: int = 512
    """Most spans that are sent at once."""
    pause: float = _LONGEST_PAUSE
    """Seconds between two looks at the queue."""

    def engine(self) -> dict[str, Any]:
        """Return the engine's settings of traces."""
        return {"parent_based": self.parent_based, "ratio": self.ratio, "queue": self.queue}


def read_settings(
    environment: Mapping[str, str], warn: Callable[[str], object]
) -> TraceSettings | None:
    """Read the standard variables; `None` if no variable asks for traces, or one is not valid.

    Args:
        environment: Environment of the process.
        warn: Called with the error of a variable that is not valid.
    """
    variables = {
        name: value.strip() for name, value in environment.items() if name.startswith("OTEL_")
    }
    exporter = _exporter(variables)
    if exporter is None:
        return None
    try:
        _one_of("OTEL_TRACES_EXPORTER", exporter, ("otlp", "console", "none"))
        protocol = (
            variables.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL")
            or variables.get("OTEL_EXPORTER_OTLP_PROTOCOL")
            or "grpc"
        )
        _one_of("OTEL_EXPORTER_OTLP_PROTOCOL", protocol, ("grpc", "http/protobuf"))
        parent_based, ratio = _sampler(variables)
        queue = int(_number(variables, "OTEL_BSP_MAX_QUEUE_SIZE", 2048, 1, 1_000_000))
        batch = int(_number(variables, "OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 512, 1, 1_000_000))
        delay = _number(variables, "OTEL_BSP_SCHEDULE_DELAY", 5000, 1, 3_600_000)
    except ValueError as error:
        warn(f"no traces: {error}")
        return None
    # A queue is looked at more often than the variable says, else a second of load would overflow it.
    pause = min(delay / 1000, _LONGEST_PAUSE)
    return TraceSettings(exporter, protocol, parent_based, ratio, queue, min(batch, queue), pause)


def _exporter(variables: Mapping[str, str]) -> str | None:
    if variables.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return None
    exporter = variables.get("OTEL_TRACES_EXPORTER", "").lower()
    if exporter:
        return None if exporter == "none" else exporter
    # `otlp` is the standard's default; here it needs a place to send to, so that nobody pays for a variable that
    # was set for other programs.
    endpoints = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
    return "otlp" if any(variables.get(name) for name in endpoints) else None


def _sampler(variables: Mapping[str, str]) -> tuple[bool, float]:
    name = (variables.get("OTEL_TRACES_SAMPLER") or "parentbased_always_on").lower()
    _one_of("OTEL_TRACES_SAMPLER", name, tuple(_SAMPLERS))
    parent_based, ratio = _SAMPLERS[name]
    if ratio is None:
        ratio = _number(variables, "OTEL_TRACES_SAMPLER_ARG", 1.0, 0.0, 1.0)
    return parent_based, ratio


def _one_of(name: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise ValueError(f"{name} is {value}; give one of {', '.join(known)}")


def _number(
    variables: Mapping[str, str], name: str, default: float, least: float, most: float
) -> float:
    text = variables.get(name)
    if not text:
        return default
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not least <= value <= most:
        raise ValueError(f"{name} is {text}; give {least:g} to {most:g}")
    return value


class TraceExport:
    """Takes spans and exports them.

    Args:
        settings: Settings of traces.
        version: Version of the software.
        log: Receives a line when spans cannot be sent, and when they can again.
        exporter: The exporter. Default: of the settings.

    Raises:
        ImportError: The extra `otel` is not installed.
        Exception: The exporter refuses its variables.
    """

    def __init__(
        self,
        settings: TraceSettings,
        version: str,
        log: Logger,
        exporter: "SpanExporter | None" = None,
    ) -> None:
        self.settings = settings
        self._log = log
        self._resource = _resource(version)
        self._exporter = exporter if exporter is not None else _make(settings)
        self._pull: Callable[[int], Sequence[Mapping[str, Any]]] = lambda _: ()
        self._thread = PeriodicThread(
            "traces", self._send_all, settings.pause, self._log_failure, has_last_round=True
        )
        self._well = True
        self.exported = 0
        """Spans that were sent."""
        self.failed = 0
        """Spans that could not be sent."""

    @staticmethod
    def from_environment(
        environment: Mapping[str, str], version: str, log: Logger
    ) -> "TraceExport | None":
        """Return the export that the environment asks for; `None` if it asks for none, or is not valid.

        Traces do not influence decisions: an error is logged, and the node serves without them.

        Args:
            environment: Environment of the process.
            version: Version of the software.
            log: The log.
        """
        settings = read_settings(environment, log.warning)
        if settings is None:
            return None
        try:
            return TraceExport(settings, version, log)
        except ImportError as error:
            log.warning(
                "no traces: OTEL_* asks for them, but a package is missing",
                fix='pip install "authz-runtime[otel]"',
                error=str(error),
            )
        except Exception as error:  # noqa: BLE001 - an exporter may raise anything
            log.warning("no traces: the exporter refuses its OTEL_* variables", error=repr(error))
        return None

    def start(self, pull: Callable[[int], Sequence[Mapping[str, Any]]]) -> None:
        """Start the thread.

        Args:
            pull: Takes the oldest spans; its argument is the most.
        """
        self._pull = pull
        self._thread.start()
        self._log.info("traces", exporter=self.settings.exporter, protocol=self.settings.protocol)

    def close(self) -> None:
        """Send the spans that wait, for at most two seconds, and stop."""
        self._thread.close(_FLUSH)
        with suppress(Exception):
            self._exporter.shutdown()
        self._thread.close(_FLUSH)

    def _send_all(self) -> None:
        while batch := self._pull(self.settings.batch):
            self._send(batch)

    def _log_failure(self, error: BaseException) -> None:
        with suppress(Exception):
            self._log.warning("spans cannot be read", error=repr(error))

    def _send(self, batch: Sequence[Mapping[str, Any]]) -> None:
        error = ""
        try:
            sent = self._exporter.export([_readable(span, self._resource) for span in batch])
            well = sent.name == "SUCCESS"
        except Exception as failed:  # noqa: BLE001 - the thread outlives every error of an exporter
            well, error = False, repr(failed)
        if well:
            self.exported += len(batch)
        else:
            self.failed += len(batch)
        if well != self._well:
            self._well = well
            with suppress(Exception):
                if well:
                    self._log.info("spans are sent again")
                else:
                    self._log.warning("spans cannot be sent", error=error)


def _make(settings: TraceSettings) -> "SpanExporter":
    # Its own warnings are neither in our form nor bounded; `_send` logs the result of a batch.
    library = logging.getLogger("opentelemetry")
    library.addHandler(logging.NullHandler())
    library.propagate = False
    if settings.exporter == "console":
        module, name = "opentelemetry.sdk.trace.export", "ConsoleSpanExporter"
    else:
        module, name = _GRPC if settings.protocol == "grpc" else _HTTP, "OTLPSpanExporter"
    exporter: SpanExporter = getattr(importlib.import_module(module), name)()
    return exporter


def _resource(version: str) -> "Resource":
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415 - an extra

    resource = Resource.create({"service.version": version})
    if str(resource.attributes.get("service.name", "")).startswith("unknown_service"):
        resource = resource.merge(Resource({"service.name": "authz"}))
    return resource


def _readable(span: Mapping[str, Any], resource: "Resource") -> "ReadableSpan":
    """Make a span of the library from the engine's span. The library's own tracer takes neither ids nor times of the past."""
    from opentelemetry.sdk.trace import ReadableSpan  # noqa: PLC0415 - an extra
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope  # noqa: PLC0415
    from opentelemetry.trace import (  # noqa: PLC0415
        SpanContext,
        SpanKind,
        Status,
        StatusCode,
        TraceFlags,
        TraceState,
    )

    trace_id = int(span["trace_id"], 16)
    state = TraceState.from_header([span["trace_state"]]) if span["trace_state"] else TraceState()
    flags = TraceFlags(TraceFlags.SAMPLED)
    context = SpanContext(
        trace_id, int(span["span_id"], 16), is_remote=False, trace_flags=flags, trace_state=state
    )
    parent = None
    if span["parent_id"] is not None:
        parent = SpanContext(
            trace_id, int(span["parent_id"], 16), is_remote=True, trace_flags=flags
        )
    service, _, method = str(span["name"]).partition("/")
    operation = str(span["operation"])
    attributes = {
        "rpc.system": "grpc",
        "rpc.service": service,
        "rpc.method": method,
        "authz.decision_id": span["decision_id"],
        "authz.decision": span["decision"],
        "authz.reason_code": span["reason_code"],
        "authz.operation": operation,
        "authz.task": span["task"],
        "authz.system": system_of(operation),
        "authz.bundle.revision": span["bundle_revision"],
        "authz.enforcer": span["enforcer"],
        "authz.listener": span["listener"],
        "authz.verify_ns": span["verify_ns"],
        "authz.decide_ns": span["decide_ns"],
    }
    return ReadableSpan(
        name=str(span["name"]),
        context=context,
        parent=parent,
        resource=resource,
        attributes={key: value for key, value in attributes.items() if value not in (None, "")},
        kind=SpanKind.SERVER,
        # A denial is an answer; only a request without a decision is an error.
        status=Status(StatusCode.ERROR if span["failed"] else StatusCode.UNSET),
        start_time=int(span["start_ns"]),
        end_time=int(span["end_ns"]),
        instrumentation_scope=InstrumentationScope("authz"),
    )
