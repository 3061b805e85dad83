"""An audit log that is written line by line, and rotated as programs do it, with a chain or without."""

import gzip
import hashlib
import json
import os
from base64 import urlsafe_b64decode
from pathlib import Path

from tests.support.audit_log import NO_HEAD, LogWriter

__all__ = ["LiveLog", "Sink", "SinkDownError"]


class LiveLog:
    """Writes an audit log as a node does.

    Args:
        folder: Folder of the log.
        chained: Whether lines are chained.
    """

    def __init__(self, folder: Path, *, chained: bool) -> None:
        self.writer = LogWriter(folder)
        self.path = self.writer.path
        self.chained = chained
        self.lines: list[bytes] = []
        self._leaves: list[bytes] = []
        self._last = NO_HEAD
        self._number = 0
        self._moved = 0
        self._inode = 0

    def append(self, count: int = 1, *, padding: int = 0) -> list[bytes]:
        """Write records; return their lines."""
        if self.chained and self._leaves and not self._is_there():
            self.end_segment()
        lines = [self._line(padding) for _ in range(count)]
        with self.path.open("ab") as stream:
            stream.write(b"".join(lines))
        self._inode = self.path.stat().st_ino
        self.lines += lines
        return lines

    def tear(self) -> None:
        """Write the beginning of a record."""
        with self.path.open("ab") as stream:
            stream.write(b'{"decision_id": "torn')

    def cut(self, lines: int) -> None:
        """Take the last lines, and a torn one, out of the file again, as after a failed write. Only without a chain."""
        assert not self.chained
        content = self.path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1].splitlines(keepends=True)
        kept = whole[: max(1, len(whole) - lines)]
        gone = whole[len(kept) :]
        self.lines = [line for line in self.lines if line not in gone]
        os.truncate(self.path, len(b"".join(kept)))

    def write_head(self) -> None:
        """Renew the newest head of the segment."""
        head = self.writer.head(self._leaves, sealed=False)
        self.path.with_name(self.path.name + ".head").write_text(head)

    def end_segment(self) -> None:
        """End the segment with a head."""
        head = self.writer.head(self._leaves, sealed=True)
        with self.writer.heads.open("a") as heads:
            heads.write(head + "\n")
        payload = json.loads(head)["payload"]
        decoded = urlsafe_b64decode(payload + "=" * (-len(payload) % 4))
        self.writer.previous = self._last = hashlib.sha256(decoded).hexdigest()
        self.writer.segment += 1
        self._leaves = []

    def rotate(self) -> Path | None:
        """Move the file away: as the node does with a chain, otherwise as logrotate does. Return its new path."""
        if not self.path.exists() or self.path.stat().st_size == 0:
            return None
        self._moved += 1
        if self.chained:
            moved = self.path.with_name(f"{self.path.name}.{self.writer.segment:08}")
            self.end_segment()
        else:
            moved = self.path.with_name(f"{self.path.name}-{self._moved:08}")
        self.path.rename(moved)
        self.path.touch()
        self._inode = self.path.stat().st_ino
        return moved

    def copy_and_truncate(self) -> Path | None:
        """Copy the file and empty it, as logrotate does with `copytruncate`."""
        if not self.path.exists() or self.path.stat().st_size == 0:
            return None
        self._moved += 1
        moved = self.path.with_name(f"{self.path.name}-{self._moved:08}")
        moved.write_bytes(self.path.read_bytes())
        os.truncate(self.path, 0)
        self._inode = 0
        return moved

    def rotated(self) -> list[Path]:
        """List the files that were moved away."""
        beside = self.path.parent.glob(f"{self.path.name}[.-]0*")
        return sorted(file for file in beside if file.is_file())

    def compress(self, file: Path) -> Path:
        """Compress a file that was moved away."""
        packed = file.with_name(file.name + ".gz")
        packed.write_bytes(gzip.compress(file.read_bytes()))
        file.unlink()
        return packed

    def _is_there(self) -> bool:
        return self.path.exists() and self.path.stat().st_ino == self._inode

    def _line(self, padding: int) -> bytes:
        self._number += 1
        second, milli = divmod(self._number, 1000)
        record = {
            "decision_id": f"d{self._number:06}",
            "timestamp": f"2026-12-01T00:{second // 60:02}:{second % 60:02}.{milli:03}Z",
            "padding": "x" * padding,
        }
        text = json.dumps(record, separators=(",", ":"))
        if not self.chained:
            return text.encode() + b"\n"
        link = {
            "segment": self.writer.segment,
            "index": len(self._leaves),
            "previous": self._last,
        }
        chain = json.dumps({"chain": link}, separators=(",", ":"))
        line = f"{text[:-1]},{chain[1:]}".encode()
        leaf = hashlib.sha256(b"\0" + line).digest()
        self._leaves.append(leaf)
        self._last = leaf.hex()
        return line + b"\n"


class SinkDownError(Exception):
    """The sink or the node fails at this moment."""


class Sink:
    """What a sink was sent: contents by name, and every record in its order."""

    def __init__(self) -> None:
        self.stored: dict[str, bytes] = {}
        self.records: list[bytes] = []
        self.heads: list[bytes] = []
        self.unacknowledged: set[bytes] = set()

    def take(self, kind: str, name: str, content: bytes) -> None:
        """Store a batch, of which the node does not know yet. The same name always has the same bytes."""
        assert self.stored.setdefault(name, content) == content, name
        lines = content.splitlines(keepends=True)
        (self.heads if kind == "heads" else self.records).extend(lines)
        self.unacknowledged |= set(lines)

    def acknowledge(self, content: bytes) -> None:
        """Note that the node knows that the sink has a batch."""
        self.unacknowledged -= set(content.splitlines(keepends=True))

    def unique(self) -> list[bytes]:
        """Return the records in the order in which each came first."""
        return list(dict.fromkeys(self.records))

    def stored_records(self) -> int:
        """Return the number of records that a sink has that stores batches under their names."""
        return sum(
            content.count(b"\n")
            for name, content in self.stored.items()
            if name.startswith("records/")
        )
