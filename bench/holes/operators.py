"""Small changes that open a bundle, each with the thought of the person who makes it and the rules that should find it.

An operator yields the places of a draft where it applies. Rules are those of `authz analyze`; `assertion` stands for any
assertion of the bundle. An operator says nothing about the analyzer's method: the list was fixed before the analyzer existed.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from bench.holes.draft import (
    Draft,
    Node,
    Policy,
    Section,
    Site,
    entities_of,
    has_attribute,
    nodes_of,
    parse_condition,
    parse_policies,
)

ASSERTION: Final = "assertion"
_TIERS: Final = ("low", "standard", "high", "critical")
# From the best to the worst. `unknown` is left out: with it the check would be gone, which is another operator.
_ORIGINS: Final = ("named", "known", "made", "introduced", "claimed")


@dataclass(frozen=True, slots=True)
class Operator:
    """One kind of change.

    Attributes:
        name: name in results.
        thought: the thought of the person who makes the change.
        rules: rules of `authz analyze` of which one should find it. Empty: the change is harmless, and a finding is a false alarm.
        sites: yields the places of a draft where it applies, always in the same order.
    """

    name: str
    thought: str
    rules: tuple[str, ...]
    sites: Callable[[Draft], Iterator[Site]]

    @property
    def is_hole(self) -> bool:
        """Whether the change opens something."""
        return bool(self.rules)


OPERATORS: Final[list[Operator]] = []
"""Every operator, in the order of this file."""


def _operator(
    thought: str, *rules: str
) -> Callable[[Callable[[Draft], Iterator[Site]]], Callable[[Draft], Iterator[Site]]]:
    def register(sites: Callable[[Draft], Iterator[Site]]) -> Callable[[Draft], Iterator[Site]]:
        name = sites.__name__.replace("_", "-")
        OPERATORS.append(Operator(name, thought, rules, sites))
        return sites

    return register


# --- policies that take away ---


@_operator(
    "nobody remembers what this rule is for, and it stops a demo",
    ASSERTION,
    "toxic-combination",
    "confused-deputy",
)
def drop_forbid(draft: Draft) -> Iterator[Site]:
    """Remove a forbid that denies."""
    for policy in _forbids(draft):
        if policy.step_up is None:
            yield _policy_site(policy, "removed", policy.remove)


@_operator(
    "people complain that they are asked too often",
    ASSERTION,
    "toxic-combination",
    "confused-deputy",
)
def drop_step_up(draft: Draft) -> Iterator[Site]:
    """Remove a forbid that holds calls for a step-up."""
    for policy in _forbids(draft):
        if policy.step_up is not None:
            yield _policy_site(policy, f"removed, it asked for {policy.step_up}", policy.remove)


@_operator(
    "the user is logged in, so the rule is for agents that act alone",
    ASSERTION,
    "toxic-combination",
    "confused-deputy",
)
def exempt_logged_in_users(draft: Draft) -> Iterator[Site]:
    """Add a condition that lifts a forbid whenever the subject showed a token of its own."""
    for policy in _forbids(draft):
        body = parse_condition('context.subject_proof == SubjectProof::"verified"')
        yield _policy_site(
            policy, "unless the subject is verified", _adding(policy, "unless", body)
        )


@_operator(
    "the rule is for agents that are surely meant and for those that surely are not",
    "policy-never-matches",
    ASSERTION,
)
def mix_up_and_with_or(draft: Draft) -> Iterator[Site]:
    """Add a condition to a forbid that no call fulfils: two ranges that do not overlap."""
    for policy in _forbids(draft):
        body = parse_condition("context.confidence > 80 && context.confidence < 20")
        yield _policy_site(
            policy, "confidence above 80 and below 20", _adding(policy, "when", body)
        )


@_operator(
    "only one of the two cases ever came up in practice",
    ASSERTION,
    "toxic-combination",
    "confused-deputy",
)
def keep_half_of_a_condition(draft: Draft) -> Iterator[Site]:
    """Keep the first alternative of an `||` in a `when` of a forbid."""
    for policy in _forbids(draft):
        for condition in policy.node["conditions"]:
            if condition["kind"] != "when":
                continue
            for node in nodes_of(condition["body"]):
                if isinstance(node.get("||"), dict):
                    kept = node["||"]["left"]
                    yield _policy_site(policy, "first half of an `||`", _becoming(node, kept))


@_operator(
    "the list of operations in this rule is too long, and these were never a problem",
    ASSERTION,
    "toxic-combination",
    "confused-deputy",
)
def shorten_the_list_of_a_forbid(draft: Draft) -> Iterator[Site]:
    """Take the last operation or group out of the head of a forbid."""
    for policy in _forbids(draft):
        entities = policy.node["action"].get("entities", [])
        if len(entities) > 1:
            yield _policy_site(policy, f"without {entities[-1]['id']}", entities.pop)


@_operator(
    "the user sits in front of the screen anyway, so the user can confirm it",
    "self-approval",
    ASSERTION,
)
def confirm_instead_of_approve(draft: Draft) -> Iterator[Site]:
    """Let the user of the call answer a step-up that other people had to answer."""
    for policy in _forbids(draft):
        if policy.step_up in ("approve", "two_person") or (policy.step_up or "").startswith(
            "approve:"
        ):
            yield _policy_site(policy, f"confirm, not {policy.step_up}", _asking(policy, "confirm"))


@_operator("two people at a time are never there on a Friday", "self-approval", ASSERTION)
def one_person_instead_of_two(draft: Draft) -> Iterator[Site]:
    """Ask one person where two had to agree."""
    for policy in _forbids(draft):
        if policy.step_up == "two_person":
            yield _policy_site(policy, "approve, not two_person", _asking(policy, "approve"))


@_operator(
    "values that an earlier result brought are good enough",
    "confused-deputy",
    "toxic-combination",
    ASSERTION,
)
def accept_worse_origins(draft: Draft) -> Iterator[Site]:
    """Add every origin but `unknown` to the origins that a forbid lets pass."""
    for policy in _forbids(draft):
        for node in nodes_of(policy.node["conditions"]):
            accepted = node.get("Set")
            if not isinstance(accepted, list):
                continue
            names = [_entity_id(one, "Origin") for one in accepted]
            missing = [name for name in _ORIGINS if name not in names]
            if names and None not in names and missing:
                added = [_entity("Origin", name) for name in missing]
                yield _policy_site(
                    policy, f"origins with {', '.join(missing)}", _extending(accepted, added)
                )


@_operator(
    "the check of who chose the recipient is slow to explain to users",
    "confused-deputy",
    "toxic-combination",
    ASSERTION,
)
def drop_origin_check(draft: Draft) -> Iterator[Site]:
    """Remove a forbid that asks who chose a value."""
    for policy in _forbids(draft):
        if has_attribute(policy.node, "origins", "trusted"):
            yield _policy_site(policy, "removed", policy.remove)


# --- policies that permit ---


@_operator(
    "one operation after the other is added here; the whole system is simpler",
    "unused-authority",
    "toxic-combination",
    "confused-deputy",
    ASSERTION,
)
def permit_the_whole_system(draft: Draft) -> Iterator[Site]:
    """Permit the system of an operation instead of the operation."""
    for policy in _permits(draft):
        systems = sorted({one.partition(".")[0] for one in _named_operations(policy.node)})
        if systems:
            groups = [{"type": "Action", "id": f"system:{system}"} for system in systems]
            scope = {"op": "in", "entities": groups}
            yield _policy_site(
                policy, f"system {', '.join(systems)}", _setting(policy.node, "action", scope)
            )


@_operator(
    "the condition failed in staging, and the role says enough",
    "toxic-combination",
    "confused-deputy",
    "unused-authority",
    ASSERTION,
)
def drop_condition_of_a_permit(draft: Draft) -> Iterator[Site]:
    """Remove the conditions of a permit."""
    for policy in _permits(draft):
        if policy.node["conditions"]:
            yield _policy_site(policy, "without conditions", policy.node["conditions"].clear)


@_operator(
    "every agent needs this sooner or later",
    "unused-authority",
    "confused-deputy",
    "toxic-combination",
    ASSERTION,
)
def permit_everybody(draft: Draft) -> Iterator[Site]:
    """Remove the role from the head of a permit of agents or people."""
    for policy in _permits(draft):
        is_of_authz = any(one.startswith(("give:", "authz.")) for one in _actions(policy.node))
        if policy.node["principal"]["op"] != "All" and not is_of_authz:
            yield _policy_site(policy, "principal", _setting(policy.node, "principal", _ALL))


@_operator(
    "the planner should be able to ask any colleague",
    "confused-deputy",
    "unused-authority",
    ASSERTION,
)
def give_to_everybody(draft: Draft) -> Iterator[Site]:
    """Let everybody give a task, to every agent."""
    for policy in _permits(draft):
        if any(one.startswith("give:") for one in _actions(policy.node)):
            yield _policy_site(
                policy,
                "any giver and any receiver",
                _updating(policy.node, principal=_ALL, resource=_ALL),
            )


@_operator(
    "approvals wait too long, so colleagues of the same desk answer as well",
    "self-approval",
    ASSERTION,
)
def everybody_approves(draft: Draft) -> Iterator[Site]:
    """Let everybody answer approvals, of every call."""
    for policy in _permits(draft):
        if "authz.approve" in _actions(policy.node):
            yield _policy_site(
                policy,
                "every principal, every call",
                _updating(policy.node, principal=_ALL, conditions=[]),
            )


@_operator(
    "the people who approve moved to another team; the rule is stale",
    "unanswerable-step-up",
)
def drop_approvers(draft: Draft) -> Iterator[Site]:
    """Remove the permit of the people who answer approvals."""
    for policy in _permits(draft):
        if "authz.approve" in _actions(policy.node):
            yield _policy_site(policy, "removed", policy.remove)


@_operator(
    "a permit for the time of the migration; it is removed afterwards",
    "toxic-combination",
    "unused-authority",
    ASSERTION,
)
def permit_all_to_a_role(draft: Draft) -> Iterator[Site]:
    """Permit everything to one role of agents, and to everybody on whose behalf it acts."""
    for section in draft.sections("agents"):
        for role in section.value:
            text = f"""
                @id("migration-{role}") permit (principal in Role::"{role}", action, resource);
                @id("migration-{role}-users") permit (principal is User, action, resource);"""
            nodes = next(iter(draft.policies.values()))
            yield Site(
                next(iter(draft.policies)),
                f"migration-{role}",
                "permit everything",
                _extending(nodes, parse_policies(text)),
            )


# --- who is who ---


@_operator(
    "the deployment gets a second replica under another name",
    "unused-authority",
    "toxic-combination",
    ASSERTION,
)
def widen_an_agent_to_its_namespace(draft: Draft) -> Iterator[Site]:
    """Replace the last segment of a SPIFFE id by `*`."""
    for section in draft.sections("agents"):
        for role, entry in section.value.items():
            matches = entry["match"] if isinstance(entry, dict) else entry
            for index, match in enumerate(matches):
                if not match.endswith("/*"):
                    wide = f"{match.rpartition('/')[0]}/*"
                    yield Site(section.file, role, wide, _setting(matches, index, wide))


@_operator(
    "the agent takes over a part of the other agent's work",
    "toxic-combination",
    "confused-deputy",
    ASSERTION,
)
def give_an_agent_a_second_role(draft: Draft) -> Iterator[Site]:
    """Add the workloads of one role of agents to another role."""
    for section in draft.sections("agents"):
        matches = {
            role: entry["match"] if isinstance(entry, dict) else entry
            for role, entry in section.value.items()
        }
        for role, own in matches.items():
            for other, others in matches.items():
                if role != other:
                    yield Site(section.file, role, f"also {other}", _extending(others, list(own)))


@_operator(
    "all users of this issuer are employees",
    "self-approval",
    "unused-authority",
    ASSERTION,
)
def drop_the_claim_of_a_role(draft: Draft) -> Iterator[Site]:
    """Give a role of people to every subject of its issuer."""
    for section in draft.sections("subjects"):
        for role, entry in section.value.items():
            conditions = entry if isinstance(entry, list) else [entry]
            for condition in conditions:
                if "claim" in condition:
                    yield Site(section.file, role, "without claim", _without(condition, *_CLAIM))


@_operator(
    "the agent should also work at night, without a user",
    "confused-deputy",
    "unused-authority",
    ASSERTION,
)
def subject_not_required(draft: Draft) -> Iterator[Site]:
    """Let agents that need a subject act without one."""
    for section in draft.sections("agents"):
        for role, entry in section.value.items():
            if isinstance(entry, dict) and entry.get("subject") == "required":
                yield Site(
                    section.file, role, "subject: optional", _setting(entry, "subject", "optional")
                )


@_operator("every run starts in a new container", "label-lost", ASSERTION)
def claim_isolation(draft: Draft) -> Iterator[Site]:
    """Say that the runs of an agent are wiped, so that labels are not remembered."""
    for section in draft.sections("agents"):
        for role, entry in section.value.items():
            if isinstance(entry, dict):
                if entry.get("isolated") != "per_task":
                    change = _setting(entry, "isolated", "per_task")
                    yield Site(section.file, role, "isolated: per_task", change)
            else:
                isolated = {"match": list(entry), "isolated": "per_task"}
                change = _setting(section.value, role, isolated)
                yield Site(section.file, role, "isolated: per_task", change)


@_operator(
    "the agent passes on the words of its user, as a harness does", "confused-deputy", ASSERTION
)
def trust_the_agents_word(draft: Draft) -> Iterator[Site]:
    """Let prompts that an agent relays count as the user's word."""
    for section in draft.sections("agents"):
        for role, entry in section.value.items():
            if isinstance(entry, dict):
                if not entry.get("harness"):
                    yield Site(section.file, role, "harness", _setting(entry, "harness", True))
            else:
                harness = {"match": list(entry), "harness": True}
                yield Site(section.file, role, "harness", _setting(section.value, role, harness))


