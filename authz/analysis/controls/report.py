"""States of the controls of frameworks, for one bundle."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from authz.analysis.controls.frameworks import (
    AddressedBy,
    Control,
    Framework,
    known_frameworks,
)
from authz.analysis.controls.removal import Removal
from authz.audit import RecordedDecision
from authz.bundle import PartReach, TestCoverage
from authz.engine import Plan, PolicyDescription

__all__ = [
    "ControlReport",
    "ControlState",
    "ControlStatus",
    "FrameworkStatus",
    "PolicyEvidence",
    "control_report",
    "count_seen",
]

_VERSION: Final = 1


class ControlState(StrEnum):
    """State of a control."""

    ENFORCED = "enforced"
    """A policy names the control, and a test of the bundle fails without that policy."""
    TESTED = "tested"
    """A policy names the control, and a test of the bundle reaches that policy. No test fails without it."""
    CLAIMED = "claimed"
    """A policy names the control. No test of the bundle reaches that policy."""
    BUILT_IN = "built_in"
    """No policy names the control. Features of Authz address it."""
    MISSING = "missing"
    """No policy names the control, and features of Authz are not enough."""
    NOT_APPLICABLE = "not_applicable"
    """No authorization of actions can address the control."""


_RANKS: Final = (ControlState.ENFORCED, ControlState.TESTED, ControlState.CLAIMED)


@dataclass(frozen=True, slots=True)
class PolicyEvidence:
    """One policy that names a control."""

    id: str
    file: str
    line: int
    state: ControlState
    """`enforced`, `tested` or `claimed`."""
    test: str
    """Name of the test that fails without the policy; else of the first test that reaches it; else empty."""
    note: str = ""
    """Why the policy could not be left out; empty where it could."""


@dataclass(frozen=True, slots=True)
class ControlStatus:
    """One control, and its state in a bundle."""

    control: Control
    state: ControlState
    policies: tuple[PolicyEvidence, ...]
    """Policies that name the control."""
    seen: int | None
    """Decisions of the log that carry the control. `None`: no log was read."""


@dataclass(frozen=True, slots=True)
class FrameworkStatus:
    """Controls of one framework, in its order."""

    framework: Framework
    controls: tuple[ControlStatus, ...]

    def count(self, state: ControlState) -> int:
        """Return the number of controls in a state."""
        return sum(status.state is state for status in self.controls)


@dataclass(frozen=True, slots=True)
class OwnControl:
    """A control that policies name and that no framework has: one of your own catalogue."""

    id: str
    state: ControlState
    policies: tuple[PolicyEvidence, ...]
    seen: int | None


@dataclass(frozen=True, slots=True)
class ControlReport:
    """Controls of frameworks, and how far a bundle covers them."""

    bundle: Mapping[str, str]
    """Name, revision and digest of the bundle."""
    frameworks: tuple[FrameworkStatus, ...]
    own: tuple[OwnControl, ...]
    """Controls that no framework has, sorted."""
    removals: int
    """Policies that were left out, one at a time."""
    decisions: int | None
    """Decisions of the log. `None`: no log was read."""

    @property
    def statuses(self) -> Iterator[ControlStatus]:
        """Every control of every framework."""
        return (status for framework in self.frameworks for status in framework.controls)

    def document(self) -> dict[str, Any]:
        """Return the report as a JSON object."""
        return {
            "version": _VERSION,
            "bundle": dict(self.bundle),
            "removals": self.removals,
            "decisions": self.decisions,
            "frameworks": [_framework_document(one) for one in self.frameworks],
            "own_controls": [
                {
                    "id": one.id,
                    "state": str(one.state),
                    "seen": one.seen,
                    "policies": [_policy_document(policy) for policy in one.policies],
                }
                for one in self.own
            ],
        }


def _framework_document(status: FrameworkStatus) -> dict[str, Any]:
    framework = status.framework
    return {
        "id": framework.id,
        "name": framework.name,
        "version": framework.version,
        "published": framework.published,
        "mapped": framework.mapped,
        "source": framework.source,
        "counts": {str(state): status.count(state) for state in ControlState},
        "controls": [
            {
                "id": one.control.id,
                "name": one.control.name,
                "state": str(one.state),
                "seen": one.seen,
                "policies": [_policy_document(policy) for policy in one.policies],
                "built_in": [feature.model_dump() for feature in one.control.built_in],
                "policy_hint": one.control.policy,
                "limits": one.control.limits,
                "reason": one.control.reason,
                "threats": list(one.control.threats),
            }
            for one in status.controls
        ],
    }


def _policy_document(policy: PolicyEvidence) -> dict[str, Any]:
    return {
        "id": policy.id,
        "file": policy.file,
        "line": policy.line,
        "state": str(policy.state),
        "test": policy.test,
        "note": policy.note,
    }


def count_seen(
    decisions: Iterable[RecordedDecision], frameworks: Sequence[Framework]
) -> tuple[Counter[str], int]:
    """Count the decisions of a log that carry each control. A decision that carries an id and its alias counts once.

    Args:
        decisions: Decisions of the log.
        frameworks: Frameworks whose aliases are read.

    Returns:
        Decisions by control, and the number of all decisions.
    """
    ids = {id_: control.id for framework in frameworks for id_, control in framework.by_id.items()}
    seen: Counter[str] = Counter()
    total = 0
    for decision in decisions:
        total += decision.times
        for control in {ids.get(id_, id_) for id_ in decision.controls}:
            seen[control] += decision.times
    return seen, total


def control_report(
    plan: Plan,
    frameworks: Sequence[Framework],
    coverage: TestCoverage,
    removals: Mapping[str, Removal],
    seen: tuple[Mapping[str, int], int] | None,
) -> ControlReport:
    """Tell the state of each control.

    Args:
        plan: The bundle.
        frameworks: Frameworks of the report.
        coverage: Coverage of the bundle by its tests.
        removals: Results of the tests without each policy that names a control.
        seen: Decisions of a log by control, and the number of all decisions. `None`: no log was read.
    """
    policies = plan.describe().policies.values()
    reached = {part.name: part for part in coverage.of_kind("policy")}
    evidence = {
        policy.id: _evidence(policy, reached[policy.id].reach, reached[policy.id].tests, removal)
        for policy in policies
        if (removal := removals.get(policy.id)) is not None
    }
    named: dict[str, list[PolicyEvidence]] = {}
    for policy in policies:
        for control in dict.fromkeys(policy.controls):
            named.setdefault(control, []).append(evidence[policy.id])
    counts, total = seen if seen is not None else (None, None)
    statuses = tuple(
        FrameworkStatus(
            framework, tuple(_status(control, named, counts) for control in framework.controls)
        )
        for framework in frameworks
    )
    # A report about one framework does not call the controls of the others your own.
    known = {id_ for framework in known_frameworks() for id_ in framework.by_id}
    own = tuple(
        OwnControl(id_, _best(of_policies), tuple(of_policies), _count(counts, id_))
        for id_, of_policies in sorted(named.items())
        if id_ not in known
    )
    return ControlReport(plan.identity, statuses, own, len(removals), total)


def _evidence(
    policy: PolicyDescription, reach: PartReach, tests: Sequence[str], removal: Removal
) -> PolicyEvidence:
    if removal.is_defended:
        state, test = ControlState.ENFORCED, removal.test
    elif reach in {PartReach.FIRED, PartReach.REACHED}:
        state, test = ControlState.TESTED, tests[0] if tests else ""
    else:
        state, test = ControlState.CLAIMED, ""
    return PolicyEvidence(policy.id, policy.file, policy.line, state, test, removal.refused)


def _status(
    control: Control, named: Mapping[str, Sequence[PolicyEvidence]], seen: Mapping[str, int] | None
) -> ControlStatus:
    ids = (control.id, *control.aliases)
    policies = {one.id: one for id_ in ids for one in named.get(id_, ())}
    if policies:
        state = _best(policies.values())
    else:
        state = {
            AddressedBy.POLICY: ControlState.MISSING,
            AddressedBy.BUILT_IN: ControlState.BUILT_IN,
            AddressedBy.NOT_APPLICABLE: ControlState.NOT_APPLICABLE,
        }[control.addressed_by]
    return ControlStatus(control, state, tuple(policies.values()), _count(seen, control.id))


def _count(seen: Mapping[str, int] | None, control: str) -> int | None:
    return None if seen is None else seen.get(control, 0)


def _best(policies: Iterable[PolicyEvidence]) -> ControlState:
    """Return the state of a control: the best state of its policies."""
    return min((policy.state for policy in policies), key=_RANKS.index)
