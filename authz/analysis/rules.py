"""Rules of an analysis: a title and an explanation of each."""

from dataclasses import dataclass
from typing import Final

__all__ = ["RULES", "RuleText", "rule_text"]

_ASSERTION: Final = "assertion:"


@dataclass(frozen=True, slots=True)
class RuleText:
    """Explanation of one rule."""

    title: str
    """Defect, in one sentence."""
    help: str
    """Why it matters, and the usual fix."""


RULES: Final = {
    "policy-never-matches": RuleText(
        "A policy can never match.",
        "No request satisfies the conditions of the policy, so it has no effect. Correct the condition, or remove the policy.",
    ),
    "policy-always-matches": RuleText(
        "A policy matches every request in its scope.",
        "The conditions of the policy are always true. Remove them, or write the condition that was meant.",
    ),
    "policy-may-error": RuleText(
        "The evaluation of a policy can fail.",
        "A forbid that fails counts as one that matches, and a permit that fails permits nothing. Guard the access, for example with `has`.",
    ),
    "policy-redundant": RuleText(
        "Another policy already decides every request of a policy.",
        "Without the policy every answer is the same. Remove it, or correct the condition that makes it equal.",
    ),
    "policy-voided": RuleText(
        "A forbid matches every request that a permit matches.",
        "The permit has no effect. Remove the permit, or narrow the forbid.",
    ),
    "operation-nobody": RuleText(
        "Nobody can ever be permitted to call an operation.",
        "No principal of the bundle gets a permit for the operation. Write a permit, or remove the operation.",
    ),
    "confused-deputy": RuleText(
        "An agent uses its own authority for a caller that lacks it.",
        "A caller reaches, through a delegation, an operation that the caller itself may not call. Remove the delegation, or ask the user to confirm.",
    ),
    "toxic-combination": RuleText(
        "One session can read private data, read untrusted text and send data outside.",
        "Untrusted text can then make the agent send the private data. Forbid one of the three after the other two, or ask for approval.",
    ),
    "unused-authority": RuleText(
        "An agent has authority that no task of it can use.",
        "Remove the authority: an attacker could use it, and nobody else does.",
    ),
    "exception-on-path": RuleText(
        "A path needs a standing exception or break-glass.",
        "The exception opens more than its own operations. Narrow the exception, or let it end.",
    ),
    "credential-too-wide": RuleText(
        "A leased secret permits more than its operation.",
        "Authz is not asked about the calls that an agent makes with a leased secret. Narrow the grants of the lease, or guard its operation as the data asks for.",
    ),
    "self-approval": RuleText(
        "The caller that asks can answer its own approval.",
        "An approval needs another person. Forbid `authz.approve` to the people for whom the caller acts.",
    ),
    "label-lost": RuleText(
        "A label is lost on the way.",
        "A later step no longer knows that the data is restricted. Let the operation in between yield the label.",
    ),
    "contradicting-sequences": RuleText(
        "Sequences contradict each other.",
        "No order of calls satisfies all sequences, so an operation can never be called. Correct one of the sequences.",
    ),
    "unanswerable-step-up": RuleText(
        "Nobody can answer a step-up.",
        "Calls stay held until they expire. Permit `authz.approve` to a person of the queue.",
    ),
}
"""Rules by name. An assertion of the bundle has the name `assertion:ID`."""


def rule_text(rule: str) -> RuleText:
    """Return the explanation of a rule, also of an assertion and of a rule of a newer analyzer."""
    if known := RULES.get(rule):
        return known
    if rule.startswith(_ASSERTION):
        return RuleText(
            "An assertion of the bundle does not hold.",
            "The bundle says that this never happens. Cut the path, or correct the assertion.",
        )
    return RuleText("A rule of the analyzer.", "See the message of the finding.")
