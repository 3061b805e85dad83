"""`authz schema`: print a schema, for editors and for tools of Cedar."""

import json
from pathlib import Path
from typing import Annotated

import typer

from authz.bundle import read_folder
from authz.cli.options import Vars, offline_variables
from authz.cli.render import Terminal
from authz.config import json_schema
from authz.engine import Plan, bundle_schema, case_schema
from authz.errors import UsageError

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the verb to the command."""
    app.command(
        "schema",
        epilog="Example: authz schema cedar examples/quickstart/bundle > bundle.cedarschema",
    )(schema)


def schema(
    *,
    what: Annotated[
        str, typer.Argument(help="Schema of: bundle, case, config, or cedar.")
    ] = "bundle",
    folder: Annotated[
        Path | None,
        typer.Argument(help="With `cedar`: folder of the bundle.", file_okay=False),
    ] = None,
    format_: Annotated[
        str,
        typer.Option("--format", help="With `cedar`: text (Cedar's own syntax) or json."),
    ] = "text",
    var: Vars = None,
) -> None:
    """Print the JSON Schema of bundle files, case files or configuration, for editors; or the Cedar schema of a bundle, with which stock tools of Cedar check and complete its policies."""
    terminal = Terminal()
    if what == "cedar":
        _cedar(terminal, folder, format_, var)
        return
    if folder is not None or format_ != "text":
        raise UsageError(f"`authz schema {what}` takes no folder and no --format")
    if what == "config":
        terminal.json(json_schema())
    elif what in {"bundle", "case"}:
        print((bundle_schema() if what == "bundle" else case_schema()).rstrip())
    else:
        raise UsageError(f"no schema `{what}`: bundle, case, config or cedar")


def _cedar(terminal: Terminal, folder: Path | None, format_: str, var: list[str] | None) -> None:
    if folder is None:
        raise UsageError("give the folder of the bundle: authz schema cedar BUNDLE")
    if format_ not in {"text", "json"}:
        raise UsageError(f"--format {format_}: text or json")
    files = read_folder(folder)
    plan = Plan.compile(files, offline_variables(files, var, terminal.note))
    if format_ == "json":
        terminal.json(json.loads(plan.cedar_schema(as_json=True)))
    else:
        print(plan.cedar_schema().rstrip())
