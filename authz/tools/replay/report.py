"""Counts of a replay, in bounded memory."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from authz.audit import RecordedDecision
from authz.tools.replay.judgement import CATEGORIES, Answer, Category, Judgement, NotReplayed

__all__ = ["MOST_GROUPS", "Change", "Counts", "Gap", "ReplayReport"]

MOST_GROUPS: Final = 10_000
"""Groups of changes, groups of gaps, and sessions with changes that are told apart; further ones are only counted."""
_SAMPLES: Final = 5
_MAX_SESSION: Final = 200
_MOST_OPERATIONS: Final = 100
_MOST_SESSIONS_OF_CHANGE: Final = 1_000


class _Cause(NamedTuple):
    category: Category
    operation: str
    before: Answer
    after: Answer


@dataclass(slots=True)
class Change:
    """Decisions with the same difference."""

    times: int = 0
    """Number of decisions."""
    first: str = ""
    """First timestamp."""
    last: str = ""
    """Last timestamp."""
    samples: list[str] = field(default_factory=list)
    """Ids of the first decisions."""
    sessions: set[str] = field(default_factory=set)
    """Sessions, at most 1,000."""

    def add(self, decision: RecordedDecision, session: str) -> None:
        """Take a decision in."""
        self.times += 1
        if decision.at:
            self.first = min(self.first or decision.at, decision.at)
            self.last = max(self.last, decision.at)
        if len(self.samples) < _SAMPLES:
            self.samples.append(decision.decision_id)
        if session and len(self.sessions) < _MOST_SESSIONS_OF_CHANGE:
            self.sessions.add(session)


@dataclass(slots=True)
class Gap:
    """Decisions that were not replayed for one reason."""

    times: int = 0
    """Number of decisions."""
    never_admits: int = 0
    """Number of those that the bundle permits with no value of the missing facts."""
    may_admit: int = 0
    """Number of those that the bundle permits with some values of the missing facts."""
    operations: set[str] = field(default_factory=set)
    """Operations, at most 100."""
    samples: list[str] = field(default_factory=list)
    """Ids of the first decisions."""


@dataclass(slots=True)
class Counts:
    """Denominators of a replay."""

    records: int = 0
    """Lines that are records."""
    damaged_lines: int = 0
    """Lines that are not records."""
    node_records: int = 0
    """Records of the node itself, for example of a loaded bundle."""
    sums: int = 0
    """Sums of refusals, which have no request."""
    repeated: int = 0
    """Records of a decision that was read before."""
    left_out: int = 0
    """Decisions outside the span of time, or of another agent or operation."""
    probes: int = 0
    """Probes, after which nothing was to be done."""
    decisions: int = 0
    """Decisions that were to be replayed."""
    replayed: int = 0
    """Decisions with a second answer."""
    equal: int = 0
    """Replayed decisions without a difference."""
    not_replayed: int = 0
    """Decisions without a second answer."""
    newly_permitted: int = 0
    """Decisions that were held or denied, and are permitted."""
    newly_held: int = 0
    """Decisions that were permitted or denied, and are held for a step-up."""
    newly_denied: int = 0
    """Decisions that were permitted or held, and are denied."""
    other_change: int = 0
    """Decisions with the same outcome for another reason, by other policies, or in another tier."""

    def document(self) -> dict[str, int]:
        """Return the counts for JSON."""
        return {name: getattr(self, name) for name in self.__slots__}


class ReplayReport:
    """Differences between the answers of two bundles to recorded calls."""

    def __init__(self) -> None:
        self.counts = Counts()
        self._changes: dict[_Cause, Change] = {}
        self._gaps: dict[tuple[str, str], Gap] = {}
        self._sessions: dict[str, Counter[Category]] = {}
        self.further_changes = 0
        """Changed decisions of groups beyond the first 10,000."""
        self.further_sessions = 0
        """Changed decisions of sessions beyond the first 10,000."""

    def add(self, decision: RecordedDecision, judgement: Judgement) -> None:
        """Take a decision in.

        Args:
            decision: The recorded decision.
            judgement: Its two answers.
        """
        counts = self.counts
        counts.decisions += 1
        if judgement.gap is not None:
            self._add_gap(decision, judgement.gap)
            return
        counts.replayed += 1
        category = judgement.category
        setattr(counts, category, getattr(counts, category) + 1)
        if category == "equal" or judgement.before is None or judgement.after is None:
            return
        session = decision.session[:_MAX_SESSION]
        cause = _Cause(category, decision.operation, judgement.before, judgement.after)
        if cause not in self._changes and len(self._changes) >= MOST_GROUPS:
            self.further_changes += 1
        else:
            self._changes.setdefault(cause, Change()).add(decision, session)
        if not session:
            return
        if session not in self._sessions and len(self._sessions) >= MOST_GROUPS:
            self.further_sessions += 1
        else:
            self._sessions.setdefault(session, Counter())[category] += 1

    def _add_gap(self, decision: RecordedDecision, found: NotReplayed) -> None:
        self.counts.not_replayed += 1
        key = (found.reason, found.message)
        if key not in self._gaps and len(self._gaps) >= MOST_GROUPS:
            key = (found.reason, "further reasons")
        gap = self._gaps.setdefault(key, Gap())
        gap.times += 1
        gap.never_admits += found.claim == "never_admits"
        gap.may_admit += found.claim == "may_admit"
        if len(gap.operations) < _MOST_OPERATIONS:
            gap.operations.add(decision.requested)
        if len(gap.samples) < _SAMPLES:
            gap.samples.append(decision.decision_id)

    def changes(self) -> list[tuple[Category, str, Answer, Answer, Change]]:
        """List groups of changed decisions: by category, then the most frequent first."""
        rows = sorted(
            self._changes.items(),
            key=lambda row: (
                CATEGORIES.index(row[0].category),
                -row[1].times,
                row[0].operation,
                repr(row[0].before),
                repr(row[0].after),
            ),
        )
        return [(*cause, change) for cause, change in rows]

    def gaps(self) -> list[tuple[str, str, Gap]]:
        """List groups of decisions that were not replayed: reason, message and group, the most frequent first."""
        rows = sorted(self._gaps.items(), key=lambda row: (-row[1].times, row[0]))
        return [(reason, message, gap) for (reason, message), gap in rows]

    def sessions(self) -> list[tuple[str, Mapping[Category, int]]]:
        """List sessions with changed decisions: those with the most newly permitted decisions first."""
        return sorted(
            self._sessions.items(),
            key=lambda row: (*(-row[1][category] for category in CATEGORIES), row[0]),
        )

    def fails(self, conditions: frozenset[str]) -> list[str]:
        """List the conditions that hold.

        Args:
            conditions: `newly-permitted`, `newly-held`, `newly-denied` or `not-replayed`.
        """
        return [
            name for name in sorted(conditions) if getattr(self.counts, name.replace("-", "_")) > 0
        ]

    def document(self) -> dict[str, Any]:
        """Return the report for JSON."""
        return {
            "counts": self.counts.document(),
            "changes": [
                {
                    "category": category,
                    "operation": operation,
                    "times": change.times,
                    "before": before.document(),
                    "after": after.document(),
                    "first": change.first,
                    "last": change.last,
                    "sessions": len(change.sessions),
                    "samples": change.samples,
                }
                for category, operation, before, after, change in self.changes()
            ],
            "further_changes": self.further_changes,
            "sessions": [
                {"session": session, **{category: counts[category] for category in CATEGORIES}}
                for session, counts in self.sessions()
            ],
            "further_sessions": self.further_sessions,
            "not_replayed": [
                {
                    "reason": reason,
                    "message": message,
                    "times": gap.times,
                    "never_admits": gap.never_admits,
                    "may_admit": gap.may_admit,
                    "operations": sorted(gap.operations),
                    "samples": gap.samples,
                }
                for reason, message, gap in self.gaps()
            ],
        }
