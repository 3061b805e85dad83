"""Explanation of one decision: the step that ended it, its policies, and the changes that would permit it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from authz.audit import ChainLink, RecordedDecision
from authz.engine import BundleDescription, PolicyDescription, reason_table
from authz.model import system_of

__all__ = ["STEPS", "ClosestPermit", "Explanation", "explain"]

STEPS: Final = {
    "identify": "who asks, and who acts",
    "resolve": "which operation, on what, with which arguments",
    "locate": "the task that it belongs to",
    "recall": "what the task did before",
    "judge": "every check ran, the worst answer won",
    "settle": "what the answer changes",
    "record": "the audit",
}
"""Question of each step."""
_PAGE: Final = "docs/reference/reason-codes.md"
_UNPERMITTED: Final = frozenset({"NOT_PERMITTED", "CHAIN_NOT_PERMITTED"})
_MOST: Final = 10
_ENTRY: Final = "an entry for it in the bundle: authz propose drafts one"
_REVIEW: Final = "a review: authz catalog review SYSTEM, or a rule of `classify`"
_NEAREST: Final = {
    "NO_ROUTE": _ENTRY,
    "UNKNOWN_OPERATION": _ENTRY,
    "UNREVIEWED_OPERATION": _REVIEW,
    "CATALOG_DRIFT": _REVIEW,
    "FORBIDDEN": "a call that none of these policies forbids, or a change of the policy",
}


@dataclass(frozen=True, slots=True)
class ClosestPermit:
    """A permit that covers the operation, and the reason why it did not fire."""

    policy: PolicyDescription
    """The permit."""
    principal: str
    """Principal for which it did not fire."""
    lacks: str
    """Explanation not, as far as record and bundle tell."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """Explanation of a decision."""

    decision: RecordedDecision
    """The decision."""
    title: str
    """Meaning of its reason code."""
    page: str
    """Page of the docs about the code."""
    settles: str
    """Question of the step that decided."""
    policies: tuple[tuple[str, str, str], ...]
    """Id, `file:line` and `@reason` of each policy that determined it; unknown parts are empty."""
    source: str
    """Text of the first of these policies; empty without the bundle that judged."""
    permits: tuple[ClosestPermit, ...]
    """Permits that came closest, the closest first, if nothing permits the operation."""
    would_permit: tuple[str, ...]
    """Changes that would permit it, the closest first; empty if it was permitted."""
    same_bundle: bool | None
    """Whether the given bundle made the decision. None without a bundle."""

    def document(self) -> dict[str, Any]:
        """Return the explanation as JSON values."""
        decision = self.decision
        return {
            "decision_id": decision.decision_id,
            "timestamp": decision.at,
            "outcome": decision.outcome,
            "reason_code": decision.code,
            "enforced": decision.enforced,
            "meaning": self.title,
            "page": self.page,
            "message": decision.message,
            "step": decision.step,
            "step_settles": self.settles,
            "step_up_kinds": list(decision.kinds),
            "next_action": decision.next_action,
            "retry": decision.retry,
            "operation": decision.operation,
            "asked": decision.requested if decision.unresolved is not None else None,
            "resource": decision.resource,
            "destination_class": decision.destination_class,
            "tier": decision.tier,
            "arguments": decision.arguments,
            "chain": [
                {
                    "kind": link.kind,
                    "id": link.id,
                    "roles": list(link.roles) if link.roles is not None else None,
                    "claims": dict(link.claims),
                }
                for link in decision.chain
            ],
            "enforcer": decision.enforcer,
            "surface": decision.surface,
            "node": decision.node,
            "trace_id": decision.trace_id,
            "bundle": {
                "name": decision.bundle,
                "revision": decision.revision,
                "digest": decision.digest,
            },
            "same_bundle": self.same_bundle,
            "rules": [
                {"kind": rule.kind, "name": rule.name, "at": rule.at} for rule in decision.rules
            ],
            "policies": [
                {"id": id_, "at": at, "reason": reason} for id_, at, reason in self.policies
            ],
            "closest_permits": [
                {
                    "id": permit.policy.id,
                    "at": f"{permit.policy.file}:{permit.policy.line}",
                    "principal": permit.principal,
                    "head": permit.policy.principal.text,
                    "lacks": permit.lacks,
                }
                for permit in self.permits
            ],
            "would_permit": list(self.would_permit),
        }


def explain(
    decision: RecordedDecision,
    bundle: BundleDescription | None = None,
    digest: str = "",
    table: Sequence[Any] = (),
) -> Explanation:
    """Explain why a decision came out as it did.

    Args:
        decision: The decision.
        bundle: Description of the bundle, or None without a bundle.
        digest: Digest of that bundle.
        table: Rows of the reason codes. Default: those of this version.

    Returns:
        The explanation.
    """
    rows = {row["name"]: row for row in (table or reason_table())}
    row = rows.get(decision.code, {})
    policies = bundle.policies if bundle is not None else {}
    same = digest == decision.digest if bundle is not None else None
    first = next((policies[id_] for id_ in decision.policies if id_ in policies), None)
    permits: tuple[ClosestPermit, ...] = ()
    if decision.code in _UNPERMITTED and bundle is not None:
        permits = _closest(decision, bundle)
    return Explanation(
        decision=decision,
        title=str(row.get("title", "a code that this version does not know")),
        page=f"{_PAGE}#{decision.code.lower()}" if row else "",
        settles=STEPS.get(decision.step, ""),
        policies=tuple(_determining(decision, policies)),
        source=first.text if first is not None and same else "",
        permits=permits,
        would_permit=tuple(_would_permit(decision, row, permits, given=bundle is not None)),
        same_bundle=same,
    )


def _determining(
    decision: RecordedDecision, policies: Mapping[str, PolicyDescription]
) -> Iterator[tuple[str, str, str]]:
    """Yield id, place and reason of each policy that determined the decision."""
    places = dict(zip(decision.policies, decision.places, strict=False))
    for id_ in decision.policies:
        policy = policies.get(id_)
        at = places.get(id_) or (f"{policy.file}:{policy.line}" if policy else "")
        yield id_, at, policy.reason if policy else ""


def _closest(decision: RecordedDecision, bundle: BundleDescription) -> tuple[ClosestPermit, ...]:
    permits = [
        policy for policy in bundle.policies_about(decision.operation) if policy.effect == "permit"
    ]
    ranked = []
    for link in decision.unpermitted:
        for policy in permits:
            rank, lacks = _lacks(policy, link)
            principal = f'{link.kind}::"{link.id}"'
            ranked.append((principal, rank, policy.id, ClosestPermit(policy, principal, lacks)))
    ranked.sort(key=lambda entry: entry[:3])
    return tuple(closest for *_, closest in ranked[:_MOST])


def _lacks(policy: PolicyDescription, link: ChainLink) -> tuple[int, str]:
    """Rank a permit by its distance from a principal, and say what it lacked."""
    wanted = policy.principal.ids("Role")
    principals = frozenset(id_ for kind, id_ in policy.principal.entities if kind != "Role")
    holds = set(link.roles or ())
    condition = "its condition does not hold"
    if not wanted and not principals:
        return (0, condition) if policy.conditional else (1, "it is not for this principal")
    if wanted and wanted & holds:
        return 0, condition if policy.conditional else "it fires with the given bundle"
    if link.id in principals:
        return 0, condition
    roles = ", ".join(sorted(wanted)) or "none of its kind"
    held = ", ".join(sorted(holds)) if holds else "no role"
    if link.roles is None:
        held = "roles that the record does not tell"
    return 2, f"it is for {roles}; the principal holds {held}" if wanted else "it names another"


def _would_permit(
    decision: RecordedDecision,
    row: Mapping[str, Any],
    permits: Sequence[ClosestPermit],
    *,
    given: bool,
) -> list[str]:
    if decision.outcome == "PERMIT":
        return []
    changes = [_NEAREST.get(decision.code, "")]
    if decision.code in _UNPERMITTED:
        changes += _missing_permits(decision)
        if not permits:
            without = "no permit of the bundle speaks of this operation"
            changes.append(without if given else "--bundle FOLDER tells which permits came closest")
    elif decision.outcome == "STEP_UP":
        changes.append(f"to show first: {', '.join(decision.kinds)}")
    changes.append(str(row.get("fix", "")))
    system = system_of(decision.operation)
    return [what.replace("SYSTEM", system) for what in changes if what]


def _missing_permits(decision: RecordedDecision) -> list[str]:
    permits = []
    for link in decision.unpermitted:
        roles = " or ".join(f'Role::"{role}"' for role in link.roles or ())
        holder = f"for {roles}, which it holds" if roles else "for a role that the bundle gives it"
        permits.append(
            f'a permit for {link.kind}::"{link.id}" on Action::"{decision.operation}", {holder}'
        )
    return permits
