"""Tools that do several things, told apart by an argument that lists them."""

from dataclasses import dataclass, replace
from typing import Any, Final

from authz.tools.catalog.arguments import enumerated
from authz.tools.catalog.propose import Proposal, noun_of, propose
from authz.tools.catalog.tool import Tool
from authz.tools.catalog.words import name_verbs, without_prefix, words_of

__all__ = ["SplitProposal", "propose_split"]

_NAMES: Final = frozenset(
    [
        "action",
        "command",
        "kind",
        "method",
        "mode",
        "op",
        "operation",
        "operation_type",
        "task",
        "type",
        "verb",
    ]
)
"""Arguments that say what is done; a `type` or `mode` only where its values are verbs."""
_MAX_CASES: Final = 64


@dataclass(frozen=True, slots=True)
class SplitProposal:
    """One operation per value of an argument."""

    on: str
    """JSON pointer to the argument."""
    cases: tuple[tuple[str, Proposal | None], ...]
    """Proposal for each value; None if its name says nothing, or the hints contradict it."""
    why: str
    """Reason of the proposal."""

    def rule(self) -> dict[str, Any]:
        """Give the split as it stands in a `classify` rule; a case without a proposal executes, tier high.

        Returns:
            `split`.
        """
        cases = {
            value: proposal.rule() if proposal else {"effects": ["execute"], "tier": "high"}
            for value, proposal in self.cases
        }
        return {"split": {"on": self.on, "cases": cases}}


def propose_split(system: str, tool: Tool, on: str = "") -> SplitProposal | None:
    """Propose to split a tool.

    Args:
        system: The system that it belongs to.
        tool: The tool.
        on: The argument. Empty: an argument whose values are verbs.

    Returns:
        The split; None where no argument (or not the given one) lists texts of which two or more have different effects.
    """
    for name, schema in tool.properties.items():
        if on and name != on:
            continue
        values = enumerated(tool.input, schema)
        if not 1 < len(values) <= _MAX_CASES or not all(values):
            continue
        if not on and "_".join(words_of(name)) not in _NAMES:
            continue
        cases = tuple((value, _case(system, tool, name, value)) for value in values)
        effect_sets = {case.effects for _, case in cases if case is not None}
        if on or len(effect_sets) > 1 or (effect_sets and any(case is None for _, case in cases)):
            pointer = "/" + name.replace("~", "~0").replace("/", "~1")
            return SplitProposal(pointer, cases, f"argument `{name}` says what is done")
    return None


def _case(system: str, tool: Tool, name: str, value: str) -> Proposal | None:
    """Judge a value as if it were the verb of a tool of its own, without hints: they speak of the whole tool."""
    properties = {key: schema for key, schema in tool.properties.items() if key != name}
    one = replace(
        tool,
        name=value,
        annotations=None,
        input={"type": "object", "properties": properties, "required": sorted(tool.required)},
    )
    words = without_prefix(tool.name, system)
    proposal = propose(system, one, default_noun=noun_of(words, name_verbs(words)))
    if proposal is not None:
        # Arguments are read before they choose a case.
        proposal = replace(proposal, values=replace(proposal.values, coerces=()))
    if proposal is None or tool.hint("destructiveHint") is not True:
        return proposal
    if proposal.effects == ("read",) or proposal.tier != "standard":
        return proposal
    return replace(proposal, tier="high", why=f"{proposal.why}; destructiveHint")
