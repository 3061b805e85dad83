"""Bundles of any size in which every decision judges the same sixteen policies.

Eight policies belong to the operation, eight are forbids over every action; the number of operations grows with the
number of policies. Four of the sixteen read `principal`. Every request of `bench.load.requests` is permitted, and no
forbid is true, so that each of them is judged to its end.
"""

import json
from dataclasses import dataclass
from pathlib import Path

TRUST_DOMAIN = "bench.example"
ISSUER = "corp"
GLOBAL = 8
PER_OPERATION = 8
PER_SYSTEM = 10

_GLOBAL_POLICIES = """\
@id("any-suspended") @reason("the principal is suspended")
forbid(principal in Role::"suspended", action, resource);
@id("any-depth") @reason("the chain is too long")
forbid(principal, action, resource) when { context.chain.depth > 8 };
@id("any-tier") @reason("critical operations are closed")
forbid(principal, action, resource) when { context.tier > 2 };
@id("any-destination") @reason("an untrusted destination")
forbid(principal, action, resource) when { context.destination.present && !context.destination.trusted };
@id("any-proof") @reason("the caller proved nothing")
forbid(principal, action, resource) when { context.proof.method == ProofMethod::"none" };
@id("any-enforcer") @reason("the gateway is closed")
forbid(principal, action, resource) when { context.enforcer == "closed-gateway" };
@id("any-agent") @reason("a recalled agent stands in the chain")
forbid(principal, action, resource)
when { context.chain.agents.contains(Agent::"spiffe://bench.example/ns/recalled/sa/agent") };
@id("any-time") @reason("past the end of service")
forbid(principal, action, resource) when { context.time > datetime("2099-01-01") };
"""

_OPERATION_POLICIES = """\
@id("{id}-staff") @reason("staff may use it")
permit(principal in Role::"staff", action == Action::"{operation}", resource)
when {{ context.input.amount < 1000000 }};
@id("{id}-agents") @reason("agents may use it")
permit(principal in Role::"worker", action == Action::"{operation}", resource)
when {{ context.input.amount < 1000000 }};
@id("{id}-trainee") @reason("trainees move small amounts")
forbid(principal in Role::"trainee", action == Action::"{operation}", resource)
when {{ context.input.amount > 500 }};
@id("{id}-amount") @reason("the amount is too large")
forbid(principal, action == Action::"{operation}", resource) when {{ context.input.amount > 900000 }};
@id("{id}-currency") @reason("the currency is not traded")
forbid(principal, action == Action::"{operation}", resource) when {{ context.input.currency == "XXX" }};
@id("{id}-sealed") @reason("the resource is sealed")
forbid(principal, action == Action::"{operation}", resource) when {{ resource.labels.contains(Label::"sealed") }};
@id("{id}-chain") @reason("the chain is too long for it")
forbid(principal, action == Action::"{operation}", resource) when {{ context.chain.depth > 5 }};
@id("{id}-age") @reason("the credential is too old")
forbid(principal, action == Action::"{operation}", resource) when {{ context.proof.age > 864000 }};
"""


TEMPLATE = "work"

_TASK_POLICIES = f"""\
@id("task-start") @reason("staff may have work done")
permit(principal in Role::"staff", action == Action::"task:{TEMPLATE}", resource);
@id("task-start-agents") @reason("a start that shows the subject's token alone counts as the agent's")
permit(principal, action == Action::"task:{TEMPLATE}", resource)
when {{ principal in Role::"worker" || principal in Role::"recalled" }};
@id("task-give") @reason("staff may have agents do it")
permit(principal in Role::"staff", action == Action::"give:{TEMPLATE}", resource);
"""


@dataclass(frozen=True, slots=True)
class Bundle:
    """A written bundle.

    Attributes:
        folder: where it stands.
        policies: how many policies judge operations.
        operations: ids of the operations that have all their policies.
        stateless: those of them whose permits change no state, also on a task.
    """

    folder: Path
    policies: int
    operations: tuple[str, ...]
    stateless: frozenset[str] = frozenset()


def operation_id(index: int) -> str:
    """Returns the id of an operation: ten to a system."""
    return f"api{index // PER_SYSTEM:03}.op{index % PER_SYSTEM}"


def route_path(operation: str) -> str:
    """Returns the path under which Envoy's requests for an operation come."""
    system, _, name = operation.partition(".")
    return f"/{system}/{name}"


def operation_policies(operation: str) -> list[str]:
    """Returns the eight policies of an operation, in file order."""
    text = _OPERATION_POLICIES.format(id=operation.replace(".", "-"), operation=operation)
    return ["@id" + part for part in text.split("@id")[1:]]


