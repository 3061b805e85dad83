"""The end of a log that a sink does not have yet: reads the next batch from the files, and moves the cursor once it is delivered.

A batch is pinned before it is sent and committed after the sink acknowledged it. A crash between the two sends the same bytes again;
nothing is ever left out without a gap that is told.
"""

import base64
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from authz.audit.chain import Link, read_link
from authz.audit.delivery.batch import Batch, BatchKind, file_name, place_name
from authz.audit.delivery.cursor import MAX_MARKS, Cursor, Gap, Mark, Pending, Position, cursor_path
from authz.audit.delivery.files import MAX_LINE, LogFile, LogFiles, timestamp_of
from authz.audit.delivery.target import Rejection

__all__ = ["LogTail", "TailStatus"]

_COUNTED_AT_ONCE: Final = 33_554_432
"""Bytes in which lines are counted in one look."""
_COUNTED_PIECE: Final = 1_048_576
"""Bytes that are held in memory while lines are counted."""
_FIRST_READ: Final = 16_384
_LINK_BEGIN: Final = b'"chain":{"segment":'
_MAX_HEADS: Final = 65_536
"""Bytes of heads in one batch."""


@dataclass(frozen=True, slots=True)
class TailStatus:
    """Delivered and undelivered parts of a log, for one sink."""

    undelivered_bytes: int = 0
    """Bytes of the log that are not delivered."""
    undelivered_records: int = 0
    """Records that are not delivered, as far as they were counted."""
    undelivered_files: int = 0
    """Files that the node no longer writes to and that are not delivered to their end."""
    oldest_at: str = ""
    """Timestamp of the oldest record that is not delivered; empty if all are delivered."""
    delivered_at: str = ""
    """Timestamp of the newest record that was delivered."""
    delivered_records: int = 0
    """Records that were delivered since the sink is configured, repetitions included."""
    place: tuple[int, int] | None = None
    """Segment and index of the last chained record that was delivered."""
    head: tuple[int, int] | None = None
    """Segment and count of the newest head that was delivered."""
    gap_count: int = 0
    """Gaps that were found."""
    lost_records: int = 0
    """Records that are known to be missing."""
    gaps: tuple[Gap, ...] = ()
    """The last gaps."""
    delivered_files: frozenset[str] | None = None
    """Names of files that never grow again and of which every record was delivered; None before the first look."""


