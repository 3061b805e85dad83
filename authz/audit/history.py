"""Decisions of a span of time, read from audit files and rotated audit files, one record at a time."""

import re
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from authz.audit.decision import RecordedDecision, is_node_record, read_decision
from authz.audit.reader import Lines, Record, read, read_stream
from authz.errors import UnavailableError, UsageError
from authz.model import Diagnostic

__all__ = [
    "ReadCounts",
    "Span",
    "decision_records",
    "decisions",
    "is_rotated_name",
    "read_timestamp",
    "rotated",
    "span",
    "torn",
]

_SPAN: Final = re.compile(r"(\d{1,9})([smhdw])")
_UNITS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_MAX_FILES: Final = 1_000
# Files beside an audit file that are not logs: unfinished lines, heads of segments, and cursors of sinks.
_NO_LOG: Final = (".torn-", ".head", ".sink-")
# A record that was written while the file was moved stands in both files, a few records apart.
_REMEMBERED: Final = 16_384


@dataclass(frozen=True, slots=True)
class Span:
    """Span of time: RFC 3339 timestamps in UTC with milliseconds; empty without a bound."""

    since: str = ""
    """First timestamp."""
    until: str = ""
    """Timestamp after the last."""

    def holds(self, at: str) -> bool:
        """Return whether a timestamp is in the span; an unknown one (empty) is only in a span without bounds."""
        if not at:
            return not self.since and not self.until
        return self.since <= at and (not self.until or at < self.until)


def span(since: str, until: str, now: float) -> Span:
    """Read `--since` and `--until`.

    Args:
        since: `15m`, `24h`, `7d`, a date or a timestamp; empty: from the first record.
        until: The same forms; empty: to the last record.
        now: Unix time that `15m` and the like count back from.

    Raises:
        UsageError: A value has another form, or `since` is not before `until`.
    """
    within = Span(read_timestamp("--since", since, now), read_timestamp("--until", until, now))
    if within.since and within.until and within.since >= within.until:
        raise UsageError(f"--since {since} is not before --until {until}")
    return within


def read_timestamp(option: str, text: str, now: float) -> str:
    """Read a time of an option.

    Args:
        option: Name of the option, for messages.
        text: `15m`, `24h`, `7d`, a date or a timestamp; empty: no time.
        now: Unix time that `15m` and the like count back from.

    Returns:
        RFC 3339 timestamp in UTC with milliseconds; empty for an empty text.

    Raises:
        UsageError: The text has another form.
    """
    if not text:
        return ""
    try:
        if match := _SPAN.fullmatch(text):
            back = timedelta(seconds=int(match[1]) * _UNITS[match[2]])
            at = datetime.fromtimestamp(now, UTC) - back
        else:
            at = datetime.fromisoformat(text)
            at = at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise UsageError(
            f"{option} {text[:80]!r}: write 15m, 24h, 7d, a date (2026-11-25) or a timestamp (2026-11-25T08:00:00Z)"
        ) from error
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def is_rotated_name(name: str, log: str) -> bool:
    """Return whether a file beside an audit file is named as one that was rotated from it.

    Args:
        name: Name of the file.
        log: Name of the audit file.
    """
    rest = name.removeprefix(log)
    return rest != name and rest[:1] in {".", "-"} and not rest.startswith(_NO_LOG)


def rotated(path: Path, since: str, most: int = _MAX_FILES) -> list[Path]:
    """List an audit file after the files that were rotated from it, for example `<name>.1` and `<name>-20261125.gz`.

    Args:
        path: The audit file. It is listed even if it does not exist.
        since: Timestamp; files that were last written before are left out. Empty: no file is.
        most: Number of rotated files; older ones are left out. 0: no file is.

    Returns:
        The files, oldest first.

    Raises:
        UnavailableError: The folder cannot be read.
    """
    others = []
    try:
        for other in path.parent.iterdir():
            if not is_rotated_name(other.name, path.name):
                continue
            if other.is_symlink() or not other.is_file():
                continue
            changed = other.stat().st_mtime
            if since and _written(changed) < since:
                continue
            others.append((changed, other.name, other))
    except OSError as error:
        raise UnavailableError(f"{path.parent} cannot be read: {error.strerror}") from error
    others.sort()
    return [*(other for _, _, other in others[-most:]), path]


def torn(path: Path) -> list[Path]:
    """List the files to which a node moved lines that a crash left unfinished, for example `<name>.torn-1`.

    Args:
        path: The audit file.

    Raises:
        UnavailableError: The folder cannot be read.
    """
    try:
        found = [
            other
            for other in path.parent.iterdir()
            if other.name.startswith(f"{path.name}.torn-") and other.is_file()
        ]
    except OSError as error:
        raise UnavailableError(f"{path.parent} cannot be read: {error.strerror}") from error
    return sorted(found)


def _written(at: float) -> str:
    moment = datetime.fromtimestamp(at, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclass(slots=True)
class ReadCounts:
    """Numbers of the read records, by result."""

    records: int = 0
    """Records."""
    bytes: int = 0
    """Bytes of these records."""
    node_records: int = 0
    """Records of a node that are not decisions."""
    repeated: int = 0
    """Records of a decision that was read before."""
    outside: int = 0
    """Decisions outside the span of time."""


def decisions(
    files: Sequence[Path],
    stdin: Lines | None,
    within: Span,
    damaged: Callable[[Diagnostic], None],
) -> Iterator[RecordedDecision]:
    """Read decisions, each once. Records of a node that are not decisions are left out.

    Args:
        files: Audit files, oldest first.
        stdin: Standard input, to read after the files. With None it is not read.
        within: Span of the decisions.
        damaged: Called with a diagnostic for each line that is not a record.

    Yields:
        Each decision, in the order of its record.

    Raises:
        UnavailableError: A file cannot be read.
    """
    for _, decision in decision_records(files, stdin, within, damaged, ReadCounts()):
        yield decision


def decision_records(
    files: Sequence[Path],
    stdin: Lines | None,
    within: Span,
    damaged: Callable[[Diagnostic], None],
    counts: ReadCounts,
) -> Iterator[tuple[Record, RecordedDecision]]:
    """Read decisions with their records, each once, and count the records that are left out.

    Args:
        files: Audit files, oldest first.
        stdin: Standard input, to read after the files. With None it is not read.
        within: Span of the decisions.
        damaged: Called with a diagnostic for each line that is not a record.
        counts: Numbers of records, which grow while the records are read.

    Yields:
        Each record of a decision, and the decision, in the order of the records.

    Raises:
        UnavailableError: A file cannot be read.
    """
    seen: OrderedDict[str, None] = OrderedDict()
    for record in _records(files, stdin, damaged):
        counts.records += 1
        counts.bytes += len(record.text)
        if is_node_record(record.fields):
            counts.node_records += 1
            continue
        decision = read_decision(record.fields)
        if not within.holds(decision.at):
            counts.outside += 1
            continue
        if decision.decision_id:
            if decision.decision_id in seen and not _replaces(record):
                counts.repeated += 1
                continue
            seen[decision.decision_id] = None
            if len(seen) > _REMEMBERED:
                seen.popitem(last=False)
        yield record, decision


def _records(
    files: Sequence[Path], stdin: Lines | None, damaged: Callable[[Diagnostic], None]
) -> Iterator[Record]:
    for file in files:
        yield from read(file, damaged)
    if stdin is not None:
        yield from read_stream(stdin, "standard input", damaged)


def _replaces(record: Record) -> bool:
    """Return whether the record replaces an earlier one of the same id, which was not answered."""
    result = record.fields.get("result")
    return isinstance(result, dict) and "instead_of" in result
