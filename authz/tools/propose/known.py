"""What a bundle already says, as far as a proposal must not say it again."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self
from urllib.parse import urlsplit

import yaml

from authz.model import BundleFiles

__all__ = ["Known", "overlap"]

_VARIABLE: Final = re.compile(r"(?<!\$)\$\{([A-Za-z_][A-Za-z0-9_]{0,63})\}")


@dataclass(slots=True)
class Known:
    """Names of a bundle."""

    systems: dict[str, str] = field(default_factory=dict)
    """Host of each system's `origin`, by system; empty where it has none."""
    tools: set[str] = field(default_factory=set)
    """Systems whose catalog was imported from an MCP server."""
    operations: set[str] = field(default_factory=set)
    """Operation ids, those of MCP servers aside."""
    rules: set[str] = field(default_factory=set)
    """What `classify` rules match."""
    roles: set[str] = field(default_factory=set)
    """Roles of agents and subjects."""
    agents: list[str] = field(default_factory=list)
    """SPIFFE ids and patterns that hold a role."""
    routes: list[tuple[str, str, str]] = field(default_factory=list)
    """Method, host (empty: any) and path of each route."""

    @classmethod
    def read(cls, bundle: BundleFiles, variables: Mapping[str, str]) -> Self:
        """Read a bundle that compiles.

        Args:
            bundle: Its files.
            variables: Values of `${…}`.

        Returns:
            What it says.
        """
        known = cls()
        for name, content in sorted(bundle.files.items()):
            if name.startswith(("tests/", "data/", ".")) or not name.endswith((".yaml", ".yml")):
                continue
            if name.endswith(".mcp.yaml"):
                system = name.rsplit("/", 1)[-1].removesuffix(".mcp.yaml")
                known.tools.add(system)
                known.systems.setdefault(system, "")
                continue
            text = _VARIABLE.sub(
                lambda match: variables.get(match[1], match[0]), content.decode(errors="replace")
            )
            try:
                # Every scalar is a text: what a value means is not looked at.
                value = yaml.load(text, Loader=yaml.BaseLoader)  # noqa: S506 - builds texts only
            except (yaml.YAMLError, RecursionError):
                continue
            if isinstance(value, dict):
                known.take(value)
        return known

    def take(self, facts: Mapping[str, Any]) -> None:
        """Take the keys of one file in.

        Args:
            facts: The file.
        """
        for system, entry in _items(facts.get("catalog")):
            self.systems[system] = urlsplit(str(entry.get("origin", ""))).netloc
            if isinstance(operations := entry.get("operations"), dict):
                self.operations.update(f"{system}.{name}" for name in operations)
        for rule in _entries(facts.get("classify")):
            self.rules.add(str(rule.get("match", "")))
        for route in _entries(facts.get("routes")):
            said = [str(route.get(key, "")) for key in ("method", "host", "path")]
            self.routes.append((said[0], said[1], said[2]))
        if isinstance(agents := facts.get("agents"), dict):
            for role, ids in agents.items():
                self.roles.add(str(role))
                listed = ids.get("match") if isinstance(ids, dict) else ids
                if isinstance(listed, list):
                    self.agents.extend(str(one) for one in listed)
        if isinstance(subjects := facts.get("subjects"), dict):
            self.roles.update(map(str, subjects))

    def has_role(self, agent: str) -> bool:
        """Tell whether an agent holds a role.

        Args:
            agent: Its SPIFFE id.

        Returns:
            Whether an id or pattern names it.
        """
        parts = agent.split("/")
        return any(
            len(pattern) == len(parts)
            and all(one in {"*", part} for one, part in zip(pattern, parts, strict=True))
            for pattern in (text.split("/") for text in self.agents)
        )

    def system_of(self, host: str) -> str:
        """Find the system that is served at a host.

        Args:
            host: The host, with or without its port.

        Returns:
            The system; empty where no `origin` is there.
        """
        bare = host.rsplit(":", 1)[0]
        found = [name for name, at in sorted(self.systems.items()) if at and at in {host, bare}]
        return found[0] if found else ""

    def routed(self, method: str, host: str, path: str) -> str:
        """Find a route that could match what another does.

        Args:
            method: The method.
            host: The host; empty: any.
            path: Literal and `{name}` segments.

        Returns:
            The route's path; empty where there is none.
        """
        for other_method, other_host, other_path in self.routes:
            same = (
                not host
                or not other_host
                or host.split(":", maxsplit=1)[0] == other_host.split(":")[0]
            )
            if method == other_method and same and overlap(path, other_path):
                return other_path
        return ""


def overlap(one: str, other: str) -> bool:
    """Tell whether two paths of routes can match one path.

    Args:
        one: Literal and `{name}` segments.
        other: The same.

    Returns:
        Whether they can.
    """
    ours, theirs = one.split("/"), other.split("/")
    return len(ours) == len(theirs) and all(
        a == b or (a.startswith("{") and b) or (b.startswith("{") and a)
        for a, b in zip(ours, theirs, strict=True)
    )


def _items(value: object) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if isinstance(value, dict):
        for key, entry in value.items():
            yield str(key), entry if isinstance(entry, dict) else {}


def _entries(value: object) -> Iterator[Mapping[str, Any]]:
    if isinstance(value, list):
        yield from (entry for entry in value if isinstance(entry, dict))
