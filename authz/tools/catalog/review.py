"""Review of imported tools: the worklist, and the files that accepting writes."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from authz.engine import effect_table, seal_catalog
from authz.errors import UsageError
from authz.tools.catalog.before import before_path, compared, read_before, render_before
from authz.tools.catalog.changes import Change, changes
from authz.tools.catalog.edited import EditedBundle
from authz.tools.catalog.files import (
    catalog_path,
    parse_catalog,
    render_catalog,
    rules_path,
    write_files,
)
from authz.tools.catalog.propose import Proposal, propose
from authz.tools.catalog.rules import Rules, read_rules, render_rules, update_rules
from authz.tools.catalog.splits import SplitProposal, propose_split
from authz.tools.catalog.tool import Listing, Tool, plain
from authz.tools.catalog.values import VALUE_KEYS
from authz.tools.catalog.words import common_prefixes

__all__ = ["Catalog", "WorklistItem", "changed", "import_listing"]


@dataclass(slots=True)
class WorklistItem:
    """A tool on the worklist."""

    operation: str
    """Id of its operation."""
    tool: Tool
    """Description of the server."""
    digest: str
    """Digest of the tool now."""
    state: str
    """`unreviewed`, `changed` or `reviewed`."""
    has_rule: bool
    """Whether a rule that is not a proposal covers it; then accepting only pins its digest."""
    effects: tuple[str, ...]
    """Effects in the rule, or else in the proposal; empty without either."""
    tier: str
    """Tier in the rule, or else in the proposal; `high` without either."""
    rule: dict[str, Any] = field(default_factory=dict)
    """Proposed rule without `match`; empty without a proposal."""
    why: str = ""
    """Reason of the proposal."""
    present: dict[str, Any] = field(default_factory=dict)
    """Present rule without `match`, if `accepted.yaml` holds it."""
    before: Tool | None = None
    """The tool as it was accepted; None if it did not change, or its earlier form is not kept."""

    @property
    def differences(self) -> list[tuple[str, str, str]]:
        """Part, text before and text after, of each part that changed since the tool was accepted."""
        return compared(self.before, self.tool) if self.before is not None else []

    @property
    def risk(self) -> tuple[int, int]:
        """Order on the worklist: the highest tier first; within a tier, tools without a rule or proposal first."""
        return (-effect_table().rank(self.tier), bool(self.effects))


def import_listing(bundle: EditedBundle, system: str, listing: Listing) -> list[Change]:
    """Write a catalog file, if the bundle compiles with it.

    Generated rules and pins of tools that are gone go with them.

    Args:
        bundle: The bundle.
        system: The system.
        listing: Its tools.

    Returns:
        What differs from the catalog before.

    Raises:
        UsageError: The tools cannot be taken over.
        BundleError: The bundle would be refused; nothing was written.
    """
    path = catalog_path(bundle.folder, system)
    text = bundle.text(path)
    old = parse_catalog(path, text) if text else Listing(())
    files = {path: render_catalog(system, listing)}
    sealed = seal_catalog(
        {
            "system": system,
            "server": {"name": listing.name, "version": listing.version},
            "tools": [tool.document() for tool in listing.tools],
        }
    )
    operations = {str(tool["operation"]) for tool in sealed["tools"]}
    for kind in ("accepted", "proposed"):
        path = rules_path(bundle.folder, system, kind)
        rules = read_rules(path, bundle.text(path))
        if gone := (rules.classify.keys() | rules.accepted.keys()) - operations:
            for operation in gone:
                rules.classify.pop(operation, None)
                rules.accepted.pop(operation, None)
            files[path] = (
                update_rules(path, bundle.text(path), rules)
                if kind == "accepted"
                else render_rules(kind, rules)
            )
    kept = _kept_before(bundle, system, old)
    bundle.write(files)
    write_files(bundle.folder, {before_path(catalog_path(bundle.folder, system)): kept})
    return changes(old, listing)


def _kept_before(bundle: EditedBundle, system: str, old: Listing) -> str:
    """Write down the tools that are accepted as they are in the old catalog, and those that were kept already."""
    path = before_path(catalog_path(bundle.folder, system))
    states = [tool for tool in bundle.plan.tools() if tool["system"] == system]
    accepted = {
        str(tool["operation"]): str(tool["accepted"]) for tool in states if tool["accepted"]
    }
    by_name = {tool.name: tool for tool in old.tools}
    kept = read_before(path, system, accepted)
    for tool in states:
        if tool["accepted"] == tool["digest"] and str(tool["tool"]) in by_name:
            kept[str(tool["operation"])] = by_name[str(tool["tool"])]
    return render_before(kept)


class Catalog:
    """One MCP system of a bundle.

    Args:
        bundle: The bundle.
        system: The system.

    Raises:
        UsageError: The system was not imported.
        BundleError: The bundle is refused.
    """

    def __init__(self, bundle: EditedBundle, system: str) -> None:
        self.bundle = bundle
        self.system = system
        path = catalog_path(bundle.folder, system)
        text = bundle.text(path)
        if not text:
            raise UsageError(f"there is no {path}; run `authz catalog import-mcp {system}` first")
        self.listing = parse_catalog(path, text)
        self.accepted_path = rules_path(bundle.folder, system, "accepted")
        self.proposed_path = rules_path(bundle.folder, system, "proposed")
        self.accepted = read_rules(self.accepted_path, bundle.text(self.accepted_path))
        self.proposed = read_rules(self.proposed_path, bundle.text(self.proposed_path))
        self.states = {
            str(tool["operation"]): tool for tool in bundle.plan.tools() if tool["system"] == system
        }

    def items(self) -> list[WorklistItem]:
        """List the tools, the riskiest first.

        Returns:
            All tools, reviewed ones last.
        """
        by_name = {tool.name: tool for tool in self.listing.tools}
        pins = {
            name: str(tool["accepted"]) for name, tool in self.states.items() if tool["accepted"]
        }
        kept = read_before(
            before_path(catalog_path(self.bundle.folder, self.system)), self.system, pins
        )
        worklist = []
        for operation, state in self.states.items():
            rule = {
                key: value
                for key, value in self.proposed.classify.get(operation, {}).items()
                if key != "proposed"
            }
            word = "unreviewed"
            if state["drifted"]:
                word = "changed"
            elif state["reviewed"]:
                word = "reviewed"
            has_rule = bool(state["effects"] or state["cases"])
            said = (state["effects"], state["tier"]) if has_rule else _said(rule)
            worklist.append(
                WorklistItem(
                    operation=operation,
                    tool=by_name[str(state["tool"])],
                    digest=str(state["digest"]),
                    state=word,
                    has_rule=has_rule,
                    effects=tuple(said[0]),
                    tier=str(said[1]),
                    rule=rule,
                    why=self.proposed.why.get(operation, ""),
                    present=dict(self.accepted.classify.get(operation, {})),
                    before=kept.get(operation) if state["drifted"] else None,
                )
            )
        return sorted(worklist, key=lambda i: (i.state == "reviewed", i.risk, i.operation))

    def proposed_now(self, item: WorklistItem) -> Proposal | None:
        """Propose for a tool as it is now, whether or not a rule covers it.

        Args:
            item: The tool.
        """
        return propose(self.system, item.tool, common_prefixes(self.listing.tools))

    def without_values(self) -> list[tuple[WorklistItem, dict[str, Any]]]:
        """List reviewed tools whose rule in `accepted.yaml` says nothing of origins of values, each with its rule and the proposed keys.

        Rules of other files, and rules that split a tool, are left to their authors.
        """
        found = []
        for item in self.items():
            if item.state != "reviewed" or not item.present or "split" in item.present:
                continue
            if any(key in item.present for key in VALUE_KEYS):
                continue
            proposal = self.proposed_now(item)
            keys = proposal.values.rule() if proposal is not None else {}
            if set(item.effects) <= {"read"}:
                keys.pop("creates", None)
            if keys:
                found.append((item, {**item.present, **keys}))
        return found

    def classify(self) -> list[tuple[WorklistItem, Proposal | None]]:
        """Write proposals for the tools that no rule speaks of, in place of earlier proposals.

        A tool that is split already in the proposals keeps its split.

        Returns:
            Each such tool with its proposal; None where it gets none.
        """
        prefixes = common_prefixes(self.listing.tools)
        rules = Rules()
        proposals = []
        for item in self.items():
            if item.has_rule:
                continue
            if "split" in item.rule:
                rules.classify[item.operation] = item.rule
                continue
            proposal = propose(self.system, item.tool, prefixes)
            proposals.append((item, proposal))
            if proposal is not None:
                rules.classify[item.operation] = proposal.rule()
                rules.why[item.operation] = proposal.comment
        self.bundle.write({self.proposed_path: render_rules("proposed", rules)})
        return proposals

    def split(self, operation: str, on: str) -> list[tuple[str, SplitProposal]]:
        """Write proposals to split tools that do several things.

        Args:
            operation: The one; empty: each that no rule speaks of.
            on: The argument. Empty: an argument that looks like the one that says what the tool does.

        Returns:
            The proposals, by operation.

        Raises:
            UsageError: The operation is unknown, it has a rule, or no argument lists its effects.
        """
        by_operation = {item.operation: item for item in self.items()}
        if operation and operation not in by_operation:
            raise UsageError(f"`{self.system}` has no tool `{plain(operation)}`")
        if operation and by_operation[operation].has_rule:
            raise UsageError(f"`{operation}` has a rule already: write `split` there")
        proposals = []
        for item in by_operation.values():
            if item.has_rule or (operation and item.operation != operation):
                continue
            proposal = propose_split(self.system, item.tool, on)
            if proposal is not None:
                proposals.append((item.operation, proposal))
        if operation and not proposals:
            raise UsageError(f"no argument of `{operation}` lists (`enum`) what it does")
        rules = Rules(classify=dict(self.proposed.classify), why=dict(self.proposed.why))
        for split_operation, proposal in proposals:
            rules.classify[split_operation] = proposal.rule()
            rules.why[split_operation] = proposal.why
        for rule in rules.classify.values():
            rule.pop("proposed", None)
        self.bundle.write({self.proposed_path: render_rules("proposed", rules)})
        return proposals

    def accept(
        self, chosen: Mapping[str, Mapping[str, Any] | None], *, is_shown: bool = True
    ) -> list[str]:
        """Pin tools as they are now, and make their proposals rules.

        Args:
            chosen: Operations, each with the rule that it gets. With None it gets its proposal, or keeps its present rule.
            is_shown: A person has seen the proposals. Otherwise `coerces` is left out of them: it says that the server takes
                an argument in a second form, which only its description says.

        Returns:
            Operations from whose proposals `coerces` was left out.

        Raises:
            UsageError: One is not a tool, or has neither a rule nor a proposal.
            BundleError: The bundle would be refused; nothing was written.
        """
        by_operation = {item.operation: item for item in self.items()}
        accepted, proposed = self.accepted, Rules(classify=dict(self.proposed.classify))
        unseen = []
        for operation, given in chosen.items():
            item = by_operation.get(operation)
            if item is None:
                raise UsageError(f"`{self.system}` has no tool `{plain(operation)}`")
            if given is None and not item.has_rule and not item.rule:
                raise UsageError(
                    f"`{operation}` has neither a rule nor a proposal: review it, or write a `classify` rule"
                )
            if given is not None and item.has_rule and operation not in accepted.classify:
                raise UsageError(f"`{operation}` has a rule in another file: change it there")
            rule, is_cut = _accepted_rule(item, given, is_shown=is_shown)
            if rule is not None:
                accepted.classify[operation] = rule
            if is_cut:
                unseen.append(operation)
            accepted.accepted[operation] = item.digest
            proposed.classify.pop(operation, None)
        for operation in [*accepted.accepted]:
            # A tool that the server no longer has loses its pin and its rule.
            if operation not in by_operation:
                accepted.accepted.pop(operation)
                accepted.classify.pop(operation, None)
        self._declare(accepted)
        for rule in proposed.classify.values():
            rule.pop("proposed", None)
        proposed.why = {k: v for k, v in self.proposed.why.items() if k in proposed.classify}
        before = self.bundle.text(self.accepted_path)
        self.bundle.write(
            {
                self.accepted_path: update_rules(self.accepted_path, before, accepted),
                self.proposed_path: render_rules("proposed", proposed),
            }
        )
        return unseen

    def _declare(self, rules: Rules) -> None:
        """Declare what the rules name and no other file declares: collections, and the least trusted class."""
        own = self.bundle.name_of(self.accepted_path)
        described = self.bundle.plan.describe()
        collections = {one.name for one in described.collections if one.file != own}
        classes = {one.name for one in described.destinations if one.file != own}
        wanted = {
            name
            for key in ("resource", "objects", "creates", "introduces", "pairs")
            for name in _named(rules.classify.values(), key, "collection")
        }
        rules.resources = {
            name: rules.resources.get(name) or {} for name in sorted(wanted - collections)
        }
        exports = any(True for _ in _named(rules.classify.values(), "destination", "type"))
        if classes or not exports:
            rules.destinations = {}
        else:
            rules.destinations = rules.destinations or {"external": {"match": "*", "clearance": []}}


def _accepted_rule(
    item: WorklistItem, given: Mapping[str, Any] | None, *, is_shown: bool
) -> tuple[dict[str, Any] | None, bool]:
    """Return the rule that an accepted tool gets, if it gets another one, and whether `coerces` was left out of it."""
    if given is not None:
        return dict(given), False
    if item.has_rule:
        return None, False
    rule = dict(item.rule)
    is_cut = not is_shown and rule.pop("coerces", None) is not None
    return rule, is_cut


def changed(
    item: WorklistItem, effects: Iterable[str], tier: str, where: str
) -> dict[str, Any] | None:
    """Take over what a reviewer says of a tool.

    Args:
        item: The tool.
        effects: Its effects.
        tier: Its tier.
        where: Place of the review, for messages.

    Returns:
        The rule; None where it equals the proposal, or the present rule.

    Raises:
        UsageError: An unknown effect or tier, or none.
    """
    table, chosen = effect_table(), set(effects)
    listed = ", ".join(table.effects)
    if unknown := chosen - set(table.effects):
        raise UsageError(f"{where}: unknown effect `{plain(min(unknown))}`. Effects: {listed}")
    if not chosen:
        raise UsageError(f"{where}: `{item.operation}` has no effects. Give some of: {listed}")
    if tier not in table.tiers:
        tiers = ", ".join(table.tiers)
        raise UsageError(f"{where}: unknown tier `{plain(tier)}`. Tiers: {tiers}")
    if chosen == set(item.effects) and tier == item.tier and (item.has_rule or item.rule):
        return None
    kept = {"resource", "destination", *VALUE_KEYS}
    if chosen <= {"read"}:
        # A tool that only reads makes nothing.
        kept.discard("creates")
    rule = {key: value for key, value in item.rule.items() if key in kept}
    reviewed: dict[str, Any] = {
        "effects": list(table.in_order(chosen)),
        "tier": tier,
        **rule,
    }
    if "export" in chosen:
        reviewed.setdefault("destination", {"type": "url"})
    else:
        reviewed.pop("destination", None)
    return reviewed


def _said(rule: Mapping[str, Any]) -> tuple[tuple[str, ...], str]:
    """Sum up a proposed rule; nothing proposed is `high`."""
    rules: list[Mapping[str, Any]] = [rule]
    if isinstance(split := rule.get("split"), Mapping):
        rules = list(split.get("cases", {}).values())
    effects = {effect for one in rules for effect in one.get("effects", ())}
    tiers = [str(one.get("tier", "high")) for one in rules] or ["high"]
    table = effect_table()
    tier = max((tier for tier in tiers if tier in table.tiers), key=table.rank, default="high")
    return table.in_order(effects), tier


def _named(rules: Iterable[Mapping[str, Any]], key: str, member: str) -> Iterable[str]:
    for rule in rules:
        split = rule.get("split") or {}
        for one in (rule, *(split.get("cases") or {}).values()):
            said = one.get(key) or ()
            for entry in (said,) if isinstance(said, Mapping) else said:
                if isinstance(entry, Mapping) and member in entry:
                    yield str(entry[member])
