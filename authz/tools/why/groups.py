"""Groups of refused decisions, and the changes between revisions of the bundle, counted in bounded memory."""

from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from authz.audit import RecordedDecision

__all__ = ["MOST", "Group", "Groups", "Key", "Revision"]

MOST: Final = 10_000
"""Groups at most; decisions of further groups are only summed up."""
_MOST_REVISIONS: Final = 200
_MOST_POLICIES: Final = 10_000


class Key(NamedTuple):
    """Properties that the decisions of a group share."""

    code: str
    operation: str
    policies: tuple[str, ...]
    agent: str
    revision: str


@dataclass(slots=True)
class Group:
    """Decisions of one kind."""

    times: int = 0
    """Number of decisions."""
    observed: int = 0
    """Number of those that `mode: observe` let through."""
    first: str = ""
    """First timestamp."""
    last: str = ""
    """The last."""
    sample: str = ""
    """Id of the last one."""

    def add(self, decision: RecordedDecision) -> None:
        """Take a decision in.

        Args:
            decision: The decision.
        """
        self.times += decision.times
        self.observed += not decision.enforced
        if decision.at:
            self.first = min(self.first or decision.at, decision.at)
            self.last = max(self.last, decision.at)
        self.sample = decision.decision_id


@dataclass(slots=True)
class Revision:
    """Decisions of one revision of the bundle."""

    digest: str
    """Its digest."""
    permitted: int = 0
    """Decisions that it permits."""
    refused: int = 0
    """Others."""
    first: str = ""
    """Its first decision."""
    last: str = ""
    """Its last."""
    policies: dict[str, int] = field(default_factory=dict)
    """Number of refusals by policy that determined them."""
    codes: dict[str, int] = field(default_factory=dict)
    """Number of refusals by reason code."""


@dataclass(slots=True)
class Groups:
    """All that was refused."""

    groups: dict[Key, Group] = field(default_factory=dict)
    """Groups by common properties."""
    revisions: dict[str, Revision] = field(default_factory=dict)
    """By revision, in the order in which they were first seen."""
    decisions: int = 0
    """All that were looked at."""
    left_out: int = 0
    """Decisions whose group is not kept."""

    def add(self, decision: RecordedDecision) -> None:
        """Take a decision in.

        Args:
            decision: The decision.
        """
        self.decisions += decision.times
        refused = decision.outcome != "PERMIT"
        self._revision(decision, refused=refused)
        if not refused:
            return
        key = Key(
            decision.code, decision.requested, decision.policies, decision.agent, decision.revision
        )
        group = self.groups.get(key)
        if group is None:
            if len(self.groups) >= MOST:
                self.left_out += decision.times
                return
            group = self.groups[key] = Group()
        group.add(decision)

    def _revision(self, decision: RecordedDecision, *, refused: bool) -> None:
        known = self.revisions.get(decision.revision)
        if known is None:
            if not decision.revision or len(self.revisions) >= _MOST_REVISIONS:
                return
            known = self.revisions[decision.revision] = Revision(decision.digest)
        if decision.at:
            known.first = min(known.first or decision.at, decision.at)
            known.last = max(known.last, decision.at)
        if not refused:
            known.permitted += 1
            return
        known.refused += decision.times
        known.codes[decision.code] = known.codes.get(decision.code, 0) + 1
        for policy in decision.policies:
            if policy in known.policies or len(known.policies) < _MOST_POLICIES:
                known.policies[policy] = known.policies.get(policy, 0) + 1

    def sorted(self) -> list[tuple[Key, Group]]:
        """List the groups.

        Returns:
            The largest first; groups of one size in the order of their common properties.
        """
        return sorted(self.groups.items(), key=lambda item: (-item[1].times, item[0]))

    def changes(self) -> list[dict[str, Any]]:
        """Compare each revision with the one that was seen before it.

        Returns:
            Of each: what it decided, and which policies and codes are new or gone.
        """
        found: list[dict[str, Any]] = []
        before: Revision | None = None
        for name, revision in self.revisions.items():
            entry: dict[str, Any] = {
                "revision": name,
                "digest": revision.digest,
                "first": revision.first,
                "last": revision.last,
                "permitted": revision.permitted,
                "refused": revision.refused,
                "policies": dict(sorted(revision.policies.items())),
                "reason_codes": dict(sorted(revision.codes.items())),
            }
            if before is not None:
                for what, now, then in (
                    ("policies", revision.policies, before.policies),
                    ("reason_codes", revision.codes, before.codes),
                ):
                    entry[f"new_{what}"] = sorted(set(now) - set(then))
                    entry[f"gone_{what}"] = sorted(set(then) - set(now))
            before = revision
            found.append(entry)
        return found

    def document(self) -> dict[str, Any]:
        """Give it as JSON values.

        Returns:
            The document.
        """
        return {
            "decisions": self.decisions,
            "left_out": self.left_out,
            "groups": [
                {
                    "times": group.times,
                    "observed": group.observed,
                    "reason_code": key.code,
                    "operation": key.operation,
                    "policies": list(key.policies),
                    "agent": key.agent,
                    "revision": key.revision,
                    "first": group.first,
                    "last": group.last,
                    "last_decision_id": group.sample,
                }
                for key, group in self.sorted()
            ],
            "revisions": self.changes(),
        }
