"""Files of an audit log that is being written: which there are, in which order, and their bytes.

A file is known by its first line, not by its name: a log rotation renames, copies and compresses files. Records have unique ids, so two
files with the same first line are copies of each other, of which the longer one counts. Texts of the line that can be erased do not
count, and an erasure keeps the length of the file, so a sink goes on at its place.
"""

import gzip
import json
import os
import stat
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, Final, Protocol, cast

from authz.audit.chain import Link, read_link
from authz.audit.delivery.cursor import line_digest
from authz.audit.history import is_rotated_name

__all__ = ["LogFile", "LogFiles", "timestamp_of"]

MAX_LINE: Final = 16_777_216
"""Longest line that is read, in bytes."""
_FIRST_READ: Final = 16_384
_MAX_ORPHANS: Final = 4
"""Removed files that are kept open: they still take their space on the disk."""
_MAX_HELD: Final = 8
"""Moved files that are kept open. They can be opened by their names, but somebody may remove them."""
_PACKED: Final = ".gz"
_Key = tuple[int, int]


class Reader(Protocol):
    """Bytes of an open file."""

    def read(self, offset: int, size: int) -> bytes:
        """Read at most `size` bytes; fewer only at the end of the file."""

    def close(self) -> None:
        """Close the file."""


class _PlainReader:
    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)

    @property
    def status(self) -> os.stat_result:
        return os.fstat(self._descriptor)

    def read(self, offset: int, size: int) -> bytes:
        parts: list[bytes] = []
        while size > 0 and (part := os.pread(self._descriptor, min(size, 1 << 20), offset)):
            parts.append(part)
            offset += len(part)
            size -= len(part)
        return b"".join(parts)

    def close(self) -> None:
        os.close(self._descriptor)


class _PackedReader:
    def __init__(self, path: Path) -> None:
        self._stream = cast("BinaryIO", gzip.open(path))  # noqa: SIM115 - closed by `close`

    def read(self, offset: int, size: int) -> bytes:
        try:
            self._stream.seek(offset)
            return self._stream.read(size)
        except (EOFError, zlib.error) as error:
            raise OSError(f"not a complete gzip file: {error}") from error

    def close(self) -> None:
        self._stream.close()


@dataclass(frozen=True, slots=True)
class _First:
    """The first line of a file."""

    id: str
    at: str
    link: Link | None
    unpacked: int = 0
    """Estimated length of a compressed file, unpacked."""


@dataclass(frozen=True, slots=True)
class LogFile:
    """A file of the log that has at least one whole line."""

    id: str
    """Digest of its first line."""
    path: Path
    """Path, or the last one of a file that was removed while it was open."""
    size: int
    """Length in bytes; of a compressed file an estimate of the unpacked length."""
    began_at: str
    """Timestamp of its first record; empty if it has none."""
    link: Link | None
    """Place of its first line in the chain."""
    is_current: bool
    """Whether the node writes to it."""
    is_packed: bool
    """Whether it is compressed, so that it never grows."""
    key: _Key
    """Device and inode."""


