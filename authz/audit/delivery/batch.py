"""Batches: whole lines of a log, byte for byte, with a name that follows from their place and content."""

import hashlib
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

__all__ = ["Batch", "BatchKind", "file_name", "place_name"]

_NEVER_IN_NAMES: Final = re.compile(r"[^0-9A-Za-z.]")


class BatchKind(StrEnum):
    """Kind of the lines of a batch."""

    RECORDS = "records"
    HEADS = "heads"


@dataclass(frozen=True, slots=True)
class Batch:
    """Lines that are delivered together."""

    kind: BatchKind
    """Records or heads."""
    name: str
    """Name, with a slash. The same lines always have the same name, and names of one log sort in the order of the lines."""
    content: bytes
    """The lines, each with its line feed."""
    count: int
    """Number of lines."""
    first: tuple[int, int] | None = None
    """Segment and index of the first record; of heads, segment and count of the first one. None without a chain."""
    last: tuple[int, int] | None = None
    """Segment and index of the last record; of heads, segment and count of the last one. None without a chain."""
    first_at: str = ""
    """Timestamp of the first record; empty if it has none."""
    last_at: str = ""
    """Timestamp of the last record."""
    is_whole: bool = True
    """Whether nothing can be added: it has its full size, or its file or segment ended. Heads never wait."""
    position: str = ""
    """Id of the file of records."""
    start: int = 0
    """Offset of the first byte in its file."""
    end: int = 0
    """Offset after the last byte in its file."""

    @property
    def digest(self) -> str:
        """SHA-256 of the content, in hex."""
        return hashlib.sha256(self.content).hexdigest()

    def lines(self) -> list[bytes]:
        """Return the lines without their line feeds."""
        return self.content.split(b"\n")[:-1]


def place_name(kind: BatchKind, first: tuple[int, int], digest: str) -> str:
    """Name a batch of a chained log.

    The digest keeps a log that was begun anew from replacing what was delivered of the old one.

    Args:
        kind: Records or heads.
        first: Segment and index of its first line.
        digest: SHA-256 of its content, in hex.
    """
    return f"{kind}/segment-{first[0]:010}/{first[1]:012}-{digest[:16]}.ndjson"


def file_name(began_at: str, file: str, start: int, digest: str) -> str:
    """Name a batch of records without a chain.

    Args:
        began_at: Timestamp of the first record of the file.
        file: Id of the file.
        start: Offset of its first byte in the file.
        digest: SHA-256 of its content, in hex.
    """
    began = _NEVER_IN_NAMES.sub("", began_at) or "0"
    return f"{BatchKind.RECORDS}/file-{began}-{file[:16]}/{start:015}-{digest[:16]}.ndjson"