def write(folder: Path, policies: int, *, tasks: bool = False) -> Bundle:
    """Writes a bundle.

    Args:
        folder: made if it does not exist.
        policies: how many policies judge operations, at least 16.
        tasks: with a template whose scope is all systems, policies that start and give its tasks, and every second system
            without labels, so that its operations are stateless.

    Returns:
        What was written.

    Raises:
        ValueError: fewer than 16 policies.
    """
    whole, rest = divmod(policies - GLOBAL, PER_OPERATION)
    if whole < 1:
        raise ValueError(
            f"{policies} policies do not hold one operation; at least {GLOBAL + PER_OPERATION}"
        )
    operations = tuple(operation_id(index) for index in range(whole + (rest > 0)))
    (folder / "policies").mkdir(parents=True, exist_ok=True)
    systems = list(dict.fromkeys(operation.partition(".")[0] for operation in operations))
    bare = frozenset(systems[1::2] if tasks else ())
    _yaml(folder / "bundle.yaml", {"name": "bench", "tasks": "optional"})
    _yaml(folder / "facts.yaml", _facts())
    _yaml(
        folder / "catalog.yaml",
        {"catalog": _catalog(operations), "classify": _classify(systems, bare)},
    )
    if tasks:
        _yaml(folder / "templates.yaml", {"templates": _templates(systems)})
        (folder / "policies" / "tasks.cedar").write_text(_TASK_POLICIES)
    _yaml(folder / "routes.yaml", {"routes": [_route(operation) for operation in operations]})
    (folder / "policies" / "any.cedar").write_text(_GLOBAL_POLICIES)
    by_system: dict[str, list[str]] = {}
    for index, operation in enumerate(operations):
        mine = operation_policies(operation)
        # A last operation with fewer policies makes the number exact; no request asks for it.
        by_system.setdefault(operation.partition(".")[0], []).extend(
            mine if index < whole else mine[:rest]
        )
    for system, texts in by_system.items():
        (folder / "policies" / f"{system}.cedar").write_text("".join(texts))
    stateless = frozenset(one for one in operations[:whole] if one.partition(".")[0] in bare)
    return Bundle(folder, policies, operations[:whole], stateless)


def _yaml(path: Path, value: object) -> None:
    """JSON is YAML, and far faster to write and to read by eye than a thousand aliases."""
    path.write_text(json.dumps(value, indent=1) + "\n")


def _facts() -> dict[str, object]:
    return {
        "agents": {
            "worker": [f"spiffe://{TRUST_DOMAIN}/ns/bench/sa/*"],
            "recalled": [f"spiffe://{TRUST_DOMAIN}/ns/recalled/sa/agent"],
        },
        "subjects": {
            "staff": {"issuer": ISSUER, "claim": "groups", "contains": "employees"},
            "trainee": {"issuer": ISSUER, "claim": "groups", "contains": "trainees"},
            "suspended": {"issuer": ISSUER, "claim": "groups", "contains": "suspended"},
        },
        "labels": {"pii": {"kind": "confidentiality"}, "sealed": {"kind": "confidentiality"}},
        "resources": {
            "accounts": {
                "labels": ["pii"],
                "patterns": [{"match": "sealed/*", "labels": ["sealed"]}],
            },
            "plain": {},
        },
    }


def _catalog(operations: tuple[str, ...]) -> dict[str, object]:
    systems: dict[str, dict[str, object]] = {}
    for operation in operations:
        system, _, name = operation.partition(".")
        systems.setdefault(system, {})[name] = {
            "input": {
                "type": "object",
                "properties": {
                    "id": {"type": "string"},
                    "amount": {"type": "integer"},
                    "currency": {"type": "string"},
                    "note": {"type": "string"},
                },
                "required": ["id", "amount", "currency"],
            }
        }
    return {
        system: {"kind": "http", "origin": f"https://{system}.{TRUST_DOMAIN}", "operations": named}
        for system, named in systems.items()
    }


def _classify(systems: list[str], bare: frozenset[str]) -> list[dict[str, object]]:
    return [
        {
            "match": f"{system}.*",
            "effects": ["read"],
            "tier": "standard",
            "resource": {"collection": "plain" if system in bare else "accounts", "id": "/id"},
            **({} if system in bare else {"yields": ["pii"]}),
        }
        for system in systems
    ]


def _templates(systems: list[str]) -> dict[str, object]:
    scope = [{"system": system} for system in systems]
    starters = ["worker", "recalled"]
    work = {"purpose": "work on accounts", "deadline": "3h", "starters": starters, "scope": scope}
    return {TEMPLATE: work}


def _route(operation: str) -> dict[str, object]:
    return {
        "method": "GET",
        "path": route_path(operation) + "/{id}",
        "operation": operation,
        "arguments": {
            "id": {"path": "id"},
            "amount": {"query": "amount"},
            "currency": {"query": "currency"},
            "note": {"query": "note"},
        },
    }
