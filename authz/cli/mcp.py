"""`authz mcp`: guard an MCP server that is a command or an endpoint."""

import asyncio
import logging
import sys
from pathlib import Path
from typing import Annotated

import typer

from authz.cli.options import Header, SubjectToken
from authz.cli.render import CommandExit
from authz.errors import UsageError
from authz.mcp.guard import Identity, McpGuard
from authz.mcp.http import HttpServer
from authz.mcp.proxy import run_proxy
from authz.mcp.stdio import StdioServer
from authz.tools.catalog.fetch import given_headers
from authz_client import Authz, Tls, TokenFile, TokenSource, WorkloadToken
from authz_client.mcp_held import DEFAULT_WAIT_SECONDS

__all__ = ["register"]

_MIB = 1024 * 1024


def register(app: typer.Typer) -> None:
    """Add the verb to the command."""
    app.command(
        "mcp",
        epilog="Example: authz mcp --system time --agent-token svid.jwt -- uvx mcp-server-time",
    )(guard)


def guard(
    *,
    command: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="-- COMMAND…",
            help="Command of a server that speaks over standard input and output.",
            show_default=False,
        ),
    ] = None,
    system: Annotated[
        str,
        typer.Option(help="System of the server in the bundle's catalog, for example `github`."),
    ],
    url: Annotated[
        str, typer.Option(help="Endpoint of a server (streamable HTTP), instead of a command.")
    ] = "",
    header: Header = None,
    server: Annotated[
        str,
        typer.Option(
            "--server",
            envvar="AUTHZ_SERVER",
            help="Address of Authz, `host:port` or `unix:///path`.",
        ),
    ] = "unix:///run/authz/authz.sock",
    agent_token: Annotated[
        Path | None,
        typer.Option(
            envvar="AUTHZ_AGENT_TOKEN",
            help="File with the agent's JWT-SVID; read again when it changes.",
            dir_okay=False,
        ),
    ] = None,
    workload_audience: Annotated[
        str,
        typer.Option(
            help="Audience of a JWT-SVID that the SPIFFE Workload API gives, instead of a file."
        ),
    ] = "",
    subject_token: SubjectToken = None,
    task: Annotated[
        str,
        typer.Option(
            envvar="AUTHZ_TASK", help="Task of all calls. Default: the task that a call names."
        ),
    ] = "",
    enforcer: Annotated[
        bool,
        typer.Option(
            "--enforcer",
            help="Ask as an enforcer of the node about the agent, so that reports count in full.",
        ),
    ] = False,
    tls_ca: Annotated[
        Path | None, typer.Option(help="PEM file with the authorities of Authz.", dir_okay=False)
    ] = None,
    tls_certificate: Annotated[
        Path | None,
        typer.Option(help="PEM file with the certificate of this side.", dir_okay=False),
    ] = None,
    tls_key: Annotated[
        Path | None, typer.Option(help="PEM file with its private key.", dir_okay=False)
    ] = None,
    timeout: Annotated[
        float, typer.Option(help="Seconds for one decision.", min=0.05, max=60)
    ] = 1.0,
    wait: Annotated[
        float,
        typer.Option(
            help="Seconds that a call waits for the answer of a person, once its agent or user knows of the request. 0: never. Clients give up too, stock TypeScript clients after 60.",
            min=0,
            max=3600,
        ),
    ] = DEFAULT_WAIT_SECONDS,
    max_message: Annotated[
        int, typer.Option(help="MiB of the largest message of the server.", min=1, max=1024)
    ] = 32,
) -> None:
    """Guard an MCP server: list only tools that could be permitted, check each call, and report its result. Speaks MCP on standard input and output."""
    if bool(command) == bool(url):
        raise UsageError("give the server's command after `--`, or --url")
    if header and not url:
        raise UsageError("--header belongs to --url")
    logging.basicConfig(stream=sys.stderr, format="authz mcp: %(message)s", level=logging.WARNING)
    logging.getLogger("authz.mcp").setLevel(logging.INFO)
    agent = _agent(agent_token, workload_audience)
    if enforcer and agent is None:
        raise UsageError("--enforcer needs the agent's token: --agent-token or --workload-audience")
    tls = _tls(tls_ca, tls_certificate, tls_key)
    if agent is None and (tls is None or tls.certificate is None):
        raise UsageError(
            "nothing says which agent calls: give --agent-token, --workload-audience, or --tls-certificate and --tls-key"
        )
    client = Authz(
        server,
        credentials=None if enforcer else agent,
        enforcer=enforcer,
        tls=tls,
        timeout=timeout,
    )
    identity = Identity(
        task=task,
        agent=agent if enforcer else None,
        subject=TokenFile(subject_token) if subject_token is not None else None,
        timeout=timeout,
    )
    limit = max_message * _MIB
    upstream = (
        HttpServer(url, given_headers(header or ()), limit)
        if url
        else StdioServer(command or (), limit)
    )
    status = asyncio.run(_run(client, McpGuard(client, system, identity, wait=wait), upstream))
    if status:
        raise CommandExit(status)


async def _run(client: Authz, guarded: McpGuard, upstream: HttpServer | StdioServer) -> int:
    async with client, upstream as started:
        return await run_proxy(guarded, started, sys.stdin.fileno(), sys.stdout.fileno())


def _agent(token: Path | None, audience: str) -> TokenSource | None:
    if token is not None and audience:
        raise UsageError("give --agent-token or --workload-audience")
    if token is not None:
        return TokenFile(token)
    return WorkloadToken(audience) if audience else None


def _tls(ca: Path | None, certificate: Path | None, key: Path | None) -> Tls | None:
    if (certificate is None) != (key is None):
        raise UsageError("--tls-certificate and --tls-key belong together")
    if ca is None and certificate is None:
        return None
    return Tls(ca=ca, certificate=certificate, key=key)
