"""Suppressions: findings that somebody answers for until a day.

A suppression names one finding by its id, or all findings of a rule, with `subject` of one policy or operation. It has an owner and a reason. After
its last day it counts as not there, and the report says so.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from authz.analysis.report import Finding, ReportError, SuppressionEntry

__all__ = ["AppliedSuppressions", "apply_suppressions"]


@dataclass(frozen=True, slots=True)
class AppliedSuppressions:
    """Suppressions of a bundle, applied to its findings."""

    by_finding: Mapping[str, SuppressionEntry]
    """Suppression in force of each suppressed finding, by the finding's id."""
    expired: tuple[SuppressionEntry, ...]
    """Suppressions after their last day. They suppress nothing."""
    unused: tuple[SuppressionEntry, ...]
    """Suppressions in force that no finding needs."""


def apply_suppressions(
    entries: Iterable[SuppressionEntry], findings: Iterable[Finding], now: datetime
) -> AppliedSuppressions:
    """Find the suppression of each finding.

    Args:
        entries: Suppressions of the bundle.
        findings: Findings of the report.
        now: Time, with a time zone.

    Raises:
        ReportError: A suppression has no end, owner or reason, or names neither a finding nor a rule.
    """
    in_force: list[SuppressionEntry] = []
    expired: list[SuppressionEntry] = []
    for entry in entries:
        _check(entry)
        (in_force if now < _end(entry) else expired).append(entry)
    by_finding: dict[str, SuppressionEntry] = {}
    used: set[int] = set()
    for finding in findings:
        matching = [place for place, entry in enumerate(in_force) if _matches(entry, finding)]
        used.update(matching)
        if matching:
            by_finding[finding.id] = in_force[matching[0]]
    unused = tuple(entry for place, entry in enumerate(in_force) if place not in used)
    return AppliedSuppressions(by_finding, tuple(expired), unused)


def _check(entry: SuppressionEntry) -> None:
    """Refuse an entry that would suppress without an answerable person, or everything."""
    if bool(entry.finding) == bool(entry.rule):
        raise ReportError("a suppression names a finding or a rule, and not both")
    if not entry.owner.strip() or not entry.reason.strip():
        raise ReportError("a suppression has no owner or no reason")


def _end(entry: SuppressionEntry) -> datetime:
    """Return the first moment at which the entry counts as not there."""
    try:
        if "T" in entry.until:
            end = datetime.fromisoformat(entry.until)
            return end if end.tzinfo else end.replace(tzinfo=UTC)
        day = date.fromisoformat(entry.until)
    except ValueError as error:
        raise ReportError("`until` of a suppression is neither a day nor a moment") from error
    return datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(days=1)


def _matches(entry: SuppressionEntry, finding: Finding) -> bool:
    if entry.finding:
        return entry.finding == finding.id
    subjects = {finding.subject, *finding.policies}
    return entry.rule == finding.rule and (not entry.subject or entry.subject in subjects)
