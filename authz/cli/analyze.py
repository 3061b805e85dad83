"""`authz analyze`: look for escalation paths and dead policies in a bundle before a node serves it."""

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from authz import __version__
from authz.analysis.baseline import read_baseline, write_baseline
from authz.analysis.executable import AnalysisOptions, AnalyzerBundle, run_analyzer
from authz.analysis.leases import lease_documents
from authz.analysis.markdown import analysis_markdown, analysis_summary
from authz.analysis.picture import mermaid_picture, svg_picture
from authz.analysis.report import Finding, read_report
from authz.analysis.sarif import analysis_log
from authz.analysis.selection import FailLevel, FindingState, Selection, select_findings
from authz.analysis.texts import inert
from authz.bundle import read_folder
from authz.cli.options import (
    BundleFolder,
    ConfigFile,
    NoSolver,
    QuestionTimeLimit,
    ReportFile,
    SolverCache,
    Vars,
    configuration,
    offline_variables,
)
from authz.cli.render import CommandExit, Terminal
from authz.cli.render.analysis import analysis_lines
from authz.cli.render.github import (
    analysis_annotations,
    annotation_lines,
    diagnostic_annotations,
    place_in,
)
from authz.errors import BundleError, UsageError
from authz.files import replace_file
from authz.model import Diagnostic

__all__ = ["register"]

_FOUND: Final = 2


class AnalyzeFormat(StrEnum):
    """Format of the report."""

    TEXT = "text"
    JSON = "json"
    SARIF = "sarif"
    MARKDOWN = "markdown"
    GITHUB = "github"


def register(app: typer.Typer) -> None:
    """Add the verb to the command."""
    app.command("analyze")(analyze)


def analyze(
    *,
    folder: BundleFolder,
    config: ConfigFile = None,
    var: Vars = None,
    style: Annotated[
        AnalyzeFormat,
        typer.Option(
            "--format",
            help="text; json; sarif: SARIF 2.1.0 for code scanning; markdown; github: workflow commands that GitHub Actions shows "
            "beside the lines.",
        ),
    ] = AnalyzeFormat.TEXT,
    output: ReportFile = None,
    baseline: Annotated[
        Path | None,
        typer.Option(help="File with known findings, which fail nothing.", dir_okay=False),
    ] = None,
    new_baseline: Annotated[
        Path | None,
        typer.Option(
            "--write-baseline",
            help="File to write all findings to that are not suppressed. The exit code is then 0.",
            dir_okay=False,
        ),
    ] = None,
    fail_on: Annotated[
        FailLevel,
        typer.Option(
            help="Lowest severity at which a finding ends the command with 2. new: every finding that the baseline lacks.",
        ),
    ] = FailLevel.ERROR,
    cache: SolverCache = None,
    question_time_limit: QuestionTimeLimit = 10.0,
    no_solver: NoSolver = False,
    picture: Annotated[
        Path | None,
        typer.Option(
            help="Folder to write a picture of each path to, as SVG and as Mermaid.",
            file_okay=False,
        ),
    ] = None,
    cases: Annotated[
        Path | None,
        typer.Option(
            help="Folder to write a test to for each path. It fails while the path is open.",
            file_okay=False,
        ),
    ] = None,
    earlier: Annotated[
        Path | None,
        typer.Option(
            "--report",
            help="File that `--format json` wrote: render it, and analyse nothing.",
            dir_okay=False,
        ),
    ] = None,
) -> None:
    """Look for escalation paths and dead policies in a bundle. Exit code 2 if there is a finding at the level, 3 if the bundle is not valid.

    With --config, the leased secrets of that configuration are compared with their operations, and its variables are used. Nothing is contacted.
    """
    if fail_on is FailLevel.NEW and baseline is None:
        raise UsageError("--fail-on new needs --baseline FILE")
    terminal = Terminal()
    known = read_baseline(baseline) if baseline is not None else None
    if earlier is not None:
        document = earlier.read_bytes()
    else:
        options = AnalysisOptions.read(cache, question_time_limit, without_solver=no_solver)
        if config is not None:
            node = configuration(config, None)
            options = replace(options, leases=lease_documents(node))
            # As at a node, a value of `--var` wins.
            var = [*(f"{name}={value}" for name, value in node.vars.items()), *(var or ())]
        document = _analysed(terminal, style, folder, var, options)
    selection = select_findings(read_report(document), datetime.now(UTC), known)
    _write(terminal, style, output, _rendered(style, selection, folder, document))
    _note_summary(terminal, style, output, selection)
    _write_pictures(picture, selection)
    _write_cases(cases, selection)
    if new_baseline is not None:
        kept = [
            one.finding for one in selection.findings if one.state is not FindingState.SUPPRESSED
        ]
        terminal.note(f"{new_baseline}: {write_baseline(new_baseline, kept)} findings")
    elif selection.failing(fail_on):
        raise CommandExit(_FOUND)


