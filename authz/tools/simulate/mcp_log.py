"""Reads messages of MCP, as inspectors and proxies record them: one JSON-RPC message a line, alone or in an envelope.

An envelope is an object that holds the message in `message`, `payload`, `data`, `msg` or `raw` (also as text), with a time in
`timestamp`, `time`, `ts` or `at`, and the name of the server in `server`.
"""

from collections.abc import Mapping
from typing import Any, Final

from authz.audit import Lines
from authz.tools.simulate.call_lines import OWN_TASK, start_of
from authz.tools.simulate.session import (
    Caller,
    SessionReading,
    SessionStep,
    json_lines,
    milliseconds,
    strict_loads,
)

__all__ = ["read_mcp_log"]

_HOLDERS: Final = ("message", "payload", "data", "msg", "raw")
_TIMES: Final = ("timestamp", "time", "ts", "at")
_MAX_OPEN: Final = 10_000


def read_mcp_log(
    stream: Lines, caller: Caller, servers: Mapping[str, str], default: str
) -> SessionReading:
    """Read a session from messages of MCP. Each `tools/call` is a call of the operation `SYSTEM.TOOL`.

    Args:
        stream: Messages, one a line.
        caller: Caller of every call.
        servers: System of the bundle by name of the server in the log.
        default: System of messages that name no server; empty: such calls are not understood.
    """
    reading = SessionReading("mcp")
    if (start := start_of(caller)) is not None:
        reading.add(start)
    open_calls: dict[tuple[str, str], str] = {}
    for number, line in json_lines(stream, reading):
        message, envelope = _message(line)
        if message is None:
            reading.misses_call = True
            reading.gap(number, "not a JSON-RPC message")
            continue
        at = next(
            (at for key in _TIMES if (at := milliseconds(envelope.get(key))) is not None), None
        )
        server = envelope.get("server")
        server = server if isinstance(server, str) else ""
        method = message.get("method")
        key = (server, repr(message.get("id")))
        if method == "tools/call":
            of = servers.get(server, server) or default
            name = _call(reading, (number, at), message, of, caller)
            if name and "id" in message and len(open_calls) < _MAX_OPEN:
                open_calls[key] = name
        elif isinstance(method, str):
            reading.others[method] += 1
        elif key in open_calls:
            result = message.get("result")
            failed = "error" in message or (
                isinstance(result, dict) and result.get("isError") is True
            )
            request = {"of": open_calls.pop(key), "result": "failed" if failed else "ok"}
            reading.add(SessionStep(number, "report", request, at))
        else:
            reading.others["answer to another request"] += 1
    if open_calls:
        reading.others["call without an answer"] += len(open_calls)
    return reading


def _message(line: Mapping[str, Any]) -> tuple[Mapping[str, Any] | None, Mapping[str, Any]]:
    """Return the JSON-RPC message of a line, and its envelope."""
    if _is_message(line):
        return line, {key: line[key] for key in ("server", *_TIMES) if key in line}
    for holder in _HOLDERS:
        inner = line.get(holder)
        if isinstance(inner, str):
            try:
                inner = strict_loads(inner)
            except (ValueError, RecursionError):
                continue
        if isinstance(inner, dict) and _is_message(inner):
            return inner, line
    return None, line


def _is_message(value: Mapping[str, Any]) -> bool:
    return value.get("jsonrpc") == "2.0" and ("method" in value or "id" in value)


def _call(
    reading: SessionReading,
    place: tuple[int, int | None],
    message: Mapping[str, Any],
    of: str,
    caller: Caller,
) -> str:
    number, at = place
    params = message.get("params")
    tool = params.get("name") if isinstance(params, dict) else None
    arguments = params.get("arguments", {}) if isinstance(params, dict) else None
    if not isinstance(tool, str) or not isinstance(arguments, dict):
        problem = "a `tools/call` without name or with arguments that are not an object"
    elif not of:
        problem = "the message names no server: give --server SYSTEM"
    elif not caller.document():
        problem = "the call has no caller: give --agent or --subject"
    else:
        name = f"line {number}"
        request: dict[str, Any] = {"name": name, "operation": f"{of}.{tool}", "input": arguments}
        request |= {"task": OWN_TASK} if caller.template else {"as": caller.document()}
        reading.add(SessionStep(number, "call", request, at))
        return name
    reading.misses_call = True
    reading.gap(number, problem)
    return ""