# --- data, and where it may go ---


@_operator(
    "these texts come from our own ticket system, so they are not from strangers",
    "toxic-combination",
    "confused-deputy",
    "label-lost",
    ASSERTION,
)
def trust_a_source(draft: Draft) -> Iterator[Site]:
    """Remove a label of trust from the results of an operation."""
    yield from _fewer_yields(draft, "trust")


@_operator("the operation returns only a few fields, nothing personal", "label-lost", ASSERTION)
def drop_a_label_of_results(draft: Draft) -> Iterator[Site]:
    """Remove a label of confidentiality from the results of an operation."""
    yield from _fewer_yields(draft, "confidentiality")


@_operator(
    "the label is on the operations, so the collection need not have it", "label-lost", ASSERTION
)
def drop_a_label_of_a_collection(draft: Draft) -> Iterator[Site]:
    """Remove the labels of a collection or of a part of it."""
    for section in draft.sections("resources"):
        for name, entry in section.value.items():
            entries = [entry, *entry.get("patterns", [])] if entry else []
            for one in entries:
                if one.get("labels"):
                    subject = f"{name} {one.get('match', '')}".strip()
                    yield Site(section.file, subject, "labels: []", _setting(one, "labels", []))


@_operator("nobody reads these objects again", "label-lost", ASSERTION)
def forget_what_was_written(draft: Draft) -> Iterator[Site]:
    """Let the objects of a collection keep no label of their writers."""
    for section in draft.sections("resources"):
        for name in section.value:
            entry = dict(section.value[name] or {})
            if entry.get("keeps_written") != "none":
                forgetful = {**entry, "keeps_written": "none"}
                change = _setting(section.value, name, forgetful)
                yield Site(section.file, name, "keeps_written: none", change)


