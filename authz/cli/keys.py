"""`authz keys …`: keys that sign task credentials, and keys and tokens for development."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from authz.cli.options import ADMIN, Address, Format, OutputFormat
from authz.cli.render import Terminal
from authz.config import SigningAlgorithm
from authz.errors import UsageError
from authz.signing import FolderKeys
from authz.tools.keys import DevDomain
from authz.tools.remote import Remote
from authz.tools.scaffold import write_dev_config

__all__ = ["register"]


_ISSUER = "https://idp.dev.example"

KeyFolder = Annotated[Path, typer.Argument(help="Folder of the keys.", file_okay=False)]

KeysFolder = Annotated[
    Path,
    typer.Argument(help="Folder of the keys, as in `credentials.keys.folder`.", file_okay=False),
]


def register(app: typer.Typer) -> None:
    """Add the group of verbs to the command."""
    group = typer.Typer(
        help="Keys that sign task credentials; keys and tokens for development.",
        no_args_is_help=True,
    )
    for verb in (make, token, list_, generate):
        group.command(verb.__name__.rstrip("_"))(verb)
    app.add_typer(group, name="keys")


def make(
    *,
    folder: KeyFolder,
    domain: Annotated[str, typer.Option(help="SPIFFE trust domain.")] = "dev.example",
    issuer: Annotated[str, typer.Option(help="`iss` of subject tokens.")] = _ISSUER,
    bundle: Annotated[
        Path | None,
        typer.Option(
            help="Also write config.yaml, which serves this bundle on loopback with these keys.",
            file_okay=False,
        ),
    ] = None,
) -> None:
    """Make keys of a trust domain and an issuer for development (bundle.json, jwks.json), unless the folder has them. Never use them in production."""
    terminal = Terminal()
    made = DevDomain.open(folder, domain, issuer)
    terminal.line(f"{folder}: trust domain {made.domain}, issuer {made.issuer}")
    if bundle is not None:
        config = write_dev_config(folder, bundle, made.domain, made.issuer)
        terminal.line(str(config))
        terminal.note(
            f"Next: authz serve --config {config}\n"
            f"      authz keys token {folder} --agent /ns/support/sa/bot           an agent's token\n"
            f"      authz keys token {folder} --subject alice --group employees    its user's token"
        )


def token(
    *,
    folder: KeyFolder,
    audience: Annotated[str, typer.Option(help="Audience (`aud`).")] = "authz",
    agent: Annotated[
        str | None,
        typer.Option(help="Path of the agent's SPIFFE id, for example /ns/support/sa/bot."),
    ] = None,
    subject: Annotated[str | None, typer.Option(help="`sub` of a subject's token.")] = None,
    group: Annotated[
        list[str] | None, typer.Option(help="Value of the claim `groups`. Repeatable.")
    ] = None,
    lifetime: Annotated[int, typer.Option(help="Lifetime in seconds.")] = 3600,
) -> None:
    """Print a token signed with the keys of a folder, for development."""
    if not folder.is_dir():
        raise UsageError(f"{folder} has no keys; run: authz keys make {folder}")
    keys = DevDomain.open(folder, "dev.example", _ISSUER)
    if (agent is None) == (subject is None):
        raise UsageError("give --agent or --subject")
    if agent is not None:
        if not agent.startswith("/"):
            raise UsageError("--agent is a path: /ns/…/sa/…")
        print(keys.svid(agent, audience, lifetime=lifetime))
    else:
        claims = {"groups": list(group)} if group else {}
        print(keys.subject_token(subject or "", audience, claims, lifetime=lifetime))


def list_(*, address: Address = ADMIN, style: Format = OutputFormat.TEXT) -> None:
    """List the keys of all nodes that sign task credentials."""
    listed = json.loads(Remote(address).status().detail_json).get("signing_keys")
    if listed is None:
        raise UsageError("this node issues no credentials: `credentials` is not configured")
    if style is OutputFormat.JSON:
        Terminal().json({"keys": listed})
        return
    Terminal().table(
        ("key", "algorithm", "node", "", "signs from", "published until"),
        [
            (
                key["kid"],
                key["algorithm"],
                key["node"],
                "signs" if key["signs"] else ("own" if key["own"] else ""),
                _time(key["active_from"]),
                _time(key["expires_at"]),
            )
            for key in listed
        ],
    )


def generate(
    *,
    folder: KeysFolder,
    algorithm: Annotated[
        SigningAlgorithm, typer.Option(help="Signature algorithm.")
    ] = SigningAlgorithm.ES256,
) -> None:
    """Make a signing key in a folder. A node with that folder publishes the key, and later signs with it."""
    print(FolderKeys(folder).generate(algorithm).kid)


def _time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
