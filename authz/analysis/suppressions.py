"""Suppressions: findings that somebody answers for until a day.

A suppression names one finding by its id, or all findings of a rule, with `subject` of one policy or operation. It has an owner and a reason. After
its last day it has no effect, and the report marks it as expired.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from authz.analysis.report import Finding, ReportError, SuppressionEntry

__all__ = ["AppliedSuppressions", "apply_suppressions"]

_ASSERTION: Final = "assertion"


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
        (in_force if now < entry.end else expired).append(entry)
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
    try:
        entry.end  # noqa: B018 - computed for its error
    except (ValueError, OverflowError, OSError) as error:
        raise ReportError("`until` of a suppression is neither a day nor a moment") from error


def _matches(entry: SuppressionEntry, finding: Finding) -> bool:
    if entry.finding:
        return entry.finding == finding.id
    is_rule = entry.rule == finding.rule or (
        entry.rule == _ASSERTION and finding.rule.startswith(f"{_ASSERTION}:")
    )
    return is_rule and (not entry.subject or _is_about(finding, entry.subject))


def _is_about(finding: Finding, subject: str) -> bool:
    """Return whether a finding is about a subject. Its id is a digest of its rule and its subject, whether or not it names the subject."""
    digest = hashlib.sha256(f"{finding.rule}\n{subject}".encode()).hexdigest()
    return (
        subject in {finding.subject, *finding.policies}
        or digest[: len(finding.id)] == finding.id
        or finding.rule == f"{_ASSERTION}:{subject}"
    )
