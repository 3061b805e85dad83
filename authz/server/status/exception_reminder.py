"""Exceptions that need attention: those of the bundle that have expired or expire soon, and break-glass."""

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final

__all__ = ["WARNED_DAYS", "breakglass_in_force", "expiring"]

WARNED_DAYS: Final = 14
"""Number of days before the end of an exception in which readiness warns. `authz check` warns in the same days."""

_DAY: Final = 86_400.0


def expiring(exceptions: Iterable[Mapping[str, Any]], now: float) -> Iterator[str]:
    """Yield one line for each exception that has expired, or expires soon.

    Args:
        exceptions: Exceptions, as the engine returns them.
        now: Unix time.
    """
    for entry in exceptions:
        expires = int(entry["expires_ms"]) / 1000
        if expires - now > WARNED_DAYS * _DAY:
            continue
        end = _moment(expires)
        word = "expires" if now < expires else "expired"
        yield f"exception {entry['name']} {word} at {end} ({entry['owner']}, {entry['ticket']})"


def breakglass_in_force(requests: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Yield one line for each request for break-glass that is in force.

    Args:
        requests: Requests in force, as the engine states them.
    """
    for one in requests:
        calls = f"at {one['system']} for {one['agent'] or 'all callers'}"
        people = f"opened by {one['opened_by']}, confirmed by {one['confirmed_by']}"
        until = _moment(int(one["ends_ms"]) / 1000)
        yield f"break-glass is in force {calls} until {until} ({people}, {one['ticket']})"


def _moment(at: float) -> str:
    moment = datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")
    return moment.replace("+00:00", "Z")