class LogTail:
    """Undelivered part of a log, for one sink.

    Args:
        log: The audit file.
        sink: Name of the sink.
        max_bytes: Size of a batch, in bytes. A longer line is a batch of its own.
        now: Unix time.
        is_read_only: Whether the cursor is never written, for a reader beside the node.

    Raises:
        OSError: The cursor cannot be read.
        ValueError: The cursor is not one.
    """

    def __init__(
        self,
        log: Path,
        sink: str,
        max_bytes: int,
        now: Callable[[], float],
        *,
        is_read_only: bool = False,
    ) -> None:
        self._is_read_only = is_read_only
        self._log = log
        self._sink = sink
        self._path = cursor_path(log, sink)
        self._max_bytes = max_bytes
        self._now = now
        self._files = LogFiles(log)
        self._found: dict[str, LogFile] = {}
        self._cursor = Cursor.read(self._path) or Cursor()
        self._is_changed = False
        # A file that is gone at the first look was moved or removed while nobody read.
        self._has_looked = False
        self._rolling: tuple[tuple[int, int], bytes] | None = None
        self._heads: _HeadFile = _HeadFile(log.with_name(log.name + ".heads"))
        self._oldest_at = ""

    def close(self) -> None:
        """Close every file."""
        self._files.close()

    def look(self) -> list[Gap]:
        """Look for files that were begun, moved or removed. Return the gaps that were found.

        Raises:
            OSError: A file cannot be read, or the cursor not written.
        """
        gaps = list(self._begin_anew())
        # Heads are read before the lines, so that all lines of the head are there once the lines are delivered.
        self._read_rolling_head()
        files = self._files.scan()
        self._found = {file.id: file for file in files}
        gaps += self._drop_gone()
        positions = {position.id: position for position in self._cursor.positions}
        for file in files:
            position = positions.get(file.id)
            if position is None:
                position = Position(
                    file.id, file.path.name, file.began_at, is_chained=file.link is not None
                )
                self._cursor.positions.append(position)
                self._is_changed = True
            position.name = file.path.name
            self._check(position, file)
        self._count_lines()
        self._mark_ended()
        self._find_oldest()
        self._has_looked = True
        self._save()
        return gaps

    def next_batch(self, max_bytes: int | None = None) -> Batch | None:
        """Return the next batch; None if the sink has everything.

        Args:
            max_bytes: Size of the batch, in bytes. Default: that of the tail.

        Raises:
            OSError: A file cannot be read.
        """
        if (heads := self._next_heads()) is not None:
            return heads
        if (pinned := self._pinned()) is not None:
            self._oldest_at = pinned.first_at
            return pinned
        batch = None
        for position, file in self._readable():
            batch = self._read(position, file, max_bytes or self._max_bytes)
            if batch is not None:
                break
        self._oldest_at = batch.first_at if batch is not None else ""
        return batch

    def pin(self, batch: Batch) -> None:
        """Note, durably, that a batch is being sent.

        Raises:
            OSError: The cursor cannot be written.
        """
        if batch.kind is BatchKind.RECORDS:
            pending = Pending(batch.position, batch.start, batch.end, batch.digest)
            self._is_changed |= pending != self._cursor.pending
            self._cursor.pending = pending
        self._save()

    def unpin(self) -> None:
        """Forget the batch that was being sent, so that the next one may have another size."""
        self._is_changed |= self._cursor.pending is not None
        self._cursor.pending = None

    def commit(self, batch: Batch, rejection: Rejection | None = None) -> list[Gap]:
        """Move the cursor, durably, behind a batch that the sink acknowledged.

        Args:
            batch: The batch.
            rejection: Lines of the batch that the sink rejected.

        Returns:
            Gaps before the batch and in it.

        Raises:
            OSError: The cursor cannot be written.
        """
        self._is_changed = True
        gaps = []
        if rejection is not None:
            text = (
                f"the sink rejected {rejection.records} lines of {batch.name}: {rejection.reason}"
            )
            gaps.append(Gap(_written(self._now()), text, rejection.records))
        if batch.kind is BatchKind.HEADS:
            if batch.end > self._cursor.heads_offset:
                self._cursor.heads = Mark.of(batch.end, batch.lines()[-1] + b"\n")
            if batch.last is not None:
                self._cursor.head = max(batch.last, self._cursor.head or batch.last)
        else:
            if (gap := self._gap_before(batch)) is not None:
                gaps.insert(0, gap)
            self._advance(batch)
        for one in gaps:
            self._cursor.note_gap(one)
        self._save()
        return gaps

    def status(self) -> TailStatus:
        """Return what the sink has and lacks, as of the last look."""
        cursor, total, files = self._cursor, 0, 0
        for position in cursor.positions:
            file = self._found.get(position.id)
            if file is None or position.is_ended:
                continue
            left = max(0, position.known - position.offset)
            total += left
            files += left > 0 and not file.is_current
        return TailStatus(
            undelivered_bytes=total,
            undelivered_records=sum(position.seen_lines for position in cursor.positions),
            undelivered_files=files,
            oldest_at=self._oldest_at,
            delivered_at=cursor.delivered_at,
            delivered_records=cursor.delivered_records,
            place=cursor.place,
            head=cursor.head,
            gap_count=cursor.gap_count,
            lost_records=cursor.lost_records,
            gaps=tuple(cursor.gaps),
            delivered_files=frozenset(one.name for one in cursor.positions if one.is_ended)
            if self._has_looked
            else None,
        )

    # --- files

    def _begin_anew(self) -> Iterator[Gap]:
        """Forget the places of a chain whose heads are gone. The node never removes a head: another log was begun in its place."""
        mark = self._cursor.heads
        if mark is None or mark.holds(self._heads.read()[mark.end - mark.length : mark.end]):
            return
        self._cursor.heads = None
        self._cursor.place = self._cursor.head = None
        self._cursor.told = 0
        self._rolling = None
        self._is_changed = True
        text = f"{self._log.name}.heads lacks heads that were delivered: the log was begun anew, or somebody removed them"
        gap = Gap(_written(self._now()), text, None)
        self._cursor.note_gap(gap)
        yield gap

    def _position(self, file: str) -> Position | None:
        return next((one for one in self._cursor.positions if one.id == file), None)

    def _drop_gone(self) -> Iterator[Gap]:
        """Drop positions of files that are gone, and yield a gap for each that was not delivered to its end."""
        kept: list[Position] = []
        last = self._cursor.positions[-1] if self._cursor.positions else None
        for position in self._cursor.positions:
            if position.id in self._found:
                kept.append(position)
                continue
            self._is_changed = True
            gap = self._gap_of(position, is_last=position is last)
            if gap is not None:
                self._cursor.note_gap(gap)
                self._cursor.told += (gap.records or 0) if position.is_chained else 0
                yield gap
        self._cursor.positions = kept

    def _gap_of(self, position: Position, *, is_last: bool) -> Gap | None:
        at = _written(self._now())
        if position.known > position.offset:
            is_counted = position.seen >= position.known
            count = f"{position.seen_lines} records" if is_counted else "records"
            text = f"{position.name} was removed with {count} that were not delivered"
            return Gap(at, text, position.seen_lines if is_counted else None)
        if is_last and not self._has_looked and not position.is_chained and not position.is_ended:
            # A chain tells by the places of the next records whether any is missing.
            text = (
                f"{position.name} was moved or removed while the node did not run; records that were written after its byte "
                f"{position.offset}, if there are any, were not delivered"
            )
            return Gap(at, text, None)
        return None

    def _check(self, position: Position, file: LogFile) -> None:
        """Move a position back if the file no longer holds the delivered lines.

        The node cuts lines off that it could not write whole; after a power loss, lines can be missing at the end.
        """
        if position.is_ended and (file.is_packed or file.size == position.offset):
            return
        if not file.is_packed and file.size < position.seen:
            position.seen, position.seen_lines = position.offset, 0
        kept = list(position.marks)
        while kept and not self._holds(file, kept[-1]):
            kept.pop()
        if len(kept) == len(position.marks):
            return
        position.marks = kept
        position.offset = kept[-1].end if kept else 0
        position.seen = position.offset
        position.seen_lines = 0
        position.is_ended = False
        self._cursor.pending = None
        self._is_changed = True

    def _holds(self, file: LogFile, mark: Mark) -> bool:
        if not file.is_packed and file.size < mark.end:
            return False
        line = self._files.reader(file).read(mark.end - mark.length, mark.length)
        return mark.holds(line)

    def _mark_ended(self) -> None:
        """Mark files that never grow again and are delivered: the log goes on in a later one."""
        for position in self._cursor.positions[:-1]:
            file = self._found[position.id]
            if position.is_ended or file.is_packed or file.is_current:
                continue
            if position.offset >= position.known:
                position.is_ended = True
                position.marks = position.marks[-1:]
                self._is_changed = True
        done = [one.id for one in self._cursor.positions if one.is_ended]
        self._files.release(done)

    def _count_lines(self) -> None:
        """Count lines that were not counted yet, for the status and for gaps."""
        left = _COUNTED_AT_ONCE
        for position in self._cursor.positions:
            file = self._found[position.id]
            if position.is_ended:
                self._note_known(position, file, position.offset)
            elif file.is_packed or file.size <= position.seen or left <= 0:
                self._note_known(position, file, file.size)
            else:
                done, is_counted = self._count(position, file, left)
                left -= done
                # A line that is not whole is not a record.
                self._note_known(position, file, position.seen if is_counted else file.size)

    def _count(self, position: Position, file: LogFile, most: int) -> tuple[int, bool]:
        """Count lines in about so many bytes; return the number of bytes that were read, and whether they are the last ones."""
        reader, done, size = self._files.reader(file), 0, _COUNTED_PIECE
        while done < most:
            part = reader.read(position.seen, size)
            done += len(part)
            position.seen_lines += part.count(b"\n")
            whole = part.rfind(b"\n") + 1
            position.seen += whole
            if len(part) < size:
                return done, True
            if not whole and size == MAX_LINE:
                return done, False
            size = _COUNTED_PIECE if whole else MAX_LINE
        return done, False

    def _note_known(self, position: Position, file: LogFile, known: int) -> None:
        # The size of the file that is being written changes all the time, and is not worth a write.
        self._is_changed |= known != position.known and not file.is_current
        position.known = known

    def _find_oldest(self) -> None:
        """Find the timestamp of the oldest record that is not delivered."""
        self._oldest_at = ""
        for position, file in self._readable():
            reader = self._files.reader(file)
            for size in (_FIRST_READ, MAX_LINE):
                line, feed, _ = reader.read(position.offset, size).partition(b"\n")
                if feed:
                    self._oldest_at = timestamp_of(line)
                    return

    def _readable(self) -> Iterator[tuple[Position, LogFile]]:
        for position in self._cursor.positions:
            file = self._found.get(position.id)
            if file is None or (position.is_ended and file.is_packed):
                continue
            if file.is_packed or file.size > position.offset:
                yield position, file

    # --- records

    def _read(self, position: Position, file: LogFile, max_bytes: int) -> Batch | None:
        reader = self._files.reader(file)
        data = reader.read(position.offset, max_bytes)
        end = data.rfind(b"\n") + 1
        is_full = len(data) == max_bytes
        if end == 0 and is_full:
            data = reader.read(position.offset, MAX_LINE)
            end = data.find(b"\n") + 1
            if end == 0 and len(data) == MAX_LINE:
                raise OSError(f"{position.name} has a line of more than {MAX_LINE >> 20} MiB")
        if end == 0:
            if file.is_packed and not position.is_ended:
                position.is_ended = True
                self._is_changed = True
            return None
        content, is_cut = _of_one_segment(data[:end])
        is_last = position is self._cursor.positions[-1]
        return self._batch(position, content, is_whole=is_full or is_cut or not is_last)

    def _batch(self, position: Position, content: bytes, *, is_whole: bool) -> Batch:
        lines = content.split(b"\n")[:-1]
        first, last = read_link(lines[0]), read_link(lines[-1])
        digest = hashlib.sha256(content).hexdigest()
        place = _place(first)
        return Batch(
            BatchKind.RECORDS,
            _name_of_records(place, position, digest),
            content,
            len(lines),
            place,
            _place(last),
            timestamp_of(lines[0]),
            timestamp_of(lines[-1]),
            is_whole=is_whole,
            position=position.id,
            start=position.offset,
            end=position.offset + len(content),
        )

    def _pinned(self) -> Batch | None:
        """Return the batch that was being sent before a crash, if its bytes are still there."""
        pending = self._cursor.pending
        if pending is None:
            return None
        position, file = self._position(pending.id), self._found.get(pending.id)
        if position is not None and file is not None and position.offset == pending.start:
            content = self._files.reader(file).read(pending.start, pending.end - pending.start)
            if hashlib.sha256(content).hexdigest() == pending.digest:
                return self._batch(position, content, is_whole=True)
        self.unpin()
        return None

    def _advance(self, batch: Batch) -> None:
        cursor = self._cursor
        position = self._position(batch.position)
        if position is None:
            return
        position.offset = batch.end
        position.seen_lines = max(0, position.seen_lines - batch.count)
        if position.seen <= batch.end:
            position.seen, position.seen_lines = batch.end, 0
        mark = Mark.of(batch.end, batch.lines()[-1] + b"\n")
        position.marks = [*position.marks, mark][-MAX_MARKS:]
        cursor.pending = None
        cursor.delivered_records += batch.count
        cursor.delivered_at = max(cursor.delivered_at, batch.last_at)
        if batch.last is not None:
            cursor.place = max(batch.last, cursor.place or batch.last)

    def _gap_before(self, batch: Batch) -> Gap | None:
        """Return the gap between the last chained record and the first one of a batch."""
        before, first = self._cursor.place, batch.first
        if before is None or first is None or first <= before:
            return None
        missing: int | None
        if first[0] == before[0]:
            missing = first[1] - before[1] - 1
        else:
            missing = self._missing_between(before, first)
        if missing is not None:
            told = min(missing, self._cursor.told)
            self._cursor.told -= told
            missing -= told
        elif self._cursor.told:
            self._cursor.told = missing = 0
        if missing == 0:
            return None
        count = "records" if missing is None else f"{missing} records"
        text = (
            f"{count} between record {before[1]} of segment {before[0]} and record {first[1]} of segment {first[0]} were removed "
            "before they were delivered"
        )
        return Gap(_written(self._now()), text, missing)

    def _missing_between(self, before: tuple[int, int], first: tuple[int, int]) -> int | None:
        """Return the number of records between two places of different segments; None if heads do not tell it."""
        counts = self._heads.counts()
        missing = first[1]
        for segment in range(before[0], first[0]):
            if segment not in counts:
                return None
            missing += counts[segment]
        return max(0, missing - before[1] - 1)

    # --- heads

    def _read_rolling_head(self) -> None:
        """Take the newest head as the next to deliver, unless one waits for its lines."""
        delivered = self._cursor.head or (0, 0)
        if self._rolling is not None and self._rolling[0] > delivered:
            place = self._cursor.place
            if place is None or self._rolling[0][0] >= place[0]:
                return
        try:
            text = self._log.with_name(self._log.name + ".head").read_bytes().strip()
        except FileNotFoundError:
            return
        count = _head_count(text)
        self._rolling = (count, text) if count is not None else None

    def _next_heads(self) -> Batch | None:
        """Return heads whose lines were delivered."""
        lines: list[bytes] = []
        counts: list[tuple[int, int]] = []
        end = self._cursor.heads_offset
        for line, after in self._heads.after(end):
            count = _head_count(line)
            if count is not None and not self._is_covered(count):
                break
            lines.append(line)
            counts.append(count or (0, 0))
            end = after
            if sum(map(len, lines)) > _MAX_HEADS:
                break
        if not lines and self._rolling is not None:
            count, text = self._rolling
            if count > (self._cursor.head or (0, 0)) and self._is_covered(count):
                lines, counts = [text], [count]
        if not lines:
            return None
        content = b"".join(line + b"\n" for line in lines)
        digest = hashlib.sha256(content).hexdigest()
        name = place_name(BatchKind.HEADS, counts[0], digest)
        return Batch(BatchKind.HEADS, name, content, len(lines), counts[0], max(counts), end=end)

    def _is_covered(self, head: tuple[int, int]) -> bool:
        """Return whether the lines of a head were delivered, or are known to be missing."""
        segment, count = head
        return self._cursor.place is not None and (segment, count - 1) <= self._cursor.place

    def _save(self) -> None:
        if self._is_changed and not self._is_read_only:
            self._cursor.write(self._path)
            self._is_changed = False


