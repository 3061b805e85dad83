"""Asks an MCP server for its tools, with the official SDK as the client; needs the extra `mcp`.

The server is a stranger: pages, bytes and time are bounded, and nothing that it asks for in return is answered.
"""

import asyncio
import json
import os
import shlex
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final, TextIO
from urllib.parse import urlsplit

from authz.errors import UnavailableError, UsageError
from authz.tools.catalog.tool import Listing, plain

if TYPE_CHECKING:
    from mcp import ClientSession

__all__ = ["ListingSource", "fetch_listing", "given_headers"]

_MAX_PAGES: Final = 200
_MAX_BYTES: Final = 8 * 1024 * 1024
_HTTP_TIMEOUT: Final = 30.0
_HTTP_READ_TIMEOUT: Final = 300.0
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_NEEDS: Final = "asking an MCP server needs the extra `mcp`: pip install 'authz-runtime[mcp]'"


@dataclass(frozen=True, slots=True)
class ListingSource:
    """Address of an MCP server: a command or a URL."""

    command: str = ""
    """A command that speaks MCP over standard input and output; never through a shell."""
    url: str = ""
    """An MCP endpoint (streamable HTTP)."""
    environment: Sequence[str] = ()
    """`NAME` or `NAME=VALUE`: what the command sees beside a few harmless variables."""
    headers: Sequence[str] = ()
    """`NAME=VALUE`, or `NAME=env:VARIABLE`: sent to the URL."""
    timeout: float = 30.0
    """Seconds for everything together."""


def fetch_listing(source: ListingSource) -> Listing:
    """Ask for all tools.

    Args:
        source: Address of the server.

    Returns:
        The listing.

    Raises:
        UsageError: The source cannot be used, or lists an entry that is not a tool.
        UnavailableError: The server does not answer, or not in time.
    """
    try:
        import mcp  # noqa: F401, PLC0415 - an extra
    except ImportError as error:
        raise UsageError(_NEEDS) from error
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as errors:
        try:
            return asyncio.run(_ask(source, errors))
        except (UsageError, UnavailableError):
            raise
        except Exception as error:
            # The SDK and its transports raise what they like, in groups of groups; ours come out of them as they were.
            inner = _innermost(error)
            if isinstance(inner, (UsageError, UnavailableError)):
                raise inner from error
            errors.seek(0, os.SEEK_END)
            errors.seek(max(0, errors.tell() - 4_000))
            last_lines = plain(" ".join(errors.read().splitlines()[-3:]), 300)
            reason = plain(f"{type(inner).__name__}: {inner}", 300)
            tail = f"; the server said: {last_lines}" if last_lines else ""
            raise UnavailableError(f"the server cannot be asked: {reason}{tail}") from error


async def _ask(source: ListingSource, errors: TextIO) -> Listing:
    try:
        async with asyncio.timeout(source.timeout):
            opened = _stdio(source, errors) if source.command else _http(source)
            async with opened as session:
                listing = await _listing(session)
    except TimeoutError as error:
        raise UnavailableError(
            f"the server did not list its tools within {source.timeout:g} s; say --timeout SECONDS"
        ) from error
    if source.url:
        parts = urlsplit(source.url)
        listing = replace(
            listing, origin=f"{parts.scheme}://{parts.netloc.rpartition('@')[2].lower()}"
        )
    return listing


