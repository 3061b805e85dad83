"""The task on requests of MCP client sessions."""

import asyncio
from typing import Any

import mcp.types
from mcp.server.mcpserver import Context, MCPServer

from authz_client import filter_tools, task_meta, within_task
from authz_client.integrations.mcp import mcp_session


def test_mcp_requests_carry_the_task() -> None:
    """Mcp requests carry the task."""

    class Session:
        """Has what a hook needs of `mcp.ClientSession`."""

        def __init__(self) -> None:
            self.sent: list[dict[str, Any]] = []

        async def send_request(self, request: Any, result_type: Any, **_: Any) -> Any:
            """Keeps the request."""
            del result_type
            self.sent.append(request.model_dump(by_alias=True, mode="json", exclude_none=True))

    session = mcp_session(Session())

    def call(**more: Any) -> Any:
        params = mcp.types.CallToolRequestParams(name="search", arguments={"query": "a"}, **more)
        return mcp.types.CallToolRequest(params=params)

    async def main() -> None:
        await session.send_request(call(), None)
        with within_task("task-1"):
            await session.send_request(call(), None)
            await session.send_request(call(_meta={"dev.authz/task": "other", "x": 1}), None)
            await session.send_request(call(_meta={"x": 1}), None)
            await session.send_request(mcp.types.ListToolsRequest(), None)

    asyncio.run(main())
    metas = [request.get("params", {}).get("_meta") for request in session.sent]
    named = {"dev.authz/task": "task-1"}
    assert metas == [None, named, {"dev.authz/task": "other", "x": 1}, {**named, "x": 1}, named]
    assert session.sent[1]["params"]["arguments"] == {"query": "a"}
    with within_task("task-1"):
        assert task_meta({"x": 1}) == {**named, "x": 1}
    assert task_meta() == {}


def test_a_real_mcp_server_sees_the_task() -> None:
    """In `_meta` of each request, beside what the library itself puts there."""
    server = MCPServer("sums")
    seen: list[Any] = []

    @server.tool()
    async def add(a: int, b: int, context: Context) -> int:
        seen.append(dict(context.request_context.meta or {}).get("dev.authz/task"))
        return a + b

    async def main() -> None:
        async with mcp.Client(server) as client:
            mcp_session(client.session)
            await client.call_tool("add", {"a": 1, "b": 2})
            with within_task("task-1"):
                result = await client.call_tool("add", {"a": 1, "b": 2})
                assert not result.is_error
                listed = await client.list_tools()
        assert [tool.name for tool in filter_tools(listed.tools, ["sums.add"], "sums")] == ["add"]
        assert filter_tools(listed.tools, ["sums.other"], "sums") == []

    asyncio.run(main())
    assert seen == [None, "task-1"]
