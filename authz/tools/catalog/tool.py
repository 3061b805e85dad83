"""The tools of an MCP server, as its `tools/list` describes them, with bounds."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Self

from authz.errors import UsageError
from authz.tools.catalog.arguments import schema_properties

__all__ = ["Listing", "Tool", "plain", "read_listing"]

_MAX_TOOLS: Final = 5_000
_MAX_BYTES: Final = 3 * 1024 * 1024
_MAX_DEPTH: Final = 40
_MAX_INT: Final = 2**63 - 1
_LISTED: Final = "write the answer to tools/list: {tools: [{name, inputSchema, …}]}"


@dataclass(frozen=True, slots=True)
class Tool:
    """One tool, in the server's own words."""

    name: str
    """Its name."""
    input: Mapping[str, Any]
    """JSON Schema of its arguments."""
    title: str | None = None
    """Its name for people."""
    description: str | None = None
    """Description of the server."""
    annotations: Mapping[str, Any] | None = None
    """Hints."""
    output: Mapping[str, Any] | None = None
    """JSON Schema of its structured result."""

    def document(self) -> dict[str, Any]:
        """Give the tool as it stands in a catalog file.

        Returns:
            Its members; those that are missing are left out.
        """
        members: dict[str, Any] = {"name": self.name}
        for key in ("title", "description", "annotations"):
            if (value := getattr(self, key)) is not None:
                members[key] = value
        members["input"] = self.input
        if self.output is not None:
            members["output"] = self.output
        return members

    def hint(self, name: str) -> bool | None:
        """Read a hint of `annotations`.

        Args:
            name: Its name, as `readOnlyHint`.

        Returns:
            The hint; None where it is missing or not a boolean.
        """
        value = (self.annotations or {}).get(name)
        return value if isinstance(value, bool) else None

    @property
    def properties(self) -> dict[str, Mapping[str, Any]]:
        """Schemas of its arguments by name, also of those that only a branch of a union declares."""
        return schema_properties(self.input)

    @property
    def required(self) -> frozenset[str]:
        """Names of the arguments that must be there."""
        entries = self.input.get("required")
        names = entries if isinstance(entries, Sequence) else ()
        return frozenset(name for name in names if isinstance(name, str))

    @classmethod
    def read(cls, value: object, where: str) -> Self:
        """Take over a tool of `tools/list`, or of a catalog file.

        Args:
            value: The tool.
            where: Place of the tool, for messages.

        Returns:
            The tool.

        Raises:
            UsageError: It has no name, or a member of another type than MCP says.
        """
        if not isinstance(value, dict) or not isinstance(value.get("name"), str):
            raise UsageError(f"{where} is not a tool: {_LISTED}")
        at = f"tool `{plain(value['name'], 80)}`"
        value = dict(value)
        value["input"] = value.get("inputSchema", value.get("input"))
        value["output"] = value.get("outputSchema", value.get("output"))
        if not isinstance(value["input"], dict):
            raise UsageError(f"{at}: `inputSchema` is missing, or no object")
        for key, kind in (
            ("title", str),
            ("description", str),
            ("annotations", dict),
            ("output", dict),
        ):
            if value.get(key) is not None and not isinstance(value[key], kind):
                raise UsageError(f"{at}: `{key}` has another type than MCP says")
        _bound(value["input"], f"{at}: `inputSchema`")
        _bound(value["output"], f"{at}: `outputSchema`")
        return cls(
            name=value["name"],
            input=value["input"],
            title=value.get("title"),
            description=value.get("description"),
            annotations=value.get("annotations"),
            output=value["output"],
        )


@dataclass(frozen=True, slots=True)
class Listing:
    """All tools of a server."""

    tools: tuple[Tool, ...]
    """In the server's order."""
    name: str = ""
    """Name of the server, as it says."""
    version: str = ""
    """Its version."""
    origin: str | None = field(default=None)
    """Origin of the server: `https://host[:port]`."""

    @classmethod
    def of(cls, tools: object, server: object = None, origin: str | None = None) -> Self:
        """Take over the tools of a server.

        Args:
            tools: The list.
            server: `{name, version}`, if known.
            origin: Origin of the server, if known.

        Returns:
            The listing.

        Raises:
            UsageError: The document is not a list of tools, or is too large.
        """
        if not isinstance(tools, list):
            raise UsageError(f"there is no list of tools: {_LISTED}")
        if len(tools) > _MAX_TOOLS:
            raise UsageError(f"more than {_MAX_TOOLS} tools")
        implementation = server if isinstance(server, dict) else {}
        listing = cls(
            tools=tuple(Tool.read(tool, f"item {at}") for at, tool in enumerate(tools, 1)),
            name=str(implementation.get("name") or "unknown"),
            version=str(implementation.get("version") or ""),
            origin=origin,
        )
        try:
            size = len(json.dumps([tool.document() for tool in listing.tools]).encode())
        except (ValueError, RecursionError) as error:
            raise UsageError(f"the tools cannot be written down: {error}") from error
        if size > _MAX_BYTES:
            raise UsageError(f"the tools are larger than {_MAX_BYTES} bytes")
        return listing


def read_listing(text: str) -> Listing:
    """Read an answer to `tools/list` from JSON.

    Args:
        text: `{tools: […]}`, the same within `result`, or the list alone; `server` or `serverInfo` beside it.

    Returns:
        The listing.

    Raises:
        UsageError: The text is not such JSON.
    """

    def refuse(constant: str) -> float:
        raise ValueError(f"{constant} is not a JSON number")

    try:
        value = json.loads(text, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"not JSON: {error}") from error
    if isinstance(value, list):
        return Listing.of(value)
    if isinstance(value, dict) and isinstance(value.get("result"), dict):
        value = value["result"]
    if not isinstance(value, dict):
        raise UsageError(_LISTED)
    if value.get("nextCursor"):
        raise UsageError(
            "this is one page of several: join their `tools`, and leave `nextCursor` out"
        )
    return Listing.of(value.get("tools"), value.get("server") or value.get("serverInfo"))


def plain(text: str, most: int = 200) -> str:
    """Make a stranger's text fit for one line of a terminal.

    Args:
        text: The text.
        most: Characters that are kept.

    Returns:
        The text without control characters and line breaks, cut.
    """
    line = " ".join("".join(c if c.isprintable() else " " for c in text[: most * 4]).split())
    return line if len(line) <= most else line[: most - 1] + "…"


def _bound(value: object, where: str, depth: int = 0) -> None:
    """Refuse what no YAML of ours could hold."""
    if depth > _MAX_DEPTH:
        raise UsageError(f"{where} nests deeper than {_MAX_DEPTH}")
    if isinstance(value, dict):
        for key, item in value.items():
            if isinstance(item, int) and not isinstance(item, bool) and abs(item) > _MAX_INT:
                # Every reader of canonical JSON takes it for a double.
                value[key] = float(item)
            _bound(item, where, depth + 1)
    elif isinstance(value, list):
        for item in value:
            _bound(item, where, depth + 1)
