"""The findings of a report in order, each with its state: new, known by the baseline, or suppressed."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from authz.analysis.baseline import Baseline, KnownFinding
from authz.analysis.report import Finding, FindingSeverity, Report, SuppressionEntry, Verdict
from authz.analysis.suppressions import AppliedSuppressions, apply_suppressions

__all__ = [
    "NO_REASON",
    "NO_SOLVER",
    "FailLevel",
    "FindingState",
    "OpenQuestions",
    "SelectedFinding",
    "Selection",
    "select_findings",
]

_LEAST_GROUP: Final = 3
_SHOWN_PLACES: Final = 12
NO_REASON: Final = "no reason was given"
"""Reason of an open question for which the analyzer gives none."""
NO_SOLVER: Final = "No solver: nothing that needs one is proved. Install it with `pip install 'authz-runtime[analyze]'`."
"""Sentence about an analysis without a solver."""
_VERDICTS: Final = (Verdict.PATH_FOUND, Verdict.PROVED, Verdict.NOT_DECIDED)


class FindingState(StrEnum):
    """Whether a finding counts."""

    NEW = "new"
    """The finding counts."""
    KNOWN = "known"
    """The baseline has the finding."""
    SUPPRESSED = "suppressed"
    """A suppression of the bundle is in force."""


class FailLevel(StrEnum):
    """Lowest severity at which a finding fails the command. Known and suppressed findings never do."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"
    NEW = "new"
    """Any severity. A baseline must be given."""


@dataclass(frozen=True, slots=True)
class SelectedFinding:
    """A finding with its state."""

    finding: Finding
    state: FindingState
    suppression: SuppressionEntry | None = None


@dataclass(frozen=True, slots=True)
class OpenQuestions:
    """Questions of one rule that count and are open for one reason, for example because no solver is there."""

    severity: FindingSeverity
    rule: str
    reason: str
    findings: tuple[Finding, ...]

    @property
    def text(self) -> str:
        """One sentence."""
        return f"{len(self.findings)} questions are not decided: {self.reason}"

    @property
    def places(self) -> str:
        """Places of the first findings, and how many more there are."""
        shown = self.findings[:_SHOWN_PLACES]
        places = ", ".join(str(one.location or one.id) for one in shown)
        left = len(self.findings) - len(shown)
        return f"{places} and {left} more; --format json lists all" if left else places


@dataclass(frozen=True, slots=True)
class Selection:
    """A report, with the state of each finding."""

    report: Report
    findings: tuple[SelectedFinding, ...]
    """New findings first, then by severity, verdict, rule and place."""
    expired: tuple[SuppressionEntry, ...] = ()
    """Suppressions that count as not there."""
    unused: tuple[SuppressionEntry, ...] = ()
    """Suppressions that no finding needs."""
    gone: tuple[KnownFinding, ...] = ()
    """Findings of the baseline that the report does not have any more."""
    has_baseline: bool = False

    def of_state(self, state: FindingState) -> tuple[Finding, ...]:
        """Return the findings of a state."""
        return tuple(one.finding for one in self.findings if one.state is state)

    @property
    def new(self) -> tuple[Finding, ...]:
        """Findings that count."""
        return self.of_state(FindingState.NEW)

    @property
    def not_decided(self) -> tuple[Finding, ...]:
        """Findings whose question is open, in every state: no suppression decides a question."""
        return tuple(
            one.finding for one in self.findings if one.finding.verdict is Verdict.NOT_DECIDED
        )

    def open_questions(self) -> tuple[OpenQuestions, ...]:
        """Return groups of at least three open questions that differ only in their place, so that a reader sees each reason once."""
        groups: dict[tuple[FindingSeverity, str, str], list[Finding]] = {}
        for finding in self.new:
            if finding.verdict is Verdict.NOT_DECIDED and not finding.path:
                reason = finding.reason or NO_REASON
                groups.setdefault((finding.severity, finding.rule, reason), []).append(finding)
        return tuple(
            OpenQuestions(*key, tuple(found))
            for key, found in groups.items()
            if len(found) >= _LEAST_GROUP
        )

    def single(self) -> tuple[SelectedFinding, ...]:
        """Return the findings that stand in no group of open questions."""
        grouped = {one.id for group in self.open_questions() for one in group.findings}
        return tuple(one for one in self.findings if one.finding.id not in grouped)

    def failing(self, level: FailLevel) -> tuple[Finding, ...]:
        """Return the findings that fail the command. A question that is open fails like a defect of its severity."""
        lowest = FailLevel.NOTE if level is FailLevel.NEW else level
        most = FindingSeverity(lowest.value).rank
        return tuple(one for one in self.new if one.severity.rank <= most)


def select_findings(report: Report, now: datetime, baseline: Baseline | None = None) -> Selection:
    """Give each finding its state.

    Args:
        report: The report.
        now: Time at which suppressions are judged, with a time zone.
        baseline: Known findings.

    Raises:
        ReportError: A suppression is not valid.
    """
    applied = apply_suppressions(report.suppressions, report.findings, now)
    known = baseline.known(report.findings) if baseline is not None else frozenset()
    selected = [_selected(finding, applied, known) for finding in report.findings]
    return Selection(
        report=report,
        findings=tuple(sorted(selected, key=_rank)),
        expired=applied.expired,
        unused=applied.unused,
        gone=baseline.gone(report.findings) if baseline is not None else (),
        has_baseline=baseline is not None,
    )


def _selected(
    finding: Finding, applied: AppliedSuppressions, known: frozenset[str]
) -> SelectedFinding:
    if entry := applied.by_finding.get(finding.id):
        return SelectedFinding(finding, FindingState.SUPPRESSED, entry)
    state = FindingState.KNOWN if finding.id in known else FindingState.NEW
    return SelectedFinding(finding, state)


def _rank(one: SelectedFinding) -> tuple[int, int, int, str, str, int, str]:
    finding = one.finding
    where = finding.location
    return (
        tuple(FindingState).index(one.state),
        finding.severity.rank,
        _VERDICTS.index(finding.verdict),
        finding.rule,
        where.file if where else "",
        where.line if where else 0,
        finding.id,
    )
