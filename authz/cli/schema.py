"""`authz schema`: print a JSON Schema, for editors."""

from typing import Annotated

import typer

from authz.cli.render import Terminal
from authz.config import json_schema
from authz.engine import bundle_schema, case_schema
from authz.errors import UsageError

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the verb to the command."""
    app.command("schema")(schema)


def schema(
    *,
    what: Annotated[str, typer.Argument(help="Schema of: bundle, case or config.")] = "bundle",
) -> None:
    """Print a JSON Schema, for editors."""
    terminal = Terminal()
    if what == "config":
        terminal.json(json_schema())
    elif what in {"bundle", "case"}:
        print((bundle_schema() if what == "bundle" else case_schema()).rstrip())
    else:
        raise UsageError(f"no schema `{what}`: bundle, case or config")
