"""`authz check`: compile a bundle and print its errors and warnings."""

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

import typer

from authz import __version__
from authz.analysis.sarif import diagnostics_log
from authz.bundle import (
    MANIFEST,
    CheckFacts,
    check_bundle,
    corrected,
    differences,
    read_folder,
    write_corrections,
)
from authz.cli.options import BundleFolder, ConfigFile, Vars, configuration, variables
from authz.cli.render import CommandExit, Terminal
from authz.cli.render.github import annotation_lines, diagnostic_annotations, place_in
from authz.engine import Plan
from authz.errors import BundleError, UsageError
from authz.model import BundleFiles, Diagnostic

__all__ = ["register"]

_REFUSED: Final = 3
_SHOWN_AGENTS: Final = 3
_ROUNDS: Final = 8


class CheckFormat(StrEnum):
    """Format of the output."""

    TEXT = "text"
    GITHUB = "github"
    SARIF = "sarif"


def register(app: typer.Typer) -> None:
    """Add the verb to the command."""
    app.command("check")(check)


def check(
    *,
    folder: BundleFolder,
    config: ConfigFile = None,
    var: Vars = None,
    strict: Annotated[bool, typer.Option("--strict", help="Treat warnings as errors.")] = False,
    fix: Annotated[
        bool,
        typer.Option(
            "--fix",
            help="Correct misspelt names that have a likely spelling, in the files of the bundle. Prints the difference.",
        ),
    ] = False,
    style: Annotated[
        CheckFormat,
        typer.Option(
            "--format",
            help="text; github: workflow commands that GitHub Actions shows beside the lines; sarif: SARIF 2.1.0 for code scanning.",
        ),
    ] = CheckFormat.TEXT,
) -> None:
    """Compile a bundle and print every error and warning. Exit code 3 if it is not valid.

    With --config, the variables and the issuers that the bundle names are looked up in that configuration.
    """
    terminal = Terminal()
    facts = _facts(config, var)
    if fix:
        _correct(terminal, folder, facts)
    try:
        checked = check_bundle(read_folder(folder), facts, terminal.note)
    except BundleError as error:
        _print_diagnostics(terminal, style, folder, error.diagnostics, is_refused=True)
        raise
    _print_diagnostics(terminal, style, folder, checked.warnings, subject=checked.plan.name)
    if style is CheckFormat.TEXT:
        _print_summary(terminal, checked.plan)
    if strict and checked.warnings:
        raise CommandExit(_REFUSED)
    terminal.hint(f"Next: authz test {folder}")


def _print_diagnostics(
    terminal: Terminal,
    style: CheckFormat,
    folder: Path,
    found: Sequence[Diagnostic],
    *,
    subject: str = "",
    is_refused: bool = False,
) -> None:
    """Print errors and warnings in a format. As text, the errors of a refused bundle are printed where the command ends."""
    if style is CheckFormat.SARIF:
        terminal.json(diagnostics_log(found, __version__, subject or folder.name, place_in(folder)))
    elif style is CheckFormat.GITHUB:
        for line in annotation_lines(diagnostic_annotations(found, folder, title="authz check")):
            terminal.line(line)
    elif not is_refused:
        terminal.diagnostics(found)


def _correct(terminal: Terminal, folder: Path, facts: CheckFacts) -> None:
    """Correct misspelt names. A corrected name may let the next check find another one, so there are several rounds."""
    if (folder / MANIFEST).exists():
        raise UsageError(
            f"{folder / MANIFEST} seals the bundle; correct its source, and seal it again"
        )
    bundle = first = read_folder(folder)
    for _ in range(_ROUNDS):
        try:
            found = check_bundle(bundle, facts).warnings
        except BundleError as error:
            found = error.diagnostics
        changed = corrected(bundle.files, found)
        if not changed:
            break
        bundle = BundleFiles(bundle.root, {**bundle.files, **changed})
    changes = {
        path: content for path, content in bundle.files.items() if content != first.files[path]
    }
    write_corrections(folder, changes)
    for line in differences(first.files, changes):
        terminal.line(line)


def _facts(config: Path | None, var: list[str] | None) -> CheckFacts:
    given = variables(var)
    if config is None:
        return CheckFacts(given)
    loaded = configuration(config, None)
    return CheckFacts(
        {**loaded.vars, **given},
        tuple(loaded.trust.issuers),
        has_guards=bool(loaded.guards),
        is_complete=True,
    )


def _print_summary(terminal: Terminal, plan: Plan) -> None:
    """Print what the bundle has, and which refusals `mode` does not soften."""
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
