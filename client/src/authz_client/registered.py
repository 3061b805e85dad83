"""Whether a function is registered as a tool of an MCP server.

The decorators of FastMCP and of the MCP SDK register a function and return it. A guard around what they return would
guard nobody: the server calls the function that it registered.
"""

import gc
import sys
from types import FunctionType
from typing import Any, Final

__all__ = ["is_tool"]

_MARK: Final = "__fastmcp__"
_LIBRARIES: Final = ("mcp", "fastmcp")


class _Probe:
    """Counts the references that a function has where `is_tool` gets it from a decorator."""

    def decorate(self, function: Any) -> int:
        return _as_is_tool(function)


def _as_is_tool(function: Any) -> int:
    return _references(function)


def _references(function: Any) -> int:
    return sys.getrefcount(function)


@_Probe().decorate
def _fresh() -> None:
    """Is what any decorated function is, and known to nobody."""


_FRESH_REFERENCES: Final = _fresh


def is_tool(function: Any) -> bool:
    """Tell whether an MCP library registered a function as a tool, a resource or a prompt.

    Args:
        function: Function, or what a decorator made of one.
    """
    if not any(name in sys.modules for name in _LIBRARIES):
        return False
    if not isinstance(function, FunctionType):
        # FastMCP 2 returns a `FunctionTool`.
        return callable(getattr(function, "fn", None)) and hasattr(function, "parameters")
    if _MARK in vars(function):
        return True
    # Looking through all objects takes milliseconds, so only functions that somebody else knows are looked for.
    return _references(function) > _FRESH_REFERENCES and any(
        _holds(referrer, function) for referrer in gc.get_referrers(function)
    )


def _holds(referrer: object, function: FunctionType) -> bool:
    """Whether an object is a `Tool` of the MCP SDK with this function, or the members of one."""
    if isinstance(referrer, dict):
        return referrer.get("fn") is function and "parameters" in referrer
    is_model = type(referrer).__module__.startswith(("mcp.", "fastmcp."))
    return is_model and getattr(referrer, "fn", None) is function
