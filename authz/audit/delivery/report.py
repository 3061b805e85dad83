"""Reports on deliveries: the status of a sink as JSON values, and its problems."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final

from authz.audit.delivery.cursor import Gap
from authz.audit.delivery.worker import SinkStatus
from authz.config import Audit, AuditSink

__all__ = ["age_of", "lag_of", "sink_detail", "sink_lag", "sink_problems"]

_GAP_SECONDS: Final = 7 * 86_400.0
"""Time for which a gap is a problem. The status shows it longer."""


def age_of(timestamp: str, now: float) -> float | None:
    """Return the age of a record in seconds; None if it has no timestamp.

    Args:
        timestamp: RFC 3339; empty without one.
        now: Unix time.
    """
    try:
        moment = datetime.fromisoformat(timestamp)
    except ValueError:
        return None
    moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    return max(0.0, now - moment.timestamp())


def lag_of(status: SinkStatus, now: float) -> float:
    """Return the age of the oldest record that a sink lacks, in seconds; 0 if it has every record."""
    return age_of(status.tail.oldest_at, now) or 0.0


def sink_lag(name: str, sink: AuditSink, status: SinkStatus, now: float) -> str:
    """Return the problem of a sink that is too far behind; empty if it is not.

    Args:
        name: Name of the sink.
        sink: Its configuration.
        status: Its status.
        now: Unix time.
    """
    lag = lag_of(status, now)
    if lag <= sink.max_age:
        return ""
    why = f": {status.last_error}" if status.is_failing else ""
    return f"audit sink {name}: the oldest record that it lacks is {round(lag)} s old{why}"


def sink_problems(name: str, audit: Audit, status: SinkStatus, now: float) -> Iterator[str]:
    """Yield the problems of a sink besides its lag: records that are missing, or are kept or removed against `keep_segments`.

    Args:
        name: Name of the sink.
        audit: The configuration of the audit.
        status: Its status.
        now: Unix time.
    """
    tail = status.tail
    keep = audit.keep_segments if audit.chain else None
    if keep is not None and tail.undelivered_files >= keep:
        most = audit.keep_undelivered_segments
        then = "" if most is None else f", the oldest until there are {most}"
        yield (
            f"audit sink {name}: {tail.undelivered_files} ended segments wait for it, and are kept beyond `audit.keep_segments: {keep}`{then}"
        )
    recent = [gap for gap in tail.gaps if _is_recent(gap, now)]
    if recent:
        yield f"audit sink {name}: {recent[-1].text} (found at {recent[-1].at})"


def sink_detail(sink: AuditSink, status: SinkStatus, now: float) -> dict[str, Any]:
    """Return the status of a sink as JSON values.

    Args:
        sink: Its configuration.
        status: Its status.
        now: Unix time.
    """
    tail = status.tail
    age = age_of(tail.delivered_at, now)
    is_complete = not any(_is_recent(gap, now) for gap in tail.gaps)
    return {
        "kind": sink.kind,
        "required": sink.required,
        "ok": is_complete and not status.is_failing and lag_of(status, now) <= sink.max_age,
        "delivered": {
            "records": tail.delivered_records,
            "newest": tail.delivered_at or None,
            "age_seconds": None if age is None else round(age, 1),
            "segment": tail.place[0] if tail.place else None,
            "index": tail.place[1] if tail.place else None,
            "head": {"segment": tail.head[0], "count": tail.head[1]} if tail.head else None,
        },
        "undelivered": {
            "records": tail.undelivered_records,
            "bytes": tail.undelivered_bytes,
            "ended_files": tail.undelivered_files,
            "oldest": tail.oldest_at or None,
            "age_seconds": round(lag_of(status, now), 1),
        },
        "failing": status.is_failing,
        "last_error": status.last_error or None,
        "last_error_at": _written(status.last_error_at),
        "gaps": {
            "count": tail.gap_count,
            "records": tail.lost_records,
            "last": [{"at": gap.at, "what": gap.text, "records": gap.records} for gap in tail.gaps],
        },
    }


def _is_recent(gap: Gap, now: float) -> bool:
    age = age_of(gap.at, now)
    return age is not None and age < _GAP_SECONDS


def _written(at: float | None) -> str | None:
    if at is None:
        return None
    moment = datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")
    return moment.replace("+00:00", "Z")
