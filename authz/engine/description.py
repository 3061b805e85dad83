"""Description of a compiled bundle: the engine's own reading of its policies, operations, roles and routes.

Tools use it instead of the bundle's files, so that they cannot read a policy or a YAML value in another way than a node does.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from authz.model import system_of

__all__ = [
    "BundleDescription",
    "DeclaredName",
    "OperationDescription",
    "PolicyDescription",
    "PolicyScope",
    "RoleDescription",
    "RouteDescription",
    "SystemDescription",
]


@dataclass(frozen=True, slots=True)
class PolicyScope:
    """One part of a policy's head: its principal, action or resource."""

    text: str
    """Cedar's text, for example `principal in Role::"staff"`."""
    entities: tuple[tuple[str, str], ...] = ()
    """Type and id of each entity that it names."""

    def ids(self, kind: str) -> frozenset[str]:
        """Return the ids of the entities of one type."""
        return frozenset(id_ for type_, id_ in self.entities if type_ == kind)


@dataclass(frozen=True, slots=True)
class PolicyDescription:
    """One policy."""

    id: str
    """`@id`."""
    file: str
    """File in the bundle."""
    line: int
    """First line, from 1."""
    effect: str
    """`permit` or `forbid`."""
    reason: str
    """`@reason`; empty without one."""
    text: str
    """Text as written, with annotations and with values of variables."""
    principal: PolicyScope
    action: PolicyScope
    resource: PolicyScope
    conditional: bool
    """It has a `when` or `unless`."""
    digest: str
    """Digest of meaning and annotations; layout and comments do not change it."""
    controls: tuple[str, ...] = ()
    """Ids of `@control`."""

    def covers(self, operation: str, groups: frozenset[str]) -> bool:
        """Return whether the head covers an operation.

        Args:
            operation: Operation id.
            groups: Action groups that the operation is in.
        """
        actions = self.action.ids("Action")
        return not actions or operation in actions or bool(actions & groups)


@dataclass(frozen=True, slots=True)
class OperationDescription:
    """One operation of the catalog."""

    id: str
    system: str
    groups: frozenset[str]
    """Action groups that it is in, for example `effect:read`."""
    imported: bool
    """It is a tool of an imported catalog, or an operation that every MCP system has."""
    is_case: bool
    """It is a case of an operation that `split` divides."""
    effects: frozenset[str] = frozenset()
    """Effects by its rule; empty without one."""
    tier: str = ""
    """Tier by its rule."""
    amounts: Mapping[str, int] = field(default_factory=dict)
    """Divisors of its amounts, by JSON pointer: 100 if the argument is in hundredths of the currency."""


@dataclass(frozen=True, slots=True)
class SystemDescription:
    """One system."""

    name: str
    origin: str
    """`https://host[:port]`; may be empty."""
    imported: bool
    """Its tools were imported from an MCP server."""


@dataclass(frozen=True, slots=True)
class RoleDescription:
    """One role of agents or subjects."""

    name: str
    agents: tuple[str, ...]
    """SPIFFE ids and patterns."""


@dataclass(frozen=True, slots=True)
class RouteDescription:
    """One HTTP route."""

    method: str
    host: str
    """Empty: every host."""
    path: str
    operation: str


@dataclass(frozen=True, slots=True)
class DeclaredName:
    """A name, and the file that declares it."""

    name: str
    file: str


@dataclass(frozen=True, slots=True)
class BundleDescription:
    """Content of a compiled bundle."""

    policies: Mapping[str, PolicyDescription] = field(default_factory=dict)
    """By id, in the order of files and lines."""
    operations: Mapping[str, OperationDescription] = field(default_factory=dict)
    """By id; divided operations and their cases, too."""
    systems: tuple[SystemDescription, ...] = ()
    roles: tuple[RoleDescription, ...] = ()
    routes: tuple[RouteDescription, ...] = ()
    classify: frozenset[str] = frozenset()
    """Ids and globs that rules of `classify` match, of proposed rules too."""
    collections: tuple[DeclaredName, ...] = ()
    destinations: tuple[DeclaredName, ...] = ()
    """Destination classes."""

    def policies_about(self, operation: str) -> list[PolicyDescription]:
        """Return the policies whose head covers an operation, in their order."""
        described = self.operations.get(operation)
        system = system_of(operation)
        groups = described.groups if described is not None else frozenset({f"system:{system}"})
        return [one for one in self.policies.values() if one.covers(operation, groups)]

    @staticmethod
    def read(text: str) -> "BundleDescription":
        """Read the engine's JSON."""
        document: dict[str, Any] = json.loads(text)
        return BundleDescription(
            policies={item["id"]: _policy(item) for item in document["policies"]},
            operations={item["id"]: _operation(item) for item in document["operations"]},
            systems=tuple(
                SystemDescription(item["name"], item["origin"], item["imported"])
                for item in document["systems"]
            ),
            roles=tuple(
                RoleDescription(item["name"], tuple(item["agents"])) for item in document["roles"]
            ),
            routes=tuple(
                RouteDescription(
                    item["method"], item["host"] or "", item["path"], item["operation"]
                )
                for item in document["routes"]
            ),
            classify=frozenset(document["classify"]),
            collections=_names(document["collections"]),
            destinations=_names(document["destinations"]),
        )


def _policy(item: Mapping[str, Any]) -> PolicyDescription:
    return PolicyDescription(
        id=item["id"],
        file=item["file"],
        line=item["line"],
        effect=item["effect"],
        reason=item["reason"],
        text=item["text"],
        principal=_scope(item["principal"]),
        action=_scope(item["action"]),
        resource=_scope(item["resource"]),
        conditional=item["conditional"],
        digest=item["digest"],
        controls=tuple(item["controls"]),
    )


def _scope(item: Mapping[str, Any]) -> PolicyScope:
    return PolicyScope(
        item["text"], tuple((entity["type"], entity["id"]) for entity in item["entities"])
    )


def _operation(item: Mapping[str, Any]) -> OperationDescription:
    return OperationDescription(
        item["id"],
        item["system"],
        frozenset(item["groups"]),
        item["imported"],
        item["is_case"],
        frozenset(item["effects"]),
        item["tier"],
        item.get("amounts", {}),
    )


def _names(items: list[Mapping[str, Any]]) -> tuple[DeclaredName, ...]:
    return tuple(DeclaredName(item["name"], item["file"]) for item in items)
