"""The tables of `authz exception list`."""

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from google.protobuf.timestamp_pb2 import Timestamp

from authz_client.v1 import admin_pb2

__all__ = ["breakglass_json", "breakglass_rows", "exception_rows", "time_left"]

_DAY_MS: Final = 86_400_000
_HOUR_MS: Final = 3_600_000


def exception_rows(entries: Iterable[Mapping[str, Any]], now: float) -> Iterator[list[str]]:
    """Return a row for each exception: name, caller, owner, ticket and time left, and for a node also uses and last use.

    Args:
        entries: Exceptions of `/readyz`, or exceptions of a bundle, which have no uses.
        now: Unix time.
    """
    for entry in entries:
        row = [str(entry[key]) for key in ("name", "who", "owner", "ticket")]
        row.append(time_left(int(entry["expires_ms"]), now))
        if "uses" in entry:
            row += [str(entry["uses"]), _moment(entry["last_used_ms"])]
        yield row


def time_left(expires_ms: int, now: float) -> str:
    """Return the remaining time of an exception: days, hours on the last day, or `expired`."""
    left = expires_ms - int(now * 1000)
    if left <= 0:
        return "expired"
    if left < _DAY_MS:
        return f"{left // _HOUR_MS} hours"
    days = left // _DAY_MS
    return "1 day" if days == 1 else f"{days} days"


def breakglass_json(request: admin_pb2.Breakglass) -> dict[str, Any]:
    """Return a request for break-glass as an entry of `authz exception list --format json`."""
    status = admin_pb2.BreakglassStatus.Name(request.status)
    return {
        "name": "breakglass",
        "id": request.id,
        "status": status.removeprefix("BREAKGLASS_STATUS_").lower(),
        "system": request.system,
        "agent": request.agent,
        "duration_seconds": request.duration_seconds,
        "reason": request.reason,
        "ticket": request.ticket,
        "opened_by": request.opened_by,
        "opened_at": _time(request.opened_at),
        "confirm_before": _time(request.confirm_before),
        "confirmed_by": request.confirmed_by,
        "confirmed_at": _time(request.confirmed_at) if request.HasField("confirmed_at") else None,
        "ends_at": _time(request.ends_at) if request.HasField("ends_at") else None,
        "ended_by": request.ended_by,
        "ended_at": _time(request.ended_at) if request.HasField("ended_at") else None,
    }


def breakglass_rows(requests: Iterable[Mapping[str, Any]]) -> Iterator[list[str]]:
    """Make a row for each request for break-glass: id, status, calls, people, ticket, end.

    Args:
        requests: Requests, as `breakglass_json` makes them.
    """
    for one in requests:
        calls = f"{one['system']}, {one['agent']}" if one["agent"] else str(one["system"])
        until = one["ended_at"] or one["ends_at"] or one["confirm_before"]
        status = str(one["status"]).replace("_", " ")
        people = [str(one["opened_by"]), str(one["confirmed_by"])]
        yield [str(one["id"]), status, calls, *people, str(one["ticket"]), str(until)]


def _time(at: Timestamp) -> str:
    return f"{at.ToDatetime():%Y-%m-%dT%H:%M:%SZ}"


def _moment(at_ms: int | None) -> str:
    if at_ms is None:
        return "never"
    moment = datetime.fromtimestamp(at_ms / 1000, UTC)
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")
