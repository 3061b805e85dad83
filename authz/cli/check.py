"""`authz check`: compile a bundle and print its errors and warnings."""

import time
from datetime import UTC, datetime
from typing import Annotated, Final

import typer

from authz.bundle import read_folder
from authz.cli.options import BundleFolder, Vars, offline_variables
from authz.cli.render import CommandExit, Terminal
from authz.engine import Plan

__all__ = ["register"]

_REFUSED: Final = 3
_SHOWN_AGENTS: Final = 3


def register(app: typer.Typer) -> None:
    """Add the verb to the command."""
    app.command("check")(check)


def check(
    *,
    folder: BundleFolder,
    var: Vars = None,
    strict: Annotated[bool, typer.Option("--strict", help="Treat warnings as errors.")] = False,
) -> None:
    """Compile a bundle and print every error and warning. Exit code 3 if it is not valid."""
    terminal = Terminal()
    bundle = read_folder(folder)
    plan = Plan.compile(bundle, offline_variables(bundle, var, terminal.note))
    terminal.diagnostics(plan.warnings)
    terminal.line(
        f"{plan.name} {plan.revision} {plan.digest[:12]}: {plan.policy_count} policies, "
        f"{plan.operation_count} operations of {len(plan.systems)} systems"
    )
    for entry in plan.observing:
        until = datetime.fromtimestamp(entry.until, UTC).isoformat().replace("+00:00", "Z")
        terminal.line(f"observe: {entry}, until {until} ({entry.owner})")
    stops = plan.early_stops(int(time.time() * 1000))
    for stop in stops.systems:
        terminal.line(f"enforced where a request stops early: {stop}")
    if stops.agents:
        shown = ", ".join(stops.agents[:_SHOWN_AGENTS])
        terminal.line(
            f"enforced where the agent or its task is not known, since it may be: {shown}"
        )
    if strict and plan.warnings:
        raise CommandExit(_REFUSED)
