"""Tools as they were accepted, kept beside the catalog so that a review shows what changed since.

`catalog/<system>.before` is not part of the bundle: no decision depends on it. A tool in it counts only if its digest is the accepted one.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from authz.engine import seal_catalog
from authz.errors import UsageError
from authz.tools.catalog.tool import Tool

__all__ = ["before_path", "compared", "read_before", "render_before"]

_MAX_BYTES: Final = 16 * 1024 * 1024
_SCHEMA_PARTS: Final = (("input", "inputSchema"), ("output", "outputSchema"))


def before_path(catalog: Path) -> Path:
    """Name the file of accepted tools.

    Args:
        catalog: The catalog file, `<system>.mcp.yaml`.
    """
    return catalog.with_name(catalog.name.removesuffix(".mcp.yaml") + ".before")


def read_before(path: Path, system: str, accepted: Mapping[str, str]) -> dict[str, Tool]:
    """Read tools as they were accepted.

    Args:
        path: The file; may be missing.
        system: The system.
        accepted: Accepted digests by operation id.

    Returns:
        Tools by operation id; those with another digest than the accepted one are left out.
    """
    try:
        with path.open("rb") as stream:
            content = json.loads(stream.read(_MAX_BYTES))
        tools = [Tool.read(value, "a tool") for value in content]
        server = {"name": "", "version": ""}  # no part of a tool's digest
        documents = [tool.document() for tool in tools]
        sealed = seal_catalog({"system": system, "server": server, "tools": documents})
    except (OSError, ValueError, TypeError, RecursionError, UsageError):
        return {}
    return {
        operation: tool
        for tool, seal in zip(tools, sealed["tools"], strict=True)
        if accepted.get(operation := str(seal["operation"])) == seal["digest"]
    }


def render_before(tools: Mapping[str, Tool]) -> str:
    """Write the file; empty without tools."""
    documents = [tools[operation].document() for operation in sorted(tools)]
    return json.dumps(documents, indent=1) + "\n" if documents else ""


def compared(old: Tool, new: Tool) -> list[tuple[str, str, str]]:
    """Compare a tool with how it was accepted.

    Args:
        old: The tool as it was accepted.
        new: The tool as it is now.

    Returns:
        Part, text before and text after, for each part that differs; `-` stands for a missing one.
    """
    parts = [
        (key, getattr(old, key) or "-", getattr(new, key) or "-")
        for key in ("title", "description")
    ]
    parts += _members("hint", old.annotations or {}, new.annotations or {})
    parts += _members("argument", _arguments(old), _arguments(new))
    differing = [(part, before, after) for part, before, after in parts if before != after]
    for key, name in _SCHEMA_PARTS:
        is_shown = key == "input" and any(part.startswith("argument") for part, _, _ in differing)
        if getattr(old, key) != getattr(new, key) and not is_shown:
            differing.append((name, _json(getattr(old, key)), _json(getattr(new, key))))
    return differing


def _arguments(tool: Tool) -> dict[str, Any]:
    return {
        name: {**schema, "required": True} if name in tool.required else schema
        for name, schema in tool.properties.items()
    }


def _members(
    word: str, old: Mapping[str, Any], new: Mapping[str, Any]
) -> list[tuple[str, str, str]]:
    return [
        (
            f"{word} {name}",
            _json(old[name]) if name in old else "-",
            _json(new[name]) if name in new else "-",
        )
        for name in sorted(old.keys() | new.keys())
    ]


def _json(value: object) -> str:
    return "-" if value is None else json.dumps(value, ensure_ascii=False, sort_keys=True)
