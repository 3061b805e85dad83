"""`authz exception …`: shows standing exceptions and their uses."""

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Final

import typer

from authz.bundle import read_folder
from authz.cli.options import ADMIN, Address, Output, Vars, offline_variables
from authz.cli.render import Terminal, exception_rows
from authz.engine import Plan
from authz.tools.remote import Remote

__all__ = ["register"]

_COLUMNS: Final = ("exception", "for", "owner", "ticket", "left")
_USES: Final = ("uses since start", "last use")


def register(app: typer.Typer) -> None:
    """Add the group of verbs to the command."""
    group = typer.Typer(
        name="exception",
        help="Show standing exceptions and their uses.",
        no_args_is_help=True,
    )
    group.command("list")(list_exceptions)
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
    output: Output = "text",
) -> None:
    """List the standing exceptions of a node with their uses, or those of a bundle.

    The exception that expires first comes first.
    """
    terminal = Terminal()
    if bundle is None:
        detail = json.loads(Remote(address).status().detail_json)
        entries = list((detail.get("engine") or {}).get("exceptions") or ())
    else:
        files = read_folder(bundle)
        plan = Plan.compile(files, offline_variables(files, var, terminal.note))
        entries = [asdict(exception) for exception in plan.exceptions]
    entries = sorted(entries, key=lambda entry: (entry["expires_ms"], entry["name"]))
    if output == "json":
        terminal.json(entries)
    elif entries:
        columns = _COLUMNS if bundle is not None else (*_COLUMNS, *_USES)
        terminal.table(columns, exception_rows(entries, time.time()))
    else:
        terminal.line("no standing exceptions")
