"""Reader of audit files: records in their order, of which it holds one at a time."""

import gzip
import json
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from authz.audit.erasable import restored
from authz.errors import UnavailableError
from authz.model import Diagnostic, Severity

__all__ = ["Lines", "Record", "open_log", "read", "read_stream"]

_MAX_LINE: Final = 1_048_576


class Lines(Protocol):
    """A stream that is read line by line."""

    def readline(self, size: int, /) -> bytes:
        """Read a line, but no more than `size` bytes."""


@dataclass(frozen=True, slots=True)
class Record:
    """One record."""

    line: int
    """Where it stands, from 1."""
    fields: Mapping[str, Any]
    """As written."""
    text: bytes = b""
    """The line, with its line feed."""

    @property
    def decision_id(self) -> str:
        """The decision's id; empty where it has none."""
        return str(self.fields.get("decision_id", ""))


def read(
    path: Path,
    damaged: Callable[[Diagnostic], None],
    wanted: Callable[[bytes], bool] = lambda _: True,
) -> Iterator[Record]:
    """Read every record of a file.

    Args:
        path: The audit file, or one that was rotated away; `.gz` is unpacked on the way.
        damaged: Receives each line that is not a record, such as the last one after a crash; reading goes on.
        wanted: Returns False for a line to leave out unread.

    Yields:
        Each record, oldest first.

    Raises:
        UnavailableError: The file cannot be read.
    """
    with open_log(path) as stream:
        yield from read_stream(stream, str(path), damaged, wanted)


@contextmanager
def open_log(path: Path) -> Iterator[Lines]:
    """Open an audit file, or one that was rotated away.

    Args:
        path: The file; `.gz` is unpacked on the way.

    Raises:
        UnavailableError: The file cannot be read.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
            yield stream
    except (OSError, EOFError, zlib.error) as error:
        what = getattr(error, "strerror", None) or "it is not a complete gzip file"
        raise UnavailableError(f"{path} cannot be read: {what}") from error


def read_stream(
    stream: Lines,
    name: str,
    damaged: Callable[[Diagnostic], None],
    wanted: Callable[[bytes], bool] = lambda _: True,
) -> Iterator[Record]:
    """Read every record of an open stream.

    Args:
        stream: Lines of the audit.
        name: Name of the stream in messages.
        damaged: Receives each line that is not a record.
        wanted: Returns False for a line to leave out unread.

    Yields:
        Each record, oldest first.
    """

    def defect(number: int, what: str) -> None:
        fix = "The records around it are unaffected."
        damaged(Diagnostic(what, name, number, fix=fix, severity=Severity.WARNING))

    number = 0
    while line := stream.readline(_MAX_LINE + 1):
        number += 1
        if not line.endswith(b"\n"):
            if len(line) > _MAX_LINE:
                _skip(stream.readline)
                defect(number, "longer than 1 MiB.")
            else:
                defect(number, "the last record was not written whole.")
            continue
        if not wanted(line):
            continue
        if (record := _record(line)) is None:
            defect(number, "not a record.")
        else:
            yield Record(number, record, line)


def _record(line: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict):
        return None
    return restored(value) if b'"salted:' in line else value


def _skip(readline: Callable[[int], bytes]) -> None:
    while (rest := readline(_MAX_LINE)) and not rest.endswith(b"\n"):
        pass
