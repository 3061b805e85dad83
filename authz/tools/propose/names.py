"""Names of a bundle that a proposal must not repeat."""

from dataclasses import dataclass, field
from typing import Self
from urllib.parse import urlsplit

from authz.engine import BundleDescription, spiffe_covers

__all__ = ["BundleNames", "overlap"]


@dataclass(slots=True)
class BundleNames:
    """Names of a bundle."""

    systems: dict[str, str] = field(default_factory=dict)
    """Host of each system's `origin`, by system; empty where it has none, or was imported."""
    tools: set[str] = field(default_factory=set)
    """Systems whose catalog was imported from an MCP server."""
    operations: set[str] = field(default_factory=set)
    """Operation ids, without those of imported systems."""
    rules: set[str] = field(default_factory=set)
    """Ids and globs that `classify` rules match."""
    roles: set[str] = field(default_factory=set)
    """Roles of agents and subjects."""
    agents: list[str] = field(default_factory=list)
    """SPIFFE ids and patterns that hold a role."""
    routes: list[tuple[str, str, str]] = field(default_factory=list)
    """Method, host (empty: any) and path of each route."""

    @classmethod
    def read(cls, bundle: BundleDescription) -> Self:
        """Take the names from the description of a bundle."""
        return cls(
            systems={
                system.name: "" if system.imported else urlsplit(system.origin).netloc
                for system in bundle.systems
            },
            tools={system.name for system in bundle.systems if system.imported},
            operations={
                operation.id
                for operation in bundle.operations.values()
                if not operation.imported and not operation.is_case
            },
            rules=set(bundle.classify),
            roles={role.name for role in bundle.roles},
            agents=[agent for role in bundle.roles for agent in role.agents],
            routes=[(route.method, route.host, route.path) for route in bundle.routes],
        )

    def has_role(self, agent: str) -> bool:
        """Return whether an id or a pattern of some role names an agent."""
        return any(spiffe_covers(pattern, agent) for pattern in self.agents)

    def system_of(self, host: str) -> str:
        """Return the system that is served at a host, with or without its port; empty where no `origin` is there."""
        bare = host.rsplit(":", 1)[0]
        matches = [name for name, at in sorted(self.systems.items()) if at and at in {host, bare}]
        return matches[0] if matches else ""

    def overlapping_route(self, method: str, host: str, path: str) -> str:
        """Return the path of a route that could match what another route matches; empty where there is none."""
        for other_method, other_host, other_path in self.routes:
            is_same_host = (
                not host
                or not other_host
                or host.split(":", maxsplit=1)[0] == other_host.split(":")[0]
            )
            if method == other_method and is_same_host and overlap(path, other_path):
                return other_path
        return ""


def overlap(path: str, other: str) -> bool:
    """Return whether two paths of literal and `{name}` segments can match the same request."""
    ours, theirs = path.split("/"), other.split("/")
    return len(ours) == len(theirs) and all(
        a == b or (a.startswith("{") and b) or (b.startswith("{") and a)
        for a, b in zip(ours, theirs, strict=True)
    )
