"""A target that takes records as OpenTelemetry logs, by OTLP over HTTP.

The messages are sent without the SDK's exporter, which counts a partial success as a success: rejected records would be lost silently.
"""

import gzip
import json
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from authz.audit.chain import read_link
from authz.audit.decision import is_node_record
from authz.audit.delivery.batch import Batch, BatchKind
from authz.audit.delivery.http import WebPlace
from authz.audit.delivery.target import (
    DeliveryError,
    DeliveryErrorKind,
    Rejection,
    error_of,
    read_authorization,
)
from authz.audit.heads import HeadError, read_head
from authz.trust.fetch import Document, FetchError, FetchRequest, Post

if TYPE_CHECKING:
    from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
    from opentelemetry.proto.common.v1.common_pb2 import KeyValue
    from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord

__all__ = ["OtelTarget", "logs_request"]

_INFO, _INFO2, _WARN = 9, 10, 13
_SEVERITIES: Final = {"PERMIT": _INFO, "STEP_UP": _INFO2, "DENY": _WARN}
_MAX_REASON: Final = 200
_PATHS: Final[Mapping[str, tuple[str, ...]]] = {
    "authz.decision_id": ("decision_id",),
    "authz.path": ("path",),
    "authz.listener": ("labels", "listener"),
    "authz.surface": ("labels", "surface"),
    "authz.mode": ("input", "mode"),
    "authz.operation": ("input", "operation"),
    "authz.enforcer": ("input", "enforcer"),
    "authz.task": ("input", "task", "id"),
    "authz.session": ("input", "task", "session"),
    "authz.outcome": ("result", "outcome"),
    "authz.reason_code": ("result", "reason_code"),
    "authz.tier": ("result", "tier"),
    "authz.enforced": ("result", "enforced"),
    "authz.approval": ("result", "approval", "id"),
}
"""Members of a record that are attributes, if the record has them."""
_NODE_PATHS: Final[Mapping[str, tuple[str, ...]]] = {
    "authz.decision_id": ("decision_id",),
    "authz.task": ("expired", "task"),
    "authz.session": ("expired", "session"),
    "authz.approval": ("expired", "approval"),
    "authz.bundle.name": ("loaded", "bundle"),
    "authz.bundle.revision": ("loaded", "revision"),
}
"""The same for records of the node that are not decisions."""
_NODE_EVENTS: Final = ("loaded", "refused", "expired", "heads", "dropped")


class OtelTarget:
    """Sends records to a collector.

    Args:
        place: The collector's endpoint of logs.
        node: Name of the node: `service.instance.id`.
        version: Version of the software.
        authorization_file: File with the value of the `authorization` header. With None, none is sent.
        fetch: Sends a request.

    Raises:
        ImportError: The extra `otel` is not installed.
    """

    def __init__(
        self,
        place: WebPlace,
        node: str,
        version: str,
        *,
        authorization_file: str | None,
        fetch: Callable[[FetchRequest], Document],
    ) -> None:
        from opentelemetry.proto.collector.logs.v1 import (  # noqa: PLC0415 - an extra
            logs_service_pb2,
        )

        self._response = logs_service_pb2.ExportLogsServiceResponse
        self._place = place
        self._resource = {
            "service.name": "authz",
            "service.version": version,
            "service.instance.id": node,
        }
        self._authorization_file = authorization_file
        self._fetch = fetch

    def send(self, batch: Batch) -> Rejection | None:
        """Send a batch; see `Target`. Of a partial success, only the rejected lines are missing."""
        message = logs_request(batch, self._resource).SerializeToString()
        post = Post(
            gzip.compress(message, mtime=0),
            "application/x-protobuf",
            (("content-encoding", "gzip"),),
        )
        request = self._place.request(
            post, authorization=read_authorization(self._authorization_file)
        )
        try:
            answer = self._fetch(request)
        except FetchError as error:
            raise error_of(error) from error
        return self._read(answer.body)

    def _read(self, body: bytes) -> Rejection | None:
        try:
            partial = self._response.FromString(body).partial_success
        except Exception as error:
            # A proxy that answers every request with a page must not be taken for a collector.
            raise DeliveryError(
                DeliveryErrorKind.REFUSED, "its answer is not one of OTLP"
            ) from error
        if partial.rejected_log_records <= 0:
            return None
        reason = " ".join(partial.error_message.split())
        shown = "".join(one if one.isprintable() else "?" for one in reason)[:_MAX_REASON]
        return Rejection(partial.rejected_log_records, shown or "no reason given")


