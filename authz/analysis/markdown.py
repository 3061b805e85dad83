"""A report as Markdown, for job summaries and comments of a review."""

import re
from collections.abc import Iterator
from typing import Final

from authz.analysis.picture import mermaid_picture
from authz.analysis.report import Finding, Report, Verdict
from authz.analysis.rules import rule_text
from authz.analysis.sarif import step_text
from authz.analysis.selection import (
    NO_REASON,
    NO_SOLVER,
    FindingState,
    OpenQuestions,
    SelectedFinding,
    Selection,
)
from authz.analysis.texts import inert_markdown

__all__ = ["VERDICT_TEXTS", "analysis_markdown", "analysis_summary"]

# GitHub cuts a job summary at 1 MiB.
_MOST_FINDINGS: Final = 100
_MOST_PICTURES: Final = 20
_MOST_CASE: Final = 8_000

VERDICT_TEXTS: Final = {
    Verdict.PATH_FOUND: "path found",
    Verdict.PROVED: "proved within the model",
    Verdict.NOT_DECIDED: "not decided",
}
"""Text of each verdict."""


def analysis_summary(selection: Selection) -> list[str]:
    """Return the decided and open parts of the analysis, one sentence a line. The strings are not escaped."""
    report = selection.report
    return [
        *_size_lines(report),
        *_state_lines(selection),
        f"{len(report.proved)} properties proved within the model",
        *(entry.expired_text for entry in selection.expired),
        *(
            f"No finding needs the suppression of {entry.name}; remove it."
            for entry in selection.unused
        ),
        *(
            [f"{len(selection.gone)} findings of the baseline are gone; write the baseline anew."]
            if selection.gone
            else []
        ),
    ]


def _size_lines(report: Report) -> Iterator[str]:
    counts = report.counts
    yield (
        f"bundle {report.bundle.name} {report.bundle.digest[:12]}: {counts.policies} policies, {counts.operations} operations, "
        f"{counts.principals} principals, {counts.assertions} assertions"
    )
    solver = f"; solver {report.solver.name} {report.solver.version}" if report.solver else ""
    yield (
        f"{counts.questions} questions, {counts.questions_cached} of them answered from the cache, "
        f"{counts.not_decided} not decided{solver}"
    )
    if report.solver is None:
        yield NO_SOLVER


def _state_lines(selection: Selection) -> Iterator[str]:
    suppressed = len(selection.of_state(FindingState.SUPPRESSED))
    known = len(selection.of_state(FindingState.KNOWN))
    yield (
        f"{len(selection.findings)} findings: {len(selection.new)} new, {known} known, {suppressed} suppressed; "
        f"{len(selection.not_decided)} of them not decided"
    )


def analysis_markdown(selection: Selection) -> str:
    """Render a report. Every string of the bundle is escaped: it is neither markup, nor a link, nor a mention.

    Args:
        selection: Findings with their states.
    """
    parts = ["# Analysis of the bundle\n"]
    parts += [f"- {inert_markdown(line)}" for line in analysis_summary(selection)]
    single = selection.single()
    shown = single[:_MOST_FINDINGS]
    if shown:
        parts += [
            "",
            "| state | severity | rule | verdict | place | finding |",
            "|---|---|---|---|---|---|",
        ]
        parts += [_row(one) for one in shown]
    if left := len(single) - len(shown):
        parts.append(f"\n{left} more findings are not shown here; `--format json` has all of them.")
    detailed = [one for one in shown if one.state is FindingState.NEW]
    for number, one in enumerate(detailed):
        parts += ["", *_details(one.finding, with_picture=number < _MOST_PICTURES)]
    if groups := selection.open_questions():
        parts += [
            "",
            "## Not decided",
            "",
            "| severity | rule | questions | places |",
            "|---|---|---|---|",
        ]
        parts += [_group_row(group) for group in groups]
    if selection.report.proved:
        parts += ["", "## Proved within the model", ""]
        parts += [
            f"- {inert_markdown(proof.rule)}: {inert_markdown(proof.subject)}"
            for proof in selection.report.proved[:_MOST_FINDINGS]
        ]
        if (more := len(selection.report.proved) - _MOST_FINDINGS) > 0:
            parts.append(f"- and {more} more")
        assumptions = sorted(
            {text for proof in selection.report.proved for text in proof.assumptions}
        )
        if assumptions:
            parts += ["", "These proofs assume:", ""]
            parts += [f"- {inert_markdown(text)}" for text in assumptions]
    return "\n".join(parts) + "\n"


def _row(one: SelectedFinding) -> str:
    finding = one.finding
    cells = (
        one.state.value,
        finding.severity.value,
        finding.rule,
        VERDICT_TEXTS[finding.verdict],
        str(finding.location or ""),
        finding.message,
    )
    return "| " + " | ".join(inert_markdown(cell, 300) for cell in cells) + " |"


def _group_row(group: OpenQuestions) -> str:
    cells = (group.severity.value, group.rule, group.text, group.places)
    return "| " + " | ".join(inert_markdown(cell) for cell in cells) + " |"


def _details(finding: Finding, *, with_picture: bool) -> Iterator[str]:
    yield f"## {inert_markdown(finding.rule)} {finding.id}"
    yield ""
    yield inert_markdown(finding.message, 2_000)
    yield ""
    yield rule_text(finding.rule).help
    if finding.verdict is Verdict.NOT_DECIDED:
        yield ""
        yield f"**Not decided:** {inert_markdown(finding.reason or NO_REASON)}"
    if with_picture and (picture := mermaid_picture(finding)):
        yield from ("", "```mermaid", picture.rstrip("\n"), "```")
    if finding.path:
        yield ""
        for step in finding.path:
            mark = " **(pivot)**" if step.is_pivot else ""
            yield f"- {inert_markdown(step_text(step), 1_000)}{mark}"
    if finding.cut is not None:
        yield ""
        yield f"{finding.cut.title.capitalize()}:"
        yield ""
        for change in finding.cut.changes:
            yield f"- {inert_markdown(str(change), 1_000)}"
    if finding.assumptions:
        yield ""
        yield "Assumptions:"
        yield ""
        yield from (f"- {inert_markdown(text)}" for text in finding.assumptions)
    if finding.case:
        yield from _case(finding.case)


def _case(case: str) -> Iterator[str]:
    """Yield a bundle test as a block. Its fence is longer than any run of backticks in it, so that the text cannot end it."""
    text = "".join(one if one.isprintable() or one == "\n" else "\ufffd" for one in case)
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    yield from ("", "A test of the bundle that fails while the path is open:", "")
    # GitHub's runner reads such a line of a log as a command, also after spaces.
    has_command = any(line.lstrip().startswith(("::", "##[")) for line in text.splitlines())
    if len(text) > _MOST_CASE or has_command:
        yield "The test cannot be shown here; `--format json` has it."
        return
    yield from (f"{fence}yaml", text.rstrip("\n"), fence)
