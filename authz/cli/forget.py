"""`authz forget …`: forget labels that outlive their tasks."""

from typing import Annotated

import typer

from authz.cli.options import ADMIN, Address, Format, OutputFormat
from authz.cli.render import Terminal
from authz.tools.remote import Remote
from authz_client.v1 import admin_pb2

__all__ = ["register"]


Agent = Annotated[str, typer.Argument(help="SPIFFE id of the agent.")]

Collection = Annotated[str, typer.Argument(help="Collection of the bundle.")]

Why = Annotated[str, typer.Option(help="Reason, for the audit record.")]

Denials = Annotated[
    bool,
    typer.Option(
        "--denials",
        help="Also forget denials and completed rules, and let the agent start tasks again after its denials ended one.",
    ),
]


def register(app: typer.Typer) -> None:
    """Add the group of verbs to the command."""
    group = typer.Typer(help="Forget labels that outlive their tasks.", no_args_is_help=True)
    for verb in (forget_agent, forget_pair, forget_collection, forget_object):
        group.command(
            verb.__name__.removeprefix("forget_"),
            epilog="Example: authz forget pair spiffe://corp.example/ns/support/sa/bot corp/alice --reason 'reviewed'",
        )(verb)
    app.add_typer(group, name="forget")


def forget_agent(
    *,
    agent: Agent,
    reason: Why,
    denials: Denials = False,
    address: Address = ADMIN,
    style: Format = OutputFormat.TEXT,
) -> None:
    """Forget the labels that an agent carries, for all subjects."""
    request = admin_pb2.ForgetRequest(agent=agent, reason=reason, denials=denials)
    _forget(request, f"agent {agent}", address, style)


def forget_pair(
    *,
    agent: Agent,
    subject: Annotated[
        str,
        typer.Argument(
            help="Subject as ISSUER/SUB, with the issuer's alias. Default: the agent acting for itself."
        ),
    ] = "",
    reason: Why,
    denials: Denials = False,
    address: Address = ADMIN,
    style: Format = OutputFormat.TEXT,
) -> None:
    """Forget the labels that an agent carries for one subject."""
    pair = admin_pb2.Pair(agent=agent, subject=subject)
    request = admin_pb2.ForgetRequest(pair=pair, reason=reason, denials=denials)
    _forget(request, f"pair {agent} {subject}".rstrip(), address, style)


def forget_collection(
    *,
    collection: Collection,
    reason: Why,
    address: Address = ADMIN,
    style: Format = OutputFormat.TEXT,
) -> None:
    """Forget the labels of a collection and of all objects in it."""
    request = admin_pb2.ForgetRequest(collection=collection, reason=reason)
    _forget(request, f"collection {collection}", address, style)


def forget_object(
    *,
    collection: Collection,
    id_: Annotated[str, typer.Argument(metavar="ID", help="Id of the object.")],
    reason: Why,
    address: Address = ADMIN,
    style: Format = OutputFormat.TEXT,
) -> None:
    """Forget the labels of one object."""
    written = admin_pb2.WrittenObject(collection=collection, id=id_)
    request = admin_pb2.ForgetRequest(object=written, reason=reason)
    _forget(request, f"object {collection}/{id_}", address, style)


def _forget(request: admin_pb2.ForgetRequest, what: str, address: str, style: OutputFormat) -> None:
    answer = Remote(address).forget(request)
    terminal = Terminal()
    if style is OutputFormat.JSON:
        terminal.json({"target": what, "records": answer.records})
    else:
        terminal.line(f"forgot the labels of the {what}; {answer.records} records changed")
