"""`authz diff`: tell whether a changed bundle permits more than the one before.

The answer has sections: the proof, and the replay of a log. A function reads a `DiffRequest` and returns a `Section`: a part of the
JSON document, a text, Markdown, and whether a request is newly permitted.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from io import StringIO
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from authz.analysis.executable import AnalysisOptions, AnalyzerBundle, run_analyzer
from authz.analysis.report import ReportError
from authz.bundle import read_folder
from authz.cli.decision_log import Logs, LogSource, Since, Until, log_source
from authz.cli.options import (
    NoSolver,
    QuestionTimeLimit,
    ReportFile,
    SolverCache,
    Vars,
    offline_variables,
)
from authz.cli.render import CommandExit, Terminal
from authz.cli.render.difference import difference_markdown, print_difference
from authz.cli.render.replay import print_replay, replay_markdown
from authz.cli.replay_run import AgentFilter, OperationFilter, Selection, replay_log
from authz.engine import Plan
from authz.errors import UsageError
from authz.files import replace_file

__all__ = ["DiffRequest", "Section", "register"]

_FOUND: Final = 2


class DiffFormat(StrEnum):
    """Format of the report."""

    TEXT = "text"
    JSON = "json"
    MARKDOWN = "markdown"


class DiffFailure(StrEnum):
    """Results for which a comparison fails."""

    NEWLY_PERMITTED = "newly-permitted"
    NOT_PROVED = "not-proved"
    NEWLY_HELD = "newly-held"
    NEWLY_DENIED = "newly-denied"
    NOT_REPLAYED = "not-replayed"


_OF_LOG: Final = frozenset(
    {DiffFailure.NEWLY_HELD, DiffFailure.NEWLY_DENIED, DiffFailure.NOT_REPLAYED}
)


@dataclass(frozen=True, slots=True)
class DiffRequest:
    """Two bundles and the settings of a comparison."""

    old: AnalyzerBundle
    """The bundle before the change."""
    new: AnalyzerBundle
    """The bundle after the change."""
    options: AnalysisOptions
    """Settings of the proof."""
    log: LogSource | None
    """Audit log whose decisions are compared. Default: no log is read."""
    selection: Selection
    """Decisions of the log that are compared."""
    terminal: Terminal
    """Terminal for notes and progress."""


@dataclass(frozen=True, slots=True)
class Section:
    """One part of the answer."""

    name: str
    """Member of the JSON document."""
    document: dict[str, Any]
    """Value of that member."""
    show: Callable[[Terminal], None]
    """Prints the section for people."""
    markdown: Callable[[], str]
    """Writes the section in Markdown."""
    newly_permitted: bool
    """True if the section has a request that only the new bundle permits."""
    proved: bool
    """True if the solver proves that no request is newly permitted. Always true for a log, which proves nothing."""
    failures: frozenset[str] = frozenset()
    """Further conditions of `--fail-on` that hold."""


def register(app: typer.Typer) -> None:
    """Add the verb to the command."""
    app.command("diff", epilog="Example: authz diff released bundle --fail-on newly-permitted")(
        diff
    )


def diff(
    *,
    old: Annotated[
        Path, typer.Argument(help="Folder of the bundle before the change.", file_okay=False)
    ],
    new: Annotated[
        Path, typer.Argument(help="Folder of the bundle after the change.", file_okay=False)
    ],
    var: Vars = None,
    fail_on: Annotated[
        list[DiffFailure] | None,
        typer.Option(
            help="Exit code 2: newly-permitted, if a request is; not-proved, also if it is not decided. With a log also newly-held, newly-denied and not-replayed, if a decision is. Repeatable."
        ),
    ] = None,
    style: Annotated[
        DiffFormat, typer.Option("--format", help="text, json or markdown")
    ] = DiffFormat.TEXT,
    output: ReportFile = None,
    cache: SolverCache = None,
    question_time_limit: QuestionTimeLimit = 10.0,
    no_solver: NoSolver = False,
    log: Logs = None,
    since: Since = "",
    until: Until = "",
    agent: AgentFilter = "",
    operation: OperationFilter = "",
    no_proof: Annotated[
        bool,
        typer.Option("--no-proof", help="Compare only the decisions of the log; prove nothing."),
    ] = False,
) -> None:
    """Tell whether a changed bundle permits more than the one before.

    For each operation whose policies changed, a solver proves for all requests that nothing is newly permitted, or finds one
    request that is. Changed facts beside the policies are listed, and they lead to no proved statement.
    With --log, also the recorded decisions are compared, as `authz replay` judges them.
    Exit code 2 if a result of `--fail-on` holds, 3 if a bundle is not valid.
    """
    conditions = _conditions(fail_on, has_log=bool(log))
    if no_proof and not log:
        raise UsageError("--no-proof leaves nothing to compare: give --log FILE")
    terminal = Terminal()
    request = DiffRequest(
        old=_bundle(old, var, terminal),
        new=_bundle(new, var, terminal),
        options=AnalysisOptions.read(cache, question_time_limit, without_solver=no_solver),
        log=log_source(log, None, None, "") if log else None,
        selection=Selection.read(since, until, agent, operation),
        terminal=terminal,
    )
    sections = [] if no_proof else [_proof(request)]
    if request.log is not None:
        sections.append(_replay(request, request.log))
    _write(terminal, sections, style, output)
    _end(sections, conditions)


def _conditions(fail_on: Sequence[DiffFailure] | None, *, has_log: bool) -> frozenset[DiffFailure]:
    for condition in fail_on or ():
        if condition in _OF_LOG and not has_log:
            raise UsageError(f"--fail-on {condition}: give --log FILE, whose decisions it is about")
    return frozenset(fail_on or ())


def _bundle(folder: Path, var: list[str] | None, terminal: Terminal) -> AnalyzerBundle:
    files = read_folder(folder)
    return AnalyzerBundle(files, offline_variables(files, var, terminal.note))


def _proof(request: DiffRequest) -> Section:
    """Prove for all requests, or find one."""
    bundles = {"old": request.old, "new": request.new}
    document = _read_answer(run_analyzer("diff", bundles, request.options))
    return Section(
        name="proof",
        document=document,
        show=lambda terminal: print_difference(terminal, document),
        markdown=lambda: difference_markdown(document),
        newly_permitted=document["verdict"] == "path_found",
        proved=document["verdict"] == "proved",
    )


def _read_answer(answer: bytes) -> dict[str, Any]:
    """Read the JSON object that the analyzer writes.

    Raises:
        ReportError: The answer is not a JSON object.
    """
    try:
        document = json.loads(answer)
    except (ValueError, RecursionError) as error:
        raise ReportError(f"the output of the analyzer is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise ReportError("the output of the analyzer is not a JSON object")
    return document


def _replay(request: DiffRequest, log: LogSource) -> Section:
    """Judge the decisions of a log again, by both bundles."""
    old, new = (
        Plan.compile(bundle.files, bundle.variables) for bundle in (request.old, request.new)
    )
    run = replay_log(request.terminal, log, request.selection, new, old)
    document = run.document()
    return Section(
        name="replay",
        document=document,
        show=lambda terminal: print_replay(terminal, document),
        markdown=lambda: replay_markdown(document),
        newly_permitted=run.report.counts.newly_permitted > 0,
        proved=True,
        failures=frozenset(run.report.fails(_OF_LOG)),
    )


def _write(
    terminal: Terminal, sections: Sequence[Section], style: DiffFormat, output: Path | None
) -> None:
    """Print the report, or write it to a file."""
    written = StringIO()
    if style is DiffFormat.JSON:
        # In ASCII: a text of a record can have control sequences of a terminal.
        document = {section.name: section.document for section in sections}
        written.write(f"{json.dumps(document, indent=2)}\n")
    elif style is DiffFormat.MARKDOWN:
        written.write("\n".join(section.markdown() for section in sections))
    else:
        shown = terminal if output is None else Terminal(written)
        for section in sections:
            section.show(shown)
    if output is None:
        print(written.getvalue(), end="")
    else:
        replace_file(output, written.getvalue().encode())


def _end(sections: Sequence[Section], conditions: frozenset[DiffFailure]) -> None:
    """Exit with the code that `--fail-on` asks for."""
    holds: set[str] = set()
    if any(section.newly_permitted for section in sections):
        holds.add(DiffFailure.NEWLY_PERMITTED)
    if not all(section.proved for section in sections):
        holds.add(DiffFailure.NOT_PROVED)
    for section in sections:
        holds |= section.failures
    if conditions & holds:
        raise CommandExit(_FOUND)
