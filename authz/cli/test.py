"""`authz test`: run the tests that a bundle contains."""

import time
from pathlib import Path
from typing import Annotated

import typer

from authz.bundle import read_folder, read_results
from authz.cli.options import BundleFolder, Vars, offline_variables
from authz.cli.render import Terminal
from authz.engine import Plan
from authz.tools.junit import write_junit

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the verb to the command."""
    app.command("test")(run_tests)


def run_tests(
    *,
    folder: BundleFolder,
    var: Vars = None,
    junit: Annotated[
        Path | None,
        typer.Option(help="File to write the results to, as JUnit XML.", dir_okay=False),
    ] = None,
) -> None:
    """Run the tests of a bundle. Exit code 2 if one fails, 3 if the bundle is not valid."""
    terminal = Terminal()
    bundle = read_folder(folder)
    plan = Plan.compile(bundle, offline_variables(bundle, var, terminal.note))
    tests = read_results(plan.test(bundle, int(time.time() * 1000)))
    if junit is not None:
        write_junit(tests, junit)
    if tests.failures:
        terminal.table(
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
    terminal.line(f"{tests.passed} passed, {tests.failed} failed, {tests.skipped} skipped")
    tests.check(bundle.files)
    terminal.hint(
        f"Next: authz keys make dev --bundle {folder}; authz serve --config dev/config.yaml"
    )
