"""`authz bundle …`: prepare a bundle for its way to the nodes."""

from pathlib import Path

import typer
import yaml

from authz.bundle import MANIFEST, read_folder, seal_folder
from authz.cli.options import BundleFolder
from authz.cli.render import Terminal
from authz.errors import UsageError

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the group of verbs to the command."""
    group = typer.Typer(help="Prepare a bundle for its way to the nodes.", no_args_is_help=True)
    group.command("seal")(seal)
    group.command("values")(values)
    app.add_typer(group, name="bundle")


def seal(*, folder: BundleFolder) -> None:
    """Write MANIFEST.sha256, the list of the bundle's files and their SHA-256 digests. A node refuses a folder that differs from its manifest, for example a half-copied one, and keeps its bundle."""
    count = seal_folder(folder)
    Terminal().line(f"{Path(folder) / MANIFEST}: {count} files")


def values(*, folder: BundleFolder) -> None:
    """Print the bundle as values of the Helm chart: `helm upgrade … --values <(authz bundle values FOLDER)`."""
    files = {}
    for name, content in sorted(read_folder(folder).files.items()):
        try:
            files[name] = content.decode()
        except UnicodeDecodeError as error:
            raise UsageError(
                f"{folder}/{name}: not UTF-8, so it cannot be a value of the chart; use bundle.volume"
            ) from error
    print(yaml.safe_dump({"bundle": {"files": files}}, allow_unicode=True, width=10_000), end="")
