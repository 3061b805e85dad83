"""`authz test`: run the tests that a bundle contains, and tell which parts of the bundle they reach."""

import json
import time
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from authz.bundle import (
    TestCoverage,
    TestResults,
    percent_of,
    read_coverage,
    read_folder,
    read_results,
)
from authz.cli.options import BundleFolder, Vars, offline_variables
from authz.cli.render import CommandExit, Terminal
from authz.cli.render.coverage import coverage_annotations, print_coverage
from authz.cli.render.github import Annotation, AnnotationLevel, annotation_lines, repository_path
from authz.engine import Plan
from authz.files import replace_file
from authz.tools.junit import write_junit

__all__ = ["register"]

_BELOW: Final = 2


class TestFormat(StrEnum):
    """Format of the output."""

    __test__ = False

    TEXT = "text"
    JSON = "json"
    GITHUB = "github"


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
    coverage: Annotated[
        bool,
        typer.Option(
            "--coverage",
            help="Tell which policies, operations, sequences, budgets, templates, tiers, step-up kinds, destination classes and exceptions no test reaches.",
        ),
    ] = False,
    threshold: Annotated[
        float | None,
        typer.Option(
            metavar="PERCENT",
            min=0,
            max=100,
            help="Least share of all parts that the tests must reach; below it the exit code is 2. Implies --coverage.",
        ),
    ] = None,
    coverage_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="File to write the coverage to, as JSON. Implies --coverage.",
            dir_okay=False,
        ),
    ] = None,
    style: Annotated[
        TestFormat,
        typer.Option(
            "--format",
            help="text; json; github: workflow commands that GitHub Actions shows beside the lines.",
        ),
    ] = TestFormat.TEXT,
) -> None:
    """Run the tests of a bundle. Exit code 2 if one fails or the coverage is below --threshold, 3 if the bundle is not valid."""
    terminal = Terminal()
    bundle = read_folder(folder)
    plan = Plan.compile(bundle, offline_variables(bundle, var, terminal.note))
    covers = coverage or threshold is not None or coverage_file is not None
    report = plan.test(bundle, int(time.time() * 1000), covers=covers)
    tests = read_results(report)
    covered = read_coverage(report) if covers else None
    if junit is not None:
        write_junit(tests, junit)
    if covered is not None and coverage_file is not None:
        text = json.dumps(covered.document(plan), indent=2, ensure_ascii=False)
        replace_file(coverage_file, f"{text}\n".encode())
    if style is TestFormat.JSON:
        terminal.json(_document(tests, covered, plan))
    elif style is TestFormat.GITHUB:
        for line in annotation_lines(_annotations(tests, covered, folder, threshold)):
            terminal.line(line)
    else:
        _print(terminal, tests, covered)
    tests.check(bundle.files)
    if covered is not None and threshold is not None and not covered.reaches(threshold):
        terminal.note(_shortfall(covered, threshold))
        raise CommandExit(_BELOW)
    terminal.hint(
        f"Next: authz keys make dev --bundle {folder}; authz serve --config dev/config.yaml"
    )


def _print(terminal: Terminal, tests: TestResults, covered: TestCoverage | None) -> None:
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
    if covered is not None:
        print_coverage(terminal, covered)
    terminal.line(f"{tests.passed} passed, {tests.failed} failed, {tests.skipped} skipped")


def _document(tests: TestResults, covered: TestCoverage | None, plan: Plan) -> dict[str, Any]:
    document: dict[str, Any] = {
        "passed": tests.passed,
        "failed": tests.failed,
        "skipped": tests.skipped,
        "failures": [
            {
                "test": failure.test,
                "step": failure.step,
                "file": failure.file,
                "line": failure.line,
                "expected": failure.expected,
                "actual": failure.actual,
                "message": failure.message,
            }
            for failure in tests.failures
        ],
    }
    return document if covered is None else {**document, "coverage": covered.document(plan)}


def _annotations(
    tests: TestResults, covered: TestCoverage | None, folder: Path, threshold: float | None
) -> Iterator[Annotation]:
    for failure in tests.failures:
        yield Annotation(
            level=AnnotationLevel.ERROR,
            message=failure.diagnostic().what,
            title="authz test",
            file=repository_path(folder, failure.file),
            line=failure.line,
        )
    if tests.omitted:
        message = f"{tests.omitted} more failures"
        yield Annotation(AnnotationLevel.ERROR, message, "authz test")
    if covered is None:
        return
    yield from coverage_annotations(covered, folder)
    if threshold is not None and not covered.reaches(threshold):
        yield Annotation(AnnotationLevel.ERROR, _shortfall(covered, threshold), "authz test")


def _shortfall(covered: TestCoverage, threshold: float) -> str:
    total = len(covered.parts)
    share = percent_of(covered.covered, total)
    return f"coverage: the tests reach {covered.covered} of {total} parts, {share:g} %; the threshold is {threshold:g} %"
