"""Erasure of recorded texts from the ended segments of a chained audit log.

A file is replaced whole by a copy that lacks the texts: the copy is written aside, flushed, and renamed. Every line keeps its length and
the part that the chain covers, so heads still prove the log, and sinks find their place in it. A crash leaves a file either as it was or
without the texts, and the next erasure removes an unfinished copy.
"""

import fcntl
import gzip
import json
import os
import shutil
import stat
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final, cast

from authz.audit.chain import read_link
from authz.audit.decision import read_decision
from authz.audit.erasable import covered, erase_texts
from authz.audit.heads import HeadError, read_head
from authz.audit.history import rotated
from authz.audit.reader import open_log
from authz.errors import UnavailableError

__all__ = ["Erasure", "ErasureFile", "TextSelection", "erase_files", "plan_erasure"]

_MAX_LINE: Final = 16 * 1024 * 1024
_TEXTS: Final = b'{"texts":'
_ASIDE: Final = ".erasing"


@dataclass(frozen=True, slots=True)
class TextSelection:
    """Recorded texts to erase: those of records that meet every condition. An empty condition is met by each record."""

    decisions: frozenset[str] = frozenset()
    """Ids of decisions."""
    sessions: frozenset[str] = frozenset()
    """Ids of sessions."""
    agents: frozenset[str] = frozenset()
    """SPIFFE ids of agents, anywhere in the chain of a call."""
    subjects: frozenset[str] = frozenset()
    """Subjects as `<issuer alias>/<sub>`, or ids of other principals that are not agents."""
    before: str = ""
    """Timestamp after the records: RFC 3339, UTC, milliseconds."""
    pointers: frozenset[str] = frozenset()
    """JSON pointers of texts, or of objects and lists that have them."""

    def selects(self, line: bytes) -> bool:
        """Return whether a record meets the conditions. A line that is not a record meets none."""
        try:
            fields = json.loads(line)
        except (ValueError, RecursionError):
            return False
        if not isinstance(fields, dict):
            return False
        record = read_decision(fields)
        agents = {link.id for link in record.chain if link.kind == "Agent"}
        subjects = {link.id for link in record.chain if link.kind != "Agent"}
        return (
            (not self.decisions or record.decision_id in self.decisions)
            and (not self.sessions or (record.session != "" and record.session in self.sessions))
            and (not self.agents or not self.agents.isdisjoint(agents))
            and (not self.subjects or not self.subjects.isdisjoint(subjects))
            and (not self.before or "" < record.at < self.before)
        )

    def has(self, pointer: str) -> bool:
        """Return whether a text stands at one of the pointers, or below it."""
        return not self.pointers or any(
            pointer == chosen or pointer.startswith(f"{chosen}/") for chosen in self.pointers
        )

    def words(self) -> str:
        """Return the conditions as text, for the record of the erasure."""
        conditions = (
            ("decision", self.decisions),
            ("session", self.sessions),
            ("agent", self.agents),
            ("subject", self.subjects),
            ("before", {self.before} - {""}),
            ("pointer", self.pointers),
        )
        return " ".join(
            f"{name}={value}" for name, values in conditions for value in sorted(values)
        )


@dataclass(slots=True)
class ErasureFile:
    """A file of the log with texts to erase."""

    path: Path
    """The file."""
    texts: Counter[str] = field(default_factory=Counter)
    """Number of texts by JSON pointer."""
    records: int = 0
    """Number of records that have them."""
    left: str = ""
    """Reason why the texts are not erased; empty if they are."""

    @property
    def count(self) -> int:
        """Number of texts."""
        return self.texts.total()


@dataclass(frozen=True, slots=True)
class Erasure:
    """Texts that a selection finds in a log."""

    log: Path
    """The audit file."""
    selection: TextSelection
    """The selection."""
    files: list[ErasureFile]
    """Files with such texts, oldest first."""

    @property
    def erasable(self) -> list[ErasureFile]:
        """Files of which the texts can be erased."""
        return [file for file in self.files if not file.left]

    @property
    def left(self) -> list[ErasureFile]:
        """Files of which the texts are left."""
        return [file for file in self.files if file.left]


def plan_erasure(
    log: Path, selection: TextSelection, undelivered: Callable[[Path], Sequence[str]]
) -> Erasure:
    """Find the texts of a selection, and the files of which they can be erased. Nothing is changed.

    Args:
        log: The audit file of a node. Its rotated files stand beside it.
        selection: The texts.
        undelivered: Returns the sinks that lack records of a file. Their texts are left.

    Raises:
        UnavailableError: A file cannot be read.
    """
    ended = _ended_segments(log.with_name(f"{log.name}.heads"))
    files = []
    for path in rotated(log, "", 0):
        if not path.exists():
            continue
        file, segments = _look_at(path, selection)
        if not file.count:
            continue
        file.left = file.left or _reason_to_leave(path, log, segments - ended, undelivered(path))
        files.append(file)
    return Erasure(log, selection, files)


def _reason_to_leave(path: Path, log: Path, is_open: set[int], sinks: Sequence[str]) -> str:
    if path == log:
        return "the node writes to it; its segment is open"
    if is_open:
        return f"segment {min(is_open)} is open: no head ends it"
    if _is_locked(path):
        return "a process writes to it"
    if sinks:
        return f"not delivered to {', '.join(sinks)}"
    return ""


