"""The table of `authz status`."""

import time
from collections.abc import Iterator, Mapping
from typing import Any, Final

from authz.cli.render.exceptions import time_left
from authz_client.v1 import admin_pb2

__all__ = ["approval_status_rows", "status_rows"]

_MINUTE: Final = 60


def status_rows(
    status: admin_pb2.StatusResponse, detail: Mapping[str, Any]
) -> list[tuple[str, str]]:
    """Make the rows of the table from a node's answer and its detail."""
    bundle = f"{status.bundle_name} {status.bundle_revision} {status.bundle_digest[:12]}"
    return [
        ("version", f"{status.version} ({detail.get('build_profile', '')})"),
        ("ready", "yes" if status.ready else "no"),
        ("bundle", bundle),
        ("from", (detail.get("files") or {}).get("bundle", "")),
        ("loaded", status.bundle_loaded_at.ToJsonString()),
        ("trust", status.trust_revision[:12]),
        *(("problem", problem) for problem in status.problems),
        *(("refused", line) for line in status.last_reload_error.splitlines()),
        *(("keys", _keys(entry)) for entry in (detail.get("trust") or {}).get("sources", ())),
        *(("listener", line) for line in _listeners(detail)),
        *(("audit", line) for line in _audit(detail)),
        *(("sink", line) for line in _sinks(detail)),
        *(("state", line) for line in _state(detail)),
        *(("shadow", line) for line in _shadow(detail)),
        *(("observing", _observing(entry)) for entry in detail.get("observing", ())),
        *(("exception", line) for line in _exceptions(detail)),
    ]


def approval_status_rows(approvals: Mapping[str, Any] | None) -> Iterator[tuple[str, str]]:
    """Make the rows about calls that wait for a person; no rows without such calls."""
    if approvals is None or not approvals["open"]:
        return
    more = " or more" if approvals["more"] else ""
    age = approvals["oldest_seconds"] or 0
    oldest = f"{age} s" if age < _MINUTE else f"{age // _MINUTE} min"
    yield "approvals", f"{approvals['open']}{more} open, the oldest for {oldest}"
    for queue, count in approvals["queues"].items():
        yield "approvals", f"{queue}: {count}"


def _shadow(detail: Mapping[str, Any]) -> Iterator[str]:
    shadow = detail.get("shadow")
    if not shadow:
        return
    if shadow["digest"]:
        name = f"{shadow['bundle']} {shadow['revision']} {shadow['digest'][:12]}"
        yield f"{name} from {shadow['path']}, loaded {shadow['loaded_at']}"
    counts = ((detail.get("engine") or {}).get("shadow") or {}).get("decisions") or {}
    if counts:
        yield ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in counts.items())
    for line in shadow["refused"]:
        yield f"refused: {line}"


def _listeners(detail: Mapping[str, Any]) -> Iterator[str]:
    roles = dict(
        str(line).split(": ", 1) for line in (detail.get("engine") or {}).get("listeners", ())
    )
    for name, address in (detail.get("listeners") or {}).items():
        role = f": {roles[name]}" if name in roles else ""
        yield f"{name} {address}{role}"


def _audit(detail: Mapping[str, Any]) -> Iterator[str]:
    audit = (detail.get("engine") or {}).get("audit") or {}
    if not audit:
        return
    stands = "written" if audit["writable"] else f"NOT written: {audit['last_error']}"
    yield f"{(detail.get('files') or {}).get('audit', '')}, {stands}"
    yield (
        f"{audit['written_lines']} records since the start, {audit['queued_lines']} wait, "
        f"{audit['refused_lines']} refused, {audit['dropped_refusals']} dropped"
    )
    if count := audit.get("dropped_lines"):
        yield f"{count} decisions were answered without a record, because the queue was full"


def _sinks(detail: Mapping[str, Any]) -> Iterator[str]:
    for name, sink in (detail.get("audit_sinks") or {}).items():
        left = sink["undelivered"]
        stands = "ok" if sink["ok"] else "NOT ok: see authz audit status"
        yield f"{name}, {left['records']} records wait, {stands}"


def _state(detail: Mapping[str, Any]) -> Iterator[str]:
    engine = detail.get("engine") or {}
    state = engine.get("state") or {}
    if not state:
        return
    works = state["reachable"] and state["writable"]
    stands = "kept" if works else f"NOT kept: {state['last_error']}"
    yield f"{state['engine']}, {stands}; {state['tasks']} tasks, {engine['revocations']} revocations"
    yield from (str(warning) for warning in state["warnings"])


def _keys(entry: Mapping[str, Any]) -> str:
    age = entry["age_seconds"]
    known = "never fetched" if age is None else f"known {age:.0f} s ago"
    usable = "dropped, too old" if entry["stale"] else f"{entry['keys']} usable"
    return f"{entry['kind']} {entry['name']}: {usable}, {known}, {entry['from']}"


def _exceptions(detail: Mapping[str, Any]) -> Iterator[str]:
    """Tell of each standing exception how long it lasts, and how often it was used."""
    for entry in (detail.get("engine") or {}).get("exceptions") or ():
        left = time_left(int(entry["expires_ms"]), time.time())
        end = left if left == "expired" else f"{left} left"
        yield f"{entry['name']}: {end}, {entry['uses']} uses since the start ({entry['owner']}, {entry['ticket']})"


def _observing(entry: Mapping[str, Any]) -> str:
    what = f"{entry['scope']} {entry['name']}" if entry["name"] else "everything else"
    if not entry["active"]:
        return f"{what} ended {entry['until']}; it is enforced ({entry['owner']})"
    return f"{what} until {entry['until']}, then it is enforced ({entry['owner']})"
