"""`authz credential …`: issue, inspect and revoke task credentials."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from google.protobuf import json_format

from authz.cli.options import (
    ADMIN,
    AgentToken,
    Format,
    OutputFormat,
    Server,
    SubjectToken,
    evidence,
)
from authz.cli.render import Terminal
from authz.errors import UsageError
from authz.tools.remote import Remote
from authz_client import Authz, IssueOptions, ProofKey, TaskCredential, TokenFile
from authz_client.v1 import credentials_pb2

__all__ = ["register"]


_MOST_BYTES = 65_536

TokenPath = Annotated[
    str, typer.Argument(metavar="TOKEN", help="File with the credential; `-` for standard input.")
]


def register(app: typer.Typer) -> None:
    """Add the group of verbs to the command."""
    group = typer.Typer(
        name="credential",
        help="Issue, inspect and revoke task credentials.",
        no_args_is_help=True,
    )
    for verb in (issue, introspect, revoke):
        group.command(verb.__name__)(verb)
    app.add_typer(group)


def issue(
    *,
    operation: Annotated[str, typer.Argument(help="Operation id, `<system>.<name>`.")],
    agent_token: Annotated[
        Path, typer.Option(help="File with the agent's JWT-SVID.", dir_okay=False, exists=True)
    ],
    server: Annotated[
        str,
        typer.Option(
            "--server",
            envvar="AUTHZ_SERVER",
            help="Address of the server, `host:port` or `unix:///path`.",
        ),
    ],
    task: Annotated[str, typer.Option(help="Task id.")],
    arguments: Annotated[
        str, typer.Option(help="Arguments of the operation: one JSON object.")
    ] = "{}",
    audience: Annotated[
        str, typer.Option(help="Audience of the credential. Default: the operation's system.")
    ] = "",
    lifetime: Annotated[
        int,
        typer.Option(
            help="Lifetime in seconds, at most that of the tier. Default: that of the tier.", min=0
        ),
    ] = 0,
    issuer: Annotated[
        str, typer.Option(help="`credentials.issuer` of the node. Required with --proof-key.")
    ] = "",
    proof_key: Annotated[
        Path | None,
        typer.Option(
            help="PEM file of a P-256 key that the credential is bound to (DPoP).", dir_okay=False
        ),
    ] = None,
    subject_token: SubjectToken = None,
    style: Format = OutputFormat.TEXT,
) -> None:
    """Ask for a permit, and print a credential for one call of the operation."""
    if (proof_key is None) != (not issuer):
        raise UsageError("--proof-key and --issuer belong together")
    key = ProofKey.read(proof_key) if proof_key is not None else None
    said: IssueOptions = {"task": task, "audience": audience, "lifetime": lifetime}
    if subject_token is not None:
        said["subject_token"] = TokenFile(subject_token)
    with Authz(
        server, credentials=TokenFile(agent_token), credential_issuer=issuer, proof_key=key
    ) as client:
        issued = client.credentials.issue(operation, arguments.encode(), **said)
    if not isinstance(issued, TaskCredential):
        raise UsageError("the secrets of the system are leased; get them with the SDK")
    if style is OutputFormat.JSON:
        told = {"token_type": issued.token_type, "expires_at": issued.expires_at}
        Terminal().json({"token": issued.token, **told, "decision_id": issued.decision_id})
    else:
        print(issued.token)


def introspect(
    *,
    token: TokenPath,
    agent_token: AgentToken = None,
    server: Server = ADMIN,
    style: Format = OutputFormat.TEXT,
) -> None:
    """Show whether a credential is active, and its claims."""
    request = credentials_pb2.IntrospectRequest(
        evidence=evidence(agent_token, None), token=_token(token)
    )
    known = Remote(server).credential("Introspect", request, credentials_pb2.IntrospectResponse())
    claims = json_format.MessageToDict(known.claims) if known.active else {}
    if style is OutputFormat.JSON:
        Terminal().json({"active": known.active, **claims})
        return
    Terminal().table(
        ("", ""),
        [
            ("active", "yes" if known.active else "no"),
            *((name, _said(value)) for name, value in sorted(claims.items())),
        ],
    )


def revoke(
    *,
    token: TokenPath,
    agent_token: AgentToken = None,
    subject_token: SubjectToken = None,
    server: Server = ADMIN,
) -> None:
    """Revoke a credential."""
    request = credentials_pb2.CredentialsRevokeRequest(
        evidence=evidence(agent_token, subject_token), token=_token(token)
    )
    Remote(server).credential("Revoke", request, credentials_pb2.CredentialsRevokeResponse())
    Terminal().line("revoked")


def _token(path: str) -> str:
    if path == "-":
        text = sys.stdin.read(_MOST_BYTES)
    else:
        with Path(path).open() as stream:
            text = stream.read(_MOST_BYTES)
    return text.strip()


def _said(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
