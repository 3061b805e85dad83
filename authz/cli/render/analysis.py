"""The text of `authz analyze`, for terminals and files."""

from collections.abc import Iterator
from typing import Final

from rich.text import Text

from authz.analysis.markdown import VERDICT_TEXTS, analysis_summary
from authz.analysis.report import Finding, FindingSeverity, Verdict
from authz.analysis.sarif import step_text
from authz.analysis.selection import (
    NO_REASON,
    FindingState,
    OpenQuestions,
    SelectedFinding,
    Selection,
)
from authz.analysis.texts import inert

__all__ = ["analysis_lines"]

_STYLES: Final = {
    FindingSeverity.ERROR: "red",
    FindingSeverity.WARNING: "yellow",
    FindingSeverity.NOTE: "cyan",
}
_MOST_LINE: Final = 1_000
_MOST_CASE_LINES: Final = 60


def analysis_lines(selection: Selection) -> Iterator[Text]:
    """Yield the lines of a report. Every string of the bundle is inert.

    Args:
        selection: Findings with their states.
    """
    for one in selection.single():
        yield from _finding(one)
        yield Text()
    for group in selection.open_questions():
        yield from _open_questions(group)
        yield Text()
    for line in analysis_summary(selection):
        yield Text(inert(line, _MOST_LINE))


def _finding(one: SelectedFinding) -> Iterator[Text]:
    finding = one.finding
    place = f" {inert(str(finding.location))}" if finding.location else ""
    head = Text(f"{finding.severity.value}[{inert(finding.rule)}]", style=_STYLES[finding.severity])
    verdict = VERDICT_TEXTS[finding.verdict]
    yield head + Text(f"{place}: {inert(finding.message, _MOST_LINE)} ({verdict})")
    yield Text(f"  finding {finding.id}{_state(one)}", style="dim")
    if one.state is FindingState.NEW:
        yield from _details(finding)


def _open_questions(group: OpenQuestions) -> Iterator[Text]:
    head = Text(f"{group.severity.value}[{inert(group.rule)}]", style=_STYLES[group.severity])
    yield head + Text(f" {inert(group.text, _MOST_LINE)}", style="yellow")
    yield Text(f"  {inert(group.places, _MOST_LINE)}", style="dim")


def _state(one: SelectedFinding) -> str:
    if one.suppression is not None:
        return f", suppressed: {inert(one.suppression.justification, _MOST_LINE)}"
    return ", known by the baseline" if one.state is FindingState.KNOWN else ""


def _details(finding: Finding) -> Iterator[Text]:
    if finding.verdict is Verdict.NOT_DECIDED:
        reason = inert(finding.reason or NO_REASON, _MOST_LINE)
        yield Text(f"  not decided: {reason}", style="yellow")
    for step in finding.path:
        mark = Text("  ▶ ", style="bold red") if step.is_pivot else Text("    ")
        yield mark + Text(inert(step_text(step), _MOST_LINE))
    if finding.cut is not None:
        yield Text(f"  {finding.cut.title}:")
        for change in finding.cut.changes:
            # A policy has several lines. The mark keeps a line from being a command of GitHub's runner.
            for line in str(change).split("\n")[:_MOST_CASE_LINES]:
                yield Text(f"    | {inert(line, _MOST_LINE)}")
    for text in finding.assumptions:
        yield Text(f"  assumes: {inert(text, _MOST_LINE)}")
    if finding.case:
        yield Text("  a test of the bundle that fails while the path is open:")
        lines = finding.case.splitlines()
        for line in lines[:_MOST_CASE_LINES]:
            # Indentation is the structure of YAML; `inert` writes a marker for long runs of spaces only.
            yield Text(f"    | {inert(line, _MOST_LINE)}", style="dim")
        if (left := len(lines) - _MOST_CASE_LINES) > 0:
            yield Text(f"    | and {left} more lines", style="dim")
