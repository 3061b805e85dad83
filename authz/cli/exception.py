"""`authz exception …`: shows standing exceptions and their uses, and opens break-glass."""

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from pydantic import TypeAdapter, ValidationError

from authz.bundle import read_folder
from authz.cli.options import ADMIN, Address, Format, OutputFormat, Vars, offline_variables
from authz.cli.render import Terminal
from authz.cli.render.exceptions import breakglass_json, breakglass_rows, exception_rows
from authz.config.types import Duration
from authz.engine import Plan
from authz.errors import ApiError, GrpcCode, UsageError
from authz.tools.remote import Remote
from authz_client.v1 import admin_pb2

__all__ = ["register"]

_COLUMNS: Final = ("exception", "for", "owner", "ticket", "left")
_USES: Final = ("uses since start", "last use")
_BREAKGLASS: Final = (
    "break-glass",
    "status",
    "for",
    "opened by",
    "confirmed by",
    "ticket",
    "until",
)
_MOST_SECONDS: Final = 3600

BreakglassId = Annotated[
    str, typer.Argument(metavar="ID", help="Id of the request, as `authz exception list` shows it.")
]


def register(app: typer.Typer) -> None:
    """Add the group of verbs to the command."""
    group = typer.Typer(
        name="exception",
        help="Show standing exceptions and their uses; open, confirm and end break-glass.",
        no_args_is_help=True,
    )
    group.command("list")(list_exceptions)
    group.command(
        "breakglass",
        epilog="Example: authz exception breakglass --system erp --for 30m --ticket INC-7 --reason 'the ledger is down'",
    )(breakglass)
    group.command("confirm")(confirm)
    group.command("end")(end)
    app.add_typer(group)


def list_exceptions(
    *,
    bundle: Annotated[
        Path | None,
        typer.Option(
            "--bundle", help="Folder of a bundle to read instead of a node.", file_okay=False
        ),
    ] = None,
    var: Vars = None,
    address: Address = ADMIN,
    style: Format = OutputFormat.TEXT,
) -> None:
    """List the standing exceptions of a node with their uses, or those of a bundle.

    The exception that expires first comes first. Of a node, requests for break-glass follow: open, in force, and ended during
    the last day.
    """
    terminal = Terminal()
    requests: list[dict[str, Any]] = []
    if bundle is None:
        remote = Remote(address)
        detail = json.loads(remote.status().detail_json)
        entries = list((detail.get("engine") or {}).get("exceptions") or ())
        requests = _requests(remote)
    else:
        files = read_folder(bundle)
        plan = Plan.compile(files, offline_variables(files, var, terminal.note))
        entries = [asdict(exception) for exception in plan.exceptions]
    entries = sorted(entries, key=lambda entry: (entry["expires_ms"], entry["name"]))
    if style is OutputFormat.JSON:
        terminal.json([*entries, *requests])
        return
    if entries:
        columns = _COLUMNS if bundle is not None else (*_COLUMNS, *_USES)
        terminal.table(columns, exception_rows(entries, time.time()))
    else:
        terminal.line("no standing exceptions")
    if requests:
        terminal.table(_BREAKGLASS, breakglass_rows(requests))


def breakglass(
    *,
    system: Annotated[str, typer.Option(help="System whose calls it is for.")],
    time_in_force: Annotated[
        str,
        typer.Option(
            "--for",
            metavar="DURATION",
            help="Time for which it is in force, from the confirmation, for example 30m. At most 60m.",
        ),
    ],
    reason: Annotated[str, typer.Option(help="Reason, for audit records.")],
    ticket: Annotated[str, typer.Option(help="Ticket in which the emergency is handled.")],
    agent: Annotated[
        str, typer.Option(help="SPIFFE id of the only agent that it is for. Default: all callers.")
    ] = "",
    address: Address = ADMIN,
    style: Format = OutputFormat.TEXT,
) -> None:
    """Open a request for break-glass: an emergency exception for the calls at one system, up to tier high.

    The user who runs the command must be a person of `approvals.people`. Another person confirms the request within 15 minutes.
    """
    request = admin_pb2.OpenBreakglassRequest(
        system=system,
        agent=agent,
        duration_seconds=_duration(time_in_force),
        reason=reason,
        ticket=ticket,
    )
    answer = Remote(address).open_breakglass(request)
    terminal = Terminal()
    if style is OutputFormat.JSON:
        terminal.json({**breakglass_json(answer.breakglass), "operations": list(answer.operations)})
        return
    opened = answer.breakglass
    until = f"{opened.confirm_before.ToDatetime():%H:%M}Z"
    terminal.line(
        f"opened {opened.id}; it is in force once another person confirms it, until {until}"
    )
    terminal.line(f"  authz exception confirm {opened.id}")
    if not answer.operations:
        _warn_unread(terminal, system)


def confirm(
    *, breakglass_id: BreakglassId, address: Address = ADMIN, style: Format = OutputFormat.TEXT
) -> None:
    """Confirm a request for break-glass: it is in force from now on.

    The user who runs the command must be a person of `approvals.people`, and not the person who opened the request.
    """
    answer = Remote(address).confirm_breakglass(breakglass_id)
    terminal = Terminal()
    if style is OutputFormat.JSON:
        terminal.json({**breakglass_json(answer.breakglass), "operations": list(answer.operations)})
        return
    confirmed = answer.breakglass
    who = confirmed.agent or "all callers"
    until = f"{confirmed.ends_at.ToDatetime():%Y-%m-%d %H:%M}Z"
    terminal.line(f"break-glass is in force at {confirmed.system} for {who} until {until}")
    terminal.line(f"  end it with: authz exception end {confirmed.id}")
    if not answer.operations:
        _warn_unread(terminal, confirmed.system)


def end(
    *, breakglass_id: BreakglassId, address: Address = ADMIN, style: Format = OutputFormat.TEXT
) -> None:
    """End break-glass before its time, or withdraw a request for it."""
    ended = Remote(address).end_breakglass(breakglass_id).breakglass
    terminal = Terminal()
    if style is OutputFormat.JSON:
        terminal.json(breakglass_json(ended))
    else:
        terminal.line(f"break-glass {ended.id} at {ended.system} has ended")


def _requests(remote: Remote) -> list[dict[str, Any]]:
    """Return the requests for break-glass of a node; none of a node that does not have them."""
    try:
        return [breakglass_json(one) for one in remote.list_breakglass().breakglass]
    except ApiError as error:
        if error.grpc_code == GrpcCode.UNIMPLEMENTED:
            return []
        raise


def _duration(text: str) -> int:
    """Read `--for`, in seconds.

    Raises:
        UsageError: The text is not a duration, or is too long.
    """
    try:
        seconds = TypeAdapter(Duration).validate_python(text)
    except ValidationError as error:
        message = f"--for: {error.errors()[0]['msg']}"
        raise UsageError(message) from error
    if not 1 <= seconds <= _MOST_SECONDS:
        message = f"--for {text}: break-glass is in force for at most 60 minutes"
        raise UsageError(message)
    return int(seconds)


def _warn_unread(terminal: Terminal, system: str) -> None:
    terminal.note(
        f"warning: no policy of the bundle reads exception breakglass for {system}, so it permits nothing."
    )
    terminal.note("A policy accepts it so, for example:")
    terminal.note(
        f'  permit (principal in Role::"operator", action in Action::"system:{system}", resource)'
    )
    terminal.note('  when { context.exception.contains(Exception::"breakglass") };')
