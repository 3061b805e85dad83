"""The timeline of one session: lines for a terminal, and a page."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from rich.text import Text

from authz.cli.render.page import PAGE_POLICY, PAGE_STYLE
from authz.cli.render.terminal import OUTCOME_STYLES
from authz.tools.catalog.tool import plain
from authz.tools.timeline import (
    ApprovalHistory,
    JoinedLabel,
    Summary,
    Timeline,
    TimelineEvent,
    end_of_approval,
)

__all__ = ["timeline_lines", "timeline_page"]

_MOST_TEXT: Final = 4_000
_MARGIN: Final = " " * 15


def timeline_lines(timeline: Timeline) -> Iterator[Text]:
    """Yield the lines of a timeline for a terminal."""
    for name, value in _facts(timeline.summary):
        yield Text(f"{name:<14} ", style="bold") + Text(value)
    yield Text()
    day = ""
    for event in timeline.events():
        if event.at[:10] != day:
            day = event.at[:10]
            yield Text(day or "without a time", style="bold")
        yield from _event_lines(event)
    yield from _label_lines(timeline.labels())
    yield from _approval_lines(timeline.approvals())
    for number, damage in enumerate(timeline.damage()):
        if not number:
            yield Text("\nLines that are not records", style="bold")
        yield Text(f"  {damage.file}:{damage.line}: {damage.defect}", style="yellow")


def _facts(summary: Summary) -> Iterator[tuple[str, str]]:
    if summary.session:
        yield "session", summary.session
    if summary.task:
        yield "only task", summary.task
    yield "from", summary.first
    yield "to", summary.last
    for task in summary.tasks:
        yield "task", task
    for principal in summary.principals:
        yield "principal", principal
    yield "records", str(summary.records)
    if summary.repeated:
        yield "repeated", f"{summary.repeated} records stand twice in the files; each is shown once"
    for file in summary.files:
        yield "file", file
    if summary.damaged:
        yield "damaged", f"{summary.damaged} lines are not records; they are listed at the end"


def _event_lines(event: TimelineEvent) -> Iterator[Text]:
    head = Text(f"  {event.at[11:23] or '-':<12} ")
    head += Text(f"{event.outcome:<8}", style=OUTCOME_STYLES.get(event.outcome, ""))
    yield head + Text(f" {_title(event)}")
    for line in (_actor(event), *event.notes()):
        yield Text(f"{_MARGIN}{line}", style="dim")


def _title(event: TimelineEvent) -> str:
    code = event.code if event.outcome != "PERMIT" else ""
    return "  ".join(part for part in (event.kind, event.operation, event.tier, code) if part)


def _actor(event: TimelineEvent) -> str:
    place = event.place
    chain = f", segment {place.segment} line {place.index}" if place.segment else ""
    actor = event.agent or (f"node {event.node}" if event.node else "no principal")
    if event.on_behalf_of:
        actor += f" on behalf of {', '.join(event.on_behalf_of)}"
    task = f"; task {event.task}" if event.task else ""
    return f"{actor}{task}; {event.decision_id} ({place.file}:{place.line}{chain})"


def _label_lines(labels: Iterator[JoinedLabel]) -> Iterator[Text]:
    for number, joined in enumerate(labels):
        if not number:
            yield Text("\nLabels of the session", style="bold")
        yield Text(f"  {joined.label}: {_brought(joined)}")


def _brought(joined: JoinedLabel) -> str:
    call = joined.event
    by = f"{call.operation or call.kind} at {call.at}" if call else "a decision of other files"
    carried = "" if joined.carried else "; no later record of these files shows it"
    return f"{by}, {joined.decision_id}{carried}"


def _approval_lines(approvals: Iterator[ApprovalHistory]) -> Iterator[Text]:
    for number, approval in enumerate(approvals):
        if not number:
            yield Text("\nApprovals", style="bold")
        yield Text(f"  {approval.id}: {approval.outcome}")
        for line in _approval_facts(approval):
            yield Text(f"    {line}")


def _approval_facts(approval: ApprovalHistory) -> Iterator[str]:
    asked = approval.asked
    if asked is None:
        yield "asked in other files"
    else:
        rules = f", by {'; '.join(asked.rules)}" if asked.rules else ""
        yield f"asked at {asked.at} by {asked.decision_id}: {', '.join(asked.kinds)}{rules}"
    if approval.repeated:
        yield f"asked again by {approval.repeated} calls before it was used"
    if approval.seen_at:
        yield f"first seen at {approval.seen_at}"
    for answer in approval.answers:
        known = answer.approval
        if known is not None:
            by = ", ".join(known.by) or answer.agent
            how = f" with {known.method}" if known.method else ""
            decided = known.decided_in_ms
            took = f", {decided / 1000:g} s after the first look" if decided is not None else ""
            yield f"{known.event} at {answer.at} by {by}{how}{took}"
    for use in approval.used:
        yield f"used at {use.at} by {use.operation}, {use.decision_id}"
    if (ended := approval.ended) is not None and ended.approval is not None:
        yield f"ended at {ended.at}: {end_of_approval(ended.approval)}"


def timeline_page(timeline: Timeline) -> Iterator[str]:
    """Yield the pieces of one HTML file without scripts, and without anything to fetch."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        plain=lambda text: plain(str(text), _MOST_TEXT),
        title=_title,
        actor=_actor,
        brought=_brought,
        approval_facts=_approval_facts,
        style=lambda outcome: outcome if outcome in {"PERMIT", "STEP_UP", "DENY"} else "note",
    )
    page = environment.get_template("timeline.html")
    yield from page.generate(
        policy=PAGE_POLICY,
        page_style=Markup(PAGE_STYLE),  # noqa: S704 - a constant
        name=timeline.summary.session or timeline.summary.task,
        facts=_facts(timeline.summary),
        events=timeline.events(),
        labels=timeline.labels(),
        approvals=timeline.approvals(),
        damage=timeline.damage(),
    )
