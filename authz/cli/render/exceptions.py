"""The table of `authz exception list`."""

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final

__all__ = ["exception_rows", "time_left"]

_DAY_MS: Final = 86_400_000
_HOUR_MS: Final = 3_600_000


def exception_rows(entries: Iterable[Mapping[str, Any]], now: float) -> Iterator[list[str]]:
    """Return a row for each exception: name, caller, owner, ticket and time left, and for a node also uses and last use.

    Args:
        entries: Exceptions of `/readyz`, or exceptions of a bundle, which have no uses.
        now: Unix time.
    """
    for entry in entries:
        row = [str(entry[key]) for key in ("name", "who", "owner", "ticket")]
        row.append(time_left(int(entry["expires_ms"]), now))
        if "uses" in entry:
            row += [str(entry["uses"]), _moment(entry["last_used_ms"])]
        yield row


def time_left(expires_ms: int, now: float) -> str:
    """Return the remaining time of an exception: days, hours on the last day, or `expired`."""
    left = expires_ms - int(now * 1000)
    if left <= 0:
        return "expired"
    if left < _DAY_MS:
        return f"{left // _HOUR_MS} hours"
    days = left // _DAY_MS
    return "1 day" if days == 1 else f"{days} days"


def _moment(at_ms: int | None) -> str:
    if at_ms is None:
        return "never"
    moment = datetime.fromtimestamp(at_ms / 1000, UTC)
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")
