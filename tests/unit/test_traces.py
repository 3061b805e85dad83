"""What the environment says about traces, and what becomes of spans."""

import builtins
import io
import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from authz.config import Log
from authz.telemetry import Logger, TraceExport, make_logger
from authz.telemetry.context import in_trace
from authz.telemetry.traces import TraceSettings, read_settings
from tests.support.waiting import eventually

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PLACE = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4317"}


def read(**environment: str) -> tuple[TraceSettings | None, list[str]]:
    """Reads variables; returns what was warned too."""
    warned: list[str] = []
    return read_settings(environment, warned.append), warned


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"OTEL_SERVICE_NAME": "authz"},
        {"OTEL_TRACES_EXPORTER": "none", **PLACE},
        {"OTEL_SDK_DISABLED": "true", **PLACE},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": ""},
        {"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://127.0.0.1:1"},
    ],
)
def test_nothing_asks_for_traces(environment: dict[str, str]) -> None:
    """Then there are none, and no word about it."""
    assert read(**environment) == (None, [])


@pytest.mark.parametrize(
    ("environment", "wanted"),
    [
        (PLACE, TraceSettings("otlp")),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://x:1"}, TraceSettings("otlp")),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, TraceSettings("otlp")),
        ({"OTEL_TRACES_EXPORTER": "console"}, TraceSettings("console")),
        (
            {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf", **PLACE},
            TraceSettings("otlp", "http/protobuf"),
        ),
        (
            {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.25", **PLACE},
            TraceSettings("otlp", parent_based=False, ratio=0.25),
        ),
        (
            {"OTEL_TRACES_SAMPLER": "parentbased_always_off", **PLACE},
            TraceSettings("otlp", ratio=0.0),
        ),
        (
            {"OTEL_BSP_MAX_QUEUE_SIZE": "10", "OTEL_BSP_SCHEDULE_DELAY": "50", **PLACE},
            TraceSettings("otlp", queue=10, batch=10, pause=0.05),
        ),
    ],
)
def test_variables(environment: dict[str, str], wanted: TraceSettings) -> None:
    """The standard ones, with their standard defaults."""
    assert read(**environment) == (wanted, [])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OTEL_TRACES_EXPORTER", "zipkin"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
        ("OTEL_TRACES_SAMPLER", "xray"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "0"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "many"),
        ("OTEL_BSP_SCHEDULE_DELAY", "nan"),
    ],
)
def test_a_variable_that_is_not_known_is_said(name: str, value: str) -> None:
    """There are no traces then; decisions are made all the same."""
    settings, warned = read(**{**PLACE, name: value})
    assert settings is None
    assert name in warned[0]
    assert value in warned[0]


def test_a_ratio_out_of_range_is_said() -> None:
    """A sampler's argument is a share."""
    settings, warned = read(
        **PLACE, OTEL_TRACES_SAMPLER="traceidratio", OTEL_TRACES_SAMPLER_ARG="2"
    )
    assert settings is None
    assert "OTEL_TRACES_SAMPLER_ARG is 2" in warned[0]


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    """Reads a log."""
    return [json.loads(line) for line in stream.getvalue().splitlines()]


@contextmanager
def logged() -> Iterator[tuple[Logger, io.StringIO]]:
    """A logger and what it writes."""
    stream = io.StringIO()
    yield make_logger(Log(), stream), stream


