"""Verbs about tasks, and the kill switch."""

from enum import StrEnum
from typing import Annotated

import typer

from authz.cli.history import ADMIN, Address
from authz.cli.show import Show
from authz.tools.remote import Remote
from authz.v1 import admin_pb2

__all__ = ["register"]


class Target(StrEnum):
    """What can be revoked."""

    AGENT = "agent"
    SESSION = "session"
    TASK = "task"
    JTI = "jti"
    KEY = "key"
    OPERATION = "operation"
    SYSTEM = "system"
    ISSUER = "issuer"


def register(app: typer.Typer) -> None:
    """Add the verbs.

    Args:
        app: The command.
    """
    app.command(
        "revoke",
        epilog="Example: authz revoke agent spiffe://corp.example/ns/support/sa/bot --reason 'prompt injection'",
    )(revoke)


def revoke(
    *,
    target: Annotated[Target, typer.Argument(help="What `value` is.")],
    value: Annotated[
        str,
        typer.Argument(
            help="A SPIFFE id; the id of a session, task, token, key (or SHA-256 of a certificate, in hex), operation "
            "or system; an issuer's alias or a trust domain."
        ),
    ],
    reason: Annotated[
        str, typer.Option(help="Why; stands in records and in the message of each refusal.")
    ] = "",
    address: Address = ADMIN,
    output: Annotated[str, typer.Option("--output", "-o", help="text or json")] = "text",
) -> None:
    """Revoke: from now on whatever it names is refused, and live tasks of an agent, a session, a task end."""
    request = admin_pb2.AdminRevokeRequest(reason=reason)
    setattr(request, target.value, value)
    answer = Remote(address).revoke(request)
    show = Show()
    if output == "json":
        show.json({"target": target.value, "value": value, "tasks_ended": answer.tasks_ended})
    else:
        show.line(f"revoked {target.value} {value}; {answer.tasks_ended} tasks ended")
