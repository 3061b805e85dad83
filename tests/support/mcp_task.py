"""An MCP server and client of the older major version in one process: prints the task that each call carried, as JSON.

Run by the interpreter whose SDK is meant, with the folders of ours as arguments: `python mcp_task.py FOLDER…`.
"""

import asyncio
import importlib
import json
import sys
from typing import Any

sys.path.extend(sys.argv[1:])

from authz_client import within_task
from authz_client.integrations.mcp import mcp_session

# Of that SDK, and not of the one that is checked here.
fastmcp: Any = importlib.import_module("mcp.server.fastmcp")
memory: Any = importlib.import_module("mcp.shared.memory")
server = fastmcp.FastMCP("sums", log_level="ERROR")


async def carried(context: Any) -> str:
    """Tells which task the call carried."""
    await asyncio.sleep(0)
    meta = context.request_context.meta
    return json.dumps(meta.model_dump(by_alias=True).get("dev.authz/task") if meta else None)


async def main() -> None:
    """Call without a task, and with one."""
    carried.__annotations__["context"] = fastmcp.Context
    server.tool()(carried)
    async with memory.create_connected_server_and_client_session(server._mcp_server) as session:
        mcp_session(session)
        first = await session.call_tool("carried", {})
        with within_task("task-1"):
            second = await session.call_tool("carried", {})
            listed = await session.list_tools()
    texts = [result.content[0].text for result in (first, second)]
    json.dump([*(json.loads(text) for text in texts), len(listed.tools)], sys.stdout)


asyncio.run(main())
