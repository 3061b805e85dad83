"""Verbs about the configuration: config print, validate, schema."""

from typing import Annotated

import typer
import yaml

from authz.cli.options import ConfigFile, Sets, configuration
from authz.cli.show import Show
from authz.config import json_schema, redacted

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the verbs.

    Args:
        app: The command.
    """
    group = typer.Typer(help="Print or check the configuration.", no_args_is_help=True)
    group.command("print")(print_)
    group.command("validate")(validate)
    group.command("schema")(schema)
    app.add_typer(group, name="config")


def print_(
    *,
    config: ConfigFile = None,
    sets: Sets = None,
    output: Annotated[str, typer.Option("--output", "-o", help="yaml or json")] = "yaml",
) -> None:
    """Print the configuration that would serve, with defaults, without secrets."""
    shown = redacted(configuration(config, sets))
    if output == "json":
        Show().json(shown)
    else:
        print(yaml.safe_dump(shown, sort_keys=False, allow_unicode=True), end="")


def validate(*, config: ConfigFile = None, sets: Sets = None) -> None:
    """Check the configuration; exits with 3 where it is refused."""
    configuration(config, sets)
    Show().line("the configuration is well")


def schema() -> None:
    """Print the configuration's JSON Schema."""
    Show().json(json_schema())
