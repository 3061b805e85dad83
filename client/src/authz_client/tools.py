"""Filter of a list of tools: only those that could be permitted."""

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from authz_client.questions import ToolList

__all__ = ["filter_tools"]

Tool = TypeVar("Tool")


def filter_tools(
    tools: Iterable[Tool],
    listed: Iterable[str] | ToolList,
    system: str,
    *,
    operation: Callable[[str], str] | None = None,
) -> list[Tool]:
    """Keep the tools of an MCP `tools/list` that could be permitted.

    The listing promises nothing: each call is still judged. A tool that the catalog does not have is left out.

    Args:
        tools: Tools of the MCP library, or their JSON.
        listed: Tools from `Authz.list_tools`, or operation ids from `Authz.list`, which lack operations that the bundle splits.
        system: The MCP server's system in the catalog.
        operation: Gives the operation of a tool by its name. Default: that of the tool in the catalog; for operation ids,
            `<system>.<name>`.

    Returns:
        The tools that are left, in their order.
    """
    if isinstance(listed, ToolList):
        if operation is None:
            return [tool for tool in tools if listed.has_tool(system, _name(tool))]
        listed = listed.operations
    known = frozenset(listed)
    named = operation if operation is not None else lambda name: f"{system}.{name}"
    return [tool for tool in tools if named(_name(tool)) in known]


def _name(tool: Any) -> str:
    name = tool.get("name") if isinstance(tool, dict) else getattr(tool, "name", None)
    return name if isinstance(name, str) else ""