def logs_request(batch: Batch, resource: Mapping[str, str]) -> "ExportLogsServiceRequest":
    """Return a batch as a message of OTLP: one log record for each line.

    Args:
        batch: Records or heads.
        resource: Attributes of the node.
    """
    from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (  # noqa: PLC0415 - an extra
        ExportLogsServiceRequest,
    )

    request = ExportLogsServiceRequest()
    logs = request.resource_logs.add()
    logs.resource.attributes.extend(_attribute(name, value) for name, value in resource.items())
    scope = logs.scope_logs.add()
    scope.scope.name = "authz.audit"
    make = _head if batch.kind is BatchKind.HEADS else _record
    scope.log_records.extend(make(line) for line in batch.lines())
    return request


def _record(line: bytes) -> "LogRecord":
    """Return a record as a log record. Its body is the line, so that the chain can be verified from it."""
    from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord  # noqa: PLC0415 - an extra

    fields = _parse(line)
    outcome = _member(fields, ("result", "outcome"))
    at = _nanoseconds(_member(fields, ("timestamp",)))
    record = LogRecord(
        time_unix_nano=at,
        # The time of the delivery is not used: a repeated record is the same record.
        observed_time_unix_nano=at,
        severity_number=_SEVERITIES.get(str(outcome), _INFO),  # type: ignore[arg-type]
        severity_text=outcome if isinstance(outcome, str) else "",
        event_name=_event_name(fields),
        trace_id=_identifier(fields.get("trace_id"), 16),
        span_id=_identifier(fields.get("span_id"), 8),
    )
    record.body.string_value = line.decode("utf-8", "replace")
    record.attributes.extend(_attributes(line, fields))
    return record


def _event_name(fields: Mapping[str, Any]) -> str:
    if is_node_record(fields):
        for name in _NODE_EVENTS:
            if name in fields:
                return f"authz.audit.{name}"
    return "authz.audit.record"


def _head(line: bytes) -> "LogRecord":
    from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord  # noqa: PLC0415 - an extra

    record = LogRecord(severity_number=_INFO, event_name="authz.audit.head")  # type: ignore[arg-type]
    record.body.string_value = line.decode("utf-8", "replace")
    try:
        head = read_head(line).head
    except HeadError:
        return record
    record.time_unix_nano = record.observed_time_unix_nano = _nanoseconds(head.at)
    record.attributes.append(_attribute("authz.audit.segment", head.segment))
    record.attributes.append(_attribute("authz.audit.count", head.count))
    return record


def _attributes(line: bytes, fields: Mapping[str, Any]) -> Iterator["KeyValue"]:
    for name, path in (_NODE_PATHS if is_node_record(fields) else _PATHS).items():
        value = _member(fields, path)
        if isinstance(value, str | bool) and value != "":
            yield _attribute(name, value)
    bundles = fields.get("bundles")
    if isinstance(bundles, dict) and len(bundles) == 1:
        ((name, bundle),) = bundles.items()
        yield _attribute("authz.bundle.name", str(name))
        if isinstance(revision := _member(bundle, ("revision",)), str):
            yield _attribute("authz.bundle.revision", revision)
    principals = _member(fields, ("input", "chain"))
    if isinstance(principals, list) and principals:
        yield _attribute("authz.chain", [_principal(one) for one in principals])
    if (link := read_link(line)) is not None:
        yield _attribute("authz.audit.segment", link.segment)
        yield _attribute("authz.audit.index", link.index)


def _attribute(name: str, value: str | bool | int | list[str]) -> "KeyValue":  # noqa: FBT001
    from opentelemetry.proto.common.v1.common_pb2 import KeyValue  # noqa: PLC0415 - an extra

    attribute = KeyValue(key=name)
    if isinstance(value, bool):
        attribute.value.bool_value = value
    elif isinstance(value, int):
        attribute.value.int_value = value
    elif isinstance(value, str):
        attribute.value.string_value = value
    else:
        for one in value:
            attribute.value.array_value.values.add().string_value = one
    return attribute


def _principal(principal: Any) -> str:
    return f"{_member(principal, ('kind',))}:{_member(principal, ('id',))}"


def _parse(line: bytes) -> Mapping[str, Any]:
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return fields if isinstance(fields, dict) else {}


def _member(value: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        if not isinstance(value, dict):
            return None
        value = value.get(name)
    return value


def _nanoseconds(timestamp: Any) -> int:
    try:
        moment = datetime.fromisoformat(timestamp)
    except (TypeError, ValueError):
        return 0
    moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    return round(moment.timestamp() * 1000) * 1_000_000


def _identifier(text: Any, length: int) -> bytes:
    try:
        value = bytes.fromhex(text)
    except (TypeError, ValueError):
        return b""
    return value if len(value) == length else b""