async def _listing(session: "ClientSession") -> Listing:
    from mcp.types import PaginatedRequestParams  # noqa: PLC0415 - an extra

    started = await session.initialize()
    server = started.model_dump(mode="json", by_alias=True).get("serverInfo")
    tools: list[dict[str, Any]] = []
    size = 0
    cursor: str | None = None
    seen: set[str] = set()
    for _ in range(_MAX_PAGES):
        params = PaginatedRequestParams(cursor=cursor) if cursor else None
        page = await session.list_tools(params=params)
        for tool in page.tools:
            one = tool.model_dump(mode="json", by_alias=True, exclude_unset=True)
            size += len(json.dumps(one).encode())
            if size > _MAX_BYTES:
                raise UsageError(f"the server lists more than {_MAX_BYTES} bytes of tools")
            tools.append(one)
        dumped = page.model_dump(mode="json", by_alias=True)
        cursor = dumped.get("nextCursor")
        if not cursor:
            return Listing.of(tools, server)
        if cursor in seen:
            raise UsageError("the server's pages go in a circle")
        seen.add(cursor)
    raise UsageError(f"the server lists its tools on more than {_MAX_PAGES} pages")


@asynccontextmanager
async def _stdio(source: ListingSource, errors: TextIO) -> "AsyncIterator[ClientSession]":
    from mcp import ClientSession, StdioServerParameters  # noqa: PLC0415 - an extra
    from mcp.client.stdio import get_default_environment, stdio_client  # noqa: PLC0415

    try:
        words = shlex.split(source.command)
    except ValueError as error:
        raise UsageError(f"--stdio: {error}") from error
    if not words:
        raise UsageError("--stdio: no command")
    environment = {**get_default_environment(), **_environment(source.environment)}
    parameters = StdioServerParameters(command=words[0], args=words[1:], env=environment)
    async with (
        stdio_client(parameters, errlog=errors) as streams,
        ClientSession(streams[0], streams[1]) as session,
    ):
        yield session


@asynccontextmanager
async def _http(source: ListingSource) -> "AsyncIterator[ClientSession]":
    from mcp import ClientSession  # noqa: PLC0415 - an extra
    from mcp.client.streamable_http import streamable_http_client  # noqa: PLC0415

    parts = urlsplit(source.url)
    safe = parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _LOOPBACK)
    if not safe or not parts.hostname or parts.username:
        raise UsageError(
            "--url: write https://host/path (http only on this machine), without a password"
        )
    async with (
        _http_client(given_headers(source.headers)) as client,
        streamable_http_client(source.url, http_client=client) as streams,
        ClientSession(streams[0], streams[1]) as session,
    ):
        yield session


def _http_client(headers: Mapping[str, str]) -> Any:
    """Make the HTTP client that the SDK takes: of `httpx2` since its version 2, of `httpx` before.

    A server may hold a response open, so reading may take longer than connecting. Only version 1 follows redirects by the
    client: version 2 does so itself, within the origin of the endpoint.
    """
    is_first = version("mcp").startswith("1.")
    library: Any = import_module("httpx" if is_first else "httpx2")
    timeout = library.Timeout(_HTTP_TIMEOUT, read=_HTTP_READ_TIMEOUT)
    return library.AsyncClient(headers=headers, timeout=timeout, follow_redirects=is_first)


def _environment(given: Sequence[str]) -> dict[str, str]:
    variables = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not name or (not equals and name not in os.environ):
            raise UsageError(
                f"--env {name}: write NAME=VALUE, or the name of a variable that is set"
            )
        variables[name] = value if equals else os.environ[name]
    return variables


def given_headers(given: Sequence[str]) -> dict[str, str]:
    """Read headers of the command line.

    Args:
        given: `NAME=VALUE`, or `NAME=env:VARIABLE`.

    Raises:
        UsageError: One has another form, or its variable is not set.
    """
    headers = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise UsageError("--header: write NAME=VALUE, or NAME=env:VARIABLE")
        if value.startswith("env:"):
            variable = value.removeprefix("env:")
            if variable not in os.environ:
                raise UsageError(f"--header {name}: the variable {variable} is not set")
            value = os.environ[variable]
        headers[name] = value
    return headers


def _innermost(error: BaseException) -> BaseException:
    for _ in range(16):
        if isinstance(error, BaseExceptionGroup) and error.exceptions:
            error = error.exceptions[0]
        else:
            break
    return error
