"""`authz fmt`: format Cedar files."""

from pathlib import Path
from typing import Annotated, Final

import typer

from authz.cli.render import CommandExit, Terminal
from authz.engine import format_policy
from authz.errors import UsageError

__all__ = ["register"]

_WOULD_CHANGE: Final = 2


def register(app: typer.Typer) -> None:
    """Add the verb to the command."""
    app.command("fmt")(fmt)


def fmt(
    *,
    paths: Annotated[list[Path], typer.Argument(help="Cedar files, or folders of them.")],
    only_check: Annotated[
        bool, typer.Option("--check", help="Write nothing. Exit code 2 if a file is not formatted.")
    ] = False,
) -> None:
    """Format Cedar files in place."""
    terminal = Terminal()
    changed = 0
    for path in paths:
        if not path.exists():
            raise UsageError(f"{path} does not exist")
        for file in sorted(path.rglob("*.cedar")) if path.is_dir() else [path]:
            text = file.read_text()
            formatted = format_policy(text, str(file))
            if formatted == text:
                continue
            changed += 1
            terminal.line(f"{'would change' if only_check else 'formatted'} {file}")
            if not only_check:
                file.write_text(formatted)
    if only_check and changed:
        raise CommandExit(_WOULD_CHANGE)
