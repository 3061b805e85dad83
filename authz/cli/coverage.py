"""`authz coverage`: which controls of published frameworks a bundle enforces, tests, claims or lacks."""

import time
from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Final

import typer

from authz.analysis.controls import (
    ControlReport,
    ControlState,
    Framework,
    control_report,
    count_seen,
    known_frameworks,
    remove_policies,
)
from authz.audit import span
from authz.bundle import read_coverage, read_folder, read_results
from authz.cli.decision_log import history, log_source
from authz.cli.options import ADMIN, BundleFolder, Vars, offline_variables
from authz.cli.render import CommandExit, Terminal
from authz.cli.render.controls import controls_markdown, controls_page, print_controls
from authz.cli.render.progress import counting_progress
from authz.engine import Plan
from authz.errors import UsageError

__all__ = ["register"]

_FAILED: Final = 2


class ControlFormat(StrEnum):
    """Format of the report."""

    TEXT = "text"
    JSON = "json"
    MARKDOWN = "markdown"
    HTML = "html"


class ControlFailure(StrEnum):
    """States of controls for which the command fails."""

    MISSING = "missing"
    NOT_ENFORCED = "not-enforced"


_FAILING: Final = {
    ControlFailure.MISSING: frozenset({ControlState.MISSING}),
    ControlFailure.NOT_ENFORCED: frozenset(
        {ControlState.MISSING, ControlState.CLAIMED, ControlState.TESTED}
    ),
}


def register(app: typer.Typer) -> None:
    """Add the verb to the command."""
    app.command("coverage")(coverage)


def coverage(
    *,
    folder: BundleFolder,
    var: Vars = None,
    framework: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ID",
            help="Framework of the report: owasp-agentic, owasp-nhi, csa-maestro, nist-ai-rmf or mitre-atlas. Repeatable. Default: all.",
        ),
    ] = None,
    log: Annotated[
        list[str] | None,
        typer.Option(
            "--log",
            metavar="FILE",
            help="Audit file, or `-` for standard input; of several, oldest first. The report counts the decisions that carry each control. Repeatable.",
        ),
    ] = None,
    style: Annotated[
        ControlFormat,
        typer.Option(
            "--format", help="text, json, markdown, or html: one page that loads nothing."
        ),
    ] = ControlFormat.TEXT,
    fail_on: Annotated[
        ControlFailure | None,
        typer.Option(
            "--fail-on",
            help="Exit code 2 if a control is missing; not-enforced: or if no test fails without a policy that names it.",
        ),
    ] = None,
) -> None:
    """Tell which controls of published frameworks a bundle enforces, tests, claims or lacks.

    A control is enforced if a policy names it with @control, and a test of the bundle fails without that policy: the command
    leaves out each such policy once and runs the tests. Exit code 2 if a test fails with all policies, 3 if the bundle is not valid.
    """
    terminal = Terminal()
    chosen = _chosen(framework)
    bundle = read_folder(folder)
    plan = Plan.compile(bundle, offline_variables(bundle, var, terminal.note))
    now_ms = int(time.time() * 1000)
    report = plan.test(bundle, now_ms, covers=True)
    read_results(report).check(bundle.files)
    policies = [policy.id for policy in plan.describe().policies.values() if policy.controls]
    with counting_progress(terminal, len(policies), "leaving out policies") as advance:
        removals = remove_policies(plan, bundle, policies, now_ms, advance)
    seen = None
    if log:
        source = log_source(log, None, None, ADMIN)
        seen = count_seen(history(terminal, source, span("", "", time.time())), chosen)
    result = control_report(plan, chosen, read_coverage(report), removals, seen)
    _print(terminal, result, style)
    if fail_on is not None:
        _fail(terminal, result, fail_on)


def _chosen(ids: Sequence[str] | None) -> tuple[Framework, ...]:
    known = {framework.id: framework for framework in known_frameworks()}
    for id_ in ids or ():
        if id_ not in known:
            raise UsageError(f"--framework {id_}: known are {', '.join(known)}")
    return tuple(framework for id_, framework in known.items() if not ids or id_ in ids)


def _print(terminal: Terminal, report: ControlReport, style: ControlFormat) -> None:
    if style is ControlFormat.JSON:
        terminal.json(report.document())
    elif style is ControlFormat.MARKDOWN:
        print(controls_markdown(report), end="")
    elif style is ControlFormat.HTML:
        print(controls_page(report), end="")
    else:
        print_controls(terminal, report)


def _fail(terminal: Terminal, report: ControlReport, fail_on: ControlFailure) -> None:
    failing = [one for one in report.statuses if one.state in _FAILING[fail_on]]
    if failing:
        ids = ", ".join(one.control.id for one in failing)
        terminal.note(f"--fail-on {fail_on}: {len(failing)} controls: {ids}")
        raise CommandExit(_FAILED)
