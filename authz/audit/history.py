"""The decisions of a span of time, from the audit's files: also those that were rotated away, one record at a time."""

import re
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from authz.audit.past import Past, past
from authz.audit.reader import Lines, Record, read, read_stream
from authz.errors import UnavailableError, UsageError
from authz.model import Diagnostic

__all__ = ["Span", "decisions", "rotated", "span"]

_SPAN: Final = re.compile(r"(\d{1,9})([smhdw])")
_UNITS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_MAX_FILES: Final = 1_000
# A record that was written while the file was moved stands in both files, a few records apart.
_REMEMBERED: Final = 16_384


@dataclass(frozen=True, slots=True)
class Span:
    """From when to when; RFC 3339 in UTC with milliseconds, empty where there is no bound."""

    since: str = ""
    """The first moment."""
    until: str = ""
    """The moment after the last."""

    def holds(self, at: str) -> bool:
        """Tell whether a moment is in it.

        Args:
            at: The moment; empty: unknown.

        Returns:
            Whether it is; an unknown moment only where there is no bound.
        """
        if not at:
            return not self.since and not self.until
        return self.since <= at and (not self.until or at < self.until)


def span(since: str, until: str, now: float) -> Span:
    """Read `--since` and `--until`.

    Args:
        since: `15m`, `24h`, `7d`, a date or a moment; empty: from the beginning.
        until: The same; empty: to the end.
        now: Unix time from which spans count back.

    Returns:
        The span.

    Raises:
        UsageError: One of them is neither.
    """
    found = Span(_moment("--since", since, now), _moment("--until", until, now))
    if found.since and found.until and found.since >= found.until:
        raise UsageError(f"--since {since} is not before --until {until}")
    return found


def _moment(option: str, text: str, now: float) -> str:
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
            f"{option} {text[:80]!r}: write 15m, 24h, 7d, a date (2026-11-25) or a moment (2026-11-25T08:00:00Z)"
        ) from error
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def rotated(path: Path, since: str) -> list[Path]:
    """Find an audit file with those that were rotated away from it: `<name>.1`, `<name>-20261125.gz`.

    Args:
        path: The audit file.
        since: What was last written to before is left out; empty: none is.

    Returns:
        The files, oldest first, the audit file last; it is listed also where it is not there.

    Raises:
        UnavailableError: The folder cannot be read.
    """
    found = []
    try:
        for other in path.parent.iterdir():
            rest = other.name.removeprefix(path.name)
            if rest == other.name or rest[:1] not in {".", "-"} or rest.startswith(".torn-"):
                continue
            if other.is_symlink() or not other.is_file():
                continue
            changed = other.stat().st_mtime
            if since and _written(changed) < since:
                continue
            found.append((changed, other.name, other))
    except OSError as error:
        raise UnavailableError(f"{path.parent} cannot be read: {error.strerror}") from error
    found.sort()
    return [*(other for _, _, other in found[-_MAX_FILES:]), path]


def _written(at: float) -> str:
    moment = datetime.fromtimestamp(at, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def decisions(
    files: Sequence[Path],
    stdin: Lines | None,
    within: Span,
    damaged: Callable[[Diagnostic], None],
) -> Iterator[Past]:
    """Read decisions, each once.

    Args:
        files: Files of the audit, oldest first.
        stdin: Standard input, if it is read too.
        within: Others are left out.
        damaged: Told of each line that is no record.

    Yields:
        Each decision, in the order of its record.

    Raises:
        UnavailableError: A file cannot be read.
    """
    seen: OrderedDict[str, None] = OrderedDict()
    for record in _records(files, stdin, damaged):
        decision = past(record.fields)
        if not within.holds(decision.at):
            continue
        if decision.decision_id:
            if decision.decision_id in seen and not _replaces(record):
                continue
            seen[decision.decision_id] = None
            if len(seen) > _REMEMBERED:
                seen.popitem(last=False)
        yield decision


def _records(
    files: Sequence[Path], stdin: Lines | None, damaged: Callable[[Diagnostic], None]
) -> Iterator[Record]:
    for file in files:
        yield from read(file, damaged)
    if stdin is not None:
        yield from read_stream(stdin, "standard input", damaged)


def _replaces(record: Record) -> bool:
    """Whether an earlier record of the same id was not answered."""
    result = record.fields.get("result")
    return isinstance(result, dict) and "instead_of" in result
