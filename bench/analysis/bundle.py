"""A bundle of any size for the analyzer: agents with a role each, systems of twenty operations, permits, forbids, and assertions.

People start tasks for the agents, one template for five systems, and two agents delegate. So the search for paths has ways to act,
and the data of one system can reach the exports of another one.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

__all__ = ["Size", "write"]

_OPERATIONS: Final = 20
"""Operations of a system."""
_SYSTEMS_OF_A_TASK: Final = 5
_LABELS: Final = ("pii", "payment", "health", "source", "untrusted")
_EFFECTS: Final = ("read", "read", "write", "export", "delete")


@dataclass(frozen=True, slots=True)
class Size:
    """How large a bundle is."""

    agents: int
    """Roles of agents; each has its own."""
    operations: int
    """Operations; a multiple of 20."""
    policies: int
    """Policies: half of them permits of an agent."""


def write(folder: Path, size: Size, *, changed: bool = False) -> None:
    """Write the bundle.

    Args:
        folder: Folder; made where it is missing.
        size: Its size.
        changed: One policy is another one than without.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "bundle.yaml").write_text("name: large\ntasks: required\n")
    (folder / "facts.yaml").write_text(yaml.safe_dump(_facts(size), sort_keys=False))
    (folder / "policy.cedar").write_text("\n".join(_policies(size, changed=changed)))


def _facts(size: Size) -> dict[str, Any]:
    systems = range(size.operations // _OPERATIONS)
    classify: list[dict[str, Any]] = []
    catalog: dict[str, Any] = {}
    for system in systems:
        operations = {}
        for number in range(_OPERATIONS):
            properties = {"id": {"type": "string"}, "amount": {"type": "integer"}}
            properties |= {f"field{number % 4}": {"type": "string"}}
            effect = _EFFECTS[number % len(_EFFECTS)]
            rule: dict[str, Any] = {"match": f"sys{system}.op{number}", "effects": [effect]}
            if effect == "export":
                properties["to"] = {"type": "string"}
                rule["destination"] = {"from": ["/to"], "type": "email"}
            else:
                rule["resource"] = {"collection": f"data{system}", "id": "/id"}
            if effect == "read":
                rule["yields"] = [_LABELS[system % len(_LABELS)]]
            operations[f"op{number}"] = {
                "input": {
                    "type": "object",
                    "properties": properties,
                    "required": ["id", *(["to"] if effect == "export" else [])],
                }
            }
            classify.append(rule)
        catalog[f"sys{system}"] = {"kind": "http", "operations": operations}
    return {
        "labels": {
            label: {
                "kind": "trust" if label == "untrusted" else "confidentiality",
                "description": label,
            }
            for label in _LABELS
        },
        "resources": {f"data{system}": {} for system in systems},
        "destinations": {
            "internal": {"match": "*@corp.example", "clearance": ["pii", "source"]},
            "external": {"match": "*", "clearance": []},
        },
        "catalog": catalog,
        "classify": classify,
        "agents": {
            f"agent{agent}": [f"spiffe://a.example/agent/{agent}"] for agent in range(size.agents)
        },
        "subjects": {"staff": {"issuer": "corp", "claim": "groups", "contains": "employees"}},
        "templates": _templates(len(systems)),
        "analysis": {"assertions": _ASSERTIONS},
    }


_ASSERTIONS: Final = [
    {
        "id": "pii-stays",
        "never": {"label": "pii", "destination": "external", "without": ["person"]},
    },
    {"id": "health-stays", "never": {"label": "health", "destination": "external"}},
    {"id": "no-deletion-after-strangers-text", "never": {"effect": "delete", "after": "untrusted"}},
    {"id": "agent0-deletes-nothing", "never": {"agent": "agent0", "effect": "delete"}},
]


def _templates(systems: int) -> dict[str, Any]:
    return {
        f"work{number}": {
            "purpose": "work",
            "deadline": "8h",
            "max_depth": 1,
            "scope": [
                {"system": f"sys{system}"}
                for system in range(
                    number * _SYSTEMS_OF_A_TASK, min(systems, (number + 1) * _SYSTEMS_OF_A_TASK)
                )
            ],
        }
        for number in range(-(-systems // _SYSTEMS_OF_A_TASK))
    }


def _task_policies(templates: int) -> list[str]:
    """A permit for each template: people start its tasks and give them to agents. And one agent that gives tasks to another."""
    names = [f"work{number}" for number in range(templates)]
    starts = [
        f'@id("start-{name}") permit(principal in Role::"staff", action in [Action::"task:{name}", Action::"give:{name}"], resource);'
        for name in names
    ]
    gives = [
        f'@id("give-{who}") permit(principal in Role::"{who}", action == Action::"give:{names[0]}", resource in Role::"{whom}");'
        for who, whom in (("agent0", "agent1"), ("agent1", "agent2"))
    ]
    return [*starts, *gives]


def _policies(size: Size, *, changed: bool) -> list[str]:
    """Half permits of one agent each on a system or an operation, an eighth permits of people, a few about tasks, the rest forbids."""
    systems = size.operations // _OPERATIONS
    texts = []
    permits, people = size.policies // 2, size.policies // 8
    texts += _task_policies(-(-systems // _SYSTEMS_OF_A_TASK))
    people = min(people, size.policies - permits - len(texts))
    for number in range(permits):
        system = number % systems
        scope = (
            f'action in Action::"system:sys{system}"'
            if number % 3
            else f'action == Action::"sys{system}.op{number % _OPERATIONS}"'
        )
        confidence = 50 if changed and number == 1 else 1 + number % 99
        texts.append(
            f'@id("agent-{number}") permit(principal in Role::"agent{number % size.agents}", {scope}, resource)\n'
            f"when {{ context.tier <= {number % 3} && context.confidence >= {confidence} }};"
        )
    texts += [
        f'@id("staff-{number}") permit(principal in Role::"staff", action in Action::"system:sys{number % systems}", resource)\n'
        f'when {{ context.proof.bound || context.proof.acr == "level{number}" }};'
        for number in range(people)
    ]
    for number in range(size.policies - len(texts)):
        system = number % systems
        label = _LABELS[number % len(_LABELS)]
        # A few rules apply everywhere, and most to one system, as in bundles that people write.
        scope = (
            'action in Action::"effect:export"'
            if number < 8
            else f'action in Action::"system:sys{system}"'
        )
        if number % 2:
            texts.append(
                f'@id("label-{number}") @stepup("approve") forbid(principal, {scope}, resource)\n'
                f'when {{ context.session.labels.contains(Label::"{label}") && context.session.calls > {number} }}\n'
                'unless { context.satisfied.contains(Kind::"approve") };'
            )
        else:
            texts.append(
                f'@id("amount-{number}") forbid(principal, {scope}, resource)\n'
                f"when {{ context.input has amount && context.input.amount > {1000 + number} }};"
            )
    return texts
