"""Audit records as OpenTelemetry logs: what a log record holds, and what a collector rejects."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse

from authz.audit.delivery import (
    Batch,
    BatchKind,
    DeliveryError,
    DeliveryErrorKind,
    SinkSettings,
    SinkWorker,
    WebPlace,
)
from authz.audit.delivery.otel import OtelTarget
from authz.trust import Fetcher
from authz.trust.addresses import Reach
from tests.support.audit_cases import expired_approval, expired_task, loaded, witnessed
from tests.support.live_log import LiveLog
from tests.support.log_collector import LogCollector

RECORD: dict[str, Any] = {
    "decision_id": "0199c1f2-7c1e-7f3a-8b1d-52a0c1d2e3f4",
    "timestamp": "2026-12-01T06:01:00.012Z",
    "labels": {"id": "n1", "listener": "main", "surface": "grpc"},
    "bundles": {"desk": {"revision": "r7", "digest": "abc"}},
    "path": "/authz.v1.Authorizer/Check",
    "input": {
        "mode": "ENFORCE",
        "chain": [{"kind": "user", "id": "alice"}, {"kind": "agent", "id": "bot"}],
        "task": {"id": "t-1", "session": "s-1"},
        "operation": "crm.search",
        "arguments": {"query": "sha256:ab"},
    },
    "result": {"outcome": "DENY", "reason_code": "NO_PERMIT", "tier": "low", "enforced": False},
    "trace_id": "0af7651916cd43dd8448eb211c80319c",
    "span_id": "b7ad6b7169203331",
}


@pytest.fixture
def collector() -> Iterator[LogCollector]:
    """A collector on loopback."""
    with LogCollector() as collector:
        yield collector


def target(collector: LogCollector) -> OtelTarget:
    """Return a sink that sends to the collector."""
    place = WebPlace(collector.url, Reach(private=True, loopback_only=True))
    return OtelTarget(place, "n1", "0.1", authorization_file=None, fetch=Fetcher().get)


def batch(*lines: bytes) -> Batch:
    """Return a batch of records."""
    content = b"".join(line + b"\n" for line in lines)
    return Batch(BatchKind.RECORDS, "records/x.ndjson", content, len(lines))


def values(record: Any) -> dict[str, Any]:
    """Return the attributes of a log record."""
    found: dict[str, Any] = {}
    for attribute in record.attributes:
        kind = attribute.value.WhichOneof("value")
        value = getattr(attribute.value, kind)
        found[attribute.key] = (
            [one.string_value for one in value.values] if kind == "array_value" else value
        )
    return found


def test_a_record_is_one_log_record_with_its_own_members(collector: LogCollector) -> None:
    """Nothing in it comes from elsewhere."""
    line = json.dumps(RECORD).encode()
    assert target(collector).send(batch(line)) is None
    (record,) = collector.records
    assert record.body.string_value == line.decode()
    assert record.time_unix_nano == record.observed_time_unix_nano == 1_796_104_860_012_000_000
    assert (record.severity_number, record.severity_text) == (13, "DENY")
    assert record.trace_id.hex() == RECORD["trace_id"]
    assert record.span_id.hex() == RECORD["span_id"]
    assert record.event_name == "authz.audit.record"
    assert values(record) == {
        "authz.decision_id": RECORD["decision_id"],
        "authz.path": RECORD["path"],
        "authz.listener": "main",
        "authz.surface": "grpc",
        "authz.mode": "ENFORCE",
        "authz.operation": "crm.search",
        "authz.task": "t-1",
        "authz.session": "s-1",
        "authz.outcome": "DENY",
        "authz.reason_code": "NO_PERMIT",
        "authz.tier": "low",
        "authz.enforced": False,
        "authz.bundle.name": "desk",
        "authz.bundle.revision": "r7",
        "authz.chain": ["user:alice", "agent:bot"],
    }
    (logs,) = collector.requests[0].resource_logs
    assert values(logs.resource) == {
        "service.name": "authz",
        "service.version": "0.1",
        "service.instance.id": "n1",
    }
    assert collector.headers[0]["content-type"] == "application/x-protobuf"


@pytest.mark.parametrize(
    ("outcome", "number"), [("PERMIT", 9), ("STEP_UP", 10), ("DENY", 13), (None, 9)]
)
def test_severity_follows_the_outcome(
    collector: LogCollector, outcome: str | None, number: int
) -> None:
    """Records without an outcome are information."""
    record = {**RECORD, "result": {"outcome": outcome} if outcome else {}}
    target(collector).send(batch(json.dumps(record).encode()))
    assert collector.records[0].severity_number == number


@pytest.mark.parametrize(
    ("record", "event", "members"),
    [
        (
            loaded("n1", 0, "r7"),
            "authz.audit.loaded",
            {"authz.bundle.name": "desk", "authz.bundle.revision": "r7"},
        ),
        (
            expired_task("n1", 0, "s1"),
            "authz.audit.expired",
            {"authz.session": "s1", "authz.task": "s1-root"},
        ),
        (expired_approval("n1", 0, "a1"), "authz.audit.expired", {"authz.approval": "a1"}),
        (witnessed("n1", 0), "authz.audit.heads", {}),
    ],
)
def test_records_of_the_node_have_events_of_their_own(
    collector: LogCollector, record: dict[str, Any], event: str, members: dict[str, str]
) -> None:
    """They have no outcome, and are information."""
    target(collector).send(batch(json.dumps(record).encode()))
    (sent,) = collector.records
    assert (sent.event_name, sent.severity_number, sent.severity_text) == (event, 9, "")
    assert values(sent) == {"authz.decision_id": "n1", **members}


def test_a_decision_with_a_member_of_that_name_stays_a_decision(collector: LogCollector) -> None:
    """Only a record without `result` is of the node itself."""
    target(collector).send(batch(json.dumps({**RECORD, "loaded": {}}).encode()))
    (sent,) = collector.records
    assert (sent.event_name, sent.severity_text) == ("authz.audit.record", "DENY")


@pytest.mark.parametrize(
    "line",
    [
        b"not json",
        b"[]",
        b'{"trace_id": 5, "span_id": "zz", "timestamp": "yesterday", "result": [], "input": {"chain": {}}}',
        b'{"trace_id": "00", "bundles": {"a": 1}}',
    ],
)
def test_a_line_of_another_form_is_delivered_as_it_is(collector: LogCollector, line: bytes) -> None:
    """Without members that it does not have."""
    target(collector).send(batch(line))
    (record,) = collector.records
    assert record.body.string_value == line.decode()
    assert (record.trace_id, record.span_id, record.time_unix_nano) == (b"", b"", 0)


def test_records_and_heads_of_a_log_and_a_gap_for_what_the_collector_rejects(
    collector: LogCollector, tmp_path: Path
) -> None:
    """A partial success is not repeated (OTLP forbids it), and not silent."""
    log, now = LiveLog(tmp_path, chained=True), [1_796_083_200.0]
    log.append(3)
    log.write_head()
    rejected = ExportLogsServiceResponse()
    rejected.partial_success.rejected_log_records = 2
    rejected.partial_success.error_message = "too\nold \x1b[31m"
    collector.answers.append(rejected.SerializeToString())
    settings = SinkSettings("otel", log.path, 4096, batch_age=1.0)
    told: Any = _Log()
    worker = SinkWorker(
        settings, target(collector), told, clock=lambda: now[0], monotonic=lambda: now[0]
    )
    worker.round()
    now[0] += 2
    worker.round()
    assert [
        record.body.string_value.encode() + b"\n" for record in collector.records[:3]
    ] == log.lines
    places = [
        (values(one)["authz.audit.segment"], values(one)["authz.audit.index"])
        for one in collector.records[:3]
    ]
    assert places == [(1, 0), (1, 1), (1, 2)]
    head = collector.records[3]
    assert head.event_name == "authz.audit.head"
    assert (values(head)["authz.audit.segment"], values(head)["authz.audit.count"]) == (1, 3)
    status = worker.status.tail
    assert (status.gap_count, status.lost_records, status.undelivered_bytes) == (1, 2, 0)
    assert "rejected 2 lines" in status.gaps[0].text
    assert status.gaps[0].text.endswith("too old ?[31m")
    assert len(told.events) == 1


class _Log:
    def __init__(self) -> None:
        self.events: list[str] = []

    def info(self, event: str, **_: Any) -> None:
        """Keep it."""
        self.events.append(event)

    warning = error = info


def test_an_answer_that_is_not_of_a_collector_is_no_acknowledgement(
    collector: LogCollector,
) -> None:
    """For example the page of a proxy."""
    collector.answers = [b"<html>log in</html>"]
    with pytest.raises(DeliveryError, match="not one of OTLP") as raised:
        target(collector).send(batch(b"{}"))
    assert raised.value.kind is DeliveryErrorKind.REFUSED