@_operator("customers want their own data by mail", ASSERTION, "toxic-combination")
def clear_strangers(draft: Draft) -> Iterator[Site]:
    """Clear the class of all other destinations for a label."""
    labels = _labels(draft, "confidentiality")
    for section in draft.sections("destinations"):
        for name, entry in section.value.items():
            if "*" not in _as_list(entry.get("match")):
                continue
            for label in labels:
                if label not in entry["clearance"]:
                    cleared = [*entry["clearance"], label]
                    change = _setting(entry, "clearance", cleared)
                    yield Site(section.file, name, f"cleared for {label}", change)


@_operator("mail to our subsidiaries counts as internal, too", ASSERTION, "toxic-combination")
def widen_a_destination(draft: Draft) -> Iterator[Site]:
    """Write a pattern of our own domain such that domains which only end alike have the class."""
    for section in draft.sections("destinations"):
        for name, entry in section.value.items():
            patterns = _as_list(entry.get("match"))
            for index, pattern in enumerate(patterns):
                wide = None
                if pattern.startswith("*@") and len(pattern) > 2:
                    wide = f"*@*{pattern[2:]}"
                elif pattern.startswith("*."):
                    wide = f"*{pattern[2:]}"
                if wide is not None:
                    widened = [*patterns[:index], wide, *patterns[index + 1 :]]
                    yield Site(section.file, name, wide, _setting(entry, "match", widened))