def _ended_segments(heads: Path) -> set[int]:
    """Return the segments that ended, of which the file of heads has the last head."""
    if not heads.exists():
        return set()
    ended = set()
    with open_log(heads) as stream:
        while line := stream.readline(_MAX_LINE):
            with suppress(HeadError):
                ended.add(read_head(line.rstrip(b"\n")).head.segment)
    return ended


def _look_at(path: Path, selection: TextSelection) -> tuple[ErasureFile, set[int]]:
    """Count the texts of a selection in a file, and return the segments of its lines."""
    file, segments, damaged = ErasureFile(path), set(), 0
    with open_log(path) as stream:
        for line in _lines(stream.readline):
            if (link := read_link(line.rstrip(b"\n"))) is not None:
                segments.add(link.segment)
            try:
                _, pointers = _erased(line, selection)
            except ValueError:
                damaged += 1
                pointers = ("",)
            file.records += bool(pointers)
            file.texts.update(pointers)
    if damaged:
        file.left = f"texts of {damaged} records are damaged: see `authz audit verify`"
    return file, segments


def _erased(line: bytes, selection: TextSelection) -> tuple[bytes, tuple[str, ...]]:
    """Return a line without the texts of a selection, and the pointers of these texts.

    Raises:
        ValueError: The texts of the line are damaged.
    """
    text = line.removesuffix(b"\n")
    if not text.startswith(_TEXTS) or read_link(text) is None or not selection.selects(text):
        return line, ()
    erased = erase_texts(text, selection.has)
    if len(erased.line) != len(text) or covered(erased.line) != covered(text):
        raise ValueError("the line would change")
    return erased.line + line[len(text) :], erased.pointers


def _lines(readline: Callable[[int], bytes]) -> Iterator[bytes]:
    while line := readline(_MAX_LINE):
        yield line


def erase_files(erasure: Erasure) -> list[ErasureFile]:
    """Erase the texts of the files that can be erased. Return these files as they were found now.

    Raises:
        UnavailableError: A file cannot be replaced, or another erasure runs. Files before it are erased, and it stays as it was.
    """
    with _lock(erasure.log.parent):
        _remove_unfinished(erasure.log)
        return [_replace(file.path, erasure.selection) for file in erasure.erasable]


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """Keep other erasures out of a folder."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise UnavailableError(f"{folder} cannot be read: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise UnavailableError(f"another erasure runs in {folder}") from error
    finally:
        os.close(descriptor)


def _is_locked(path: Path) -> bool:
    """Return whether a process has the lock of a file, as a node has of the file that it writes."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError as error:
        raise UnavailableError(f"{path} cannot be read: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _aside(path: Path) -> Path:
    # No name of a file of the log begins like this: readers and sinks never see it.
    return path.with_name(f".{path.name}{_ASIDE}")


def _remove_unfinished(log: Path) -> None:
    """Remove copies that a crash left unfinished."""
    for path in log.parent.glob(f".{log.name}*{_ASIDE}"):
        path.unlink(missing_ok=True)


def _replace(path: Path, selection: TextSelection) -> ErasureFile:
    aside = _aside(path)
    try:
        with _opened(path) as source:
            before = os.fstat(source.fileno())
            try:
                file = _write_copy(path, source, before, aside, selection)
                _check_unchanged(path, before)
                aside.replace(path)
            except BaseException:
                aside.unlink(missing_ok=True)
                raise
        _flush_folder(path.parent)
    except (OSError, EOFError, zlib.error, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UnavailableError(f"texts of {path} were not erased: {reason}") from error
    return file


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """Open a file of the log, and keep its lock: a file that a node writes to is refused."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    with os.fdopen(descriptor, "rb") as stream:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(f"{path} is not a regular file")
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield stream


def _check_unchanged(path: Path, before: os.stat_result) -> None:
    """Refuse a file that another program replaced, removed or wrote to since it was opened."""
    now = path.lstat()
    if any(
        getattr(now, name) != getattr(before, name)
        for name in ("st_dev", "st_ino", "st_size", "st_mtime_ns")
    ):
        raise OSError("it was changed meanwhile; try again")


def _write_copy(
    path: Path, source: BinaryIO, before: os.stat_result, aside: Path, selection: TextSelection
) -> ErasureFile:
    """Write the copy of a file that lacks the texts, with its owner, mode and times, and flush it to the disk."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(aside, flags, 0o600)
    file = ErasureFile(path)
    with os.fdopen(descriptor, "wb") as target:
        with _unpacked(path, source) as lines, _packed(path, target) as copy:
            for line in _lines(lines.readline):
                text, pointers = _erased(line, selection)
                copy.write(text)
                file.records += bool(pointers)
                file.texts.update(pointers)
        target.flush()
        made = os.fstat(descriptor)
        if (before.st_uid, before.st_gid) != (made.st_uid, made.st_gid):
            os.fchown(descriptor, before.st_uid, before.st_gid)
        # Mode, times and extended attributes: logs are put in order by their times.
        shutil.copystat(path, aside, follow_symlinks=False)
        os.fsync(descriptor)
    return file


@contextmanager
def _unpacked(path: Path, source: BinaryIO) -> Iterator[BinaryIO]:
    if path.suffix != ".gz":
        yield source
        return
    with gzip.GzipFile(fileobj=source) as stream:
        yield cast("BinaryIO", stream)


@contextmanager
def _packed(path: Path, target: BinaryIO) -> Iterator[BinaryIO]:
    if path.suffix != ".gz":
        yield target
        return
    with gzip.GzipFile(filename="", fileobj=target, mode="wb", mtime=0) as stream:
        yield cast("BinaryIO", stream)


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
