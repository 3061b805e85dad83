"""`authz revoke`: the kill switch."""

import getpass
from enum import StrEnum
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from authz.cli.options import ADMIN, Address, Format, OutputFormat
from authz.cli.render import Terminal
from authz.errors import UsageError
from authz.tools.remote import Remote
from authz_client.v1 import admin_pb2

__all__ = ["register"]


class Target(StrEnum):
    """Kind of a target."""

    AGENT = "agent"
    SESSION = "session"
    TASK = "task"
    JTI = "jti"
    KEY = "key"
    OPERATION = "operation"
    SYSTEM = "system"
    ISSUER = "issuer"
    SUBJECT = "subject"


def register(app: typer.Typer) -> None:
    """Add the verb to the command."""
    app.command(
        "revoke",
        cls=_Revoke,
        epilog="Example: authz revoke agent spiffe://corp.example/ns/support/sa/bot --reason 'prompt injection'",
    )(revoke)


class _Revoke(TyperCommand):
    """Takes the word after the target for its value, although ids of keys and tokens may begin with a dash."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the value behind `--`, where nothing is read as an option."""
        options = [option for option in self.params if option.param_type_name == "option"]
        names = {"-h", "--help", "-", *(name for option in options for name in option.opts)}
        # The word after one of these is its own, for example of `--reason key`.
        takers = {
            name
            for option in options
            if not getattr(option, "is_flag", False)
            for name in option.opts
        }
        for at in range(len(args) - 1 if "--" not in args else 0):
            word, value = args[at], args[at + 1]
            is_target = word in set(Target) and (at == 0 or args[at - 1] not in takers)
            is_option = value.partition("=")[0] in names
            if is_target and value.startswith("-") and not is_option:
                args = [*args[:at], *args[at + 2 :], "--", word, value]
                break
        return super().parse_args(ctx, args)


def revoke(
    *,
    target: Annotated[Target, typer.Argument(help="Kind of the target.")],
    value: Annotated[
        str,
        typer.Argument(
            help="The target: a SPIFFE id; the id of a session, task, token, key (or SHA-256 of a certificate, in hex), operation "
            "or system; an issuer's alias or a trust domain; a subject as ISSUER/SUB."
        ),
    ],
    undo: Annotated[
        bool,
        typer.Option(
            "--undo",
            help="Lift the revocation of an agent, subject, operation, system, issuer or key. Requires --reason. A task, "
            "session or credential that ended stays ended.",
        ),
    ] = False,
    reason: Annotated[
        str, typer.Option(help="Reason, for audit records and for the message of each refusal.")
    ] = "",
    by: Annotated[
        str,
        typer.Option(
            help="Name of the person who revokes, for audit records. Default: your login name."
        ),
    ] = "",
    address: Address = ADMIN,
    style: Format = OutputFormat.TEXT,
) -> None:
    """Revoke a target: refuse its calls from now on, and end live tasks of an agent, subject, session or task. --undo lifts the revocation."""
    if undo and not reason.strip():
        message = "--undo requires --reason: why the revocation is lifted"
        raise UsageError(message)
    request = admin_pb2.AdminRevokeRequest(reason=reason, by=by or _login(), undo=undo)
    setattr(request, target.value, value)
    answer = Remote(address).revoke(request)
    if answer.undone != undo:
        message = (
            "the node is of an earlier version: it cannot lift a revocation, and revoked instead"
        )
        raise UsageError(message)
    terminal = Terminal()
    if style is OutputFormat.JSON:
        shown = {"target": target.value, "value": value, "tasks_ended": answer.tasks_ended}
        terminal.json({**shown, "undone": True} if undo else shown)
    elif undo:
        terminal.line(f"{target.value} {value} is no longer revoked; what ended stays ended")
    else:
        terminal.line(f"revoked {target.value} {value}; {answer.tasks_ended} tasks ended")


def _login() -> str:
    """Return the login name of the user who runs the command, or an empty string if there is none."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return ""
