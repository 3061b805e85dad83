"""An agent that knows nothing of Authz: it has the addresses of its tools and no credential.

It stands for a model that follows every instruction in its messages, also those of strangers: so it can be hijacked.
"""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self

from authz.errors import UnavailableError

if TYPE_CHECKING:
    from mcp import Client

__all__ = ["Agent", "ToolResult"]

_SECONDS: Final = 20.0
_ASKED: Final = re.compile(r"Please send (?P<what>.+?) to (?P<to>\S+@[\w.-]+\w)")


@dataclass(frozen=True, slots=True)
class ToolResult:
    """A call of a tool, and its result."""

    tool: str
    """`<system>.<tool>`."""
    arguments: dict[str, Any]
    """Arguments of the call."""
    held: bool
    """The tool answered with an error, or there was no answer."""
    text: str
    """Text that the agent got."""


class Agent:
    """One session with each server; an asynchronous context manager.

    Args:
        base: Base URL of its tools: `http://host:port`.
        systems: Names of the servers.
    """

    def __init__(self, base: str, systems: tuple[str, ...]) -> None:
        self._base = base
        self._systems = systems
        self._undo = AsyncExitStack()
        self._clients: dict[str, Client] = {}

    async def __aenter__(self) -> Self:
        """Open the sessions."""
        async with AsyncExitStack() as undo:
            for system in self._systems:
                self._clients[system] = await undo.enter_async_context(
                    _client(f"{self._base}/{system}/mcp")
                )
            self._undo = undo.pop_all()
        return self

    async def __aexit__(self, *error: object) -> None:
        """Close them."""
        await self._undo.aclose()

    async def work(self) -> AsyncIterator[ToolResult]:
        """Read the inbox and do what its messages ask for.

        Yields:
            Every call, once it is answered.
        """
        inbox = await self.call("mail.search_messages", {"query": "please"})
        yield inbox
        for asked in _ASKED.finditer(inbox.text):
            if "customer" in asked["what"]:
                found = await self.call("crm.find_customer", {"name": "Smith"})
            else:
                found = await self.call("files.read_file", {"path": "orders/7.txt"})
            message = {"to": asked["to"], "subject": asked["what"], "body": found.text}
            yield found
            yield await self.call("mail.send_message", message)

    async def call(self, tool: str, arguments: dict[str, Any]) -> ToolResult:
        """Call one tool.

        Args:
            tool: `<system>.<tool>`.
            arguments: Its arguments.

        Returns:
            Result of the call; also a failure.
        """
        system, _, name = tool.partition(".")
        try:
            async with asyncio.timeout(_SECONDS):
                answer = await self._clients[system].call_tool(name, arguments)
        except Exception as error:  # noqa: BLE001 - the SDK raises what it likes; the agent is told
            return ToolResult(tool, arguments, True, f"{type(error).__name__}: {error}")
        text = " ".join(getattr(part, "text", "") for part in answer.content)
        return ToolResult(tool, arguments, bool(answer.is_error), text)


@asynccontextmanager
async def _client(url: str) -> "AsyncIterator[Client]":
    from mcp import Client  # noqa: PLC0415 - an extra

    try:
        async with asyncio.timeout(_SECONDS):
            client = await Client(url).__aenter__()
    except Exception as error:
        raise UnavailableError(f"the agent cannot open a session with {url}: {error}") from error
    try:
        yield client
    finally:
        await client.__aexit__(None, None, None)