class LogFiles:
    """Looks for the files of a log. It holds the file open that is being written, so that a removal loses nothing that was not read.

    Args:
        path: The audit file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._firsts: dict[tuple[int, int, int, int], _First | None] = {}
        self._held: dict[_Key, tuple[Path, _PlainReader]] = {}
        self._reader: tuple[_Key, Reader] | None = None

    def scan(self) -> list[LogFile]:
        """Return the files in the order in which they were written; the file that is being written is the last one.

        Raises:
            OSError: The folder cannot be read.
        """
        found: dict[str, LogFile] = {}
        firsts: dict[tuple[int, int, int, int], _First | None] = {}
        present: set[_Key] = set()
        for path in self._paths():
            try:
                status = path.lstat()
            except FileNotFoundError:
                continue
            if not stat.S_ISREG(status.st_mode):
                continue
            present.add((status.st_dev, status.st_ino))
            _add(found, self._look_at(path, status, firsts))
        self._firsts = firsts
        for file in self._orphans(present):
            _add(found, file)
        self._hold(found.values())
        self._let_go(present)
        return sorted(found.values(), key=_order)

    def reader(self, file: LogFile) -> Reader:
        """Return the bytes of a file.

        Raises:
            OSError: It cannot be opened.
        """
        held = self._held.get(file.key)
        if held is not None:
            return held[1]
        if self._reader is None or self._reader[0] != file.key:
            if self._reader is not None:
                self._reader[1].close()
                self._reader = None
            opened = _PackedReader(file.path) if file.is_packed else _PlainReader(file.path)
            self._reader = (file.key, opened)
        return self._reader[1]

    def release(self, ids: Iterable[str]) -> None:
        """Close removed files of which every line was delivered."""
        done = set(ids)
        for key, (_, reader) in list(self._held.items()):
            first = _first_line(reader)
            if first is not None and first.id in done:
                del self._held[key]
                reader.close()

    def close(self) -> None:
        """Close every file."""
        for _, reader in self._held.values():
            reader.close()
        self._held.clear()
        if self._reader is not None:
            self._reader[1].close()
            self._reader = None

    def _paths(self) -> Iterator[Path]:
        # The file that is being written comes first: once it is seen, nothing is added to the files before it, so that their
        # sizes are final. A file that is moved meanwhile is seen twice.
        yield self._path
        folder = self._path.parent
        names = [entry.name for entry in os.scandir(folder)]
        yield from (folder / name for name in names if is_rotated_name(name, self._path.name))

    def _look_at(
        self,
        path: Path,
        status: os.stat_result,
        firsts: dict[tuple[int, int, int, int], _First | None],
    ) -> LogFile | None:
        state = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
        is_packed = path.suffix == _PACKED
        if state in self._firsts and path != self._path:
            first = self._firsts[state]
        else:
            first = _read_first(path, is_packed=is_packed)
        firsts[state] = first
        if first is None:
            return None
        size = first.unpacked if is_packed else status.st_size
        return LogFile(
            first.id,
            path,
            size,
            first.at,
            first.link,
            path == self._path,
            is_packed,
            (status.st_dev, status.st_ino),
        )

    def _orphans(self, present: set[_Key]) -> Iterable[LogFile]:
        """Yield files that were removed while they were held open."""
        gone = [key for key in self._held if key not in present]
        for key in gone[:-_MAX_ORPHANS]:
            self._held.pop(key)[1].close()
        for key in gone[-_MAX_ORPHANS:]:
            path, reader = self._held[key]
            if (first := _first_line(reader)) is not None:
                size = reader.status.st_size
                yield LogFile(
                    first.id,
                    path,
                    size,
                    first.at,
                    first.link,
                    is_current=False,
                    is_packed=False,
                    key=key,
                )

    def _hold(self, files: Iterable[LogFile]) -> None:
        current = next((file for file in files if file.is_current), None)
        if current is None or current.key in self._held:
            return
        try:
            reader = _PlainReader(self._path)
        except OSError:
            return
        # Another file may stand at the path by now; the next scan sees it.
        status = reader.status
        self._held[status.st_dev, status.st_ino] = (self._path, reader)

    def _let_go(self, present: set[_Key]) -> None:
        """Close moved files beyond the number that is kept open, the newest first."""
        *earlier, _ = self._held or [(0, 0)]
        for key in [key for key in earlier if key in present][_MAX_HELD:]:
            self._held.pop(key)[1].close()


def _add(found: dict[str, LogFile], file: LogFile | None) -> None:
    if file is None:
        return
    other = found.get(file.id)
    # Of copies the longest counts: one that is still being made, or was cut short, never stands for the file itself.
    if other is None or _rank(file) > _rank(other):
        found[file.id] = file


def _rank(file: LogFile) -> tuple[bool, int, bool]:
    return not file.is_packed, file.size, file.is_current


def _order(file: LogFile) -> tuple[bool, int, int, str, str]:
    link = file.link
    segment, index = (link.segment, link.index) if link is not None else (0, 0)
    return file.is_current, segment, index, file.began_at, str(file.path)


def _read_first(path: Path, *, is_packed: bool) -> _First | None:
    try:
        reader = _PackedReader(path) if is_packed else _PlainReader(path)
    except OSError:
        return None
    try:
        first = _first_line(reader)
    finally:
        reader.close()
    if first is None or not is_packed:
        return first
    return replace(first, unpacked=_unpacked_size(path))


def _first_line(reader: Reader) -> _First | None:
    try:
        head = reader.read(0, _FIRST_READ)
        if b"\n" not in head and len(head) == _FIRST_READ:
            head = reader.read(0, MAX_LINE)
    except OSError:
        return None
    line, feed, _ = head.partition(b"\n")
    if not feed:
        return None
    return _First(line_digest(line), timestamp_of(line), read_link(line))


def timestamp_of(line: bytes) -> str:
    """Return the timestamp of a record; empty if the line has none."""
    try:
        record = json.loads(line)
        at = record.get("timestamp", "")
    except (ValueError, AttributeError, RecursionError):
        return ""
    return at if isinstance(at, str) else ""


def _unpacked_size(path: Path) -> int:
    """Return the last four bytes of a gzip file: the length of its content, modulo 2^32 (RFC 1952 §2.3.1)."""
    try:
        with path.open("rb") as stream:
            stream.seek(-4, os.SEEK_END)
            return int.from_bytes(stream.read(4), "little")
    except OSError:
        return 0
