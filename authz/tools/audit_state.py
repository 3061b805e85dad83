"""State of an audit log as its files tell it, of a node that runs or not."""

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from authz.audit.chain import Link, read_link
from authz.audit.delivery import LogTail, SinkStatus, sink_detail, sink_lag, sink_problems
from authz.audit.heads import HeadError, StoredHead, read_head
from authz.config import Audit
from authz.errors import UnavailableError

__all__ = ["audit_state", "head_state", "state_of_files"]

_TAIL: Final = 1_048_576


def audit_state(detail: Mapping[str, Any]) -> dict[str, Any]:
    """Return the state of the audit log of a running node.

    Args:
        detail: The full status of the node.

    Returns:
        Path, chain, newest head, sinks and problems, as JSON values.
    """
    audit: Mapping[str, Any] = (detail.get("engine") or {}).get("audit") or {}
    sinks: Mapping[str, Any] = detail.get("audit_sinks") or {}
    problems = []
    if not audit.get("writable"):
        problems.append(f"the log cannot be written: {audit.get('last_error') or 'unknown'}")
    if audit.get("chain_damage"):
        problems.append(f"the chain was damaged at the start: {audit['chain_damage']}")
    problems += [str(line) for line in detail.get("problems", ()) if "audit sink " in str(line)]
    return {
        "path": (detail.get("files") or {}).get("audit"),
        "writable": bool(audit.get("writable")),
        "segment": audit.get("segment") or None,
        "segment_records": audit.get("segment_lines") if audit.get("segment") else None,
        "head": head_state(str(audit.get("head") or "")),
        "damage": audit.get("chain_damage") or None,
        "sinks": sinks,
        "problems": [*problems, *_failing(sinks)],
    }


def state_of_files(audit: Audit, now: float) -> dict[str, Any]:
    """Return the state of an audit log from its files. Whether a node can write it is not known.

    Args:
        audit: The configuration.
        now: Unix time.

    Returns:
        The members of `audit_state`.

    Raises:
        UnavailableError: A file cannot be read.
    """
    log = Path(audit.path or "")
    problems: list[str] = []
    sinks: dict[str, Any] = {}
    try:
        for name, sink in sorted(audit.sinks.items()):
            tail = LogTail(log, name, sink.batch_bytes, lambda: now, is_read_only=True)
            tail.look()
            tail.next_batch()
            status = SinkStatus(tail=tail.status())
            tail.close()
            sinks[name] = sink_detail(sink, status, now)
            if lag := sink_lag(name, sink, status, now):
                problems.append(lag)
            problems += sink_problems(name, audit, status, now)
        link = _last_link(log)
        head = _newest_head(log)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UnavailableError(f"{log}: {reason}") from error
    return {
        "path": str(log),
        "writable": None,
        "segment": link.segment if link else None,
        "segment_records": link.index + 1 if link else None,
        "head": head_state(head),
        "damage": None,
        "sinks": sinks,
        "problems": problems,
    }


def head_state(text: str) -> dict[str, Any] | None:
    """Return a head as JSON values; None without one. Its signature is not verified.

    Args:
        text: The head as the node writes it.
    """
    if not text:
        return None
    try:
        stored = read_head(text.strip())
    except HeadError as error:
        return {"error": str(error)}
    head = stored.head
    return {
        "segment": head.segment,
        "count": head.count,
        "at": head.at,
        "sealed": head.sealed,
        "kid": _kid(stored),
    }


def _failing(sinks: Mapping[str, Any]) -> list[str]:
    return [
        f"audit sink {name}: the last delivery failed: {sink['last_error']}"
        for name, sink in sinks.items()
        if sink.get("failing")
    ]


def _kid(stored: StoredHead) -> str | None:
    if not stored.protected:
        return None
    padded = stored.protected + "=" * (-len(stored.protected) % 4)
    try:
        return str(json.loads(base64.urlsafe_b64decode(padded))["kid"])
    except (ValueError, KeyError, TypeError):
        return None


def _last_link(log: Path) -> Link | None:
    try:
        with log.open("rb") as stream:
            size = stream.seek(0, 2)
            stream.seek(max(0, size - _TAIL))
            lines = stream.read().split(b"\n")
    except FileNotFoundError:
        return None
    links = (read_link(line) for line in reversed(lines[:-1]))
    return next((link for link in links if link is not None), None)


def _newest_head(log: Path) -> str:
    """Return the newest of the heads beside a log; empty without one."""
    heads: list[str] = []
    for suffix in (".heads", ".head"):
        file = log.with_name(log.name + suffix)
        if file.exists():
            heads += file.read_text().splitlines()[-1:]
    return max(heads, key=_place, default="")


def _place(text: str) -> tuple[int, int]:
    head = head_state(text) or {}
    return head.get("segment", 0), head.get("count", 0)
