"""Reads JSON lines of calls.

A member that is not known makes its line not understood: a call without it might be another call.
"""

from collections.abc import Mapping
from typing import Any, Final

from authz.audit import Lines
from authz.tools.simulate.session import (
    Caller,
    SessionReading,
    SessionStep,
    json_lines,
    milliseconds,
)

__all__ = ["OWN_TASK", "read_call_lines", "start_of"]

OWN_TASK: Final = "task"
"""Name of the task that a session begins with."""
_CALL: Final[Mapping[str, str]] = {
    "input": "input",
    "resource": "resource",
    "destinations": "destinations",
    "labels": "labels",
    "supported_obligations": "supported_obligations",
    "enforcer": "enforcer",
    "satisfied": "satisfied",
    "confidence": "confidence",
    "as": "as",
    "task": "task",
    "name": "name",
}
_KINDS: Final = ("call", "start", "delegate", "report", "end")
_NO_TASK: Final = "none"


def start_of(caller: Caller) -> SessionStep | None:
    """Return the start of the task that a session begins with. None: it begins with no task."""
    if not caller.template:
        return None
    request = {
        "name": OWN_TASK,
        "as": caller.document(),
        "template": caller.template,
        "prompt": caller.prompt,
    }
    return SessionStep(0, "start", request)


def read_call_lines(stream: Lines, caller: Caller) -> SessionReading:
    """Read a session from JSON lines.

    Args:
        stream: Lines, each with `call`, `start`, `delegate`, `report` or `end`, and optionally `at`.
        caller: Caller of calls that name none.
    """
    reading = SessionReading("calls")
    if (start := start_of(caller)) is not None:
        reading.add(start)
    last = ""
    for number, line in json_lines(stream, reading):
        kinds = [kind for kind in _KINDS if kind in line]
        at = milliseconds(line.get("at"))
        if len(kinds) != 1:
            _miss(reading, number, "exactly one of call, start, delegate, report and end is needed")
        elif "at" in line and at is None:
            _miss(reading, number, "`at` is not a time")
        elif (kind := kinds[0]) == "call":
            last = _call(reading, number, line, caller) or last
        else:
            _act(reading, number, kind, line, last)
    return reading


def _miss(reading: SessionReading, number: int, what: str) -> None:
    reading.misses_call = True
    reading.gap(number, what)


def _call(
    reading: SessionReading, number: int, line: Mapping[str, Any], caller: Caller
) -> str | None:
    unknown = sorted(line.keys() - _CALL.keys() - {"call", "at"})
    if unknown:
        _miss(reading, number, f"unknown member {unknown[0]!r}")
        return None
    if not isinstance(line["call"], str):
        _miss(reading, number, "`call` is not an operation")
        return None
    name = line.get("name", f"line {number}")
    request: dict[str, Any] = {"operation": line["call"], "name": name}
    request |= {_CALL[key]: value for key, value in line.items() if key in _CALL}
    if "task" not in request and "as" not in request and caller.template:
        request["task"] = OWN_TASK
    if request.get("task") in {_NO_TASK, None}:
        request.pop("task", None)
        request.setdefault("as", caller.document())
        if not request["as"]:
            _miss(reading, number, "the call has no caller: give `as`, or --agent or --subject")
            return None
    reading.add(SessionStep(number, "call", request, milliseconds(line.get("at"))))
    return str(name)


def _act(
    reading: SessionReading, number: int, kind: str, line: Mapping[str, Any], last: str
) -> None:
    unknown = sorted(line.keys() - {kind, "at"})
    form = line[kind]
    if unknown:
        _miss(reading, number, f"unknown member {unknown[0]!r}")
        return
    if kind == "end":
        request: Any = form if isinstance(form, str) else OWN_TASK
    elif isinstance(form, dict):
        request = {"of": last, **form} if kind == "report" else {"name": OWN_TASK, **form}
    else:
        _miss(reading, number, f"`{kind}` is not an object")
        return
    reading.add(SessionStep(number, kind, request, milliseconds(line.get("at"))))
