"""`authz init`: write a bundle to start from."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Final

import typer

from authz.cli.render import Terminal
from authz.tools.scaffold import write_template

__all__ = ["register"]

_OBSERVED_DAYS: Final = 30


def register(app: typer.Typer) -> None:
    """Add the verb to the command."""
    app.command("init")(init)


def init(
    *,
    folder: Annotated[Path, typer.Argument(help="Folder to create.", file_okay=False)] = Path(
        "bundle"
    ),
    enforce: Annotated[
        bool, typer.Option("--enforce", help="Enforce denials from the start.")
    ] = False,
    full: Annotated[
        bool,
        typer.Option(
            "--full",
            help="Write a larger bundle: tasks, routes, resources, tiers, sequences and budgets, too.",
        ),
    ] = False,
) -> None:
    """Write a bundle to start from: people, systems, a policy and their tests. For 30 days it observes: denials are recorded and not enforced."""
    terminal = Terminal()
    until = None if enforce else datetime.now(UTC).date() + timedelta(days=_OBSERVED_DAYS)
    written = write_template(folder, until, full=full)
    for file in sorted(written):
        terminal.line(str(file))
    if until is not None:
        terminal.note(
            f"The bundle observes until {until}: denials are recorded, and the calls pass. Write its owner into "
            f"{written[0]}. `authz init --enforce` enforces from the start."
        )
    terminal.note(
        f"Next: authz check {folder}   find mistakes, each with file, line and fix\n"
        f"      authz test {folder}    run the bundle's own tests\n"
        f"      authz can {folder}     show who can do what\n"
        f"      authz keys make dev --bundle {folder}   keys and a configuration to serve it here"
    )