class _HeadFile:
    """The file of the heads of ended segments."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._state: tuple[int, int, int] = (0, 0, 0)
        self._content = b""

    def after(self, offset: int) -> Iterator[tuple[bytes, int]]:
        """Yield whole lines after an offset, and the offset after each."""
        content, at = self.read(), offset
        while (end := content.find(b"\n", at)) >= 0:
            yield content[at:end], end + 1
            at = end + 1

    def counts(self) -> Mapping[int, int]:
        """Return the number of records of each ended segment."""
        heads = (_head_count(line) for line, _ in self.after(0))
        return dict(head for head in heads if head is not None)

    def read(self) -> bytes:
        """Return the content of the file; nothing without one."""
        try:
            status = self._path.stat()
            state = (status.st_ino, status.st_size, status.st_mtime_ns)
            if state != self._state:
                self._content = self._path.read_bytes()
                self._state = state
        except FileNotFoundError:
            self._content, self._state = b"", (0, 0, 0)
        return self._content


def _head_count(text: bytes) -> tuple[int, int] | None:
    """Return segment and count of a head; None if the text is not one. Whether it is signed does not matter here."""
    try:
        payload = json.loads(text)["payload"]
        head = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        return int(head["segment"]), int(head["count"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def _of_one_segment(content: bytes) -> tuple[bytes, bool]:
    """Return the first lines that follow each other in one segment, and whether others come after them."""
    if _is_of_one_segment(content):
        return content, False
    size = 0
    before: Link | None = None
    for number, line in enumerate(content.split(b"\n")[:-1]):
        link = read_link(line)
        if number and not _follows(before, link):
            return content[:size], True
        before = link
        size += len(line) + 1
    return content, False


def _is_of_one_segment(content: bytes) -> bool:
    """Return whether lines follow each other in one segment by their ends alone. False does not say that they do not."""
    first = read_link(content[: content.index(b"\n")])
    last = read_link(content[content.rfind(b"\n", 0, -1) + 1 : -1])
    if first is None or last is None:
        return first is last and _LINK_BEGIN not in content
    count = content.count(b"\n")
    return first.segment == last.segment and last.index - first.index == count - 1


def _follows(before: Link | None, link: Link | None) -> bool:
    if before is None or link is None:
        return before is link
    return link.segment == before.segment and link.index == before.index + 1


def _name_of_records(place: tuple[int, int] | None, position: Position, digest: str) -> str:
    if place is not None:
        return place_name(BatchKind.RECORDS, place, digest)
    return file_name(position.began_at, position.id, position.offset, digest)


def _place(link: Link | None) -> tuple[int, int] | None:
    return (link.segment, link.index) if link is not None else None


def _written(at: float) -> str:
    moment = datetime.fromtimestamp(at, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
