"""`authz approval invite`, `passkeys` and `remove-passkey`: people without an issuer, and lost passkeys."""

from typing import Annotated

import typer

from authz.cli.options import ADMIN, Address, Format, OutputFormat
from authz.cli.render import Terminal
from authz.errors import UsageError
from authz.tools.remote import Remote
from authz_client.v1 import passkeys_pb2

__all__ = ["register_passkeys"]

Person = Annotated[
    str,
    typer.Argument(
        metavar="PERSON",
        help="Person as ISSUER/SUB, with the issuer's alias, for example corp/alice.",
    ),
]
Id = Annotated[
    str,
    typer.Argument(metavar="ID", help="Id of the passkey, as `authz approval passkeys` prints it."),
]


def register_passkeys(group: typer.Typer) -> None:
    """Add the verbs to the group `approval`."""
    group.command("invite", epilog="Example: authz approval invite local/alice")(invite)
    group.command("passkeys", epilog="Example: authz approval passkeys corp/alice")(passkeys)
    group.command(
        "remove-passkey", epilog="Example: authz approval remove-passkey corp/alice --all"
    )(remove_passkey)


def invite(
    *,
    person: Annotated[
        str,
        typer.Argument(
            metavar="PERSON",
            help="Person as ISSUER/SUB. The issuer is a name of your choice that is not an alias in trust.issuers, for example local.",
        ),
    ],
    address: Address = ADMIN,
    style: Format = OutputFormat.TEXT,
) -> None:
    """Make a link with which a person without an issuer makes a passkey for the approvals page.

    The link can be used once, within ten minutes. The bundle's `subjects` give roles to the name of the person.
    """
    issuer, sub = _split(person)
    request = passkeys_pb2.PasskeysInviteRequest(issuer=issuer, sub=sub)
    answer = Remote(address).passkeys("Invite", request, passkeys_pb2.PasskeysInviteResponse())
    terminal = Terminal()
    until = answer.expires_at.ToDatetime()
    if style is OutputFormat.JSON:
        terminal.json({"url": answer.url, "expires_at": f"{until.isoformat()}Z"})
        return
    terminal.line(answer.url)
    terminal.hint(
        f"Hand it over in private: the first to open it becomes {person}. It works once, until {until:%H:%M} UTC."
    )


def passkeys(
    *, person: Person, address: Address = ADMIN, style: Format = OutputFormat.TEXT
) -> None:
    """List the passkeys of a person."""
    issuer, sub = _split(person)
    request = passkeys_pb2.PasskeysListRequest(issuer=issuer, sub=sub)
    answer = Remote(address).passkeys("List", request, passkeys_pb2.PasskeysListResponse())
    terminal = Terminal()
    rows = [
        {
            "id": passkey.credential_id,
            "name": passkey.name,
            "created": f"{passkey.created_at.ToDatetime():%Y-%m-%d %H:%M}Z",
            "used": f"{passkey.used_at.ToDatetime():%Y-%m-%d %H:%M}Z"
            if passkey.HasField("used_at")
            else "never",
        }
        for passkey in answer.passkeys
    ]
    if style is OutputFormat.JSON:
        terminal.json({"passkeys": rows})
    elif rows:
        terminal.table(("id", "name", "created", "used"), [tuple(row.values()) for row in rows])
    else:
        terminal.line(f"{person} has no passkey.")


def remove_passkey(
    *,
    person: Person,
    passkey: Id = "",
    everything: Annotated[
        bool, typer.Option("--all", help="Remove all passkeys of the person.")
    ] = False,
    address: Address = ADMIN,
    style: Format = OutputFormat.TEXT,
) -> None:
    """Remove a passkey of a person, for example of a lost device."""
    issuer, sub = _split(person)
    if everything == bool(passkey):
        raise UsageError(
            "name the passkey to remove, or give --all; authz approval passkeys shows ids"
        )
    request = passkeys_pb2.PasskeysRemoveRequest(issuer=issuer, sub=sub, credential_id=passkey)
    answer = Remote(address).passkeys("Remove", request, passkeys_pb2.PasskeysRemoveResponse())
    terminal = Terminal()
    if style is OutputFormat.JSON:
        terminal.json({"removed": answer.removed})
    else:
        terminal.line(f"removed {answer.removed} passkeys of {person}")


def _split(person: str) -> tuple[str, str]:
    issuer, slash, sub = person.partition("/")
    if not slash or not issuer or not sub:
        raise UsageError(f"{person}: write the person as ISSUER/SUB, for example corp/alice")
    return issuer, sub
