"""`authz simulate`: take a session through a bundle, step by step."""

import sys
from collections.abc import Sequence
from contextlib import nullcontext
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from authz.audit import Lines, ReadCounts, Span
from authz.audit.reader import open_log
from authz.cli.decision_log import Damage, Logs, LogSource, log_source, record_history
from authz.cli.options import BundleFolder, Vars
from authz.cli.render import Terminal
from authz.cli.render.simulation import print_simulation
from authz.cli.replay_run import compile_folder, print_json
from authz.errors import UsageError
from authz.tools.catalog.tool import plain
from authz.tools.simulate import (
    Caller,
    SessionReading,
    read_audit_session,
    read_call_lines,
    read_mcp_log,
    simulate,
)

__all__ = ["register"]


class SimulationFormat(StrEnum):
    """Format of the output."""

    TEXT = "text"
    JSON = "json"


class SessionSource(StrEnum):
    """Form of a file with a session."""

    CALLS = "calls"
    MCP = "mcp"


def register(app: typer.Typer) -> None:
    """Add the verb to the command."""
    app.command(
        "simulate",
        epilog="Example: authz simulate bundle/ --session calls.jsonl --agent spiffe://a.example/bot",
    )(simulate_session)


def simulate_session(
    *,
    folder: BundleFolder,
    session: Annotated[
        str,
        typer.Option(
            help="File with the session, or `-` for standard input. With --log: id of the session in the log."
        ),
    ],
    log: Logs = None,
    source: Annotated[
        SessionSource | None,
        typer.Option(
            "--source",
            help="Form of the file: calls (JSON lines of calls) or mcp (messages of MCP). Default: as its first line says.",
        ),
    ] = None,
    agent: Annotated[
        str, typer.Option(help="SPIFFE id of the agent that makes the calls that name no caller.")
    ] = "",
    subject: Annotated[
        str, typer.Option(help="Subject of these calls: alias of the issuer, `/`, `sub`.")
    ] = "",
    template: Annotated[
        str, typer.Option(help="Template of a task that the session begins with. Default: no task.")
    ] = "",
    prompt: Annotated[str, typer.Option(help="Prompt of that task.")] = "",
    server: Annotated[
        list[str] | None,
        typer.Option(
            "--server",
            metavar="[NAME=]SYSTEM",
            help="System of the bundle for a server of the log; without NAME for messages that name none. Repeatable.",
        ),
    ] = None,
    style: Annotated[
        SimulationFormat, typer.Option("--format", help="text or json")
    ] = SimulationFormat.TEXT,
    var: Vars = None,
) -> None:
    """Take a session through a bundle, and carry labels, sequences and budgets from step to step.

    Parts of the session that are not understood are listed. The same bundle and session give the same output.
    """
    terminal = Terminal()
    caller = _caller(agent, subject, template, prompt)
    if log:
        reading = _read_log(terminal, log, session)
    else:
        reading = _read_file(session, source, caller, server or ())
    plan = compile_folder(terminal, folder, LogSource(), var)
    document = simulate(plan, reading).document()
    if style is SimulationFormat.JSON:
        print_json(document)
    else:
        print_simulation(terminal, document)


def _caller(agent: str, subject: str, template: str, prompt: str) -> Caller:
    issuer, slash, sub = subject.partition("/")
    if subject and not (issuer and slash and sub):
        raise UsageError(f"--subject {plain(subject, 80)}: write ISSUER/SUB")
    if template and not agent:
        raise UsageError("--template: a task is an agent's; give --agent, too")
    return Caller(agent, issuer, sub, template, prompt)


def _read_log(terminal: Terminal, log: list[str], session: str) -> SessionReading:
    damage = Damage()
    records = record_history(
        terminal, log_source(log, None, None, ""), Span(), ReadCounts(), damage
    )
    reading = read_audit_session(records, session)
    if not reading.lines:
        raise UsageError(f"no record of the session {plain(session, 80)} in the log")
    if damage.lines:
        reading.misses_call = True
        reading.gap(0, f"{damage.lines} lines of the log are not records")
    return reading


def _read_file(
    session: str, source: SessionSource | None, caller: Caller, servers: Sequence[str]
) -> SessionReading:
    named = dict(text.split("=", 1) for text in servers if "=" in text)
    defaults = [text for text in servers if "=" not in text]
    if len(defaults) > 1:
        raise UsageError("--server SYSTEM: give one system for messages that name no server")
    opened = nullcontext(sys.stdin.buffer) if session == "-" else open_log(Path(session))
    with opened as stream:
        lines = _Peeked(stream)
        if (source or _source_of(lines.first)) is SessionSource.MCP:
            return read_mcp_log(lines, caller, named, defaults[0] if defaults else "")
        return read_call_lines(lines, caller)


def _source_of(line: bytes) -> SessionSource:
    is_mcp = b'"jsonrpc"' in line or b'\\"jsonrpc\\"' in line
    return SessionSource.MCP if is_mcp else SessionSource.CALLS


class _Peeked:
    """A stream with its first line at hand."""

    _MOST = 65_536

    def __init__(self, stream: Lines) -> None:
        self._stream = stream
        self.first = stream.readline(self._MOST)
        self._rest = self.first

    def readline(self, size: int, /) -> bytes:
        """Read a line, but no more than `size` bytes."""
        if not self._rest:
            return self._stream.readline(size)
        line, self._rest = self._rest, b""
        if line.endswith(b"\n") or len(line) < self._MOST:
            return line
        return line + self._stream.readline(size - len(line))
