"""`authz bundle …`: prepare a bundle for its way to the nodes."""

from pathlib import Path

import typer

from authz.bundle import MANIFEST, seal_folder
from authz.cli.options import BundleFolder
from authz.cli.render import Terminal

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the group of verbs to the command."""
    group = typer.Typer(help="Prepare a bundle for its way to the nodes.", no_args_is_help=True)
    # A callback keeps the group a group: typer makes a group of one verb that verb.
    group.callback()(lambda: None)
    group.command("seal")(seal)
    app.add_typer(group, name="bundle")


def seal(*, folder: BundleFolder) -> None:
    """Write MANIFEST.sha256, the list of the bundle's files and their SHA-256 digests. A node refuses a folder that differs from its manifest, for example a half-copied one, and keeps its bundle."""
    count = seal_folder(folder)
    Terminal().line(f"{Path(folder) / MANIFEST}: {count} files")
