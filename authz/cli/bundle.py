"""Verbs about a bundle: init, check, fmt, test, schema."""

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from authz.bundle import outcome, read_folder
from authz.cli.options import BundleFolder, Vars, offline_variables
from authz.cli.show import Ended, Show
from authz.config import json_schema
from authz.engine import Plan, bundle_schema, case_schema, format_policy
from authz.errors import UsageError
from authz.tools.junit import write_junit
from authz.tools.scaffold import write_template

__all__ = ["register"]

_WOULD_CHANGE = 2
_OBSERVED_DAYS = 30
_SHOWN_AGENTS = 3


def register(app: typer.Typer) -> None:
    """Add the verbs.

    Args:
        app: The command.
    """
    app.command("init")(init)
    app.command("check")(check)
    app.command("fmt")(fmt)
    app.command("test")(run_tests)
    app.command("schema")(schema)


def init(
    *,
    folder: Annotated[Path, typer.Argument(help="A new folder.", file_okay=False)] = Path("bundle"),
    enforce: Annotated[
        bool, typer.Option("--enforce", help="Enforce denials at once, instead of in 30 days.")
    ] = False,
) -> None:
    """Write a bundle that you can edit; for 30 days its denials are only noted, unless told otherwise."""
    show = Show()
    until = None if enforce else datetime.now(UTC).date() + timedelta(days=_OBSERVED_DAYS)
    for file in write_template(folder, until):
        show.line(str(file))
    if until is not None:
        show.note(
            f"Denials are only noted, and the calls let through, until {until}: see {folder}/mode.yaml, and put "
            "its owner in. `authz init --enforce` enforces at once."
        )
    show.note(f"Next: authz check {folder}; authz test {folder}")


def check(
    *,
    folder: BundleFolder,
    var: Vars = None,
    strict: Annotated[bool, typer.Option("--strict", help="Warnings refuse too.")] = False,
) -> None:
    """Compile a bundle and print every defect; exits with 3 where it is refused."""
    show = Show()
    bundle = read_folder(folder)
    plan = Plan.compile(bundle, offline_variables(bundle, var, show.note))
    show.diagnostics(plan.warnings)
    show.line(
        f"{plan.name} {plan.revision} {plan.digest[:12]}: {plan.policy_count} policies, "
        f"{plan.operation_count} operations of {len(plan.systems)} systems"
    )
    for entry in plan.observing:
        until = datetime.fromtimestamp(entry.until, UTC).isoformat().replace("+00:00", "Z")
        show.line(f"observe: {entry}, until {until} ({entry.owner})")
    stops = plan.early_stops(int(time.time() * 1000))
    for stop in stops.systems:
        show.line(f"enforced where a request stops early: {stop}")
    if stops.agents:
        shown = ", ".join(stops.agents[:_SHOWN_AGENTS])
        show.line(f"enforced where the agent or its task is not known, since it may be: {shown}")
    if strict and plan.warnings:
        raise Ended(3)


def fmt(
    *,
    paths: Annotated[list[Path], typer.Argument(help="Cedar files, or folders of them.")],
    only_check: Annotated[
        bool, typer.Option("--check", help="Write nothing; exit with 2 if something would change.")
    ] = False,
) -> None:
    """Format Cedar files."""
    show = Show()
    changed = 0
    for path in paths:
        if not path.exists():
            raise UsageError(f"{path} does not exist")
        for file in sorted(path.rglob("*.cedar")) if path.is_dir() else [path]:
            text = file.read_text()
            formatted = format_policy(text, str(file))
            if formatted == text:
                continue
            changed += 1
            show.line(f"{'would change' if only_check else 'formatted'} {file}")
            if not only_check:
                file.write_text(formatted)
    if only_check and changed:
        raise Ended(_WOULD_CHANGE)


def run_tests(
    *,
    folder: BundleFolder,
    var: Vars = None,
    junit: Annotated[
        Path | None, typer.Option(help="Write JUnit XML here.", dir_okay=False)
    ] = None,
) -> None:
    """Run a bundle's own tests; exits with 2 where one fails, with 3 where the bundle is refused."""
    show = Show()
    bundle = read_folder(folder)
    plan = Plan.compile(bundle, offline_variables(bundle, var, show.note))
    tests = outcome(plan.test(bundle, int(time.time() * 1000)))
    if junit is not None:
        write_junit(tests, junit)
    if tests.failures:
        show.table(
            ("test", "step", "where", "expected", "got"),
            [
                (
                    failure.test,
                    str(failure.step),
                    f"{failure.file}:{failure.line}",
                    failure.expected,
                    failure.actual or failure.message,
                )
                for failure in tests.failures
            ],
        )
    show.line(f"{tests.passed} passed, {tests.failed} failed, {tests.skipped} skipped")
    tests.check()


def schema(
    *,
    what: Annotated[str, typer.Argument(help="bundle, case or config")] = "bundle",
) -> None:
    """Print a JSON Schema, for editors."""
    show = Show()
    if what == "config":
        show.json(json_schema())
    elif what in {"bundle", "case"}:
        print((bundle_schema() if what == "bundle" else case_schema()).rstrip())
    else:
        raise UsageError(f"no schema `{what}`: bundle, case or config")
