"""An agent on version 1 of the MCP SDK, which cannot be installed beside version 2: a process of another interpreter.

`DEMO_MCP_1` names that interpreter; `make demo-mesh` sets it if `make test-tools` made one. Without it the demo leaves
this agent out.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from authz.errors import UnavailableError

__all__ = ["FirstLineAgent", "first_line_agent"]

_SECONDS: Final = 20.0
_VARIABLE: Final = "DEMO_MCP_1"
_PROGRAM: Final = """\
import asyncio, sys
from mcp import ClientSession
from mcp.client.streamable_http import streamable_http_client

async def main(url):
    async with streamable_http_client(url) as streams, ClientSession(*streams[:2]) as session:
        await session.initialize()
        print("ready", flush=True)
        while await asyncio.to_thread(sys.stdin.readline):
            try:
                done = await session.call_tool("read_file", {"path": "orders/7.txt"})
                print("held" if done.isError else "permitted", flush=True)
            except Exception:
                print("held", flush=True)

asyncio.run(main(sys.argv[1]))
"""


class FirstLineAgent:
    """One session with the server of files.

    Args:
        process: The process of the other interpreter.
    """

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def call(self) -> str:
        """Read a file.

        Returns:
            `permitted`, `held`, or `lost` if the session ended.
        """
        if self._process.stdin is None:
            return "lost"
        try:
            self._process.stdin.write(b"call\n")
            await self._process.stdin.drain()
        except ConnectionError:
            return "lost"
        return await self.read() or "lost"

    async def read(self) -> str:
        """Read a line of the process; empty at its end, or if none comes."""
        if self._process.stdout is None:
            return ""
        try:
            async with asyncio.timeout(_SECONDS):
                return (await self._process.stdout.readline()).decode().strip()
        except TimeoutError:
            return ""


@asynccontextmanager
async def first_line_agent(base: str) -> AsyncIterator[FirstLineAgent | None]:
    """Open a session of version 1 of the SDK.

    Args:
        base: Base URL of the agent's tools.

    Yields:
        The agent; None if the variable names no interpreter.

    Raises:
        UnavailableError: The session cannot be opened.
    """
    interpreter = os.environ.get(_VARIABLE)
    if not interpreter:
        yield None
        return
    process = await asyncio.create_subprocess_exec(
        *(interpreter, "-c", _PROGRAM, f"{base}/files/mcp"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        agent = FirstLineAgent(process)
        if await agent.read() != "ready":
            raise UnavailableError(f"{interpreter} opens no session: it needs version 1 of `mcp`")
        yield agent
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
