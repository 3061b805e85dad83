"""`authz audit status`: how far an audit log is written, proved and delivered."""

import json
import time
from collections.abc import Iterator, Mapping
from typing import Any, Final

from authz.cli.options import ADMIN, Address, ConfigFile, Format, OutputFormat, Sets, configuration
from authz.cli.render import CommandExit, Terminal
from authz.errors import UsageError
from authz.tools.audit_state import audit_state, state_of_files
from authz.tools.remote import Remote

__all__ = ["log_status"]

_KIB: Final = 1024.0


def log_status(
    *,
    config: ConfigFile = None,
    sets: Sets = None,
    address: Address = ADMIN,
    style: Format = OutputFormat.TEXT,
) -> None:
    """Show how far an audit log is written, proved by heads, and delivered to sinks.

    With --config the files are read, whether a node runs or not. Exit code 1: something is wrong.
    """
    if config is not None or sets:
        audit = configuration(config, sets).audit
        if audit.path is None:
            raise UsageError("the configuration has no `audit.path`")
        state = state_of_files(audit, time.time())
    else:
        state = audit_state(json.loads(Remote(address).status().detail_json))
    terminal = Terminal()
    if style is OutputFormat.JSON:
        terminal.json(state)
    else:
        terminal.table(("", str(state["path"] or "")), list(_rows(state)))
    if state["problems"]:
        raise CommandExit(1)


def _rows(state: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if state["writable"] is not None:
        yield "writable", "yes" if state["writable"] else "no"
    if state["segment"] is None:
        yield "chain", "none"
    else:
        yield "chain", f"segment {state['segment']}, {state['segment_records']} records"
        yield "newest head", _head(state["head"])
    for name, sink in state["sinks"].items():
        yield f"sink {name}", f"{sink['kind']}, {'ok' if sink['ok'] else 'NOT ok'}"
        yield "", _delivered(sink["delivered"])
        yield "", _undelivered(sink["undelivered"])
        if sink["last_error"]:
            state_of_error = "fails" if sink["failing"] else "last error"
            yield "", f"{state_of_error}, {sink['last_error_at']}: {sink['last_error']}"
        for gap in sink["gaps"]["last"]:
            yield "", f"gap, {gap['at']}: {gap['what']}"
    for problem in state["problems"]:
        yield "problem", problem


def _head(head: Mapping[str, Any] | None) -> str:
    if head is None:
        return "none"
    if "error" in head:
        return f"not valid: {head['error']}"
    signed = f"signed by {head['kid']}" if head["kid"] else "not signed"
    ends = ", ends the segment" if head["sealed"] else ""
    return f"{head['count']} records of segment {head['segment']}, {head['at']}, {signed}{ends}"


def _delivered(delivered: Mapping[str, Any]) -> str:
    if delivered["newest"] is None:
        return "delivered: nothing"
    place = ""
    if delivered["segment"] is not None:
        place = f", record {delivered['index']} of segment {delivered['segment']}"
    head = delivered["head"]
    proved = f", head of {head['count']} records of segment {head['segment']}" if head else ""
    age = _age(delivered["age_seconds"])
    return f"delivered up to {delivered['newest']} ({age} ago){place}{proved}"


def _undelivered(undelivered: Mapping[str, Any]) -> str:
    if not undelivered["bytes"] and not undelivered["oldest"]:
        return "undelivered: nothing"
    size = undelivered["bytes"] / _KIB
    return (
        f"undelivered: {undelivered['records']} records, {size:.1f} KiB, the oldest "
        f"{_age(undelivered['age_seconds'])} old"
    )


def _age(seconds: float) -> str:
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