@_operator("whom we know, we trust", "confused-deputy", "toxic-combination", ASSERTION)
def trust_a_list(draft: Draft) -> Iterator[Site]:
    """Let the entries of a list of known recipients count as chosen."""
    for section in draft.sections("recipient_lists"):
        for name, entry in section.value.items():
            if entry.get("trusted") is False:
                yield Site(section.file, name, "trusted", _setting(entry, "trusted", True))


# --- operations ---


@_operator(
    "the operation is harmless: it only saves a copy", ASSERTION, "toxic-combination", "label-lost"
)
def hide_an_export(draft: Draft) -> Iterator[Site]:
    """Classify an export as a write without a destination."""
    for file, name, meaning in _meanings(draft):
        effects = list(meaning.get("effects", []))
        if "export" in effects:
            others = [one for one in effects if one != "export"] or ["write"]

            def change(meaning: Node = meaning, others: list[str] = others) -> None:
                meaning["effects"] = others
                meaning.pop("destination", None)

            yield Site(file, name, f"effects: {others}", change)


@_operator("fetching a page only reads", ASSERTION, "toxic-combination", "confused-deputy")
def hide_a_destination(draft: Draft) -> Iterator[Site]:
    """Remove the destination of an operation that does not export."""
    for file, name, meaning in _meanings(draft):
        if "export" not in meaning.get("effects", []) and "destination" in meaning:
            yield Site(file, name, "no destination", _without(meaning, "destination"))


