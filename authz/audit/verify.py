"""Verification of an audit log: every line, in its place, and nothing else, as far as heads prove it."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from authz.audit.chain import NO_HEAD, Link, MerkleTree, leaf_hash, read_link
from authz.audit.erasable import erased_texts, texts_defect
from authz.audit.heads import HeadError, HeadKeys, StoredHead, read_head
from authz.audit.reader import open_log
from authz.errors import UnavailableError

__all__ = ["Finding", "Verification", "verify", "verify_delivered"]

_MAX_LINE: Final = 16 * 1024 * 1024
_MAX_FINDINGS: Final = 1_000
_CLOCK_STEP: Final = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class Finding:
    """A place where the log differs from the written log."""

    message: str
    """Description of the defect."""
    file: str = ""
    """File; empty for a defect of the whole log."""
    line: int = 0
    """Line of the file, from 1; 0 for a defect of the whole file."""

    def __str__(self) -> str:
        place = ":".join(part for part in (self.file, str(self.line or "")) if part)
        return f"{place}: {self.message}" if place else self.message


@dataclass(slots=True)
class Verification:
    """Result of a verification."""

    lines: int = 0
    """Lines in the chain."""
    proved: int = 0
    """Lines that a head proves."""
    before: int = 0
    """Lines from before the chain was turned on, which nothing proves."""
    segments: int = 0
    """Segments with lines."""
    heads: int = 0
    """Heads that were read."""
    signatures: int = 0
    """Heads whose signature a trusted key verified."""
    keys: tuple[str, ...] = ()
    """`kid` of the keys that signed heads."""
    dropped: int = 0
    """Segments before the first line of the log, of which only heads are left."""
    findings: list[Finding] = field(default_factory=list)
    """Defects, at most 1,000."""
    repeated: int = 0
    """Lines of a sink that were delivered again, not among `lines`."""
    erased: int = 0
    """Recorded texts that were erased."""
    notes: list[str] = field(default_factory=list)
    """Events to know about that are not defects, for example a clock that was set back."""

    @property
    def unproved(self) -> int:
        """Lines after the newest head: somebody could have cut lines that followed them, or changed the last one."""
        return self.lines - self.proved

    def document(self) -> dict[str, object]:
        """Return the result as JSON values."""
        return {
            "lines": self.lines,
            "proved": self.proved,
            "unproved": self.unproved,
            "before_chain": self.before,
            "repeated": self.repeated,
            "erased_texts": self.erased,
            "segments": self.segments,
            "dropped_segments": self.dropped,
            "heads": self.heads,
            "signatures": self.signatures,
            "keys": list(self.keys),
            "findings": [
                {"file": one.file, "line": one.line, "message": one.message}
                for one in self.findings
            ],
            "notes": self.notes,
        }


@dataclass(slots=True)
class _Segment:
    """Lines of a segment that were read."""

    number: int
    first: str
    """Hash that its first line names."""
    tree: MerkleTree = field(default_factory=MerkleTree)
    last: str = ""
    roots: dict[int, str] = field(default_factory=dict)
    """Roots after the numbers of lines that heads speak of."""
    broken: bool = False
    """Lines are missing or changed, so roots prove nothing."""
    leaves: dict[int, bytes] = field(default_factory=dict)
    """Hashes of its lines by their places, where lines may be repeated."""


class _Verifier:
    def __init__(
        self, heads: Sequence[StoredHead], result: Verification, *, has_repeats: bool
    ) -> None:
        self.heads = heads
        self.has_repeats = has_repeats
        self.result = result
        self.counts: dict[int, set[int]] = {}
        for stored in heads:
            self.counts.setdefault(stored.head.segment, set()).add(stored.head.count)
        self.sealed = {stored.head.segment: stored for stored in heads if _ends(stored, heads)}
        self.segments: dict[int, _Segment] = {}
        self.current: _Segment | None = None
        self.time = ""

    def find(self, message: str, file: str = "", line: int = 0) -> None:
        if len(self.result.findings) < _MAX_FINDINGS:
            self.result.findings.append(Finding(message, file, line))

    def read(self, file: str, lines: Iterable[tuple[int, bytes]]) -> None:
        for number, line in lines:
            if not line.endswith(b"\n"):
                self.find("the line was not written whole", file, number)
                continue
            text = line[:-1]
            link = read_link(text)
            if link is None:
                if self.segments:
                    self.find("the line is not in the chain", file, number)
                else:
                    self.result.before += 1
                continue
            if self._is_repeated(text, link):
                self.result.repeated += 1
                continue
            if defect := texts_defect(text):
                self.find(defect, file, number)
            else:
                self.result.erased += erased_texts(text)
            self.result.lines += 1
            self._follow(text, link, file, number)
            self._clock(text, file, number)

    def _is_repeated(self, text: bytes, link: Link) -> bool:
        if not self.has_repeats or self.current is None or self.current.number != link.segment:
            return False
        return self.current.leaves.get(link.index) == leaf_hash(text)

    def _follow(self, text: bytes, link: Link, file: str, number: int) -> None:
        segment = self.segments.get(link.segment)
        if segment is None:
            segment = self._begin(link, file, number)
        elif segment is not self.current:
            self.find(
                f"a line of segment {link.segment} stands after a later segment", file, number
            )
        if self.current is not None and self.current is not segment:
            self.current.leaves.clear()
        self.current = segment
        if link.index < segment.tree.count:
            self.find(f"line {link.index} of segment {link.segment} stands twice", file, number)
            segment.broken = True
            return
        if link.index > segment.tree.count:
            missing = f"lines {segment.tree.count} to {link.index - 1} of segment {link.segment}"
            self.find(f"{missing} are missing before this line", file, number)
            segment.broken = True
            segment.tree.count = link.index
        elif segment.last and link.previous != segment.last:
            self.find("this line or the line before it was changed", file, number)
            segment.broken = True
        leaf = leaf_hash(text)
        segment.last = leaf.hex()
        if self.has_repeats:
            segment.leaves[link.index] = leaf
        if segment.broken:
            segment.tree.count += 1
            return
        segment.tree.push(leaf)
        if segment.tree.count in self.counts.get(segment.number, ()):
            segment.roots[segment.tree.count] = segment.tree.root().hex()

    def _begin(self, link: Link, file: str, number: int) -> _Segment:
        segment = _Segment(link.segment, link.previous if link.index == 0 else "")
        if self.current is not None and link.segment != self.current.number + 1:
            gap = f"{self.current.number + 1} to {link.segment - 1}"
            if link.segment < self.current.number:
                self.find(
                    f"segment {link.segment} stands after segment {self.current.number}",
                    file,
                    number,
                )
            else:
                self.find(f"the lines of segments {gap} are missing", file, number)
        before = self.sealed.get(link.segment - 1)
        expected = before.digest if before is not None else NO_HEAD if link.segment == 1 else ""
        if link.index == 0 and expected and link.previous != expected:
            self.find(
                "the first line of the segment does not name the head before it", file, number
            )
        self.segments[link.segment] = segment
        self.result.segments += 1
        return segment

    def _clock(self, text: bytes, file: str, number: int) -> None:
        try:
            time = str(json.loads(text).get("timestamp", ""))
            back = (
                bool(self.time)
                and time < self.time
                and _moment(self.time) - _moment(time) > _CLOCK_STEP
            )
        except (ValueError, AttributeError, RecursionError):
            self.find("the line is not a record", file, number)
            return
        if back and len(self.result.notes) < _MAX_FINDINGS:
            self.result.notes.append(
                f"{file}:{number}: the clock was set back, from {self.time} to {time}"
            )
        self.time = time or self.time

    def compare(self) -> None:
        """Compare the segments with the heads."""
        first = min(self.segments, default=0)
        proved: dict[int, int] = {}
        for stored in self.heads:
            head = stored.head
            segment = self.segments.get(head.segment)
            if segment is not None:
                count = self._compare(stored, segment)
                proved[head.segment] = max(proved.get(head.segment, 0), count)
            elif first and head.segment < first:
                self.result.dropped += stored is self.sealed.get(head.segment)
            elif head.count:
                self.find(f"the {head.count} lines of segment {head.segment} are missing")
        for number in self.segments:
            if number + 1 in self.segments and number not in self.counts:
                self.find(
                    f"the head of segment {number}, which segment {number + 1} names, is missing"
                )
        self.result.proved = sum(proved.values())

    def _compare(self, stored: StoredHead, segment: _Segment) -> int:
        """Return the number of lines that a head proves."""
        head, name = stored.head, f"segment {segment.number}"
        if segment.first and head.previous != segment.first:
            self.find(f"a head of {name} speaks of another chain")
        if segment.broken:
            return 0
        if segment.tree.count < head.count:
            self.find(f"the last {head.count - segment.tree.count} lines of {name} are missing")
            return 0
        if head.count and segment.roots[head.count] != head.root:
            self.find(f"the first {head.count} lines of {name} are not those of a head")
            return 0
        if head.sealed and segment.tree.count > head.count:
            self.find(f"{segment.tree.count - head.count} lines stand in {name} after its end")
        return head.count


def _ends(stored: StoredHead, heads: Sequence[StoredHead]) -> bool:
    """Return whether a head is the last of its segment."""
    later = (other.head for other in heads if other.head.segment == stored.head.segment)
    return all(
        (other.sealed, other.count) <= (stored.head.sealed, stored.head.count) for other in later
    )


def verify(
    files: Sequence[Path],
    heads: Path | None,
    others: Iterable[str] = (),
    keys: HeadKeys | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> Verification:
    """Verify an audit log.

    Args:
        files: Files of the log, in any order; `.gz` is unpacked on the way.
        heads: File with the heads of ended segments. None, or a missing file: no heads.
        others: Other heads, for example the newest one that the node published, each as JSON.
        keys: Keys that are trusted for heads. With None, signatures are not checked.
        progress: Called with the number of lines that were read, now and then.

    Raises:
        UnavailableError: A file cannot be read.
    """
    result = Verification()
    ended = _read_heads(heads, result)
    stored = [*ended, *_read_others(others, result)]
    result.heads = len(stored)
    _check_signatures(stored, keys, result)
    verifier = _Verifier(stored, result, has_repeats=False)
    for file in sorted(files, key=_place):
        verifier.read(str(file), _lines(file, progress))
    verifier.compare()
    return result


def verify_delivered(
    folder: Path,
    others: Iterable[str] = (),
    keys: HeadKeys | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> Verification:
    """Verify the part of a log that a sink got. Lines may be there several times, as they were delivered at least once.

    Args:
        folder: Folder with the batches as files, named as they were delivered: `records/…` and `heads/…`; `.gz` is unpacked on the way.
        others: As of `verify`.
        keys: As of `verify`.
        progress: As of `verify`.

    Raises:
        UnavailableError: A file cannot be read.
    """
    result = Verification()
    stored = list(_read_others(dict.fromkeys([*_delivered_heads(folder), *others]), result))
    result.heads = len(stored)
    _check_signatures(stored, keys, result)
    verifier = _Verifier(stored, result, has_repeats=True)
    for file in sorted(_batches(folder / "records"), key=_place):
        verifier.read(str(file), _lines(file, progress))
    verifier.compare()
    return result


def _batches(folder: Path) -> Iterator[Path]:
    try:
        for file in sorted(folder.rglob("*")):
            if file.is_file() and file.name.endswith((".ndjson", ".ndjson.gz")):
                yield file
    except OSError as error:
        raise UnavailableError(f"{folder} cannot be read: {error.strerror}") from error


def _delivered_heads(folder: Path) -> Iterator[str]:
    for file in _batches(folder / "heads"):
        for _, line in _lines(file, lambda _: None):
            yield line.decode("utf-8", "replace").strip()


def _read_heads(file: Path | None, result: Verification) -> list[StoredHead]:
    if file is None or not file.exists():
        return []
    heads: list[StoredHead] = []
    try:
        lines = file.read_bytes().split(b"\n")
    except OSError as error:
        raise UnavailableError(f"{file} cannot be read: {error.strerror}") from error
    if lines.pop():
        result.findings.append(Finding("the head was not written whole", str(file), len(lines) + 1))
    previous, segment = NO_HEAD, 0
    for number, line in enumerate(lines, 1):
        try:
            stored = read_head(line)
        except HeadError as error:
            result.findings.append(Finding(str(error), str(file), number))
            continue
        if stored.head.segment != segment + 1:
            text = f"a head of segment {stored.head.segment} follows that of segment {segment}"
            result.findings.append(Finding(text, str(file), number))
        elif stored.head.previous != previous:
            result.findings.append(
                Finding("the head does not name the head before it", str(file), number)
            )
        previous, segment = stored.digest, stored.head.segment
        heads.append(stored)
    return heads


def _read_others(texts: Iterable[str], result: Verification) -> Iterator[StoredHead]:
    for text in texts:
        try:
            yield read_head(text.strip())
        except HeadError as error:
            result.findings.append(Finding(f"given head: {error}"))


def _check_signatures(
    heads: Sequence[StoredHead], keys: HeadKeys | None, result: Verification
) -> None:
    if keys is None:
        return
    signers: dict[str, None] = {}
    for stored in heads:
        try:
            signers[keys.verify(stored)] = None
            result.signatures += 1
        except HeadError as error:
            result.findings.append(Finding(f"head of segment {stored.head.segment}: {error}"))
    result.keys = tuple(signers)


def _place(file: Path) -> tuple[int, int, str]:
    """Return the place of the first line of a file that is in the chain; files without one come first."""
    for _, line in _lines(file, lambda _: None):
        if (link := read_link(line.rstrip(b"\n"))) is not None:
            return link.segment, link.index, str(file)
    return 0, 0, str(file)


def _lines(file: Path, progress: Callable[[int], None]) -> Iterator[tuple[int, bytes]]:
    number = 0
    with open_log(file) as stream:
        while line := stream.readline(_MAX_LINE):
            number += 1
            yield number, line
            if number % 10_000 == 0:
                progress(number)


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
