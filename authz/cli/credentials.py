"""Verbs about task credentials, and about the keys that sign them."""

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from google.protobuf import json_format

from authz.cli.history import ADMIN, Address
from authz.cli.show import Show
from authz.cli.tasks import AgentToken, Json, Server, SubjectToken, evidence
from authz.client import Authz, Issue, ProofKey, TaskCredential, TokenFile
from authz.config import SigningAlgorithm
from authz.errors import UsageError
from authz.signing import FolderKeys
from authz.tools.remote import Remote
from authz.v1 import credentials_pb2

__all__ = ["register", "register_keys"]

_MOST_BYTES = 65_536

TokenPath = Annotated[
    str, typer.Argument(metavar="TOKEN", help="File with the credential; `-`: standard input.")
]
KeysFolder = Annotated[Path, typer.Argument(help="`credentials.keys.folder`.", file_okay=False)]


def register(app: typer.Typer) -> None:
    """Add the verbs.

    Args:
        app: The command.
    """
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
    operation: Annotated[str, typer.Argument(help="What it is for, `<system>.<name>`.")],
    agent_token: Annotated[
        Path, typer.Option(help="File with the agent's JWT-SVID.", dir_okay=False, exists=True)
    ],
    server: Annotated[
        str,
        typer.Option(
            "--server",
            envvar="AUTHZ_SERVER",
            help="Where decisions are asked for, `host:port` or `unix:///path`.",
        ),
    ],
    task: Annotated[str, typer.Option(help="Task id.")],
    arguments: Annotated[str, typer.Option(help="The operation's arguments, JSON.")] = "{}",
    audience: Annotated[str, typer.Option(help="Whom it is for; none: the system.")] = "",
    lifetime: Annotated[int, typer.Option(help="Seconds at most; 0: the tier's.", min=0)] = 0,
    issuer: Annotated[
        str, typer.Option(help="The node's `credentials.issuer`; needed with --proof-key.")
    ] = "",
    proof_key: Annotated[
        Path | None,
        typer.Option(help="PEM file of a P-256 key to bind it to (DPoP).", dir_okay=False),
    ] = None,
    subject_token: SubjectToken = None,
    output: Json = "text",
) -> None:
    """Ask whether an agent may perform an operation, and print a credential that performs it once."""
    if (proof_key is None) != (not issuer):
        raise UsageError("--proof-key and --issuer belong together")
    key = ProofKey.read(proof_key) if proof_key is not None else None
    said: Issue = {"task": task, "audience": audience, "lifetime": lifetime}
    if subject_token is not None:
        said["subject_token"] = TokenFile(subject_token)
    with Authz(
        server, credentials=TokenFile(agent_token), credential_issuer=issuer, proof_key=key
    ) as client:
        issued = client.credentials.issue(operation, arguments.encode(), **said)
    if not isinstance(issued, TaskCredential):
        raise UsageError("the system's secrets are leased; ask for them by the SDK")
    if output == "json":
        told = {"token_type": issued.token_type, "expires_at": issued.expires_at}
        Show().json({"token": issued.token, **told, "decision_id": issued.decision_id})
    else:
        print(issued.token)


def introspect(
    *,
    token: TokenPath,
    agent_token: AgentToken = None,
    server: Server = ADMIN,
    output: Json = "text",
) -> None:
    """Tell whether a credential is active, and what it is for."""
    request = credentials_pb2.IntrospectRequest(
        evidence=evidence(agent_token, None), token=_token(token)
    )
    known = Remote(server).credential("Introspect", request, credentials_pb2.IntrospectResponse())
    claims = json_format.MessageToDict(known.claims) if known.active else {}
    if output == "json":
        Show().json({"active": known.active, **claims})
        return
    Show().table(
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
    """End a credential before its time."""
    request = credentials_pb2.CredentialsRevokeRequest(
        evidence=evidence(agent_token, subject_token), token=_token(token)
    )
    Remote(server).credential("Revoke", request, credentials_pb2.CredentialsRevokeResponse())
    Show().line("revoked")


def register_keys(group: typer.Typer) -> None:
    """Add verbs about signing keys to the group `keys`.

    Args:
        group: The group.
    """
    group.command("list")(list_)
    group.command("generate")(generate)


def list_(*, address: Address = ADMIN, output: Json = "text") -> None:
    """List the keys that sign task credentials, of every node."""
    listed = json.loads(Remote(address).status().detail_json).get("signing_keys")
    if listed is None:
        raise UsageError("this node issues no credentials: `credentials` is not configured")
    if output == "json":
        Show().json({"keys": listed})
        return
    Show().table(
        ("key", "algorithm", "node", "", "signs from", "published until"),
        [
            (
                one["kid"],
                one["algorithm"],
                one["node"],
                "signs" if one["signs"] else ("own" if one["own"] else ""),
                _time(one["active_from"]),
                _time(one["expires_at"]),
            )
            for one in listed
        ],
    )


def generate(
    *,
    folder: KeysFolder,
    algorithm: Annotated[
        SigningAlgorithm, typer.Option(help="What it signs with.")
    ] = SigningAlgorithm.ES256,
) -> None:
    """Put a new signing key into a folder; a node that has it publishes it, and rotates to it."""
    print(FolderKeys(folder).generate(algorithm).kid)


def _token(path: str) -> str:
    if path == "-":
        text = sys.stdin.read(_MOST_BYTES)
    else:
        with Path(path).open() as stream:
            text = stream.read(_MOST_BYTES)
    return text.strip()


def _said(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
