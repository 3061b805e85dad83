"""Differences between two answers to `tools/list`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from authz.tools.catalog.tool import Listing, Tool

__all__ = ["Change", "changes"]


@dataclass(frozen=True, slots=True)
class Change:
    """One tool that differs."""

    kind: str
    """`added`, `removed` or `changed`."""
    tool: str
    """Its name."""
    what: tuple[str, ...] = ()
    """Descriptions of the changes."""


def changes(old: Listing, new: Listing) -> list[Change]:
    """Compare two listings.

    Args:
        old: Before.
        new: After.

    Returns:
        The tools that differ, by name.
    """
    before = {tool.name: tool for tool in old.tools}
    after = {tool.name: tool for tool in new.tools}
    differences = [Change("removed", name) for name in before.keys() - after.keys()]
    differences += [Change("added", name) for name in after.keys() - before.keys()]
    for name in before.keys() & after.keys():
        if before[name].document() != after[name].document():
            differences.append(Change("changed", name, tuple(_what(before[name], after[name]))))
    return sorted(differences, key=lambda change: change.tool)


def _what(old: Tool, new: Tool) -> list[str]:
    descriptions = [
        f"{key} changed"
        for key in ("title", "description")
        if getattr(old, key) != getattr(new, key)
    ]
    descriptions += _members("hint", old.annotations or {}, new.annotations or {})
    arguments = _members("argument", old.properties, new.properties)
    for name in sorted(old.required ^ new.required):
        word = "required" if name in new.required else "optional"
        if name in old.properties and name in new.properties:
            arguments.append(f"argument {name} is {word} now")
    if old.input != new.input and not arguments:
        arguments.append("inputSchema changed")
    descriptions += arguments
    if old.output != new.output:
        descriptions.append("outputSchema changed")
    return descriptions


def _members(word: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    descriptions = [f"{word} {name} removed" for name in sorted(old.keys() - new.keys())]
    descriptions += [f"{word} {name} added" for name in sorted(new.keys() - old.keys())]
    descriptions += [
        f"{word} {n} changed" for n in sorted(old.keys() & new.keys()) if old[n] != new[n]
    ]
    return descriptions
