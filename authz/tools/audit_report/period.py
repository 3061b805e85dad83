"""Period of a report."""

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Final

from authz.errors import UsageError
from authz.tools.catalog.tool import plain

__all__ = ["Period", "read_period", "timestamp"]

_DATE: Final = re.compile(r"\d{4}-\d\d-\d\d")
_MOST_DAYS: Final = 3_660


@dataclass(frozen=True, slots=True)
class Period:
    """Period: RFC 3339 timestamps in UTC with milliseconds, so that texts compare as times do."""

    since: str
    """First timestamp."""
    until: str
    """Timestamp after the last."""

    def holds(self, at: str) -> bool:
        """Return whether a timestamp is in the period; an empty one is not."""
        return self.since <= at < self.until

    def days(self) -> list[str]:
        """Return each day of which a part is in the period."""
        last = datetime.fromisoformat(self.until) - timedelta(milliseconds=1)
        day, days = datetime.fromisoformat(self.since).date(), []
        while day <= last.date():
            days.append(day.isoformat())
            day += timedelta(days=1)
        return days


def read_period(since: str, until: str) -> Period:
    """Read `--from` and `--to`.

    Args:
        since: A date, or a timestamp.
        until: A date, which is in the period as a whole, or a timestamp, at which the period ends.

    Raises:
        UsageError: A value has another form, the period is empty, or it has more than ten years.
    """
    start = _moment("--from", since)
    end = _moment("--to", until)
    if _DATE.fullmatch(until):
        end += timedelta(days=1)
    if start >= end:
        raise UsageError(f"--from {since} is not before --to {until}")
    if end - start > timedelta(days=_MOST_DAYS):
        raise UsageError("--from and --to: at most ten years")
    return Period(timestamp(start), timestamp(end))


def _moment(option: str, text: str) -> datetime:
    try:
        if _DATE.fullmatch(text):
            day = date.fromisoformat(text)
            return datetime(day.year, day.month, day.day, tzinfo=UTC)
        at = datetime.fromisoformat(text)
        return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise UsageError(
            f"{option} {plain(text, 80)}: write a date (2026-11-25) or a timestamp (2026-11-25T08:00:00Z)"
        ) from error


def timestamp(at: datetime) -> str:
    """Write a time as audit records do."""
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