def test_without_the_extra_the_node_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """And serves without traces."""
    real = builtins.__import__

    def refuse(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("opentelemetry"):
            raise ImportError(f"No module named {name!r}")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with logged() as (log, stream):
        assert TraceExport.from_environment(PLACE, "1", log) is None
    (line,) = lines(stream)
    assert line["level"] == "warning"
    assert line["fix"] == 'pip install "authz-runtime[otel]"'


def test_variables_that_the_exporter_refuses_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as a time-out that is no number."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "soon")
    with logged() as (log, stream):
        assert TraceExport.from_environment(PLACE, "1", log) is None
    assert "refuses" in lines(stream)[0]["event"]


class Exporter(SpanExporter):
    """Keeps spans, or fails."""

    def __init__(self, *answers: SpanExportResult | Exception) -> None:
        self.answers = list(answers)
        self.spans: list[ReadableSpan] = []
        self.shut = threading.Event()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Answer as told, else well."""
        answer = self.answers.pop(0) if self.answers else SpanExportResult.SUCCESS
        if isinstance(answer, Exception):
            raise answer
        self.spans.extend(spans)
        return answer

    def shutdown(self) -> None:
        """Note it."""
        self.shut.set()


def span(**more: Any) -> dict[str, Any]:
    """A span as the engine tells it."""
    told: dict[str, Any] = {
        "trace_id": TRACE,
        "span_id": "00f067aa0ba902b7",
        "parent_id": SPAN,
        "trace_state": "vendor=x,bad entry",
        "name": "authz.v1.Authorizer/Check",
        "start_ns": 1_000,
        "end_ns": 2_000,
        "failed": False,
        "decision_id": "d",
        "decision": "DENY",
        "reason_code": "NOT_PERMITTED",
        "operation": "crm.search",
        "task": "t",
        "bundle_revision": "r",
        "enforcer": "",
        "listener": "main",
        "verify_ns": 5,
        "decide_ns": None,
    }
    return {**told, **more}


def export(exporter: Exporter, *batches: Sequence[Mapping[str, Any]]) -> tuple[TraceExport, str]:
    """Sends batches and stops; returns the log too."""
    waiting = [list(batch) for batch in batches]
    with logged() as (log, stream):
        traces = TraceExport(TraceSettings("otlp", pause=0.01), "1", log, exporter)
        traces.start(lambda _: waiting.pop(0) if waiting else [])
        eventually(lambda: not waiting)
        traces.close()
        traces.close()
    return traces, stream.getvalue()


def test_a_span_holds_the_decision() -> None:
    """A child of the caller's span; a `tracestate` that cannot be read is left out; what is not known too."""
    exporter = Exporter()
    traces, _ = export(exporter, [span()], [span(failed=True, parent_id=None, trace_state=None)])
    child, root = exporter.spans
    assert child.parent is not None
    assert child.context is not None
    assert f"{child.context.trace_id:032x}" == TRACE
    assert f"{child.parent.span_id:016x}" == SPAN
    attributes = dict(child.attributes or {})
    assert attributes["authz.system"] == "crm"
    assert attributes["authz.reason_code"] == "NOT_PERMITTED"
    assert not {"authz.enforcer", "authz.decide_ns"} & attributes.keys()
    # A denial is no error; a failure of ours is.
    assert (child.status.status_code.name, root.status.status_code.name) == ("UNSET", "ERROR")
    assert root.parent is None
    assert (traces.exported, traces.failed) == (2, 0)
    assert exporter.shut.is_set()


def test_failures_are_counted_and_said_once() -> None:
    """Whether the exporter says so or raises; and the recovery is said too."""
    exporter = Exporter(SpanExportResult.FAILURE, RuntimeError("what"), SpanExportResult.SUCCESS)
    traces, log = export(exporter, [span()], [span()], [span()])
    assert (traces.exported, traces.failed) == (1, 2)
    assert [json.loads(line)["event"] for line in log.splitlines()] == [
        "traces",
        "spans cannot be sent",
        "spans are sent again",
    ]


@pytest.mark.parametrize(
    ("traceparent", "wanted"),
    [
        (f"00-{TRACE}-{SPAN}-01", TRACE),
        (f"cc-{TRACE}-{SPAN}-01-more", TRACE),
        (f"00-{TRACE}-{SPAN}-01-more", None),
        (f"ff-{TRACE}-{SPAN}-01", None),
        (f"00-{'0' * 32}-{SPAN}-01", None),
        (f"00-{TRACE.upper()}-{SPAN}-01", None),
        ("", None),
        (None, None),
    ],
)
def test_log_lines_carry_the_trace(traceparent: str | None, wanted: str | None) -> None:
    """While a call is worked on, and no longer."""
    with logged() as (log, stream):
        with in_trace(traceparent):
            log.info("within")
        log.info("after")
    within, after = lines(stream)
    assert within.get("trace_id") == wanted
    assert within.get("span_id") == (SPAN if wanted else None)
    assert "trace_id" not in after
