"""`authz demo`: make real calls in a throw-away trust domain."""

import asyncio
import signal
import threading
from collections.abc import Callable
from typing import Annotated

import typer

from authz.cli.render import CommandExit, Terminal
from authz.errors import UsageError
from authz.tools.demo import Demo
from authz.tools.demo.mesh import AgentCall, Mesh, Step

__all__ = ["register"]


_DIFFERS = 2


def register(app: typer.Typer) -> None:
    """Add the verb to the command."""
    app.command("demo")(demo)


def demo(
    *,
    keep: Annotated[
        bool,
        typer.Option(
            "--keep", help="Keep the servers running, and print commands for grpcurl, ghz and curl."
        ),
    ] = False,
    mesh: Annotated[
        bool,
        typer.Option(
            "--mesh",
            help="Run MCP servers behind a gateway, and an agent that does not know Authz.",
        ),
    ] = False,
) -> None:
    """Make calls over gRPC and Envoy in a temporary trust domain. Exit code 2 if one has an unexpected result."""
    terminal = Terminal()
    if mesh:
        if keep:
            raise UsageError("--keep and --mesh cannot be combined")
        _mesh(terminal)
        return
    with Demo(terminal.note) as running:
        rows = list(running.rows())
        terminal.table(
            ("", "by", "who", "asked", "expected", "got", "ms", ""),
            [
                (
                    "ok" if row.well else "WRONG",
                    row.by,
                    row.who,
                    row.asked,
                    row.expected,
                    row.got,
                    f"{row.milliseconds:.2f}",
                    row.note,
                )
                for row in rows
            ],
        )
        wrong = sum(not row.well for row in rows)
        terminal.line(
            f"{len(rows) - wrong} as expected, {wrong} not; build profile: {running.profile}"
            + ("" if running.profile != "debug" else " (latencies of a release are lower)")
        )
        if keep:
            terminal.line(running.paste())
            terminal.note("the servers keep running; press Ctrl-C to stop them")
            _wait_for_signal()
    if wrong:
        raise CommandExit(_DIFFERS)


def _mesh(terminal: Terminal) -> None:
    async def steps(add: Callable[[tuple[str, ...]], None]) -> list[Step]:
        return [step async for step in running.steps(lambda call: add(_called(call)))]

    with Mesh(terminal.note) as running:
        columns = ("the agent calls", "with", "and gets", "judged", "because of")
        with terminal.live(columns) as add:
            seen = asyncio.run(steps(add))
        terminal.table(
            ("", "step", "expected", "got", "ms"),
            [
                (
                    "ok" if step.well else "WRONG",
                    step.what,
                    step.expected,
                    step.got,
                    f"{step.milliseconds:.0f}" if step.milliseconds else "",
                )
                for step in seen
            ],
        )
        terminal.line(running.why)
    if not all(step.well for step in seen):
        raise CommandExit(_DIFFERS)


def _called(call: AgentCall) -> tuple[str, ...]:
    judged = call.judged
    observed = judged is not None and not judged.enforced
    return (
        call.done.tool,
        ", ".join(map(str, call.done.arguments.values())),
        "an error" if call.done.held else "an answer",
        "nobody could" if judged is None else judged.outcome + (", only noted" if observed else ""),
        "" if judged is None or judged.outcome == "PERMIT" else judged.policies or judged.reason,
    )


def _wait_for_signal() -> None:
    stop = threading.Event()
    before = {
        number: signal.signal(number, lambda *_: stop.set())
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    stop.wait()
    for number, handler in before.items():
        signal.signal(number, handler)
