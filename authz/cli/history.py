"""Where the decisions come from that a verb looks back on: files, standard input, a configuration, or a running node."""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from authz.audit import Lines, Past, Span, decisions, rotated
from authz.bundle import read_folder
from authz.cli.options import configuration, offline_variables, variables
from authz.cli.show import Show
from authz.errors import UsageError
from authz.model import BundleFiles, Diagnostic
from authz.tools.remote import Remote

__all__ = [
    "ADMIN",
    "Address",
    "BundleOption",
    "Logs",
    "Since",
    "Source",
    "Until",
    "bundle_of",
    "history",
    "source_of",
]

ADMIN: Final = "unix:///run/authz/admin.sock"
"""Where a node is administered, unless it is told otherwise."""
_SHOWN: Final = 20

Logs = Annotated[
    list[str] | None,
    typer.Option(
        "--log",
        metavar="FILE",
        help="A file of the audit, oldest first; `-`: standard input. Else the node's, with what was rotated away. Repeatable.",
    ),
]
Since = Annotated[
    str, typer.Option("--since", help="15m, 24h, 7d, a date or a moment; else from the beginning.")
]
Until = Annotated[str, typer.Option("--until", help="The same; else to the end.")]
BundleOption = Annotated[
    Path | None,
    typer.Option("--bundle", "-b", help="Folder of the bundle; else the node's.", file_okay=False),
]
Address = Annotated[
    str,
    typer.Option(
        "--admin",
        envvar="AUTHZ_ADMIN",
        help="The administration socket: a node that tells where its audit and bundle are.",
    ),
]


@dataclass(frozen=True, slots=True)
class Source:
    """Where decisions are recorded."""

    logs: tuple[Path, ...] = ()
    """Files that were named."""
    stdin: bool = False
    """Standard input is read too."""
    audit: Path | None = None
    """The audit file of a node, where none was named."""
    bundle: Path | None = None
    """Folder of the node's bundle, if a node is known."""
    variables: tuple[tuple[str, str], ...] = ()
    """Values of `${…}` in that bundle."""

    @property
    def name(self) -> str:
        """What it is called in messages."""
        named = [str(path) for path in self.logs] + (["standard input"] if self.stdin else [])
        return ", ".join(named) or str(self.audit)


def source_of(
    logs: list[str] | None, config: Path | None, sets: list[str] | None, address: str
) -> Source:
    """Find out where decisions are recorded.

    Args:
        logs: Values of `--log`.
        config: The configuration file; with it no node is asked.
        sets: Values of `--set`.
        address: The administration socket, which is asked where nothing else is said.

    Returns:
        The source.

    Raises:
        UsageError: A file is named twice, or the node keeps no audit.
        ConfigError: The configuration is refused.
        UnavailableError: The node cannot be reached.
    """
    bundle: Path | None = None
    named: tuple[tuple[str, str], ...] = ()
    audit: str | None = None
    if config is not None or sets:
        node = configuration(config, sets)
        bundle, named, audit = Path(node.bundle.path), tuple(node.vars.items()), node.audit.path
    if logs:
        if len(set(logs)) != len(logs):
            raise UsageError("--log names a file twice")
        files = tuple(Path(name) for name in logs if name != "-")
        return Source(files, stdin="-" in logs, bundle=bundle, variables=named)
    if bundle is None:
        detail: dict[str, Any] = json.loads(Remote(address).status().detail_json)
        files_of = detail.get("files") or {}
        audit = files_of.get("audit")
        bundle = Path(files_of["bundle"]) if "bundle" in files_of else None
    if not audit:
        raise UsageError("the node does not say where its audit is; say --log FILE")
    return Source(audit=Path(audit), bundle=bundle, variables=named)


def history(show: Show, source: Source, within: Span) -> Iterator[Past]:
    """Read decisions; lines that are no records are told on the way.

    Args:
        show: Tells.
        source: Where they are recorded.
        within: Others are left out.

    Yields:
        Each decision, in the order of its record.

    Raises:
        UnavailableError: A file cannot be read.
    """
    damaged = 0

    def tell(diagnostic: Diagnostic) -> None:
        nonlocal damaged
        damaged += 1
        if damaged <= _SHOWN:
            show.diagnostics([diagnostic])

    files = rotated(source.audit, within.since) if source.audit is not None else [*source.logs]
    stdin: Lines | None = sys.stdin.buffer if source.stdin else None
    yield from decisions(files, stdin, within, tell)
    if damaged > _SHOWN:
        show.note(f"{damaged} lines are no records")


def bundle_of(
    show: Show, folder: Path | None, source: Source, var: list[str] | None
) -> tuple[BundleFiles | None, dict[str, str]]:
    """Read a bundle, with something for each variable that has no value.

    Args:
        show: Tells what stands in.
        folder: The folder; none: no bundle.
        source: Where a node's variables are.
        var: Values of `--var`.

    Returns:
        The files, if there is a folder, and the values.

    Raises:
        BundleError: The folder cannot be read.
    """
    if folder is None:
        return None, {}
    files = read_folder(folder)
    named = {**dict(source.variables), **variables(var)}
    said = [f"{name}={value}" for name, value in named.items()]
    return files, offline_variables(files, said, show.note)