def _analysed(
    terminal: Terminal,
    style: AnalyzeFormat,
    folder: Path,
    var: Sequence[str] | None,
    options: AnalysisOptions,
) -> bytes:
    """Run the analyzer, and return its document."""
    try:
        bundle = read_folder(folder)
        variables = offline_variables(bundle, var, terminal.note)
        with terminal.err.status("Analysing the bundle"):
            return run_analyzer("analyze", {"bundle": AnalyzerBundle(bundle, variables)}, options)
    except BundleError as error:
        if style is AnalyzeFormat.GITHUB:
            _print_errors(terminal, folder, error.diagnostics)
        raise


def _print_errors(terminal: Terminal, folder: Path, found: Sequence[Diagnostic]) -> None:
    for line in annotation_lines(diagnostic_annotations(found, folder, title="authz analyze")):
        terminal.line(line)


def _rendered(
    style: AnalyzeFormat, selection: Selection, folder: Path, document: bytes
) -> list[Any]:
    """Return the lines of the report."""
    match style:
        case AnalyzeFormat.TEXT:
            return list(analysis_lines(selection))
        case AnalyzeFormat.JSON:
            return _json(_with_states(document, selection))
        case AnalyzeFormat.SARIF:
            return _json(analysis_log(selection, __version__, place_in(folder)))
        case AnalyzeFormat.MARKDOWN:
            return analysis_markdown(selection).splitlines()
        case AnalyzeFormat.GITHUB:
            return list(annotation_lines(analysis_annotations(selection, folder)))


def _json(value: object) -> list[str]:
    return json.dumps(value, indent=2, ensure_ascii=True).splitlines()


def _with_states(document: bytes, selection: Selection) -> dict[str, Any]:
    """Return the analyzer's document, with the state of each finding."""
    report: dict[str, Any] = json.loads(document)
    states = {one.finding.id: one.state.value for one in selection.findings}
    report["findings"] = [{**row, "state": states[row["id"]]} for row in report["findings"]]
    return report


def _write(
    terminal: Terminal, style: AnalyzeFormat, output: Path | None, lines: Sequence[Any]
) -> None:
    if output is not None:
        replace_file(output, "".join(f"{line}\n" for line in lines).encode())
        return
    for line in lines:
        if style is AnalyzeFormat.TEXT:
            terminal.line(line)
        else:
            print(line)


def _note_summary(
    terminal: Terminal, style: AnalyzeFormat, output: Path | None, selection: Selection
) -> None:
    """Write the summary to standard error if a program reads the report, or a file gets it."""
    if style is AnalyzeFormat.TEXT and output is None:
        return
    for line in analysis_summary(selection):
        terminal.note(inert(line, 1_000))


def _with_paths(selection: Selection) -> list[Finding]:
    return [one.finding for one in selection.findings if one.finding.path]


def _write_pictures(folder: Path | None, selection: Selection) -> None:
    if folder is None:
        return
    folder.mkdir(parents=True, exist_ok=True)
    for finding in _with_paths(selection):
        replace_file(folder / f"{finding.id}.svg", svg_picture(finding).encode())
        replace_file(folder / f"{finding.id}.mmd", mermaid_picture(finding).encode())


def _write_cases(folder: Path | None, selection: Selection) -> None:
    if folder is None:
        return
    folder.mkdir(parents=True, exist_ok=True)
    for one in selection.findings:
        if one.finding.case:
            replace_file(folder / f"{one.finding.id}.yaml", one.finding.case.encode())