@_operator(
    "the operation can be undone, and its tier makes trouble in every test",
    ASSERTION,
    "toxic-combination",
)
def lower_a_tier(draft: Draft) -> Iterator[Site]:
    """Classify an operation of tier high or critical as `standard`."""
    for file, name, meaning in _meanings(draft):
        effects = meaning.get("effects", [])
        is_high = meaning.get("tier") in _TIERS[2:] or (
            "tier" not in meaning
            and any(one in ("delete", "export", "execute", "grant") for one in effects)
        )
        if effects and is_high:
            yield Site(file, name, "tier: standard", _setting(meaning, "tier", "standard"))


@_operator("agents have no keys yet, and the approvals come later", ASSERTION, "toxic-combination")
def ask_less_of_a_tier(draft: Draft) -> Iterator[Site]:
    """Require neither a bound credential nor an approval of a tier."""
    for section in draft.sections("tiers"):
        for name, entry in section.value.items():
            relaxed = {"bound": False, "approval": "none"}
            if any(entry.get(key) not in (None, value) for key, value in relaxed.items()):
                change = _setting(section.value, name, {**entry, **relaxed})
                yield Site(section.file, name, "requires nothing", change)


# --- tasks ---


@_operator(
    "the task needs two more operations of this system, and will need others",
    "unused-authority",
    "toxic-combination",
    ASSERTION,
)
def widen_a_scope(draft: Draft) -> Iterator[Site]:
    """Put a whole system in the scope of a template instead of some operations."""
    for file, template, entry in _templates(draft):
        scope = entry["scope"]
        for index, part in enumerate(scope):
            named = [*_as_list(part.get("operation")), *_as_list(part.get("operations"))]
            systems = sorted({str(one).partition(".")[0] for one in named})
            if len(systems) == 1:
                wide = {"system": systems[0]}
                yield Site(file, template, f"system {systems[0]}", _setting(scope, index, wide))


@_operator(
    "the limit stops tickets that concern two customers",
    "unused-authority",
    "confused-deputy",
    ASSERTION,
)
def drop_a_limit_of_a_scope(draft: Draft) -> Iterator[Site]:
    """Remove the limits of resources, arguments and uses of one entry of a scope."""
    for file, template, entry in _templates(draft):
        for part in entry["scope"]:
            limits = [key for key in ("resources", "arguments", "uses") if key in part]
            if limits:
                note = f"{part.get('operation', 'entry')} without {', '.join(limits)}"
                yield Site(file, template, note, _without(part, *limits))


