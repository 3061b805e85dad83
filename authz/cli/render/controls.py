"""States of the controls of frameworks: as tables for a terminal, as Markdown, and as a page."""

from collections.abc import Iterator, Sequence
from typing import Final

from authz.analysis.controls import (
    ControlReport,
    ControlState,
    ControlStatus,
    FrameworkStatus,
    PolicyEvidence,
)
from authz.analysis.texts import inert, inert_markdown
from authz.cli.render.page import Page
from authz.cli.render.terminal import Terminal

__all__ = ["controls_markdown", "controls_page", "print_controls"]

_WORDS: Final = {
    ControlState.ENFORCED: "enforced",
    ControlState.TESTED: "tested",
    ControlState.CLAIMED: "claimed",
    ControlState.BUILT_IN: "built in",
    ControlState.MISSING: "missing",
    ControlState.NOT_APPLICABLE: "not applicable",
}
_MEANINGS: Final = (
    "enforced: a test of the bundle fails without a policy that names the control",
    "tested: a test reaches such a policy, and no test fails without it",
    "claimed: a policy names the control, and no test reaches it",
    "built in: features of Authz address the control without a policy",
    "missing: no policy names the control",
    "not applicable: an authorization of actions cannot address the control",
)


def print_controls(terminal: Terminal, report: ControlReport) -> None:
    """Print a table for each framework, and the counts of its states."""
    for framework in report.frameworks:
        head = framework.framework
        title = f"{head.name} {head.version}"
        rows = [[inert(cell) for cell in row] for row in _rows(framework.controls, report)]
        terminal.table(_columns(report), rows, title)
        terminal.line(_counts_line(report, framework))
    if report.own:
        rows = [[inert(cell) for cell in row] for row in _own_rows(report)]
        terminal.table(_columns(report), rows, "Controls of your own catalogue")
    terminal.line(_summary(report))


def controls_markdown(report: ControlReport) -> str:
    """Render the report as Markdown. Texts of the bundle are escaped."""
    lines = ["# Coverage of controls", "", inert_markdown(_summary(report)), ""]
    lines += [f"- {inert_markdown(meaning)}" for meaning in _MEANINGS]
    for framework in report.frameworks:
        head = framework.framework
        lines += [
            "",
            f"## {inert_markdown(f'{head.name} {head.version}')}",
            "",
            f"Source: <{head.source}>, {head.published}; mapped {head.mapped}.",
            "",
            _counts_line(report, framework),
            "",
            *_markdown_table(_columns(report), _rows(framework.controls, report)),
        ]
        notes = list(_notes(framework.controls))
        lines += ["", *(f"- {inert_markdown(note)}" for note in notes)] if notes else []
    if report.own:
        lines += ["", "## Controls of your own catalogue", ""]
        lines += _markdown_table(_columns(report), _own_rows(report))
    return "\n".join(lines) + "\n"


def controls_page(report: ControlReport) -> str:
    """Render the report as one HTML file, which loads nothing. Texts of the bundle are escaped."""
    page = Page("Coverage of controls", _summary(report))
    page.items(_MEANINGS)
    for framework in report.frameworks:
        head = framework.framework
        page.heading(f"{head.name} {head.version}")
        page.note(f"Source: {head.source}, {head.published}; mapped {head.mapped}.")
        page.note(_counts_line(report, framework))
        page.table(_columns(report), _rows(framework.controls, report))
        page.items(list(_notes(framework.controls)))
    if report.own:
        page.heading("Controls of your own catalogue")
        page.table(_columns(report), _own_rows(report))
    return page.render()


def _columns(report: ControlReport) -> tuple[str, ...]:
    columns = ("control", "name", "state", "evidence")
    return columns if report.decisions is None else (*columns, "seen")


def _rows(statuses: Sequence[ControlStatus], report: ControlReport) -> list[list[str]]:
    return [
        [
            status.control.id,
            status.control.name,
            _WORDS[status.state],
            _evidence(status),
            *_seen(status.seen, report),
        ]
        for status in statuses
    ]


def _own_rows(report: ControlReport) -> list[list[str]]:
    return [
        [one.id, "", _WORDS[one.state], _policies(one.policies), *_seen(one.seen, report)]
        for one in report.own
    ]


def _seen(seen: int | None, report: ControlReport) -> list[str]:
    return [] if report.decisions is None else [str(seen or 0)]


def _evidence(status: ControlStatus) -> str:
    """Return the evidence of a state: policies and tests, features, or the reason."""
    control = status.control
    if status.policies:
        return _policies(status.policies)
    if status.state is ControlState.BUILT_IN:
        return "; ".join(f"{one.feature} [{one.proof}]" for one in control.built_in)
    if status.state is ControlState.MISSING:
        return f"Write: {control.policy}"
    return control.reason


def _policies(policies: Sequence[PolicyEvidence]) -> str:
    return "; ".join(_policy(policy) for policy in policies)


def _policy(policy: PolicyEvidence) -> str:
    text = f"{policy.id} ({policy.file}:{policy.line})"
    if policy.state is ControlState.ENFORCED:
        return f"{text}: without it fails `{policy.test}`"
    if policy.note:
        return f"{text}: cannot be left out: {policy.note}"
    if policy.state is ControlState.TESTED:
        return f"{text}: `{policy.test}` reaches it, and no test fails without it"
    return f"{text}: no test reaches it"


def _notes(statuses: Sequence[ControlStatus]) -> Iterator[str]:
    """Yield the limits of the controls that Authz addresses."""
    for status in statuses:
        if status.control.limits:
            yield f"{status.control.id}: {status.control.limits}"


def _counts_line(report: ControlReport, framework: FrameworkStatus) -> str:
    counts = ((state, framework.count(state)) for state in ControlState)
    text = ", ".join(f"{count} {_WORDS[state]}" for state, count in counts if count)
    if report.decisions is None:
        return text
    return f"{text}; {sum(bool(one.seen) for one in framework.controls)} seen in the log"


def _summary(report: ControlReport) -> str:
    bundle = report.bundle
    text = (
        f"{bundle['name']} {bundle['revision']} {bundle['digest'][:12]}: {report.removals} policies name a control; "
        "each was left out once, and the tests were run without it"
    )
    return text if report.decisions is None else f"{text}. {report.decisions} decisions in the log"


def _markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [
        f"| {' | '.join(columns)} |",
        f"|{'---|' * len(columns)}",
        *(f"| {' | '.join(inert_markdown(cell, 2_000) for cell in row)} |" for row in rows),
    ]
