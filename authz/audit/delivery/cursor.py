"""Cursor of a sink: how far a log was delivered. It is a file beside the log that is replaced whole, after the sink acknowledged."""

import hashlib
from dataclasses import field
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from authz.audit.erasable import covered
from authz.files import replace_file

__all__ = ["Cursor", "Gap", "Mark", "Pending", "Position", "cursor_path", "line_digest"]

MAX_GAPS: Final = 20
"""Gaps that are kept, of all that are counted."""
MAX_MARKS: Final = 16
"""Marks of a file that are kept."""
_VERSION: Final = 1


@dataclass(slots=True)
class Mark:
    """End of a batch that was delivered, and its last line, by which the file is known again."""

    end: int
    """Offset after its last line."""
    length: int
    """Length of its last line, with the line feed."""
    digest: str
    """Digest of that line."""

    @staticmethod
    def of(end: int, line: bytes) -> "Mark":
        """Return the mark of a line with its line feed."""
        return Mark(end, len(line), line_digest(line))

    def holds(self, line: bytes) -> bool:
        """Return whether a line is the marked one."""
        return line_digest(line) == self.digest


def line_digest(line: bytes) -> str:
    """Return the digest by which a line is known again, in hex: texts that can be erased do not count."""
    return hashlib.sha256(covered(line)).hexdigest()


@dataclass(slots=True)
class Position:
    """How far one file was delivered."""

    id: str
    """Digest of the first line of the file, without its line feed."""
    name: str
    """Last known name of the file."""
    began_at: str
    """Timestamp of its first record."""
    offset: int = 0
    """Bytes that were delivered."""
    seen: int = 0
    """Bytes of whole lines that were counted."""
    seen_lines: int = 0
    """Lines between `offset` and `seen`."""
    known: int = 0
    """Bytes that hold records, as far as is known."""
    is_chained: bool = False
    """Whether its lines are chained, so that a missing one is noticed by its place."""
    is_ended: bool = False
    """Whether the log went on in another file, and every line of this one was delivered."""
    marks: list[Mark] = field(default_factory=list)
    """Ends of batches that were delivered, the last one last."""


@dataclass(slots=True)
class Pending:
    """A batch that is being sent. After a crash the same bytes are sent again, under the same name."""

    id: str
    """The file."""
    start: int
    """Offset of its first byte."""
    end: int
    """Offset after its last byte."""
    digest: str
    """SHA-256 of its bytes, in hex."""


@dataclass(slots=True)
class Gap:
    """Records that could not be delivered, because they were gone."""

    at: str
    """Time at which the gap was found: RFC 3339, UTC."""
    text: str
    """Description of the missing records."""
    records: int | None
    """Number of records; None if it is not known."""


@dataclass(slots=True)
class Cursor:
    """How far a log was delivered to one sink."""

    version: int = _VERSION
    positions: list[Position] = field(default_factory=list)
    """Files of the log, in the order of delivery."""
    pending: Pending | None = None
    """The batch that is being sent."""
    place: tuple[int, int] | None = None
    """Segment and index of the last chained record that was delivered."""
    heads: Mark | None = None
    """End of the delivered part of the file of heads."""
    head: tuple[int, int] | None = None
    """Segment and count of the newest head that was delivered."""
    delivered_records: int = 0
    """Records that were delivered, repetitions included."""
    delivered_at: str = ""
    """Timestamp of the newest record that was delivered."""
    gap_count: int = 0
    """Gaps that were found."""
    lost_records: int = 0
    """Records that are known to be missing."""
    told: int = 0
    """Chained records that were told as missing when their file was removed, so that their places are not told again."""
    gaps: list[Gap] = field(default_factory=list)
    """The last gaps."""

    @property
    def heads_offset(self) -> int:
        """Bytes of the file of heads that were delivered."""
        return self.heads.end if self.heads is not None else 0

    @staticmethod
    def read(path: Path) -> "Cursor | None":
        """Read a cursor; None if there is none.

        Raises:
            OSError: The file cannot be read.
            ValueError: It is not a cursor.
        """
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        try:
            cursor = _CURSOR.validate_json(content, strict=False)
        except ValidationError as error:
            raise ValueError(f"{path} is not a cursor of this version") from error
        if cursor.version != _VERSION:
            raise ValueError(f"{path} is a cursor of another version")
        return cursor

    def write(self, path: Path) -> None:
        """Replace the file, durably.

        Raises:
            OSError: It cannot be written; then it stays as it was.
        """
        aside = path.with_name(path.name + ".new")
        replace_file(path, _CURSOR.dump_json(self), mode=0o600, aside=aside)

    def note_gap(self, gap: Gap) -> None:
        """Count a gap."""
        self.gap_count += 1
        self.lost_records += gap.records or 0
        self.gaps = [*self.gaps, gap][-MAX_GAPS:]


_CURSOR: Final = TypeAdapter(Cursor)


def cursor_path(log: Path, sink: str) -> Path:
    """Return the path of the cursor of a sink.

    Args:
        log: The audit file.
        sink: Name of the sink.
    """
    return log.with_name(f"{log.name}.sink-{sink}")