@_operator("the task must be able to do what its scope has", ASSERTION, "toxic-combination")
def raise_the_cap_of_a_task(draft: Draft) -> Iterator[Site]:
    """Let tasks of a template reach tier critical."""
    for file, template, entry in _templates(draft):
        if entry.get("tier_cap", "standard") != "critical":
            change = _setting(entry, "tier_cap", "critical")
            yield Site(file, template, "tier_cap: critical", change)


@_operator("helpers may use helpers, it is faster", "confused-deputy", ASSERTION)
def delegate_deeper(draft: Draft) -> Iterator[Site]:
    """Let tasks of a template be delegated further."""
    for file, template, entry in _templates(draft):
        depth = entry.get("max_depth", 0)
        if depth < 6:
            change = _setting(entry, "max_depth", 6)
            yield Site(file, template, f"max_depth 6, not {depth}", change)


@_operator("any agent may begin this work", "confused-deputy", "unused-authority", ASSERTION)
def every_agent_starts(draft: Draft) -> Iterator[Site]:
    """Let every role of agents start tasks of a template, and permit the start."""
    roles = [role for section in draft.sections("agents") for role in section.value]
    for file, template, entry in _templates(draft):
        if set(roles) - set(entry.get("starters", [])):

            def change(entry: Node = entry, template: str = template) -> None:
                entry["starters"] = list(roles)
                text = f"""@id("all-start-{template}")
                    permit (principal, action in [Action::"task:{template}", Action::"give:{template}"], resource);"""
                next(iter(draft.policies.values())).extend(parse_policies(text))

            yield Site(file, template, "started by every agent", change)


@_operator("tasks come in the next release; policies do until then", ASSERTION, "unused-authority")
def tasks_optional(draft: Draft) -> Iterator[Site]:
    """Let agents work without tasks."""
    for section in draft.sections("bundle"):
        if section.value.get("tasks", "required") == "required":
            yield Site(
                section.file, "tasks", "optional", _setting(section.value, "tasks", "optional")
            )


# --- order and amounts ---


@_operator(
    "the rule denies a run that was slow, which is not what it was meant for",
    ASSERTION,
    "confused-deputy",
)
def drop_a_sequence(draft: Draft) -> Iterator[Site]:
    """Remove a sequence with the policies that name it."""
    for section in draft.sections("sequences"):
        for name in section.value:

            def change(section: Section = section, name: str = name) -> None:
                section.remove(name)
                _forget_rule(draft, "Sequence", name)

            yield Site(section.file, name, "removed", change)


@_operator("a minute is enough: a run takes less", ASSERTION, "confused-deputy")
def shorten_a_sequence(draft: Draft) -> Iterator[Site]:
    """Let a sequence look back one minute."""
    for section in draft.sections("sequences"):
        for name, entry in section.value.items():
            if "order" not in entry and entry.get("within") != "1m":
                yield Site(section.file, name, "within: 1m", _setting(entry, "within", "1m"))


@_operator("the limit stops the run at the end of the month", ASSERTION)
def raise_a_budget(draft: Draft) -> Iterator[Site]:
    """Multiply the limit of a budget by a thousand, as far as the bundle may."""
    for section in draft.sections("budgets"):
        for name, entry in section.value.items():
            bound = ("count" in entry and "within" in entry) or "distinct" in entry
            most = min(entry["most"] * 1000, 256) if bound else entry["most"] * 1000
            if most > entry["most"]:
                yield Site(section.file, name, f"most: {most}", _setting(entry, "most", most))


@_operator("no customer ever had so many", ASSERTION)
def drop_a_budget(draft: Draft) -> Iterator[Site]:
    """Remove a budget with the policies that name it."""
    for section in draft.sections("budgets"):
        for name in section.value:

            def change(section: Section = section, name: str = name) -> None:
                section.remove(name)
                _forget_rule(draft, "Budget", name)

            yield Site(section.file, name, "removed", change)


# --- exceptions and modes ---


