"""A whole audit log and its heads, as verbs of `authz audit` take them."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, TextIO

import typer

from authz.audit import HeadError, HeadKeys, Jwks, read, rotated, torn
from authz.audit.heads import read_head
from authz.audit.reader import open_log
from authz.cli.decision_log import LogSource
from authz.cli.options import read_text
from authz.errors import UsageError

__all__ = [
    "HeadOption",
    "HeadsOption",
    "KeysOption",
    "LogFiles",
    "NodeFiles",
    "ended_heads",
    "heads_file",
    "log_files",
    "node_files",
    "node_of",
    "other_heads",
    "private_file",
    "torn_files",
    "trusted_keys",
]

_MAX_HEAD: Final = 65_536

LogFiles = Annotated[
    list[Path] | None,
    typer.Option(
        "--log",
        metavar="FILE",
        help="File of the log, in any order. Default: the audit log of the node, with rotated files. Repeatable.",
        dir_okay=False,
    ),
]
HeadsOption = Annotated[
    Path | None,
    typer.Option(
        "--heads",
        help="File with the heads of ended segments. Default: the file beside the log that ends in `.heads`.",
        dir_okay=False,
    ),
]
HeadOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--head",
        metavar="FILE",
        help="A head that was kept elsewhere: the log must hold its lines. Default: the newest head of the node, beside the log. Repeatable.",
        dir_okay=False,
    ),
]
KeysOption = Annotated[
    Path | None,
    typer.Option(
        "--keys",
        help="Trusted keys of heads: a JSON Web Key Set. Without it signatures are not checked.",
        dir_okay=False,
    ),
]


def log_files(source: LogSource) -> list[Path]:
    """List all files of a log that exist."""
    if source.audit is None:
        return list(source.logs)
    return [file for file in rotated(source.audit, "", 0) if file.exists()]


def torn_files(source: LogSource) -> list[Path]:
    """List the files beside a log that hold lines that a crash left unfinished."""
    logs = [source.audit] if source.audit is not None else source.logs
    return [file for log in logs for file in torn(log)]


def heads_file(given: Path | None, source: LogSource) -> Path | None:
    """Return the file with the heads of ended segments: the one that was given, or the first one beside a file of the log."""
    return given or _first_beside(_audit_files(source), ".heads")


def other_heads(given: list[Path] | None, source: LogSource) -> list[str]:
    """Read the heads that were given, or the ones that the node keeps beside the files of the log."""
    if given is not None:
        return [read_text(file) for file in given]
    return _heads_beside(_audit_files(source))


@dataclass(frozen=True, slots=True)
class NodeFiles:
    """Log of one node, with its heads."""

    node: str
    """Name of the node; empty if no record of the files has one."""
    files: list[Path]
    """Files of the log."""
    ended: Path | None
    """File with the heads of ended segments."""
    heads: list[str]
    """Other heads, each in its stored form."""


def node_files(source: LogSource, heads: Path | None, head: list[Path] | None) -> list[NodeFiles]:
    """Divide the files of logs by the nodes that wrote them, since each node has a chain of its own.

    Args:
        source: Files that were given, or the log of a node.
        heads: Value of `--heads`.
        head: Values of `--head`.

    Raises:
        UsageError: `--heads` was given for the logs of several nodes, or a head cannot be read.
        UnavailableError: A file cannot be read.
    """
    by_node: dict[str, list[Path]] = {}
    unnamed: list[Path] = []
    for file in log_files(source):
        node = node_of(file)
        (by_node.setdefault(node, []) if node else unnamed).append(file)
    if len(by_node) <= 1:
        node = next(iter(by_node), "")
        files = log_files(source)
        return [NodeFiles(node, files, heads_file(heads, source), other_heads(head, source))]
    if heads is not None:
        raise UsageError("--heads is for the log of one node, and these are logs of several")
    given = [(_head_node(text), text) for text in (read_text(file) for file in head or ())]
    logs = []
    for node, files in sorted(by_node.items()):
        own = [text for of, text in given if of == node]
        others = own if head is not None else _heads_beside(files)
        logs.append(NodeFiles(node, files, _first_beside(files, ".heads"), others))
    if unnamed:
        logs.append(NodeFiles("", unnamed, None, []))
    return logs


def node_of(file: Path) -> str:
    """Return the node of the first record that names one."""
    for record in read(file, lambda _: None):
        labels = record.fields.get("labels")
        if isinstance(labels, dict) and isinstance(node := labels.get("id"), str) and node:
            return node
    return ""


def _head_node(text: str) -> str:
    try:
        return read_head(text.strip()).head.node
    except HeadError as error:
        raise UsageError(f"--head: {error}") from error


def _first_beside(files: list[Path], suffix: str) -> Path | None:
    beside = (file.with_name(file.name + suffix) for file in files)
    return next((file for file in beside if file.exists()), None)


def _heads_beside(files: list[Path]) -> list[str]:
    """Read the newest heads beside files, and those to which a log did not fit at a start of the node."""
    texts = []
    for file in files:
        own = file.with_name(f"{file.name}.head")
        kept = sorted(own.parent.glob(f"{own.name}.[0-9]*"))
        texts += [read_text(one) for one in (own, *kept) if one.exists()]
    return texts


def ended_heads(heads: Path | None) -> list[str]:
    """Read the heads of ended segments, each in its stored form. A missing file has none.

    Raises:
        UnavailableError: The file cannot be read.
    """
    if heads is None or not heads.exists():
        return []
    with open_log(heads) as stream:
        lines = iter(lambda: stream.readline(_MAX_HEAD), b"")
        return [text for line in lines if (text := line.decode(errors="replace").strip())]


def trusted_keys(keys: Path | None) -> HeadKeys | None:
    """Read the trusted keys of heads.

    Raises:
        UsageError: The file is not a key set.
    """
    if keys is None:
        return None
    try:
        return Jwks.parse(read_text(keys))
    except HeadError as error:
        raise UsageError(f"--keys {keys}: {error}") from error


def _audit_files(source: LogSource) -> list[Path]:
    """Return the audit file of a node, or the files that were given."""
    return [source.audit] if source.audit is not None else list(source.logs)


@contextmanager
def private_file(path: Path) -> Iterator[TextIO]:
    """Open a file for writing that only its owner can read. It replaces `path` at the end, if nothing failed."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            yield file
        Path(name).replace(path)
    except BaseException:
        with suppress(OSError):
            Path(name).unlink()
        raise
