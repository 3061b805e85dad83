"""`authz version`."""

import typer

from authz import __version__
from authz.cli.options import Format, OutputFormat
from authz.cli.render import Terminal
from authz.engine import build_profile

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the verb to the command."""
    app.command("version")(version)


def version(
    *,
    style: Format = OutputFormat.TEXT,
) -> None:
    """Print the version and the build profile of the engine."""
    if style is OutputFormat.JSON:
        Terminal().json({"version": __version__, "build_profile": build_profile()})
    else:
        Terminal().line(f"authz {__version__} ({build_profile()})")