@_operator("the job also posts corrections now", "exception-on-path", "unused-authority", ASSERTION)
def widen_an_exception(draft: Draft) -> Iterator[Site]:
    """Let an exception cover its systems whole, every resource and every tier."""
    for section in draft.sections("exceptions"):
        for name, entry in section.value.items():
            systems = sorted({one.partition(".")[0] for one in entry["operations"]})

            def change(entry: Node = entry, systems: list[str] = systems) -> None:
                entry["operations"] = [f"{system}.*" for system in systems]
                entry["tier_cap"] = "critical"
                entry.pop("resources", None)

            yield Site(section.file, name, "every operation and resource", change)


@_operator(
    "the permit is for the exception anyway", "exception-on-path", "unused-authority", ASSERTION
)
def accept_an_exception_everywhere(draft: Draft) -> Iterator[Site]:
    """Let a policy that accepts an exception permit it to everybody, for the whole system."""
    for policy in _permits(draft):
        if has_attribute(policy.node, "exception"):
            systems = sorted({one.partition(".")[0] for one in _named_operations(policy.node)})
            groups = [{"type": "Action", "id": f"system:{system}"} for system in systems]
            if groups:

                def change(node: Node = policy.node, groups: list[Node] = groups) -> None:
                    node["principal"] = _ALL
                    node["action"] = {"op": "in", "entities": groups}

                yield _policy_site(policy, "everybody, whole system", change)


@_operator("only until the release is out", ASSERTION, "toxic-combination")
def observe_a_system(draft: Draft) -> Iterator[Site]:
    """Let refused calls of a system pass, and record them."""
    systems = sorted(
        {name for section in draft.sections("catalog") for name in section.value}
        - {name for section in draft.sections("mode") for name in section.value.get("systems", {})}
    )
    if not draft.facts or any(True for _ in draft.sections("mode")):
        return
    path, document = next(
        (path, document) for path, document in draft.facts.items() if path != "bundle.yaml"
    )
    for system in systems:
        observed = {"mode": "observe", "owner": "team@corp.example", "until": _OBSERVED_UNTIL}
        mode = {"systems": {system: observed}}
        yield Site(path, system, "mode: observe", _setting(document, "mode", mode))


# --- harmless changes: what they permit was permitted before ---


@_operator("the text of the reason was not clear")
def reword_a_reason(draft: Draft) -> Iterator[Site]:
    """Change the text of `@reason`."""
    for policy in draft.rules():
        annotations = policy.node["annotations"]
        if "reason" in annotations:
            reworded = f"{annotations['reason']} (see the handbook)"
            yield _policy_site(policy, "reason", _setting(annotations, "reason", reworded))


@_operator("tasks of this kind are done in minutes")
def shorten_a_deadline(draft: Draft) -> Iterator[Site]:
    """Let tasks of a template end after twenty minutes."""
    for file, template, entry in _templates(draft):
        if "idle_timeout" not in entry:
            yield Site(file, template, "deadline: 20m", _setting(entry, "deadline", "20m"))


@_operator("the limit was never reached")
def lower_a_budget(draft: Draft) -> Iterator[Site]:
    """Halve the limit of a budget."""
    for section in draft.sections("budgets"):
        for name, entry in section.value.items():
            if entry["most"] >= 2:
                half = entry["most"] // 2
                yield Site(section.file, name, f"most: {half}", _setting(entry, "most", half))


@_operator("the destination never needs this data")
def clear_for_less(draft: Draft) -> Iterator[Site]:
    """Take the last label out of the clearance of a class."""
    for section in draft.sections("destinations"):
        for name, entry in section.value.items():
            if len(entry["clearance"]) > 1:
                fewer = list(entry["clearance"])[:-1]
                note = f"not cleared for {entry['clearance'][-1]}"
                yield Site(section.file, name, note, _setting(entry, "clearance", fewer))


_OBSERVED_UNTIL: Final = "2027-01-31"
_ALL: Final = {"op": "All"}
_CLAIM: Final = ("claim", "contains", "equals")


def _forbids(draft: Draft) -> Iterator[Policy]:
    return (policy for policy in draft.rules() if policy.is_forbid)


def _permits(draft: Draft) -> Iterator[Policy]:
    return (policy for policy in draft.rules() if not policy.is_forbid)


def _policy_site(policy: Policy, note: str, change: Callable[[], object]) -> Site:
    return Site(policy.file, policy.id, note, change)


