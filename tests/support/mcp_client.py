"""A client on the official MCP SDK, of either major version: reads what to do on standard input, writes what came of it.

Run by the interpreter whose SDK is meant: `python mcp_client.py < plan.json`. A plan is `{url, headers, modern, calls: [[tool,
arguments], …]}`, or has a `command` instead of URL and headers; the tool `kill` kills
the process `pid`, and `wait` makes the file `ready` and waits for the file `until`; the answer is `{version, tools, pages, calls: [{is_error, text, meta} or {code}]}`, or `{failed}`.

With `pages: {action, touch}` the client opens pages that it is asked to open: it makes the file `touch`, and answers with the action.
"""

import asyncio
import json
import os
import signal
import sys
import time
from contextlib import AsyncExitStack
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp.types import ElicitResult


async def _transport(stack: AsyncExitStack, plan: dict[str, Any]) -> Any:
    if "command" in plan:
        run, *arguments = plan["command"]
        return stdio_client(StdioServerParameters(command=run, args=arguments))
    library: Any = import_module("httpx" if version("mcp").startswith("1.") else "httpx2")
    http = await stack.enter_async_context(library.AsyncClient(headers=plan["headers"], timeout=60))
    return streamable_http_client(plan["url"], http_client=http)


def _pages(plan: dict[str, Any], opened: list[dict[str, str]]) -> dict[str, Any]:
    """Options by which a client opens pages; none where it opens none."""
    if "pages" not in plan:
        return {}

    async def callback(_context: Any, params: Any) -> Any:
        opened.append({"mode": params.mode, "url": params.url, "message": params.message})
        if plan["pages"].get("touch"):
            await asyncio.to_thread(Path(plan["pages"]["touch"]).touch)
        return ElicitResult(action=plan["pages"]["action"])

    return {"elicitation_callback": callback}


async def _connect(
    stack: AsyncExitStack, plan: dict[str, Any], opened: list[dict[str, str]]
) -> Any:
    transport = await _transport(stack, plan)
    options = _pages(plan, opened)
    if plan.get("modern"):
        from mcp.client.client import Client  # noqa: PLC0415 - of the newer SDK only

        return await stack.enter_async_context(Client(transport, mode="auto", **options))
    streams = await stack.enter_async_context(transport)
    session = await stack.enter_async_context(ClientSession(streams[0], streams[1], **options))
    await session.initialize()
    return session


def _wait(ready: Path, until: Path) -> None:
    ready.touch()
    while not until.exists():
        time.sleep(0.05)


async def _call(session: Any, tool: str, arguments: dict[str, Any]) -> dict[str, Any]:
    if tool == "kill":
        os.kill(arguments["pid"], signal.SIGKILL)
        await asyncio.sleep(0.2)
        return {}
    if tool == "wait":
        await asyncio.to_thread(_wait, Path(arguments["ready"]), Path(arguments["until"]))
        return {}
    try:
        result = await session.call_tool(tool, arguments)
    except Exception as error:  # noqa: BLE001 - either SDK's own
        return {"code": getattr(getattr(error, "error", None), "code", None), "what": str(error)}
    said = result.model_dump(mode="json", by_alias=True)
    return {
        "is_error": bool(said.get("isError")),
        "text": " ".join(part.get("text") or "" for part in said["content"]),
        "meta": said.get("_meta") or {},
    }


async def _run(plan: dict[str, Any]) -> dict[str, Any]:
    done: dict[str, Any] = {"pages": []}
    async with AsyncExitStack() as stack:
        session = await _connect(stack, plan, done["pages"])
        listed = await session.list_tools()
        done["tools"] = sorted(tool.name for tool in listed.tools)
        done["calls"] = [await _call(session, tool, given) for tool, given in plan["calls"]]
        done["version"] = getattr(session, "protocol_version", None)
    return done


def main() -> None:
    """Do what standard input says."""
    try:
        done = asyncio.run(asyncio.wait_for(_run(json.load(sys.stdin)), 45))
    except BaseException as error:  # noqa: BLE001 - groups of groups
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        done = {"failed": f"{type(error).__name__}: {error}"}
    json.dump(done, sys.stdout)


if __name__ == "__main__":
    main()
