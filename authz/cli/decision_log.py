"""Sources of recorded decisions: files, standard input, a configuration, or a running node."""

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from authz.audit import (
    Lines,
    ReadCounts,
    Record,
    RecordedDecision,
    Span,
    decision_records,
    rotated,
)
from authz.bundle import read_folder, with_stand_ins
from authz.cli.options import configuration, variables
from authz.cli.render import Terminal
from authz.errors import UsageError
from authz.model import BundleFiles, Diagnostic
from authz.tools.remote import Remote

__all__ = [
    "BundleOption",
    "Damage",
    "LogSource",
    "Logs",
    "Since",
    "Until",
    "history",
    "log_source",
    "read_bundle",
    "record_history",
]


_SHOWN: Final = 20

Logs = Annotated[
    list[str] | None,
    typer.Option(
        "--log",
        metavar="FILE",
        help="Audit file, or `-` for standard input; of several, oldest first. Default: the audit log of the node, with rotated files. Repeatable.",
    ),
]

Since = Annotated[
    str,
    typer.Option(
        "--since",
        help="Start: 15m, 24h or 7d ago, a date or a timestamp. Default: the first record.",
    ),
]

Until = Annotated[
    str, typer.Option("--until", help="End, in the same form. Default: the last record.")
]

BundleOption = Annotated[
    Path | None,
    typer.Option(
        "--bundle", "-b", help="Folder of the bundle. Default: that of the node.", file_okay=False
    ),
]


@dataclass(frozen=True, slots=True)
class LogSource:
    """Files and bundle that recorded decisions are read from."""

    logs: tuple[Path, ...] = ()
    """Files given by `--log`."""
    stdin: bool = False
    """`--log -` was given."""
    audit: Path | None = None
    """The audit file of a node; None with `--log`."""
    bundle: Path | None = None
    """Folder of the node's bundle; None with `--log` alone."""
    variables: tuple[tuple[str, str], ...] = ()
    """Values of `${…}` in that bundle."""

    def files(self, since: str) -> list[Path]:
        """List the files, oldest first; of a node, those that were written to since a timestamp.

        Raises:
            UnavailableError: The folder of the audit file cannot be read.
        """
        return rotated(self.audit, since) if self.audit is not None else [*self.logs]

    @property
    def name(self) -> str:
        """Name for messages."""
        names = [str(path) for path in self.logs] + (["standard input"] if self.stdin else [])
        return ", ".join(names) or str(self.audit)


def log_source(
    logs: list[str] | None, config: Path | None, sets: list[str] | None, address: str
) -> LogSource:
    """Choose where decisions are read: `--log` files, else the audit of a configuration, else that of a running node.

    Raises:
        UsageError: A file is named twice, or the node keeps no audit.
        ConfigError: The configuration is refused.
        UnavailableError: The node cannot be reached.
    """
    bundle: Path | None = None
    values: tuple[tuple[str, str], ...] = ()
    audit: str | None = None
    if config is not None or sets:
        node = configuration(config, sets)
        bundle, values, audit = Path(node.bundle.path), tuple(node.vars.items()), node.audit.path
    if logs:
        if len(set(logs)) != len(logs):
            raise UsageError("--log names a file twice")
        files = tuple(Path(name) for name in logs if name != "-")
        return LogSource(files, stdin="-" in logs, bundle=bundle, variables=values)
    if bundle is None:
        detail: dict[str, Any] = json.loads(Remote(address).status().detail_json)
        files_of = detail.get("files") or {}
        audit = files_of.get("audit")
        bundle = Path(files_of["bundle"]) if "bundle" in files_of else None
    if not audit:
        raise UsageError("the node does not tell the path of its audit file; give --log FILE")
    return LogSource(audit=Path(audit), bundle=bundle, variables=values)


def history(terminal: Terminal, source: LogSource, within: Span) -> Iterator[RecordedDecision]:
    """Read decisions in the order of their records, and report lines that are not valid records.

    Raises:
        UnavailableError: A file cannot be read.
    """
    for _, decision in record_history(terminal, source, within, ReadCounts(), Damage()):
        yield decision


@dataclass(slots=True)
class Damage:
    """Lines that are not valid records."""

    lines: int = 0
    """Number of decisions."""


def record_history(
    terminal: Terminal, source: LogSource, within: Span, counts: ReadCounts, damage: Damage
) -> Iterator[tuple[Record, RecordedDecision]]:
    """Read decisions with their records, and report lines that are not valid records.

    Args:
        terminal: Where damaged lines are reported.
        source: Files.
        within: Span of the decisions.
        counts: Numbers of records, which grow while the records are read.
        damage: Number of damaged lines, which grows, too.

    Raises:
        UnavailableError: A file cannot be read.
    """

    def tell(diagnostic: Diagnostic) -> None:
        damage.lines += 1
        if damage.lines <= _SHOWN:
            terminal.diagnostics([diagnostic])

    stdin: Lines | None = sys.stdin.buffer if source.stdin else None
    yield from decision_records(source.files(within.since), stdin, within, tell, counts)
    if damage.lines > _SHOWN:
        terminal.note(f"{damage.lines} lines are not valid records")


def read_bundle(
    terminal: Terminal, folder: Path, source: LogSource, var: Sequence[str] | None
) -> tuple[BundleFiles, dict[str, str]]:
    """Read the files of a bundle, and give each variable without a value a stand-in.

    Returns:
        The files, and the values by name.

    Raises:
        BundleError: The folder cannot be read.
    """
    files = read_folder(folder)
    values = {**dict(source.variables), **variables(var)}
    return files, with_stand_ins(files, values, terminal.note)