def _actions(policy: Node) -> list[str]:
    scope = policy["action"]
    entities = [scope["entity"]] if "entity" in scope else scope.get("entities", [])
    return [str(one["id"]) for one in entities]


def _named_operations(policy: Node) -> list[str]:
    """Return the operations that the head of a policy names; empty if it also names groups or operations of Authz."""
    actions = _actions(policy)
    are_operations = all("." in one and not one.startswith("authz.") for one in actions)
    return actions if are_operations and not any(":" in one for one in actions) else []


def _meanings(draft: Draft) -> Iterator[tuple[str, str, Node]]:
    """Yield file, operation and mapping of everything that says what an operation means."""
    for section in draft.sections("classify"):
        for rule in section.value:
            yield section.file, str(rule["match"]), rule
            for case, meaning in rule.get("split", {}).get("cases", {}).items():
                yield section.file, f"{rule['match']}.{case}", meaning
    for section in draft.sections("catalog"):
        for system, entry in section.value.items():
            for name, meaning in (entry.get("operations") or {}).items():
                if "effects" in meaning:
                    yield section.file, f"{system}.{name}", meaning


def _templates(draft: Draft) -> Iterator[tuple[str, str, Node]]:
    for section in draft.sections("templates"):
        for name, entry in section.value.items():
            yield section.file, name, entry


def _labels(draft: Draft, kind: str) -> list[str]:
    return [
        name
        for section in draft.sections("labels")
        for name, entry in section.value.items()
        if entry["kind"] == kind
    ]


def _fewer_yields(draft: Draft, kind: str) -> Iterator[Site]:
    labels = _labels(draft, kind)
    for file, name, meaning in _meanings(draft):
        yields = meaning.get("yields")
        if isinstance(yields, list):
            for label in yields:
                if label in labels:
                    fewer = [one for one in yields if one != label]
                    yield Site(file, name, f"no {label}", _setting(meaning, "yields", fewer))


def _forget_rule(draft: Draft, kind: str, name: str) -> None:
    """Take a sequence or budget out of every policy, and with it the policies that are about nothing else."""
    for policy in list(draft.rules()):
        if name not in entities_of(policy.node, kind):
            continue
        if len(entities_of(policy.node, "Sequence") | entities_of(policy.node, "Budget")) == 1:
            policy.remove()
        for node in nodes_of(policy.node["conditions"]):
            member = node.get("contains")
            if isinstance(member, dict) and _entity_id(member["right"], kind) == name:
                _becoming(node, {"Value": False})()


def _as_list(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, list) else [value]


def _entity(kind: str, name: str) -> Node:
    return {"Value": {"__entity": {"type": kind, "id": name}}}


def _entity_id(node: Any, kind: str) -> str | None:
    entity = node.get("Value", {}) if isinstance(node, dict) else {}
    entity = entity.get("__entity", {}) if isinstance(entity, dict) else {}
    return str(entity["id"]) if entity.get("type") == kind else None


def _adding(policy: Policy, kind: str, body: Node) -> Callable[[], object]:
    return lambda: policy.node["conditions"].append({"kind": kind, "body": body})


def _asking(policy: Policy, kind: str) -> Callable[[], None]:
    """Return the change that lets a policy ask for another kind of step-up."""
    before = policy.step_up

    def change() -> None:
        policy.node["annotations"]["stepup"] = kind
        for node in nodes_of(policy.node["conditions"]):
            entity = node.get("__entity")
            if isinstance(entity, dict) and entity == {"type": "Kind", "id": before}:
                entity["id"] = kind

    return change


def _becoming(node: Node, other: Node) -> Callable[[], None]:
    def change() -> None:
        kept = dict(other)
        node.clear()
        node.update(kept)

    return change


def _setting(container: Any, key: Any, value: Any) -> Callable[[], None]:
    def change() -> None:
        container[key] = value

    return change


def _updating(container: Node, **members: Any) -> Callable[[], None]:
    return lambda: container.update(members)


def _without(container: Node, *keys: str) -> Callable[[], None]:
    def change() -> None:
        for key in keys:
            container.pop(key, None)

    return change


def _extending(target: list[Any], added: list[Any]) -> Callable[[], None]:
    def change() -> None:
        target.extend(added)

    return change
