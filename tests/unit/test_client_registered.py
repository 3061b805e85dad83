"""A guard around a registered tool is refused: the server would call the function inside of it."""

from __future__ import annotations

import functools
import gc
from typing import Any

import pytest
from mcp.server.mcpserver import MCPServer

from authz_client import guard
from authz_client.base_errors import UsageError


def page(page: str) -> str:
    """Read a page."""
    return page


def test_a_guard_around_a_tool_is_an_error() -> None:
    """In every way to write it."""
    server = MCPServer("crm")
    with pytest.raises(UsageError, match="write @guard below @tool"):

        @guard("crm.read")
        @server.tool()
        def read(page: str) -> str:
            return page

    server.tool(name="page")(page)
    with pytest.raises(UsageError, match="page is a tool already"):
        guard("crm.page")(page)
    del server
    gc.collect()


def test_a_tool_around_a_guard_is_fine() -> None:
    """The server calls the guard."""
    server = MCPServer("crm")

    @server.tool()
    @guard("crm.read")
    def read(page: str) -> str:
        return page

    @guard("crm.other")
    def other(page: str) -> str:
        return page

    assert read is not other


def test_functions_that_nobody_else_knows_are_not_looked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Looking through all objects takes long."""

    def look(*_: Any) -> list[Any]:
        raise AssertionError

    monkeypatch.setattr(gc, "get_referrers", look)

    @guard("crm.read")
    def read(page: str) -> str:
        return page

    @guard("crm.find", arguments=lambda page: {"page": page})
    async def find(page: str) -> str:
        return page

    guard("crm.part")(functools.partial(page, page="a"))
    assert {read.__name__, find.__name__} == {"read", "find"}
